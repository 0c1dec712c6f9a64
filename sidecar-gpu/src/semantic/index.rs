//! Stored questions, by what must be equal: an exact scan over small vectors, bounded, the least
//! recently used first out.
//!
//! A scan and no graph: a scope (one tenant's questions under one system prompt) holds up to some
//! tens of thousands, where a scan costs less than the embedding did, finds all there is, takes an
//! insertion in microseconds and a removal for good. docs/caching-semantic.md has the figures.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use pulp::{Arch, Simd, WithSimd};

use super::Question;
use crate::cache::Key;

/// Cosine below which two questions are not worth comparing.
const NEAR: f32 = 0.7;
/// Most candidates of one look-up.
const CANDIDATES: usize = 8;
/// What an entry costs beside its vector and its question: maps, their slack, the order.
const OVERHEAD: usize = 320;

/// How much an index may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Questions.
    pub entries: usize,
    /// Bytes, about.
    pub bytes: usize,
}

impl Bounds {
    /// Most questions of few words with vectors of `dimensions` that fit.
    pub(super) fn most(&self, dimensions: usize) -> usize {
        self.entries
            .min(self.bytes / (OVERHEAD + dimensions))
            .max(1)
    }
}

/// A stored question.
#[derive(Clone, Debug)]
pub struct Stored {
    /// What must be equal.
    pub scope: Key,
    /// Where its answer is.
    pub key: Key,
    /// Its terms.
    pub question: Arc<Question>,
    /// When its answer is over, milliseconds since the epoch.
    pub until_ms: u64,
}

/// A stored question that is near.
#[derive(Clone, Debug)]
pub struct Near {
    /// Where its answer is.
    pub key: Key,
    /// Cosine of the two vectors.
    pub cosine: f32,
    /// Its terms.
    pub question: Arc<Question>,
}

/// A vector of length 1 in a quarter of its size: the cosine of two is off by less than 0.002.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub(super) scale: f32,
    pub(super) parts: Box<[i8]>,
}

impl Row {
    /// The nearest row to `vector`.
    #[must_use]
    pub fn of(vector: &[f32]) -> Self {
        let most = vector.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let scale = if most > 0.0 { most / 127.0 } else { 1.0 };
        Row {
            scale,
            parts: vector.iter().map(|x| (x / scale).round() as i8).collect(),
        }
    }
}

impl Row {
    /// The cosine of the two vectors. Of vectors of different lengths the rest of the longer counts
    /// for nothing.
    #[must_use]
    pub fn cosine(&self, other: &Row) -> f32 {
        dot(&self.parts, &other.parts) as f32 * self.scale * other.scale
    }

    /// Whether it is a vector of length 1, or of none: a longer one would be near to everything.
    pub(super) fn is_sound(&self) -> bool {
        // An engine's vector is off by a rounding, and each part by half a step.
        const LONGEST: f32 = 1.1;
        let squares = dot(&self.parts, &self.parts) as f32;
        self.scale > 0.0 && self.scale <= 1.0 && squares.sqrt() * self.scale <= LONGEST
    }
}

/// The questions of one scope. All three have the same order.
#[derive(Default)]
struct Bucket {
    parts: Vec<i8>,
    scales: Vec<f32>,
    items: Vec<Item>,
}

struct Item {
    key: Key,
    question: Arc<Question>,
    until_ms: u64,
    used: u64,
}

#[derive(Default)]
struct Inner {
    buckets: HashMap<Key, Bucket>,
    /// Scope and place of each answer's key.
    places: HashMap<Key, (Key, usize)>,
    /// Keys in the order of their last use.
    order: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
    evicted: u64,
}

/// All stored questions of a sidecar.
pub struct Index {
    dimensions: usize,
    bounds: Bounds,
    inner: RwLock<Inner>,
}

/// What an index holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Questions.
    pub entries: usize,
    /// Bytes, about.
    pub bytes: usize,
    /// Questions that gave way to others, since the start.
    pub evicted: u64,
}

impl Index {
    /// An empty one for vectors of `dimensions`.
    #[must_use]
    pub fn new(dimensions: usize, bounds: Bounds) -> Self {
        Index {
            dimensions,
            bounds,
            inner: RwLock::default(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a question; what is kept under its answer's key already gives way. Vectors of another
    /// length are not kept.
    pub fn insert(&self, stored: Stored, row: &Row) {
        if row.parts.len() != self.dimensions {
            return;
        }
        let mut inner = self.write();
        inner.remove(&stored.key, self.dimensions);
        inner.insert(stored, row);
        while inner.places.len() > self.bounds.entries || inner.bytes > self.bounds.bytes {
            let Some((_, oldest)) = inner.order.first_key_value() else {
                break;
            };
            let oldest = *oldest;
            inner.remove(&oldest, self.dimensions);
            inner.evicted += 1;
        }
    }

    /// [`Index::insert`] of what another sidecar has kept; what is known here already stays as it is.
    /// Says whether it is new.
    pub fn learn(&self, stored: Stored, row: &Row) -> bool {
        let known = self.read().holds(&stored);
        if !known {
            self.insert(stored, row);
        }
        !known
    }

    /// Removes all.
    pub fn clear(&self) {
        let mut inner = self.write();
        let evicted = inner.evicted;
        *inner = Inner {
            evicted,
            ..Inner::default()
        };
    }

    /// The nearest questions of `scope` whose answers are not over, nearest first.
    #[must_use]
    pub fn search(&self, scope: &Key, row: &Row, now_ms: u64) -> Vec<Near> {
        let inner = self.read();
        let Some(bucket) = inner.buckets.get(scope) else {
            return Vec::new();
        };
        if row.parts.len() != self.dimensions {
            return Vec::new();
        }
        let top = Arch::new().dispatch(Scan {
            row,
            bucket,
            now_ms,
        });
        top.into_iter()
            .map(|(cosine, at)| Near {
                key: bucket.items[at].key,
                cosine,
                question: bucket.items[at].question.clone(),
            })
            .collect()
    }

    /// The question was answered once more.
    pub fn used(&self, key: &Key) {
        let inner = &mut *self.write();
        inner.uses += 1;
        if let Some((scope, at)) = inner.places.get(key)
            && let Some(bucket) = inner.buckets.get_mut(scope)
        {
            let item = &mut bucket.items[*at];
            inner.order.remove(&item.used);
            item.used = inner.uses;
            inner.order.insert(item.used, *key);
        }
    }

    /// Its answer is gone.
    pub fn remove(&self, key: &Key) {
        self.write().remove(key, self.dimensions);
    }

    /// Removes the questions whose answers are over.
    pub fn expire(&self, now_ms: u64) {
        let over: Vec<Key> = {
            let inner = self.read();
            let items = inner.buckets.values().flat_map(|bucket| &bucket.items);
            items
                .filter(|item| item.until_ms <= now_ms)
                .map(|item| item.key)
                .collect()
        };
        for key in over {
            self.remove(&key);
        }
    }

    /// What it holds.
    #[must_use]
    pub fn size(&self) -> Size {
        let inner = self.read();
        Size {
            entries: inner.places.len(),
            bytes: inner.bytes,
            evicted: inner.evicted,
        }
    }

    /// Where the answers are.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.read().places.keys().copied().collect()
    }

    /// The scopes that it holds.
    pub(super) fn scopes(&self) -> Vec<Key> {
        self.read().buckets.keys().copied().collect()
    }

    /// The questions of a scope, each with its vector and the order of its last use.
    pub(super) fn of_scope(&self, scope: &Key) -> Vec<(u64, Stored, Row)> {
        let inner = self.read();
        let Some(bucket) = inner.buckets.get(scope) else {
            return Vec::new();
        };
        let rows = bucket.parts.chunks_exact(self.dimensions.max(1));
        rows.zip(&bucket.scales)
            .zip(&bucket.items)
            .map(|((parts, scale), item)| {
                let stored = Stored {
                    scope: *scope,
                    key: item.key,
                    question: item.question.clone(),
                    until_ms: item.until_ms,
                };
                let row = Row {
                    scale: *scale,
                    parts: parts.into(),
                };
                (item.used, stored, row)
            })
            .collect()
    }
}

impl Inner {
    /// Whether it holds that question, for as long or longer.
    fn holds(&self, stored: &Stored) -> bool {
        let place = self.places.get(&stored.key);
        let item = place.filter(|(scope, _)| *scope == stored.scope);
        item.and_then(|(scope, at)| self.buckets.get(scope)?.items.get(*at))
            .is_some_and(|item| {
                item.until_ms >= stored.until_ms && item.question == stored.question
            })
    }

    fn insert(&mut self, stored: Stored, row: &Row) {
        self.uses += 1;
        let bucket = self.buckets.entry(stored.scope).or_default();
        let place = (stored.scope, bucket.items.len());
        self.places.insert(stored.key, place);
        self.order.insert(self.uses, stored.key);
        self.bytes += weight(&stored.question, row.parts.len());
        bucket.parts.extend_from_slice(&row.parts);
        bucket.scales.push(row.scale);
        bucket.items.push(Item {
            key: stored.key,
            question: stored.question,
            until_ms: stored.until_ms,
            used: self.uses,
        });
    }

    fn remove(&mut self, key: &Key, dimensions: usize) {
        let Some((scope, at)) = self.places.remove(key) else {
            return;
        };
        let Some(bucket) = self.buckets.get_mut(&scope) else {
            return;
        };
        let item = bucket.items.swap_remove(at);
        bucket.scales.swap_remove(at);
        let last = bucket.items.len() * dimensions;
        bucket
            .parts
            .copy_within(last..last + dimensions, at * dimensions);
        bucket.parts.truncate(last);
        if let Some(moved) = bucket.items.get(at) {
            self.places.insert(moved.key, (scope, at));
        }
        if bucket.items.is_empty() {
            self.buckets.remove(&scope);
        }
        self.order.remove(&item.used);
        self.bytes = self
            .bytes
            .saturating_sub(weight(&item.question, dimensions));
    }
}

fn weight(question: &Question, dimensions: usize) -> usize {
    OVERHEAD + dimensions + question.weight()
}

struct Scan<'a> {
    row: &'a Row,
    bucket: &'a Bucket,
    now_ms: u64,
}

impl WithSimd for Scan<'_> {
    type Output = Vec<(f32, usize)>;

    // Compiled for the widest instructions that the machine has.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        let bucket = self.bucket;
        let mut top: Vec<(f32, usize)> = Vec::with_capacity(CANDIDATES + 1);
        let mut least = NEAR;
        let rows = bucket.parts.chunks_exact(self.row.parts.len().max(1));
        for (at, (parts, scale)) in rows.zip(&bucket.scales).enumerate() {
            let cosine = dot(&self.row.parts, parts) as f32 * self.row.scale * scale;
            if cosine < least || bucket.items[at].until_ms <= self.now_ms {
                continue;
            }
            let place = top.partition_point(|(other, _)| *other >= cosine);
            top.insert(place, (cosine.min(1.0), at));
            top.truncate(CANDIDATES);
            if top.len() == CANDIDATES {
                least = top[CANDIDATES - 1].0;
            }
        }
        top
    }
}

#[inline(always)]
fn dot(a: &[i8], b: &[i8]) -> i32 {
    a.iter()
        .zip(b)
        .map(|(a, b)| i32::from(*a) * i32::from(*b))
        .sum()
}

#[cfg(test)]
mod tests;
