//! May a request go? Its answer from cache, or the lease on it, or a wait for another's; then its
//! budgets.
//!
//! For each plan in turn: a fresh answer is told at once, and so are the vectors of an embedding
//! request where all are there. A stale answer is told too, and one request gets the lease to refresh
//! it. Otherwise the first to ask takes the lease and goes on to its budgets; who comes while it is
//! held is told to wait, and holds nothing meanwhile. A plan whose budget sends the request to the
//! small tier gives its lease back.
//!
//! Between the exact miss and the lease the question is looked up by meaning, in the time that the
//! filter gives it. Some of what is found is audited: the request goes as a miss does, with what was
//! found as its spare; where it may not go, or would have to wait, that is told.
//!
//! A cache failure is a miss, a lease store that cannot be reached leases in this process, and
//! a waiting room that is full lets go: none of them stops a request.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use sluice_wire::{AdmitReply, Audit, Auto, CacheResult, Charge, LeaseEnd, Spare, Verdict};
use tokio::time::{Instant, timeout_at};

use crate::app::App;
use crate::budget::{Ask, Decision, Id};
use crate::cache::{Age, Entry, Found, Key};
use crate::inputs::{self, Known};
use crate::lease::{Lease, Seat, Signal, Take, Taker};
use crate::semantic::Told;

/// Longest wait for another's answer.
const MAX_WAIT: Duration = Duration::from_secs(600);
/// First and longest pause between two looks at what another sidecar did with a key. Short beside
/// the seconds that a model takes, and one look per key and sidecar however many wait.
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// A request whose fields are checked.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) id: Id,
    /// The config's route that it matched; empty for the defaults.
    pub(crate) route: String,
    pub(crate) hold_ms: u64,
    pub(crate) plans: Vec<Way>,
    /// What it asks, where the answer to another question may do.
    pub(crate) question: Option<Wording>,
    /// How long a lease holds; 0 takes none and waits for none.
    pub(crate) lease_ms: u64,
    /// The lease that it acts under: it refreshes a stale answer.
    pub(crate) under: Option<Lease>,
    /// It can be answered and refreshed behind the answer.
    pub(crate) behind: bool,
    /// Upstream fails: any answer will do, and no lease is taken.
    pub(crate) failing: bool,
    /// Most bytes of vectors that it takes; 0 asks only which are there.
    pub(crate) vector_bytes: u32,
}

/// One way to serve it.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) key: Option<Key>,
    /// What must be equal for the answer to another question to do.
    pub(crate) scope: Option<Key>,
    /// Keys of an embedding request's inputs.
    pub(crate) inputs: Vec<Key>,
    pub(crate) charges: Vec<Charge>,
}

/// A question to look up by meaning.
#[derive(Clone)]
pub(crate) struct Wording {
    pub(crate) text: String,
    /// How long that may take in all.
    pub(crate) patience: Duration,
    /// Probability from which two questions count as one.
    pub(crate) threshold: Option<f32>,
    /// The route's own threshold counts, and some hits are audited to move it.
    pub(crate) auto: Option<Auto>,
}

impl Asked {
    /// Tells the observer of re-asks. Who is told to count asks again, a refresh is nobody's
    /// question, and of a request that is taken apart no answer is kept.
    pub(crate) fn observe(&self, app: &App, decided: &Decided) {
        let first = self.plans.first().filter(|way| way.inputs.is_empty());
        let first = first.and_then(|way| way.key);
        if let Some(key) = first.filter(|_| self.under.is_none() && decided.name() != "count") {
            app.observer.asked(&self.route, &key, app.clock.now_ms());
        }
    }

    /// The audit of an answer by meaning, the one of `key`, where this request is to be one. Which
    /// are is decided by their ids, which nobody can choose: a request that is tried again is again
    /// one or none.
    fn audit(&self, key: Key) -> Option<Audit> {
        let auto = self.question.as_ref()?.auto?;
        let mut hasher = DefaultHasher::new();
        self.id.0.hash(&mut hasher);
        let drawn = (u128::from(hasher.finish()) * 1_000_000) >> 64;
        let audits = !self.failing && drawn < u128::from(auto.audit_ppm);
        audits.then(|| Audit {
            key: key.to_string(),
            false_ppm: auto.false_ppm,
        })
    }
}

/// What was decided.
pub(crate) enum Decided {
    /// To be told to the filter, with what there is of an answer: one entry, or one for each vector.
    Reply(Box<AdmitReply>, Vec<Arc<Entry>>),
    /// Another request is fetching the answer to this plan's key.
    Wait(u8, Key),
}

impl Decided {
    /// The word for it in metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Decided::Wait(..) => "wait",
            Decided::Reply(reply, _) => match reply.verdict {
                Verdict::Go { .. } => "go",
                Verdict::Hit { .. } => "hit",
                Verdict::Wait => "wait",
                Verdict::Count => "count",
                Verdict::Over { .. } => "over",
            },
        }
    }
}

/// Decides at once.
pub(crate) async fn decide(app: &Arc<App>, asked: &Asked) -> Decided {
    let mut over: Vec<u16> = Vec::new();
    let mut note = |rules: Vec<u16>, result| {
        for rule in rules {
            app.metrics.over(rule, result);
            if !over.contains(&rule) {
                over.push(rule);
            }
        }
    };
    let patience = asked.question.as_ref().map(|it| it.patience);
    let until = Instant::now() + patience.unwrap_or_default().min(MAX_WAIT);
    for (plan, (index, way)) in (0_u8..).zip(asked.plans.iter().enumerate()) {
        let charges = &way.charges;
        let (held, spare, audit, known) = match cached(app, asked, (way, until)).await {
            Cached::Answer {
                entry,
                result,
                refresh,
            } => {
                let verdict = hit(app, plan, &entry, (result, refresh));
                return Decided::Reply(reply(verdict, over), vec![entry]);
            }
            Cached::Vectors(known) => {
                let mut reply = reply(known.hit(plan), over);
                reply.vectors = Some(known.told);
                return Decided::Reply(reply, known.entries);
            }
            Cached::Wait(key) => return Decided::Wait(plan, key),
            Cached::Nothing {
                held,
                spare,
                audit,
                known,
            } => (held, spare, audit, known),
        };
        let ask = Ask {
            id: asked.id,
            now_ms: app.clock.now_ms(),
            hold_ms: asked.hold_ms,
            charges,
            last: index + 1 == asked.plans.len(),
        };
        let decision = match charges.is_empty() {
            true => Decision::Go { over: Vec::new() },
            false => app.reserve(ask).await,
        };
        // What budgets would not let go is answered as it would have been without the audit.
        if let (Some(_), Some(entry)) = (&audit, &spare)
            && !matches!(decision, Decision::Go { .. })
        {
            let verdict = hit(app, plan, entry, (CacheResult::Semantic, None));
            return Decided::Reply(reply(verdict, over), spare.into_iter().collect());
        }
        let verdict = match decision {
            Decision::SmallTier { over: rules } => {
                note(rules, "small_tier");
                continue;
            }
            Decision::Go { over: rules } => {
                note(rules, "counted");
                let lease = held.map(|held| held.keep().into());
                if let Some(known) = known {
                    let verdict = Verdict::Go {
                        plan,
                        lease,
                        spare: None,
                        audit: None,
                    };
                    let mut reply = reply(verdict, over);
                    reply.vectors = Some(known.told);
                    return Decided::Reply(reply, known.entries);
                }
                let spare_head = spare.as_ref().map(|entry| Spare {
                    age_secs: age_secs(app, entry),
                    entry: entry.head.clone(),
                });
                let verdict = Verdict::Go {
                    plan,
                    lease,
                    spare: spare_head,
                    audit: audit.map(Box::new),
                };
                return Decided::Reply(reply(verdict, over), spare.into_iter().collect());
            }
            // It asks again under the same id, and has its lease still.
            Decision::Count => {
                held.map(Held::keep);
                Verdict::Count
            }
            Decision::Reject(it) => {
                app.metrics.over(it.rule, "rejected");
                Verdict::Over {
                    rule: it.rule,
                    limit: it.limit,
                    used: it.used,
                    reset_secs: it.reset_secs,
                }
            }
        };
        return Decided::Reply(reply(verdict, over), Vec::new());
    }
    // The last plan never asks for a smaller one, so this is not reached.
    let plan = u8::try_from(asked.plans.len().saturating_sub(1)).unwrap_or(0);
    Decided::Reply(reply(Verdict::go(plan), over), Vec::new())
}

fn reply(verdict: Verdict, over: Vec<u16>) -> Box<AdmitReply> {
    Box::new(AdmitReply {
        verdict,
        over,
        vectors: None,
    })
}

/// Decides, once another request's answer is there, or that request is given up; or says after
/// `patience` that it still is to wait. Where there is no room to wait the request goes by itself.
pub(crate) async fn wait(app: &Arc<App>, asked: &Asked, patience: Duration) -> Decided {
    let deadline = Instant::now() + patience.min(MAX_WAIT);
    let mut place: Option<(Key, Seat)> = None;
    loop {
        let (plan, key) = match decide(app, asked).await {
            Decided::Wait(plan, key) => (plan, key),
            Decided::Reply(reply, entries) => {
                app.metrics.waited(match reply.verdict {
                    Verdict::Hit { .. } => "answered",
                    Verdict::Go { .. } => "took_over",
                    _ => "stopped",
                });
                return Decided::Reply(coalesced(reply), entries);
            }
        };
        let seat = match &mut place {
            Some((at, seat)) if *at == key => seat,
            _ => match app.waiting.sit(key) {
                // Asked once more, now that what is told is heard.
                Some(seat) => {
                    if seat.first() {
                        tokio::spawn(watch(app.clone(), (key, seat.room())));
                    }
                    place = Some((key, seat));
                    continue;
                }
                None => {
                    app.metrics.waited("full");
                    let alone = Asked {
                        lease_ms: 0,
                        ..asked.clone()
                    };
                    return decide(app, &alone).await;
                }
            },
        };
        match timeout_at(deadline, seat.next()).await {
            Ok(Signal::Answered(entry)) if entry.age(app.clock.now_ms()) == Age::Fresh => {
                app.metrics.waited("answered");
                let verdict = hit(app, plan, &entry, (CacheResult::Coalesced, None));
                return Decided::Reply(reply(verdict, Vec::new()), vec![entry]);
            }
            Ok(_) => {}
            Err(_) => {
                app.metrics.waited("again");
                return Decided::Wait(plan, key);
            }
        }
    }
}

/// Looks, for all who wait here for `key`, what becomes of it elsewhere, and whether its lease has
/// lapsed. It ends with the room: who sits down later has another look.
async fn watch(app: Arc<App>, (key, room): (Key, u64)) {
    let (mut pause, longest) = LOOK;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(longest);
        if !app.waiting.is_open(key, room) {
            return;
        }
        let now_ms = app.clock.now_ms();
        match app.cache.get(key, now_ms).await {
            Ok(Found::Entry(entry)) if entry.age(now_ms) == Age::Fresh => {
                app.waiting.tell(key, Signal::Answered(entry));
            }
            _ if !app.leases.held(key, now_ms).await => app.waiting.tell(key, Signal::Changed),
            _ => {}
        }
    }
}

/// What was found when waiting came from another request.
fn coalesced(mut reply: Box<AdmitReply>) -> Box<AdmitReply> {
    if let Verdict::Hit { result, .. } = &mut reply.verdict
        && *result == CacheResult::Hit
    {
        *result = CacheResult::Coalesced;
    }
    reply
}

fn age_secs(app: &App, entry: &Entry) -> u64 {
    app.clock.now_ms().saturating_sub(entry.stored_ms) / 1000
}

fn hit(
    app: &App,
    plan: u8,
    entry: &Entry,
    (result, refresh): (CacheResult, Option<Lease>),
) -> Verdict {
    Verdict::Hit {
        plan,
        age_secs: age_secs(app, entry),
        result: match entry.head.status {
            400.. => CacheResult::Negative,
            _ => result,
        },
        entry: entry.head.clone(),
        refresh: refresh.map(Into::into),
    }
}

/// What the caches know of a key.
enum Cached {
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
struct Held {
    app: Arc<App>,
    key: Key,
    lease: Lease,
    kept: bool,
}

impl Held {
    fn keep(mut self) -> Lease {
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

async fn cached(app: &Arc<App>, asked: &Asked, (way, until): (&Way, Instant)) -> Cached {
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
