//! What every shared store has in common: how it is reached and how it fails.

mod address;
mod breaker;
mod conn;
mod link;

use redis::{ErrorKind, ServerErrorKind};

pub use address::{Address, FORMS};
pub use breaker::{Breaker, Permit, State};
pub use conn::Conn;
pub use link::{Link, LinkStats};

/// Why a store did not do what it was asked. The caller has a declared fallback for each use.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The breaker is open: the store failed several times in a row and is left alone for a while.
    #[error("the store is left alone after failures in a row")]
    Open,
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(std::time::Duration),
    /// The store answered with an error, or the connection to it broke.
    #[error("redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// The store answered something that is not an answer to the question.
    #[error("expected {expected}, found {found}")]
    Nonsense {
        /// What was to come.
        expected: &'static str,
        /// What came.
        found: String,
    },
}

impl StoreError {
    /// Whether the store only had no room for what it was to keep.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, StoreError::Redis(error) if error.code() == Some("OOM"))
    }

    /// Whether the store was reached and refused what it would refuse again: the key holds something
    /// else, the user may not. It is not for want of room or time.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            StoreError::Open | StoreError::Timeout(_) => false,
            StoreError::Nonsense { .. } => true,
            StoreError::Redis(error) => match error.kind() {
                ErrorKind::Extension => !matches!(error.code(), Some("OOM" | "BUSY" | "MISCONF")),
                ErrorKind::UnexpectedReturnType
                | ErrorKind::Client
                | ErrorKind::Server(
                    ServerErrorKind::ResponseError
                    | ServerErrorKind::CrossSlot
                    | ServerErrorKind::NoPerm,
                ) => true,
                _ => false,
            },
        }
    }

    /// The word for it in metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            StoreError::Open => "open",
            StoreError::Timeout(_) => "timeout",
            StoreError::Redis(_) => "redis",
            StoreError::Nonsense { .. } => "nonsense",
        }
    }
}
