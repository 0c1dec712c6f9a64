//! `trim.system`: how a system prompt is shortened.

use super::Lower;
use crate::config::raw;
use crate::config::values::Count;
use crate::policy::trim::system::{Examples, Marker, SystemPrompt};

/// Most examples that may be set to stay; a prompt with more is no prompt.
const MOST_EXAMPLES: u64 = 1000;
/// Most markers: each is looked for in every prompt.
const MOST_MARKERS: usize = 16;

impl Lower<'_> {
    pub(super) fn system(&mut self, path: &str, raw: &raw::System) -> SystemPrompt {
        let minify = raw.minify.unwrap_or(false);
        if raw.tokens.is_none() && raw.examples.is_none() && raw.minify.is_none() {
            self.fault(
                path,
                "found nothing to do, expected tokens, minify or examples",
            );
        }
        if raw.cut.is_some() && raw.tokens.is_none() {
            let path = format!("{path}.cut");
            self.fault(
                &path,
                "found without `tokens`, expected the cap that it is for",
            );
        }
        let most = u64::from(u32::MAX);
        let tokens = raw
            .tokens
            .map(|Count(found)| self.whole(&format!("{path}.tokens"), found, 1..=most));
        let examples = raw.examples.as_ref();
        SystemPrompt {
            tokens,
            cut: raw.cut.unwrap_or_default(),
            minify,
            examples: examples.map(|one| self.examples(&format!("{path}.examples"), one)),
        }
    }

    fn examples(&mut self, path: &str, raw: &raw::Examples) -> Examples {
        let Count(found) = raw.top_k;
        let top_k = self.whole(&format!("{path}.top_k"), found, 0..=MOST_EXAMPLES);
        let markers = format!("{path}.markers");
        if raw.markers.len() > MOST_MARKERS {
            let found = raw.markers.len();
            let told = format!("found {found}, expected at most {MOST_MARKERS}");
            self.fault(&markers, told);
        }
        for (at, marker) in raw.markers.iter().enumerate() {
            for (name, text) in [("open", &marker.open), ("close", &marker.close)] {
                if text.trim().is_empty() {
                    let path = format!("{markers}[{at}].{name}");
                    self.fault(&path, "found an empty text, expected what stands there");
                }
            }
        }
        let marker = |raw: &raw::Between| Marker {
            open: raw.open.clone(),
            close: raw.close.clone(),
        };
        Examples {
            top_k: top_k as usize,
            markers: raw.markers.iter().map(marker).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{faults, parse};
    use crate::policy::trim::system::Cut;

    #[test]
    fn what_is_not_set_is_not_done() {
        assert_eq!(parse(r#"{"trim":{}}"#).unwrap().default.trim.system, None);
        let plan = parse(r#"{"trim":{"system":{"tokens":"1_000"}}}"#).unwrap();
        let system = plan.default.trim.system.unwrap();
        assert_eq!((system.tokens, system.cut), (Some(1000), Cut::Middle));
        assert!(!system.minify && system.examples.is_none());
    }

    #[test]
    fn a_fault_in_it_says_where() {
        for (config, path, told) in [
            ("{}", "", "nothing to do"),
            (r#"{"tokens":0}"#, ".tokens", "found 0, expected 1"),
            (r#"{"minify":true,"cut":"end"}"#, ".cut", "without `tokens`"),
            (
                r#"{"examples":{"top_k":1001}}"#,
                ".examples.top_k",
                "found 1001, expected 0 to 1000",
            ),
            (
                r#"{"examples":{"top_k":1,"markers":[{"open":"a","close":"b"},{"open":"a","close":" "}]}}"#,
                ".examples.markers[1].close",
                "an empty text",
            ),
        ] {
            let found = faults(&format!(r#"{{"trim":{{"system":{config}}}}}"#));
            let [(at, message)] = found.as_slice() else {
                panic!("{config}: {found:?}")
            };
            assert_eq!(at, &format!("trim.system{path}"));
            assert!(message.contains(told), "{message}");
        }
        let many = vec![r#"{"open":"a","close":"b"}"#; 17].join(",");
        let many =
            format!(r#"{{"trim":{{"system":{{"examples":{{"top_k":1,"markers":[{many}]}}}}}}}}"#);
        assert_eq!(faults(&many)[0].0, "trim.system.examples.markers");
    }

    #[test]
    fn a_route_changes_what_it_names_of_it() {
        let plan = parse(
            r#"{"trim":{"system":{"tokens":100,"minify":true}},
                "routes":[{"name":"a","match":{"path":"/a"},"trim":{"system":{"cut":"end","minify":false}}}]}"#,
        )
        .unwrap();
        let system = plan.routes[0].1.trim.system.clone().unwrap();
        assert_eq!(
            (system.tokens, system.cut, system.minify),
            (Some(100), Cut::End, false)
        );
        assert_ne!(plan.routes[0].1.digest, plan.default.digest);
    }
}
