//! What the fuzzer starts from, and how it is damaged.

use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;

/// Bodies of requests and answers as they should be, and odd bodies.
pub(crate) struct Corpus {
    pub(crate) bodies: Vec<Vec<u8>>,
    pub(crate) answers: Vec<Vec<u8>>,
    /// Those of embeddings, again.
    pub(crate) embeddings: (Vec<Vec<u8>>, Vec<Vec<u8>>),
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// All files in a folder and below, in order; none where there is no folder.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

impl Corpus {
    pub(crate) fn load() -> Corpus {
        let read = |path: &PathBuf| fs::read(path).unwrap();
        let (bodies, answers): (Vec<_>, Vec<_>) = files(&root().join("fixtures"))
            .into_iter()
            .partition(|path| {
                let name = path.file_name().unwrap_or_default();
                name.to_string_lossy().contains("request")
            });
        let odd = files(&root().join("corpus"));
        let of_embeddings = |paths: &[PathBuf], kind: &str| {
            let name = |path: &&PathBuf| {
                let path = path.to_string_lossy();
                path.contains("openai.embeddings") && path.ends_with(kind)
            };
            paths.iter().filter(name).map(read).collect()
        };
        let corpus = Corpus {
            embeddings: (
                of_embeddings(&bodies, "request.json"),
                of_embeddings(&answers, "answer.json"),
            ),
            bodies: bodies.iter().chain(&odd).map(read).collect(),
            answers: answers.iter().map(read).collect(),
        };
        assert!(
            corpus.bodies.len() >= 5 && corpus.answers.len() >= 5,
            "the fixtures are there"
        );
        corpus
    }
}

const SNIPPETS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    "\\ud800",
    "null",
    "1e999",
    "-0",
    ",",
    ":",
    "\u{0}",
    "\u{feff}",
    "data: ",
    "\n\n",
    "\r\n",
    "event: x\n",
    "\"model\":\"gpt-4o\",",
    "\"stream\":true,",
    "\"max_tokens\":0,",
    "\"n\":99999999999,",
    "\"usage\":{",
    "[DONE]",
    "\"messages\":[],",
    "\"tools\":[{}],",
    "\"temperature\":1e308,",
    "\"stream_options\":{\"include_usage\":true},",
];

/// Bytes with random damage; most lives get none or a little.
pub(crate) fn damaged(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..[0, 0, 1, 1, 2, 8][rng.usize(..6)] {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..6) {
            0 if at < bytes.len() => bytes[at] = rng.u8(..),
            1 => bytes.truncate(at),
            2 => {
                let snippet = SNIPPETS[rng.usize(..SNIPPETS.len())];
                bytes.splice(at..at, snippet.bytes());
            }
            3 => {
                let end = (at + rng.usize(..32)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let end = (at + rng.usize(..64)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let deep = rng.usize(..400);
                bytes.splice(at..at, std::iter::repeat_n(b'[', deep));
            }
        }
    }
    bytes
}
