//! Trimming: what of a prompt need not be sent.
//!
//! ```text
//! texts → terms: stemmed words, hashed, of old texts from memory
//!       → rank: how much each past exchange, or chunk, has to do with the question
//!       → history: which exchanges stay within a budget of tokens
//!       → planner: what of that pays, given what the provider's prefix cache holds
//! ```
//!
//! [`request`] puts it together.

pub mod context;
pub mod edits;
pub mod history;
pub mod marks;
pub mod planner;
pub mod rank;
pub mod request;
pub mod sentences;
mod spoken;
pub mod summary;
pub mod system;
pub mod template;
pub mod terms;
pub mod turns;

pub use crate::json::splices;
pub use request::{Asked, Fault, Job, Known, Memories, Model, Trimmed, asked, newer, trim};
