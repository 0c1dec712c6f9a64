//! The index on disk, so that a restart does not forget which answers are known.
//!
//! A line of JSON (what the rows were made by), the entries one after another, and a CRC-32 of all
//! before it. Made by another model, other rules or another version, cut or damaged: the index
//! starts empty. It holds the terms of questions, so only its owner may read it.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::index::{Index, Row, Stored};
use super::private::Private;
use super::{Question, RULES};
use crate::cache::Key;

pub(super) const VERSION: u16 = 1;
/// Longest question of an entry, as JSON; longer ones are not written by this version.
const MAX_QUESTION: usize = 64 << 10;

/// What the entries were made by.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    version: u16,
    rules: u16,
    /// Of the model: vectors of two revisions must not meet.
    revision: String,
    dimensions: usize,
}

impl Head {
    fn now(revision: &str, dimensions: usize) -> Self {
        Head {
            version: VERSION,
            rules: RULES,
            revision: revision.to_owned(),
            dimensions,
        }
    }
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("its checksum does not match")]
    Damaged,
    #[error("it was made by another model or another version")]
    Other,
}

/// A file that sums what is written to it.
struct Summed<W> {
    to: W,
    sum: crc32fast::Hasher,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Writes `index` to `path`, whole or not at all. Looks at one scope at a time, so that look-ups go
/// on meanwhile.
pub(super) fn save(
    index: &Index,
    (revision, dimensions): (&str, usize),
    path: &Path,
) -> io::Result<()> {
    let mut out = Summed {
        to: Private::create(path)?,
        sum: crc32fast::Hasher::new(),
    };
    serde_json::to_writer(&mut out, &Head::now(revision, dimensions))?;
    out.write_all(b"\n")?;
    for scope in index.scopes() {
        for (used, stored, row) in index.of_scope(&scope) {
            entry(&mut out, used, (&stored, &row))?;
        }
    }
    let sum = out.sum.clone().finalize();
    out.to.write_all(&sum.to_le_bytes())?;
    out.to.finish()
}

fn entry(out: &mut impl Write, used: u64, (stored, row): (&Stored, &Row)) -> io::Result<()> {
    let question = serde_json::to_vec(&*stored.question)?;
    if question.len() > MAX_QUESTION {
        return Ok(());
    }
    out.write_all(&used.to_le_bytes())?;
    out.write_all(&stored.until_ms.to_le_bytes())?;
    out.write_all(stored.scope.bytes())?;
    out.write_all(stored.key.bytes())?;
    out.write_all(&row.scale.to_le_bytes())?;
    let parts: Vec<u8> = row.parts.iter().map(|part| part.to_le_bytes()[0]).collect();
    out.write_all(&parts)?;
    out.write_all(&(question.len() as u32).to_le_bytes())?;
    out.write_all(&question)
}

/// One question alone, with a checksum of its own; none where it is too long.
pub(super) fn packed(stored: &Stored, row: &Row) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    entry(&mut bytes, 0, (stored, row)).ok()?;
    let sum = crc32fast::hash(&bytes);
    let written = !bytes.is_empty();
    bytes.extend_from_slice(&sum.to_le_bytes());
    written.then_some(bytes)
}

/// What [`packed`] wrote; none for anything else.
pub(super) fn unpacked(bytes: &[u8], dimensions: usize) -> Option<(Stored, Row)> {
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
        return None;
    }
    let mut reader = Reader(body);
    let (_, stored, row) = reader.entry(dimensions)?;
    let sound = reader.0.is_empty() && row.is_sound() && stored.question.is_sound();
    sound.then_some((stored, row))
}

/// Puts what `path` holds into `index`, in the order of its last use, but for what is over. Says
/// how many there were.
pub(super) fn load(
    index: &Index,
    (revision, dimensions): (&str, usize),
    (path, now_ms): (&Path, u64),
) -> Result<usize, Unusable> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let (body, sum) = bytes.split_last_chunk::<4>().ok_or(Unusable::Damaged)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
        return Err(Unusable::Damaged);
    }
    let line = body.iter().position(|byte| *byte == b'\n');
    let (head, rest) = body.split_at(line.ok_or(Unusable::Damaged)?);
    let head: Head = serde_json::from_slice(head).map_err(|_| Unusable::Other)?;
    if head != Head::now(revision, dimensions) {
        return Err(Unusable::Other);
    }
    let mut reader = Reader(&rest[1..]);
    let mut entries = Vec::new();
    while !reader.0.is_empty() {
        entries.push(reader.entry(dimensions).ok_or(Unusable::Damaged)?);
    }
    entries.sort_by_key(|(used, ..)| *used);
    entries.retain(|(_, stored, _)| stored.until_ms > now_ms);
    let count = entries.len();
    for (_, stored, row) in entries {
        index.insert(stored, &row);
    }
    Ok(count)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn entry(&mut self, dimensions: usize) -> Option<(u64, Stored, Row)> {
        let used = u64::from_le_bytes(self.array()?);
        let until_ms = u64::from_le_bytes(self.array()?);
        let scope = Key::new(self.array()?);
        let key = Key::new(self.array()?);
        let scale = f32::from_le_bytes(self.array()?);
        let parts = self.take(dimensions)?;
        let parts = parts.iter().map(|part| i8::from_le_bytes([*part]));
        let row = Row {
            scale,
            parts: parts.collect(),
        };
        let length = u32::from_le_bytes(self.array()?);
        let length = usize::try_from(length).ok()?;
        if length > MAX_QUESTION {
            return None;
        }
        let question: Question = serde_json::from_slice(self.take(length)?).ok()?;
        let stored = Stored {
            scope,
            key,
            question: Arc::new(question),
            until_ms,
        };
        Some((used, stored, row))
    }
}

#[cfg(test)]
mod tests {
    use super::super::index::Bounds;
    use super::*;

    const MADE_BY: (&str, usize) = ("r1", 8);

    fn empty(entries: usize) -> Index {
        let bytes = 1 << 20;
        Index::new(8, Bounds { entries, bytes })
    }

    fn key(n: u8) -> Key {
        Key::new([n; 32])
    }

    fn vector(n: u8) -> Row {
        let mut vector = [0.0; 8];
        vector[usize::from(n) % 8] = 1.0;
        Row::of(&vector)
    }

    fn insert(index: &Index, n: u8, until_ms: u64) {
        let stored = Stored {
            scope: key(n / 4),
            key: key(n),
            question: Arc::new(Question::read(&format!("Where is order {n}?"))),
            until_ms,
        };
        index.insert(stored, &vector(n));
    }

    fn load_at(index: &Index, now_ms: u64, path: &Path) -> Result<usize, Unusable> {
        load(index, MADE_BY, (path, now_ms))
    }

    #[test]
    fn what_was_saved_is_found_after_a_restart_but_for_what_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        assert_eq!(load_at(&empty(9), 0, &path).unwrap(), 0, "no file yet");
        let index = empty(9);
        for n in 0..8 {
            insert(&index, n, 1_000 + u64::from(n));
        }
        index.used(&key(3));
        save(&index, MADE_BY, &path).unwrap();
        let again = empty(4);
        assert_eq!(load_at(&again, 1_002, &path).unwrap(), 5);
        // The least recently used gave way: 4, as 3 was used after it.
        let kept: Vec<u8> = (0..8)
            .filter(|n| {
                let near = again.search(&key(n / 4), &vector(*n), 0);
                near.first().is_some_and(|near| {
                    *near.question == Question::read(&format!("Where is order {n}?"))
                })
            })
            .collect();
        assert_eq!(kept, [3, 5, 6, 7]);
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_question_alone_is_read_as_it_was_written_and_anything_else_is_none() {
        let stored = Stored {
            scope: key(1),
            key: key(2),
            question: Arc::new(Question::read("Where is order 7?")),
            until_ms: 1_000,
        };
        let bytes = packed(&stored, &vector(3)).unwrap();
        let (read, row) = unpacked(&bytes, 8).unwrap();
        assert_eq!(
            (read.scope, read.key, read.until_ms),
            (key(1), key(2), 1_000)
        );
        assert_eq!((read.question, row), (stored.question, vector(3)));
        assert!(unpacked(&bytes, 9).is_none(), "another model's");
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x20;
            assert!(unpacked(&bad, 8).is_none(), "{at}");
            assert!(unpacked(&bytes[..at], 8).is_none(), "{at}");
        }
    }

    #[test]
    fn no_row_that_is_near_to_all_and_no_question_that_none_could_be_is_taken() {
        let with = |scale: f32, question: &serde_json::Value| {
            let stored = Stored {
                scope: key(1),
                key: key(2),
                question: Arc::new(serde_json::from_value(question.clone()).unwrap()),
                until_ms: 1_000,
            };
            let row = Row { scale, ..vector(3) };
            unpacked(&packed(&stored, &row).unwrap(), 8).is_some()
        };
        let good = serde_json::to_value(Question::read("Where is order 7?")).unwrap();
        assert!(with(1.0 / 127.0, &good));
        for scale in [0.0, -1.0 / 127.0, 0.02, 1e30, f32::NAN, f32::INFINITY] {
            assert!(!with(scale, &good), "{scale}");
        }
        let mut many = good.clone();
        many["text"] = vec!["order"; 1000].join("\n").into();
        many["kinds"] = vec!["content"; 1000].into();
        let mut long = good.clone();
        long["text"] = "x".repeat(20_000).into();
        let mut uneven = good.clone();
        uneven["kinds"] = vec!["content"].into();
        for bad in [many, long, uneven] {
            assert!(!with(1.0 / 127.0, &bad));
        }
    }

    #[test]
    fn every_question_that_is_read_is_one_that_could_be() {
        let long = "order 7 is here? ".repeat(15);
        let dotted = "\u{130}".repeat(1000);
        for text in [
            "",
            "?",
            "why",
            "¿Cómo?",
            "can't I?",
            &long,
            &dotted,
            &"x ".repeat(2000),
        ] {
            assert!(Question::read(text).is_sound(), "{text}");
        }
        assert!(Row::of(&[0.0; 8]).is_sound());
    }

    #[test]
    fn a_file_that_is_damaged_cut_or_of_another_model_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        let index = empty(9);
        insert(&index, 1, 1_000);
        save(&index, MADE_BY, &path).unwrap();
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            std::fs::write(&path, &bad).unwrap();
            let found = load_at(&empty(9), 0, &path);
            assert!(matches!(found, Err(Unusable::Damaged)), "{at}");
            std::fs::write(&path, &good[..at]).unwrap();
            let found = load_at(&empty(9), 0, &path);
            assert!(matches!(found, Err(Unusable::Damaged)), "{at}");
        }
        std::fs::write(&path, &good).unwrap();
        let other = load(&empty(9), ("r2", 8), (&path, 0));
        assert!(matches!(other, Err(Unusable::Other)));
        assert_eq!(load_at(&empty(9), 0, &path).unwrap(), 1);
    }
}
