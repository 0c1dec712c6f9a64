//! `trim.context`: how retrieved chunks are found and chosen.

use super::Lower;
use crate::config::raw;
use crate::config::values::{Count, OffOr};
use crate::policy::trim::context::filter::Filter;
use crate::policy::trim::context::markers::{
    Array, Fence, List, MAX_CHUNKS, Marker, Section, Split, Tag,
};
use crate::policy::trim::context::{Policy, Rank};

/// Jaccard index from which a chunk is a copy, where nothing is set: a word or two of a paragraph
/// differ.
const DUPLICATES: f64 = 0.9;

impl Lower<'_> {
    pub(super) fn context(&mut self, path: &str, raw: &raw::Context) -> Policy {
        let markers = raw.markers.iter().flatten().enumerate();
        let markers = markers
            .filter_map(|(at, marker)| self.marker(&format!("{path}.markers[{at}]"), marker));
        let markers = markers.collect();
        let most = MAX_CHUNKS as u64;
        let top_k = raw
            .top_k
            .map(|Count(found)| self.whole(&format!("{path}.top_k"), found, 1..=most) as usize);
        let tokens = raw.tokens.map(|Count(found)| {
            self.whole(&format!("{path}.tokens"), found, 1..=u64::from(u32::MAX))
        });
        let filter = raw
            .filter
            .as_ref()
            .and_then(|text| match Filter::parse(text) {
                Ok(filter) => Some(filter),
                Err(fault) => {
                    self.fault(&format!("{path}.filter"), fault.to_string());
                    None
                }
            });
        let rank = raw.rank.unwrap_or_default();
        Policy {
            markers,
            top_k,
            tokens,
            filter,
            duplicates: self.duplicates(&format!("{path}.duplicates"), raw.duplicates),
            rank,
            min_score: self.min_score(&format!("{path}.min_score"), raw.min_score, rank),
            order: raw.order.unwrap_or_default(),
            extra: raw.extra.is_some() && self.switch(&format!("{path}.extra"), raw.extra),
        }
    }

    pub(super) fn whole(
        &mut self,
        path: &str,
        found: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> u64 {
        if !range.contains(&found) {
            self.fault(
                path,
                format!(
                    "found {found}, expected {} to {}",
                    range.start(),
                    range.end()
                ),
            );
        }
        found
    }

    fn duplicates(&mut self, path: &str, raw: Option<OffOr>) -> Option<f64> {
        match raw {
            None => Some(DUPLICATES),
            Some(OffOr::Off) => None,
            Some(OffOr::Number(found)) => {
                if !(0.5..=1.0).contains(&found) {
                    self.fault(path, format!("found {found}, expected 0.5 to 1 or off"));
                }
                Some(found)
            }
        }
    }

    fn min_score(&mut self, path: &str, raw: Option<f64>, rank: Rank) -> Option<f64> {
        let found = raw?;
        if !found.is_finite() {
            self.fault(path, format!("found {found}, expected a number"));
        } else if rank == Rank::Mix {
            self.fault(path, "found with rank `mix`, which has no scale; expected rank given, bm25 or embeddings beside it");
        }
        Some(found)
    }

    fn marker(&mut self, path: &str, raw: &raw::Marker) -> Option<Marker> {
        Some(match raw {
            raw::Marker::Tag(tag) => Marker::Tag(self.tag(&format!("{path}.tag"), tag)),
            raw::Marker::List(list) => Marker::List(self.list(&format!("{path}.list"), list)?),
            raw::Marker::Fence(fence) => {
                Marker::Fence(self.fence(&format!("{path}.fence"), fence)?)
            }
            raw::Marker::Section(section) => {
                let path = format!("{path}.section");
                self.words(&format!("{path}.after"), &section.after);
                self.words(&format!("{path}.before"), &section.before);
                let by = section.split.as_deref().unwrap_or("\n\n");
                Marker::Section(Section {
                    after: section.after.clone(),
                    before: section.before.clone(),
                    split: self.split(&path, by, section.metadata),
                })
            }
            raw::Marker::Json(json) => {
                if let Some(after) = &json.after {
                    self.words(&format!("{path}.json.after"), after);
                }
                Marker::Json(Array {
                    after: json.after.clone(),
                })
            }
        })
    }

    fn tag(&mut self, path: &str, raw: &raw::Tag) -> Tag {
        let tag = match raw {
            raw::Tag::Name(name) => Tag {
                name: name.clone(),
                inside: None,
                text: None,
            },
            raw::Tag::Full(full) => Tag {
                name: full.name.clone(),
                inside: full.inside.clone(),
                text: full.text.clone(),
            },
        };
        for name in [Some(&tag.name), tag.inside.as_ref(), tag.text.as_ref()]
            .into_iter()
            .flatten()
        {
            if name.is_empty()
                || !name
                    .chars()
                    .all(|c| c.is_alphanumeric() || "_-.:".contains(c))
            {
                self.fault(
                    path,
                    format!("found `{name}`, expected the name of a tag, like document"),
                );
            }
        }
        if tag.inside.as_ref() == Some(&tag.name) || tag.text.as_ref() == Some(&tag.name) {
            self.fault(
                path,
                format!("found `{}` twice, expected names that differ", tag.name),
            );
        }
        tag
    }

    fn list(&mut self, path: &str, raw: &raw::List) -> Option<List> {
        self.words(&format!("{path}.after"), &raw.after);
        if let Some(before) = &raw.before {
            self.words(&format!("{path}.before"), before);
        }
        let pattern = raw.number.as_deref().unwrap_or("[{n}]");
        let Some(number) = List::number(pattern) else {
            let message = format!(
                "found `{pattern}`, expected {{n}} once and something behind it, like [{{n}}] or {{n}}."
            );
            self.fault(&format!("{path}.number"), message);
            return None;
        };
        Some(List {
            after: raw.after.clone(),
            before: raw.before.clone(),
            number,
        })
    }

    fn fence(&mut self, path: &str, raw: &raw::Fence) -> Option<Fence> {
        self.words(&format!("{path}.label"), &raw.label);
        let split = raw
            .split
            .as_ref()
            .map(|by| self.split(path, by, raw.metadata));
        if raw.split.is_none() && raw.metadata.is_some() {
            self.fault(
                &format!("{path}.metadata"),
                "found without `split`, expected both",
            );
        }
        let Some((sign, signs)) = Fence::line(&raw.line) else {
            let message = format!(
                "found `{}`, expected three or more of one sign, like ```, --- or ===",
                raw.line
            );
            self.fault(&format!("{path}.line"), message);
            return None;
        };
        Some(Fence {
            sign,
            signs,
            label: raw.label.clone(),
            split,
        })
    }

    fn split(&mut self, path: &str, by: &str, metadata: Option<bool>) -> Split {
        if by.is_empty() {
            self.fault(
                &format!("{path}.split"),
                "found an empty text, expected what stands between two chunks",
            );
        }
        Split {
            by: by.to_owned(),
            metadata: metadata.unwrap_or(false),
        }
    }

    /// How a line begins: something, on one line, without white space in front, which is skipped.
    fn words(&mut self, path: &str, words: &str) {
        if words.trim_start() != words || words.is_empty() || words.contains('\n') {
            self.fault(path, format!("found `{words}`, expected how a line begins"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{faults, parse};
    use crate::policy::trim::context::{Order, Policy, Rank};

    fn context(config: &str) -> Policy {
        parse(&format!(r#"{{"trim":{{"context":{config}}}}}"#))
            .unwrap()
            .default
            .trim
            .context
            .unwrap()
    }

    #[test]
    fn every_kind_of_marker_is_read_in_its_short_form_and_its_long_one() {
        let policy = context(
            r#"{"markers": [
                {"tag": "doc"}, {"tag": {"name": "document", "inside": "documents", "text": "document_content"}},
                {"list": {"after": "Sources:"}}, {"list": {"after": "Context:", "before": "Question:", "number": "Source {n}:"}},
                {"fence": {"line": "```", "label": "context"}}, {"fence": {"line": "----------", "label": "Context", "split": "\n\n", "metadata": true}},
                {"section": {"after": "Use the", "before": "Question:"}}, {"json": {}}, {"json": {"after": "Results:"}}],
                "top_k": "5", "tokens": 1_500, "filter": "lang == 'en'", "duplicates": "0.8", "rank": "given",
                "min_score": 0.25, "order": "rank", "extra": true}"#
                .replace("1_500", "\"1_500\"")
                .as_str(),
        );
        assert_eq!(policy.markers.len(), 9);
        assert_eq!(
            (policy.top_k, policy.tokens, policy.duplicates),
            (Some(5), Some(1500), Some(0.8))
        );
        assert_eq!(
            (policy.rank, policy.min_score, policy.order, policy.extra),
            (Rank::Given, Some(0.25), Order::Rank, true)
        );
        assert!(policy.filter.is_some());
    }

    #[test]
    fn nothing_is_chosen_that_was_not_asked_for_but_copies_go() {
        assert_eq!(
            context("{}"),
            Policy {
                duplicates: Some(0.9),
                ..Policy::default()
            }
        );
        for off in ["false", "\"off\""] {
            assert_eq!(
                context(&format!(r#"{{"duplicates":{off},"extra":{off}}}"#)),
                Policy::default()
            );
        }
        assert_eq!(parse(r#"{"trim":{}}"#).unwrap().default.trim.context, None);
    }

    #[test]
    fn a_context_that_makes_no_sense_is_a_fault_of_its_field() {
        for (config, path, told) in [
            (r#"{"top_k":0}"#, "top_k", "found 0, expected 1 to 1024"),
            (r#"{"tokens":0}"#, "tokens", "expected 1 to"),
            (
                r#"{"filter":"lang = 'en'"}"#,
                "filter",
                "column 6: found `=`, expected `==`",
            ),
            (
                r#"{"duplicates":0.2}"#,
                "duplicates",
                "found 0.2, expected 0.5 to 1 or off",
            ),
            (
                r#"{"duplicates":true}"#,
                "duplicates",
                "expected off or a number",
            ),
            (r#"{"min_score":0.2}"#, "min_score", "rank `mix`"),
            (
                r#"{"min_score":".inf","rank":"given"}"#,
                "min_score",
                "found inf",
            ),
            (r#"{"rank":"best"}"#, "rank", "unknown variant `best`"),
            (r#"{"extra":"dry"}"#, "extra", "found `dry`"),
            (
                r#"{"markers":[{"tag":""}]}"#,
                "markers[0].tag",
                "the name of a tag",
            ),
            (
                r#"{"markers":[{"tag":"<doc>"}]}"#,
                "markers[0].tag",
                "found `<doc>`",
            ),
            (
                r#"{"markers":[{"tag":{"name":"a","inside":"a"}}]}"#,
                "markers[0].tag",
                "found `a` twice",
            ),
            (
                r#"{"markers":[{"tag":"a"},{"list":{"after":""}}]}"#,
                "markers[1].list.after",
                "how a line begins",
            ),
            (
                r#"{"markers":[{"list":{"after":"a","number":"{n}"}}]}"#,
                "markers[0].list.number",
                "found `{n}`, expected {n} once",
            ),
            (
                r#"{"markers":[{"fence":{"line":"--","label":"a"}}]}"#,
                "markers[0].fence.line",
                "found `--`, expected three",
            ),
            (
                r#"{"markers":[{"fence":{"line":"---","label":"a","metadata":true}}]}"#,
                "markers[0].fence.metadata",
                "without `split`",
            ),
            (
                r#"{"markers":[{"section":{"after":"a","before":"b","split":""}}]}"#,
                "markers[0].section.split",
                "an empty text",
            ),
        ] {
            let found = faults(&format!(r#"{{"trim":{{"context":{config}}}}}"#));
            let [(at, message)] = found.as_slice() else {
                panic!("{config}: {found:?}")
            };
            assert_eq!(at, &format!("trim.context.{path}"), "{config}");
            assert!(message.contains(told), "{message}");
        }
    }

    #[test]
    fn a_route_changes_what_it_names_of_the_context() {
        let plan = parse(
            r#"{"trim":{"context":{"markers":[{"tag":"doc"}],"top_k":5,"rank":"given","min_score":0.5}},
                "routes":[{"name":"a","match":{"path":"/a"},"trim":{"context":{"top_k":3}}},
                          {"name":"b","match":{"path":"/b"},"trim":{"context":{"rank":"mix","duplicates":"off"}}}]}"#,
        )
        .unwrap();
        let of = |at: usize| plan.routes[at].1.trim.context.clone().unwrap();
        assert_eq!(
            (of(0).top_k, of(0).markers.len(), of(0).min_score),
            (Some(3), 1, Some(0.5))
        );
        assert_eq!(
            (of(1).top_k, of(1).rank, of(1).min_score, of(1).duplicates),
            (Some(5), Rank::Mix, None, None)
        );
        assert_ne!(
            plan.routes[0].1.digest, plan.default.digest,
            "what is cached differs"
        );
    }
}
