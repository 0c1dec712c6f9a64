//! The wait for another request's answer.

use std::sync::Arc;
use std::time::Duration;

use sluice_wire::{AdmitReply, CacheResult, Verdict};
use tokio::time::{Instant, timeout_at};

use super::{Asked, Decided, MAX_WAIT, decide, hit, reply};
use crate::app::App;
use crate::cache::{Age, Found, Key};
use crate::lease::{Seat, Signal};

/// First and longest pause between two looks at what another sidecar did with a key. Short beside
/// the seconds that a model takes, and one look per key and sidecar however many wait.
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

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
