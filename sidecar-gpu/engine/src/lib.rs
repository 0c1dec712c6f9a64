//! The model engine: texts in, vectors or tokens out, in batches; it knows no HTTP.
//!
//! The sidecar talks to models through [`Engine`] only, so that a device, a model architecture or
//! the deterministic stand-in ([`Echo`]) can take each other's place.

mod echo;

pub use echo::Echo;

/// A model, or several, behind one door. Calls block: the caller decides on which thread.
pub trait Engine: Send + Sync {
    /// What this engine is and may be asked.
    fn info(&self) -> &Info;

    /// One vector of [`Info::dimensions`] per text, each of length 1, in the order of `texts`.
    ///
    /// # Errors
    /// See [`EngineError`]; either all texts are embedded or none.
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EngineError>;

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

/// Why an engine did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// More texts than fit one batch. Split it.
    #[error("batch: expected at most {limit} texts, found {found}")]
    BatchTooLarge {
        /// Texts that came.
        found: usize,
        /// Texts that may come.
        limit: usize,
    },
    /// A text is longer than the model can take. A retry does not help.
    #[error("text {index}: expected at most {limit} tokens, found {found}")]
    TooLong {
        /// Which text of the call.
        index: usize,
        /// Its tokens.
        found: usize,
        /// Tokens that it may have.
        limit: usize,
    },
    /// The device failed. A retry may help.
    #[error("device: {0}")]
    Device(String),
}

impl EngineError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retry(&self) -> bool {
        matches!(self, EngineError::Device(_))
    }
}
