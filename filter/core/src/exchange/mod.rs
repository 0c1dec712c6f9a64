//! The life of one request as a state machine: events in, effects out.

mod effect;
mod event;

pub use effect::{Effect, Effects, Flow, Metric, ReplyStatus};
pub use event::{Event, Headers, Host};
