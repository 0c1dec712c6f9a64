//! A conversation before and after it is trimmed, as the documentation shows it.

use serde::Deserialize;
use sluice_core::config::Plan;
use sluice_core::formats;
use sluice_core::policy::trim::summary::DigestMemory;
use sluice_core::policy::trim::terms::TermMemory;
use sluice_core::policy::trim::{self, Job, Known, Memories, Model, Trimmed};
use sluice_core::tokens::{Encoding, Tokens};

const CONFIG: &str = include_str!("config.json");
const CONVERSATION: &str = include_str!("conversation.json");

/// Longest line of what is said, in bytes.
const WIDTH: usize = 80;

#[derive(Deserialize)]
struct Conversation {
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: String,
}

/// Every message with its tokens, `-` in front of those that do not go out, then the sums. None:
/// the files beside this one are not what they should be.
pub(crate) fn shown() -> Option<String> {
    let conversation: Conversation = serde_json::from_str(CONVERSATION).ok()?;
    let (counts, trimmed) = trimmed()?;
    let kept = trimmed.kept.unwrap_or_default();
    let mut out = String::new();
    for (at, (message, tokens)) in conversation.messages.iter().zip(counts).enumerate() {
        let sign = if kept.contains(&at) { ' ' } else { '-' };
        let mut head = format!("{tokens:>4}  {:<9}", message.role);
        for line in lines(&message.content) {
            out += &format!("{sign}{head}  {line}\n");
            head = " ".repeat(head.len());
        }
    }
    let (all, stay) = (conversation.messages.len(), kept.len());
    let (before, after) = (trimmed.before, trimmed.after);
    out += &format!("before: {all} messages, {before} tokens\n");
    out += &format!("after:  {stay} messages, {after} tokens\n");
    Some(out)
}

/// The tokens of each message, and what trimming makes of them.
fn trimmed() -> Option<(Vec<u64>, Trimmed)> {
    let plan = Plan::parse(CONFIG.as_bytes(), &|_| None).ok()?;
    let format = formats::by_name("openai.chat")?;
    let request = format.parse(CONVERSATION).ok()?;
    let mut tokens = Tokens::load(&[Encoding::O200kBase]);
    let each = tokens.each(Encoding::O200kBase, &request, format.name())?;
    let job = Job {
        request: &request,
        format,
        policy: &plan.default.trim,
        template: None,
        model: Model::of(&plan, "gpt-4o", &tokens),
        limit: None,
        known: Known::default(),
    };
    let mut memories = Memories {
        tokens: &mut tokens,
        terms: &mut TermMemory::default(),
        digests: &mut DigestMemory::default(),
    };
    let trimmed = trim::trim(&job, &mut memories).ok()?;
    Some(([each.system, each.messages].concat(), trimmed))
}

/// A text in lines, broken between words.
fn lines(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
