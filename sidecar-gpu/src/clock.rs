//! What time it is: the system's, or a test's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A source of milliseconds since the epoch.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The system's clock.
    System,
    /// Stands still until it is set.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// Milliseconds since the epoch.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        match self {
            Clock::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
            Clock::Manual(now) => now.load(Ordering::Relaxed),
        }
    }
}
