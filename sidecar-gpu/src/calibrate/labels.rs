//! Labelled requests, a line each.

use std::collections::BTreeMap;
use std::io::BufRead;

use serde::Deserialize;
use serde_json::Value;
use sluice_core::config::Price;
use sluice_core::policy::route::score_prompt;
use sluice_wire::Usage;

/// Longest line, in bytes.
const MAX_LINE: usize = 16 << 20;

/// A tier that requests may go to.
#[derive(Clone, Debug)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// Prices of its model, if known.
    pub price: Option<Price>,
    /// Bytes of text that its model makes a token of.
    pub bytes_per_token: f64,
    /// Cap on its completion tokens.
    pub max_tokens: Option<u64>,
}

/// Tokens of a request whose label does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assumed {
    /// Of the prompt, where the label has none either.
    pub input: u64,
    /// Of the answer.
    pub output: u64,
}

/// One labelled request.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// How hard it is, in [0, 1].
    pub score: f64,
    /// By tier, smallest first: how good its answer is or would be, in any unit that all labels
    /// share; None: nobody knows.
    pub quality: Vec<Option<f64>>,
    /// By tier: dollars that its answer costs.
    pub spend: Vec<f64>,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct LabelError {
    /// Its number, from 1.
    pub line: usize,
    /// What was found and what is expected.
    pub fault: String,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labels {
    /// Those that say something of a tier that is calibrated.
    pub labels: Vec<Label>,
    /// How many say nothing of any.
    pub idle: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default, rename = "id")]
    _id: Value,
    prompt: Option<String>,
    score: Option<f64>,
    /// Graded, by judges or tests: quality by tier.
    #[serde(default)]
    quality: BTreeMap<String, f64>,
    /// The tier that answered, where one did.
    tier: Option<String>,
    /// What its user said.
    thumb: Option<Thumb>,
    /// Whether its answer was not good enough, and a larger tier was asked.
    escalated: Option<bool>,
    tokens: Option<Tokens>,
    /// Dollars by tier, where they are known better than by prices.
    #[serde(default)]
    usd: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Thumb {
    Up,
    Down,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    input: u64,
    output: u64,
}

impl Labels {
    /// Reads the lines of `from` as labels of `tiers`, smallest first. What they say of other
    /// tiers is ignored.
    ///
    /// # Errors
    /// The first line that is none, or says nothing of what it must.
    pub fn read(
        from: impl BufRead,
        tiers: &[Tier],
        assumed: Assumed,
    ) -> Result<Labels, LabelError> {
        let mut read = Labels::default();
        for (line, text) in (1..).zip(from.lines()) {
            let fault = |fault: String| LabelError { line, fault };
            let text = text.map_err(|error| fault(error.to_string()))?;
            if text.trim().is_empty() {
                continue;
            }
            if text.len() > MAX_LINE {
                let found = text.len();
                return Err(fault(format!("{found} bytes, expected at most {MAX_LINE}")));
            }
            let parsed: Line = serde_json::from_str(&text).map_err(|error| {
                fault(format!(
                    "{error}; expected {{\"prompt\": … or \"score\": …, \"quality\": {{TIER: …}}}}"
                ))
            })?;
            match parsed.label(tiers, assumed).map_err(fault)? {
                label if label.quality.iter().any(Option::is_some) => read.labels.push(label),
                _ => read.idle += 1,
            }
        }
        Ok(read)
    }
}

impl Line {
    fn label(&self, tiers: &[Tier], assumed: Assumed) -> Result<Label, String> {
        let score = match (&self.score, &self.prompt) {
            (Some(score), _) if !(0.0..=1.0).contains(score) => {
                return Err(format!("score: found {score}, expected a number in [0,1]"));
            }
            (Some(score), _) => *score,
            (None, Some(prompt)) => f64::from(score_prompt(prompt).value),
            (None, None) => return Err("expected a `prompt` or a `score`".to_owned()),
        };
        let said = self.said()?;
        let quality = tiers
            .iter()
            .map(|tier| {
                let graded = self.quality.get(&tier.name).copied();
                let own = self.tier.as_ref().is_some_and(|name| *name == tier.name);
                match graded {
                    Some(found) if !(found.is_finite() && found >= 0.0) => Err(format!(
                        "quality.{}: found {found}, expected a number of at least 0",
                        tier.name
                    )),
                    graded => Ok(graded.or(said.filter(|_| own))),
                }
            })
            .collect::<Result<_, _>>()?;
        let spend = tiers
            .iter()
            .map(|tier| self.spend(tier, assumed))
            .collect::<Result<_, _>>()?;
        Ok(Label {
            score,
            quality,
            spend,
        })
    }

    /// What was said of the answer of `tier`: 1 where it was good, 0 where it was not.
    fn said(&self) -> Result<Option<f64>, String> {
        let good = match (&self.thumb, self.escalated) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err("found `thumb` and `escalated`, expected one of them".to_owned());
            }
            (Some(Thumb::Up), _) => true,
            (Some(Thumb::Down), _) => false,
            (_, Some(escalated)) => !escalated,
        };
        match self.tier {
            Some(_) => Ok(Some(f64::from(u8::from(good)))),
            None => Err("expected the `tier` that answered".to_owned()),
        }
    }

    fn spend(&self, tier: &Tier, assumed: Assumed) -> Result<f64, String> {
        let name = &tier.name;
        if let Some(usd) = self.usd.get(name) {
            return match usd.is_finite() && *usd >= 0.0 {
                true => Ok(*usd),
                false => Err(format!("usd.{name}: found {usd}, expected at least 0")),
            };
        }
        let Some(price) = &tier.price else {
            return Err(format!(
                "expected `usd.{name}`: the model of tier `{name}` has no price in the config"
            ));
        };
        let (input, output) = match (&self.tokens, &self.prompt) {
            (Some(tokens), _) => (tokens.input, tokens.output),
            (None, Some(prompt)) => {
                let tokens = prompt.len() as f64 / tier.bytes_per_token.max(1.0);
                (tokens.ceil() as u64, assumed.output)
            }
            (None, None) => (assumed.input, assumed.output),
        };
        let usage = Usage {
            prompt: input,
            completion: tier.max_tokens.map_or(output, |most| output.min(most)),
            ..Usage::default()
        };
        Ok(price.of(&usage).dollars())
    }
}

#[cfg(test)]
mod tests {
    use sluice_wire::Usd;

    use super::*;

    fn tiers() -> Vec<Tier> {
        let tier = |name: &str, dollars: f64| Tier {
            name: name.to_owned(),
            price: Some(Price {
                input: Usd::from_dollars(dollars / 1e6),
                cached_input: Usd::ZERO,
                cache_write: Usd::ZERO,
                output: Usd::from_dollars(4.0 * dollars / 1e6),
            }),
            bytes_per_token: 4.0,
            max_tokens: None,
        };
        vec![tier("small", 1.0), tier("large", 10.0)]
    }

    const ASSUMED: Assumed = Assumed {
        input: 1_000,
        output: 100,
    };

    fn read(lines: &str) -> Result<Labels, String> {
        Labels::read(lines.as_bytes(), &tiers(), ASSUMED).map_err(|error| error.to_string())
    }

    #[test]
    fn labels_of_every_kind_say_how_good_a_tier_is() {
        let read = read(
            r#"{"id": 1, "score": 0.5, "quality": {"small": 0.2, "large": 1, "other": 7}}

{"score": 0.5, "tier": "small", "thumb": "up"}
{"score": 0.5, "tier": "large", "thumb": "down"}
{"score": 0.5, "tier": "small", "escalated": true}
{"score": 0.5, "tier": "small", "escalated": false, "quality": {"large": 0.5}}
{"score": 0.5, "tier": "other", "thumb": "up"}
"#,
        )
        .unwrap();
        let found: Vec<_> = read.labels.iter().map(|it| it.quality.clone()).collect();
        assert_eq!(
            found,
            [
                vec![Some(0.2), Some(1.0)],
                vec![Some(1.0), None],
                vec![None, Some(0.0)],
                vec![Some(0.0), None],
                vec![Some(1.0), Some(0.5)],
            ]
        );
        assert_eq!(read.idle, 1);
    }

    #[test]
    fn spend_is_by_dollars_tokens_text_or_what_is_assumed() {
        let text = "word ".repeat(80);
        let lines = format!(
            r#"{{"score": 0, "quality": {{"small": 1}}, "usd": {{"small": 0.5, "large": 2}}}}
{{"score": 0, "quality": {{"small": 1}}, "tokens": {{"input": 10, "output": 20}}}}
{{"prompt": "{text}", "quality": {{"small": 1}}}}
{{"score": 0, "quality": {{"small": 1}}}}"#
        );
        let read = read(&lines).unwrap();
        let spends: Vec<f64> = read.labels.iter().map(|it| it.spend[0] * 1e6).collect();
        assert_eq!(spends, [500_000.0, 90.0, 500.0, 1_400.0]);
        for label in &read.labels[1..] {
            assert!((label.spend[1] / label.spend[0] - 10.0).abs() < 1e-9);
        }
    }

    #[test]
    fn a_line_that_says_too_little_is_named_with_what_is_expected() {
        let good = r#"{"score": 0, "quality": {"small": 1}}"#;
        for (line, told) in [
            ("7", "expected {\"prompt\""),
            (r#"{"quality": {"small": 1}}"#, "a `prompt` or a `score`"),
            (r#"{"score": 2, "quality": {"small": 1}}"#, "score: found 2"),
            (
                r#"{"score": 0, "quality": {"small": -1}}"#,
                "quality.small: found -1",
            ),
            (r#"{"score": 0, "thumb": "up"}"#, "the `tier` that answered"),
            (
                r#"{"score": 0, "tier": "small", "thumb": "sideways"}"#,
                "sideways",
            ),
            (
                r#"{"score": 0, "tier": "small", "thumb": "up", "escalated": true}"#,
                "one of them",
            ),
            (
                r#"{"score": 0, "usd": {"small": -2}}"#,
                "usd.small: found -2",
            ),
            (r#"{"score": 0, "qualty": {"small": 1}}"#, "qualty"),
        ] {
            let error = read(&format!("{good}\n{line}\n")).unwrap_err();
            assert!(
                error.starts_with("line 2: ") && error.contains(told),
                "{error}"
            );
        }
        let mut unpriced = tiers();
        unpriced[1].price = None;
        let error = Labels::read(good.as_bytes(), &unpriced, ASSUMED).unwrap_err();
        assert!(error.to_string().contains("usd.large"), "{error}");
    }
}
