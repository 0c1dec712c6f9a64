//! What can go wrong: in a call ([`EngineError`]) and while a model is loaded ([`LoadError`]).

use std::io;
use std::path::{Path, PathBuf};

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
        /// Its tokens, or those of its beginning where that is too long already.
        found: usize,
        /// Tokens that it may have.
        limit: usize,
    },
    /// Tokens that the model's own tokenizer would not make. A retry does not help.
    #[error("text {index}: expected tokens of this model, found {found}")]
    NoTokens {
        /// Which text of the call.
        index: usize,
        /// What came instead.
        found: String,
    },
    /// The model cannot do that at all. A retry does not help.
    #[error("model {model} cannot {what}")]
    Unsupported {
        /// The model's name.
        model: String,
        /// What it was asked to do.
        what: &'static str,
    },
    /// Too much is waiting already. A retry helps once it has been worked off.
    #[error("queue: expected at most {limit} texts, found {waiting} waiting")]
    Overloaded {
        /// Texts that wait.
        waiting: usize,
        /// Texts that may wait.
        limit: usize,
    },
    /// The batcher was shut down. A retry does not help here.
    #[error("the engine was shut down")]
    Closed,
    /// The device failed. A retry may help.
    #[error("device: {0}")]
    Device(String),
}

impl EngineError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retry(&self) -> bool {
        matches!(
            self,
            EngineError::Device(_) | EngineError::Overloaded { .. }
        )
    }

    /// The same error, about another text of the call.
    pub(crate) fn about(mut self, text: usize) -> Self {
        if let EngineError::TooLong { index, .. } | EngineError::NoTokens { index, .. } = &mut self
        {
            *index = text;
        }
        self
    }
}

/// Why a model could not be loaded: which file, where in it, what stands there and what should.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not fit the others, or this engine.
    #[error("{}: {at}: expected {expected}, found {found}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// The field, tensor or line.
        at: String,
        /// What fits.
        expected: String,
        /// What is there.
        found: String,
    },
}

/// A [`LoadError::Unfit`] in the making: a file, and where in it.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) path: &'a Path,
    pub(crate) at: &'a str,
}

impl Place<'_> {
    pub(crate) fn expected(self, expected: impl ToString, found: impl ToString) -> LoadError {
        LoadError::Unfit {
            path: self.path.to_path_buf(),
            at: self.at.to_owned(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}
