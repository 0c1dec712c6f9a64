//! Small random models, written as the hub's are, and what they must answer: computed plainly, in
//! `f64`, one text and one element at a time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

/// What the tiny tokenizer knows; the rest is `[UNK]`.
pub(crate) const WORDS: [&str; 16] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "a", "cat", "dog", "sat", "on", "mat", "##s", "ran",
    "fast", ".", "ü",
];

/// A model to be written.
#[derive(Clone)]
pub(crate) struct Tiny {
    pub(crate) config: Value,
    pub(crate) tokenizer: Value,
    pub(crate) tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    pub(crate) dtype: Dtype,
    /// What stands before every tensor's name.
    pub(crate) prefix: &'static str,
    /// More files.
    pub(crate) files: BTreeMap<&'static str, Value>,
}

/// Sizes of a tiny model.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) layers: usize,
    pub(crate) wide: usize,
    pub(crate) positions: usize,
}

/// No size is a multiple of any vector's width.
pub(crate) const ODD: Sizes = Sizes {
    hidden: 21,
    heads: 3,
    layers: 2,
    wide: 50,
    positions: 60,
};

impl Tiny {
    pub(crate) fn new(sizes: Sizes) -> Self {
        let Sizes {
            hidden,
            heads,
            layers,
            wide,
            positions,
        } = sizes;
        let mut random = fastrand::Rng::with_seed(7);
        let mut tensors = BTreeMap::new();
        let mut add = |name: String, shape: &[usize], around: f32| {
            let values = (0..shape.iter().product()).map(|_| around + random.f32() - 0.5);
            tensors.insert(name, (shape.to_vec(), values.collect()));
        };
        let words = WORDS.len();
        for (name, rows) in [("word", words), ("position", positions), ("token_type", 2)] {
            let name = format!("embeddings.{name}_embeddings.weight");
            add(name, &[rows, hidden], 0.0);
        }
        let mut norms = vec!["embeddings".to_owned()];
        let mut denses = Vec::new();
        for layer in 0..layers {
            let at = format!("encoder.layer.{layer}");
            for part in ["query", "key", "value"] {
                denses.push((format!("{at}.attention.self.{part}"), hidden, hidden));
            }
            denses.push((format!("{at}.attention.output.dense"), hidden, hidden));
            denses.push((format!("{at}.intermediate.dense"), wide, hidden));
            denses.push((format!("{at}.output.dense"), hidden, wide));
            norms.push(format!("{at}.attention.output"));
            norms.push(format!("{at}.output"));
        }
        for (name, out, from) in denses {
            add(format!("{name}.weight"), &[out, from], 0.0);
            add(format!("{name}.bias"), &[out], 0.0);
        }
        for name in norms {
            add(format!("{name}.LayerNorm.weight"), &[hidden], 1.0);
            add(format!("{name}.LayerNorm.bias"), &[hidden], 0.0);
        }
        Tiny {
            config: json!({
                "model_type": "bert", "architectures": ["BertModel"], "hidden_act": "gelu",
                "vocab_size": words, "hidden_size": hidden, "num_hidden_layers": layers,
                "num_attention_heads": heads, "intermediate_size": wide,
                "max_position_embeddings": positions, "type_vocab_size": 2,
                "layer_norm_eps": 1e-12, "position_embedding_type": "absolute",
            }),
            tokenizer: tokenizer(),
            tensors,
            dtype: Dtype::F32,
            prefix: "",
            files: BTreeMap::new(),
        }
    }

    /// Stores the weights as `dtype`, and rounds them as that does.
    pub(crate) fn stored_as(mut self, dtype: Dtype) -> Self {
        for (_, values) in self.tensors.values_mut() {
            for value in values {
                *value = match dtype {
                    Dtype::F16 => f16::from_f32(*value).to_f32(),
                    Dtype::BF16 => bf16::from_f32(*value).to_f32(),
                    _ => *value,
                };
            }
        }
        self.dtype = dtype;
        self
    }

    /// Writes it into a folder of its own.
    pub(crate) fn write(&self, name: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        fs::write(folder.join("tokenizer.json"), self.tokenizer.to_string()).unwrap();
        for (name, value) in &self.files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value.to_string()).unwrap();
        }
        self.write_weights(&folder.join("model.safetensors"));
        folder
    }

    pub(crate) fn write_weights(&self, path: &Path) {
        let bytes = |values: &[f32]| -> Vec<u8> {
            let each = |&value: &f32| match self.dtype {
                Dtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
                Dtype::BF16 => bf16::from_f32(value).to_le_bytes().to_vec(),
                Dtype::F64 => f64::from(value).to_le_bytes().to_vec(),
                _ => value.to_le_bytes().to_vec(),
            };
            values.iter().flat_map(each).collect()
        };
        let stored: Vec<_> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| {
                (
                    format!("{}{name}", self.prefix),
                    shape.clone(),
                    bytes(values),
                )
            })
            .collect();
        let views = stored.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(self.dtype, shape.clone(), bytes).unwrap();
            (name.as_str(), view)
        });
        fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    /// The last layer's rows for one text.
    fn rows(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        let size = |field: &str| self.config[field].as_u64().unwrap() as usize;
        let (hidden, heads) = (size("hidden_size"), size("num_attention_heads"));
        let table = |name: &str| &self.tensors[&format!("embeddings.{name}_embeddings.weight")].1;
        let mut rows: Vec<Vec<f64>> = tokens
            .iter()
            .enumerate()
            .map(|(position, &token)| {
                let cell = |column: usize| {
                    let word = table("word")[token as usize * hidden + column];
                    let place = table("position")[position * hidden + column];
                    f64::from(word) + f64::from(place) + f64::from(table("token_type")[column])
                };
                (0..hidden).map(cell).collect()
            })
            .collect();
        rows.iter_mut().for_each(|row| self.norm("embeddings", row));
        for layer in 0..size("num_hidden_layers") {
            let at = format!("encoder.layer.{layer}");
            let part = |name: &str, rows: &[Vec<f64>]| self.dense(&format!("{at}.{name}"), rows);
            let [q, k, v] = ["query", "key", "value"]
                .map(|name| part(&format!("attention.self.{name}"), &rows));
            let mixed = attend(heads, [&q, &k, &v]);
            self.add_norm(
                &format!("{at}.attention.output"),
                &mut rows,
                &part("attention.output.dense", &mixed),
            );
            let mut wide = part("intermediate.dense", &rows);
            let name = self.config["hidden_act"].as_str().unwrap();
            wide.iter_mut().flatten().for_each(|x| *x = act(name, *x));
            let more = part("output.dense", &wide);
            self.add_norm(&format!("{at}.output"), &mut rows, &more);
        }
        rows
    }

    /// The vector of one text.
    pub(crate) fn expected(&self, tokens: &[u32], first: bool) -> Vec<f64> {
        let rows = self.rows(tokens);
        let mut vector = rows[0].clone();
        if !first {
            for (column, x) in vector.iter_mut().enumerate() {
                *x = rows.iter().map(|row| row[column]).sum::<f64>() / rows.len() as f64;
            }
        }
        let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
        vector.iter_mut().for_each(|x| *x /= length);
        vector
    }

    fn dense(&self, name: &str, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let (shape, weight) = &self.tensors[&format!("{name}.weight")];
        let (_, bias) = &self.tensors[&format!("{name}.bias")];
        let cell = |row: &[f64], out: usize| {
            let weight = &weight[out * shape[1]..][..shape[1]];
            let products = row.iter().zip(weight).map(|(x, w)| x * f64::from(*w));
            products.sum::<f64>() + f64::from(bias[out])
        };
        rows.iter()
            .map(|row| (0..shape[0]).map(|out| cell(row, out)).collect())
            .collect()
    }

    fn norm(&self, at: &str, row: &mut [f64]) {
        let (_, weight) = &self.tensors[&format!("{at}.LayerNorm.weight")];
        let (_, bias) = &self.tensors[&format!("{at}.LayerNorm.bias")];
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
        let epsilon = self.config["layer_norm_eps"].as_f64().unwrap();
        for (column, x) in row.iter_mut().enumerate() {
            *x = (*x - mean) / (variance + epsilon).sqrt() * f64::from(weight[column])
                + f64::from(bias[column]);
        }
    }

    fn add_norm(&self, at: &str, rows: &mut [Vec<f64>], more: &[Vec<f64>]) {
        for (row, more) in rows.iter_mut().zip(more) {
            row.iter_mut().zip(more).for_each(|(x, more)| *x += more);
            self.norm(at, row);
        }
    }
}

fn attend(heads: usize, [q, k, v]: [&[Vec<f64>]; 3]) -> Vec<Vec<f64>> {
    let size = q[0].len() / heads;
    let mut out = vec![vec![0.0; q[0].len()]; q.len()];
    for columns in (0..heads).map(|head| head * size..(head + 1) * size) {
        for (q, out) in q.iter().zip(&mut out) {
            let score = |k: &Vec<f64>| {
                let products = columns.clone().map(|column| q[column] * k[column]);
                (products.sum::<f64>() / (size as f64).sqrt()).exp()
            };
            let scores: Vec<f64> = k.iter().map(score).collect();
            for (score, v) in scores.iter().zip(v) {
                for column in columns.clone() {
                    out[column] += score / scores.iter().sum::<f64>() * v[column];
                }
            }
        }
    }
    out
}

fn act(name: &str, x: f64) -> f64 {
    match name {
        "gelu" => 0.5 * x * (1.0 + erf(x / 2.0_f64.sqrt())),
        "gelu_new" => {
            0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x.powi(3))).tanh())
        }
        "relu" => x.max(0.0),
        "silu" => x / (1.0 + (-x).exp()),
        other => panic!("no activation {other}"),
    }
}

/// The error function by its series, summed until nothing is added.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut sum, mut term) = (x, x);
    for n in 1..200 {
        let n = f64::from(n);
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn tokenizer() -> Value {
    let vocab: BTreeMap<_, _> = WORDS
        .iter()
        .zip(0..)
        .map(|(word, id)| (*word, id))
        .collect();
    let special = |id: usize| {
        json!({"id": id, "content": WORDS[id], "special": true, "single_word": false,
               "lstrip": false, "rstrip": false, "normalized": false})
    };
    let around = |name: &str| json!({"SpecialToken": {"id": name, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let known = |name: &str, id: usize| json!({"id": name, "ids": [id], "tokens": [name]});
    json!({
        "version": "1.0",
        // As in the wild: whoever saved it last cut and padded.
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [special(0), special(1), special(2), special(3)],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": false, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [around("[CLS]"), text, around("[SEP]")],
            "pair": [around("[CLS]"), text, around("[SEP]")],
            "special_tokens": {"[CLS]": known("[CLS]", 2), "[SEP]": known("[SEP]", 3)},
        },
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocab},
    })
}
