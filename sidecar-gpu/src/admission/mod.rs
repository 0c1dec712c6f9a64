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
//! How near texts are to a question, and what the conversation's last turn wanted told, is found out
//! meanwhile, and told to a request that goes. No answer from cache waits for it, and no reservation.
//!
//! A cache failure is a miss, a lease store that cannot be reached leases in this process, and
//! a waiting room that is full lets go: none of them stops a request.

mod beside;
mod cached;
mod wait;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use sluice_wire::{AdmitReply, Audit, Auto, CacheResult, Charge, Spare, Verdict};
use tokio::time::Instant;

use self::beside::Beside;
use self::cached::{Cached, Held, cached};
pub(crate) use self::wait::wait;
use crate::app::App;
use crate::budget::{Ask, Decision, Id};
use crate::cache::{Entry, Key};
use crate::lease::Lease;
use crate::relevance::Comparison;

/// Longest wait for another's answer.
const MAX_WAIT: Duration = Duration::from_secs(600);

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
    /// Texts that it may be trimmed by.
    pub(crate) relevance: Option<Arc<Comparison>>,
    /// The conversation whose last turn is to be told of.
    pub(crate) conversation: Option<Key>,
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
    let mut beside = Beside::begin(app, asked);
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
                // Whoever hangs up meanwhile gives the lease back.
                let told = beside.told().await;
                let lease = held.map(|held| held.keep().into());
                let with_told = |verdict| {
                    let mut reply = reply(verdict, over);
                    reply.similarities = told.similarities;
                    reply.sent = told.sent;
                    reply.summaries = told.summaries;
                    reply
                };
                if let Some(known) = known {
                    let verdict = Verdict::Go {
                        plan,
                        lease,
                        spare: None,
                        audit: None,
                    };
                    let mut reply = with_told(verdict);
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
                return Decided::Reply(with_told(verdict), spare.into_iter().collect());
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
        over,
        ..AdmitReply::of(verdict)
    })
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
