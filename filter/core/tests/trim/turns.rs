//! Whole conversations turn by turn through [`trim`], each turn told what was to be remembered of the
//! one before.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};
use sluice_core::config::Plan;
use sluice_core::formats;
use sluice_core::policy::trim::planner::Unmet;
use sluice_core::policy::trim::request::Counting;
use sluice_core::policy::trim::summary::DigestMemory;
use sluice_core::policy::trim::terms::TermMemory;
use sluice_core::policy::trim::{Job, Known, Memories, Model, Trimmed, asked, trim};
use sluice_core::tokens::{Encoding, Tokens};
use sluice_wire::{Similarity, Written, limit};

use crate::conversation::{Made, Maker, loose};
use crate::rules::{faults, in_a_row};
use crate::scribe::Scribe;
use crate::{from_env, without_pins};

const MODELS: &str = r#""models":{
    "gpt-4o":{"bytes_per_token":4.5,"input":2.5,"cached_input":1.25,"output":10,"prefix":{"min_tokens":32,"step":8}},
    "counted":{"encoding":"o200k_base","input":2.5,"cached_input":1.25,"output":10},
    "priced":{"bytes_per_token":4,"input":2.5,"cached_input":1.25,"output":10,
        "prefix":{"cache":"automatic","min_tokens":256,"step":32,"lifetime":"5m","longest":"1h"}},
    "plain":{"bytes_per_token":4,"input":2.5,"output":10},
    "small":{"bytes_per_token":4,"input":0.05,"output":0.2},
    "free":{"bytes_per_token":4,"input":0,"output":0},
    "claude":{"bytes_per_token":3.6,"input":1,"cached_input":0.1,"cache_write":1.25,"output":5,
        "prefix":{"cache":"marked","min_tokens":32,"step":1}}}"#;

/// What a worker has.
pub(crate) struct Worker {
    plan: Plan,
    tokens: Tokens,
    terms: TermMemory,
    digests: DigestMemory,
}

impl Worker {
    pub(crate) fn new(trim: &str, counts: bool) -> Worker {
        let config = format!("{{{MODELS},\"sidecar\":{{\"cluster\":\"s\"}},\"trim\":{trim}}}");
        let plan = Plan::parse(config.as_bytes(), &|_| None).unwrap();
        Worker {
            // Loading takes longer than a conversation.
            tokens: Tokens::load(if counts { &[Encoding::O200kBase] } else { &[] }),
            plan,
            terms: TermMemory::default(),
            digests: DigestMemory::default(),
        }
    }

    fn with<T>(
        &mut self,
        turn: &Turn<'_>,
        act: impl FnOnce(&Job<'_>, &mut Memories<'_>) -> T,
    ) -> T {
        let format = formats::by_name(turn.format).unwrap();
        let request = format.parse(turn.body).unwrap();
        let (name, model) = self.plan.model(turn.model).unwrap();
        let job = Job {
            request: &request,
            format,
            policy: &self.plan.route_at(None).trim,
            template: None,
            model: Model {
                name,
                counting: model.encoding.map(|encoding| Counting {
                    encoding,
                    scale_milli: turn.scale_milli,
                }),
                price: model.price,
                prefix: model.prefix,
            },
            limit: turn.limit,
            known: Known {
                similarities: turn.similarities,
                state: turn.state,
                summaries: turn.summaries,
                now_ms: turn.now_ms,
            },
        };
        let mut memories = Memories {
            tokens: &mut self.tokens,
            terms: &mut self.terms,
            digests: &mut self.digests,
        };
        act(&job, &mut memories)
    }

    pub(crate) fn trim(&mut self, turn: &Turn<'_>) -> Trimmed {
        self.with(turn, |job, memories| trim(job, memories).unwrap())
    }

    /// Prompt tokens of a body.
    pub(crate) fn count(&mut self, turn: &Turn<'_>, body: &str) -> u64 {
        let format = formats::by_name(turn.format).unwrap();
        let request = format.parse(body).unwrap();
        let (name, model) = self.plan.model(turn.model).unwrap();
        let (name, encoding) = (name.to_owned(), model.encoding);
        let each = encoding.and_then(|it| self.tokens.each(it, &request, turn.format));
        let scaled = |tokens: u64| (tokens * turn.scale_milli / 1000).max(tokens.min(1));
        let each = each.map(|each| each.map(scaled));
        let estimate = || self.tokens.estimate_each(&name, &request, turn.format);
        each.unwrap_or_else(estimate).total()
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Turn<'a> {
    pub(crate) format: &'static str,
    pub(crate) body: &'a str,
    pub(crate) model: &'a str,
    pub(crate) limit: Option<u64>,
    pub(crate) similarities: &'a [Similarity],
    pub(crate) state: Option<&'a str>,
    pub(crate) summaries: &'a [Written],
    pub(crate) now_ms: u64,
    /// For a model whose own vocabulary is not known.
    pub(crate) scale_milli: u64,
}

/// A policy, and whether all that it does is to leave messages out.
fn policy(rng: &mut Rng) -> (String, bool) {
    let keep = ["recent", "relevant", "summary"][rng.usize(..3)];
    let tokens = [0, 1, 20, 60, 200, 1000][rng.usize(..6)];
    let (last, first) = (rng.usize(..3), rng.usize(..2));
    let mut history =
        format!(r#""keep":"{keep}","tokens":{tokens},"last":{last},"pin_first":{first}"#);
    if keep == "summary" {
        history.push_str(match rng.u8(..3) {
            0 => r#","summary":{"tokens":50}"#,
            1 => r#","summary":{"tokens":60,"writer":"sidecar","model":"small"}"#,
            _ => r#","summary":{"tokens":60,"writer":"sidecar","model":"free"}"#,
        });
    }
    if rng.bool() {
        history.push_str(r#","embeddings":"on""#);
    }
    let mut all = format!(r#""history":{{{history}}}"#);
    let mut plain = keep != "summary";
    if rng.u8(..3) == 0 {
        plain = false;
        all.push_str(r#","system":{"tokens":10,"minify":true},"context":{"markers":[{"json":{}}],"top_k":2}"#);
    }
    if rng.bool() {
        plain = false;
        all.push_str(r#","marks":"on""#);
    }
    (format!("{{{all}}}"), plain)
}

/// The requests of a conversation: all up to each of its users' turns.
fn requests(made: &Made) -> Vec<Value> {
    let items = made.items();
    let ends = (1..=items.len()).filter(|end| {
        let next = items.get(*end).is_none_or(|item| item["role"] != "user");
        items[*end - 1]["role"] == "user" && next || *end == items.len()
    });
    let upto = |end| {
        let mut body = made.body.clone();
        body[made.field] = Value::from(&items[..end]);
        body
    };
    ends.map(upto).collect()
}

fn items(made: &Made, body: &str) -> Vec<Value> {
    let body: Value = serde_json::from_str(body).unwrap();
    without_pins(body[made.field].as_array().unwrap().clone())
}

/// Texts that are none, or too much, for what is to be remembered.
fn odd_state(state: &str, rng: &mut Rng) -> String {
    let odd = [
        "",
        "null",
        "7",
        "[]",
        "{}",
        r#"{"sent":{}}"#,
        r#"{"sent":{"at_ms":18446744073709551615,"ends":[[4294967295,18446744073709551615,0]],"dropped":[[0,4294967295],[4294967295,0],[3,1]],"edited_from":4294967295,"extra":18446744073709551615,"marks":[4294967295,0],"own":true,"balance":9223372036854775807,"pauses":4294967295,"short_pauses":4294967295},"chunks":[[0,18446744073709551615,[18446744073709551615]]]}"#,
        r#"{"sent":{"at_ms":0,"ends":[],"dropped":[[0,1]],"edited_from":0,"extra":0,"marks":[],"own":false,"balance":-9223372036854775808,"pauses":0,"short_pauses":4294967295}}"#,
    ];
    match rng.u8(..3) {
        0 => odd[rng.usize(..odd.len())].to_owned(),
        _ => {
            // Its numbers are others.
            let mut digits: Vec<u8> = state.bytes().collect();
            for digit in digits.iter_mut().filter(|byte| byte.is_ascii_digit()) {
                if rng.u8(..4) == 0 {
                    *digit = b'0' + rng.u8(1..10);
                }
            }
            String::from_utf8(digits).unwrap()
        }
    }
}

/// One conversation; how many of its turns went out shorter.
fn converse(seed: u64) -> usize {
    let mut rng = Rng::with_seed(seed);
    let made = Maker::new(&mut rng).request();
    let (trim, plain) = policy(&mut rng);
    let counts = rng.u8(..40) == 0;
    let mut worker = Worker::new(&trim, counts);
    let model = match counts {
        true => "counted",
        false => ["gpt-4o", "plain", "claude"][rng.usize(..3)],
    };
    let scale = [1000, 1000, 1170, 777][rng.usize(..4)];
    let hostile = rng.u8(..4) == 0;
    let mut state: Option<String> = None;
    let mut scribe = Scribe::default();
    let mut now_ms = 1_700_000_000_000;
    let mut shorter = 0;
    for body in requests(&made) {
        let body = loose(&body, &mut rng);
        now_ms += [1_000, 60_000, 400_000, 10_000_000][rng.usize(..4)];
        if hostile && rng.bool() {
            state = Some(odd_state(state.as_deref().unwrap_or("{}"), &mut rng));
            scribe.errs(&mut rng);
        }
        match rng.u8(..16) {
            0 => scribe.loses(),
            1 => state = None,
            _ => {}
        }
        let told = scribe.tells(&mut rng);
        let mut turn = Turn {
            format: made.format,
            body: &body,
            model,
            limit: (rng.u8(..4) == 0).then(|| rng.u64(..200)),
            similarities: &[],
            state: state.as_deref(),
            summaries: &told,
            now_ms,
            scale_milli: scale,
        };
        let format = formats::by_name(made.format).unwrap();
        let (once, again) = (
            format.parse(&body).unwrap(),
            format.parse_again(&body).unwrap(),
        );
        assert_eq!(format!("{again:?}"), format!("{once:?}"));
        let ask = worker.with(&turn, |job, _| asked(job));
        let known: Vec<Similarity> = ask
            .iter()
            .flat_map(|ask| &ask.relevance.lens)
            .map(|_| Similarity::of(rng.f32() * 2.0 - 1.0))
            .collect();
        if let Some(ask) = &ask {
            let all: u64 = ask.relevance.lens.iter().map(|len| u64::from(*len)).sum();
            assert_eq!(all, ask.texts.len() as u64);
            assert!(
                ask.relevance.lens.len() <= limit::TEXTS && ask.texts.len() <= limit::TEXTS_BYTES
            );
            assert!(std::str::from_utf8(&ask.texts).is_ok());
        }
        turn.similarities = match rng.u8(..4) {
            0 => &known[..known.len() / 2],
            _ => &known,
        };
        let trimmed = worker.trim(&turn);
        let again = Worker::new(&trim, counts).trim(&turn);
        scribe.takes(trimmed.order.as_ref());
        assert!(trimmed.order.is_none() || trimmed.state.is_some());
        assert_eq!(
            (&trimmed.body, &trimmed.state, &trimmed.order),
            (&again.body, &again.state, &again.order),
            "what a worker remembers of texts changes nothing"
        );
        let whole = trimmed.whole.as_deref().unwrap_or(&body);
        let sent = trimmed.body.as_deref().unwrap_or(whole);
        assert_eq!(trimmed.before, worker.count(&turn, whole), "{whole}");
        assert_eq!(
            trimmed.after,
            worker.count(&turn, sent),
            "{:?} {sent}",
            trimmed.why
        );
        let cheaper = trimmed.kept.is_some() || trim.contains("marks");
        assert!(trimmed.after <= trimmed.before || cheaper);
        assert!(!sent.contains(r#""sluice_pin":"#) || made.odd);
        let (before, after) = (items(&made, &body), items(&made, sent));
        let mut known = faults(made.format, &before);
        for fault in faults(made.format, &after) {
            let old = known.iter().position(|known| *known == fault);
            let old = old.unwrap_or_else(|| panic!("{fault} in {after:#?}\nbefore: {before:#?}"));
            known.swap_remove(old);
        }
        assert!(in_a_row(&after) <= in_a_row(&before), "{after:#?}");
        assert_eq!(
            after.last(),
            before.last().filter(|_| plain).or(after.last())
        );
        if plain {
            let kept = match &trimmed.kept {
                Some(kept) if trimmed.body.is_some() => kept.clone(),
                _ => (0..before.len()).collect(),
            };
            let kept: Vec<&Value> = kept.iter().map(|at| &before[*at]).collect();
            assert_eq!(kept, after.iter().collect::<Vec<_>>());
        }
        shorter += usize::from(trimmed.after < trimmed.before);
        if let Some(state) = &trimmed.state {
            assert!(state.len() <= limit::STATE, "{}", state.len());
        }
        state = trimmed.state;
    }
    shorter
}

#[test]
fn every_turn_of_a_conversation_goes_out_whole_or_as_a_shorter_one_that_its_api_takes() {
    let seconds = from_env("SLUICE_FUZZ_SECONDS").unwrap_or(3);
    let first = from_env("SLUICE_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("SLUICE_FUZZ_SEED={first}");
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let (mut conversations, mut shorter) = (0, 0);
    for seed in first.. {
        if Instant::now() >= deadline {
            break;
        }
        let told = catch_unwind(AssertUnwindSafe(|| converse(seed)));
        shorter += told.unwrap_or_else(|panic| {
            eprintln!("SLUICE_FUZZ_SEED={seed} failed");
            std::panic::resume_unwind(panic)
        });
        conversations += 1;
    }
    println!("{conversations} conversations, {shorter} turns shorter");
    assert!(
        conversations > 10 && shorter > 0,
        "{conversations} {shorter}"
    );
}

/// A provider's cache of prompts' fronts, in one world.
#[derive(Default)]
struct Provider {
    /// When each was used last.
    fronts: HashMap<u64, u64>,
}

impl Provider {
    /// What a prompt of these messages, with their tokens, comes to in thousandths of a plain token:
    /// half for what it has seen, as OpenAI has it.
    fn charge(&mut self, messages: &[(String, u64)], (now_ms, forgets_ms): (u64, u64)) -> u64 {
        let forgotten = now_ms.saturating_sub(forgets_ms);
        self.fronts.retain(|_, used| *used >= forgotten);
        let (mut hash, mut all, mut held) = (0, 0, 0);
        let mut fronts = Vec::new();
        for (message, tokens) in messages {
            let mut hasher = DefaultHasher::new();
            (hash, message).hash(&mut hasher);
            hash = hasher.finish();
            all += tokens;
            if self.fronts.contains_key(&hash) && all >= 256 {
                held = all - all % 32;
            }
            fronts.push(hash);
        }
        for front in fronts {
            self.fronts.insert(front, now_ms);
        }
        (all - held) * 1000 + held * 500
    }
}

/// Who writes what stands for what is left out, where something does.
pub(crate) fn summary(keep: &str, rng: &mut Rng) -> &'static str {
    match (keep, rng.u8(..3)) {
        ("summary", 0) => r#","summary":{"tokens":50}"#,
        ("summary", 1) => r#","summary":{"tokens":90,"writer":"sidecar","model":"small"}"#,
        ("summary", _) => r#","summary":{"tokens":90,"writer":"sidecar","model":"plain"}"#,
        _ => "",
    }
}

/// A conversation that grows by an exchange a turn, and what came of it.
fn pay(seed: u64) -> Came {
    let mut rng = Rng::with_seed(seed);
    let keep = ["recent", "relevant", "summary"][rng.usize(..3)];
    let budget = [50, 300, 1000][rng.usize(..3)];
    let summary = summary(keep, &mut rng);
    let forgetful = rng.u8(..8) == 0;
    let mut scribe = Scribe::default();
    let mut came = Came::default();
    let trim = format!(
        r#"{{"history":{{"keep":"{keep}","tokens":{budget},"last":{}{summary}}}}}"#,
        rng.usize(..3)
    );
    let mut worker = Worker::new(&trim, false);
    let (mut nothing, mut planned) = (Provider::default(), Provider::default());
    let (mut paid_for_nothing, mut paid) = (0, 0);
    let mut messages =
        vec![json!({"role": "system", "content": "Rules. ".repeat(rng.usize(1..200))})];
    let mut state: Option<String> = None;
    let mut now_ms = 1_700_000_000_000;
    let things = ["router", "invoice", "parcel", "lamp"];
    for at in 0..rng.usize(2..30) {
        now_ms += [1_000, 60_000, 280_000, 900_000, 5_000_000][rng.usize(..5)];
        let thing = things[rng.usize(..4)];
        let said = format!("Number {at} about the {thing}. ").repeat(rng.usize(1..30));
        messages.push(json!({"role": "user", "content": said}));
        let body = json!({"model": "priced", "messages": messages}).to_string();
        if forgetful && rng.u8(..6) == 0 {
            scribe.loses();
        }
        let told = scribe.tells(&mut rng);
        let turn = Turn {
            format: "openai.chat",
            body: &body,
            model: "priced",
            limit: None,
            similarities: &[],
            state: state.as_deref(),
            summaries: &told,
            now_ms,
            scale_milli: 1000,
        };
        let trimmed = worker.trim(&turn);
        let sent = trimmed.body.as_deref().unwrap_or(&body);
        let forgets_ms = [300_000, 600_000, 3_600_000][rng.usize(..3)];
        let mut prompt = |body: &str| -> Vec<(String, u64)> {
            let body: Value = serde_json::from_str(body).unwrap();
            let messages = body["messages"].as_array().unwrap();
            let counted = messages.iter().map(|message| {
                let alone = json!({"model": "priced", "messages": [message]}).to_string();
                (message.to_string(), worker.count(&turn, &alone))
            });
            counted.collect()
        };
        let (whole, sent) = (prompt(&body), prompt(sent));
        paid_for_nothing += nothing.charge(&whole, (now_ms, forgets_ms));
        paid += planned.charge(&sent, (now_ms, forgets_ms));
        if let Some(order) = &trimmed.order {
            // What is said around it, and the longest text; at the writer's price, of which that of the
            // cheap one is a fiftieth.
            let prompt = order.text.len() as u64 / 4 + 250;
            let written = prompt * 20 + u64::from(order.tokens) * 80;
            paid += written * if order.model == "plain" { 50 } else { 1 };
        }
        scribe.takes(trimmed.order.as_ref());
        came.ordered += u64::from(trimmed.order.is_some());
        came.used += u64::from(trimmed.texts.used);
        came.lost += u64::from(trimmed.texts.lost);
        // Where a text is lost the words that go on are others, and it is told that they may be dearer.
        let told_so = trimmed.unmet == Some(Unmet::Price);
        assert!(!told_so || came.lost > 0, "turn {at}");
        assert!(forgetful || came.lost == 0, "turn {at}: nobody lost it");
        came.dearer |= told_so;
        assert!(
            paid <= paid_for_nothing || came.dearer,
            "turn {at}, {:?} {:?}: {paid} of {paid_for_nothing}",
            trimmed.why,
            trimmed.unmet
        );
        state = trimmed.state;
        messages.push(json!({"role": "assistant", "content": format!("The {thing} {at} is fine. ").repeat(rng.usize(1..10))}));
    }
    came.saved = paid_for_nothing.saturating_sub(paid);
    came
}

/// What came of conversations.
#[derive(Default)]
struct Came {
    /// Thousandths of a token.
    saved: u64,
    /// Turns that ordered a text, that sent one, that missed one.
    ordered: u64,
    used: u64,
    lost: u64,
    /// It was told that a turn may be dearer.
    dearer: bool,
}

#[test]
fn at_the_end_of_no_turn_has_trimming_cost_more_than_doing_nothing() {
    let first = from_env("SLUICE_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("SLUICE_FUZZ_SEED={first}");
    let mut all = Came::default();
    for seed in (first..).take(150) {
        let told = catch_unwind(AssertUnwindSafe(|| pay(seed)));
        let came = told.unwrap_or_else(|panic| {
            eprintln!("SLUICE_FUZZ_SEED={seed} failed");
            std::panic::resume_unwind(panic)
        });
        all.saved += came.saved;
        all.ordered += came.ordered;
        all.used += came.used;
        all.lost += came.lost;
    }
    let Came {
        ordered,
        used,
        lost,
        ..
    } = all;
    println!("{ordered} texts ordered, {used} turns with one, {lost} without theirs");
    assert!(all.saved > 0, "it must save something");
    assert!(ordered > 0 && used > 0, "{ordered} {used}");
}

/// A chat of so many exchanges, each about something of its own, and a question.
fn long(exchanges: usize, question: &str) -> String {
    let mut messages = vec![json!({"role": "system", "content": "You help customers."})];
    let things = [
        "router", "invoice", "parcel", "password", "refund", "camera", "lamp",
    ];
    for at in 0..exchanges {
        let thing = things[at % 4];
        let said = format!(
            "Number {at}: something about my {thing} and order {}.",
            at * 37
        );
        messages.push(json!({"role": "user", "content": said}));
        let answer = format!(
            "The {thing} of order {} was looked at and is fine, and nothing needs to be done about it for now.",
            at * 37
        );
        messages.push(json!({"role": "assistant", "content": answer}));
    }
    messages.push(json!({"role": "user", "content": question}));
    json!({"model": "gpt-4o", "messages": messages}).to_string()
}

#[test]
fn a_long_conversation_is_cut_however_many_gaps_that_leaves() {
    for budget in [700, 1_400, 2_800, 5_600] {
        let trim = format!(r#"{{"history":{{"keep":"relevant","tokens":{budget},"last":2}}}}"#);
        let mut worker = Worker::new(&trim, false);
        let mut state: Option<String> = None;
        let questions = [
            "What about the parcel?",
            "And my invoice?",
            "Is the lamp fine?",
        ];
        for (at, question) in questions.iter().cycle().take(6).enumerate() {
            let body = long(300 + at, question);
            let trimmed = worker.trim(&Turn {
                format: "openai.chat",
                body: &body,
                model: "gpt-4o",
                limit: None,
                similarities: &[],
                state: state.as_deref(),
                summaries: &[],
                now_ms: 1_700_000_000_000 + at as u64 * 60_000,
                scale_milli: 1000,
            });
            state = trimmed.state;
            let over = trimmed.after.saturating_sub(trimmed.before / 2);
            assert!(state.is_some() && over == 0, "{budget}, turn {at}");
        }
    }
}

#[test]
fn what_no_setting_touches_leaves_byte_for_byte() {
    let mut worker = Worker::new(
        r#"{"history":{"tokens":100000},"system":{"tokens":1000},"marks":"off","context":{"markers":[{"json":{}}],"top_k":5}}"#,
        false,
    );
    for body in [
        r#"{ "model":"gpt-4o" , "messages" : [ {"role":"user","content":"hi \u0041"} ] , "zz":1.0e0 }"#,
        r#"{"messages":[],"model":"gpt-4o"}"#,
        r#"{"messages":[{"role":"system","content":"s"}],"model":"gpt-4o"}"#,
        r#"{"messages":[{"role":"assistant","content":"s"}],"model":"gpt-4o"}"#,
        r#"{"messages":[null, 7, "x", {}],"model":"gpt-4o"}"#,
    ] {
        let format = formats::by_name("openai.chat").unwrap();
        if format.parse(body).is_err() {
            println!("not read: {body}");
            continue;
        }
        let trimmed = worker.trim(&Turn {
            format: "openai.chat",
            body,
            model: "gpt-4o",
            limit: Some(1),
            similarities: &[],
            state: None,
            summaries: &[],
            now_ms: 1,
            scale_milli: 1000,
        });
        assert_eq!((trimmed.whole, trimmed.body), (None, None), "{body}");
        assert_eq!(trimmed.before, trimmed.after);
    }
}

#[test]
fn what_a_mark_of_ours_adds_to_json_that_is_counted_as_such_is_counted() {
    let said = "Something about my router and the order. ".repeat(20);
    let tools = json!([{"name": "look_up", "description": "Looks something up. ".repeat(30), "input_schema": {"type": "object"}}]);
    for odd in [json!([]), json!([{"type": "hologram", "of": "a router"}])] {
        let mut worker = Worker::new(r#"{"history":{"tokens":20,"last":0},"marks":"on"}"#, false);
        let (mut messages, mut state, mut marked) = (Vec::new(), None::<String>, 0);
        for now_ms in [1, 1_000, 2_000, 3_000] {
            let mut parts = vec![json!({"type": "text", "text": said})];
            if now_ms == 3_000 {
                parts.extend(odd.as_array().unwrap().clone());
            }
            messages.push(json!({"role": "user", "content": parts}));
            let body = json!({"model": "claude", "tools": tools, "messages": messages}).to_string();
            let turn = Turn {
                format: "anthropic.messages",
                body: &body,
                model: "claude",
                limit: None,
                similarities: &[],
                state: state.as_deref(),
                summaries: &[],
                now_ms,
                scale_milli: 1000,
            };
            let trimmed = worker.trim(&turn);
            let sent = trimmed.body.as_deref().unwrap_or(&body);
            marked = sent.matches("cache_control").count();
            assert_eq!(trimmed.after, worker.count(&turn, sent), "{sent}");
            state = trimmed.state;
            messages.push(json!({"role": "assistant", "content": said}));
        }
        assert!(marked > 0);
    }
}
