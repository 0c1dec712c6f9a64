//! Changes to parts of a body that leave every other byte as the client wrote it.

use std::ops::Range;

use super::{Cursor, JsonStr};

/// Replacements, each of a range of the body's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Splices(Vec<(Range<usize>, String)>);

impl Splices {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What stands at `at` becomes `with`. Ranges must not overlap; of two replacements that begin
    /// at one place the shorter range comes first, then the earlier call.
    pub fn replace(&mut self, at: Range<usize>, with: impl Into<String>) {
        self.0.push((at, with.into()));
    }

    /// What stands at these places goes.
    pub fn cut(&mut self, places: impl IntoIterator<Item = Range<usize>>) {
        self.0
            .extend(places.into_iter().map(|at| (at, String::new())));
    }

    /// All of `others` too.
    pub fn extend(&mut self, others: Splices) {
        self.0.extend(others.0);
    }

    /// The body with all replacements made. One that overlaps an earlier one is left out.
    #[must_use]
    pub fn apply(mut self, body: &str) -> String {
        self.0.sort_by_key(|(at, _)| (at.start, at.end));
        let more: usize = self.0.iter().map(|(_, with)| with.len()).sum();
        let mut out = String::with_capacity(body.len() + more);
        let mut from = 0;
        for (at, with) in &self.0 {
            if let Some(kept) = body.get(from..at.start) {
                out.push_str(kept);
                out.push_str(with);
                from = at.end.max(at.start);
            }
        }
        out.push_str(body.get(from..).unwrap_or(""));
        out
    }
}

/// Where `part`, a piece of `body` itself, stands in it.
#[must_use]
pub fn span(body: &str, part: &str) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    (end <= body.len()).then_some(start..end)
}

/// `text` as it stands between the quotes of a JSON string.
#[must_use]
pub fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    JsonStr::new(&quoted).map_or_else(String::new, |string| string.escaped().to_owned())
}

/// What to cut so that `object`, a JSON object in `body`, has no field `name`.
#[must_use]
pub fn field(body: &str, object: &str, name: &str) -> Vec<Range<usize>> {
    let (mut fields, mut keep) = (Vec::new(), Vec::new());
    let mut cursor = Cursor::new(object);
    let start = span(body, object).map(|at| at.start);
    if let Some(start) = start.filter(|_| cursor.enter(b'{')) {
        loop {
            let at = cursor.mark();
            let Some(key) = cursor.key() else { break };
            cursor.value();
            fields.push(start + at..start + at + cursor.since(at).len());
            keep.push(key != name);
        }
    }
    cuts(&fields, &keep)
}

/// What to cut so that only the kept of `parts` (in order) stay, each dropped one with the
/// separator before it, at the start of the list with the one after it.
#[must_use]
pub fn cuts(parts: &[Range<usize>], keep: &[bool]) -> Vec<Range<usize>> {
    let kept = |at: usize| keep.get(at).copied().unwrap_or(true);
    let Some(first) = (0..parts.len()).find(|at| kept(*at)) else {
        let all = parts.first().zip(parts.last());
        return all
            .map(|(first, last)| first.start..last.end)
            .into_iter()
            .collect();
    };
    let mut cuts: Vec<Range<usize>> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| parts.get(before));
        match (at.cmp(&first), before) {
            _ if kept(at) => {}
            (std::cmp::Ordering::Less, _) => {
                let end = parts.get(at + 1).map_or(part.end, |next| next.start);
                cuts.push(part.start..end);
            }
            (_, before) => cuts.push(before.map_or(part.start, |part| part.end)..part.end),
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn replacements_are_made_in_the_order_of_their_places() {
        let mut splices = Splices::default();
        splices.replace(4..7, "C");
        splices.replace(0..2, "");
        splices.replace(4..4, "<");
        splices.replace(5..6, "overlaps");
        assert_eq!(splices.apply("aabbcccd"), "bb<Cd");
    }

    #[test]
    fn a_part_is_found_in_its_body_and_nothing_else_is() {
        let body = String::from("abcdef");
        assert_eq!(span(&body, &body[2..4]), Some(2..4));
        let other = String::from("abcdefabcdef");
        assert_eq!(span(&body[..3], &body[3..]), None);
        assert!(span(&body, &other).is_none_or(|at| at.end <= body.len()));
    }

    proptest! {
        #[test]
        fn a_list_loses_as_many_separators_as_parts(keep in prop::collection::vec(any::<bool>(), 1..12)) {
            let names: Vec<String> = (0..keep.len()).map(|at| format!("p{at:02}")).collect();
            let list = names.join(", ");
            let parts: Vec<Range<usize>> = (0..keep.len()).map(|at| at * 5..at * 5 + 3).collect();
            let mut splices = Splices::default();
            for cut in cuts(&parts, &keep) {
                splices.replace(cut, "");
            }
            let kept: Vec<String> = names
                .into_iter()
                .zip(&keep)
                .filter_map(|(name, keep)| keep.then_some(name))
                .collect();
            prop_assert_eq!(splices.apply(&list), kept.join(", "));
        }
    }
}
