//! The real all-MiniLM-L6-v2 beside vectors from another implementation (`reference.py`).

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use sluice_engine::{Engine, EngineError, LoadOptions, Overlong, load};

/// Farther than this apart is another vector.
const NEAR: f32 = 2e-6;

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    vector: Vec<f32>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("minilm.json")).unwrap()
}

/// The model of `SLUICE_MODEL`, which must then be there, or that of `cargo xtask setup model`,
/// which need not be unless `SLUICE_REQUIRE_ALL` says so.
fn model(options: &LoadOptions) -> Option<Arc<dyn Engine>> {
    let told = env::var_os("SLUICE_MODEL").map(PathBuf::from);
    let required = told.is_some() || env::var_os("SLUICE_REQUIRE_ALL").is_some();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let usual = || root.join("../../target/models/all-MiniLM-L6-v2");
    let folder = told.unwrap_or_else(usual);
    if !required && !folder.is_dir() {
        eprintln!(
            "SKIPPED: no model in {}; `cargo xtask setup model` fetches it",
            folder.display()
        );
        return None;
    }
    Some(load(folder, options).unwrap())
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs.fold(0.0, |most, (a, b)| (a - b).abs().max(most))
}

#[test]
fn the_real_models_vectors_are_those_of_another_implementation() {
    let Some(engine) = model(&LoadOptions::default()) else {
        return;
    };
    let cases = cases();
    assert_eq!(cases.len(), 12);
    for case in &cases {
        assert_eq!(
            engine.encode(&case.text).unwrap(),
            case.ids,
            "{:?}",
            case.text
        );
    }
    let texts: Vec<_> = cases.iter().map(|case| case.text.as_str()).collect();
    let together = engine.embed(&texts).unwrap();
    for (case, vector) in cases.iter().zip(&together) {
        let apart = apart(vector, &case.vector);
        assert!(apart < NEAR, "{:?}: {apart:e} apart", case.text);
        let alone = engine.embed(&[&case.text]).unwrap();
        assert_eq!(alone, [vector.as_slice()], "{:?}", case.text);
    }
}

#[test]
fn the_real_model_says_what_it_is_and_keeps_to_its_limit() {
    let Some(engine) = model(&LoadOptions::default()) else {
        return;
    };
    let info = engine.info();
    assert_eq!((info.dimensions, info.max_tokens), (384, 256));
    let long = "word ".repeat(300);
    assert_eq!(
        engine.embed(&[&long]),
        Err(EngineError::TooLong {
            index: 0,
            found: 302,
            limit: 256
        })
    );
    let options = LoadOptions {
        overlong: Overlong::Truncate,
        ..LoadOptions::default()
    };
    let cut = model(&options).unwrap();
    let shorter = "word ".repeat(254);
    assert_eq!(
        cut.embed(&[&long]).unwrap(),
        engine.embed(&[&shorter]).unwrap()
    );
}

#[test]
fn of_a_very_long_text_only_the_beginning_is_looked_at_and_cut_as_the_whole_would_be() {
    let options = |overlong, max_tokens| LoadOptions {
        overlong,
        max_tokens,
        ..LoadOptions::default()
    };
    let Some(refuse) = model(&LoadOptions::default()) else {
        return;
    };
    // A megabyte: 20 sentences, of other languages too, again and again.
    let sentence = cases()
        .iter()
        .map(|case| case.text.clone() + " ")
        .collect::<String>();
    let long = sentence.repeat((1 << 20) / sentence.len());
    match refuse.encode(&long) {
        Err(EngineError::TooLong { found, limit, .. }) => {
            assert_eq!(limit, 256);
            assert!((257..2048).contains(&found), "{found}");
        }
        other => panic!("{other:?}"),
    }
    // A beginning of 40 tokens lies inside one of 256, which lies inside the whole.
    let short = model(&options(Overlong::Truncate, Some(40))).unwrap();
    let cut = model(&options(Overlong::Truncate, None)).unwrap();
    let boundary = |at: &usize| sentence.is_char_boundary(*at);
    for start in (0..sentence.len()).filter(boundary).step_by(11) {
        let text = &sentence[start..];
        let (short, cut) = (short.encode(text).unwrap(), cut.encode(text).unwrap());
        if short.len() == 40 && cut.len() > 40 {
            assert_eq!(short[..39], cut[..39], "{text:?}");
        } else {
            assert_eq!(short, cut, "{text:?}");
        }
    }
}

#[test]
fn texts_that_mean_the_same_are_nearer_than_others() {
    let Some(engine) = model(&LoadOptions::default()) else {
        return;
    };
    let texts = [
        "How do I reset the PIN of my credit card?",
        "My card's PIN is gone; can it be set anew?",
        "Integrate x squared from zero to three.",
    ];
    let vectors = engine.embed(&texts).unwrap();
    let cosine = |a: usize, b: usize| -> f32 {
        let pairs = vectors[a].iter().zip(&vectors[b]);
        pairs.map(|(a, b)| a * b).sum()
    };
    assert!(cosine(0, 1) > 0.6, "{}", cosine(0, 1));
    assert!(cosine(0, 2) < 0.2, "{}", cosine(0, 2));
}
