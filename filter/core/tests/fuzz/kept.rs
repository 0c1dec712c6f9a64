//! The failures' files: what failed once is run first ever after.

use std::fs;
use std::path::{Path, PathBuf};

use crate::damage::{files, root};
use crate::round::Round;

fn folder() -> PathBuf {
    root().join("failures")
}

/// Writes a round that failed to a file.
pub(crate) fn keep(seed: u64, round: &Round) -> PathBuf {
    let file = folder().join(format!("{seed}.json"));
    fs::create_dir_all(folder()).unwrap();
    fs::write(&file, serde_json::to_vec_pretty(round).unwrap()).unwrap();
    file
}

/// The files of every round that ever failed.
pub(crate) fn all() -> Vec<PathBuf> {
    files(&folder())
}

pub(crate) fn read(file: &Path) -> Round {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// Bytes as text, each as the letter of its number: damaged bodies are not UTF-8, and yet most of
/// them can be read.
pub(crate) mod latin1 {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let text: String = bytes.iter().copied().map(char::from).collect();
        text.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let bytes: Result<_, _> = text.chars().map(u8::try_from).collect();
        bytes.map_err(D::Error::custom)
    }
}

#[test]
fn a_kept_round_is_read_back_to_the_byte() {
    let round = Round::of_config((0..=255).collect());
    let text = serde_json::to_string(&round).unwrap();
    assert_eq!(serde_json::from_str::<Round>(&text).unwrap(), round);
}
