//! What the caches know of a request: its answer, its vectors, the answer to a question that asks the
//! same, the lease on it.

use std::sync::Arc;

use sluice_wire::{Audit, CacheResult, LeaseEnd};
use tokio::time::{Instant, timeout_at};

use super::{Asked, Way};
use crate::app::App;
use crate::cache::{Age, Entry, Found, Key};
use crate::inputs::{self, Known};
use crate::lease::{Lease, Take, Taker};
use crate::semantic::Told;

/// What the caches know of a key.
pub(super) enum Cached {
    Answer {
        entry: Arc<Entry>,
        result: CacheResult,
        refresh: Option<Lease>,
    },
    /// All that an embedding request asks for.
    Vectors(Known),
    Wait(Key),
    Nothing {
        held: Option<Held>,
        spare: Option<Arc<Entry>>,
        /// `spare` would have done, and is audited.
        audit: Option<Audit>,
        /// What is there of an embedding request's inputs.
        known: Option<Known>,
    },
}

impl Cached {
    fn answer(entry: Arc<Entry>, result: CacheResult) -> Cached {
        Cached::Answer {
            entry,
            result,
            refresh: None,
        }
    }

    fn nothing(held: Option<Held>, spare: Option<Arc<Entry>>, audit: Option<Audit>) -> Cached {
        Cached::Nothing {
            held,
            spare,
            audit,
            known: None,
        }
    }
}

/// A lease that is given back unless it is kept: its request was refused, or hung up.
pub(super) struct Held {
    app: Arc<App>,
    key: Key,
    lease: Lease,
    kept: bool,
}

impl Held {
    pub(super) fn keep(mut self) -> Lease {
        self.kept = true;
        self.lease
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.kept {
            let (app, key, lease) = (self.app.clone(), self.key, self.lease);
            tokio::spawn(async move { app.end_lease(key, lease, LeaseEnd::Failed).await });
        }
    }
}

/// What the caches know of a request that is served that way; a question is compared until `until`.
pub(super) async fn cached(app: &Arc<App>, asked: &Asked, (way, until): (&Way, Instant)) -> Cached {
    let since_ms = app.clock.now_ms();
    let known = match inputs::look_up(app, &way.inputs, asked).await {
        Some(known) if known.all => return Cached::Vectors(known),
        known => known,
    };
    let (held, spare, audit) = match whole(app, asked, (way, until)).await {
        Cached::Nothing {
            held, spare, audit, ..
        } => (held, spare, audit),
        other => return other,
    };
    let known = match &held {
        Some(_) => inputs::look_again(app, &way.inputs, (asked, known, since_ms)).await,
        None => known,
    };
    match known {
        Some(known) if known.all => Cached::Vectors(known),
        known => Cached::Nothing {
            held,
            spare,
            audit,
            known,
        },
    }
}

/// What is known of a request's answer as a whole.
async fn whole(app: &Arc<App>, asked: &Asked, (way, until): (&Way, Instant)) -> Cached {
    let Some(key) = way.key else {
        return Cached::nothing(None, None, None);
    };
    let now_ms = app.clock.now_ms();
    let (entry, age) = match look_up(app, key, now_ms).await {
        Some(entry) => {
            let age = entry.age(now_ms);
            (Some(entry), age)
        }
        None => (None, Age::Over),
    };
    let usable = match age {
        // Also for a refresh: it came too late, and is told that there is nothing to do.
        Age::Fresh => true,
        Age::Stale | Age::Spare => asked.failing,
        Age::Over => false,
    };
    if usable && let Some(entry) = entry {
        let result = match age {
            Age::Fresh => CacheResult::Hit,
            _ => CacheResult::Stale,
        };
        return Cached::answer(entry, result);
    }
    // What is stale is told, and is the answer to this very question.
    let alike = match asked.under.is_none() && age != Age::Stale {
        true => alike(app, asked, (way, until)).await,
        false => None,
    };
    let (entry, audit) = match alike {
        None => (entry, None),
        Some((other, alike)) => match asked.audit(other) {
            None => return Cached::answer(alike, CacheResult::Semantic),
            audit => (Some(alike), audit),
        },
    };
    if asked.lease_ms == 0 || asked.failing {
        return Cached::nothing(None, entry, audit);
    }
    let holder = asked.under.map_or(asked.id, |lease| lease.holder);
    let serves = age == Age::Stale && asked.under.is_none();
    let taker = Taker { holder, serves };
    let take = app.leases.take(key, taker, (now_ms, asked.lease_ms)).await;
    app.metrics.leased(match take {
        Take::Taken(_) => "taken",
        Take::Busy => "busy",
        Take::Open => "open",
    });
    let lease = match take {
        Take::Taken(lease) => lease,
        Take::Open => return Cached::nothing(None, entry, audit),
        Take::Busy => {
            return match entry {
                // An audit waits for nobody.
                Some(entry) if audit.is_some() => Cached::answer(entry, CacheResult::Semantic),
                Some(entry) if serves => Cached::answer(entry, CacheResult::Stale),
                _ => Cached::Wait(key),
            };
        }
    };
    let held = Held {
        app: app.clone(),
        key,
        lease,
        kept: false,
    };
    // Since the look-up another one's lease may have ended, and its answer be there.
    let now_ms = app.clock.now_ms();
    if asked.under.is_none()
        && let Ok(Found::Entry(entry)) = app.cache.get(key, now_ms).await
        && entry.age(now_ms) == Age::Fresh
    {
        return Cached::answer(entry, CacheResult::Hit);
    }
    match entry {
        Some(entry) if serves && asked.behind => Cached::Answer {
            entry,
            result: CacheResult::Stale,
            refresh: Some(held.keep()),
        },
        spare => Cached::nothing(Some(held), spare, audit),
    }
}

/// The answer to a question that asks the same, and its key.
async fn alike(
    app: &App,
    asked: &Asked,
    (way, until): (&Way, Instant),
) -> Option<(Key, Arc<Entry>)> {
    let (question, scope) = (asked.question.as_ref()?, way.scope?);
    let Some(semantic) = app.semantic.as_ref() else {
        app.no_model();
        return None;
    };
    let started = Instant::now();
    let threshold = match question.auto {
        Some(_) => Some(semantic.threshold(&asked.route)),
        None => question.threshold,
    };
    let found = timeout_at(until, async {
        let now_ms = app.clock.now_ms();
        let keys = semantic
            .alike((scope, &question.text), (threshold, now_ms))
            .await?;
        for key in keys {
            match app.cache.get(key, now_ms).await {
                Ok(Found::Entry(entry)) => {
                    let usable = asked.failing || entry.age(now_ms) == Age::Fresh;
                    if usable && entry.head.status == 200 {
                        semantic.used(&key);
                        return Ok((key, entry));
                    }
                }
                Ok(Found::Miss | Found::Corrupt) => semantic.gone(&key),
                Err(_) => return Err(Told::plain("error")),
            }
        }
        Err(Told::plain("missing"))
    });
    let (told, found) = match found.await {
        Ok(Ok(found)) => (Told::plain("hit"), Some(found)),
        Ok(Err(told)) => (told, None),
        Err(_) => (Told::plain("timeout"), None),
    };
    app.metrics.compared(told, started.elapsed());
    found
}

async fn look_up(app: &App, key: Key, now_ms: u64) -> Option<Arc<Entry>> {
    let (result, entry) = match app.cache.get(key, now_ms).await {
        Ok(Found::Entry(entry)) => {
            let result = match entry.age(now_ms) {
                Age::Fresh => "hit",
                Age::Stale => "stale",
                Age::Spare | Age::Over => "spare",
            };
            (result, Some(entry))
        }
        Ok(Found::Miss) => ("miss", None),
        Ok(Found::Corrupt) => ("corrupt", None),
        Err(_) => ("error", None),
    };
    app.metrics.looked_up(result);
    entry
}
