//! What the requests of one VM share: the plan, the token memory, the sidecar's breaker.

use std::cell::Cell;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::conversations::Conversations;
use super::names::Names;
use super::seal::{self, Sealer};
use super::{Host, Phase};
use crate::coding::{self, Memory};
use crate::config::{Plan, Sidecar};
use crate::policy::backoff::Backoffs;
use crate::policy::guard::{Trailing, Upstream};
use crate::policy::joins::Joins;
use crate::policy::trim::summary::DigestMemory;
use crate::policy::trim::terms::TermMemory;
use crate::tokens::Tokens;

/// State that outlives a request. One per worker; workers share nothing but [`super::Host::count`].
#[derive(Debug)]
pub struct Vm {
    /// The config in force.
    pub plan: Rc<Plan>,
    /// Vocabularies, counts, ratios.
    pub tokens: Tokens,
    /// Terms of texts seen before.
    pub(super) terms: TermMemory,
    /// Digests of what was left out.
    pub(super) digests: DigestMemory,
    /// Conversations that this worker serves.
    pub(super) conversations: Conversations,
    /// What decoders of compressed answers may take.
    pub(super) decoders: Memory,
    pub(super) breaker: Breaker,
    pub(super) names: Names,
    pub(super) requests: u64,
    /// Requests that wait for another's answer, or to ask for it again.
    pub(super) waiting: usize,
    /// Bytes of answers past their time that are held in case upstream fails.
    pub(super) spares: Rc<Cell<usize>>,
    /// Bytes of vectors that are held while upstream is asked for others.
    pub(super) vectors: Rc<Cell<usize>>,
    /// Bytes of requests that are held as they were before they were trimmed.
    pub(super) untrimmed: Rc<Cell<usize>>,
    /// Upstreams that may be asked for a part of a batch of embeddings.
    pub(super) joins: Joins,
    /// Upstreams that fail.
    pub(super) backoffs: Backoffs,
    /// Requests upstream and the rate of spending, by index of the route.
    pub(super) guards: FxHashMap<Option<usize>, RouteGuard>,
    /// Proves to a filter of ours that a request comes from one.
    pub(super) seal: Option<Sealer>,
    /// Headers of the config's that name a caller: a seal is bound to them.
    pub(super) naming: Vec<String>,
    /// Sets this VM's request ids apart from every other VM's.
    pub(super) salt: Option<[u8; 32]>,
}

impl Vm {
    /// A VM's state under a plan.
    #[must_use]
    pub fn new(plan: Rc<Plan>, mut tokens: Tokens) -> Vm {
        for (name, model) in &plan.models {
            tokens.guess(name, model.bytes_per_token);
        }
        let secret = plan
            .sidecar
            .as_ref()
            .and_then(|sidecar| sidecar.secret.as_ref());
        let seal = secret.map(|secret| Sealer::new(secret));
        Vm {
            terms: TermMemory::default(),
            digests: DigestMemory::default(),
            conversations: Conversations::default(),
            waiting: 0,
            spares: Rc::default(),
            vectors: Rc::default(),
            untrimmed: Rc::default(),
            joins: Joins::default(),
            backoffs: Backoffs::default(),
            guards: FxHashMap::default(),
            seal,
            naming: seal::naming(&plan.identity),
            plan,
            tokens,
            decoders: Memory::new(coding::MOST_MEMORY),
            breaker: Breaker::default(),
            names: Names::default(),
            requests: 0,
            salt: None,
        }
    }
}

impl Vm {
    /// What is remembered of texts is that tenant's from here on, until another is served.
    pub(super) fn serve(&mut self, tenant: &str) {
        let salt = self.salt.unwrap_or_default();
        let hash = blake3::keyed_hash(&salt, tenant.as_bytes());
        let (whose, _) = hash.as_bytes().split_at(16);
        self.tokens
            .serve(whose.try_into().map_or(0, u128::from_le_bytes));
    }

    /// A request that is held goes no further from here: what counts it while it is held does not.
    pub(super) fn lets_go(&mut self, phase: Phase, route: Option<usize>) {
        match phase {
            Phase::Asked => self.breaker.abandoned(),
            Phase::Waiting | Phase::Retrying => self.waiting = self.waiting.saturating_sub(1),
            Phase::Queued => {
                let guard = self.guards.entry(route).or_default();
                guard.upstream.queued = guard.upstream.queued.saturating_sub(1);
            }
            _ => {}
        }
    }

    /// Whether there is a sidecar, and nothing is known against it.
    pub(super) fn sidecar_is_well(&self) -> bool {
        let sidecar = self.plan.sidecar.as_ref();
        sidecar.is_some_and(|sidecar| self.breaker.is_closed(sidecar))
    }

    /// To be called now and then: keeps what the guard counts for requests that last, and knows of
    /// what others spend.
    pub fn tick(&mut self, host: &mut dyn Host) {
        let plan = self.plan.clone();
        for (route, guard) in &mut self.guards {
            let route = plan.route_at(*route);
            guard.upstream.keep(&route.name, host);
            if let Some(spend) = &route.guard.spend {
                guard.trailing.keep(&route.name, spend, host);
            }
        }
    }
}

/// What the guard counts for one route.
#[derive(Debug, Default)]
pub(super) struct RouteGuard {
    pub(super) upstream: Upstream,
    pub(super) trailing: Trailing,
}

/// Stops asking a sidecar that fails: after a number of failures in a row nothing is asked for a
/// while, then one request tries.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    closed_again_ns: u64,
    probing: bool,
}

impl Breaker {
    /// Whether to ask now.
    pub(super) fn allows(&mut self, sidecar: &Sidecar, now_ns: u64) -> bool {
        if self.is_closed(sidecar) {
            return true;
        }
        if now_ns < self.closed_again_ns || self.probing {
            return false;
        }
        self.probing = true;
        true
    }

    /// Whether it lets everything through.
    fn is_closed(&self, sidecar: &Sidecar) -> bool {
        self.failures < sidecar.breaker_failures
    }

    pub(super) fn succeeded(&mut self) {
        *self = Breaker::default();
    }

    pub(super) fn failed(&mut self, sidecar: &Sidecar, now_ns: u64) {
        self.failures = self.failures.saturating_add(1);
        self.closed_again_ns = now_ns.saturating_add(sidecar.breaker_pause_ns);
        self.probing = false;
    }

    /// A call that will not be heard of: the client left while it was under way.
    pub(super) fn abandoned(&mut self) {
        self.probing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sidecar() -> Sidecar {
        let json = br#"{"sidecar":{"cluster":"c","breaker":{"failures":2,"pause":"1s"}}}"#;
        Plan::parse(json, &|_| None).unwrap().sidecar.unwrap()
    }

    #[test]
    fn what_is_remembered_of_a_text_is_one_tenants_in_one_vm() {
        let mut vm = Vm::new(
            Rc::new(Plan::parse(b"{}", &|_| None).unwrap()),
            Tokens::load(&[]),
        );
        let mut own = |salt: u8, tenant: &str| {
            vm.salt = Some([salt; 32]);
            vm.serve(tenant);
            vm.tokens.own(7)
        };
        let acme = own(1, "acme");
        assert_ne!(own(1, "acme2"), acme);
        assert_ne!(own(2, "acme"), acme);
        assert_eq!(own(1, "acme"), acme);
    }

    #[test]
    fn it_opens_after_failures_in_a_row_lets_one_probe_and_closes_on_success() {
        let (sidecar, mut breaker, second) = (sidecar(), Breaker::default(), 1_000_000_000);
        breaker.failed(&sidecar, 0);
        assert!(breaker.allows(&sidecar, 0));
        breaker.succeeded();
        breaker.failed(&sidecar, 0);
        assert!(
            breaker.allows(&sidecar, 0),
            "failures in a row count, not failures in all"
        );
        breaker.failed(&sidecar, 0);
        assert!(!breaker.allows(&sidecar, second - 1));
        assert!(breaker.allows(&sidecar, second), "one probe");
        assert!(!breaker.allows(&sidecar, second), "and only one");
        breaker.failed(&sidecar, second);
        assert!(!breaker.allows(&sidecar, second + 1));
        assert!(breaker.allows(&sidecar, 2 * second));
        breaker.abandoned();
        assert!(
            breaker.allows(&sidecar, 2 * second),
            "a probe that was abandoned does not block the next"
        );
        breaker.succeeded();
        assert!(breaker.allows(&sidecar, 0));
    }
}
