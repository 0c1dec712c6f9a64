//! Answers to questions that were asked in other words.
//!
//! [`SemanticCache`] embeds a question, finds the stored ones that are near in an [`Index`], and
//! lets the rest of this module decide which of them ask the same.
//!
//! [`Question::read`] once per question, kept beside the answer; [`judge`] for each candidate that
//! the index finds. Guards refuse what must agree whatever the embeddings say; the check estimates
//! how probable it is that what is left asks the same. That part is pure: no clock, no I/O, no model.

mod agree;
mod align;
pub(crate) mod answers;
mod cache;
mod check;
mod file;
mod guard;
mod index;
mod lexicon;
mod numbers;
mod private;
mod question;
mod scan;
mod shared;
mod tense;
mod threshold;
mod vocabulary;
mod weights;
mod wrappers;

pub use agree::{Agreement, MAX_ANSWER};
pub use cache::{OpenError, SemanticCache, Told};
pub use check::{DEFAULT_THRESHOLD, FEATURE_NAMES, FEATURES, Verdict, features, judge};
pub use guard::{Refusal, compare};
pub use index::{Bounds, Index, Near, Row, Size, Stored};
pub use question::{Ask, Kind, MAX_BYTES, Question, RULES, Reading};
pub use shared::Exchanged;
pub use threshold::{Found, Judged, read_thresholds};
pub use vocabulary::Vocabulary;

#[cfg(test)]
mod tests;
