//! Scores prompts: `{id, prompt}` lines in, `{id, score, tier, confidence, reasons}` lines out.
use std::io::{BufRead as _, Write as _};

use sluice_core::policy::route::{THRESHOLDS, pick, score_prompt};

#[derive(serde::Deserialize)]
struct Row {
    id: serde_json::Value,
    prompt: String,
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let Row { id, prompt } = serde_json::from_str(&line?)?;
        let score = score_prompt(&prompt);
        let tier = pick(score.value, &THRESHOLDS);
        let reasons: serde_json::Map<_, _> = score
            .reasons
            .into_iter()
            .map(|(rule, weight)| (rule.to_owned(), weight.into()))
            .collect();
        let row = serde_json::json!({
            "id": id, "score": score.value, "tier": tier, "confidence": score.confidence,
            "reasons": reasons,
        });
        writeln!(out, "{row}")?;
    }
    Ok(())
}
