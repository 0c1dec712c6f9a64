//! Recorded conversations and abstracts, where they are present.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// A conversation of two people over months (LoCoMo).
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Conversation {
    pub(crate) id: String,
    pub(crate) speakers: Vec<String>,
    pub(crate) sessions: Vec<Session>,
}

/// One of its sittings.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Session {
    pub(crate) turns: Vec<Turn>,
}

/// What one of them said at once.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Turn {
    pub(crate) id: String,
    pub(crate) speaker: String,
    pub(crate) text: String,
}

/// A question about a conversation.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Asked {
    pub(crate) conversation: String,
    pub(crate) question: String,
    /// Ids of the turns that answer it.
    pub(crate) evidence: Vec<String>,
    pub(crate) category_name: String,
}

/// A question and the parts of an abstract that answer it (PubMedQA).
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Abstract {
    pub(crate) question: String,
    pub(crate) chunks: Vec<String>,
}

/// LoCoMo's; empty where it is absent.
pub(crate) fn conversations() -> Result<(Vec<Conversation>, Vec<Asked>)> {
    let folder = "conversation";
    let conversations = rows(folder, "locomo_conversations.jsonl")?;
    Ok((conversations, rows(folder, "locomo_qa.jsonl")?))
}

/// PubMedQA's; empty where it is absent.
pub(crate) fn abstracts() -> Result<Vec<Abstract>> {
    rows("rag", "pubmedqa_labeled.jsonl")
}

fn rows<T: for<'de> Deserialize<'de>>(folder: &str, name: &str) -> Result<Vec<T>> {
    let data = std::env::var_os("SLUICE_TRIM_DATA").map_or_else(
        || concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data").into(),
        PathBuf::from,
    );
    let path = data.join(folder).join(name);
    if !path.is_file() {
        eprintln!("skipped: no {}", path.display());
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let row = |(at, line)| {
        serde_json::from_str(line).with_context(|| format!("{}:{}", path.display(), at + 1))
    };
    text.lines().enumerate().map(row).collect()
}
