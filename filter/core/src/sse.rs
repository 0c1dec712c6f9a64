//! Server-sent events cut anywhere: bytes in, whole events out.

/// One whole event (WHATWG HTML, "Server-sent events").
#[derive(Clone, Debug, PartialEq)]
pub struct SseEvent<'a> {
    /// The event's bytes as they came, its closing blank line included.
    pub raw: &'a [u8],
    /// `event:` field, empty when absent.
    pub name: &'a str,
    /// `data:` lines joined by line feeds.
    pub data: std::borrow::Cow<'a, str>,
}
