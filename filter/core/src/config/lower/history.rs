//! `trim.history`: what of a conversation's beginning stays, and what is told of what does not.

use super::Lower;
use crate::config::plan::Writer;
use crate::config::raw::{self, SummaryWriter};
use crate::config::values::Count;

/// Most exchanges that may be set to stay; a history that long is kept by its tokens.
const MOST_EXCHANGES: u64 = 1000;
/// Tokens of a digest where nothing is said: a dozen sentences.
const DIGEST: u64 = 300;
/// Fewest tokens of a digest: its frame takes some twenty, a sentence as many.
const LEAST_DIGEST: u64 = 50;
/// Most tokens of one that a model writes: as many as fit into what is kept of it, in any language.
const MOST_WRITTEN: u64 = 1000;

impl Lower<'_> {
    pub(super) fn pin_first(&mut self, path: &str, raw: &raw::History) -> usize {
        let Count(found) = raw.pin_first.unwrap_or(Count(0));
        let range = 0..=MOST_EXCHANGES;
        self.whole(&format!("{path}.pin_first"), found, range) as usize
    }

    pub(super) fn digest(&mut self, path: &str, raw: &raw::History) -> u64 {
        let summary = raw.summary.as_ref();
        let Count(found) = summary.map_or(Count(DIGEST), |summary| summary.tokens);
        let most = match summary.map(|summary| summary.writer) {
            Some(SummaryWriter::Sidecar) => MOST_WRITTEN,
            Some(SummaryWriter::Local) | None => u64::from(u32::MAX),
        };
        self.whole(
            &format!("{path}.summary.tokens"),
            found,
            LEAST_DIGEST..=most,
        )
    }

    pub(super) fn writer(&mut self, path: &str, raw: &raw::History) -> Option<Writer> {
        let summary = raw.summary.as_ref()?;
        let path = format!("{path}.summary.model");
        match (summary.writer, &summary.model) {
            (SummaryWriter::Local, None) => None,
            (SummaryWriter::Local, Some(model)) => {
                let message = format!("found `{model}`, expected none without `writer: sidecar`");
                self.fault(&path, message);
                None
            }
            (SummaryWriter::Sidecar, None) => {
                let message = "found nothing, expected the model that is to write";
                self.fault(&path, message);
                None
            }
            (SummaryWriter::Sidecar, Some(model)) => match self.prices.get(model) {
                Some(price) => Some(Writer {
                    model: model.clone(),
                    price: *price,
                }),
                None => {
                    let message = format!(
                        "found `{model}`, expected one of `models` with prices: no more is written than was saved"
                    );
                    self.fault(&path, message);
                    None
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{faults, parse};

    #[test]
    fn the_first_exchanges_and_a_digest_are_as_set() {
        let plan = parse(
            r#"{"trim":{"history":{"keep":"summary","tokens":500,"pin_first":1,"summary":{"tokens":"1_000"}}},
                "routes":[{"name":"a","match":{"path":"/a"},"trim":{"history":{"pin_first":2}}}]}"#,
        )
        .unwrap();
        let of = |history: Option<crate::config::History>| {
            let history = history.unwrap();
            (history.pin_first, history.digest)
        };
        assert_eq!(of(plan.default.trim.history), (1, 1000));
        assert_eq!(of(plan.routes[0].1.trim.history.clone()), (2, 1000));
        assert_ne!(plan.routes[0].1.digest, plan.default.digest);
        let plain = parse(r#"{"trim":{"history":{"tokens":500}}}"#).unwrap();
        assert_eq!(of(plain.default.trim.history), (0, 300));
    }

    const MODELS: &str =
        r#""models":{"small":{"input":0.1,"output":0.4},"free":{"input":0,"output":0},"odd":{}}"#;

    #[test]
    fn who_writes_digests_is_as_set_and_extracts_are_written_by_nobody() {
        let of = |summary: &str| {
            let config = format!(
                r#"{{{MODELS},"sidecar":{{"cluster":"c"}},"trim":{{"history":{{"keep":"summary","tokens":500,"summary":{summary}}}}}}}"#
            );
            let plan = parse(&config).unwrap();
            assert!(!plan.warnings.iter().any(|it| it.starts_with("trim")));
            let history = plan.default.trim.history.unwrap();
            (
                history.digest,
                history
                    .writer
                    .map(|writer| (writer.model, writer.price.output.0)),
            )
        };
        let written = |model: &str, output| Some((model.to_owned(), output));
        assert_eq!(of(r#"{"tokens":60}"#), (60, None));
        assert_eq!(of(r#"{"tokens":60,"writer":"local"}"#), (60, None));
        assert_eq!(
            of(r#"{"tokens":1000,"writer":"sidecar","model":"small"}"#),
            (1000, written("small", 400_000))
        );
        assert_eq!(
            of(r#"{"tokens":60,"writer":"sidecar","model":"free"}"#),
            (60, written("free", 0))
        );
    }

    #[test]
    fn a_writer_that_makes_no_sense_is_refused_with_the_fields_name() {
        for (summary, field, told) in [
            (
                r#""writer":"sidecar""#,
                "model",
                "found nothing, expected the model",
            ),
            (
                r#""writer":"sidecar","model":"none""#,
                "model",
                "found `none`, expected one of `models`",
            ),
            (
                r#""writer":"sidecar","model":"odd""#,
                "model",
                "found `odd`, expected one of `models`",
            ),
            (
                r#""model":"small""#,
                "model",
                "found `small`, expected none without `writer: sidecar`",
            ),
            (r#""writer":"me""#, "writer", "unknown variant `me`"),
            (
                r#""writer":"sidecar","model":"small","tokens":1001"#,
                "tokens",
                "found 1001, expected 50 to 1000",
            ),
        ] {
            let tokens = if summary.contains("tokens") {
                ""
            } else {
                r#","tokens":60"#
            };
            let found = faults(&format!(
                r#"{{{MODELS},"sidecar":{{"cluster":"c"}},"trim":{{"history":{{"tokens":500,"summary":{{{summary}{tokens}}}}}}}}}"#
            ));
            let [(at, message)] = found.as_slice() else {
                panic!("{summary}: {found:?}")
            };
            assert_eq!(at, &format!("trim.history.summary.{field}"));
            assert!(message.contains(told), "{message}");
        }
    }

    #[test]
    fn without_a_sidecar_nobody_writes_and_that_is_said() {
        let plan = parse(&format!(
            r#"{{{MODELS},"trim":{{"history":{{"keep":"summary","tokens":500,"summary":{{"tokens":60,"writer":"sidecar","model":"small"}}}}}}}}"#
        ));
        let warnings = plan.unwrap().warnings;
        assert!(
            warnings
                .iter()
                .any(|it| it.starts_with("trim.history.summary.writer: there is no sidecar")),
            "{warnings:?}"
        );
    }

    #[test]
    fn a_fault_in_it_says_where() {
        for (config, path, told) in [
            (r#""pin_first":1001"#, "pin_first", "expected 0 to 1000"),
            (
                r#""keep":"summary","summary":{"tokens":49}"#,
                "summary.tokens",
                "expected 50",
            ),
            (r#""keep":"summary","summary":{}"#, "summary", "tokens"),
        ] {
            let found = faults(&format!(
                r#"{{"trim":{{"history":{{"tokens":500,{config}}}}}}}"#
            ));
            let [(at, message)] = found.as_slice() else {
                panic!("{config}: {found:?}")
            };
            assert_eq!(at, &format!("trim.history.{path}"));
            assert!(message.contains(told), "{message}");
        }
    }
}
