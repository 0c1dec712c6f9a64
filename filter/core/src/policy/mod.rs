//! The decisions, one file each: pure functions of the plan, the caller and the request.

pub mod accounting;
pub mod backoff;
pub mod budget;
pub mod cache_key;
pub mod choice;
pub mod guard;
pub mod identity;
pub mod joins;
pub mod route;
pub mod tags;
pub mod trim;
