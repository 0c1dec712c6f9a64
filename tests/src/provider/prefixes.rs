//! What the stand-in remembers of prompts, and the discount that this earns.
//!
//! Fronts are known token by token: two prompts share what their tokens share, wherever a message
//! ends. OpenAI remembers every prompt, from 1,024 tokens on and in steps of 128. Anthropic
//! remembers what `cache_control` marked, from a least length on that hangs on the model, and looks
//! back from each mark over twenty blocks for what it remembers. Both forget a front some minutes
//! after it was last used; each API key and model has its own memory.
//!
//! Time is the process's own, or what the header [`CLOCK_HEADER`] says, so that a bench can let hours
//! pass between two requests. Whoever sends it has to send it always.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use super::tokens::{Prompt, claude};

/// Request header: what the stand-in takes for now, in milliseconds.
pub const CLOCK_HEADER: &str = "x-provider-clock";

/// OpenAI's shortest front and the steps beyond ("Prompt caching").
const LEAST: usize = 1024;
const STEP: usize = 128;

/// Blocks before a mark, itself among them, at which Anthropic looks for what it remembers ("Prompt
/// caching", "automatic prefix checking").
const LOOK_BACK: usize = 20;

/// Fronts that are remembered; past it the memory starts anew.
const MOST: usize = 1 << 18;

/// The fronts of one provider.
#[derive(Debug)]
pub(crate) struct Prefixes {
    kept_ms: u64,
    began: Instant,
    used: Mutex<HashMap<u64, u64>>,
}

/// Whose memory it is, and when it is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) owner: &'a str,
    pub(crate) now_ms: u64,
}

impl Prefixes {
    /// Fronts are kept for so long after they were last used.
    pub(crate) fn new(kept_ms: u64) -> Prefixes {
        Prefixes {
            kept_ms,
            began: Instant::now(),
            used: Mutex::default(),
        }
    }

    /// The process's own time.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// OpenAI: the cached tokens of a prompt, which is remembered.
    pub(crate) fn automatic(&self, asked: Asked<'_>, prompt: &Prompt) -> u64 {
        let ends: Vec<usize> = (LEAST..=prompt.tokens.len()).step_by(STEP).collect();
        let fronts = fronts(asked.owner, prompt, &ends);
        let mut memory = self.memory();
        let read = self.longest(&memory, &fronts, asked.now_ms);
        memory.extend(fronts.iter().map(|(_, front)| (*front, asked.now_ms)));
        read as u64
    }

    /// Anthropic: the tokens of a prompt that are read from the cache and those written to it, as
    /// Claude counts them. `least` is its shortest front.
    pub(crate) fn marked(&self, asked: Asked<'_>, prompt: &Prompt, least: u64) -> (u64, u64) {
        let mut ends: Vec<usize> = prompt.blocks.clone();
        ends.extend(&prompt.marks);
        ends.sort_unstable();
        ends.dedup();
        let mut readable = vec![false; ends.len()];
        for mark in &prompt.marks {
            let after = ends.partition_point(|end| end <= mark);
            readable[after.saturating_sub(LOOK_BACK)..after].fill(true);
        }
        let fronts = fronts(asked.owner, prompt, &ends);
        let looked_at = fronts
            .iter()
            .zip(&readable)
            .filter(|(_, readable)| **readable);
        let looked_at: Vec<(usize, u64)> = looked_at.map(|(front, _)| *front).collect();
        let mut memory = self.memory();
        let read = self.longest(&memory, &looked_at, asked.now_ms);
        let mut written = read;
        for (end, front) in fronts {
            let marked = prompt.marks.contains(&end) && claude(end) >= least;
            if marked {
                written = written.max(end);
            }
            // What is read is used, and what it begins with too.
            if marked || (end <= read && memory.contains_key(&front)) {
                memory.insert(front, asked.now_ms);
            }
        }
        let read = claude(read);
        (read, claude(written).saturating_sub(read))
    }

    /// The longest of these fronts that is still remembered.
    fn longest(&self, memory: &HashMap<u64, u64>, fronts: &[(usize, u64)], now_ms: u64) -> usize {
        let kept = |front: &u64| {
            let used = memory.get(front);
            used.is_some_and(|used| now_ms.saturating_sub(*used) <= self.kept_ms)
        };
        let held = fronts.iter().rev().find(|(_, front)| kept(front));
        held.map_or(0, |(end, _)| *end)
    }

    /// Forgets every prompt.
    pub(crate) fn forget(&self) {
        self.memory().clear();
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        let mut memory = self
            .used
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if memory.len() > MOST {
            memory.clear();
        }
        memory
    }
}

/// The fronts of a prompt that end there, each with a digest of it and of whose it is.
fn fronts(owner: &str, prompt: &Prompt, ends: &[usize]) -> Vec<(usize, u64)> {
    let mut hasher = DefaultHasher::new();
    owner.hash(&mut hasher);
    let mut from = 0;
    let mut all = Vec::with_capacity(ends.len());
    for &end in ends {
        // A token at a time, so that it does not matter where other ends were.
        for token in &prompt.tokens[from..end] {
            token.hash(&mut hasher);
        }
        from = end;
        all.push((end, hasher.finish()));
    }
    all
}

/// The stand-in's counts and prefix caches by themselves, for prompts that are lists of texts.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Charges {
    tokens: super::tokens::Tokens,
    prefixes: Prefixes,
}

#[cfg(test)]
impl Charges {
    pub(crate) fn new(counting: super::Counting, kept_ms: u64) -> Charges {
        Charges {
            tokens: super::tokens::Tokens::new(counting),
            prefixes: Prefixes::new(kept_ms),
        }
    }

    /// Tokens of a message with such a text.
    pub(crate) fn count(&self, text: &str) -> u64 {
        4 + self.tokens.of(text).len() as u64
    }

    /// All tokens, those read from OpenAI's cache, none written.
    pub(crate) fn automatic(&self, texts: &[(String, bool)], now_ms: u64) -> (u64, u64, u64) {
        let prompt = self.prompt(texts);
        let asked = Asked { owner: "", now_ms };
        let cached = self.prefixes.automatic(asked, &prompt);
        (prompt.tokens.len() as u64, cached, 0)
    }

    /// All tokens, those read from Anthropic's cache and those written to it.
    pub(crate) fn marked(
        &self,
        texts: &[(String, bool)],
        (least, now_ms): (u64, u64),
    ) -> (u64, u64, u64) {
        let prompt = self.prompt(texts);
        let asked = Asked { owner: "", now_ms };
        let (read, written) = self.prefixes.marked(asked, &prompt, least);
        (claude(prompt.tokens.len()), read, written)
    }

    fn prompt(&self, texts: &[(String, bool)]) -> Prompt {
        let mut prompt = Prompt::default();
        for (text, marked) in texts {
            prompt.overhead(4, "message");
            self.tokens.add(&mut prompt, text);
            let mark = serde_json::json!({"cache_control": {"type": "ephemeral"}});
            prompt.block(if *marked {
                &mark
            } else {
                &serde_json::Value::Null
            });
        }
        prompt
    }
}
