//! Names of metrics, each made once: a name is a look from then on, and not a dozen formatted
//! parts per request.

use std::hash::{Hash, Hasher};
use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHasher};

/// Names that are remembered. All come from the config or a fixed set, so this is only reached by a
/// config with thousands of models; a name past it is made anew each time.
const MOST: usize = 4096;

/// The names made so far.
#[derive(Debug, Default)]
pub(super) struct Names(FxHashMap<u64, Rc<str>>);

impl Names {
    /// `sluice.FAMILY`, or `sluice.FAMILY;label=value;…;`.
    pub(super) fn get(&mut self, family: &str, labels: &[(&str, &str)]) -> Rc<str> {
        let mut hasher = FxHasher::default();
        (family, labels).hash(&mut hasher);
        let hash = hasher.finish();
        match self.0.get(&hash) {
            Some(name) if spells(name, family, labels) => name.clone(),
            // Two names of one hash would take turns: slower, and still right.
            _ => {
                let name = Rc::<str>::from(spell(family, labels));
                if self.0.len() < MOST || self.0.contains_key(&hash) {
                    self.0.insert(hash, name.clone());
                }
                name
            }
        }
    }
}

fn parts<'a>(family: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a str> {
    let ends = if labels.is_empty() { "" } else { ";" };
    let labels = labels
        .iter()
        .flat_map(|(label, value)| [*label, "=", *value, ";"]);
    ["sluice.", family, ends].into_iter().chain(labels)
}

fn spell(family: &str, labels: &[(&str, &str)]) -> String {
    parts(family, labels).collect()
}

fn spells(name: &str, family: &str, labels: &[(&str, &str)]) -> bool {
    let rest = parts(family, labels).try_fold(name, |rest, part| rest.strip_prefix(part));
    rest.is_some_and(str::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_once_and_spelt_with_its_labels() {
        let mut names = Names::default();
        let labels = [("model", "gpt-4o"), ("kind", "prompt")];
        let first = names.get("tokens", &labels);
        assert_eq!(&*first, "sluice.tokens;model=gpt-4o;kind=prompt;");
        assert!(Rc::ptr_eq(&first, &names.get("tokens", &labels)));
        assert_eq!(&*names.get("unread", &[]), "sluice.unread");
        assert_ne!(first, names.get("tokens", &labels[..1]));
    }

    #[test]
    fn a_name_is_told_from_one_that_only_begins_or_ends_alike() {
        assert!(spells("sluice.a;b=c;", "a", &[("b", "c")]));
        for (family, labels) in [("a", &[][..]), ("a", &[("b", "")]), ("", &[("b", "c")])] {
            assert!(!spells("sluice.a;b=c;", family, labels));
        }
        assert!(!spells("sluice.a;b=c;d=e;", "a", &[("b", "c")]));
    }

    #[test]
    fn names_past_the_bound_are_right_and_not_kept() {
        let mut names = Names::default();
        for number in 0..MOST + 10 {
            let number = number.to_string();
            let name = names.get("n", &[("i", &number)]);
            assert_eq!(*name, *format!("sluice.n;i={number};"));
        }
        assert_eq!(names.0.len(), MOST);
    }
}
