//! What is known of a request, from its headers to its last byte.

use std::cell::Cell;
use std::rc::Rc;

use sluice_wire::{Audit, CacheResult, Charge, EntryHead, Lease, Outcome, Usage, Vectors};

use super::Headers;
use super::guard::Guarded;
use super::inputs::Inputs;
use super::joining::Fresh;
use super::trim::Trim;
use crate::coding::Decoder;
use crate::config::{Plan, RoutePlan};
use crate::formats::{Edit, Format, Tap, UsageScan};
use crate::policy::budget::Expected;
use crate::policy::choice::Choice;
use crate::policy::identity::Caller;
use crate::tokens::Extent;

/// One way to serve the request, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Option_ {
    /// Model, tier, cap.
    pub(super) choice: Choice,
    /// Its exact-cache key.
    pub(super) key: Option<String>,
    /// Digest of what must be equal for the answer to another question to do.
    pub(super) scope: Option<String>,
    /// The keys of an embedding request's different inputs; none where it is looked up as a whole.
    pub(super) inputs: Vec<[u8; 32]>,
    /// Its draws on budgets.
    pub(super) charges: Vec<Charge>,
    /// The body to send; None: as it came.
    pub(super) body: Option<Vec<u8>>,
}

impl Option_ {
    /// Its charges are by estimate, so that a counter near its limit may ask for exact ones.
    pub(super) fn estimated(&self) -> bool {
        self.charges
            .iter()
            .any(|charge| charge.at_most != charge.reserve)
    }
}

/// Everything known of one request.
#[derive(Debug)]
pub(super) struct Facts {
    /// Request id, 32 hex digits.
    pub(super) id: String,
    /// Arrival, nanoseconds since the epoch.
    pub(super) at_ns: u64,
    /// Index into the plan's routes; None is the default.
    pub(super) route: Option<usize>,
    pub(super) format: &'static dyn Format,
    pub(super) caller: Caller,
    /// The headers that a cache key may need.
    pub(super) headers: Headers,
    /// Tier that a trusted caller asked for.
    pub(super) tier_asked: Option<String>,
    /// What the caller wants of the cache.
    pub(super) cache_wish: CacheWish,
    /// The body, as long as its tokens may have to be counted, or inputs taken out of it.
    pub(super) body: String,
    /// Whether anything may be changed at all: some lever is on, or budgets must be exact.
    pub(super) may_touch: bool,

    pub(super) model_asked: String,
    pub(super) stream: bool,
    /// The client asked for usage at the end of its stream.
    pub(super) stream_usage: bool,
    /// Edit that asks upstream for usage.
    pub(super) usage_edit: Option<Edit>,
    /// What the prompt measures.
    pub(super) extent: Extent,
    pub(super) score: Option<f32>,
    /// With nothing left out.
    pub(super) expected: Expected,
    /// What is reserved for it: without what is sure to be left out.
    pub(super) reserve: Expected,
    /// Best first; at most two.
    pub(super) options: Vec<Option_>,
    pub(super) chosen: usize,
    /// Model that dry routing would have used.
    pub(super) dry_model: Option<String>,
    pub(super) dry_hit: bool,
    /// Kept per Envoy: the charges are in the shared counters, since then (seconds since the epoch).
    pub(super) reserved_locally: Option<u64>,
    /// The sidecar was asked without a cache key, because its hit could not be used.
    pub(super) asked_plainly: bool,
    /// What is asked, where the answer to another question may do.
    pub(super) question: Option<String>,
    /// It was looked up already.
    pub(super) compared: bool,
    /// No lease is asked for: the wait is over, or there is no room to wait.
    pub(super) alone: bool,
    /// When waiting for another's answer ends, nanoseconds since the epoch, and how often it began.
    pub(super) wait: Option<(u64, u16)>,
    /// No sidecar answers it meanwhile.
    pub(super) vain: Option<Vain>,
    /// The lease that it came under: it refreshes a stale answer.
    pub(super) under: Option<Lease>,
    /// There was nothing to refresh.
    pub(super) superseded: bool,
    /// The lease that it holds, with its key.
    pub(super) lease: Option<(String, Lease)>,
    /// The sidecar was asked for a lease and its answer was not heard.
    pub(super) unheard: bool,
    /// An embedding request's inputs, where each is looked up by itself.
    pub(super) inputs: Option<Inputs>,
    /// Prompt tokens that the cache answered beside what upstream did.
    pub(super) from_cache: u64,
    /// Prompt tokens that a cache in mode `dry` would have spared upstream.
    pub(super) dry_from_cache: u64,
    /// Vectors to store.
    pub(super) fresh: Option<Fresh>,
    /// An answer past its time, or the one that is audited, in case upstream fails.
    pub(super) spare: Option<Box<Spare>>,
    /// It goes upstream to be compared with the stored answer of another question.
    pub(super) audit: Option<Audit>,
    /// The request as it would have gone out untrimmed, in case upstream refuses it trimmed.
    pub(super) untrimmed: Option<Held>,
    /// It came as an attempt and is none.
    pub(super) claimed: bool,
    /// It went to the sidecar's relay, and not upstream.
    pub(super) relayed: bool,
    /// What trimming knows and did.
    pub(super) trim: Trim,
    /// What the answer is built on.
    pub(super) tags: Vec<String>,
    /// What the guard knows of it.
    pub(super) guarded: Guarded,

    pub(super) cache: CacheResult,
    /// Age of the stored answer that was told.
    pub(super) age_secs: Option<u64>,
    pub(super) status: u16,
    /// Upstream answered with an error that is not its last word, or Envoy in its place.
    pub(super) upstream_failed: bool,
    pub(super) outcome: Outcome,
    /// Undoes the answer's compression, for us alone: the client gets it as it came.
    pub(super) decoder: Option<Decoder>,
    /// The answer's own parser, on a stream.
    pub(super) tap: Option<Tap>,
    /// Usage was asked for by us: its chunk has to be hidden.
    pub(super) hiding: bool,
    /// For answers too long to hold.
    pub(super) scan: Option<UsageScan>,
    pub(super) usage: Option<Usage>,
    /// `usage` was told on the way: of completion tokens there may be more.
    pub(super) usage_so_far: bool,
    /// Upstream answered in a way that is not read.
    pub(super) unread: bool,
    /// Bytes of text answered, for estimates.
    pub(super) text_bytes: u64,
    /// The answer, or the refusal, to store.
    pub(super) answer: Option<Vec<u8>>,
}

/// Calls in a row that no sidecar answered; nanoseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vain {
    pub(super) times: u32,
    /// When it goes by itself.
    pub(super) until_ns: u64,
    /// When it asks again.
    pub(super) again_ns: u64,
}

/// A stored answer that is held while upstream is asked.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) answer: Stored<Held>,
}

impl Spare {
    /// Whether there is room for `answer`.
    pub(super) fn fits(answer: &Stored<&[u8]>, held: &Cell<usize>) -> bool {
        Held::sum(answer.body, (held, SPARES)).is_some()
    }

    /// Holds `answer`, where there is room.
    pub(super) fn hold(answer: Stored<&[u8]>, held: &Rc<Cell<usize>>) -> Option<Box<Spare>> {
        let answer = Stored {
            age_secs: answer.age_secs,
            entry: answer.entry,
            body: Held::new(answer.body, (held, SPARES))?,
            vectors: None,
        };
        Some(Box::new(Spare { answer }))
    }
}

/// Most bytes of spares in one VM.
const SPARES: usize = 4 << 20;

/// Bytes from a reply of the sidecar that are held while upstream is asked, in bounded number: what
/// a VM once took of memory it keeps.
#[derive(Debug)]
pub(super) struct Held {
    bytes: Vec<u8>,
    all: Rc<Cell<usize>>,
}

impl Held {
    /// A copy, unless `all` would pass `most` with it.
    pub(super) fn new(bytes: &[u8], (all, most): (&Rc<Cell<usize>>, usize)) -> Option<Held> {
        let sum = Held::sum(bytes, (all, most))?;
        all.set(sum);
        Some(Held {
            bytes: bytes.to_vec(),
            all: all.clone(),
        })
    }

    /// What is held with `bytes`, where that is not more than `most`.
    fn sum(bytes: &[u8], (all, most): (&Cell<usize>, usize)) -> Option<usize> {
        let sum = all.get().saturating_add(bytes.len());
        (sum <= most).then_some(sum)
    }
}

impl std::ops::Deref for Held {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let left = self.all.get().saturating_sub(self.bytes.len());
        self.all.set(left);
    }
}

/// A stored answer, as it came from the sidecar: its bytes are the reply's own, or held.
#[derive(Debug)]
pub(super) struct Stored<B> {
    pub(super) age_secs: u64,
    pub(super) entry: EntryHead,
    pub(super) body: B,
    /// It is made of vectors, of which these are the bytes.
    pub(super) vectors: Option<Vectors>,
}

/// What the caller wants of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum CacheWish {
    /// Look up and store.
    #[default]
    Use,
    /// Store only.
    Refresh,
    /// Neither.
    Bypass,
}

impl Facts {
    /// A request of which only the headers are known.
    pub(super) fn new(
        id: String,
        at_ns: u64,
        format: &'static dyn Format,
        caller: Caller,
    ) -> Facts {
        Facts {
            id,
            at_ns,
            format,
            caller,
            route: None,
            headers: Headers::default(),
            tier_asked: None,
            cache_wish: CacheWish::Use,
            body: String::new(),
            may_touch: false,
            model_asked: String::new(),
            stream: false,
            stream_usage: false,
            usage_edit: None,
            extent: Extent::default(),
            score: None,
            expected: Expected::default(),
            reserve: Expected::default(),
            options: Vec::new(),
            chosen: 0,
            dry_model: None,
            dry_hit: false,
            reserved_locally: None,
            asked_plainly: false,
            question: None,
            compared: false,
            alone: false,
            wait: None,
            vain: None,
            under: None,
            superseded: false,
            lease: None,
            unheard: false,
            inputs: None,
            from_cache: 0,
            dry_from_cache: 0,
            fresh: None,
            spare: None,
            audit: None,
            untrimmed: None,
            claimed: false,
            relayed: false,
            trim: Trim::default(),
            tags: Vec::new(),
            guarded: Guarded::default(),
            cache: CacheResult::Off,
            age_secs: None,
            status: 0,
            upstream_failed: false,
            outcome: Outcome::Aborted,
            decoder: None,
            tap: None,
            hiding: false,
            scan: None,
            usage: None,
            usage_so_far: false,
            unread: false,
            text_bytes: 0,
            answer: None,
        }
    }

    pub(super) fn route<'p>(&self, plan: &'p Plan) -> &'p RoutePlan {
        plan.route_at(self.route)
    }

    /// Whether the sidecar is asked for a stored answer.
    pub(super) fn looks_up(&self) -> bool {
        self.cache_wish == CacheWish::Use && !self.asked_plainly
    }

    pub(super) fn option(&self) -> Option<&Option_> {
        self.options.get(self.chosen)
    }

    /// The model that is asked, or was asked for where none was chosen yet.
    pub(super) fn model(&self) -> &str {
        self.option()
            .map_or(&self.model_asked, |option| &option.choice.model)
    }

    /// The name of the chosen tier.
    pub(super) fn tier<'p>(&self, plan: &'p Plan) -> Option<&'p str> {
        let tier = self.option()?.choice.tier?;
        Some(self.route(plan).route.tiers.get(tier)?.name.as_str())
    }
}
