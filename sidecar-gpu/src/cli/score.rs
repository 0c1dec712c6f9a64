//! `sluice score`: the filter's own complexity score, line by line.

use std::io::{BufRead, BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_core::policy::route::{THRESHOLDS, pick, score_prompt};

use crate::config;

/// Score prompts as the filter does
#[derive(clap::Args)]
#[command(
    long_about = "Score prompts by the filter's own code: lines `{\"id\": …, \"prompt\": …}` in, \
                  lines `{\"id\": …, \"score\": …, \"tier\": …, \"confidence\": …}` out. Tiers are small \
                  (below 0.3), medium (below 0.7) and large, or those of --config. The confidence is \
                  how familiar the prompt is to the learned part of the score, in [0, 1]; at 0 its \
                  rules decided alone.",
    after_help = "Examples:\n  echo '{\"id\": 1, \"prompt\": \"Hello!\"}' | sluice score\n  \
                  sluice score --config sluice.yaml < prompts.jsonl"
)]
pub(super) struct Args {
    /// Config file whose tiers are used
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Line {
    id: Value,
    prompt: String,
}

#[derive(Serialize)]
struct Scored<'a> {
    id: Value,
    score: f64,
    tier: &'a str,
    confidence: f64,
}

/// Tiers, smallest first, and the scores below which a prompt goes to each but the last.
struct Tiers {
    names: Vec<String>,
    below: Vec<f32>,
}

impl Tiers {
    fn standard() -> Self {
        Tiers {
            names: ["small", "medium", "large"].map(str::to_owned).to_vec(),
            below: THRESHOLDS.to_vec(),
        }
    }

    fn of(config: &config::Config) -> Self {
        let tiers = &config.plan.default.route.tiers;
        if tiers.is_empty() {
            return Tiers::standard();
        }
        Tiers {
            names: tiers.iter().map(|tier| tier.name.clone()).collect(),
            below: tiers[..tiers.len() - 1]
                .iter()
                .map(|tier| tier.below as f32)
                .collect(),
        }
    }

    fn of_score(&self, score: f32) -> &str {
        self.names
            .get(pick(score, &self.below))
            .map_or("", String::as_str)
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let tiers = match &args.config {
        Some(file) => Tiers::of(
            &config::read(file, &config::process_env)
                .with_context(|| format!("{} is refused", file.display()))?,
        ),
        None => Tiers::standard(),
    };
    let out = BufWriter::new(std::io::stdout().lock());
    score(std::io::stdin().lock(), out, &tiers)
}

fn score(lines: impl BufRead, mut out: impl Write, tiers: &Tiers) -> anyhow::Result<()> {
    for (number, line) in (1..).zip(lines.lines()) {
        let line = line.with_context(|| format!("line {number}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let Line { id, prompt } = serde_json::from_str(&line)
            .with_context(|| format!("line {number}: expected {{\"id\": …, \"prompt\": …}}"))?;
        let score = score_prompt(&prompt);
        let scored = Scored {
            id,
            score: shown(score.value),
            tier: tiers.of_score(score.value),
            confidence: shown(score.confidence),
        };
        serde_json::to_writer(&mut out, &scored)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

/// Single precision printed as double would show digits that mean nothing.
fn shown(value: f32) -> f64 {
    (f64::from(value) * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(lines: &str) -> anyhow::Result<Vec<Value>> {
        let mut out = Vec::new();
        score(lines.as_bytes(), &mut out, &Tiers::standard())?;
        Ok(String::from_utf8(out)?
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect())
    }

    #[test]
    fn each_line_is_answered_with_its_id_a_score_and_a_tier() {
        let out = scored(
            "{\"id\": 7, \"prompt\": \"Hi!\"}\n\n{\"id\": \"b\", \"prompt\": \"Prove step by step \
             that there are infinitely many primes, then derive the asymptotic density and \
             analyse the complexity of an algorithm that lists them.\"}\n",
        )
        .unwrap();
        assert_eq!(out.len(), 2);
        assert_eq!(
            (&out[0]["id"], &out[0]["tier"]),
            (&7.into(), &"small".into())
        );
        assert_eq!(out[1]["id"], "b");
        let (easy, hard) = (out[0]["score"].as_f64(), out[1]["score"].as_f64());
        assert!(easy < hard && hard <= Some(1.0), "{easy:?} {hard:?}");
        let confidence = [&out[0], &out[1]].map(|line| line["confidence"].as_f64().unwrap());
        assert!(
            confidence[0] < confidence[1] && confidence[1] < 1.0,
            "{confidence:?}"
        );
    }

    #[test]
    fn a_line_that_is_no_prompt_is_told_with_its_number() {
        let error = scored("{\"id\": 1, \"prompt\": \"x\"}\n{\"id\": 2}\n").unwrap_err();
        assert!(format!("{error:#}").contains("line 2"), "{error:#}");
    }
}
