//! Prompt tokens: bounds first, an estimate next, the exact count only where a decision hangs on it.

mod count;
mod memory;
mod ratio;
mod vocabulary;

use serde::Deserialize;

use crate::formats::{Content, Digests, Part, Request};
pub use count::EXACT_BYTES;
use count::{Counter, Item, Work};
use memory::Memory;
use ratio::Ratios;

/// A vocabulary that is built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// gpt-4o, gpt-4.1, gpt-5, the o series.
    O200kBase,
    /// gpt-4, gpt-3.5-turbo, text-embedding-3.
    Cl100kBase,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Encoding; 2] = [Encoding::O200kBase, Encoding::Cl100kBase];

    /// The config's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Encoding::O200kBase => "o200k_base",
            Encoding::Cl100kBase => "cl100k_base",
        }
    }

    /// The encoding of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// Bytes per token where nothing better is known; English prose in `o200k_base` has about 4.5,
/// code and other languages fewer. A low guess errs towards reserving too much.
pub const DEFAULT_BYTES_PER_TOKEN: f64 = 4.0;

/// Tokens that an image or file is taken for, whose real price depends on its size in pixels:
/// 1024×1024 at high detail as gpt-4o counts it. The provider's usage corrects it afterwards.
pub const MEDIA_TOKENS: u64 = 765;

/// The longest token of either vocabulary is 128 bytes (spaces), and a byte of text takes at most
/// six in JSON (`\u0041`).
const MOST_BYTES_PER_TOKEN: u64 = 128 * 6;

/// Tokens that a chat message takes beside its text, and those that open the answer: OpenAI
/// cookbook, "How to count tokens with tiktoken". The role is one token.
const PER_MESSAGE: u64 = 3 + 1;
const PER_ANSWER: u64 = 3;
const PER_NAME: u64 = 1;

/// What a prompt measures without anything being counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of text as they stand in the body (escapes not undone), tools included.
    pub text_bytes: u64,
    /// Tokens that do not depend on the text: the chat format's own, images.
    pub fixed: u64,
}

impl Extent {
    /// Measures a request of the format of that name.
    #[must_use]
    pub fn of(request: &Request<'_>, format: &str) -> Extent {
        let mut extent = Extent {
            text_bytes: request.tools.map_or(0, len),
            fixed: if is_chat(format) { PER_ANSWER } else { 0 },
        };
        let messages = request.messages.iter().map(|message| &message.content);
        for content in request.system.iter().chain(messages) {
            if is_chat(format) {
                extent.fixed += PER_MESSAGE;
            }
            for part in &content.parts {
                extent.text_bytes += text_bytes(part);
                extent.fixed += fixed(part);
            }
        }
        extent
    }

    /// The least and the most tokens that it can be.
    #[must_use]
    pub fn bounds(&self) -> (u64, u64) {
        let (least, most) = bounds(self.text_bytes);
        (least + self.fixed, most + self.fixed)
    }
}

/// Bytes of a part's text as they stand in the body.
fn text_bytes(part: &Part<'_>) -> u64 {
    match part {
        Part::Text(text) => len(text.escaped()),
        Part::ToolCall(raw) | Part::ToolResult(raw) | Part::Other(raw) => len(raw),
        Part::Tokens(_) | Part::Media(_) => 0,
    }
}

/// Tokens that a part is beside its text.
fn fixed(part: &Part<'_>) -> u64 {
    match part {
        Part::Tokens(tokens) => *tokens,
        Part::Media(_) => MEDIA_TOKENS,
        _ => 0,
    }
}

/// The least and the most tokens that `bytes` of text in JSON can be: every token is at least one
/// byte.
#[must_use]
pub fn bounds(bytes: u64) -> (u64, u64) {
    (bytes.div_ceil(MOST_BYTES_PER_TOKEN), bytes)
}

fn len(text: &str) -> u64 {
    text.len() as u64
}

/// Whether the format of that name wraps messages in the chat template. Completions and
/// embeddings take bare text.
fn is_chat(format: &str) -> bool {
    !(format.ends_with("completions") || format.ends_with("embeddings"))
}

/// A request's tokens, piece by piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Each {
    /// Of the tool definitions.
    pub tools: u64,
    /// Of each of [`Request::system`].
    pub system: Vec<u64>,
    /// Of each of [`Request::messages`].
    pub messages: Vec<u64>,
    /// Of what the chat format has once.
    pub once: u64,
}

/// What tokens are counted of.
enum Piece<'r, 'a> {
    Tools(&'a str),
    Content(&'r Content<'a>),
}

impl Each {
    /// By the tokens of each piece's text: tools, system prompts, messages, in this order.
    fn of<'a>(
        request: &Request<'a>,
        format: &str,
        text: &mut dyn FnMut(Piece<'_, 'a>) -> u64,
    ) -> Each {
        let (once, message) = match is_chat(format) {
            true => (PER_ANSWER, PER_MESSAGE),
            false => (0, 0),
        };
        let tools = request.tools.map_or(0, |raw| text(Piece::Tools(raw)));
        let mut of = |content: &Content<'a>| {
            let fixed: u64 = content.parts.iter().map(fixed).sum();
            text(Piece::Content(content)) + fixed + message
        };
        Each {
            tools,
            system: request.system.iter().map(&mut of).collect(),
            messages: request
                .messages
                .iter()
                .map(|message| of(&message.content))
                .collect(),
            once,
        }
    }

    /// Each as `scaled` has it.
    #[must_use]
    pub fn map(mut self, scaled: impl Fn(u64) -> u64) -> Each {
        let contents = self.system.iter_mut().chain(&mut self.messages);
        for tokens in contents.chain([&mut self.tools, &mut self.once]) {
            *tokens = scaled(*tokens);
        }
        self
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let contents = self.system.iter().chain(&self.messages);
        contents.fold(self.once + self.tools, |sum, one| sum.saturating_add(*one))
    }
}

/// What one VM knows about tokens: vocabularies, ratios per model, counts of messages seen.
#[derive(Debug)]
pub struct Tokens {
    counters: Vec<Counter>,
    ratios: Ratios,
    memory: Memory,
    whose: u128,
}

impl Tokens {
    /// Loads the vocabularies. Takes 50 to 240 ms each on first use in a process, so it belongs
    /// where the config is read; they are kept for the life of the process (or VM), so a new
    /// config does not hold them twice.
    #[must_use]
    pub fn load(encodings: &[Encoding]) -> Tokens {
        Tokens {
            counters: encodings
                .iter()
                .copied()
                .filter_map(Counter::load)
                .collect(),
            ratios: Ratios::default(),
            memory: Memory::default(),
            whose: 0,
        }
    }

    /// From here on what is remembered of texts is `whose`: a number that nobody who sends texts can
    /// know. Digests of texts are no secrets, and who knows another's text could make one of his own
    /// with the same, and so have the other's taken for his.
    pub(crate) fn serve(&mut self, whose: u128) {
        self.whose = whose;
    }

    /// A digest as the memories of him who is served have it.
    pub(crate) fn own(&self, digest: u128) -> u128 {
        digest ^ self.whose
    }

    /// A vocabulary that is loaded, the newest first.
    #[must_use]
    pub fn any(&self) -> Option<Encoding> {
        self.counters.iter().map(Counter::encoding).min()
    }

    /// Sets the first guess at a model's bytes per token.
    pub fn guess(&mut self, model: &str, bytes_per_token: f64) {
        self.ratios.set(model, bytes_per_token);
    }

    /// Tokens that `bytes` of text probably are for `model`, by what its usage taught.
    #[must_use]
    pub fn estimate(&self, model: &str, bytes: u64) -> u64 {
        self.ratios.estimate(model, bytes)
    }

    /// Learns from reported usage: `bytes` of text were `prompt_tokens` (less
    /// [`Extent::fixed`]).
    pub fn learn(&mut self, model: &str, bytes: u64, prompt_tokens: u64) {
        self.ratios.learn(model, bytes, prompt_tokens);
    }

    /// Prompt tokens of a request in `encoding`, or None when that vocabulary is not loaded.
    ///
    /// Exact for text; tool definitions and calls are counted as the JSON that they are (the
    /// provider's own rendering is a little shorter), media as [`MEDIA_TOKENS`]. Messages counted
    /// before are remembered. Text past [`EXACT_BYTES`] that is not remembered is sampled.
    #[must_use]
    pub fn count(
        &mut self,
        encoding: Encoding,
        request: &Request<'_>,
        format: &str,
    ) -> Option<u64> {
        let each = self.each(encoding, request, format)?;
        Some(each.total())
    }

    /// The same piece by piece.
    #[must_use]
    pub fn each(
        &mut self,
        encoding: Encoding,
        request: &Request<'_>,
        format: &str,
    ) -> Option<Each> {
        self.each_by(encoding, (request, &Digests::of(request)), format)
    }

    /// The same where the request's digests are known.
    #[must_use]
    pub fn each_by(
        &mut self,
        encoding: Encoding,
        (request, digests): (&Request<'_>, &Digests),
        format: &str,
    ) -> Option<Each> {
        let counter = self
            .counters
            .iter()
            .find(|one| one.encoding() == encoding)?;
        let mut counts = Vec::with_capacity(1 + request.system.len() + request.messages.len());
        let mut work = Work::default();
        let named = is_chat(format);
        // The same bytes mean other things as tools, as a system prompt and as a message.
        let tools = request.tools.map(|raw| (0, Piece::Tools(raw)));
        let system = request.system.iter().map(|one| (1, Piece::Content(one)));
        let messages = request.messages.iter();
        let messages = messages.map(|one| (2, Piece::Content(&one.content)));
        let pieces = tools.into_iter().chain(system).chain(messages);
        let contents = digests.system.iter().chain(&digests.messages);
        let digests = digests.tools.iter().chain(contents);
        for ((place, piece), digest) in pieces.zip(digests) {
            let salt = (encoding as u64) << 8 | place << 1 | u64::from(named);
            let key = Memory::key(digest.all ^ self.whose, salt);
            let known = self.memory.get(key);
            match (known, piece) {
                (Some(_), _) => {}
                (None, Piece::Content(content)) => {
                    work.add(counts.len(), key, Item::content(content, named));
                }
                (None, Piece::Tools(raw)) => work.add(counts.len(), key, Item::raw(raw)),
            }
            counts.push(known.unwrap_or(0));
        }
        work.count(counter, &mut self.memory, &mut counts);
        let mut counts = counts.into_iter();
        Some(Each::of(request, format, &mut |_| {
            counts.next().unwrap_or(0)
        }))
    }

    /// As [`Tokens::each`] where the vocabulary is not known, by what the model's usage taught.
    #[must_use]
    pub fn estimate_each(&self, model: &str, request: &Request<'_>, format: &str) -> Each {
        Each::of(request, format, &mut |piece| {
            let bytes = match piece {
                Piece::Tools(raw) => len(raw),
                Piece::Content(content) => content.parts.iter().map(text_bytes).sum(),
            };
            self.estimate(model, bytes)
        })
    }

    /// Tokens of a bare text; None when that vocabulary is not loaded. Sampled past
    /// [`EXACT_BYTES`].
    #[must_use]
    pub fn count_text(&self, encoding: Encoding, text: &str) -> Option<u64> {
        let counter = self
            .counters
            .iter()
            .find(|one| one.encoding() == encoding)?;
        Some(count::sample(counter, &[text], EXACT_BYTES))
    }
}

#[cfg(test)]
mod tests;
