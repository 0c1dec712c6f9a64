//! Budgets in Redis, shared by all sidecars: each decision is one script, so it is atomic.
//!
//! All keys carry one hash tag and so live in one slot of a cluster, on purpose: a plan's counters
//! must be decided together, and they cross tenants (`task:…`, `model:…`). Cached answers carry no
//! tag and spread.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use redis::{Script, ScriptInvocation, ServerErrorKind};
use sluice_wire::{Over, Unit};

use super::{
    Ask, BudgetStore, Decision, GRACE_MS, Id, MAX_AMOUNT, Overrun, Slot, Spend, slots, spent,
};
use crate::store::{Link, StoreError};

/// How long a settled id is remembered; a filter gives up retrying long before.
const MARKER_MS: u64 = 86_400_000;
/// How long a claim holds while its sidecar writes the ledger.
const CLAIM_MS: u64 = 60_000;
/// Settlements per round trip.
const CHUNK: usize = 128;
/// How much longer than an admit a settlement may take: no request waits for it.
const UNHURRIED: u32 = 20;

/// KEYS: markers; ARGV: sidecar. Gives back claims that this sidecar could not make good.
const UNCLAIM: &str = "
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == 'p:' .. ARGV[1] then redis.call('DEL', key) end
end
return 0";

/// The store.
pub struct RedisBudgets {
    link: Arc<Link>,
    /// Name of this sidecar in the markers of settled ids; the same after a restart.
    sidecar: String,
    reserve: Script,
    settle: Script,
    claim: Script,
    unclaim: Script,
}

/// Who settles an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// This sidecar, now or at an earlier try.
    Ours,
    /// Another one, at this moment.
    Pending,
    /// Another one, durably.
    Done,
}

fn counter_keys(slot: &Slot<'_>) -> (String, String) {
    let unit = match slot.unit {
        Unit::Tokens => "tokens",
        Unit::Usd => "usd",
    };
    let rest = format!(
        "{}:{unit}:{}:{}",
        slot.window.name(),
        slot.start,
        slot.counter
    );
    (
        format!("{{sluice}}:b:{rest}"),
        format!("{{sluice}}:x:{rest}"),
    )
}

/// How long a counter's keys live: past its window and any reservation made in it.
fn ttl_ms(slot: &Slot<'_>, now_ms: u64, hold_ms: u64) -> u64 {
    let left = slot.end_ms().saturating_sub(now_ms);
    left.saturating_add(hold_ms).saturating_add(GRACE_MS)
}

fn held_key(id: Id) -> String {
    format!("{{sluice}}:r:{id}")
}

/// Says who has settled an id, `d:SIDECAR`, or is at it, `p:SIDECAR`.
pub(crate) fn marker_key(id: Id) -> String {
    format!("{{sluice}}:m:{id}")
}

fn nonsense(found: &impl std::fmt::Debug) -> StoreError {
    StoreError::Nonsense {
        expected: "an answer of the budget script",
        found: format!("{found:?}"),
    }
}

impl RedisBudgets {
    /// The store behind `link`, for the sidecar of that name.
    #[must_use]
    pub fn new(link: Arc<Link>, sidecar: String) -> Self {
        RedisBudgets {
            link,
            sidecar,
            reserve: Script::new(include_str!("reserve.lua")),
            settle: Script::new(include_str!("settle.lua")),
            claim: Script::new(include_str!("claim.lua")),
            unclaim: Script::new(UNCLAIM),
        }
    }

    fn reserve_call(&self, ask: &Ask<'_>) -> ScriptInvocation<'_> {
        let (slots, of_charge) = slots(ask.charges, ask.now_ms);
        let mut call = self.reserve.prepare_invoke();
        call.key(held_key(ask.id))
            .arg(ask.id.to_string())
            .arg(ask.now_ms)
            .arg(ask.now_ms.saturating_add(ask.hold_ms))
            .arg(u8::from(ask.last))
            .arg(ask.hold_ms.saturating_add(GRACE_MS))
            .arg(slots.len());
        for (slot, amount) in &slots {
            let (counter, lapses) = counter_keys(slot);
            call.key(counter).key(lapses);
            call.arg(*amount).arg(ttl_ms(slot, ask.now_ms, ask.hold_ms));
        }
        call.arg(ask.charges.len());
        for (charge, slot) in ask.charges.iter().zip(of_charge) {
            call.arg(slot + 1)
                .arg(charge.limit)
                .arg(charge.reserve.min(MAX_AMOUNT))
                .arg(charge.at_most.min(MAX_AMOUNT))
                .arg(match charge.over {
                    Over::Reject => "r",
                    Over::SmallTier => "s",
                    Over::Shadow => "h",
                });
        }
        call
    }

    fn settle_call(&self, now_ms: u64, spend: &Spend) -> ScriptInvocation<'_> {
        let slots = spent(spend);
        let mut call = self.settle.prepare_invoke();
        call.key(marker_key(spend.id))
            .key(held_key(spend.id))
            .arg(spend.id.to_string())
            .arg(&self.sidecar)
            .arg(MARKER_MS)
            .arg(slots.len());
        for (slot, amount) in &slots {
            let (counter, lapses) = counter_keys(slot);
            call.key(counter).key(lapses);
            call.arg(*amount).arg(ttl_ms(slot, now_ms, 0));
        }
        call
    }

    /// Claims `ids` for this sidecar's ledger, so that no two ledgers book one request.
    pub(super) async fn claim(&self, ids: &[Id]) -> Result<Vec<Marker>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = self.claim.prepare_invoke();
        for &id in ids {
            call.key(marker_key(id));
        }
        call.arg(&self.sidecar).arg(CLAIM_MS);
        let answer: Vec<String> = self
            .link
            .call(UNHURRIED, async |mut redis| {
                call.invoke_async(&mut redis).await
            })
            .await?;
        if answer.len() != ids.len() {
            return Err(nonsense(&answer));
        }
        Ok(answer
            .iter()
            .map(|marker| match marker.split_once(':') {
                Some((_, sidecar)) if sidecar == self.sidecar => Marker::Ours,
                Some(("p", _)) => Marker::Pending,
                Some(_) => Marker::Done,
                None => Marker::Ours,
            })
            .collect())
    }

    /// Gives back claims whose ledger refused, so that another sidecar may book them at once.
    pub(super) async fn unclaim(&self, ids: &[Id]) -> Result<(), StoreError> {
        let mut call = self.unclaim.prepare_invoke();
        for &id in ids {
            call.key(marker_key(id));
        }
        call.arg(&self.sidecar);
        self.link
            .call(UNHURRIED, async |mut redis| {
                call.invoke_async::<u8>(&mut redis).await
            })
            .await
            .map(|_| ())
    }

    async fn settle_chunk(&self, now_ms: u64, spends: &[Spend]) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        for spend in spends {
            pipe.invoke_script(&self.settle_call(now_ms, spend));
        }
        let script = &self.settle;
        self.link
            .call(UNHURRIED, async |mut redis| {
                let answer: redis::RedisResult<Vec<u8>> = pipe.query_async(&mut redis).await;
                match answer {
                    // Redis was restarted. Those that ran before it are marked and do not run twice.
                    Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {
                        script.load_async(&mut redis).await?;
                        pipe.query_async::<Vec<u8>>(&mut redis).await
                    }
                    answer => answer,
                }
            })
            .await
            .map(|_| ())
    }
}

/// The script's answer as a decision.
fn decision(ask: &Ask<'_>, answer: &[redis::Value]) -> Result<Decision, StoreError> {
    let word: String = answer
        .first()
        .and_then(|it| redis::from_redis_value_ref(it).ok())
        .ok_or_else(|| nonsense(&answer))?;
    let charge = |value: &redis::Value| {
        let position: usize = redis::from_redis_value_ref(value).ok()?;
        ask.charges.get(position.checked_sub(1)?)
    };
    let over = || {
        answer[1..]
            .iter()
            .map(|it| charge(it).map(|charge| charge.rule))
            .collect::<Option<Vec<u16>>>()
            .ok_or_else(|| nonsense(&answer))
    };
    match (word.as_str(), &answer[1..]) {
        ("go", _) => Ok(Decision::Go { over: over()? }),
        ("small", _) => Ok(Decision::SmallTier { over: over()? }),
        ("count", []) => Ok(Decision::Count),
        ("reject", [position, level]) => {
            let charge = charge(position).ok_or_else(|| nonsense(&answer))?;
            let level: u128 = redis::from_redis_value_ref::<String>(level)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| nonsense(&answer))?;
            Ok(Decision::Reject(Overrun::new(charge, level, ask.now_ms)))
        }
        _ => Err(nonsense(&answer)),
    }
}

impl BudgetStore for RedisBudgets {
    fn reserve<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, Result<Decision, StoreError>> {
        Box::pin(async move {
            let call = self.reserve_call(&ask);
            let answer: Vec<redis::Value> = self
                .link
                .call(1, async |mut redis| call.invoke_async(&mut redis).await)
                .await?;
            decision(&ask, &answer).inspect_err(|error| self.link.count(error))
        })
    }

    fn settle<'a>(
        &'a self,
        now_ms: u64,
        spends: &'a [Spend],
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            for chunk in spends.chunks(CHUNK) {
                self.settle_chunk(now_ms, chunk).await?;
            }
            Ok(())
        })
    }
}
