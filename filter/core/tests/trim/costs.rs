//! What conversations cost that are trimmed by any mix of settings, at a provider whose cache is told
//! by marks, and at one that caches by itself: never more than if nothing had been left out.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::from_env;
use crate::scribe::Scribe;
use crate::turns::{Turn, Worker, summary};

/// Blocks before a mark among which what was written earlier is found (Anthropic, "Prompt caching").
const LOOK_BACK: usize = 20;

/// How a provider sells fronts, in thousandths of a plain token.
struct Tariff {
    model: &'static str,
    marked: bool,
    min_tokens: u64,
    step: u64,
    read: u64,
    write: u64,
    /// What the cheap model that writes digests takes for a token that it reads, and one that it writes;
    /// the dear one takes fifty times that.
    writer: (u64, u64),
}

const TARIFFS: [Tariff; 3] = [
    Tariff {
        model: "claude",
        marked: true,
        min_tokens: 32,
        step: 1,
        read: 100,
        write: 1250,
        writer: (50, 200),
    },
    Tariff {
        model: "priced",
        marked: false,
        min_tokens: 256,
        step: 32,
        read: 500,
        write: 1000,
        writer: (20, 80),
    },
    Tariff {
        model: "plain",
        marked: false,
        min_tokens: u64::MAX,
        step: 1,
        read: 1000,
        write: 1000,
        writer: (20, 80),
    },
];

/// What stands before the messages, or one of them: its bytes but for marks, its tokens, a mark.
struct Block {
    text: String,
    tokens: u64,
    mark: bool,
}

/// A provider's cache, in one world: fronts, and when each was used last.
#[derive(Default)]
struct Provider(HashMap<String, u64>);

impl Provider {
    fn charge(
        &mut self,
        tariff: &Tariff,
        blocks: &[Block],
        (now_ms, forgets_ms): (u64, u64),
    ) -> u64 {
        self.0.retain(|_, used| *used + forgets_ms >= now_ms);
        let mut fronts = vec![(String::new(), 0)];
        for block in blocks {
            let (front, tokens) = &fronts[fronts.len() - 1];
            fronts.push((format!("{front}\n{}", block.text), tokens + block.tokens));
        }
        let all = fronts[blocks.len()].1;
        let long = |end: &usize| fronts[*end].1 >= tariff.min_tokens;
        let ends = 1..=blocks.len();
        let marks = ends
            .clone()
            .filter(|end| !tariff.marked || blocks[*end - 1].mark);
        let marks: Vec<usize> = marks.filter(long).collect();
        let reads = ends.filter(|end| {
            let near = |mark: &&usize| *end <= **mark && **mark - *end < LOOK_BACK;
            marks.iter().any(|mark| near(&mark)) && self.0.contains_key(&fronts[*end].0)
        });
        let read = reads.filter(long).max();
        let held = read.map_or(0, |end| {
            let tokens = fronts[end].1;
            tokens - (tokens - tariff.min_tokens) % tariff.step
        });
        let written = marks.last().map_or(0, |end| fronts[*end].1).max(held);
        for end in marks.into_iter().chain(read) {
            self.0.insert(fronts[end].0.clone(), now_ms);
        }
        held * tariff.read + (written - held) * tariff.write + (all - written) * 1000
    }
}

/// The body without marks, and whether there was one.
fn unmarked(value: &Value) -> (Value, bool) {
    match value {
        Value::Object(fields) => {
            let mut any = fields.contains_key("cache_control");
            let fields = fields.iter().filter(|(name, _)| *name != "cache_control");
            let fields = fields.map(|(name, value)| {
                let (value, marked) = unmarked(value);
                any |= marked;
                (name.clone(), value)
            });
            let fields = fields.collect();
            (Value::Object(fields), any)
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(unmarked).collect();
            let any = items.iter().any(|(_, marked)| *marked);
            let items = items.into_iter().map(|(value, _)| value).collect();
            (Value::Array(items), any)
        }
        other => (other.clone(), false),
    }
}

/// Text and one block of it are the same to the provider.
fn bare(value: &Value) -> Value {
    match value.as_array().map(Vec::as_slice) {
        Some([block]) if block["type"] == "text" => block["text"].clone(),
        _ => value.clone(),
    }
}

/// A prompt as the provider sees it.
fn blocks(worker: &mut Worker, turn: &Turn<'_>, body: &str) -> Vec<Block> {
    let body: Value = serde_json::from_str(body).unwrap();
    let filler = json!({"role": "user", "content": "x"});
    let mut count = |system: Option<&Value>, message: Option<&Value>| {
        let mut alone = json!({"model": turn.model, "max_tokens": 9, "messages": [filler]});
        if let Some(system) = system {
            alone["system"] = system.clone();
        }
        alone["messages"]
            .as_array_mut()
            .unwrap()
            .extend(message.cloned());
        worker.count(turn, &alone.to_string())
    };
    let nothing = count(None, None);
    let mut blocks = Vec::new();
    if let Some(system) = body.get("system") {
        let (plain, mark) = unmarked(system);
        let tokens = count(Some(system), None) - nothing;
        let text = format!("system {}", bare(&plain));
        blocks.push(Block { text, tokens, mark });
    }
    for message in body["messages"].as_array().unwrap() {
        let (plain, mark) = unmarked(message);
        let tokens = count(None, Some(message)) - nothing;
        let text = format!("{} {}", plain["role"], bare(&plain["content"]));
        blocks.push(Block { text, tokens, mark });
    }
    blocks
}

/// Settings of history, system prompt, chunks and marks, each there or not.
fn settings(rng: &mut Rng) -> String {
    let keep = ["recent", "relevant", "summary"][rng.usize(..3)];
    let tokens = [50, 300, 1000][rng.usize(..3)];
    let summary = summary(keep, rng);
    let (last, first) = (rng.usize(..3), rng.usize(..2));
    let history = format!(
        r#""history":{{"keep":"{keep}","tokens":{tokens},"last":{last},"pin_first":{first}{summary}}}"#
    );
    let mut all = vec![history];
    if rng.bool() {
        let cap = [20, 100][rng.usize(..2)];
        all.push(format!(r#""system":{{"tokens":{cap},"minify":true}}"#));
    }
    if rng.bool() {
        all.push(r#""context":{"markers":[{"tag":"doc"}],"top_k":1}"#.to_owned());
    }
    if rng.bool() {
        all.push(r#""marks":"on""#.to_owned());
    }
    format!("{{{}}}", all.join(","))
}

/// A message's content, with the client's mark where it sets one.
fn content(text: &str, mark: bool) -> Value {
    let mut block = json!({"type": "text", "text": text});
    if mark {
        block["cache_control"] = json!({"type": "ephemeral"});
    }
    json!([block])
}

/// A conversation that grows by an exchange a turn; what it saved, in thousandths of a token, whether
/// marks of ours went out, and how many turns went out with a text that a model wrote.
fn pay(seed: u64) -> (u64, bool, u64) {
    let mut rng = Rng::with_seed(seed);
    let trim = settings(&mut rng);
    let tariff = &TARIFFS[rng.usize(..TARIFFS.len())];
    let mut worker = Worker::new(&trim, false);
    let marking = tariff.marked && rng.bool();
    let rules = "You help.  Be brief and kind.\n\n\nNever guess what a parcel costs.  ";
    let system = rules.repeat(rng.usize(1..30));
    let (mut nothing, mut planned) = (Provider::default(), Provider::default());
    let (mut paid_for_nothing, mut paid) = (0, 0);
    let mut said: Vec<(&str, String)> = Vec::new();
    let mut state: Option<String> = None;
    let mut scribe = Scribe::default();
    let (mut own_marks, mut with_text) = (false, 0);
    let mut now_ms = 1_700_000_000_000;
    let things = ["router", "invoice", "parcel", "lamp"];
    for at in 0..rng.usize(2..25) {
        now_ms += [1_000, 60_000, 280_000, 900_000, 5_000_000][rng.usize(..5)];
        let thing = things[rng.usize(..4)];
        let chunks: String = (0..rng.usize(..3) * 2)
            .map(|chunk| {
                format!(
                    "<doc>About the {} number {chunk}. It is {at}.</doc>\n",
                    things[chunk]
                )
            })
            .collect();
        let asks = format!("Number {at} about the {thing}. ").repeat(rng.usize(1..30));
        said.push(("user", format!("{chunks}{asks}")));
        let last = said.len() - 1;
        let messages = said.iter().enumerate().map(|(at, (role, text))| {
            json!({"role": role, "content": content(text, marking && at == last)})
        });
        let messages: Vec<Value> = messages.collect();
        let (format, body) = match tariff.marked {
            true => (
                "anthropic.messages",
                json!({"model": tariff.model, "max_tokens": 9,
                    "system": content(&system, marking), "messages": messages}),
            ),
            false => {
                let front = json!({"role": "system", "content": system});
                let all: Vec<&Value> = std::iter::once(&front).chain(&messages).collect();
                (
                    "openai.chat",
                    json!({"model": tariff.model, "messages": all}),
                )
            }
        };
        let body = body.to_string();
        let texts = scribe.tells(&mut rng);
        let turn = Turn {
            format,
            body: &body,
            model: tariff.model,
            limit: None,
            similarities: &[],
            state: state.as_deref(),
            summaries: &texts,
            now_ms,
            scale_milli: 1000,
        };
        let trimmed = worker.trim(&turn);
        let whole = trimmed.whole.as_deref().unwrap_or(&body);
        let sent = trimmed.body.as_deref().unwrap_or(whole);
        assert_eq!(trimmed.before, worker.count(&turn, whole));
        assert_eq!(trimmed.after, worker.count(&turn, sent));
        own_marks |= !marking && sent.contains("cache_control");
        let longest = if tariff.marked { 600_000 } else { 3_600_000 };
        let moment = (now_ms, [300_000, 600_000, longest][rng.usize(..3)]);
        let (whole, sent) = (
            blocks(&mut worker, &turn, &body),
            blocks(&mut worker, &turn, sent),
        );
        paid_for_nothing += nothing.charge(tariff, &whole, moment);
        paid += planned.charge(tariff, &sent, moment);
        if let Some(order) = &trimmed.order {
            // Four bytes a token, what is said around it, and the longest text.
            let prompt = order.text.len() as u64 / 4 + 250;
            let written = prompt * tariff.writer.0 + u64::from(order.tokens) * tariff.writer.1;
            paid += written * if order.model == "plain" { 50 } else { 1 };
        }
        scribe.takes(trimmed.order.as_ref());
        with_text += u64::from(trimmed.texts.used);
        assert!(
            paid <= paid_for_nothing,
            "{} turn {at}, {:?} {:?}: {paid} of {paid_for_nothing}, {trim}",
            tariff.model,
            trimmed.why,
            trimmed.unmet
        );
        state = trimmed.state;
        let answer = format!("The {thing} {at} is fine. ").repeat(rng.usize(1..10));
        said.push(("assistant", answer));
    }
    (paid_for_nothing - paid, own_marks, with_text)
}

#[test]
fn whatever_is_set_and_however_the_provider_caches_no_turn_ends_dearer_than_doing_nothing() {
    let first = from_env("SLUICE_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("SLUICE_FUZZ_SEED={first}");
    let (mut saved, mut marked, mut written) = (0, 0, 0);
    for seed in (first..).take(150) {
        let told = catch_unwind(AssertUnwindSafe(|| pay(seed)));
        let (saves, own_marks, with_text) = told.unwrap_or_else(|panic| {
            eprintln!("SLUICE_FUZZ_SEED={seed} failed");
            std::panic::resume_unwind(panic)
        });
        saved += saves;
        marked += u32::from(own_marks);
        written += with_text;
    }
    println!(
        "{saved} saved, {marked} conversations with marks of ours, {written} turns with a text"
    );
    assert!(
        saved > 0 && marked > 0 && written > 0,
        "{saved} {marked} {written}"
    );
}
