//! Recorded requests: read from JSON lines, repeated, sent side by side.

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Path.
    pub path: String,
    /// Headers beside the usual ones.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Value,
}

#[derive(Deserialize)]
struct Line {
    #[serde(alias = "text")]
    prompt: Option<String>,
    path: Option<String>,
    #[serde(default)]
    headers: Map<String, Value>,
    body: Option<Value>,
}

/// The model that bare prompts ask for.
const MODEL: &str = "gpt-4o";

/// Reads JSON lines: `{id, prompt}` (or `text` for `prompt`), which becomes a chat request to gpt-4o, or
/// `{path?, headers?, body}`. Other fields are not looked at; empty lines are skipped.
///
/// # Errors
/// With the number of the line that is neither.
pub fn read(text: &str) -> anyhow::Result<Vec<Recorded>> {
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| recorded(line).with_context(|| format!("line {}", index + 1)))
        .collect()
}

fn recorded(line: &str) -> anyhow::Result<Recorded> {
    let line: Line = serde_json::from_str(line).context("expected a JSON object")?;
    let body = match (line.body, line.prompt) {
        (Some(body), _) => body,
        (None, Some(prompt)) => json!({
            "model": MODEL,
            "messages": [{"role": "user", "content": prompt}],
        }),
        (None, None) => bail!("expected `prompt` or `body`, found neither"),
    };
    let headers = line.headers.into_iter().map(|(name, value)| match value {
        Value::String(value) => Ok((name, value)),
        other => bail!("header {name}: expected a string, found {other}"),
    });
    Ok(Recorded {
        path: line
            .path
            .unwrap_or_else(|| "/v1/chat/completions".to_owned()),
        headers: headers.collect::<anyhow::Result<_>>()?,
        body,
    })
}

/// Mixes exact repeats in: each request is, with probability `share`, one of the requests before
/// it in place of the next new one. The same `seed` gives the same list. At most `limit` in all.
#[must_use]
pub fn repeated(requests: Vec<Recorded>, share: f64, seed: u64, limit: usize) -> Vec<Recorded> {
    let mut dice = seed;
    let mut next = || {
        // splitmix64
        dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut all: Vec<Recorded> = Vec::new();
    let mut fresh = requests.into_iter();
    while all.len() < limit {
        let repeat = !all.is_empty() && ((next() >> 11) as f64 / (1_u64 << 53) as f64) < share;
        if repeat {
            let earlier = (next() % all.len() as u64) as usize;
            all.push(all[earlier].clone());
        } else if let Some(request) = fresh.next() {
            all.push(request);
        } else {
            break;
        }
    }
    all
}

/// Reads `30%` or `0.3`.
///
/// # Errors
/// When it is neither, or not from 0 to below 1.
pub fn share(text: &str) -> anyhow::Result<f64> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    match share {
        Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
        _ => bail!("expected a share like 30% or 0.3, below 1; found `{text}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_and_bodies_are_read_and_anything_else_is_refused_by_line() {
        let text = "{\"id\": 1, \"prompt\": \"Hi\", \"label\": 3}\n\n\
                    {\"path\": \"/v1/embeddings\", \"headers\": {\"x-tenant\": \"a\"}, \"body\": {\"input\": \"x\"}}\n";
        let requests = read(text).unwrap();
        assert_eq!(requests[0].body["messages"][0]["content"], "Hi");
        assert_eq!(requests[0].path, "/v1/chat/completions");
        assert_eq!(
            requests[1].headers,
            [("x-tenant".to_owned(), "a".to_owned())]
        );
        let error = format!("{:#}", read("{\"prompt\": \"a\"}\n{\"q\": 1}").unwrap_err());
        assert!(
            error.contains("line 2") && error.contains("prompt"),
            "{error}"
        );
    }

    #[test]
    fn about_the_asked_share_repeats_an_earlier_request_and_a_seed_repeats_the_list() {
        let fresh: Vec<Recorded> = (0..1000)
            .map(|number| Recorded {
                path: String::new(),
                headers: Vec::new(),
                body: json!(number),
            })
            .collect();
        let all = repeated(fresh.clone(), 0.3, 7, 1000);
        assert_eq!(all.len(), 1000);
        assert_eq!(all, repeated(fresh.clone(), 0.3, 7, 1000));
        assert_ne!(all, repeated(fresh.clone(), 0.3, 8, 1000));
        let mut seen = std::collections::HashSet::new();
        let repeats = all
            .iter()
            .filter(|request| !seen.insert(request.body.as_u64()))
            .count();
        assert!((260..340).contains(&repeats), "{repeats}");
        assert_eq!(
            repeated(fresh, 0.0, 7, usize::MAX).len(),
            1000,
            "all fresh ones, none twice"
        );
    }

    #[test]
    fn a_share_is_a_percentage_or_a_fraction() {
        assert_eq!(share("30%").unwrap(), 0.3);
        assert_eq!(share("0.3").unwrap(), 0.3);
        assert!(share("130%").is_err() && share("1").is_err() && share("x").is_err());
    }
}
