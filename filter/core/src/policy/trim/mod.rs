//! Trimming: what of a prompt need not be sent.

pub mod context;
pub mod edits;
pub mod planner;
pub mod sentences;
pub mod splices;
mod spoken;
pub mod system;
pub mod template;
pub mod turns;
