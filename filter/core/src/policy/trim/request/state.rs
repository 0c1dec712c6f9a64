//! What is remembered of a conversation from turn to turn, as text.

use serde::{Deserialize, Serialize};
use sluice_wire::limit;

use super::writing::Memo;
use crate::policy::trim::context::Selection;
use crate::policy::trim::planner::Sent;

/// Messages of the past whose chunks are remembered.
const SELECTIONS: usize = 8;

/// What a conversation's next turn wants told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// What went out.
    pub(super) sent: Sent,
    /// Chunks of its last messages: message, of how many, which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    chunks: Vec<(u64, usize, Vec<usize>)>,
    /// Its written texts.
    #[serde(default, skip_serializing_if = "Memo::is_empty")]
    pub(super) memo: Memo,
}

/// Of two states of one conversation the one of its later turn.
#[must_use]
pub fn newer<'s>(one: Option<&'s str>, other: Option<&'s str>) -> Option<&'s str> {
    let at = |state: &str| serde_json::from_str::<State>(state).map_or(0, |it| it.sent.at_ms);
    match (one, other) {
        (Some(one), Some(other)) if at(other) > at(one) => Some(other),
        (one, other) => one.or(other),
    }
}

impl State {
    pub(super) fn of((sent, memo): (Sent, Memo), mut selections: Vec<Selection>) -> State {
        let skipped = selections.len().saturating_sub(SELECTIONS);
        let chunks = selections
            .drain(skipped..)
            .map(|one| (one.message, one.of, one.kept));
        State {
            sent,
            chunks: chunks.collect(),
            memo,
        }
    }

    pub(super) fn selections(&self) -> Vec<Selection> {
        let one = |(message, of, kept): &(u64, usize, Vec<usize>)| Selection {
            message: *message,
            of: *of,
            kept: kept.clone(),
        };
        self.chunks.iter().map(one).collect()
    }

    /// As it is kept. Chunks are remembered as far as there is room; without them those of the past
    /// are chosen anew, by words.
    pub(super) fn told(mut self) -> Option<String> {
        loop {
            let told = serde_json::to_string(&self).ok()?;
            if told.len() <= limit::STATE {
                return Some(told);
            }
            if self.chunks.is_empty() {
                return None;
            }
            self.chunks.remove(0);
        }
    }
}
