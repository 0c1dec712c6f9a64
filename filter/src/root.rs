//! One config on one worker: reads it, makes streams, and settles in the background.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::hostcalls::dispatch_http_call;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType, LogLevel, MapType};
use sluice_core::config::{Plan, Sidecar};
use sluice_core::exchange::{Label, Vm};
use sluice_core::settler::Settler;
use sluice_core::tokens::Tokens;
use sluice_wire::{VERSION, header, path};

use crate::env::Environment;
use crate::host;
use crate::stream::Stream;
use crate::worker::{Worker, World};

/// How often finished requests are sent on. An answer is in the cache so much later at most.
const TICK_MS: u32 = 50;

/// Ticks between two looks at Envoy's log level and the VM's memory.
const LOOK_TICKS: u32 = 20;

/// Nobody waits for the booking, but others may wait for the answer that comes with it, and a
/// sidecar that stands still must not keep it from the next.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Ticks that a worker whose config was replaced takes to send on what it has.
const DRAIN_TICKS: u32 = 200;

/// Longest config that is read.
const CONFIG_BYTES: usize = 4 << 20;

/// A call of the root's own.
enum Call {
    /// A batch of the settler's, by its number.
    Settle(u32),
    /// A request that goes once more through this Envoy.
    Refresh,
}

pub(crate) struct Root {
    context_id: u32,
    worker: Option<Rc<Worker>>,
    settler: Rc<RefCell<Settler>>,
    /// What is under way, by the host's call.
    calls: HashMap<u32, Call>,
    /// Of records and answers that the queue dropped, those that were counted.
    told: (u64, u64),
    ticks: u32,
    look_every: u32,
    draining: Option<u32>,
}

impl Root {
    pub(crate) fn new(context_id: u32) -> Root {
        Root {
            context_id,
            worker: None,
            settler: Rc::default(),
            calls: HashMap::new(),
            told: (0, 0),
            ticks: 0,
            look_every: 1,
            draining: None,
        }
    }

    /// Sends what is due.
    fn settle(&mut self) {
        let Some(worker) = self.worker.clone() else {
            return;
        };
        let Some(plan) = worker.vm.try_borrow().ok().map(|vm| vm.plan.clone()) else {
            return;
        };
        let Some(sidecar) = &plan.sidecar else { return };
        let Ok(mut settler) = self.settler.try_borrow_mut() else {
            return;
        };
        let now_ns = host::now_ns();
        while let Some(batch) = settler.next(now_ns) {
            match call(sidecar, path::SETTLE, &batch.body, SETTLE_TIMEOUT) {
                Ok(call) => {
                    self.calls.insert(call, Call::Settle(batch.id));
                }
                Err(reason) => {
                    log::debug!("settle was not sent: {reason}");
                    worker.add("settle", &[(Label::Result, "unsent")], 1);
                    settler.done(batch.id, false, now_ns);
                }
            }
        }
        for (name, told, now) in [
            (
                "settle_dropped_records",
                &mut self.told.0,
                settler.dropped(),
            ),
            (
                "settle_dropped_answers",
                &mut self.told.1,
                settler.dropped_answers(),
            ),
        ] {
            if now > *told {
                worker.add(name, &[], now - *told);
                *told = now;
            }
        }
    }

    /// Sends requests once more whose stale answers went out.
    fn refresh(&mut self) {
        let Some(worker) = self.worker.clone() else {
            return;
        };
        while let Some(refresh) = worker.next_refresh() {
            let headers = refresh
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let body = Some(refresh.body.as_slice());
            let sent =
                dispatch_http_call(&refresh.cluster, headers, body, Vec::new(), refresh.timeout);
            match sent {
                Ok(call) => {
                    self.calls.insert(call, Call::Refresh);
                }
                Err(status) => {
                    log::debug!("cluster {}: {status:?}", refresh.cluster);
                    worker.add("refresh", &[(Label::Result, "unsent")], 1);
                }
            }
        }
    }

    /// What changes seldom.
    fn look_around(&self) {
        if let Some(worker) = &self.worker {
            worker.tell_memory();
            let debugs = host::debugs();
            worker.debugs.set(debugs);
            proxy_wasm::set_log_level(if debugs {
                LogLevel::Debug
            } else {
                LogLevel::Info
            });
        }
    }

    /// A request waits for what only this context brings it.
    fn is_needed(&self) -> bool {
        self.worker.as_ref().is_some_and(|it| it.is_needed())
    }

    fn is_idle(&self) -> bool {
        let refreshed = self.worker.as_ref().is_none_or(|worker| worker.is_idle());
        refreshed
            && !self.is_needed()
            && self
                .settler
                .try_borrow()
                .is_ok_and(|settler| settler.is_idle())
    }

    fn drained(&mut self) {
        let Some(ticks) = self.draining else { return };
        if self.is_idle() || ticks == 0 && !self.is_needed() {
            self.draining = None;
            let _ = host::done();
        } else {
            self.draining = Some(ticks.saturating_sub(1));
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body: usize, _trailers: usize) {
        let Some(worker) = self.worker.clone() else {
            return;
        };
        let Some(call) = self.calls.remove(&token) else {
            if let Some(request) = worker.expected(token) {
                request.answered(token, headers, body);
            }
            return;
        };
        let status = if headers == 0 { None } else { reply_status() };
        let ok = status == Some(200);
        let result = if ok { "ok" } else { "failed" };
        let Call::Settle(batch) = call else {
            return worker.add("refresh", &[(Label::Result, result)], 1);
        };
        worker.add("settle", &[(Label::Result, result)], 1);
        if !ok {
            log::debug!("settle failed: status {status:?}");
        }
        if let Ok(mut settler) = self.settler.try_borrow_mut() {
            settler.done(batch, ok, host::now_ns());
        }
        // What came meanwhile need not wait for the next tick.
        self.settle();
    }

    /// False keeps this context, until [`host::done`], for what is not settled yet.
    fn on_done(&mut self) -> bool {
        self.settle();
        if self.is_idle() {
            return true;
        }
        self.draining = Some(DRAIN_TICKS);
        false
    }
}

impl RootContext for Root {
    /// A config that is refused leaves the last good one in force: with xDS Envoy keeps the old
    /// listener, at start it does not come up.
    fn on_configure(&mut self, size: usize) -> bool {
        if size > CONFIG_BYTES {
            log::error!("config: {size} bytes, at most {CONFIG_BYTES} are read");
            return false;
        }
        let config = match host::buffer(BufferType::PluginConfiguration, size) {
            Ok(config) => config,
            Err(status) => {
                log::error!("config cannot be read: {status:?}");
                return false;
            }
        };
        let environment = Environment::read();
        let plan = match Plan::parse(&config, &|name| environment.get(name)) {
            Ok(plan) => plan,
            Err(faults) => {
                for fault in faults.to_string().lines() {
                    log::error!("config: {fault}");
                }
                return false;
            }
        };
        let settles = plan.sidecar.is_some();
        let often = settles || plan.queues();
        let tokens = Tokens::load(&plan.encodings());
        let vm = Vm::new(Rc::new(plan), tokens);
        self.worker = Some(Rc::new(Worker::new(vm, self.settler.clone())));
        self.look_around();
        // Where nothing is to be settled and nobody waits there is only to look around.
        let (period, look_every) = if often {
            (TICK_MS, LOOK_TICKS)
        } else {
            (TICK_MS * LOOK_TICKS, 1)
        };
        self.look_every = look_every;
        if let Err(status) = host::tick_every(period) {
            log::error!("no ticks: {status:?}");
            return !often;
        }
        log::info!("context {} configured", self.context_id);
        true
    }

    fn on_tick(&mut self) {
        self.settle();
        self.refresh();
        if let Some(worker) = &self.worker {
            if let Ok(mut vm) = worker.vm.try_borrow_mut() {
                vm.tick(&mut World::now(worker));
            }
            worker.turns();
            // What follows is the root's own again.
            if let Err(status) = host::act_for(self.context_id) {
                worker.failed("act_for", status);
            }
        }
        self.drained();
        if self.ticks.is_multiple_of(self.look_every) {
            self.look_around();
        }
        self.ticks = self.ticks.wrapping_add(1);
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream::new(context_id, self.worker.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// POSTs a frame to the sidecar; returns the host's number for the call.
pub(crate) fn call(
    sidecar: &Sidecar,
    path: &str,
    body: &[u8],
    timeout: Duration,
) -> Result<u32, String> {
    let version = VERSION.to_string();
    let authorization = sidecar
        .secret
        .as_ref()
        .map(|secret| format!("Bearer {secret}"));
    let mut headers = vec![
        (":method", "POST"),
        (":path", path),
        (":authority", sidecar.cluster.as_str()),
        ("content-type", "application/octet-stream"),
        (header::WIRE, version.as_str()),
    ];
    if let Some(authorization) = &authorization {
        headers.push(("authorization", authorization));
    }
    dispatch_http_call(&sidecar.cluster, headers, Some(body), Vec::new(), timeout)
        .map_err(|status| format!("cluster {}: {status:?}", sidecar.cluster))
}

/// The HTTP status of the call that was just answered.
pub(crate) fn reply_status() -> Option<u16> {
    let status = host::header(MapType::HttpCallResponseHeaders, ":status").ok()?;
    std::str::from_utf8(&status).ok()?.parse().ok()
}
