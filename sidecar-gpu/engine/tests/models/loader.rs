//! Every fault of a model's folder is named: the file, the place in it, what is there, what fits.

use std::fs;
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Value, json};
use sluice_engine::{LoadOptions, load};

use crate::tiny::{ODD, Tiny};

/// What loading says about it, without the folder.
fn fault(tiny: &Tiny, name: &str) -> String {
    fault_of(&tiny.write(name))
}

fn fault_of(folder: &Path) -> String {
    match load(folder, &LoadOptions::default()) {
        Ok(_) => panic!("{} was loaded", folder.display()),
        Err(error) => {
            let text = error.to_string();
            let start = format!("{}/", folder.display());
            let rest = text.strip_prefix(&start);
            rest.unwrap_or_else(|| panic!("{text}")).to_owned()
        }
    }
}

fn with(change: impl FnOnce(&mut Tiny)) -> Tiny {
    let mut tiny = Tiny::new(ODD);
    change(&mut tiny);
    tiny
}

#[test]
fn a_file_that_is_missing_or_no_json_is_named() {
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let folder = Tiny::new(ODD).write(&format!("missing-{name}"));
        fs::remove_file(folder.join(name)).unwrap();
        let fault = fault_of(&folder);
        assert!(
            fault.starts_with(&format!("{name}: No such file")),
            "{fault}"
        );
    }
    let folder = Tiny::new(ODD).write("no-json");
    fs::write(folder.join("config.json"), "{\n  \"model_type\": bert}").unwrap();
    let fault = fault_of(&folder);
    assert!(
        fault.starts_with("config.json: line 2, column 17: expected JSON, found "),
        "{fault}"
    );
    let folder = Tiny::new(ODD).write("no-tokenizer");
    fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    let fault = fault_of(&folder);
    assert!(
        fault.starts_with("tokenizer.json: tokenizer: expected a tokenizer, found "),
        "{fault}"
    );
    for bytes in [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff{}", &[b'x'; 99]] {
        let folder = Tiny::new(ODD).write("no-safetensors");
        fs::write(folder.join("model.safetensors"), bytes).unwrap();
        let fault = fault_of(&folder);
        assert!(
            fault.starts_with("model.safetensors: header: expected safetensors, found "),
            "{fault}"
        );
    }
}

#[test]
fn a_weights_file_that_was_cut_anywhere_is_refused() {
    let folder = Tiny::new(ODD).write("cut");
    let path = folder.join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(whole.len() / 50) {
        fs::write(&path, &whole[..length]).unwrap();
        let fault = fault_of(&folder);
        assert!(fault.starts_with("model.safetensors: header: "), "{fault}");
    }
}

#[test]
fn a_field_of_the_config_that_does_not_fit_is_named() {
    let cases = [
        (
            "model_type",
            json!("llama"),
            "expected one of: bert, found llama",
        ),
        (
            "model_type",
            Value::Null,
            "expected a string, found nothing",
        ),
        ("architectures", json!(["T5Model"]), "found T5Model"),
        (
            "architectures",
            json!("BertModel"),
            "expected a list of strings, found \"BertModel\"",
        ),
        (
            "hidden_size",
            Value::Null,
            "expected a whole number, found nothing",
        ),
        (
            "hidden_size",
            json!("21"),
            "expected a whole number, found \"21\"",
        ),
        ("vocab_size", json!(-1), "expected a whole number, found -1"),
        (
            "num_hidden_layers",
            json!(0),
            "expected at least 1, found 0",
        ),
        (
            "num_attention_heads",
            json!(4),
            "expected a divisor of hidden_size 21, found 4",
        ),
        ("hidden_act", json!("mish"), "found mish"),
        (
            "position_embedding_type",
            json!("relative_key"),
            "expected absolute, found relative_key",
        ),
        ("is_decoder", json!(true), "expected false, found true"),
        (
            "layer_norm_eps",
            json!("small"),
            "expected a number, found \"small\"",
        ),
    ];
    for (field, value, expected) in cases {
        let tiny = with(|tiny| tiny.config[field] = value);
        let fault = fault(&tiny, "config-field");
        let start = format!("config.json: {field}: expected ");
        assert!(fault.starts_with(&start), "{fault}");
        assert!(fault.ends_with(expected), "{fault}");
    }
}

#[test]
fn a_tensor_that_does_not_fit_the_config_is_named() {
    let name = "encoder.layer.1.attention.self.key.weight";
    for prefix in ["", "bert."] {
        let missing = with(|tiny| {
            tiny.prefix = prefix;
            tiny.tensors.remove(name);
        });
        assert_eq!(
            fault(&missing, "tensor-missing"),
            format!(
                "model.safetensors: {prefix}{name}: expected a tensor of shape [21, 21], \
                 found no such tensor"
            )
        );
    }
    let turned = with(|tiny| {
        let name = "encoder.layer.0.intermediate.dense.weight";
        tiny.tensors.get_mut(name).unwrap().0 = vec![21, 50];
    });
    assert_eq!(
        fault(&turned, "tensor-shape"),
        "model.safetensors: encoder.layer.0.intermediate.dense.weight: \
         expected a tensor of shape [50, 21], found shape [21, 50]"
    );
    let double = with(|tiny| tiny.dtype = Dtype::F64);
    assert_eq!(
        fault(&double, "tensor-dtype"),
        "model.safetensors: embeddings.word_embeddings.weight: \
         expected F32, F16 or BF16, found F64"
    );
    let broken = with(|tiny| tiny.tensors.get_mut(name).unwrap().1[5] = f32::NAN);
    assert_eq!(
        fault(&broken, "tensor-nan"),
        format!("model.safetensors: {name}: expected finite numbers, found NaN as element 5")
    );
}

#[test]
fn a_config_with_more_or_fewer_layers_than_the_weights_is_refused() {
    let more = with(|tiny| tiny.config["num_hidden_layers"] = json!(1_000_000_000));
    let text = fault(&more, "layers-more");
    assert!(
        text.starts_with("model.safetensors: encoder.layer.2.attention.self.query.weight: "),
        "{text}"
    );
    let fewer = with(|tiny| tiny.config["num_hidden_layers"] = json!(1));
    let text = fault(&fewer, "layers-fewer");
    assert!(
        text.starts_with("model.safetensors: encoder.layer.1."),
        "{text}"
    );
    assert!(
        text.contains("expected no layer but the config's 1"),
        "{text}"
    );
}

#[test]
fn a_vocabulary_that_does_not_fit_the_table_is_refused() {
    let tiny = with(|tiny| tiny.tokenizer["model"]["vocab"]["horse"] = json!(16));
    assert_eq!(
        fault(&tiny, "vocabulary"),
        "tokenizer.json: vocabulary: expected ids below 16 (config.json: vocab_size), \
         found 16 for \"horse\""
    );
    // An empty text would have no tokens, and so no vector.
    let bare = with(|tiny| tiny.tokenizer["post_processor"] = Value::Null);
    let text = fault(&bare, "no-post-processor");
    assert!(
        text.starts_with("tokenizer.json: post_processor: expected tokens around"),
        "{text}"
    );
}

#[test]
fn a_limit_that_leaves_no_room_for_a_text_is_refused() {
    let options = LoadOptions {
        max_tokens: Some(1),
        ..LoadOptions::default()
    };
    let error = load(Tiny::new(ODD).write("no-room"), &options)
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(
        text.ends_with("expected at most 1 tokens around a text, found 2"),
        "{text}"
    );
}

#[test]
fn a_way_of_pooling_that_would_give_other_vectors_is_refused() {
    let cases = [
        (
            "1_Pooling/config.json",
            json!({"pooling_mode_max_tokens": true}),
            "1_Pooling/config.json: pooling_mode: expected pooling_mode_mean_tokens or \
             pooling_mode_cls_token, one of them, found pooling_mode_max_tokens",
        ),
        (
            "1_Pooling/config.json",
            json!({"pooling_mode_mean_tokens": true, "word_embedding_dimension": 384}),
            "1_Pooling/config.json: word_embedding_dimension: expected 21 \
             (config.json: hidden_size), found 384",
        ),
        (
            "modules.json",
            json!([{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]),
            "modules.json: [0].type: expected Transformer, Pooling or Normalize, \
             found \"sentence_transformers.models.Dense\"",
        ),
        (
            "modules.json",
            json!([{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]),
            "1_Pooling/config.json: file: expected the pooling that modules.json names, found none",
        ),
        (
            "modules.json",
            json!({}),
            "modules.json: modules: expected a list, found {}",
        ),
        (
            "sentence_bert_config.json",
            json!({"do_lower_case": true}),
            "sentence_bert_config.json: do_lower_case: expected false \
             (tokenizer.json decides that), found true",
        ),
    ];
    for (name, value, expected) in cases {
        let tiny = with(|tiny| {
            tiny.files.insert(name, value);
        });
        assert_eq!(fault(&tiny, "pooling"), expected);
    }
}
