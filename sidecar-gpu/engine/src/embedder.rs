//! An encoder as an [`Engine`]: tokens in, the model's rows, one vector per text out.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::cpu::{Scratch, unit};
use crate::load::{Folder, Json, Overlong};
use crate::pooling::{Pooling, Sentences};
use crate::tokens::{TokenizerFile, Tokens};
use crate::weights::Weights;
use crate::{Engine, EngineError, Generate, Generated, Info, LoadError, LoadOptions};

/// Tokens that go through the layers together. More would not make the products faster, and what
/// passes from layer to layer would no longer stay in the second-level cache.
const CHUNK: usize = 256;

/// Fewest tokens that are worth another thread, which has to be started.
const SHARE: usize = 32;

/// A model that makes a row per token.
pub(crate) trait Encoder: Send + Sync + 'static {
    /// Width of a row.
    fn hidden(&self) -> usize;

    /// Most tokens in a text.
    fn positions(&self) -> usize;

    /// How many tokens it knows.
    fn vocabulary(&self) -> usize;

    /// A token's row before the first layer. `None`: no such token.
    fn word_vector(&self, token: u32) -> Option<&[f32]>;

    /// Leaves a row per token in `scratch.rows`, text after text. The tokens are known ones.
    fn forward(&self, texts: &[&[u32]], scratch: &mut Scratch);
}

/// An encoder with its tokenizer.
pub(crate) struct Embedder<E> {
    encoder: E,
    tokens: Tokens,
    pooling: Pooling,
    info: Info,
    threads: usize,
    /// As many as calls have run at once.
    scratch: Mutex<Vec<Scratch>>,
}

impl<E: Encoder> Embedder<E> {
    /// Adds tokenizer and pooling to an encoder that was made of `weights`.
    pub(crate) fn new(
        encoder: E,
        weights: &Weights,
        (folder, options): (&Folder, &LoadOptions),
    ) -> Result<Self, LoadError> {
        let sentences = Sentences::read(folder, encoder.hidden())?;
        let limits = [sentences.max_tokens, options.max_tokens];
        let limit = limits.into_iter().flatten().min();
        let limit = limit.map_or(encoder.positions(), |limit| limit.min(encoder.positions()));
        let file = TokenizerFile::read(folder.path("tokenizer.json"))?;
        let tokens = Tokens::new(&file, encoder.vocabulary(), (limit, options.overlong))?;
        let info = Info {
            model: options.name.clone().unwrap_or_else(|| folder.name()),
            revision: revision(
                [&folder.config.bytes, &file.bytes, weights.bytes()],
                &sentences.files,
                (limit, options.overlong),
            ),
            dimensions: encoder.hidden(),
            max_batch: options.max_batch.max(1),
            max_tokens: limit,
        };
        Ok(Embedder {
            encoder,
            tokens,
            pooling: sentences.pooling,
            info,
            threads: options.threads.max(1),
            scratch: Mutex::default(),
        })
    }

    fn check(&self, texts: &[&[u32]]) -> Result<(), EngineError> {
        let (found, limit) = (texts.len(), self.info.max_batch);
        if found > limit {
            return Err(EngineError::BatchTooLarge { found, limit });
        }
        for (index, tokens) in texts.iter().enumerate() {
            let (found, limit) = (tokens.len(), self.info.max_tokens);
            if found > limit {
                return Err(EngineError::TooLong {
                    index,
                    found,
                    limit,
                });
            }
            let no_tokens = |found: String| EngineError::NoTokens { index, found };
            if tokens.is_empty() {
                return Err(no_tokens("none".into()));
            }
            let unknown = |token: &&u32| self.encoder.word_vector(**token).is_none();
            if let Some(token) = tokens.iter().find(unknown) {
                return Err(no_tokens(token.to_string()));
            }
        }
        Ok(())
    }

    /// One chunk's vectors.
    fn run(&self, texts: &[&[u32]], scratch: &mut Scratch) -> Vec<Vec<f32>> {
        self.encoder.forward(texts, scratch);
        let hidden = self.encoder.hidden();
        let mut rest = scratch.rows.as_slice();
        let pool = |tokens: &&[u32]| {
            let (rows, after) = rest.split_at(tokens.len() * hidden);
            rest = after;
            match self.pooling {
                Pooling::First => rows[..hidden].to_vec(),
                Pooling::Mean => sum(rows, hidden),
            }
        };
        texts.iter().map(pool).collect()
    }

    /// Takes chunk after chunk until none is left.
    fn work(&self, chunks: &[&[&[u32]]], next: &AtomicUsize) -> Vec<(usize, Vec<Vec<f32>>)> {
        let pool = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = pool().pop().unwrap_or_default();
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(texts) = chunks.get(index) else {
                break;
            };
            done.push((index, self.run(texts, &mut scratch)));
        }
        pool().push(scratch);
        done
    }
}

impl<E: Encoder> Engine for Embedder<E> {
    fn info(&self) -> &Info {
        &self.info
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        self.tokens.encode(text)
    }

    fn embed_tokens(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, EngineError> {
        self.check(texts)?;
        let total: usize = texts.iter().map(|tokens| tokens.len()).sum();
        let threads = self.threads.min(total / SHARE).max(1);
        let chunks = chunks(texts, CHUNK.min(total.div_ceil(threads)));
        let next = AtomicUsize::new(0);
        let done = thread::scope(|scope| {
            let more = threads.min(chunks.len()).saturating_sub(1);
            // Where no thread can be started, those that could do its work.
            let helpers: Vec<_> = (0..more)
                .filter_map(|_| {
                    let work = || self.work(&chunks, &next);
                    thread::Builder::new().spawn_scoped(scope, work).ok()
                })
                .collect();
            let mut done = self.work(&chunks, &next);
            for helper in helpers {
                let theirs = helper.join();
                done.extend(theirs.map_err(|_| EngineError::Device("a thread panicked".into()))?);
            }
            Ok(done)
        });
        let mut done = done?;
        done.sort_unstable_by_key(|(index, _)| *index);
        let mut vectors: Vec<_> = done.into_iter().flat_map(|(_, vectors)| vectors).collect();
        for (index, vector) in vectors.iter_mut().enumerate() {
            if !unit(vector) {
                let error = format!("text {index}: the model's vector has no direction");
                return Err(EngineError::Device(error));
            }
        }
        Ok(vectors)
    }

    fn word_vector(&self, token: u32) -> Option<&[f32]> {
        self.encoder.word_vector(token)
    }

    fn generate(
        &self,
        _: &Generate<'_>,
        _: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generated, EngineError> {
        Err(EngineError::Unsupported {
            model: self.info.model.clone(),
            what: "generate",
        })
    }
}

/// Neighbouring texts together, up to `tokens` of them; a longer text is alone.
fn chunks<'t, 'a>(mut texts: &'t [&'a [u32]], tokens: usize) -> Vec<&'t [&'a [u32]]> {
    let mut chunks = Vec::new();
    while !texts.is_empty() {
        let mut total = 0;
        let fits = texts.iter().take_while(|text| {
            total += text.len();
            total <= tokens
        });
        let (chunk, rest) = texts.split_at(fits.count().max(1));
        chunks.push(chunk);
        texts = rest;
    }
    chunks
}

/// The sum of rows: their mean but for the length, which becomes 1 anyway.
fn sum(rows: &[f32], width: usize) -> Vec<f32> {
    let mut all = vec![0.0; width];
    for row in rows.chunks_exact(width) {
        for (sum, value) in all.iter_mut().zip(row) {
            *sum += value;
        }
    }
    all
}

/// A digest of all that decides the vectors: the files, and where texts are cut.
fn revision(
    always: [&[u8]; 3],
    sentences: &[Json],
    (limit, overlong): (usize, Overlong),
) -> String {
    let mut hasher = blake3::Hasher::new();
    let cut = format!("{overlong:?} {limit}");
    let more = sentences.iter().map(|file| file.bytes.as_slice());
    for bytes in always.into_iter().chain([cut.as_bytes()]).chain(more) {
        hasher.update(&bytes.len().to_le_bytes());
        hasher.update(bytes);
    }
    hasher.finalize().to_hex()[..32].to_owned()
}
