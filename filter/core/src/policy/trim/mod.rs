//! Trimming: what of a prompt need not be sent.

pub mod edits;
pub mod sentences;
pub mod splices;
pub mod turns;
