//! What the stand-in says: always the same for the same request, as long as its kind of prompt
//! would be answered, in the shape that tools and response formats ask for.

use serde_json::{Map, Value, json};

use super::tokens::{hash, pieces, unclaude};

/// A tool that may be called.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) schema: Value,
}

/// Whether a tool is called.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Choice {
    Auto,
    None,
    Any,
    Named(String),
}

/// The shape that the answer must have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    Text,
    JsonObject,
    Schema(Value),
}

/// What decides the answer.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) seed: u64,
    pub(crate) last_user: String,
    /// The conversation ends with a tool's result, not with the user.
    pub(crate) tool_result: Option<String>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: Choice,
    pub(crate) shape: Shape,
    pub(crate) limit: Option<u64>,
    pub(crate) stop: Vec<String>,
    pub(crate) reasoning: bool,
    pub(crate) claude: bool,
    /// Fixed answer length, for load tests.
    pub(crate) fixed_tokens: Option<u64>,
}

/// The answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// Text, or the arguments of the call, token by token.
    pub(crate) pieces: Vec<String>,
    /// The tool that is called.
    pub(crate) call: Option<String>,
    /// `o200k_base` tokens, reasoning included.
    pub(crate) tokens: usize,
    /// The part that was thinking.
    pub(crate) reasoning: usize,
    /// It was cut by the limit.
    pub(crate) cut: bool,
    /// It ended at one of the client's stop sequences.
    pub(crate) stopped: Option<String>,
}

impl Said {
    pub(crate) fn text(&self) -> String {
        self.pieces.concat()
    }
}

/// Tokens around a tool call besides its name and arguments.
const CALL_OVERHEAD: usize = 9;

/// A small generator (splitmix64): the stand-in needs equal answers for equal requests, nothing
/// more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn of<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
}

/// What is left of a request body when everything is removed that does not change what is said.
pub(crate) fn seed(body: &Value) -> u64 {
    let mut body = body.clone();
    if let Value::Object(fields) = &mut body {
        for field in [
            "stream",
            "stream_options",
            "user",
            "metadata",
            "store",
            "max_tokens",
            "max_completion_tokens",
            "max_output_tokens",
        ] {
            fields.remove(field);
        }
    }
    hash(body.to_string())
}

/// The answer to a request.
pub(crate) fn compose(ask: &Ask) -> Said {
    let mut dice = Dice(ask.seed);
    let limit = ask.limit.map_or(u64::MAX, |limit| {
        if ask.claude {
            unclaude(limit).max(1)
        } else {
            limit
        }
    });
    let mut limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut said = Said::default();
    if ask.reasoning {
        let wanted = 64 * (1 + dice.below(6));
        said.reasoning = wanted.min(limit);
        said.tokens = said.reasoning;
        limit -= said.reasoning;
        if limit == 0 {
            said.cut = true;
            return said;
        }
    }
    if let Some(tool) = called(ask) {
        let arguments = instance(&tool.schema, &tool.schema, &mut dice, &ask.last_user, 0);
        let before = CALL_OVERHEAD + pieces(&tool.name, usize::MAX).1;
        said.call = Some(tool.name.clone());
        let room = limit.saturating_sub(before);
        let (parts, count, cut) = pieces(&arguments.to_string(), room);
        said.pieces = parts;
        said.tokens += (before + count).min(limit);
        said.cut = cut;
        return said;
    }
    let mut text = match &ask.shape {
        Shape::Text => text(ask, &mut dice),
        Shape::JsonObject => {
            let answer = sentence(&mut dice, &words(&ask.last_user));
            json!({"answer": answer, "confidence": 0.5 + dice.below(50) as f64 / 100.0}).to_string()
        }
        Shape::Schema(schema) => instance(schema, schema, &mut dice, &ask.last_user, 0).to_string(),
    };
    let first_stop = ask.stop.iter().filter(|stop| !stop.is_empty());
    let first_stop = first_stop.filter_map(|stop| text.find(stop.as_str()).map(|at| (at, stop)));
    if let Some((at, stop)) = first_stop.min_by_key(|(at, _)| *at) {
        text.truncate(at);
        said.stopped = Some(stop.clone());
    }
    let (parts, count, cut) = pieces(&text, limit);
    if cut {
        said.stopped = None;
    }
    said.pieces = parts;
    said.tokens += count;
    said.cut = cut;
    said
}

/// The rule by which a tool is called: the caller demands it; or the conversation ends with a user
/// whose words name it (`get_weather` is named by "weather").
fn called(ask: &Ask) -> Option<&Tool> {
    match &ask.choice {
        Choice::None => None,
        Choice::Named(name) => ask.tools.iter().find(|tool| tool.name == *name),
        Choice::Any => ask
            .tools
            .iter()
            .find(|tool| named(tool, &ask.last_user))
            .or(ask.tools.first()),
        Choice::Auto if ask.tool_result.is_some() => None,
        Choice::Auto => ask.tools.iter().find(|tool| named(tool, &ask.last_user)),
    }
}

fn named(tool: &Tool, text: &str) -> bool {
    let text = text.to_lowercase();
    let name = tool.name.to_lowercase();
    let mut parts = name.split(['_', '-', '.']).filter(|part| part.len() >= 4);
    text.contains(&name) || parts.any(|part| text.contains(part))
}

/// A value that fits a JSON schema, as far as the stand-in's users write them: types, `enum`,
/// `const`, `properties`, `items`, `anyOf`, `$ref` into `$defs`, bounds, common formats.
pub(crate) fn instance(
    schema: &Value,
    root: &Value,
    dice: &mut Dice,
    text: &str,
    depth: usize,
) -> Value {
    if depth > 12 {
        return Value::Null;
    }
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = reference.strip_prefix('#').and_then(|at| root.pointer(at));
        return target.map_or(Value::Null, |target| {
            instance(target, root, dice, text, depth + 1)
        });
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let told = values.iter().find(|value| {
            value
                .as_str()
                .is_some_and(|value| text.to_lowercase().contains(&value.to_lowercase()))
        });
        let any = || values.get(dice.below(values.len()));
        return told.or_else(any).cloned().unwrap_or(Value::Null);
    }
    for one_of in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema.get(one_of).and_then(|list| list.get(0)) {
            return instance(first, root, dice, text, depth + 1);
        }
    }
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str).unwrap_or("null"),
        _ if schema.get("properties").is_some() => "object",
        _ => "string",
    };
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    match kind {
        "object" => {
            let mut fields = Map::new();
            for (name, schema) in schema
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                fields.insert(name.clone(), instance(schema, root, dice, text, depth + 1));
            }
            Value::Object(fields)
        }
        "array" => {
            let least = bound("minItems").unwrap_or(1.0).clamp(1.0, 16.0) as usize;
            let any = json!({"type": "string"});
            let items = schema.get("items").unwrap_or(&any);
            (0..least)
                .map(|_| instance(items, root, dice, text, depth + 1))
                .collect()
        }
        "integer" => {
            let low = bound("minimum").unwrap_or(1.0) as i64;
            let high = bound("maximum").unwrap_or(low as f64 + 99.0) as i64;
            json!(low + dice.below((high - low + 1).max(1) as usize) as i64)
        }
        "number" => {
            let low = bound("minimum").unwrap_or(0.0);
            let high = bound("maximum").unwrap_or(low + 100.0);
            json!(((low + (high - low) * dice.below(1000) as f64 / 1000.0) * 100.0).round() / 100.0)
        }
        "boolean" => json!(dice.below(2) == 1),
        "null" => Value::Null,
        _ => match schema.get("format").and_then(Value::as_str) {
            Some("date") => json!(format!(
                "2026-{:02}-{:02}",
                1 + dice.below(12),
                1 + dice.below(28)
            )),
            Some("date-time") => json!(format!(
                "2026-{:02}-01T09:{:02}:00Z",
                1 + dice.below(12),
                dice.below(60)
            )),
            Some("email") => json!("sam.lee@example.com"),
            Some("uuid") => json!(format!(
                "{:08x}-0000-4000-8000-{:012x}",
                dice.next() as u32,
                dice.next() >> 16
            )),
            _ => {
                let names = words(text);
                let name = names
                    .iter()
                    .find(|word| word.starts_with(char::is_uppercase));
                json!(name.or(names.last()).map_or("value", |word| *word))
            }
        },
    }
}

/// What a prompt asks for, by its words, and how long such answers are in tokens.
const KINDS: &[(&[&str], usize, usize)] = &[
    (
        &[
            "classify",
            "label",
            "yes or no",
            "true or false",
            "sentiment",
            "one word",
            "which intent",
        ],
        3,
        12,
    ),
    (&["extract", "json", "fields", "csv", "list only"], 25, 80),
    (&["translate", "rewrite", "rephrase", "correct the"], 20, 90),
    (&["summarise", "summarize", "summary", "tl;dr"], 50, 120),
    (
        &[
            "```",
            "function",
            "code",
            "python",
            "rust",
            "sql",
            "regex",
            "class ",
            "implement",
            "bug",
        ],
        120,
        380,
    ),
    (
        &[
            "prove",
            "derive",
            "step by step",
            "solve",
            "calculate",
            "how many",
            "integral",
            "equation",
        ],
        90,
        260,
    ),
    (
        &[
            "essay", "plan", "design", "compare", "explain", "analyse", "analyze",
        ],
        140,
        420,
    ),
];

fn text(ask: &Ask, dice: &mut Dice) -> String {
    if let Some(result) = &ask.tool_result {
        let shown: String = result.chars().take(160).collect();
        let rest = sentence(dice, &words(&ask.last_user));
        return format!("Here is what I found: {shown}. {rest}");
    }
    let prompt = ask.last_user.to_lowercase();
    let (low, high) = KINDS
        .iter()
        .find(|(marks, ..)| marks.iter().any(|mark| prompt.contains(mark)))
        .map_or((35, 130), |&(_, low, high)| (low, high));
    let target = match ask.fixed_tokens {
        Some(tokens) => tokens as usize,
        None => low + dice.below(high - low),
    };
    let about = words(&ask.last_user);
    let mut text = String::new();
    if target < 15 {
        return dice.of(SHORT).to_owned();
    }
    if prompt.contains("```") || prompt.contains("function") || prompt.contains("code") {
        text.push_str("Here is a version that does it:\n\n```python\ndef solve(items):\n    seen = {}\n    for position, item in enumerate(items):\n        seen.setdefault(item, []).append(position)\n    return seen\n```\n\n");
    }
    // Sentences run to about 17 tokens; the exact count is taken from the finished text.
    let mut words_left = target;
    while words_left > 8 {
        let next = sentence(dice, &about);
        words_left = words_left.saturating_sub(next.split_whitespace().count() * 6 / 5 + 1);
        text.push_str(&next);
        text.push(if dice.below(5) == 0 { '\n' } else { ' ' });
    }
    text.trim_end().to_owned()
}

fn sentence(dice: &mut Dice, about: &[&str]) -> String {
    let subject = |dice: &mut Dice| match about.len() {
        0 => "the request".to_owned(),
        len => about[dice.below(len)].to_owned(),
    };
    let pattern = dice.of(SENTENCES);
    let (one, two) = (subject(dice), subject(dice));
    let filled = pattern
        .replace("{a}", &one)
        .replace("{b}", &two)
        .replace("{n}", &(2 + dice.below(40)).to_string());
    let mut letters = filled.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => filled,
    }
}

/// Words of a prompt worth naming in an answer.
fn words(text: &str) -> Vec<&str> {
    let longest = text.len().min(2000);
    let text = text
        .get(..longest)
        .unwrap_or_else(|| text.split('\u{80}').next().unwrap_or(""));
    let mut words: Vec<&str> = text
        .split(|letter: char| !letter.is_alphanumeric() && letter != '\'' && letter != '-')
        .filter(|word| word.len() > 4 && word.len() < 24)
        .collect();
    words.dedup();
    words.truncate(40);
    words
}

const SHORT: &[&str] = &[
    "Yes.",
    "No.",
    "Neutral.",
    "Positive.",
    "Negative.",
    "Billing.",
    "True.",
    "It depends.",
    "Card arrival.",
];

const SENTENCES: &[&str] = &[
    "the short answer is that {a} decides how {b} behaves here.",
    "start with {a}, because everything that comes later depends on it.",
    "if {a} does not change within {n} minutes, check {b} once more.",
    "in practice about {n} of every hundred cases come down to {a}.",
    "there are two things to keep apart: {a} on the one hand, {b} on the other.",
    "you can see this best when {a} is taken away and {b} stays as it was.",
    "that holds for {a} as well, though the reason is a different one.",
    "first write down what is known about {a}, then work towards {b}.",
    "a common mistake is to treat {a} as if it were the same as {b}.",
    "once {a} is settled, the remaining steps take {n} minutes at most.",
    "note that {a} has a limit of {n}, which is easy to miss.",
    "for most people {a} is enough, and {b} can wait.",
    "should {a} fail, nothing is lost: {b} still has the earlier state.",
    "the numbers agree: {n} with {a}, and slightly fewer without.",
    "this is why {a} should be looked at before {b}, and not after.",
    "I would keep {a} as it is and change only {b}.",
    "open the page for {a}, choose the entry that mentions {b}, and confirm.",
    "put differently, {a} grows with {b}, but never faster than {n} to one.",
    "let me know if {a} still looks wrong after that.",
    "to be sure, compare {a} with {b} and keep whichever is smaller.",
];
