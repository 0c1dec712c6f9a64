//! Streams of APIs that have none: whatever comes as one passes unread.

use super::{Answer, Show, StreamReader};
use crate::sse::SseEvent;

/// Reads nothing.
#[derive(Debug)]
pub(super) struct Unstreamed;

impl StreamReader for Unstreamed {
    fn event(&mut self, _event: &SseEvent<'_>) -> Show {
        Show::Pass
    }

    fn outcome(&self) -> Answer {
        Answer::default()
    }

    fn assemble(&self) -> Option<String> {
        None
    }
}
