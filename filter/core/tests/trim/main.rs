//! Conversations made up at random, cut at random as far as the code allows: what is left is one
//! that its API takes, and every message that stayed is as it was.
//!
//! `SLUICE_FUZZ_SECONDS` sets how long it runs (default 3), `SLUICE_FUZZ_SEED` where it starts
//! (default: anywhere, and it says where).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod conversation;
mod costs;
mod large;
mod rules;
mod schema;
mod scribe;
mod turns;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use conversation::{FORMATS, Made, Maker, loose};
use fastrand::Rng;
use rules::{faults, in_a_row};
use schema::Schemas;
use serde_json::Value;
use sluice_core::formats::{self, Format, Request};
use sluice_core::json::{self, Object};
use sluice_core::policy::trim::edits;
use sluice_core::policy::trim::turns::{Stay, Turns};

const NOTE: &str = "\u{1}What was \"left\" out.\n";

/// A conversation before and after.
struct Cut {
    made: Made,
    before: String,
    after: String,
    /// Whether each item of the one stays, by what the code says may go.
    stays: Vec<bool>,
    noted: bool,
}

impl Cut {
    fn random(rng: &mut Rng) -> Cut {
        let made = Maker::new(rng).request();
        let before = loose(&made.body, rng);
        let format = formats::by_name(made.format).unwrap();
        let request = format.parse(&before).unwrap();
        let stay = Stay {
            first: rng.usize(..2),
            last: rng.usize(..2),
        };
        let noted = rng.bool();
        let note = noted.then_some(NOTE);
        let Some(turns) = Turns::of(&request, format, stay) else {
            let after = unpinned(&request, format);
            return Cut {
                stays: vec![true; made.items().len()],
                noted: false,
                made,
                before,
                after,
            };
        };
        let share = rng.u8(..=4);
        let keep: Vec<_> = (0..turns.exchanges.len())
            .map(|_| rng.u8(..4) < share)
            .collect();
        let mut stays = vec![true; turns.items.len()];
        for (exchange, keep) in turns.exchanges.iter().zip(&keep) {
            for at in exchange.items.clone().filter(|_| !keep && !exchange.must) {
                stays[at] = turns.items[at].stays();
            }
        }
        let after = edits::dropping(&turns, &keep, note).apply(&before);
        // All but the list stays byte for byte.
        let whole = Object::parse(&after).unwrap();
        let list = (made.field, whole.get(made.field).unwrap());
        assert_eq!(after, json::set_fields(&before, &request.fields, &[list]));
        Cut {
            noted: noted && stays.contains(&false),
            made,
            before,
            after,
            stays,
        }
    }

    fn items(&self, body: &str) -> Vec<String> {
        let body = Object::parse(body).unwrap();
        let list = json::array(body.get(self.made.field).unwrap()).unwrap();
        list.into_iter().map(str::to_owned).collect()
    }

    /// Panics where something is wrong with it.
    fn check(&self, schemas: Option<&Schemas>) {
        let read = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        let (before, after) = (read(&self.before), read(&self.after));
        for (key, value) in self.made.body.as_object().unwrap() {
            let cut = key == self.made.field;
            assert!(cut || after.get(key) == Some(value), "{key} changed");
        }
        self.same_bytes();
        self.what_must_stay(&before);
        let list = |body: &Value| body[self.made.field].as_array().unwrap().clone();
        let (before, after) = (without_pins(list(&before)), list(&after));
        let text = Value::from(after.clone()).to_string();
        assert!(!text.contains(r#","sluice_pin":"#) && !text.contains(r#"{"sluice_pin":"#));
        self.no_new_faults(&before, &after);
        if let Some(schemas) = schemas {
            self.schema(schemas, &before, &after);
        }
    }

    /// What stays is, in order, byte for byte what was there; but for pins, and one note.
    fn same_bytes(&self) {
        let (before, after) = (self.items(&self.before), self.items(&self.after));
        let kept = before.iter().zip(&self.stays).filter(|(_, stays)| **stays);
        let mut after = after.iter().peekable();
        let mut notes = usize::from(self.noted);
        let note = Value::from(NOTE).to_string();
        let note = &note[1..note.len() - 1];
        for (old, _) in kept {
            let mut new = after.next().unwrap().clone();
            if new.contains(note) && notes == 1 {
                notes = 0;
                for form in [
                    format!(r#"{{"type":"text","text":"{note}"}},"#),
                    format!(r#"{{"type":"input_text","text":"{note}"}},"#),
                    format!(r"{note}\n\n"),
                ] {
                    new = new.replace(&form, "");
                }
            }
            let pinned =
                |item: &str| Object::parse(item).is_ok_and(|item| item.get(formats::PIN).is_some());
            match pinned(old) {
                // Its fields, one by one.
                true => {
                    let (old, new) = (Object::parse(old).unwrap(), Object::parse(&new).unwrap());
                    let own = old.iter().filter(|(key, _)| *key != formats::PIN);
                    assert!(own.eq(new.iter()), "{old:?} became {new:?}");
                }
                false => assert_eq!(*old, new),
            }
        }
        assert_eq!(after.next(), None);
        assert!(notes == 0 || self.made.odd, "the note is missing");
    }

    /// System messages, pinned ones, and all from the last user's message on.
    fn what_must_stay(&self, before: &Value) {
        let items = before[self.made.field].as_array().unwrap();
        let last = items.iter().rposition(|item| item["role"] == "user");
        for (at, item) in items.iter().enumerate() {
            let system = matches!(item["role"].as_str(), Some("system" | "developer"));
            let must = system || item[formats::PIN] == true || last.is_none_or(|last| at >= last);
            assert!(!must || self.stays[at], "{item} is gone");
        }
        let current = Value::from(&items[last.unwrap_or(0)..]).to_string();
        // A call that stands twice is the current turn's own, where it stands there.
        let ids = self.made.ids.iter().filter(|_| !self.made.odd);
        for id in ids.filter(|id| current.contains(*id)) {
            let bears = |item: &Value| item.to_string().contains(&format!("\"{id}\""));
            let gone = items
                .iter()
                .zip(&self.stays)
                .find(|(item, stays)| !**stays && bears(item));
            assert_eq!(gone, None, "the current turn speaks of it");
        }
    }

    fn no_new_faults(&self, before: &[Value], after: &[Value]) {
        let format = self.made.format;
        let mut known = faults(format, before);
        assert!(
            self.made.odd || known.is_empty(),
            "{known:?} in {before:#?}"
        );
        for fault in faults(format, after) {
            let old = known.iter().position(|known| *known == fault);
            let old = old.unwrap_or_else(|| panic!("{fault} in {after:#?}\nbefore: {before:#?}"));
            known.swap_remove(old);
        }
        assert!(in_a_row(after) <= in_a_row(before), "{after:#?}");
    }

    fn schema(&self, schemas: &Schemas, before: &[Value], after: &[Value]) {
        let Some(name) = schema_name(self.made.format) else {
            return;
        };
        let body = |items: &[Value]| {
            let mut body = self.made.body.clone();
            body[self.made.field] = Value::from(items);
            body
        };
        let valid = schemas.fits(name, &body(before));
        assert!(valid || self.made.odd, "made badly: {before:#?}");
        assert!(!valid || schemas.fits(name, &body(after)), "{after:#?}");
    }
}

fn schema_name(format: &str) -> Option<&'static str> {
    match format {
        "openai.chat" => Some("CreateChatCompletionRequest"),
        "openai.responses" => Some("CreateResponse"),
        _ => None,
    }
}

fn without_pins(mut items: Vec<Value>) -> Vec<Value> {
    for item in &mut items {
        if let Some(fields) = item.as_object_mut() {
            fields.remove(formats::PIN);
        }
    }
    items
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn what_is_left_of_a_conversation_is_one_that_its_api_takes() {
    let seconds = from_env("SLUICE_FUZZ_SECONDS").unwrap_or(3);
    let first = from_env("SLUICE_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("SLUICE_FUZZ_SEED={first}");
    let schemas = Schemas::load();
    if schemas.is_none() {
        println!("skipped: OpenAI's schema is not there, so only the rules are checked");
    }
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let (mut cuts, mut gone, mut noted) = (0_u64, 0, 0);
    for seed in first.. {
        if Instant::now() >= deadline {
            break;
        }
        let told = catch_unwind(AssertUnwindSafe(|| {
            let cut = Cut::random(&mut Rng::with_seed(seed));
            cut.check(schemas.as_ref());
            (cut.stays.iter().filter(|stays| !**stays).count(), cut.noted)
        }));
        let (went, note) = told.unwrap_or_else(|panic| {
            eprintln!("SLUICE_FUZZ_SEED={seed} failed");
            std::panic::resume_unwind(panic)
        });
        cuts += 1;
        gone += went;
        noted += usize::from(note);
    }
    println!("{cuts} conversations, {gone} items left out, {noted} notes");
    assert!(cuts > 100, "it must get somewhere: {cuts}");
    assert!(
        gone as u64 > cuts && noted > 10,
        "{gone} gone, {noted} noted"
    );
}

/// A piece of a body put elsewhere in it, or taken out.
fn damaged(body: &str, rng: &mut Rng) -> String {
    let mut chars: Vec<char> = body.chars().collect();
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..chars.len().max(1));
        let end = (at + rng.usize(..40)).min(chars.len());
        let piece = chars[at.min(end)..end].to_vec();
        match rng.u8(..3) {
            0 => drop(chars.drain(at.min(end)..end)),
            1 => {
                let to = rng.usize(..=chars.len());
                drop(chars.splice(to..to, piece));
            }
            _ => {
                let odd = [
                    "\"role\":7,",
                    "\"sluice_pin\":true,",
                    "null,",
                    "{},",
                    "\\ud800",
                    "[[]],",
                ];
                let odd = odd[rng.usize(..odd.len())].chars();
                drop(chars.splice(at..at, odd));
            }
        }
    }
    chars.into_iter().collect()
}

/// The body without pins.
fn unpinned(request: &Request<'_>, format: &dyn Format) -> String {
    let conversation = format.conversation(request);
    let edits = conversation.map(|it| edits::unpinned(request.body, &it));
    edits.unwrap_or_default().apply(request.body)
}

#[test]
fn a_body_that_is_damaged_and_still_json_stays_json() {
    let mut read = 0;
    for seed in 0..4_000 {
        let mut rng = Rng::with_seed(seed);
        let made = Maker::new(&mut rng).request();
        let body = damaged(&loose(&made.body, &mut rng), &mut rng);
        let format = formats::by_name(made.format).unwrap();
        let Ok(request) = format.parse(&body) else {
            continue;
        };
        let mut after = vec![unpinned(&request, format)];
        if let Some(turns) = Turns::of(&request, format, Stay::default()) {
            let keep = vec![false; turns.exchanges.len()];
            after.push(edits::dropping(&turns, &keep, Some(NOTE)).apply(&body));
            read += 1;
        }
        for after in after {
            let after = Object::parse(&after).unwrap();
            let list = after.get(made.field).filter(|raw| raw.starts_with('['));
            assert!(list.is_none_or(|raw| json::array(raw).is_ok()));
        }
    }
    assert!(read > 200, "it must get somewhere: {read}");
}

/// Conversations that were cut, with nothing odd about them, of one API; all that they are made of
/// is in them.
fn good(format: &'static str) -> impl Iterator<Item = Cut> {
    (0..)
        .map(|seed| Cut::random(&mut Rng::with_seed(seed)))
        .filter(move |cut| cut.made.format == format && !cut.made.odd)
        .filter(|cut| {
            cut.made
                .items()
                .iter()
                .all(|item| item["type"] != "item_reference")
        })
}

/// How many of the first hundred conversations the checks find fault with, once `damage` was done
/// to what was left of them; and how many it was done to.
fn caught(format: &'static str, damage: fn(&mut Vec<Value>, &mut Rng) -> bool) -> (usize, usize) {
    let mut rng = Rng::with_seed(7);
    let (mut found, mut done) = (0, 0);
    for cut in good(format).take(100) {
        let mut after: Value = serde_json::from_str(&cut.after).unwrap();
        let items = after[cut.made.field].as_array_mut().unwrap();
        if damage(items, &mut rng) {
            done += 1;
            found += usize::from(!faults(format, items).is_empty());
        }
    }
    (found, done)
}

fn is_result(item: &Value) -> bool {
    let kind = item["type"].as_str().unwrap_or("");
    item["role"] == "tool"
        || kind.ends_with("_output")
        || item["content"][0]["type"] == "tool_result"
}

fn is_call(item: &Value) -> bool {
    let parts = item["content"].as_array().map_or(&[][..], Vec::as_slice);
    item["tool_calls"].is_array()
        || matches!(
            item["type"].as_str(),
            Some("function_call" | "custom_tool_call")
        )
        || parts.iter().any(|part| part["type"] == "tool_use")
}

/// Takes one of the items of a kind out.
fn lose(items: &mut Vec<Value>, rng: &mut Rng, of: fn(&Value) -> bool) -> bool {
    let all: Vec<_> = (0..items.len()).filter(|at| of(&items[*at])).collect();
    let found = rng.choice(&all).copied();
    found.map(|at| items.remove(at)).is_some()
}

#[test]
fn a_pair_that_is_broken_is_found() {
    for format in FORMATS {
        let (found, done) = caught(format, |items, rng| lose(items, rng, is_result));
        assert!(found == done && done > 20, "{format}: {found} of {done}");
        let (found, done) = caught(format, |items, rng| lose(items, rng, is_call));
        assert!(found == done && done > 20, "{format}: {found} of {done}");
    }
}

#[test]
fn a_conversation_that_begins_with_the_assistant_or_ends_in_thought_is_found() {
    let (found, done) = caught("anthropic.messages", |items, _| {
        items.remove(0);
        true
    });
    assert_eq!(found, done);
    let (found, done) = caught("openai.responses", |items, rng| {
        let at = items.iter().position(|item| item["type"] == "reasoning");
        let Some(at) = at else { return false };
        items.insert(at + 1, serde_json::json!({"role": "user", "content": "x"}));
        rng.bool();
        true
    });
    assert!(found == done && done > 20, "{found} of {done}");
}

#[test]
fn a_byte_that_changed_and_an_order_that_changed_are_found() {
    let bytes = |cut: &Cut| catch_unwind(AssertUnwindSafe(|| cut.same_bytes()));
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let (mut found, mut done) = (0, 0);
    for format in FORMATS {
        for mut cut in good(format).filter(|cut| cut.after.contains('<')).take(50) {
            done += 2;
            let whole = cut.after.clone();
            cut.after = whole.replacen('<', "(", 1);
            found += usize::from(bytes(&cut).is_err());
            // One more that is gone than should be.
            cut.after = whole;
            let at = cut.stays.iter().position(|stays| *stays).unwrap();
            cut.stays[at] = false;
            found += usize::from(bytes(&cut).is_err());
        }
    }
    std::panic::set_hook(hook);
    assert_eq!(found, done);
}

#[test]
fn a_message_that_is_none_does_not_fit_the_schema() {
    let Some(schemas) = Schemas::load() else {
        println!("skipped: OpenAI's schema is not there");
        return;
    };
    let damages: &[fn(&mut Value)] = &[
        |item| item["role"] = "stranger".into(),
        |item| item["content"] = 7.into(),
        |item| item["content"] = serde_json::json!([{"type": "text"}]),
        |item| *item = Value::from("text"),
        |item| *item = serde_json::json!({"role": "tool", "content": "x"}),
        |item| *item = serde_json::json!({"type": "function_call_output", "call_id": "x"}),
    ];
    for format in ["openai.chat", "openai.responses"] {
        let name = schema_name(format).unwrap();
        for cut in good(format).take(20) {
            let whole: Value = serde_json::from_str(&cut.after).unwrap();
            assert!(schemas.fits(name, &whole));
            for (number, damage) in damages.iter().enumerate() {
                let mut body = whole.clone();
                let items = body[cut.made.field].as_array_mut().unwrap();
                let of_user = items.iter_mut().rev().find(|item| item["role"] == "user");
                damage(of_user.unwrap());
                assert!(!schemas.fits(name, &body), "{format}: {number}");
            }
        }
    }
}
