//! `route`: the tiers and what each takes.

use std::collections::BTreeMap;

use super::Lower;
use crate::config::plan::{Routing, Tier};
use crate::config::raw::{self, Mode};
use crate::config::values::Count;
use crate::formats;

impl Lower<'_> {
    pub(super) fn routing(&mut self, path: &str, mode: Mode, raw: &raw::Routing) -> Routing {
        Routing {
            mode,
            tiers: self.tiers(
                &format!("{path}.tiers"),
                raw.tiers.as_deref().unwrap_or(&[]),
            ),
            pin: raw.pin.unwrap_or(false),
        }
    }

    fn tiers(&mut self, path: &str, raw: &[raw::Tier]) -> Vec<Tier> {
        let mut tiers: Vec<Tier> = Vec::new();
        if raw.is_empty() {
            self.fault(
                path,
                "found no tiers, expected at least one, smallest first",
            );
        }
        for (at, tier) in raw.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let last = at + 1 == raw.len();
            let below = match tier.below {
                None if last => f64::INFINITY,
                None => {
                    self.fault(
                        &format!("{path}.below"),
                        "missing, expected a score in [0,1] on every tier but the last",
                    );
                    1.0
                }
                Some(_) if last => {
                    self.fault(
                        &format!("{path}.below"),
                        "the last tier takes every other score, expected no `below`",
                    );
                    f64::INFINITY
                }
                Some(below) => {
                    let floor = tiers.last().map_or(0.0, |tier| tier.below);
                    if below > floor && below <= 1.0 {
                        below
                    } else {
                        self.fault(
                            &format!("{path}.below"),
                            format!("found {below}, expected more than {floor} and at most 1"),
                        );
                        floor
                    }
                }
            };
            if tier.name.is_empty()
                || tier.name.len() > 32
                || !tier
                    .name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            {
                self.fault(
                    &format!("{path}.name"),
                    format!(
                        "found `{}`, expected 1 to 32 letters, digits, `-`, `_`",
                        tier.name
                    ),
                );
            }
            if tiers.iter().any(|other| other.name == tier.name) {
                self.fault(
                    &format!("{path}.name"),
                    format!("found `{}` twice, expected names that differ", tier.name),
                );
            }
            let max_tokens = tier.max_tokens.map(|Count(tokens)| tokens);
            if max_tokens == Some(0) {
                self.fault(&format!("{path}.max_tokens"), "found 0, expected 1 or more");
            }
            let models = match &tier.model {
                // Plain names are OpenAI's family, the one that most providers and servers speak.
                raw::TierModel::Name(model) => {
                    BTreeMap::from([("openai".to_owned(), model.clone())])
                }
                raw::TierModel::ByFamily(models) => models.clone(),
            };
            for (family, model) in &models {
                if !formats::ALL.is_empty()
                    && !formats::ALL.iter().any(|format| format.family() == family)
                {
                    self.fault(
                        &format!("{path}.model.{family}"),
                        "unknown API family, expected openai, openai-completions or anthropic",
                    );
                }
                if model.is_empty() {
                    self.fault(
                        &format!("{path}.model.{family}"),
                        "found nothing, expected a model's name",
                    );
                }
            }
            tiers.push(Tier {
                name: tier.name.clone(),
                below,
                models,
                max_tokens,
            });
        }
        tiers
    }
}
