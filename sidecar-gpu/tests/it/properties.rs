//! Whatever is put, dropped and invalidated, in whatever order: a look-up finds what was put under
//! its own key, by its own tenant, that is neither over, nor fenced off, nor void. The stores are
//! held against a model that keeps everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use sluice::cache::{CacheStore, Entry, Found, Layered, MemoryCache, Put, RedisCache};
use sluice::config::{Local, Patience, Secret};
use sluice::store::Link;
use sluice_core::config::Scope;
use sluice_core::exchange::Headers;
use sluice_core::formats;
use sluice_core::policy::cache_key::{self, KeyInput};
use sluice_wire::{EntryHead, scoped_tag};
use tokio::runtime::Runtime;

use crate::common::{NOW, Redis};

/// Names that differ by little, or try to pass for others.
const TENANTS: [&str; 5] = ["acme", "acme/", "acme%2F", "", "globex"];
const TAGS: [&str; 3] = ["doc:1", "doc:2", "acme/doc:1"];
const QUESTIONS: [&str; 3] = ["a", "b", "a "];

/// The filter's own key for a question of a tenant.
fn key_of(scope: Scope, tenant: usize, question: usize) -> String {
    let body = format!(
        r#"{{"model":"gpt-4o","messages":[{{"role":"user","content":"{}"}}]}}"#,
        QUESTIONS[question]
    );
    let path = "/v1/chat/completions";
    let format = formats::by_path(path).unwrap();
    let request = format.parse(&body).unwrap();
    let headers: Headers = [(":authority", "api"), (":path", path)]
        .into_iter()
        .collect();
    cache_key::exact(&KeyInput {
        scope,
        tenant: TENANTS[tenant],
        format,
        request: &request,
        headers: &headers,
        key_headers: &[],
        model: "gpt-4o",
        output_limit: None,
        policies: &[0; 32],
    })
    .unwrap()
}

/// Who asks what, and with whom the answer may be shared.
#[derive(Clone, Copy, Debug)]
struct Who {
    global: bool,
    tenant: usize,
    question: usize,
}

impl Who {
    fn key(self) -> String {
        let scope = if self.global {
            Scope::Global
        } else {
            Scope::Tenant
        };
        key_of(scope, self.tenant, self.question)
    }

    fn tag(self, tag: usize) -> String {
        let tenant = (!self.global).then_some(TENANTS[self.tenant]);
        scoped_tag(tenant, TAGS[tag])
    }

    /// What its answers begin with; equal only where they may be shared.
    fn owner(self) -> String {
        match self.global {
            true => format!("everyone's {}", QUESTIONS[self.question]),
            false => format!("{:?}'s {}", TENANTS[self.tenant], QUESTIONS[self.question]),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put {
        who: Who,
        /// How long the request had been under way.
        took_ms: u64,
        life_ms: u64,
        /// How much earlier or later its lease was than its request.
        token: u64,
        tags: Vec<usize>,
    },
    Get(Who),
    Drop(Who),
    Invalidate {
        tenant: Option<usize>,
        tag: usize,
    },
    Clear,
    Wait(u64),
}

fn who() -> impl Strategy<Value = Who> {
    let parts = (
        prop::bool::weighted(0.3),
        0..TENANTS.len(),
        0..QUESTIONS.len(),
    );
    parts.prop_map(|(global, tenant, question)| Who {
        global,
        tenant,
        question,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let tags = prop::collection::vec(0..TAGS.len(), 0..3);
    let put = (who(), 0_u64..50, 10_000_u64..100_000, 0_u64..100, tags);
    let invalidate = (prop::option::of(0..TENANTS.len()), 0..TAGS.len());
    prop_oneof![
        8 => put.prop_map(|(who, took_ms, life_ms, token, tags)| Step::Put {
            who, took_ms, life_ms, token, tags,
        }),
        12 => who().prop_map(Step::Get),
        1 => who().prop_map(Step::Drop),
        3 => invalidate.prop_map(|(tenant, tag)| Step::Invalidate { tenant, tag }),
        1 => Just(Step::Clear),
        4 => (1_u64..100).prop_map(Step::Wait),
        1 => (10_000_u64..60_000).prop_map(Step::Wait),
    ]
}

/// What is certain about a store after so many steps.
#[derive(Default)]
struct Model {
    entries: BTreeMap<String, Entry>,
    stamps: Vec<(String, u64)>,
}

impl Model {
    fn void(&self, entry: &Entry) -> bool {
        entry.tags.iter().any(|tag| {
            let (_, rest) = tag.split_once('/').unwrap();
            self.stamps.iter().any(|(stamp, at_ms)| {
                (stamp == tag || *stamp == format!("/{rest}")) && entry.built_ms <= *at_ms
            })
        })
    }

    fn put(&self, key: &str, entry: &Entry) -> Put {
        match self.entries.get(key) {
            _ if self.void(entry) => Put::Voided,
            Some(before) if before.token > entry.token => Put::Fenced,
            _ => Put::Stored,
        }
    }
}

/// How far a store may know less than the model.
#[derive(Clone, Copy, PartialEq)]
enum Strict {
    /// Not at all.
    Yes,
    /// It may void what has tags, once in a while: Redis does when a tag is new to it.
    Untagged,
}

async fn run(stores: &[&dyn CacheStore], strict: Strict, steps: &[Step]) {
    let mut model = Model::default();
    let mut now_ms = NOW;
    for (n, step) in steps.iter().enumerate() {
        // Sidecars take turns.
        let store = stores[n % stores.len()];
        match step {
            Step::Put {
                who,
                took_ms,
                life_ms,
                token,
                tags,
            } => {
                let end_ms = now_ms + life_ms;
                let entry = Entry {
                    stored_ms: now_ms,
                    built_ms: (now_ms - took_ms).max(NOW),
                    fresh_ms: now_ms + life_ms / 2,
                    stale_ms: end_ms,
                    keep_ms: end_ms,
                    token: now_ms * 1_000 - took_ms * 1_000 + token * 1_000,
                    tags: tags.iter().map(|&tag| who.tag(tag)).collect(),
                    head: EntryHead::default(),
                    body: Bytes::from(format!("{} by step {n}", who.owner())),
                };
                let key = who.key();
                let put = store
                    .put(key.parse().unwrap(), entry.clone())
                    .await
                    .unwrap();
                let expected = model.put(&key, &entry);
                if put != expected {
                    assert!(
                        strict == Strict::Untagged && put == Put::Voided && !tags.is_empty(),
                        "step {n}: {put:?}, not {expected:?}"
                    );
                }
                if put == Put::Stored {
                    model.entries.insert(key, entry);
                }
            }
            Step::Get(who) => {
                let key = who.key();
                let found = store.get(key.parse().unwrap(), now_ms).await.unwrap();
                let expected = model
                    .entries
                    .get(&key)
                    .filter(|it| now_ms < it.keep_ms && !model.void(it));
                match (found, expected) {
                    (Found::Entry(found), Some(expected)) => {
                        assert_eq!(*found, *expected, "step {n}");
                        assert!(found.body.starts_with(who.owner().as_bytes()), "step {n}");
                    }
                    (Found::Miss, None) => {}
                    (Found::Miss, Some(expected)) => assert!(
                        strict == Strict::Untagged && !expected.tags.is_empty(),
                        "step {n}: {expected:?} is gone"
                    ),
                    (found, expected) => panic!("step {n}: {found:?}, not {expected:?}"),
                }
            }
            Step::Drop(who) => {
                let key = who.key();
                let there = store.remove(key.parse().unwrap()).await.unwrap();
                let expected = model.entries.remove(&key).is_some();
                assert_eq!(there, expected, "step {n}");
            }
            Step::Invalidate { tenant, tag } => {
                let tag = scoped_tag(tenant.map(|it| TENANTS[it]), TAGS[*tag]);
                store.invalidate(&tag, now_ms).await.unwrap();
                model.stamps.push((tag, now_ms));
            }
            Step::Clear => {
                store.clear().await.unwrap();
                model.entries.clear();
            }
            Step::Wait(ms) => now_ms += ms,
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..120)
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn link(redis: &Redis) -> Arc<Link> {
    let patience = Patience {
        timeout: Duration::from_secs(5),
        failures: 5,
        pause: Duration::from_secs(5),
    };
    let mut client = redis.client().get_connection().unwrap();
    let () = redis::cmd("FLUSHALL").query(&mut client).unwrap();
    Arc::new(Link::new(&Secret::new(redis.url()), patience).unwrap())
}

#[test]
fn keys_of_two_tenants_and_of_two_scopes_never_meet() {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (global, tenant, question) in [true, false]
        .into_iter()
        .flat_map(|global| (0..TENANTS.len()).map(move |tenant| (global, tenant)))
        .flat_map(|(global, tenant)| (0..QUESTIONS.len()).map(move |it| (global, tenant, it)))
    {
        let who = Who {
            global,
            tenant,
            question,
        };
        let owner = seen.entry(who.key()).or_insert_with(|| who.owner());
        assert_eq!(*owner, who.owner());
    }
    let shared = QUESTIONS.len();
    assert_eq!(seen.len(), shared + TENANTS.len() * QUESTIONS.len());
}

proptest! {
    #![proptest_config(config(512))]
    #[test]
    fn keys_of_any_two_tenants_differ_in_their_own_scope(
        one in ".{0,12}", two in ".{0,12}", question in "[a-z ]{1,8}",
    ) {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{question}"}}]}}"#);
        let format = formats::by_path("/v1/chat/completions").unwrap();
        let request = format.parse(&body).unwrap();
        let headers = Headers::default();
        let key = |scope, tenant: &str| cache_key::exact(&KeyInput {
            scope,
            tenant,
            format,
            request: &request,
            headers: &headers,
            key_headers: &[],
            model: "m",
            output_limit: None,
            policies: &[0; 32],
        });
        prop_assert_eq!(key(Scope::Tenant, &one) == key(Scope::Tenant, &two), one == two);
        prop_assert_ne!(key(Scope::Tenant, &one), key(Scope::Global, &one));
        prop_assert_eq!(key(Scope::Global, &one), key(Scope::Global, &two));
    }

    #[test]
    fn the_memory_store_is_the_model(steps in steps()) {
        let runtime = Runtime::new().unwrap();
        let store = MemoryCache::new(1 << 30, NOW);
        runtime.block_on(run(&[&store], Strict::Yes, &steps));
    }
}

#[test]
fn the_redis_store_and_the_layer_in_front_of_it_know_no_more_than_the_model() {
    let Some(redis) = Redis::start() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(config(48));
    let outcome = runner.run(&(steps(), 0..3_usize), |(steps, kind)| {
        runtime.block_on(async {
            let local = Local {
                memory: 1 << 20,
                life: Duration::from_secs(3600),
            };
            match kind {
                0 => {
                    let store = RedisCache::new(link(&redis));
                    run(&[&store], Strict::Untagged, &steps).await;
                }
                1 => {
                    // Two sidecars without a layer see the same at once.
                    let link = link(&redis);
                    let (one, two) = (RedisCache::new(link.clone()), RedisCache::new(link));
                    run(&[&one, &two], Strict::Untagged, &steps).await;
                }
                _ => {
                    let store = Layered::new(link(&redis), local);
                    tokio::select! {
                        () = store.listen() => {}
                        () = async {
                            while store.layers()[0].subscribed != Some(true) {
                                tokio::task::yield_now().await;
                            }
                            run(&[&store], Strict::Untagged, &steps).await;
                        } => {}
                    }
                }
            }
        });
        Ok(())
    });
    outcome.unwrap();
}
