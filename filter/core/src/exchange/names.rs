//! Names of metrics, each made once: a name is a look from then on, and not a dozen formatted
//! parts per request.

use std::hash::{Hash, Hasher};
use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHasher};

/// Names that are remembered. All come from the config or a fixed set, some forty for a model in
/// use; a name past it is made anew each time.
const MOST: usize = 16_384;

/// A label of a metric. Envoy's `stats_tags` take each out of the names (a test holds the shipped
/// configs against this list), so that a new one is a line here and one there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// What came of a budget that was over, or of a prompt over its limit.
    Action,
    /// What the cache did.
    Cache,
    /// Host call that failed.
    Call,
    /// API format.
    Endpoint,
    /// Kind of tokens.
    Kind,
    /// Lever that saved.
    Lever,
    /// Model, by the config's name.
    Model,
    /// How the request ended.
    Outcome,
    /// How a call to the sidecar ended.
    Result,
    /// Index of a budget.
    Rule,
    /// Who worked for the tokens.
    Source,
    /// Tier.
    Tier,
}

impl Label {
    /// All of them.
    pub const ALL: [Label; 12] = [
        Label::Action,
        Label::Cache,
        Label::Call,
        Label::Endpoint,
        Label::Kind,
        Label::Lever,
        Label::Model,
        Label::Outcome,
        Label::Result,
        Label::Rule,
        Label::Source,
        Label::Tier,
    ];

    /// As it stands in names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Label::Action => "action",
            Label::Cache => "cache",
            Label::Call => "call",
            Label::Endpoint => "endpoint",
            Label::Kind => "kind",
            Label::Lever => "lever",
            Label::Model => "model",
            Label::Outcome => "outcome",
            Label::Result => "result",
            Label::Rule => "rule",
            Label::Source => "source",
            Label::Tier => "tier",
        }
    }
}

/// The name of a metric: `sluice.FAMILY`, or `sluice.FAMILY;label=value;…;`.
#[must_use]
pub fn metric_name(family: &str, labels: &[(Label, &str)]) -> String {
    parts(family, labels).collect()
}

/// The names made so far.
#[derive(Debug, Default)]
pub(super) struct Names(FxHashMap<u64, Rc<str>>);

impl Names {
    /// [`metric_name`], shared.
    pub(super) fn get(&mut self, family: &str, labels: &[(Label, &str)]) -> Rc<str> {
        let mut hasher = FxHasher::default();
        (family, labels).hash(&mut hasher);
        let hash = hasher.finish();
        match self.0.get(&hash) {
            Some(name) if spells(name, family, labels) => name.clone(),
            // Two names of one hash would take turns: slower, and still right.
            _ => {
                let name = Rc::<str>::from(metric_name(family, labels));
                if self.0.len() < MOST || self.0.contains_key(&hash) {
                    self.0.insert(hash, name.clone());
                }
                name
            }
        }
    }
}

fn parts<'a>(family: &'a str, labels: &'a [(Label, &str)]) -> impl Iterator<Item = &'a str> {
    let ends = if labels.is_empty() { "" } else { ";" };
    let labels = labels
        .iter()
        .flat_map(|(label, value)| [label.name(), "=", *value, ";"]);
    ["sluice.", family, ends].into_iter().chain(labels)
}

fn spells(name: &str, family: &str, labels: &[(Label, &str)]) -> bool {
    let rest = parts(family, labels).try_fold(name, |rest, part| rest.strip_prefix(part));
    rest.is_some_and(str::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_once_and_spelt_with_its_labels() {
        let mut names = Names::default();
        let labels = [(Label::Model, "gpt-4o"), (Label::Kind, "prompt")];
        let first = names.get("tokens", &labels);
        assert_eq!(&*first, "sluice.tokens;model=gpt-4o;kind=prompt;");
        assert!(Rc::ptr_eq(&first, &names.get("tokens", &labels)));
        assert_eq!(&*names.get("unread", &[]), "sluice.unread");
        assert_ne!(first, names.get("tokens", &labels[..1]));
    }

    #[test]
    fn a_name_is_told_from_one_that_only_begins_or_ends_alike() {
        let name = metric_name("a", &[(Label::Tier, "c")]);
        assert!(spells(&name, "a", &[(Label::Tier, "c")]));
        for (family, labels) in [
            ("a", &[][..]),
            ("a", &[(Label::Tier, "")]),
            ("a", &[(Label::Kind, "c")]),
            ("", &[(Label::Tier, "c")]),
        ] {
            assert!(!spells(&name, family, labels));
        }
        let longer = metric_name("a", &[(Label::Tier, "c"), (Label::Kind, "e")]);
        assert!(!spells(&longer, "a", &[(Label::Tier, "c")]));
    }

    #[test]
    fn names_past_the_bound_are_right_and_not_kept() {
        let mut names = Names::default();
        for number in 0..MOST + 10 {
            let number = number.to_string();
            let labels = [(Label::Rule, number.as_str())];
            assert_eq!(*names.get("n", &labels), *metric_name("n", &labels));
        }
        assert_eq!(names.0.len(), MOST);
    }
}
