//! Support conversations of thirty turns, made up: topics that come back, tool calls, long answers,
//! pauses of seconds to half hours. The same seed makes the same conversation.

use fastrand::Rng;
use serde_json::{Value, json};

#[cfg(test)]
mod tests;

/// Turns of a conversation.
pub const TURNS: usize = 30;

/// A customer and an assistant.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// The system prompt, 800 to 3,000 tokens.
    pub system: String,
    /// What is said, in order.
    pub turns: Vec<Turn>,
}

/// A customer's turn and what came of it.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Milliseconds since the turn before.
    pub pause_ms: u64,
    /// What it is about.
    pub topic: usize,
    /// What the customer says.
    pub user: String,
    /// Arguments of the order look-up and its result, where there was one.
    pub looked_up: Option<(String, String)>,
    /// What the assistant says.
    pub answer: String,
}

/// Where a client of Anthropic's sets its marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// Nowhere.
    None,
    /// At the system prompt and at the last message.
    FrontAndLast,
}

/// Words of each topic.
const TOPICS: &[&[&str]] = &[
    &[
        "parcel", "courier", "tracking", "depot", "doorstep", "dispatch", "postcode",
    ],
    &[
        "refund",
        "invoice",
        "bank",
        "statement",
        "card",
        "charge",
        "reversal",
    ],
    &[
        "router", "firmware", "antenna", "channel", "reboot", "signal", "cable",
    ],
    &[
        "subscription",
        "renewal",
        "plan",
        "upgrade",
        "trial",
        "seat",
        "discount",
    ],
    &[
        "password",
        "login",
        "authenticator",
        "reset",
        "lockout",
        "device",
        "session",
    ],
    &[
        "warranty",
        "repair",
        "screen",
        "battery",
        "technician",
        "serial",
        "replacement",
    ],
];

const OPENINGS: &[&str] = &[
    "As far as we can see the {a} was handled by the {b} team on day {n} of this month",
    "Please check whether the {a} still shows the same {b} as it did {n} hours ago",
    "Where the {a} does not match, our staff compares it with the {b} within {n} days",
    "The {a} depends on the {b}, which takes about {n} minutes to settle",
    "I have looked at the {a} again and it seems that the {b} came {n} days late",
    "Customers who ask for a {a} are told about the {b} before step {n} begins",
];

/// A number with a long tail, around `middle`.
fn around(dice: &mut Rng, middle: usize) -> usize {
    // The product of two spreads: most are near the middle, one in twenty is more than twice it.
    let spread = (0.4 + 1.2 * dice.f64()) * (0.5 + dice.f64());
    ((middle as f64 * spread) as usize).max(1)
}

/// About so many tokens about a topic.
fn text(dice: &mut Rng, topic: usize, tokens: usize) -> String {
    let words = TOPICS[topic % TOPICS.len()];
    let mut text = String::new();
    // A sentence runs to about 20 tokens.
    for _ in 0..tokens.div_ceil(20) {
        let opening = OPENINGS[dice.usize(..OPENINGS.len())];
        let sentence = opening
            .replace("{a}", words[dice.usize(..words.len())])
            .replace("{b}", words[dice.usize(..words.len())])
            .replace("{n}", &dice.u32(2..90).to_string());
        text.push_str(&sentence);
        text.push_str(". ");
    }
    text.trim_end().to_owned()
}

/// Six in ten within a minute, one in twenty after a quarter of an hour or more.
fn pause_ms(dice: &mut Rng) -> u64 {
    let secs = match dice.u32(..100) {
        0..60 => 4..60,
        60..85 => 60..300,
        85..95 => 300..900,
        _ => 900..1800,
    };
    dice.u64(secs) * 1000
}

impl Conversation {
    /// The conversation of that seed.
    #[must_use]
    pub fn support(seed: u64) -> Conversation {
        let mut dice = Rng::with_seed(seed);
        let rules = dice.usize(800..3000);
        let mut system =
            "You are the support assistant of a shop. Follow these rules.\n".to_owned();
        let chapters = 6;
        for chapter in 0..chapters {
            system.push_str(&text(&mut dice, chapter, rules / chapters));
            system.push('\n');
        }
        let open: Vec<usize> = (0..dice.usize(3..6))
            .map(|_| dice.usize(..TOPICS.len()))
            .collect();
        let mut topic = open[0];
        let turns = (0..TURNS).map(|_| {
            if dice.u8(..10) < 3 {
                topic = open[dice.usize(..open.len())];
            }
            turn(&mut dice, topic)
        });
        Conversation {
            turns: turns.collect(),
            system,
        }
    }

    /// OpenAI's messages of the request of a turn (from zero), with the exchanges before it from
    /// `from` on.
    #[must_use]
    pub fn openai(&self, turn: usize, from: usize) -> Vec<Value> {
        let mut messages = vec![json!({"role": "system", "content": self.system})];
        for (at, said) in self.turns.iter().enumerate().take(turn + 1).skip(from) {
            messages.push(json!({"role": "user", "content": said.user}));
            if at == turn {
                break;
            }
            if let Some((arguments, result)) = &said.looked_up {
                let id = format!("call_{at}");
                messages.push(json!({"role": "assistant", "content": null, "tool_calls": [
                    {"id": id, "type": "function",
                     "function": {"name": "look_up_order", "arguments": arguments}},
                ]}));
                messages.push(json!({"role": "tool", "tool_call_id": id, "content": result}));
            }
            messages.push(json!({"role": "assistant", "content": said.answer}));
        }
        messages
    }

    /// Anthropic's system prompt and messages of the same.
    #[must_use]
    pub fn anthropic(&self, turn: usize, (from, marks): (usize, Marks)) -> (Value, Vec<Value>) {
        let text = |text: &str| json!({"type": "text", "text": text});
        let mut messages = Vec::new();
        for (at, said) in self.turns.iter().enumerate().take(turn + 1).skip(from) {
            messages.push(json!({"role": "user", "content": [text(&said.user)]}));
            if at == turn {
                break;
            }
            if let Some((arguments, result)) = &said.looked_up {
                let id = format!("toolu_{at}");
                let input: Value = serde_json::from_str(arguments).unwrap_or_default();
                messages.push(json!({"role": "assistant", "content": [
                    {"type": "tool_use", "id": id, "name": "look_up_order", "input": input},
                ]}));
                messages.push(json!({"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": id, "content": result},
                ]}));
            }
            messages.push(json!({"role": "assistant", "content": [text(&said.answer)]}));
        }
        let mut system = json!([text(&self.system)]);
        if marks == Marks::FrontAndLast {
            let mark = json!({"type": "ephemeral"});
            system[0]["cache_control"] = mark.clone();
            if let Some(last) = messages.last_mut() {
                last["content"][0]["cache_control"] = mark;
            }
        }
        (system, messages)
    }

    /// The first exchange that a window of so many tokens before a turn still holds, at four bytes
    /// a token.
    #[must_use]
    pub fn window(&self, turn: usize, tokens: usize) -> usize {
        let mut left = tokens * 4;
        let mut from = turn;
        for (at, said) in self.turns.iter().enumerate().take(turn).rev() {
            let looked_up = said
                .looked_up
                .as_ref()
                .map_or(0, |(a, b)| a.len() + b.len());
            let bytes = said.user.len() + said.answer.len() + looked_up;
            let Some(rest) = left.checked_sub(bytes) else {
                break;
            };
            (left, from) = (rest, at);
        }
        from
    }
}

fn turn(dice: &mut Rng, topic: usize) -> Turn {
    let user = around(dice, 50);
    let answer = around(dice, 220);
    let looked_up = (dice.u8(..4) == 0).then(|| {
        let result = around(dice, 250);
        let order = dice.u32(10_000..99_999).to_string();
        (
            json!({"order": order}).to_string(),
            text(dice, topic, result),
        )
    });
    Turn {
        pause_ms: pause_ms(dice),
        topic,
        user: format!("{}?", text(dice, topic, user)),
        looked_up,
        answer: text(dice, topic, answer),
    }
}
