//! BERT: the encoder of most small sentence models, with absolute positions.

use std::sync::Arc;

use super::Architecture;
use crate::cpu::{Activation, Attention, Linear, Norm, Scratch, Unit, add_norm};
use crate::embedder::{Embedder, Encoder};
use crate::error::Place;
use crate::load::{Folder, Json};
use crate::weights::Weights;
use crate::{Engine, LoadError, LoadOptions};

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "bert",
    heads: &[
        "BertModel",
        "BertForMaskedLM",
        "BertForPreTraining",
        "BertForSequenceClassification",
    ],
    build,
};

fn build(folder: &Folder, options: &LoadOptions) -> Result<Arc<dyn Engine>, LoadError> {
    let config = Config::read(&folder.config)?;
    let weights = folder.weights()?;
    let weights = weights.with_prefix("bert.", "embeddings.word_embeddings.weight");
    let bert = Bert::new(config, &weights)?;
    Ok(Arc::new(Embedder::new(bert, &weights, (folder, options))?))
}

/// What `config.json` says.
struct Config {
    vocabulary: usize,
    hidden: usize,
    layers: usize,
    heads: usize,
    wide: usize,
    positions: usize,
    types: usize,
    epsilon: f32,
    activation: Activation,
}

impl Config {
    fn read(json: &Json) -> Result<Self, LoadError> {
        let size = |field| match json.required(field)? {
            0_usize => Err(json.place(field).expected("at least 1", 0)),
            size => Ok(size),
        };
        let config = Config {
            vocabulary: size("vocab_size")?,
            hidden: size("hidden_size")?,
            layers: size("num_hidden_layers")?,
            heads: size("num_attention_heads")?,
            wide: size("intermediate_size")?,
            positions: size("max_position_embeddings")?,
            types: json.field("type_vocab_size")?.unwrap_or(2),
            epsilon: json.field("layer_norm_eps")?.unwrap_or(1e-12),
            activation: activation(json)?,
        };
        let (hidden, heads) = (config.hidden, config.heads);
        if !hidden.is_multiple_of(heads) {
            let place = json.place("num_attention_heads");
            return Err(place.expected(format!("a divisor of hidden_size {hidden}"), heads));
        }
        let positions: Option<String> = json.field("position_embedding_type")?;
        if let Some(found) = positions.filter(|found| found != "absolute") {
            let place = json.place("position_embedding_type");
            return Err(place.expected("absolute", found));
        }
        for field in ["is_decoder", "add_cross_attention"] {
            if json.field(field)? == Some(true) {
                return Err(json.place(field).expected(false, true));
            }
        }
        Ok(config)
    }
}

fn activation(json: &Json) -> Result<Activation, LoadError> {
    let name: Option<String> = json.field("hidden_act")?;
    match name.as_deref().unwrap_or("gelu") {
        "gelu" | "gelu_python" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        other => {
            let known = "one of: gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu, silu";
            Err(json.place("hidden_act").expected(known, other))
        }
    }
}

struct Bert {
    unit: Unit,
    config: Config,
    /// A row per token.
    words: Vec<f32>,
    /// A row per position, the first token type's row added.
    positions: Vec<f32>,
    first: Norm,
    attention: Attention,
    layers: Vec<Layer>,
}

struct Layer {
    qkv: Linear,
    mix: Linear,
    after_attention: Norm,
    up: Linear,
    down: Linear,
    after_wide: Norm,
}

impl Bert {
    fn new(config: Config, weights: &Weights) -> Result<Self, LoadError> {
        let unit = Unit::new();
        let hidden = config.hidden;
        let table = |name: &str, rows| {
            let name = format!("embeddings.{name}_embeddings.weight");
            weights.tensor(&name, &[rows, hidden])
        };
        let words = table("word", config.vocabulary)?;
        let mut positions = table("position", config.positions)?;
        // A text alone is all of the first type: its row can be added beforehand.
        if config.types > 0 {
            let types = table("token_type", config.types)?;
            for row in positions.chunks_exact_mut(hidden) {
                row.iter_mut().zip(&types).for_each(|(x, more)| *x += more);
            }
        }
        let reader = Reader {
            unit,
            weights,
            epsilon: config.epsilon,
        };
        let first = reader.norm("embeddings", hidden)?;
        let layers = (0..config.layers)
            .map(|index| reader.layer(&format!("encoder.layer.{index}"), &config))
            .collect::<Result<_, _>>()?;
        if let Some(name) = surplus(weights, config.layers) {
            let place = Place {
                path: weights.path(),
                at: &name,
            };
            let expected = format!("no layer but the config's {}", config.layers);
            return Err(place.expected(expected, "its tensor"));
        }
        Ok(Bert {
            unit,
            attention: Attention::new(unit, config.heads, hidden / config.heads),
            config,
            words,
            positions,
            first,
            layers,
        })
    }
}

/// A tensor of a layer that the config does not have.
fn surplus(weights: &Weights, layers: usize) -> Option<String> {
    weights.names().find(|name| {
        let rest = name.strip_prefix("encoder.layer.");
        let index = rest.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        index.is_some_and(|index| index >= layers)
    })
}

struct Reader<'a> {
    unit: Unit,
    weights: &'a Weights,
    epsilon: f32,
}

impl Reader<'_> {
    /// Weight and bias of a dense layer.
    fn dense(&self, name: &str, shape: [usize; 2]) -> Result<(Vec<f32>, Vec<f32>), LoadError> {
        Ok((
            self.weights.tensor(&format!("{name}.weight"), &shape)?,
            self.weights.tensor(&format!("{name}.bias"), &shape[..1])?,
        ))
    }

    fn linear(&self, name: &str, shape: [usize; 2]) -> Result<Linear, LoadError> {
        let (weight, bias) = self.dense(name, shape)?;
        Ok(Linear::new(self.unit, &weight, &bias))
    }

    fn norm(&self, place: &str, width: usize) -> Result<Norm, LoadError> {
        // The first releases of BERT were converted from TensorFlow with its names.
        let read = |name: &str, old: &str| {
            let new = format!("{place}.LayerNorm.{name}");
            let old = format!("{place}.LayerNorm.{old}");
            let name = if self.weights.has(&old) { old } else { new };
            self.weights.tensor(&name, &[width])
        };
        Ok(Norm {
            weight: read("weight", "gamma")?,
            bias: read("bias", "beta")?,
            epsilon: self.epsilon,
        })
    }

    fn layer(&self, at: &str, config: &Config) -> Result<Layer, LoadError> {
        let (hidden, wide) = (config.hidden, config.wide);
        let name = |part: &str| format!("{at}.{part}");
        Ok(Layer {
            qkv: self.qkv(&name("attention.self"), config)?,
            mix: self.linear(&name("attention.output.dense"), [hidden, hidden])?,
            after_attention: self.norm(&name("attention.output"), hidden)?,
            up: self.linear(&name("intermediate.dense"), [wide, hidden])?,
            down: self.linear(&name("output.dense"), [hidden, wide])?,
            after_wide: self.norm(&name("output"), hidden)?,
        })
    }

    /// Queries, keys and values in one product, the scale of the scores in the queries' weights.
    fn qkv(&self, at: &str, config: &Config) -> Result<Linear, LoadError> {
        let hidden = config.hidden;
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for part in ["query", "key", "value"] {
            let (w, b) = self.dense(&format!("{at}.{part}"), [hidden, hidden])?;
            weight.extend(w);
            bias.extend(b);
        }
        let scale = 1.0 / ((hidden / config.heads) as f32).sqrt();
        let queries = weight[..hidden * hidden].iter_mut();
        queries.chain(&mut bias[..hidden]).for_each(|x| *x *= scale);
        Ok(Linear::new(self.unit, &weight, &bias))
    }
}

impl Encoder for Bert {
    fn hidden(&self) -> usize {
        self.config.hidden
    }

    fn positions(&self) -> usize {
        self.config.positions
    }

    fn vocabulary(&self) -> usize {
        self.config.vocabulary
    }

    fn word_vector(&self, token: u32) -> Option<&[f32]> {
        let start = usize::try_from(token)
            .ok()?
            .checked_mul(self.config.hidden)?;
        self.words.get(start..)?.get(..self.config.hidden)
    }

    fn forward(&self, texts: &[&[u32]], scratch: &mut Scratch) {
        let hidden = self.config.hidden;
        let total: usize = texts.iter().map(|text| text.len()).sum();
        let Scratch {
            rows,
            more,
            qkv,
            heads,
            wide,
            attention,
            tiles,
        } = scratch;
        rows.clear();
        more.clear();
        for text in texts {
            for (&token, position) in text.iter().zip(self.positions.chunks_exact(hidden)) {
                rows.extend_from_slice(self.word_vector(token).unwrap_or_default());
                more.extend_from_slice(position);
            }
        }
        add_norm(self.unit, &self.first, rows, more);
        qkv.resize(total * 3 * hidden, 0.0);
        heads.resize(total * hidden, 0.0);
        wide.resize(total * self.config.wide, 0.0);
        for layer in &self.layers {
            layer.qkv.apply(rows, None, (qkv, tiles));
            let mut start = 0;
            for text in texts {
                let end = start + text.len();
                let from = &qkv[start * 3 * hidden..end * 3 * hidden];
                let to = &mut heads[start * hidden..end * hidden];
                self.attention.apply(from, to, (attention, tiles));
                start = end;
            }
            layer.mix.apply(heads, None, (more, tiles));
            add_norm(self.unit, &layer.after_attention, rows, more);
            layer
                .up
                .apply(rows, Some(self.config.activation), (wide, tiles));
            layer.down.apply(wide, None, (more, tiles));
            add_norm(self.unit, &layer.after_wide, rows, more);
        }
    }
}
