//! A body of the protocol: one line of JSON, a line feed, raw bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A head and the bytes that follow it.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame<H, B> {
    /// The JSON part.
    pub head: H,
    /// The raw part; may be empty.
    pub body: B,
}

/// Why bytes are not a frame.
#[derive(Debug)]
pub enum FrameError {
    /// No line feed ends the head.
    NoHead,
    /// The head is not the expected JSON.
    Json(serde_json::Error),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FrameError::NoHead => {
                f.write_str("a frame starts with one line of JSON; no line feed found")
            }
            FrameError::Json(error) => write!(f, "head of the frame: {error}"),
        }
    }
}

impl std::error::Error for FrameError {}

impl<H: Serialize, B: AsRef<[u8]>> Frame<H, B> {
    /// The bytes to send.
    ///
    /// # Errors
    /// When the head cannot be serialised (a map with keys that are no strings; none of ours is).
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let mut bytes = serde_json::to_vec(&self.head).map_err(FrameError::Json)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(self.body.as_ref());
        Ok(bytes)
    }
}

impl<'a, H: DeserializeOwned> Frame<H, &'a [u8]> {
    /// Reads a frame; `body` borrows from `bytes`.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let end = bytes
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or(FrameError::NoHead)?;
        let head = serde_json::from_slice(&bytes[..end]).map_err(FrameError::Json)?;
        Ok(Frame {
            head,
            body: &bytes[end + 1..],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AdmitReply, Verdict};

    #[test]
    fn a_frame_survives_a_round_trip_with_line_feeds_in_its_body() {
        let head = AdmitReply {
            over: vec![3],
            ..AdmitReply::of(Verdict::go(1))
        };
        let bytes = Frame {
            head: head.clone(),
            body: b"a\nb",
        }
        .encode()
        .unwrap();
        let read: Frame<AdmitReply, _> = Frame::decode(&bytes).unwrap();
        assert_eq!((read.head, read.body), (head, &b"a\nb"[..]));
    }

    #[test]
    fn garbage_is_an_error_and_no_panic() {
        assert!(matches!(
            Frame::<AdmitReply, _>::decode(b""),
            Err(FrameError::NoHead)
        ));
        assert!(matches!(
            Frame::<AdmitReply, _>::decode(b"{}\n"),
            Err(FrameError::Json(_))
        ));
    }
}
