//! `POST /v1/settle`: answers to those who wait for them, then durable in the ledger, then budgets
//! and metrics.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::join_all;
use sluice_wire::{
    CacheResult, EntryHead, Frame, LeaseEnd, Order, Settle, SettleReply, SettleRequest,
    StoreVectors, limit,
};

use super::{ApiError, Kind, body};
use crate::app::App;
use crate::budget::{Claim, Id, Spend};
use crate::cache::{self, Entry, Found, Key, MAX_TTL_SECS, Put};
use crate::conversations::Turn;
use crate::inputs;
use crate::lease::{End, Lease, Signal};
use crate::ledger::{Booking, LedgerError};
use crate::semantic::{Agreement, MAX_ANSWER};
use crate::summaries::{self, Job};

/// Most charges of one item.
const MAX_COUNTED: usize = 64;
/// Longest name of a model.
const MAX_MODEL: usize = 256;
/// Longest name of a counter.
const MAX_COUNTER: usize = 512;

pub(super) async fn settle(State(app): State<Arc<App>>, request: Request) -> Response {
    let started = Instant::now();
    match answer(&app, request).await {
        Ok((reply, bytes)) => {
            app.metrics
                .settled((reply.booked, reply.repeated), started.elapsed());
            ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
        }
        Err(error) => {
            app.metrics.refused(error.kind.name());
            error.into_response()
        }
    }
}

/// One item, checked.
struct Item {
    id: Id,
    settle: Settle,
    answer: Option<(Key, Bytes)>,
    vectors: Vec<(Key, Bytes)>,
    /// Scope of the question that it answers.
    scope: Option<Key>,
    release: Option<(Key, Lease, LeaseEnd)>,
    audit: Option<Audited>,
    conversation: Option<Key>,
    /// A text to be written of it, taken out of `settle`.
    order: Option<Job>,
}

/// An audit: the key of the stored answer, the share of false hits to hold, upstream's answer.
struct Audited {
    key: Key,
    rate: f64,
    answer: Option<Bytes>,
}

async fn answer(app: &Arc<App>, request: Request) -> Result<(SettleReply, Vec<u8>), ApiError> {
    let (parts, body) = request.into_parts();
    app.auth.filter(&parts.headers, &parts.extensions)?;
    body::check_version(&parts.headers)?;
    let room = app
        .settle_room(axum::body::HttpBody::size_hint(&body).exact())
        .await?;
    let bytes = body::read(body, limit::SETTLE_BODY).await?;
    let items = check(&bytes)?;
    // On its own, so that a filter that hangs up half-way does not leave a request booked in the
    // ledger and charged to no budget.
    let app = app.clone();
    let reply = tokio::spawn(async move {
        let reply = book(&app, items).await;
        drop(room);
        reply
    })
    .await
    .map_err(|error| ApiError::new(Kind::Internal, error.to_string()))??;
    let frame = Frame {
        head: reply.clone(),
        body: [],
    };
    let bytes = frame
        .encode()
        .map_err(|error| ApiError::new(Kind::Internal, error.to_string()))?;
    Ok((reply, bytes))
}

fn check(bytes: &Bytes) -> Result<Vec<Item>, ApiError> {
    let fault = |path: String, message: String| {
        ApiError::new(Kind::Malformed, format!("{path}: {message}"))
    };
    let frame: Frame<SettleRequest, &[u8]> =
        Frame::decode(bytes).map_err(|error| ApiError::new(Kind::Malformed, error.to_string()))?;
    let found = frame.head.items.len();
    if found > limit::SETTLE_ITEMS {
        let message = format!("expected at most {}, found {found}", limit::SETTLE_ITEMS);
        return Err(fault("items".to_owned(), message));
    }
    let mut rest = bytes.slice_ref(frame.body);
    let mut items = Vec::with_capacity(found);
    for (index, mut settle) in frame.head.items.into_iter().enumerate() {
        let at = |field: &str| format!("items[{index}].{field}");
        let id = settle
            .record
            .id
            .parse()
            .map_err(|error| fault(at("record.id"), error))?;
        let counted = &settle.counted;
        if counted.len() > MAX_COUNTED || counted.iter().any(|it| it.counter.len() > MAX_COUNTER) {
            let message = format!(
                "expected at most {MAX_COUNTED} counters of at most {MAX_COUNTER} bytes, found more"
            );
            return Err(fault(at("counted"), message));
        }
        let answer = match &settle.store {
            None => None,
            Some(store) => {
                let key = store
                    .key
                    .parse()
                    .map_err(|error| fault(at("store.key"), error))?;
                let len = usize::try_from(store.len).unwrap_or(usize::MAX);
                if len > rest.len() {
                    let message = format!("expected {len} bytes of answer, found {}", rest.len());
                    return Err(fault(at("store.len"), message));
                }
                Some((key, rest.split_to(len)))
            }
        };
        let vectors = match &settle.vectors {
            None => Vec::new(),
            Some(store) => {
                vectors(store, &mut rest).map_err(|message| fault(at("vectors.tokens"), message))?
            }
        };
        let question = settle.store.as_ref().and_then(|it| it.question.as_ref());
        let scope = question.map(|it| it.scope.parse()).transpose();
        let scope = scope.map_err(|error| fault(at("store.question.scope"), error))?;
        let release = match &settle.release {
            None => None,
            Some(release) => {
                let key = release.key.parse();
                let lease = Lease::try_from(&release.lease);
                Some((
                    key.map_err(|error| fault(at("release.key"), error))?,
                    lease.map_err(|error| fault(at("release.lease.holder"), error))?,
                    release.end,
                ))
            }
        };
        let audit = match &settle.audit {
            None => None,
            Some(audit) => {
                let key = audit.key.parse();
                Some(Audited {
                    key: key.map_err(|error| fault(at("audit.key"), error))?,
                    rate: f64::from(audit.false_ppm) / 1e6,
                    // A part of the batch would keep all of it in memory while it waits its turn.
                    answer: answer
                        .as_ref()
                        .filter(|(_, body)| body.len() <= MAX_ANSWER)
                        .map(|(_, body)| Bytes::copy_from_slice(body)),
                })
            }
        };
        let tenant = &settle.record.tenant;
        let (conversation, order) = match &mut settle.sent {
            None => (None, None),
            Some(sent) => {
                let found = sent.state.len();
                if found > limit::STATE {
                    let message = format!("expected at most {} bytes, found {found}", limit::STATE);
                    return Err(fault(at("sent.state"), message));
                }
                let key = sent.conversation.parse();
                let key: Key = key.map_err(|error| fault(at("sent.conversation"), error))?;
                let order = sent.order.take();
                if let Some((field, message)) = order.as_ref().and_then(too_much) {
                    return Err(fault(at(&format!("sent.order.{field}")), message));
                }
                let order = order.map(|order| Job {
                    conversation: key,
                    tenant: tenant.clone(),
                    order,
                    ttl_secs: u64::from(sent.ttl_secs),
                });
                (Some(key), order)
            }
        };
        items.push(Item {
            id,
            settle,
            answer,
            vectors,
            scope,
            release,
            audit,
            conversation,
            order,
        });
    }
    if rest.is_empty() {
        Ok(items)
    } else {
        let message = format!(
            "expected the answers of `items`, found {} bytes more",
            rest.len()
        );
        Err(fault("body".to_owned(), message))
    }
}

/// The field of an order that has more than it may, and what is wrong.
fn too_much(order: &Order) -> Option<(&'static str, String)> {
    let kept = order.kept.as_deref().unwrap_or_default();
    let fields = [
        ("id", order.id.len(), limit::SUMMARY_ID),
        ("kept", kept.len(), limit::SUMMARY_ID),
        ("model", order.model.len(), MAX_MODEL),
        ("text", order.text.len(), limit::ORDER),
    ];
    let (field, found, most) = fields.into_iter().find(|(_, found, most)| found > most)?;
    Some((
        field,
        format!("expected at most {most} bytes, found {found}"),
    ))
}

/// Takes an item's vectors off what is left of the body.
fn vectors(store: &StoreVectors, rest: &mut Bytes) -> Result<Vec<(Key, Bytes)>, String> {
    let count = store.tokens.len();
    if count > limit::INPUTS {
        return Err(format!("expected at most {}, found {count}", limit::INPUTS));
    }
    let len = store.body_len();
    if len > rest.len() as u64 {
        return Err(format!(
            "expected {len} bytes of vectors, found {}",
            rest.len()
        ));
    }
    let mut one = || {
        let mut key = [0; limit::KEY];
        key.copy_from_slice(&rest.split_to(limit::KEY));
        (Key::new(key), rest.split_to(store.len as usize))
    };
    Ok((0..count).map(|_| one()).collect())
}

async fn book(app: &Arc<App>, mut items: Vec<Item>) -> Result<SettleReply, ApiError> {
    let now_ms = app.clock.now_ms();
    let ids: Vec<Id> = items.iter().map(|item| item.id).collect();
    let (claims, alone) = app.claim(&ids).await;
    let busy = claims.contains(&Claim::Busy);
    let elsewhere = claims.iter().filter(|it| **it == Claim::Booked).count();
    let mut claim = claims.into_iter();
    items.retain(|_| claim.next() == Some(Claim::Book));

    // Before the ledger: others wait for these answers, and to keep one twice changes nothing.
    let told = join_all(items.iter().map(async |item| {
        let (_, told) = tokio::join!(keep(app, item, now_ms), tell_next_turn(app, item, now_ms));
        told
    }))
    .await;

    let (mut settles, mut spends, mut behind) = (Vec::new(), Vec::new(), Vec::new());
    for (item, told) in items.into_iter().zip(told) {
        // What an order costs is in what is told: it is not written where that is not.
        if item.order.is_some() && !told {
            app.metrics.summary("dropped");
        }
        behind.push((item.audit, item.order.filter(|_| told)));
        spends.push(Spend {
            id: item.id,
            at_ms: item.settle.record.at_ms,
            counted: item.settle.counted.clone(),
        });
        settles.push(item.settle);
    }
    let settles = Arc::new(settles);
    let fresh = match app
        .ledger
        .book(settles.clone(), Booking { now_ms, alone })
        .await
    {
        Ok(fresh) => fresh,
        Err(error) => {
            app.unclaim(&spends).await;
            let kind = match error {
                LedgerError::Busy => Kind::Busy,
                LedgerError::Database(_) | LedgerError::Closed => Kind::Ledger,
            };
            return Err(ApiError::new(kind, format!("ledger: {error}")));
        }
    };

    app.settle(now_ms, &spends, &fresh).await;
    let booked = settles.iter().zip(behind).zip(&fresh);
    for ((settle, (audit, order)), _) in booked.filter(|(_, new)| **new) {
        app.metrics.booked(&settle.record);
        if let Some(job) = order {
            summaries::order(app, job);
        }
        if let Some(audited) = audit {
            audit_answers(app, &settle.record.route, audited);
        }
    }

    if busy {
        return Err(ApiError::new(
            Kind::Busy,
            "another sidecar is settling some of these; ask again",
        ));
    }
    let booked = fresh.iter().filter(|new| **new).count();
    let repeated = fresh.len() - booked + elsewhere;
    Ok(SettleReply {
        booked: u32::try_from(booked).unwrap_or(u32::MAX),
        repeated: u32::try_from(repeated).unwrap_or(u32::MAX),
    })
}

/// Keeps an item's answer, ends its lease, and tells those who wait here.
async fn keep(app: &Arc<App>, item: &Item, now_ms: u64) {
    let mut told = None;
    if let (Some(store), Some((key, body))) = (&item.settle.store, &item.answer)
        && store.ttl_secs > 0
    {
        app.observe(*key, &item.settle.record.route, (store, body));
        let entry = Entry {
            tags: store.tags.clone(),
            head: store.entry.clone(),
            body: body.clone(),
            ..timed(
                item,
                (store.ttl_secs, store.stale_secs, store.stale_if_error_secs),
                now_ms,
            )
        };
        let keep_ms = entry.keep_ms;
        let awaited = app
            .waiting
            .anyone(*key)
            .then(|| (*key, Arc::new(entry.clone())));
        let put = app.cache.put(*key, entry).await;
        app.metrics.stored(cache::name(&put));
        if matches!(put, Ok(Put::Stored)) {
            keep_question(app, item, (*key, keep_ms));
        }
        // Also where it could not be kept: those who wait have it all the same.
        if !matches!(put, Ok(Put::Fenced | Put::Voided)) {
            told = awaited;
        }
    }
    if let Some(store) = item.settle.vectors.as_ref().filter(|it| it.ttl_secs > 0) {
        let like = timed(item, (store.ttl_secs, 0, store.stale_if_error_secs), now_ms);
        inputs::keep(app, store, (&item.vectors, &like)).await;
    }
    if let Some((key, lease, end)) = item.release {
        let end = match (end, item.settle.record.cache) {
            (LeaseEnd::Failed, CacheResult::Refresh) => End::Rest,
            (end, _) => end.into(),
        };
        app.leases.end(key, lease, (end, now_ms)).await;
        if told.is_none() {
            app.waiting.tell(key, Signal::Changed);
        }
    }
    if let Some((key, entry)) = told {
        app.waiting.tell(key, Signal::Answered(entry));
    }
}

/// Keeps what the next turn of an item's conversation is to be told.
/// Whether it will be told.
async fn tell_next_turn(app: &App, item: &Item, now_ms: u64) -> bool {
    let (Some(sent), Some(key)) = (&item.settle.sent, item.conversation) else {
        return false;
    };
    let turn = Turn {
        key,
        state: &sent.state,
        at_ms: item.settle.record.at_ms,
        ttl_secs: u64::from(sent.ttl_secs),
    };
    let told = app.conversations.tell(turn, now_ms).await;
    app.metrics.conversation_written(match told {
        Ok(true) => "stored",
        Ok(false) => "overtaken",
        Err(_) => "error",
    });
    told.unwrap_or(false)
}

/// An entry without content that lives so many seconds: fresh, stale beyond that, and kept beyond
/// `fresh` for an upstream that fails.
fn timed(item: &Item, (fresh, stale, if_error): (u64, u64, u64), now_ms: u64) -> Entry {
    let built_ms = item.settle.record.at_ms.min(now_ms);
    let fresh_ms = until(now_ms, fresh);
    let stale_ms = until(fresh_ms, stale);
    Entry {
        stored_ms: now_ms,
        built_ms,
        fresh_ms,
        stale_ms,
        keep_ms: until(fresh_ms, if_error).max(stale_ms),
        // Without a lease the later request wins; a filter's clock that is ahead wins nothing.
        token: match item.release {
            Some((_, lease, _)) if lease.token > 0 => lease.token,
            _ => built_ms.saturating_mul(1000),
        },
        tags: Vec::new(),
        head: EntryHead::default(),
        body: Bytes::new(),
    }
}

/// Keeps the question of an answer that was stored, behind the settlement: it may have to be
/// embedded first.
fn keep_question(app: &Arc<App>, item: &Item, (key, until_ms): (Key, u64)) {
    let store = item.settle.store.as_ref();
    let answered = store.filter(|store| store.entry.status == 200);
    if let Some(question) = answered.and_then(|store| store.question.as_ref())
        && let (Some(semantic), Some(scope)) = (app.semantic.clone(), item.scope)
    {
        let (app, text) = (app.clone(), question.text.clone());
        tokio::spawn(async move {
            let told = semantic.keep((scope, &text), (key, until_ms)).await;
            app.metrics.compared_stored(told.result);
        });
    }
}

/// Compares the two answers of an audit, behind the settlement, and moves the route's threshold.
fn audit_answers(app: &Arc<App>, route: &str, audited: Audited) {
    let (app, route) = (app.clone(), route.to_owned());
    tokio::spawn(async move {
        let stored = match (&app.semantic, &audited.answer) {
            (Some(_), Some(_)) => app.cache.get(audited.key, app.clock.now_ms()).await.ok(),
            _ => None,
        };
        let agreement = match (&app.semantic, stored, &audited.answer) {
            (Some(semantic), Some(Found::Entry(entry)), Some(answer)) => {
                let answers = (&entry.body[..], &answer[..]);
                semantic.audited(answers, (&route, audited.rate)).await
            }
            _ => Agreement::Unjudged,
        };
        app.metrics.audited(&route, agreement.name());
    });
}

/// So many seconds on, as far as an entry may live.
fn until(from_ms: u64, secs: u64) -> u64 {
    from_ms.saturating_add(secs.min(MAX_TTL_SECS) * 1000)
}
