//! `trim`: how long a prompt may be.

use std::collections::BTreeMap;

use super::Lower;
use crate::config::plan::{History, InputLimit, Retry, Trimming};
use crate::config::raw::{self, Mode};
use crate::config::values::Count;

/// Exchanges that stay where nothing is said: what "it" and "that one" mostly mean.
const LAST: u64 = 2;
/// Most exchanges that may be set to stay; a history that long is kept by its tokens.
const MOST_LAST: u64 = 1000;
/// Longest time of the sidecar's comparison where none is set, in milliseconds; as long as the
/// semantic cache takes for its look-up.
const EMBEDDINGS_MS: u64 = 60;

impl Lower<'_> {
    pub(super) fn trimming(&mut self, path: &str, mode: Mode, raw: &raw::Trimming) -> Trimming {
        if raw.marks == Some(Mode::Dry) {
            self.fault(&format!("{path}.marks"), "found dry, expected on or off");
        }
        Trimming {
            mode,
            marks: raw.marks == Some(Mode::On),
            input: raw
                .input_tokens
                .as_ref()
                .map(|limit| self.input_limit(&format!("{path}.input_tokens"), limit)),
            context: raw
                .context
                .as_ref()
                .map(|context| self.context(&format!("{path}.context"), context)),
            retry: raw.retry.as_ref().map(|raw| Retry {
                by: self.loopback(&format!("{path}.retry"), &raw.cluster, raw.timeout),
                streams: raw.streams,
            }),
            template: self.template_of(&format!("{path}.template"), raw.template.as_deref()),
            system: raw
                .system
                .as_ref()
                .map(|system| self.system(&format!("{path}.system"), system)),
            history: raw
                .history
                .as_ref()
                .map(|history| self.history(&format!("{path}.history"), history)),
        }
    }

    fn history(&mut self, path: &str, raw: &raw::History) -> History {
        if raw.tokens.is_none() {
            let path = format!("{path}.tokens");
            self.fault(&path, "found nothing, expected a number of tokens");
        }
        let last = raw.last.map_or(LAST, |Count(last)| last);
        if last > MOST_LAST {
            let path = format!("{path}.last");
            self.fault(&path, format!("found {last}, expected 0 to {MOST_LAST}"));
        }
        let (pin_first, digest) = (self.pin_first(path, raw), self.digest(path, raw));
        let writer = self.writer(path, raw);
        let embeddings = raw.embeddings.unwrap_or(raw::Embeddings {
            mode: Some(Mode::Off),
            timeout: None,
        });
        let path = format!("{path}.embeddings");
        let timeout_ms = self.within(
            &format!("{path}.timeout"),
            embeddings.timeout,
            EMBEDDINGS_MS,
            1..=10_000,
        );
        History {
            keep: raw.keep.unwrap_or_default(),
            tokens: raw.tokens.map_or(0, |Count(tokens)| tokens),
            last: last as usize,
            pin_first,
            digest,
            writer,
            embeddings_ms: self
                .switch(&path, embeddings.mode)
                .then_some(timeout_ms as u32),
        }
    }

    fn input_limit(&mut self, path: &str, raw: &raw::InputTokens) -> InputLimit {
        let plain = |limits: &BTreeMap<String, Count>| {
            limits
                .iter()
                .map(|(name, Count(limit))| (name.clone(), *limit))
                .collect()
        };
        if raw.limit.is_none() && raw.tenants.is_empty() && raw.models.is_empty() {
            self.fault(path, "found no limit, expected limit, tenants or models");
        }
        InputLimit {
            limit: raw.limit.map(|Count(limit)| limit),
            tenants: plain(&raw.tenants),
            models: plain(&raw.models),
            over: raw.over,
        }
    }
}
