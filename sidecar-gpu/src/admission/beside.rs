//! What trimming asks for: how near texts are to the question, what the conversation's last turn wanted
//! told, and what was written of what it leaves out. It is found out beside the decision, and told to a request that goes.

use std::sync::Arc;

use sluice_wire::{Similarity, Written};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Asked, MAX_WAIT};
use crate::app::App;
use crate::cache::Key;
use crate::relevance::Comparison;

/// What was found out.
#[derive(Default)]
pub(super) struct Told {
    pub(super) similarities: Option<Vec<Similarity>>,
    pub(super) sent: Option<String>,
    pub(super) summaries: Vec<Written>,
}

/// The work on it, which ends with this: an answer from cache needs none of it, and who hung up
/// nothing.
pub(super) struct Beside(Option<JoinHandle<Told>>);

impl Beside {
    /// Begins, where something is asked.
    pub(super) fn begin(app: &Arc<App>, asked: &Asked) -> Self {
        let (relevance, conversation) = (asked.relevance.clone(), asked.conversation);
        if relevance.is_none() && conversation.is_none() {
            return Beside(None);
        }
        let app = app.clone();
        Beside(Some(tokio::spawn(async move {
            let (similarities, sent, summaries) = tokio::join!(
                compare(&app, relevance.as_deref()),
                last_sent(&app, conversation),
                written(&app, conversation)
            );
            Told {
                similarities,
                sent,
                summaries,
            }
        })))
    }

    /// What was found out; the time that the request gave it was counted from the beginning.
    pub(super) async fn told(&mut self) -> Told {
        match self.0.as_mut() {
            Some(work) => work.await.unwrap_or_default(),
            None => Told::default(),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(work) = &self.0 {
            work.abort();
        }
    }
}

async fn compare(app: &App, comparison: Option<&Comparison>) -> Option<Vec<Similarity>> {
    let comparison = comparison?;
    let Some(scorer) = &app.relevance else {
        app.no_model_for_texts(comparison.texts.len());
        return None;
    };
    let started = Instant::now();
    let until = started + comparison.patience.min(MAX_WAIT);
    let (similarities, tally) = scorer.compare(comparison, until).await;
    app.metrics.texts_compared(tally, started.elapsed());
    Some(similarities)
}

async fn last_sent(app: &App, conversation: Option<Key>) -> Option<String> {
    let now_ms = app.clock.now_ms();
    let last = app.conversations.last(conversation?, now_ms).await;
    app.metrics.conversation_read(match &last {
        Ok(Some(_)) => "found",
        Ok(None) => "none",
        Err(_) => "error",
    });
    last.unwrap_or_default()
}

/// Nothing is asked where nothing is written.
async fn written(app: &App, conversation: Option<Key>) -> Vec<Written> {
    let Some(conversation) = conversation.filter(|_| app.summaries.is_some()) else {
        return Vec::new();
    };
    let texts = app.conversations.texts(conversation, app.clock.now_ms());
    let texts = texts.await;
    if texts.is_err() {
        app.metrics.conversation_read("error");
    }
    texts.unwrap_or_default()
}
