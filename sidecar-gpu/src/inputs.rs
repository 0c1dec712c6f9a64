//! Embedding requests input by input: which vectors are there, and keeping those that come.
//!
//! A vector is kept like an answer, under a key of its own; its bytes are the filter's affair. Of
//! one request all come from one revision of a model, the one that was stored last: what was computed
//! by another counts as missing, and is replaced with the answer that it is missed in.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use sluice_wire::{CacheResult, EntryHead, StoreVectors, Usage, Vectors, Verdict};

use crate::admission::Asked;
use crate::app::App;
use crate::cache::{Age, Entry, Found, Key};

/// What a vector's entry says that it is, where an answer's names an API.
const FORMAT: &str = "vector";

/// Vectors stored at the same time, so that Redis is waited for once for so many.
const AT_ONCE: usize = 32;

/// Inputs that were computed before.
pub(crate) struct Known {
    /// What the filter is told of them.
    pub(crate) told: Vectors,
    /// Their bytes, in the same order; none where they were not asked for.
    pub(crate) entries: Vec<Arc<Entry>>,
    /// There is no other input.
    pub(crate) all: bool,
    /// One of them is past its time.
    stale: bool,
}

impl Known {
    /// The verdict where all are there.
    pub(crate) fn hit(&self, plan: u8) -> Verdict {
        let tokens = self.told.found.iter().map(|(_, tokens)| u64::from(*tokens));
        Verdict::Hit {
            plan,
            age_secs: self.told.age_secs,
            entry: EntryHead {
                format: FORMAT.to_owned(),
                model: self.told.model.clone(),
                usage: Usage {
                    prompt: tokens.sum(),
                    ..Usage::default()
                },
                ..EntryHead::default()
            },
            result: match self.stale {
                true => CacheResult::Stale,
                false => CacheResult::Hit,
            },
            refresh: None,
        }
    }
}

/// Looks up inputs by their `keys`. None: nothing is there, or more than `asked` has room for.
pub(crate) async fn look_up(app: &App, keys: &[Key], asked: &Asked) -> Option<Known> {
    let count = |result, number: usize| app.metrics.items("api", result, number as u64);
    search(app, keys, (asked, &count)).await
}

async fn search(
    app: &App,
    keys: &[Key],
    (asked, count): (&Asked, &(dyn Fn(&'static str, usize) + Sync)),
) -> Option<Known> {
    if keys.is_empty() {
        return None;
    }
    let now_ms = app.clock.now_ms();
    let Ok(all) = app.cache.get_all(keys, now_ms).await else {
        count("error", keys.len());
        return None;
    };
    let mut corrupt = 0;
    let mut found: Vec<(u16, Arc<Entry>)> = Vec::with_capacity(keys.len());
    for (number, one) in (0_u16..).zip(all) {
        match one {
            // What is past its time is good enough while upstream fails.
            Found::Entry(entry)
                if (asked.failing || entry.age(now_ms) == Age::Fresh)
                    && entry.head.format == FORMAT =>
            {
                found.push((number, entry));
            }
            Found::Corrupt => corrupt += 1,
            Found::Entry(_) | Found::Miss => {}
        }
    }
    count("corrupt", corrupt);
    let there = found.len();
    let newest = found.iter().max_by_key(|(_, entry)| entry.stored_ms);
    let revision = newest.map(|(_, entry)| (entry.head.model.clone(), entry.body.len()));
    let (model, len) = revision.unwrap_or_default();
    found.retain(|(_, entry)| entry.head.model == model && entry.body.len() == len);
    count("revision", there - found.len());
    count("miss", keys.len() - there - corrupt);
    let bytes = found.len().saturating_mul(len);
    let room = asked.vector_bytes as usize;
    if room > 0 && bytes > room {
        count("no_room", found.len());
        return None;
    }
    count("hit", found.len());
    let oldest_ms = found.iter().map(|(_, entry)| entry.stored_ms).min()?;
    let tokens = |entry: &Entry| u32::try_from(entry.head.usage.prompt).unwrap_or(u32::MAX);
    Some(Known {
        told: Vectors {
            found: found.iter().map(|(at, it)| (*at, tokens(it))).collect(),
            len: u32::try_from(len).ok()?,
            model,
            age_secs: now_ms.saturating_sub(oldest_ms) / 1000,
        },
        all: found.len() == keys.len(),
        stale: found.iter().any(|(_, it)| it.age(now_ms) != Age::Fresh),
        entries: match room {
            0 => Vec::new(),
            _ => found.into_iter().map(|(_, entry)| entry).collect(),
        },
    })
}

/// [`look_up`] once more, where an input that was missing has come since `since_ms`: another one's
/// lease on the same request may have ended meanwhile. What is known was counted.
pub(crate) async fn look_again(
    app: &App,
    keys: &[Key],
    (asked, known, since_ms): (&Asked, Option<Known>, u64),
) -> Option<Known> {
    let told = known.as_ref().map_or(&[][..], |known| &known.told.found);
    let missing = (0_u16..)
        .zip(keys)
        .find(|(number, _)| told.binary_search_by_key(number, |it| it.0).is_err());
    let Some((_, key)) = missing else {
        return known;
    };
    let now_ms = app.clock.now_ms();
    match app.cache.get(*key, now_ms).await {
        Ok(Found::Entry(entry)) if entry.stored_ms >= since_ms => {
            search(app, keys, (asked, &|_, _| {})).await
        }
        _ => known,
    }
}

/// Keeps the vectors that a request brought. `like` is an entry of its times, its token and no body.
pub(crate) async fn keep(
    app: &App,
    store: &StoreVectors,
    (vectors, like): (&[(Key, Bytes)], &Entry),
) {
    let entry = |body: &Bytes, tokens: u32| Entry {
        tags: store.tags.clone(),
        head: EntryHead {
            format: FORMAT.to_owned(),
            model: store.model.clone(),
            usage: Usage {
                prompt: u64::from(tokens),
                ..Usage::default()
            },
            ..EntryHead::default()
        },
        body: body.clone(),
        ..like.clone()
    };
    let entries: Vec<(Key, Entry)> = vectors
        .iter()
        .zip(&store.tokens)
        .map(|((key, body), tokens)| (*key, entry(body, *tokens)))
        .collect();
    let mut puts = stream::iter(entries)
        .map(|(key, entry)| app.cache.put(key, entry))
        .buffer_unordered(AT_ONCE);
    while let Some(put) = puts.next().await {
        app.metrics.stored(crate::cache::name(&put));
    }
}
