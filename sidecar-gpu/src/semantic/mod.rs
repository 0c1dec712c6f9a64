//! Whether two questions that are near by embedding are the same question.
//!
//! [`Question::read`] once per question, kept beside the answer; [`judge`] for each candidate that
//! the index finds. Guards refuse what must agree whatever the embeddings say; the check estimates
//! how probable it is that what is left asks the same. Pure: no clock, no I/O, no model.

mod align;
mod check;
mod guard;
mod lexicon;
mod numbers;
mod question;
mod scan;
mod vocabulary;
mod weights;
mod wrappers;

pub use check::{DEFAULT_THRESHOLD, FEATURE_NAMES, FEATURES, Verdict, features, judge};
pub use guard::{Refusal, compare};
pub use question::{Ask, Kind, MAX_BYTES, Question, RULES, Reading};
pub use vocabulary::Vocabulary;

#[cfg(test)]
mod tests;
