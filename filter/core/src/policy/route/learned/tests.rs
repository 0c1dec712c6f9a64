use super::*;
use crate::policy::route::{score_prompt, score_prompt_by};

/// Prompts about cats that the weak model answers too, and about tensors that it does not.
fn readings() -> Vec<(Reading, &'static str, f64)> {
    let mut all = Vec::new();
    for at in 0..40 {
        let cats = format!("The cat number {at} sat on its mat and the kitten slept beside it.");
        let hard = format!("The tensor number {at} contracts its index and the metric bends it.");
        all.push((read_prompt(&cats), "cats", 0.0));
        all.push((
            read_prompt(&hard),
            "tensors",
            f64::from(u8::from(at % 4 != 0)),
        ));
    }
    all
}

fn fitted() -> Model {
    let readings = readings();
    let examples: Vec<_> = (readings.iter())
        .map(|(reading, domain, gain)| Example {
            reading,
            domain,
            gain: *gain,
        })
        .collect();
    fit(&examples)
}

const TENSOR: &str = "The tensor contracts its index and the metric bends it.";
const CAT: &str = "The cat sat on its mat and the kitten slept beside it.";
const STRANGE: &str = "Violet umbrellas hum quietly above seventeen drowsy lighthouses tonight.";

#[test]
fn what_the_weak_model_failed_at_is_scored_above_what_it_did_well() {
    let model = fitted();
    let score = |prompt| score_prompt_by(&model, prompt);
    let rules = |prompt| score_prompt_by(&Model::empty(), prompt).value;
    assert!(score(TENSOR).value > rules(TENSOR), "{:?}", score(TENSOR));
    assert!(score(CAT).value < score(TENSOR).value, "{:?}", score(CAT));
}

#[test]
fn of_a_text_that_training_did_not_know_the_rules_decide_alone() {
    let model = fitted();
    for prompt in [
        STRANGE,
        "",
        "भारत की राजधानी क्या है?",
        "日本の首都はどこですか",
    ] {
        let score = score_prompt_by(&model, prompt);
        assert_eq!(score.confidence, 0.0, "{prompt}");
        assert_eq!(score, score_prompt_by(&Model::empty(), prompt));
    }
    let known = score_prompt_by(&model, &format!("{TENSOR} {CAT}")).confidence;
    let half = score_prompt_by(&model, &format!("{TENSOR} {STRANGE}")).confidence;
    assert!(known > half && half > 0.0, "{known} {half}");
}

#[test]
fn what_was_learned_moves_the_score_by_no_more_than_its_bound() {
    let mut model = fitted();
    for column in &mut model.form {
        column.weight = 1e6;
    }
    let learned = score_prompt_by(&model, &TENSOR.repeat(50));
    let (name, term) = learned.reasons[learned.reasons.len() - 1];
    assert_eq!(name, "learned");
    assert!(term.abs() <= MOST && term.abs() > 0.0, "{learned:?}");
}

#[test]
fn a_model_survives_being_written_and_read_and_the_same_rows_give_the_same() {
    let bytes = fitted().to_bytes();
    assert_eq!(bytes, fitted().to_bytes());
    let read = Model::from_bytes(&bytes).unwrap();
    assert_eq!(read.to_bytes(), bytes);
    assert_eq!(
        score_prompt_by(&read, TENSOR),
        score_prompt_by(&fitted(), TENSOR)
    );
    assert!(Model::from_bytes(&bytes[1..]).is_none());
    let mut broken = bytes.clone();
    broken[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(Model::from_bytes(&broken).is_none());
}

#[test]
fn rows_without_a_word_or_all_alike_are_fitted_without_harm() {
    assert_eq!(fit(&[]).to_bytes(), Model::empty().to_bytes());
    let reading = read_prompt("");
    let example = Example {
        reading: &reading,
        domain: "none",
        gain: 1.0,
    };
    let model = Model::from_bytes(&fit(&[example; 10]).to_bytes()).unwrap();
    assert!(score_prompt_by(&model, "a b c").value.is_finite());
}

#[test]
fn the_shipped_weights_are_read_and_small() {
    let model = Model::from_bytes(SHIPPED).unwrap();
    assert!(SHIPPED.len() <= 64 << 10);
    assert!(model.form.iter().any(|column| column.weight != 0.0));
    let long = "Which of the following statements about the structure of an atom is correct? \
                A. The nucleus has a negative charge. B. Most of the mass is in the electrons. \
                C. The electrons have a positive charge. D. Most of the mass is in the nucleus.";
    assert!(
        score_prompt(long).confidence > 0.3,
        "{:?}",
        score_prompt(long)
    );
}
