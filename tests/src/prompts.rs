//! Chat requests as bytes, in three sizes, in the words of the sample traffic.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{load, tools, traffic};

/// Size and form of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// 1 KB: a system prompt and a question.
    Short,
    /// 16 KB: a system prompt and a question about a long document.
    Long,
    /// 16 KB: twenty questions of one conversation and the answers to nineteen of them.
    Turns,
}

impl Shape {
    /// All of them.
    pub const ALL: [Shape; 3] = [Shape::Short, Shape::Long, Shape::Turns];

    /// For tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Shape::Short => "1 KB",
            Shape::Long => "16 KB",
            Shape::Turns => "20 turns, 16 KB",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Shape::Short => 1_000,
            Shape::Long | Shape::Turns => 16_000,
        }
    }
}

/// Which requests were seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Novelty {
    /// Each is one of the pool's.
    Known,
    /// Each has a last message of its own; the rest of it is one of the pool's.
    New,
    /// Every n-th is new.
    NewEvery(u64),
}

/// Different requests in a pool.
pub const POOL: usize = 256;

/// A pool of requests, handed out in turn.
#[derive(Debug)]
pub struct Prompts {
    requests: Vec<Request>,
    novelty: Novelty,
    next: AtomicU64,
}

/// A whole HTTP request, and where its number stands.
#[derive(Debug)]
struct Request {
    bytes: Vec<u8>,
    number: usize,
}

/// The place of a number in a request's last message.
const NUMBER: &str = "0000000000";

impl Prompts {
    /// A pool of [`POOL`] requests, the same ones in every run.
    ///
    /// # Errors
    /// When the sample traffic, whose words are used, cannot be read.
    pub fn new(shape: Shape, novelty: Novelty) -> anyhow::Result<Prompts> {
        Prompts::mixed(&[shape], novelty)
    }

    /// The same of several shapes in turn.
    ///
    /// # Errors
    /// As [`Prompts::new`].
    pub fn mixed(shapes: &[Shape], novelty: Novelty) -> anyhow::Result<Prompts> {
        let sentences = sentences()?;
        let mut writer = Writer {
            sentences: &sentences,
            random: fastrand::Rng::with_seed(1),
        };
        let mut requests = Vec::new();
        for index in 0..POOL {
            requests.push(request(shapes[index % shapes.len()], &mut writer)?);
        }
        Ok(Prompts {
            requests,
            novelty,
            next: AtomicU64::new(0),
        })
    }

    /// Puts the next request's bytes into `into`.
    pub fn next(&self, into: &mut Vec<u8>) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let index = turn % self.requests.len() as u64;
        let new = match self.novelty {
            Novelty::Known => false,
            Novelty::New => true,
            Novelty::NewEvery(every) => turn.is_multiple_of(every),
        };
        let request = &self.requests[usize::try_from(index).unwrap_or(0)];
        into.clear();
        into.extend_from_slice(&request.bytes);
        // Numbers below the pool's size are the known ones.
        let number = if new { POOL as u64 + turn } else { index };
        let digits = format!("{number:010}");
        into[request.number..][..NUMBER.len()].copy_from_slice(digits.as_bytes());
    }

    /// Requests handed out so far.
    #[must_use]
    pub fn handed_out(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }
}

/// Sentences of the sample traffic.
fn sentences() -> anyhow::Result<Vec<String>> {
    let path = tools::root().join("examples/traffic.jsonl");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut sentences = Vec::new();
    for recorded in traffic::read(&text)? {
        let messages = recorded.body["messages"].as_array();
        for message in messages.into_iter().flatten() {
            let Some(text) = message["content"].as_str() else {
                continue;
            };
            let found = text.split_inclusive(['.', '?', '!', '\n']);
            sentences.extend(
                found
                    .map(str::trim)
                    .filter(|one| one.len() > 20)
                    .map(str::to_owned),
            );
        }
    }
    sentences.sort_unstable();
    sentences.dedup();
    Ok(sentences)
}

struct Writer<'a> {
    sentences: &'a [String],
    random: fastrand::Rng,
}

impl Writer<'_> {
    /// About so many bytes of sentences at random, every digit replaced by a random one.
    fn text(&mut self, bytes: usize) -> String {
        let mut text = String::new();
        while text.len() < bytes {
            let sentence = &self.sentences[self.random.usize(..self.sentences.len())];
            let letters = sentence.chars().map(|letter| match letter {
                '0'..='9' => self.random.digit(10),
                other => other,
            });
            text.extend(letters);
            text.push(' ');
        }
        let mut end = bytes;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text
    }
}

fn request(shape: Shape, writer: &mut Writer<'_>) -> anyhow::Result<Request> {
    let message = |role: &str, text: String| json!({"role": role, "content": text});
    let numbered = |text: String| format!("Ticket {NUMBER}: {text}");
    let bytes = shape.bytes();
    let mut messages: Vec<Value> = Vec::new();
    match shape {
        Shape::Short => {
            messages.push(message("system", writer.text(200)));
            messages.push(message("user", numbered(writer.text(bytes - 350))));
        }
        Shape::Long => {
            messages.push(message("system", writer.text(800)));
            messages.push(message("user", numbered(writer.text(bytes - 1100))));
        }
        Shape::Turns => {
            messages.push(message("system", writer.text(400)));
            // Forty parts of text; JSON takes 40 bytes around each.
            let each = (bytes - 500) / 40 - 40;
            for _ in 0..19 {
                messages.push(message("user", writer.text(each)));
                messages.push(message("assistant", writer.text(each)));
            }
            messages.push(message("user", numbered(writer.text(each))));
        }
    }
    let body = json!({"model": "gpt-4o", "messages": messages, "temperature": 0.2}).to_string();
    let headers = [
        ("authorization", "Bearer sk-test"),
        ("user-agent", "OpenAI/Python 1.99.9"),
        ("accept", "application/json"),
        ("x-tenant", "acme"),
    ];
    let bytes = load::post("/v1/chat/completions", &headers, &body);
    let in_body = body
        .rfind(NUMBER)
        .context("no number in the last message")?;
    let number = bytes.len() - body.len() + in_body;
    Ok(Request { bytes, number })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn bodies(shape: Shape, novelty: Novelty, count: usize) -> Vec<String> {
        let prompts = Prompts::new(shape, novelty).unwrap();
        let mut request = Vec::new();
        let next = |_| {
            prompts.next(&mut request);
            let text = String::from_utf8(request.clone()).unwrap();
            text.split_once("\r\n\r\n").unwrap().1.to_owned()
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn requests_have_the_size_they_are_named_for() {
        for shape in Shape::ALL {
            for body in bodies(shape, Novelty::Known, POOL) {
                let wanted = shape.bytes();
                let apart = body.len().abs_diff(wanted);
                assert!(apart * 8 < wanted, "{}: {} bytes", shape.name(), body.len());
                serde_json::from_str::<Value>(&body).unwrap();
            }
        }
    }

    #[test]
    fn known_requests_repeat_and_new_ones_do_not() {
        let different = |novelty| {
            let all = bodies(Shape::Short, novelty, 4 * POOL);
            all.into_iter().collect::<HashSet<_>>().len()
        };
        assert_eq!(different(Novelty::Known), POOL);
        assert_eq!(different(Novelty::New), 4 * POOL);
        // Every third of 1,024 is new, and each of the pool comes at least once.
        assert_eq!(different(Novelty::NewEvery(3)), POOL + 4 * POOL / 3 + 1);
    }
}
