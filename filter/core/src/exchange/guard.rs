//! The guard: between the leave to go and going. An upstream that fails is left alone, too much
//! spending has its declared answers, and only so many requests are upstream at once; the others
//! wait for their turn, in bounded number and time.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use super::facts::{Facts, Spare};
use super::{Effect, Effects, Exchange, Flow, Host, Label, Phase, Vm};
use crate::config::{Guard, Misses, Mode, OverSpend, Spend};
use crate::formats::{ApiError, ErrorKind};
use crate::policy::backoff::{Ask, Seen};
use crate::policy::guard::Rate;

const SECOND: u64 = 1_000_000_000;

/// What the guard knows of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Guarded {
    /// Too much is spent: any stored answer will do.
    pub(super) any_answer: bool,
    /// Too much is spent: what happens where there is none.
    pub(super) then: Then,
    /// It counts as upstream.
    upstream: bool,
    /// When its wait for its turn ends, nanoseconds since the epoch.
    until_ns: u64,
    /// Hashes of its upstream: of all callers, and of this tenant's (a rate limit is a key's own).
    names: Option<[u64; 2]>,
    /// Those of them for which it is the one try after a pause.
    tries: [bool; 2],
}

/// What happens to a request while too much is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Then {
    /// It goes.
    #[default]
    Go,
    /// It goes to the small tier.
    Small,
    /// It waits until less is spent.
    Queue,
    /// It is refused.
    Reject {
        /// Seconds until it may be tried again.
        reset_secs: u64,
    },
}

/// What is wrong with the moment.
enum Obstacle {
    /// Upstream fails; nanoseconds.
    Backoff(u64),
    /// Too much is spent; seconds.
    Spend(u64),
    /// Too many are upstream.
    Busy,
}

impl Facts {
    /// Looks at the rate of spending and decides, by what the config declares, what it means for
    /// this request. `small` says whether it could go to the small tier.
    pub(super) fn watch_spending(
        &mut self,
        small: bool,
        vm: &mut Vm,
        (host, effects): (&mut dyn Host, &mut Effects),
    ) {
        let plan = vm.plan.clone();
        let route = self.route(&plan);
        let Some(spend) = &route.guard.spend else {
            return;
        };
        let guard = vm.guards.entry(self.route).or_default();
        let rate = guard.trailing.rate(&route.name, spend, host);
        if rate == Rate::Within || route.guard.mode == Mode::Off {
            return;
        }
        if route.guard.mode == Mode::Dry {
            return effects.guarded(vm, "guard_spend", "dry");
        }
        (self.guarded.any_answer, self.guarded.then) = declared(spend, rate, small);
        effects.guarded(
            vm,
            "guard_spend",
            match self.guarded.then {
                Then::Go => "pass",
                Then::Small => "small_tier",
                Then::Queue => "queue",
                Then::Reject { .. } => "reject",
            },
        );
    }

    /// Whether upstream fails, as far as this worker knows.
    pub(super) fn upstream_fails(&self, vm: &Vm, host: &dyn Host) -> bool {
        let guard = &self.route(&vm.plan).guard;
        guard.backoff.is_some()
            && guard.mode == Mode::On
            && self
                .upstreams()
                .into_iter()
                .any(|name| vm.backoffs.pauses(name, host.now_ns()))
    }

    /// Hashes of its upstream: of all callers, and of this tenant's.
    fn upstreams(&self) -> [u64; 2] {
        let hash = |tenant: &str| {
            let mut hasher = FxHasher::default();
            (self.headers.get(":authority"), self.model(), tenant).hash(&mut hasher);
            hasher.finish()
        };
        [hash(""), hash(&self.caller.tenant)]
    }

    /// What upstream answered, for the sake of the next request.
    pub(super) fn hear(
        &mut self,
        (status, retry_after_ns): (u16, Option<u64>),
        vm: &mut Vm,
        now_ns: u64,
    ) {
        let plan = vm.plan.clone();
        let Some(backoff) = &self.route(&plan).guard.backoff else {
            return;
        };
        let Some([everyone, own]) = self.guarded.names else {
            return;
        };
        let [_, tried_own] = std::mem::take(&mut self.guarded.tries);
        let seen = match (status, retry_after_ns) {
            (429 | 503, Some(ns)) => Seen::RetryAfter { ns },
            (429 | 500.., _) => Seen::Failed,
            _ => Seen::Works,
        };
        match status {
            // A limit of this caller's key: the upstream itself works.
            429 => {
                vm.backoffs.told(own, backoff, (seen, now_ns));
                vm.backoffs.told(everyone, backoff, (Seen::Works, now_ns));
            }
            _ => {
                vm.backoffs.told(everyone, backoff, (seen, now_ns));
                if seen == Seen::Works {
                    vm.backoffs.told(own, backoff, (seen, now_ns));
                } else if tried_own {
                    // It says nothing of the caller's own limit: another one tries.
                    vm.backoffs.abandoned(own);
                }
            }
        }
    }

    /// Gives up what the guard counts for it.
    pub(super) fn unguard(&mut self, vm: &mut Vm, host: &mut dyn Host) {
        let plan = vm.plan.clone();
        let name = &self.route(&plan).name;
        if let Some(guard) = vm.guards.get_mut(&self.route)
            && std::mem::take(&mut self.guarded.upstream)
        {
            guard.upstream.leave(name, host);
        }
        self.give_up_tries(vm);
    }

    fn give_up_tries(&mut self, vm: &mut Vm) {
        let tries = std::mem::take(&mut self.guarded.tries);
        for (name, tries) in self.guarded.names.into_iter().flatten().zip(tries) {
            if tries {
                vm.backoffs.abandoned(name);
            }
        }
    }

    /// What stands in the way of going upstream now; None: it counts as upstream from here on.
    fn obstacle(&mut self, vm: &mut Vm, host: &mut dyn Host) -> Option<Obstacle> {
        let plan = vm.plan.clone();
        let route = self.route(&plan);
        let Guard {
            mode: Mode::On,
            misses,
            spend,
            backoff,
        } = &route.guard
        else {
            return None;
        };
        match self.guarded.then {
            Then::Go | Then::Small => {}
            Then::Reject { reset_secs } => return Some(Obstacle::Spend(reset_secs)),
            Then::Queue => {
                let guard = vm.guards.entry(self.route).or_default();
                let rate = spend
                    .as_ref()
                    .map(|spend| guard.trailing.rate(&route.name, spend, host));
                if let Some(Rate::Over { .. } | Rate::Ceiling { .. }) = rate {
                    return Some(Obstacle::Busy);
                }
            }
        }
        if let Some(misses) = misses {
            let guard = vm.guards.entry(self.route).or_default();
            if !guard.upstream.enter(&route.name, misses, host) {
                return Some(Obstacle::Busy);
            }
            self.guarded.upstream = true;
        }
        if let Some(backoff) = backoff {
            let names = self.upstreams();
            self.guarded.names = Some(names);
            for (index, name) in names.into_iter().enumerate() {
                match vm.backoffs.ask(name, backoff, host.now_ns()) {
                    Ask::Go => {}
                    Ask::Try => self.guarded.tries[index] = true,
                    Ask::Not { for_ns } => {
                        self.give_up_tries(vm);
                        return Some(Obstacle::Backoff(for_ns));
                    }
                }
            }
        }
        None
    }

    fn misses(&self, vm: &Vm) -> Misses {
        self.route(&vm.plan).guard.misses.unwrap_or_default()
    }
}

/// What the config declares for this rate.
fn declared(spend: &Spend, rate: Rate, small: bool) -> (bool, Then) {
    let (reset_secs, ceiling) = match rate {
        Rate::Within => return (false, Then::Go),
        Rate::Over { reset_secs } => (reset_secs, false),
        Rate::Ceiling { reset_secs } => (reset_secs, true),
    };
    let mut any_answer = false;
    for action in &spend.over {
        match action {
            OverSpend::Stale => any_answer = true,
            OverSpend::SmallTier if small && !ceiling => return (any_answer, Then::Small),
            OverSpend::SmallTier => {}
            OverSpend::Queue => return (any_answer, Then::Queue),
            OverSpend::Reject => return (any_answer, Then::Reject { reset_secs }),
        }
    }
    // Past the ceiling nothing goes, whatever the list says.
    match ceiling {
        true => (any_answer, Then::Reject { reset_secs }),
        false => (any_answer, Then::Go),
    }
}

impl Exchange {
    /// The request may go: it does, or waits for its turn, or has the answer that the guard gives.
    pub(super) fn go(&mut self, vm: &mut Vm, host: &mut dyn Host, effects: &mut Effects) {
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        // Who comes later does not go before those that wait.
        let queued = vm.guards.get(&facts.route);
        let obstacle = match queued.is_some_and(|guard| guard.upstream.queued > 0) {
            true => Some(Obstacle::Busy),
            false => facts.obstacle(vm, host),
        };
        let Some(obstacle) = obstacle else {
            return self.send(host.now_ns(), vm, effects);
        };
        // An audit waits for nothing: the answer is there, if it can be told as the client asked.
        let audits = |facts: &Facts| {
            let told = |spare: &Spare| {
                facts
                    .tell(&spare.answer.entry, &spare.answer.body)
                    .is_some()
            };
            facts.audit.is_some() && facts.spare.as_deref().is_some_and(told)
        };
        let waits = self.facts.as_deref_mut().filter(|facts| !audits(facts));
        if let (Obstacle::Busy, Some(facts)) = (&obstacle, waits) {
            let misses = facts.misses(vm);
            let guard = vm.guards.entry(facts.route).or_default();
            if guard.upstream.queued < misses.queue && misses.wait_ns > 0 {
                guard.upstream.queued += 1;
                facts.guarded.until_ns = host.now_ns().saturating_add(misses.wait_ns);
                self.phase = Phase::Queued;
                effects.guarded(vm, "guard_misses", "queue");
                effects.list.push(Effect::Queue);
                effects.flow = Flow::Pause;
                return;
            }
        }
        self.held_back(&obstacle, vm, effects);
    }

    /// One that waits looks whether it is its turn.
    pub(super) fn turn(&mut self, vm: &mut Vm, host: &mut dyn Host, effects: &mut Effects) {
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        let obstacle = facts.obstacle(vm, host);
        let late = host.now_ns() >= facts.guarded.until_ns;
        if matches!(obstacle, Some(Obstacle::Busy)) && !late {
            effects.flow = Flow::Pause;
            return;
        }
        let guard = vm.guards.entry(facts.route).or_default();
        guard.upstream.queued = guard.upstream.queued.saturating_sub(1);
        match obstacle {
            None => self.send(host.now_ns(), vm, effects),
            Some(obstacle) => self.held_back(&obstacle, vm, effects),
        }
    }

    /// The guard says no: an answer past its time, or an error that says when to come back.
    fn held_back(&mut self, obstacle: &Obstacle, vm: &mut Vm, effects: &mut Effects) {
        let (family, code, kind, secs, message) = match obstacle {
            Obstacle::Backoff(ns) => (
                "guard_backoff",
                "upstream_backoff",
                ErrorKind::Unavailable,
                ns.div_ceil(SECOND),
                "The provider fails or asks to be left alone",
            ),
            Obstacle::Spend(secs) => (
                "guard_spend_rejected",
                "spend_rate_exceeded",
                ErrorKind::RateLimited,
                *secs,
                "Too much is being spent per minute",
            ),
            Obstacle::Busy => (
                "guard_misses",
                "too_many_requests_upstream",
                ErrorKind::Unavailable,
                1,
                "Too many requests are being answered by the provider",
            ),
        };
        let action = match self
            .facts
            .as_ref()
            .is_some_and(|facts| facts.audit.is_some())
        {
            true => "semantic",
            false => "stale",
        };
        if self.stand_in(vm, effects) {
            return effects.guarded(vm, family, action);
        }
        effects.guarded(vm, family, "reject");
        let secs = secs.max(1);
        let error = ApiError {
            kind,
            message: format!("{message} at the moment; try again in {secs} s."),
            code,
        };
        self.refuse(
            &error,
            vec![("retry-after", secs.to_string().into())],
            effects,
        );
    }
}

impl Effects {
    fn guarded(&mut self, vm: &mut Vm, family: &str, action: &str) {
        self.count(vm, (family, &[(Label::Action, action)]), 1);
    }
}
