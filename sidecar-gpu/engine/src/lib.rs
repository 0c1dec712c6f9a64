//! The model engine: texts in, vectors or tokens out, in batches; it knows no HTTP.
//!
//! The sidecar talks to models through [`Engine`] only, so that a device, a model architecture or
//! the deterministic stand-in ([`Echo`]) can take each other's place:
//!
//! ```text
//! load(folder)       config.json names the architecture; every file is checked against it
//!   → Arc<dyn Engine>     encode: text → tokens · embed_tokens: tokens → vectors
//!       → Batcher         many callers, one thread that owns the model, batches of what queued
//! ```
//!
//! [`load`] reads a model's folder as it lies on the hub: `config.json`, `tokenizer.json`,
//! `model.safetensors`, and what sentence-transformers adds. Architectures are one list
//! (`models/mod.rs`): another one is a file and a line there.
//!
//! Batches are ragged: the tokens of all texts in one matrix, without padding, and attention per
//! text. On the CPU the arithmetic is the engine's own (`cpu/`), on slices: it knows neither
//! tensors nor devices, and a tensor library's custom operation can wrap it as it is.

mod batcher;
mod cpu;
mod echo;
mod embedder;
mod error;
mod load;
mod models;
mod pooling;
mod tokens;
mod weights;

pub use batcher::{Batcher, BatcherOptions, Stats, Waiting};
pub use echo::Echo;
pub use error::{EngineError, LoadError};
pub use load::{LoadOptions, Overlong, load};

/// A model, or several, behind one door. Calls block: the caller decides on which thread.
pub trait Engine: Send + Sync {
    /// What this engine is and may be asked.
    fn info(&self) -> &Info;

    /// The tokens of `text`, with what the model wants before and after it. What is longer than
    /// [`Info::max_tokens`] is refused or cut, as the engine was told when it was made.
    ///
    /// # Errors
    /// [`EngineError::TooLong`], as text 0.
    fn encode(&self, text: &str) -> Result<Vec<u32>, EngineError>;

    /// One vector of [`Info::dimensions`] per text, each of length 1, in the order of `texts`,
    /// which are what [`encode`](Engine::encode) made of them.
    ///
    /// # Errors
    /// See [`EngineError`]; either all texts are embedded or none.
    fn embed_tokens(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, EngineError>;

    /// The same from the texts themselves.
    ///
    /// # Errors
    /// See [`EngineError`]; either all texts are embedded or none.
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EngineError> {
        let limit = self.info().max_batch;
        if texts.len() > limit {
            return Err(EngineError::BatchTooLarge {
                found: texts.len(),
                limit,
            });
        }
        let encode = |(index, text): (usize, &&str)| {
            let tokens = self.encode(text);
            tokens.map_err(|error| error.about(index))
        };
        let tokens: Vec<_> = texts
            .iter()
            .enumerate()
            .map(encode)
            .collect::<Result<_, _>>()?;
        let tokens: Vec<_> = tokens.iter().map(Vec::as_slice).collect();
        self.embed_tokens(&tokens)
    }

    /// The vector that the model starts from for a token, before any layer: what the token means
    /// without its neighbours. A look-up, so a second opinion about a pair of texts can weigh the
    /// words in which they differ without running the model. `None` where the engine has no such
    /// table or the token is not in it.
    fn word_vector(&self, _token: u32) -> Option<&[f32]> {
        None
    }

    /// Completes `prompt`, telling each piece of text as it comes.
    ///
    /// `piece` returns whether to go on; `false` (the client left) ends the generation.
    ///
    /// # Errors
    /// See [`EngineError`]; pieces told before an error stand.
    fn generate(
        &self,
        ask: &Generate<'_>,
        piece: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generated, EngineError>;
}

/// What an engine is and may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Name of the model, as in the config.
    pub model: String,
    /// A digest of all that decides what it answers (weights, tokenizer, configs): vectors of two
    /// revisions must not meet, so it belongs in every key under which vectors are kept.
    pub revision: String,
    /// Length of an embedding.
    pub dimensions: usize,
    /// Most texts in one call of [`Engine::embed`].
    pub max_batch: usize,
    /// Most tokens in one text or prompt.
    pub max_tokens: usize,
}

/// What to generate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Generate<'a> {
    /// The prompt, with the model's chat template applied already.
    pub prompt: &'a str,
    /// Most completion tokens.
    pub max_tokens: usize,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f32,
    /// Seed of the sampling.
    pub seed: u64,
}

/// How a generation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Why it ended.
    pub finish: Finish,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model was done.
    Stop,
    /// `max_tokens` was reached.
    Length,
    /// The caller wanted no more.
    Cancelled,
}
