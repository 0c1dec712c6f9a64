//! Scores prompts: `{id, prompt}` lines in, `{id, score, tier}` lines out.
use std::io::{BufRead as _, Write as _};

use sluice_core::policy::route::{THRESHOLDS, features, pick, score_prompt};

#[derive(serde::Deserialize)]
struct Row {
    id: serde_json::Value,
    prompt: String,
}

fn main() -> std::io::Result<()> {
    let with_features = std::env::args().any(|arg| arg == "--features");
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let Row { id, prompt } = serde_json::from_str(&line?)?;
        let score = score_prompt(&prompt);
        let tier = pick(score.value, &THRESHOLDS);
        let mut row = serde_json::json!({"id": id, "score": score.value, "tier": tier});
        if with_features {
            row["features"] = features(&prompt).into_iter().collect();
            row["reasons"] = score
                .reasons
                .into_iter()
                .map(|(n, w)| (n.to_owned(), w))
                .collect();
        }
        writeln!(out, "{row}")?;
    }
    Ok(())
}
