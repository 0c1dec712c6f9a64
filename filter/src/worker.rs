//! What all streams of one root context (one worker, one config) share.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::types::MetricType;
use rustc_hash::FxHashMap;
use sluice_core::counters::{self, Slots};
use sluice_core::exchange::{Host, Label, Metric, Vm, metric_name};
use sluice_core::seen;
use sluice_core::settler::Settler;

use crate::host;
use crate::stream::Queued;

/// Metrics with different names that one worker defines. All come from the config or a fixed set;
/// a model in use takes some forty, so this is reached by a config with hundreds of models.
const METRICS: usize = 16_384;

/// Refreshes kept until the next tick, and their bodies' bytes.
const REFRESHES: usize = 64;
const REFRESH_BYTES: usize = 8 << 20;

/// A request to send once more.
pub(crate) struct Refresh {
    pub(crate) cluster: String,
    pub(crate) timeout: Duration,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Worker {
    pub(crate) vm: RefCell<Vm>,
    /// The root's: it outlives a config, so that nothing is lost with one.
    pub(crate) settler: Rc<RefCell<Settler>>,
    metrics: RefCell<Metrics>,
    /// Requests that wait for their turn, first come first.
    queue: RefCell<VecDeque<Queued>>,
    /// Requests whose calls were made in the root's callbacks, by the host's call: as many at most
    /// as may wait.
    expects: RefCell<FxHashMap<u32, Queued>>,
    /// Requests that are to be sent once more, behind their answers.
    refreshes: RefCell<VecDeque<Refresh>>,
    /// Somebody reads debug lines.
    pub(crate) debugs: Cell<bool>,
}

impl Worker {
    pub(crate) fn new(vm: Vm, settler: Rc<RefCell<Settler>>) -> Worker {
        Worker {
            vm: RefCell::new(vm),
            settler,
            metrics: RefCell::default(),
            queue: RefCell::default(),
            expects: RefCell::default(),
            refreshes: RefCell::default(),
            debugs: Cell::new(false),
        }
    }

    /// Puts a request behind those that wait. How many may is the core's matter.
    pub(crate) fn queue(&self, queued: Queued) {
        if let Ok(mut queue) = self.queue.try_borrow_mut() {
            queue.push_back(queued);
        }
    }

    /// Tells those who wait of their turns.
    pub(crate) fn turns(&self) {
        let Ok(waiting) = self
            .queue
            .try_borrow_mut()
            .map(|mut it| std::mem::take(&mut *it))
        else {
            return;
        };
        let rest: VecDeque<Queued> = waiting.into_iter().filter(Queued::turn).collect();
        if let Ok(mut queue) = self.queue.try_borrow_mut() {
            // What came meanwhile came later.
            let newer = std::mem::replace(&mut *queue, rest);
            queue.extend(newer);
        }
    }

    /// The root will be told of the answer to this request's call.
    pub(crate) fn expect(&self, token: u32, request: Queued) {
        if let Ok(mut expects) = self.expects.try_borrow_mut() {
            expects.insert(token, request);
        }
    }

    /// Whose call that was, if it was one of those; nobody expects its answer any more.
    pub(crate) fn expected(&self, token: u32) -> Option<Queued> {
        self.expects.try_borrow_mut().ok()?.remove(&token)
    }

    /// Keeps a refresh until the next tick. Past the bound it is dropped: its lease lapses, and the
    /// next request for that answer tries again.
    pub(crate) fn refresh(&self, refresh: Refresh) {
        let Ok(mut refreshes) = self.refreshes.try_borrow_mut() else {
            return;
        };
        let bytes: usize = refreshes.iter().map(|it| it.body.len()).sum();
        if refreshes.len() < REFRESHES && bytes + refresh.body.len() <= REFRESH_BYTES {
            refreshes.push_back(refresh);
        } else {
            drop(refreshes);
            self.add("refresh", &[(Label::Result, "dropped")], 1);
        }
    }

    /// The next refresh that is due.
    pub(crate) fn next_refresh(&self) -> Option<Refresh> {
        self.refreshes.try_borrow_mut().ok()?.pop_front()
    }

    /// Whether nothing is to be refreshed.
    pub(crate) fn is_idle(&self) -> bool {
        self.refreshes.try_borrow().is_ok_and(|it| it.is_empty())
    }

    /// Whether a request needs the root's ticks, or an answer that the root is told of. Each has its
    /// own bound in time.
    pub(crate) fn is_needed(&self) -> bool {
        let there = |queue: &VecDeque<Queued>| queue.iter().any(Queued::is_there);
        self.queue.try_borrow().is_ok_and(|queue| there(&queue))
            || self.expects.try_borrow().is_ok_and(|it| !it.is_empty())
    }

    pub(crate) fn change(&self, metric: &Metric) {
        let (kind, name) = match metric {
            Metric::Add(name, _) => (MetricType::Counter, name),
            Metric::Observe(name, _) => (MetricType::Histogram, name),
        };
        let id = self
            .metrics
            .try_borrow_mut()
            .ok()
            .and_then(|mut metrics| metrics.made(kind, name));
        if let Some(id) = id {
            let _ = match *metric {
                Metric::Add(_, amount) => host::increment_metric(id, amount),
                Metric::Observe(_, value) => host::record_metric(id, value),
            };
        }
    }

    /// Adds to a counter of the filter's own.
    pub(crate) fn add(&self, family: &str, labels: &[(Label, &str)], amount: u64) {
        if let Some(id) = self.id(MetricType::Counter, &metric_name(family, labels)) {
            let _ = host::increment_metric(id, amount);
        }
    }

    /// The most that any worker's VM ever needed: linear memory never shrinks.
    pub(crate) fn tell_memory(&self) {
        if let Some(id) = self.id(MetricType::Gauge, &metric_name("vm_memory_bytes", &[])) {
            let _ = host::raise_metric(id, host::memory_bytes());
        }
    }

    fn id(&self, kind: MetricType, name: &str) -> Option<u32> {
        self.metrics.try_borrow_mut().ok()?.named(kind, name)
    }

    /// A host call failed. The request goes on; that it did is counted.
    pub(crate) fn failed(&self, call: &'static str, status: host::Status) {
        log::debug!("{call}: {status:?}");
        self.add("host_error", &[(Label::Call, call)], 1);
    }
}

/// Envoy's ids of metrics. Envoy gives a new one, and keeps it, each time that it is asked.
#[derive(Default)]
struct Metrics {
    by_name: FxHashMap<String, Option<u32>>,
    /// By the place of a name that the core made, which it does once; kept here, so that no other
    /// name can take its place.
    by_place: FxHashMap<usize, (Rc<str>, Option<u32>)>,
    /// That there is no room for another was said.
    full: bool,
}

impl Metrics {
    /// The id for a name that the core made. None where the metric cannot be kept, which is not
    /// worth a request: nothing is done about it but a line.
    fn made(&mut self, kind: MetricType, name: &Rc<str>) -> Option<u32> {
        let place = Rc::as_ptr(name).cast::<u8>() as usize;
        if let Some((_, id)) = self.by_place.get(&place) {
            return *id;
        }
        let id = self.named(kind, name);
        if self.by_place.len() < METRICS {
            self.by_place.insert(place, (name.clone(), id));
        }
        id
    }

    fn named(&mut self, kind: MetricType, name: &str) -> Option<u32> {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        if self.by_name.len() >= METRICS {
            if !std::mem::replace(&mut self.full, true) {
                log::warn!("metrics past {METRICS} names are not kept: {name} is the first");
            }
            return None;
        }
        let id = host::define_metric(kind, name);
        if let Err(status) = id {
            log::warn!("metric {name} cannot be defined: {status:?}");
        }
        self.by_name.insert(name.to_owned(), id.ok());
        id.ok()
    }
}

/// The world at one event. Most events do not ask for the time, and asking is a host call.
pub(crate) struct World<'w> {
    worker: &'w Worker,
    now_ns: Cell<Option<u64>>,
}

impl<'w> World<'w> {
    pub(crate) fn now(worker: &'w Worker) -> World<'w> {
        World {
            worker,
            now_ns: Cell::new(None),
        }
    }
}

impl Host for World<'_> {
    fn now_ns(&self) -> u64 {
        let now_ns = self.now_ns.get().unwrap_or_else(host::now_ns);
        self.now_ns.set(Some(now_ns));
        now_ns
    }

    fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
        host::property(path)
    }

    fn count(&mut self, key: &str, window_start: u64, amount: i64, limit: u64) -> (u64, bool) {
        let counted = counters::count(&mut Shared("budget"), key, window_start, amount, limit);
        if counted.full {
            self.worker.add("budget_unkept", &[], 1);
        }
        (counted.before, counted.added)
    }

    fn first(&mut self, word: &str) -> bool {
        let now_secs = self.now_ns() / 1_000_000_000;
        seen::first(&mut Shared("seen"), word, now_secs)
    }
}

/// Envoy's shared data of one kind, which all workers of the process see.
struct Shared(&'static str);

impl Shared {
    fn key(&self, slot: u64) -> String {
        format!("sluice.{}.{slot}", self.0)
    }
}

impl Slots for Shared {
    fn get(&mut self, slot: u64) -> (Vec<u8>, u32) {
        host::shared(&self.key(slot))
    }

    fn put(&mut self, slot: u64, value: &[u8], version: u32) -> bool {
        // To the host 0 means whatever version there is, so that of two workers that find a slot
        // empty one would write over the other. Any other version makes a slot that is not there,
        // and is refused where one is; no slot has lived through so many versions as this.
        let version = if version == 0 { u32::MAX } else { version };
        host::set_shared(&self.key(slot), value, version).is_ok()
    }
}
