//! The rules, one file each. They are told apart by what they look at, not by language: a rule's
//! words cover English, German, French, Spanish, Portuguese, Italian, Dutch, Russian, Polish,
//! Turkish, Chinese, Japanese, Korean and Arabic as far as a handful of words can, and what has
//! no word in a rule is judged by signs, numbers and form alone.

mod code;
mod domain;
mod length;
mod maths;
mod question;
mod reasoning;
mod task;
mod tools;
mod turns;

pub(super) use code::Code;
pub(super) use domain::Domain;
pub(super) use length::Length;
pub(super) use maths::Maths;
pub(super) use question::Question;
pub(super) use reasoning::Reasoning;
pub(super) use task::Task;
pub(super) use tools::Tools;
pub(super) use turns::Turns;
