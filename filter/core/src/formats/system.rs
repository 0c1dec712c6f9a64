//! Where an API has its system prompt.

/// Where a system prompt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemPlace {
    /// Into a message of its own, the first in the list of that field.
    Message(&'static str),
    /// Into the first of these fields, a string or parts; the second is the list of messages, in
    /// which there may be more of the system's.
    Field(&'static str, &'static str),
    /// In front of the prompt: there is nothing else.
    Prompt,
}
