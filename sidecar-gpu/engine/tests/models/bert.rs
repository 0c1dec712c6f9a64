//! BERT beside a plain computation of the same, on small random models.

use std::fs;
use std::sync::Arc;

use safetensors::Dtype;
use serde_json::json;
use sluice_engine::{Engine, EngineError, Generate, LoadOptions, Overlong, load};

use crate::tiny::{ODD, Sizes, Tiny};

const TEXTS: [&str; 6] = [
    "The cat sat on the mat.",
    "",
    "dogs ran fast",
    "a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a",
    "Ü, and what nobody knows",
    "The cat sat on the mat!",
];

/// Farther than this apart is another vector.
const NEAR: f64 = 2e-6;

fn engine(tiny: &Tiny, name: &str) -> Arc<dyn Engine> {
    load(tiny.write(name), &LoadOptions::default()).unwrap()
}

fn apart(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    pairs.fold(0.0, |most: f64, (x, y)| most.max((f64::from(*x) - y).abs()))
}

fn check(tiny: &Tiny, name: &str, first: bool) {
    let engine = engine(tiny, name);
    let found = engine.embed(&TEXTS).unwrap();
    for (text, vector) in TEXTS.iter().zip(&found) {
        let expected = tiny.expected(&engine.encode(text).unwrap(), first);
        let apart = apart(vector, &expected);
        assert!(apart < NEAR, "{name}, {text:?}: {apart:e} apart");
    }
}

#[test]
fn a_batch_is_what_a_plain_computation_finds_for_each_text() {
    check(&Tiny::new(ODD), "plain", false);
}

#[test]
fn sizes_wider_and_narrower_than_a_vector_are_computed_alike() {
    for (hidden, heads, wide) in [(4, 2, 3), (80, 2, 64), (96, 3, 160), (33, 1, 7)] {
        let sizes = Sizes {
            hidden,
            heads,
            wide,
            ..ODD
        };
        check(&Tiny::new(sizes), &format!("sizes-{hidden}"), false);
    }
}

#[test]
fn weights_may_be_f32_f16_or_bf16_with_and_without_a_prefix() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        for prefix in ["", "bert."] {
            let mut tiny = Tiny::new(ODD).stored_as(dtype);
            tiny.prefix = prefix;
            check(&tiny, &format!("stored-{dtype:?}-{prefix}"), false);
        }
    }
}

#[test]
fn layer_norms_may_have_the_names_of_the_first_release() {
    let tiny = Tiny::new(ODD);
    let mut old = tiny.clone();
    old.tensors = tiny
        .tensors
        .iter()
        .map(|(name, tensor)| {
            let name = name.replace("LayerNorm.weight", "LayerNorm.gamma");
            (
                name.replace("LayerNorm.bias", "LayerNorm.beta"),
                tensor.clone(),
            )
        })
        .collect();
    let (new, old) = (engine(&tiny, "norm-new"), engine(&old, "norm-old"));
    assert_eq!(new.embed(&TEXTS), old.embed(&TEXTS));
}

#[test]
fn every_activation_is_the_one_that_the_config_names() {
    for name in ["gelu", "gelu_new", "relu", "silu"] {
        let mut tiny = Tiny::new(ODD);
        tiny.config["hidden_act"] = json!(name);
        check(&tiny, &format!("act-{name}"), false);
    }
}

#[test]
fn pooling_is_what_sentence_transformers_wrote() {
    let mut tiny = Tiny::new(ODD);
    let mode = json!({"word_embedding_dimension": 21, "pooling_mode_cls_token": true,
                      "pooling_mode_mean_tokens": false});
    tiny.files.insert("1_Pooling/config.json", mode.clone());
    check(&tiny, "pooling-cls", true);
    // The folder's name is for modules.json to say.
    tiny.files = [
        ("other/config.json", mode),
        (
            "modules.json",
            json!([
                {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "name": "1", "path": "other", "type": "sentence_transformers.models.Pooling"},
                {"idx": 2, "name": "2", "path": "2_N", "type": "sentence_transformers.models.Normalize"},
            ]),
        ),
    ]
    .into();
    check(&tiny, "pooling-modules", true);
}

#[test]
fn a_text_has_the_same_vector_alone_in_a_batch_and_on_several_threads() {
    let tiny = Tiny::new(ODD);
    let folder = tiny.write("ragged");
    let one = load(&folder, &LoadOptions::default()).unwrap();
    let several = LoadOptions {
        threads: 3,
        ..LoadOptions::default()
    };
    let several = load(&folder, &several).unwrap();
    // Enough of them that they are cut into several chunks.
    let texts: Vec<_> = TEXTS.iter().copied().cycle().take(90).collect();
    let together = one.embed(&texts).unwrap();
    let alone: Vec<_> = texts
        .iter()
        .map(|text| one.embed(&[text]).unwrap().remove(0))
        .collect();
    assert_eq!(together, alone);
    assert_eq!(several.embed(&texts).unwrap(), together);
    assert_eq!(one.embed(&[]), Ok(Vec::new()));
}

#[test]
fn a_text_that_is_too_long_is_refused_or_cut_before_its_last_token() {
    let folder = Tiny::new(ODD).write("overlong");
    let with = |overlong, max_tokens| {
        let options = LoadOptions {
            overlong,
            max_tokens,
            ..LoadOptions::default()
        };
        load(&folder, &options).unwrap()
    };
    let long = "a ".repeat(70);
    let refuse = with(Overlong::Refuse, None);
    assert_eq!(refuse.info().max_tokens, 60);
    let error = EngineError::TooLong {
        index: 1,
        found: 72,
        limit: 60,
    };
    assert_eq!(refuse.embed(&["a", &long]), Err(error));
    let fits = "a ".repeat(58);
    assert_eq!(refuse.encode(&fits).unwrap().len(), 60);

    let cut = with(Overlong::Truncate, Some(5));
    assert_eq!(cut.info().max_tokens, 5);
    assert_eq!(cut.encode("the cat sat on").unwrap(), [2, 4, 6, 8, 3]);
    assert_eq!(
        cut.embed(&["the cat sat on"]).unwrap(),
        refuse.embed(&["the cat sat"]).unwrap()
    );
}

#[test]
fn sentence_transformers_limit_holds_where_it_is_lower_than_the_positions() {
    let mut tiny = Tiny::new(ODD);
    tiny.files
        .insert("sentence_bert_config.json", json!({"max_seq_length": 10}));
    assert_eq!(engine(&tiny, "limit-lower").info().max_tokens, 10);
    tiny.files
        .insert("sentence_bert_config.json", json!({"max_seq_length": 512}));
    assert_eq!(engine(&tiny, "limit-higher").info().max_tokens, 60);
}

#[test]
fn what_the_engine_cannot_do_is_refused_with_the_reason() {
    let options = LoadOptions {
        max_batch: 2,
        ..LoadOptions::default()
    };
    let engine = load(Tiny::new(ODD).write("refusals"), &options).unwrap();
    let too_large = EngineError::BatchTooLarge { found: 3, limit: 2 };
    assert_eq!(engine.embed(&["", "", ""]), Err(too_large.clone()));
    assert_eq!(engine.embed_tokens(&[&[2], &[2], &[2]]), Err(too_large));
    let no_tokens = |index, found: &str| {
        Err(EngineError::NoTokens {
            index,
            found: found.into(),
        })
    };
    assert_eq!(engine.embed_tokens(&[&[2, 3], &[]]), no_tokens(1, "none"));
    assert_eq!(engine.embed_tokens(&[&[2, 16, 3]]), no_tokens(0, "16"));
    assert!(matches!(
        engine.embed_tokens(&[&[2; 61]]),
        Err(EngineError::TooLong { found: 61, .. })
    ));
    let ask = Generate {
        prompt: "the cat",
        max_tokens: 3,
        temperature: 0.0,
        seed: 0,
    };
    let error = engine.generate(&ask, &mut |_| true).unwrap_err();
    assert_eq!(error.to_string(), "model refusals cannot generate");
}

#[test]
fn a_vector_without_a_direction_is_an_error_and_not_a_vector() {
    let mut tiny = Tiny::new(ODD);
    // The last norm makes every row zero.
    for part in ["weight", "bias"] {
        let name = format!("encoder.layer.1.output.LayerNorm.{part}");
        tiny.tensors.get_mut(&name).unwrap().1.fill(0.0);
    }
    let error = engine(&tiny, "zero").embed(&["the cat"]).unwrap_err();
    assert!(matches!(error, EngineError::Device(_)), "{error}");
    // Finite weights whose product is not.
    let mut tiny = Tiny::new(ODD);
    let name = "encoder.layer.1.intermediate.dense.weight";
    tiny.tensors.get_mut(name).unwrap().1.fill(f32::MAX);
    let error = engine(&tiny, "infinite").embed(&["the cat"]).unwrap_err();
    assert!(matches!(error, EngineError::Device(_)), "{error}");
}

#[test]
fn a_words_own_vector_is_its_row_of_the_table() {
    let tiny = Tiny::new(ODD);
    let engine = engine(&tiny, "words");
    let (_, table) = &tiny.tensors["embeddings.word_embeddings.weight"];
    let tokens = engine.encode("cat").unwrap();
    assert_eq!(tokens, [2, 6, 3]);
    assert_eq!(engine.word_vector(6), Some(&table[6 * 21..7 * 21]));
    assert_eq!(engine.word_vector(16), None);
    assert_eq!(engine.word_vector(u32::MAX), None);
}

#[test]
fn a_loaded_model_does_not_change_when_its_files_do() {
    let tiny = Tiny::new(ODD);
    let folder = tiny.write("changed");
    let engine = load(&folder, &LoadOptions::default()).unwrap();
    let before = engine.embed(&TEXTS).unwrap();
    let weights = folder.join("model.safetensors");
    // In place: a mapping that were still there would see it, and die of the shorter file.
    let length = fs::metadata(&weights).unwrap().len();
    fs::write(&weights, vec![0; usize::try_from(length).unwrap()]).unwrap();
    assert_eq!(engine.embed(&TEXTS).unwrap(), before);
    fs::write(&weights, "").unwrap();
    assert_eq!(engine.embed(&TEXTS).unwrap(), before);
}

#[test]
fn the_revision_changes_with_every_file_and_option_that_changes_vectors() {
    let tiny = Tiny::new(ODD);
    let revision = |tiny: &Tiny, options: &LoadOptions| {
        let engine = load(tiny.write("revision"), options).unwrap();
        engine.info().revision.clone()
    };
    let options = LoadOptions::default();
    let base = revision(&tiny, &options);
    assert_eq!(base.len(), 32);
    assert_eq!(revision(&tiny, &options), base);
    let named = LoadOptions {
        name: Some("other".into()),
        threads: 2,
        ..options.clone()
    };
    assert_eq!(revision(&tiny, &named), base);

    let mut all = vec![base];
    let mut weights = tiny.clone();
    weights.tensors.values_mut().next().unwrap().1[0] += 0.5;
    all.push(revision(&weights, &options));
    let mut config = tiny.clone();
    config.config["hidden_act"] = json!("relu");
    all.push(revision(&config, &options));
    let mut tokenizer = tiny.clone();
    tokenizer.tokenizer["normalizer"]["lowercase"] = json!(false);
    all.push(revision(&tokenizer, &options));
    let mut pooling = tiny.clone();
    let mode = json!({"pooling_mode_cls_token": true});
    pooling.files.insert("1_Pooling/config.json", mode);
    all.push(revision(&pooling, &options));
    let cut = LoadOptions {
        overlong: Overlong::Truncate,
        ..options.clone()
    };
    all.push(revision(&tiny, &cut));
    let short = LoadOptions {
        max_tokens: Some(8),
        ..cut
    };
    all.push(revision(&tiny, &short));
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}
