//! OpenAI `/v1/embeddings`.

use base64::Engine as _;
use serde_json::{Value, json};

use super::completions::texts;
use super::{Call, json_reply};
use crate::provider::compose::Dice;
use crate::provider::models::Sold;
use crate::provider::reply::{Refusal, Reply};
use crate::provider::tokens::{Prompt, hash};
use sluice_wire::Usage;

pub(super) fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    let (model, sold) = call.model("v1/embeddings", |sold| matches!(sold, Sold::Embeddings(_)))?;
    let Sold::Embeddings(native) = sold else {
        return Err(Refusal::wrong_endpoint(&model, "v1/embeddings"));
    };
    let dimensions = match call.count("dimensions")? {
        None => native,
        Some(wanted) if wanted <= native as u64 => wanted as usize,
        Some(_) => {
            let message = format!("Invalid 'dimensions': the most is {native}.");
            return Err(Refusal::invalid("dimensions", message));
        }
    };
    let mut prompt = Prompt::default();
    let inputs = texts(call, "input", &mut prompt)?;
    if inputs.len() > 2048 {
        return Err(Refusal::invalid(
            "input",
            "Invalid 'input': the most is 2048.",
        ));
    }
    let usage = Usage {
        prompt: prompt.tokens.len() as u64,
        ..Usage::default()
    };
    let base64 = call.body["encoding_format"] == "base64";
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = vector(text, dimensions);
            let embedding = if base64 {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                json!(base64::engine::general_purpose::STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let value = json!({
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": usage.prompt, "total_tokens": usage.prompt},
    });
    Ok(json_reply(model, usage, value))
}

/// A unit vector that is the sum of one random vector per word: texts that share words are near.
fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut sum = vec![0.0_f32; dimensions];
    let lower = text.to_lowercase();
    let words = lower.split(|letter: char| !letter.is_alphanumeric());
    for word in words.filter(|word| !word.is_empty()).take(256).chain([""]) {
        let mut dice = Dice(hash(word));
        for x in &mut sum {
            *x += (dice.next() >> 40) as f32 / (1 << 23) as f32 - 1.0;
        }
    }
    let length = sum
        .iter()
        .map(|x| x * x)
        .sum::<f32>()
        .sqrt()
        .max(f32::MIN_POSITIVE);
    sum.iter_mut().for_each(|x| *x /= length);
    sum
}
