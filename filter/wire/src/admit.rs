//! `POST /v1/admit`: one round trip that looks up caches, takes a lease and reserves budget; and
//! `POST /v1/wait`, the same question asked by one who waits for another request's answer.
//!
//! The filter knows the config, the sidecar the state: every rule that applies travels with the
//! request, so the two never disagree about a policy.

use serde::{Deserialize, Serialize};

use crate::CacheResult;
use crate::settle::{EntryHead, Written};

/// May this request go, and is its answer known already? The keys of its plans' inputs follow the
/// frame's head, [`crate::limit::KEY`] bytes each, one plan's after another's; then the texts of
/// [`AdmitRequest::relevance`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdmitRequest {
    /// Idempotent request id, 32 hex digits; the reservation and later the ledger record carry it.
    pub id: String,
    /// Tenant that pays and whose cache is looked into.
    pub tenant: String,
    /// The config's route that it matched; empty for the defaults.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub route: String,
    /// Seconds after which an unsettled reservation lapses.
    pub hold_secs: u32,
    /// Ways to serve the request, best first: as routed, then (where a budget may ask for it) on
    /// the small tier. Never empty, at most two.
    pub plans: Vec<Plan>,
    /// How caches may be used.
    #[serde(default)]
    pub cache: CacheAsk,
    /// Texts to compare with a question, where the request may be trimmed by what they have to do
    /// with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relevance: Option<Relevance>,
    /// The conversation that it continues, where [`crate::Remember`] has something to tell: 64 hex
    /// digits, made of all that keeps conversations apart, the tenant among it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
}

impl AdmitRequest {
    /// Bytes that follow the head: the keys', then the texts'.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        let inputs = self.plans.iter().map(|plan| u64::from(plan.inputs));
        let keys = inputs.sum::<u64>().saturating_mul(crate::limit::KEY as u64);
        let texts = self.relevance.as_ref().map_or(0, Relevance::body_len);
        keys.saturating_add(texts)
    }
}

/// How near are these texts to this question? Of a text longer than [`crate::limit::TEXT`] its
/// beginning is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relevance {
    /// What the texts are compared with, as long as one of them at the most.
    pub question: String,
    /// Bytes of each text, oldest first: where time is short, the last are the first to be compared.
    pub lens: Vec<u32>,
    /// Longest time for it, milliseconds, while the caches are looked up; what is not known by then
    /// is [`Similarity::UNKNOWN`], and is known at the next turn.
    pub max_ms: u32,
}

impl Relevance {
    /// Bytes of the texts together.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        self.lens.iter().map(|len| u64::from(*len)).sum()
    }
}

/// The cosine of a text's vector and the question's, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Similarity(i16);

impl Similarity {
    /// Not known in time.
    pub const UNKNOWN: Similarity = Similarity(i16::MIN);

    /// The nearest to `cosine`; one that is no number is not known.
    #[must_use]
    pub fn of(cosine: f32) -> Similarity {
        if cosine.is_nan() {
            return Similarity::UNKNOWN;
        }
        // A float that is cast is cut to what fits.
        Similarity((cosine.clamp(-1.0, 1.0) * 1000.0).round() as i16)
    }

    /// In [-1, 1], where it is known.
    #[must_use]
    pub fn cosine(self) -> Option<f32> {
        let known = self != Similarity::UNKNOWN;
        known.then(|| (f32::from(self.0) / 1000.0).clamp(-1.0, 1.0))
    }
}

/// How the caches may be used for the plans that have a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheAsk {
    /// Milliseconds that a lease on the answer holds. 0 takes none and waits for nobody's.
    pub lease_ms: u32,
    /// Longest wait for another request's answer before [`Verdict::Wait`] is said once more,
    /// milliseconds; `/v1/wait` only.
    pub wait_ms: u32,
    /// The lease that this request acts under already: it refreshes a stale answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// The filter can answer with what is stale and refresh it behind the answer. Otherwise the
    /// request that takes the lease goes upstream itself.
    pub behind: bool,
    /// Upstream is failing, or too much is being spent: an answer past its stale window will do,
    /// and no lease is taken.
    pub failing: bool,
    /// Where no answer is stored under its key: the question, so that the answer to one that asks
    /// the same can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<Question>,
    /// Most bytes of vectors that the reply may have, where a plan has inputs: if those that are
    /// there take more, none is told. 0 asks only which are there.
    #[serde(skip_serializing_if = "is_zero")]
    pub vector_bytes: u32,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the form that serde asks for"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What is asked, for a look-up by meaning among the questions of the same [`Plan::scope`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The text of the last user turn.
    pub text: String,
    /// Longest time for the look-up, milliseconds; past it the request goes on as a miss.
    pub max_ms: u32,
    /// Thousandths of the probability from which two questions count as one; none leaves it to the
    /// sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold_milli: Option<u16>,
    /// The sidecar finds the threshold of the route itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto: Option<Auto>,
}

/// How a threshold finds itself: some of the answers by meaning are asked upstream as well, and
/// what comes of it moves the threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auto {
    /// Share of the answers by meaning that are audited, in millionths.
    pub audit_ppm: u32,
    /// Share of them that may be wrong, in millionths.
    pub false_ppm: u32,
}

/// An answer by meaning that is asked upstream as well: it comes back with the settlement, so that
/// the two can be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Exact-cache key (64 hex digits) of the stored answer.
    pub key: String,
    /// As in [`Auto::false_ppm`].
    pub false_ppm: u32,
}

/// The right to fetch the answer to one key, while others wait for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Id of the request that holds it, 32 hex digits.
    pub holder: String,
    /// Fencing token: rises with each new lease of the same key, so that a holder that was given
    /// up cannot overwrite what its successor stored. Microseconds since the epoch, about.
    pub token: u64,
}

/// One way to serve a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Exact-cache key (64 hex digits), or none when the cache is not to be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Digest (64 hex digits) of all that must be equal for [`CacheAsk::question`] to be answered
    /// with the answer to another question: everything in the key but that question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Of an embedding request: how many different inputs it has. Each is looked up by itself, and
    /// the request has its answer when all are there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inputs: u32,
    /// Budgets that this plan draws on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub charges: Vec<Charge>,
}

/// A draw on one budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Charge {
    /// Index of the rule in the config's `budgets`, to name it in errors and metrics.
    pub rule: u16,
    /// Whose budget: `tenant:acme`, `task:support`, `model:gpt-4o`.
    pub counter: String,
    /// Calendar window (UTC) after which the counter starts anew.
    pub window: Window,
    /// What is counted.
    pub unit: Unit,
    /// Limit per window, in `unit`.
    pub limit: u64,
    /// What to reserve, in `unit`.
    pub reserve: u64,
    /// Upper bound of `reserve` while the prompt is not counted exactly; equal to it once it is.
    pub at_most: u64,
    /// What happens over the limit.
    pub over: Over,
}

/// Calendar windows, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// One minute.
    Minute,
    /// One hour.
    Hour,
    /// One day.
    Day,
    /// One calendar month.
    Month,
}

impl Window {
    /// Start and end, in seconds since the epoch, of the window that holds `now_secs`.
    #[must_use]
    pub fn around(self, now_secs: u64) -> (u64, u64) {
        let fixed = |len: u64| {
            let start = now_secs - now_secs % len;
            (start, start + len)
        };
        match self {
            Window::Minute => fixed(60),
            Window::Hour => fixed(3600),
            Window::Day => fixed(86_400),
            Window::Month => {
                let (year, month) = year_month(now_secs / 86_400);
                let next = if month == 12 {
                    (year + 1, 1)
                } else {
                    (year, month + 1)
                };
                (
                    first_day(year, month) * 86_400,
                    first_day(next.0, next.1) * 86_400,
                )
            }
        }
    }

    /// The config's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Window::Minute => "minute",
            Window::Hour => "hour",
            Window::Day => "day",
            Window::Month => "month",
        }
    }
}

/// Civil year and month of a day number since 1970-01-01. Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", `civil_from_days`; exact for all days from the epoch on.
fn year_month(days: u64) -> (u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month)
}

/// Day number since 1970-01-01 of the first of a month (`days_from_civil` of the same source).
fn first_day(year: u64, month: u64) -> u64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y / 400;
    let yoe = y % 400;
    let mp = if month > 2 { month - 3 } else { month + 9 };
    let doy = (153 * mp + 2) / 5;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Prompt and completion tokens.
    Tokens,
    /// Picodollars ([`crate::Usd`]).
    Usd,
}

/// What happens when a budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// The request is refused with 429.
    Reject,
    /// The request goes to the small tier; on the small tier already, it goes and is counted.
    SmallTier,
    /// The request goes; that it was over is counted.
    Shadow,
}

/// What the sidecar decided. On [`Verdict::Hit`], and on [`Verdict::Go`] with a spare, the answer's
/// bytes follow the frame's head; where it tells of [`Vectors`], theirs do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdmitReply {
    /// The decision.
    pub verdict: Verdict,
    /// Rules that are over their limit without stopping the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over: Vec<u16>,
    /// The inputs of the verdict's plan that are there: on [`Verdict::Hit`] all of them. There is
    /// no spare beside them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<Vectors>,
    /// On [`Verdict::Go`]: of each text of [`AdmitRequest::relevance`], in their order. None where
    /// nothing was asked, or there is no model to compare them by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub similarities: Option<Vec<Similarity>>,
    /// On [`Verdict::Go`]: the [`crate::Remember::state`] that was told last of the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<String>,
    /// On [`Verdict::Go`]: the texts that [`crate::Remember::order`] asked for and that are there,
    /// the newest first, [`crate::limit::SUMMARIES`] at the most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub summaries: Vec<Written>,
}

/// Inputs of an embedding request that were computed before, all of one revision of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vectors {
    /// Which, rising: the number of each among the plan's inputs, and the prompt tokens that it
    /// took. Never empty.
    pub found: Vec<(u16, u32)>,
    /// Bytes of each vector, as it was stored.
    pub len: u32,
    /// What upstream called the model that computed them.
    pub model: String,
    /// Age of the oldest in seconds.
    pub age_secs: u64,
}

/// The sidecar's decision about a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Go on with this plan; its charges are reserved.
    Go {
        /// Index into [`AdmitRequest::plans`].
        plan: u8,
        /// The lease on its answer: others wait until it is settled.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<Lease>,
        /// An answer past its time that may stand in if upstream fails; with an audit, the audited
        /// one, which stands in for an upstream that does not answer as well.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spare: Option<Spare>,
        /// The answer to another question would have done, and is audited.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        audit: Option<Box<Audit>>,
    },
    /// The answer is known; nothing is reserved.
    Hit {
        /// Index into [`AdmitRequest::plans`].
        plan: u8,
        /// Age of the answer in seconds.
        age_secs: u64,
        /// What was stored with it.
        entry: EntryHead,
        /// How it was found: one of those that [`CacheResult::answers`].
        result: CacheResult,
        /// It is stale, and this request is the one to refresh it, under this lease.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refresh: Option<Lease>,
    },
    /// Another request is fetching the answer: ask `/v1/wait`. Nothing is reserved.
    Wait,
    /// Too close to a limit to decide on an estimate: ask again with exact counts
    /// (`at_most == reserve`). Nothing is reserved.
    Count,
    /// Over a budget whose answer is `reject`. Nothing is reserved.
    Over {
        /// The rule.
        rule: u16,
        /// Its limit.
        limit: u64,
        /// Used and reserved in this window.
        used: u64,
        /// Seconds until the window ends.
        reset_secs: u64,
    },
}

impl AdmitReply {
    /// This decision, and nothing beside it.
    #[must_use]
    pub fn of(verdict: Verdict) -> AdmitReply {
        AdmitReply {
            verdict,
            over: Vec::new(),
            vectors: None,
            similarities: None,
            sent: None,
            summaries: Vec::new(),
        }
    }
}

impl Verdict {
    /// [`Verdict::Go`] alone: neither lease nor spare, no audit.
    #[must_use]
    pub fn go(plan: u8) -> Verdict {
        Verdict::Go {
            plan,
            lease: None,
            spare: None,
            audit: None,
        }
    }
}

/// A stored answer that may stand in for one that does not come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spare {
    /// Age in seconds.
    pub age_secs: u64,
    /// What was stored with it.
    pub entry: EntryHead,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_window_starts_on_the_first_and_ends_on_the_next_first() {
        // 2024-02-29T12:00:00Z lies in February of a leap year.
        assert_eq!(
            Window::Month.around(1_709_208_000),
            (1_706_745_600, 1_709_251_200)
        );
        // 2026-12-31T23:59:59Z: the window ends with the year.
        assert_eq!(
            Window::Month.around(1_798_761_599),
            (1_796_083_200, 1_798_761_600)
        );
        assert_eq!(Window::Month.around(0), (0, 2_678_400));
    }

    #[test]
    fn what_is_said_of_inputs_is_said_only_where_there_are_some() {
        let ask = AdmitRequest {
            plans: vec![Plan::default()],
            ..AdmitRequest::default()
        };
        let told = serde_json::to_string(&ask).unwrap();
        assert!(
            !told.contains("inputs") && !told.contains("vector"),
            "{told}"
        );
        assert_eq!(serde_json::from_str::<AdmitRequest>(&told).unwrap(), ask);
        let reply = AdmitReply {
            vectors: Some(Vectors {
                found: vec![(0, 7), (2047, 8191)],
                len: 12,
                model: "m".to_owned(),
                age_secs: 3,
            }),
            ..AdmitReply::of(Verdict::go(0))
        };
        let told = serde_json::to_string(&reply).unwrap();
        assert!(told.contains("[[0,7],[2047,8191]]"), "{told}");
        assert_eq!(serde_json::from_str::<AdmitReply>(&told).unwrap(), reply);
    }

    #[test]
    fn what_trimming_asks_and_is_told_is_said_only_where_there_is_something() {
        let ask = AdmitRequest::default();
        let told = serde_json::to_string(&ask).unwrap();
        assert!(
            !told.contains("relevance") && !told.contains("conversation"),
            "{told}"
        );
        let ask = AdmitRequest {
            plans: vec![Plan {
                inputs: 2,
                ..Plan::default()
            }],
            relevance: Some(Relevance {
                question: "And then?".to_owned(),
                lens: vec![7, 2048],
                max_ms: 20,
            }),
            conversation: Some("ab".repeat(32)),
            ..AdmitRequest::default()
        };
        assert_eq!(ask.body_len(), 2 * 32 + 7 + 2048);
        let told = serde_json::to_string(&ask).unwrap();
        assert_eq!(serde_json::from_str::<AdmitRequest>(&told).unwrap(), ask);

        let silent = AdmitReply::of(Verdict::go(0));
        let told = serde_json::to_string(&silent).unwrap();
        assert!(
            !told.contains("similarities") && !told.contains("sent"),
            "{told}"
        );
        let reply = AdmitReply {
            similarities: Some(vec![Similarity::of(0.5), Similarity::UNKNOWN]),
            sent: Some("{\"at\":1}".to_owned()),
            ..silent
        };
        let told = serde_json::to_string(&reply).unwrap();
        assert!(told.contains("[500,-32768]"), "{told}");
        assert_eq!(serde_json::from_str::<AdmitReply>(&told).unwrap(), reply);
    }

    #[test]
    fn a_similarity_is_a_cosine_to_the_thousandth_or_not_known() {
        for (cosine, known) in [(0.8, 0.8), (-0.1234, -0.123), (1.1, 1.0), (-7.0, -1.0)] {
            assert_eq!(Similarity::of(cosine).cosine(), Some(known));
        }
        assert_eq!(Similarity::of(f32::NAN), Similarity::UNKNOWN);
        assert_eq!(Similarity::UNKNOWN.cosine(), None);
        // What another one says beyond the ends is taken for the ends.
        let far: Similarity = serde_json::from_str("-32767").unwrap();
        assert_eq!(far.cosine(), Some(-1.0));
        assert!(serde_json::from_str::<Similarity>("32768").is_err());
    }

    #[test]
    fn every_moment_lies_in_its_own_window() {
        for now in (0..4_000_000_000_u64).step_by(7_777_777) {
            for window in [Window::Minute, Window::Hour, Window::Day, Window::Month] {
                let (start, end) = window.around(now);
                assert!(
                    start <= now && now < end,
                    "{window:?} around {now}: {start}..{end}"
                );
                assert_eq!(window.around(end).0, end, "{window:?} windows touch");
            }
        }
    }
}
