//! Answers from what is stored: fresh, stale, another request's, a refusal that is remembered, or
//! one past its time because upstream fails.

use sluice_wire::{Audit, CacheResult, EntryHead, Lease, Outcome};

use super::facts::{Facts, Stored};
use super::{Effect, Effects, Exchange, Flow, Host, Label, Phase, Vm};
use crate::config::Mode;

impl Exchange {
    /// Answers from the cache, if the stored answer can be told in the way that the client asked.
    pub(super) fn hit(
        &mut self,
        mut found: Stored<&[u8]>,
        (result, refresh): (CacheResult, Option<Lease>),
        vm: &mut Vm,
        (host, effects): (&mut dyn Host, &mut Effects),
    ) {
        let plan = vm.plan.clone();
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        let dry = facts.route(&plan).cache.mode == Mode::Dry;
        if dry {
            facts.hit_in_dry(vm, effects);
        }
        let told = match &found.vectors {
            _ if dry => None,
            Some(vectors) => facts.tell_vectors((vectors, found.body), &plan),
            None => facts.tell(&found.entry, found.body),
        };
        if let (Some(vectors), Some(inputs)) = (&found.vectors, &facts.inputs) {
            found.entry.usage = inputs.usage(vectors);
            let places = facts.places();
            match (&told, dry) {
                (_, true) => effects.items(vm, "dry_hit", places),
                (Some(_), _) => effects.items(vm, "hit", places),
                (None, false) => effects.items(vm, "miss", places),
            }
        }
        let Some((body, content_type)) = told else {
            // Its own answer, in the form that it asked for, is as good a refresh.
            if let (Some(lease), Some(option)) = (refresh, facts.option()) {
                facts.lease = option.key.clone().map(|key| (key, lease));
            }
            // Nothing was reserved: ask once more, without a key.
            facts.asked_plainly = true;
            self.admit(vm, host, effects);
            return;
        };
        if let Some(lease) = &refresh {
            effects.refresh(facts, lease, vm);
        }
        self.respond(
            (found.age_secs, &found.entry),
            result,
            vm,
            (effects, body, content_type),
        );
    }

    /// Answers with what is past its time, or with what was to be audited, because upstream fails or
    /// must be spared. Says whether there is such an answer.
    pub(super) fn stand_in(&mut self, vm: &mut Vm, effects: &mut Effects) -> bool {
        let Some(facts) = self.facts.as_mut() else {
            return false;
        };
        let Some(spare) = facts.spare.take() else {
            return false;
        };
        let spare = &spare.answer;
        let Some((body, content_type)) = facts.tell(&spare.entry, &spare.body) else {
            return false;
        };
        let found = (spare.age_secs, &spare.entry);
        let result = match facts.audit.take() {
            Some(_) => CacheResult::Semantic,
            None => CacheResult::Stale,
        };
        self.respond(found, result, vm, (effects, body, content_type));
        true
    }

    fn respond(
        &mut self,
        (age_secs, entry): (u64, &EntryHead),
        result: CacheResult,
        vm: &Vm,
        (effects, body, content_type): (&mut Effects, Vec<u8>, &'static str),
    ) {
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        facts.cache = result;
        facts.status = entry.status;
        facts.outcome = match entry.status {
            400.. => Outcome::UpstreamError,
            _ => Outcome::Answered,
        };
        facts.usage = Some(entry.usage);
        facts.usage_so_far = false;
        facts.age_secs = Some(age_secs);
        facts.body = String::new();
        let mut headers = vec![
            ("content-type", content_type.into()),
            ("age", age_secs.to_string().into()),
        ];
        headers.extend(facts.answer_headers(&vm.plan));
        headers.extend(facts.cost_headers(&vm.plan));
        self.phase = Phase::Local;
        effects.list.push(Effect::Respond {
            status: entry.status,
            headers,
            body,
        });
        effects.flow = Flow::Pause;
    }
}

impl Facts {
    fn hit_in_dry(&mut self, vm: &mut Vm, effects: &mut Effects) {
        self.dry_hit = true;
        // Where no model is asked, it would have saved a request and no dollar.
        let endpoint = (Label::Endpoint, self.format.name());
        effects.count(vm, ("dry_hits", &[endpoint]), 1);
    }

    /// It was a hit, and goes upstream all the same. In dry every hit does: what it costs is none of
    /// the audit's.
    pub(super) fn audited(&mut self, audit: Audit, vm: &mut Vm, effects: &mut Effects) {
        match self.route(&vm.plan).cache.mode {
            Mode::Dry => self.hit_in_dry(vm, effects),
            _ => self.cache = CacheResult::Audit,
        }
        self.audit = Some(audit);
    }

    /// A stored answer in the way that the client asked, and its content type.
    pub(super) fn tell(&self, entry: &EntryHead, answer: &[u8]) -> Option<(Vec<u8>, &'static str)> {
        if entry.format != self.format.name() {
            return None;
        }
        let text = std::str::from_utf8(answer).ok()?;
        if self.stream && entry.status < 400 {
            let stream = self.format.replay(text, self.stream_usage)?;
            return Some((stream, "text/event-stream"));
        }
        Some((answer.to_vec(), "application/json"))
    }
}
