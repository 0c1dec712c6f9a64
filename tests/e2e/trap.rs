//! A VM of the filter that traps: what that costs, and that Envoy starts it anew.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what a test's helper cannot do fails the test"
)]

#[expect(dead_code, reason = "it can do more than these tests ask of it")]
mod fake_sidecar;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fake_sidecar::{FakeSidecar, Manner};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use sluice_tests::client::Client;
use sluice_tests::process::eventually;
use sluice_tests::provider::Fault;
use sluice_tests::requests::{CHAT, EASY, chat};
use sluice_tests::stack::{Setup, Stack, caching, tiers};
use sluice_wire::Record;
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

/// The shipped filter, except that it traps at the trailers of a request, which no other request
/// of these tests has.
fn trapping(dir: &Path) -> PathBuf {
    const CALLBACK: &str = "proxy_on_request_trailers";
    let mut module = std::fs::read(sluice_tests::tools::filter().unwrap()).unwrap();
    let (mut imported, mut exports, mut bodies) = (0, Vec::new(), Vec::new());
    for payload in Parser::new(0).parse_all(&module) {
        match payload.unwrap() {
            Payload::ImportSection(imports) => {
                let types = imports.into_imports().map(|import| import.unwrap().ty);
                imported = types.filter(|ty| matches!(ty, TypeRef::Func(_))).count();
            }
            Payload::ExportSection(section) => {
                let all = section.into_iter().map(Result::unwrap);
                exports.extend(all.filter(|export| export.kind == ExternalKind::Func));
            }
            Payload::CodeSectionEntry(body) => bodies.push(body.range()),
            _ => {}
        }
    }
    let callback = exports.iter().find(|export| export.name == CALLBACK);
    let index = callback.expect("the filter has the callback").index;
    let sharing = exports.iter().filter(|export| export.index == index);
    assert_eq!(sharing.count(), 1, "the optimiser merged it with another");
    let body = bodies[index as usize - imported].clone();
    let code = &mut module[body.start as usize..body.end as usize];
    // No locals, `unreachable`, `nop`s as far as it goes, `end`.
    code.fill(0x01);
    (code[0], code[1], code[code.len() - 1]) = (0x00, 0x00, 0x0b);
    let path = dir.join("trapping.wasm");
    std::fs::write(&path, module).unwrap();
    path
}

const SOON: Duration = Duration::from_secs(20);

/// Makes the VM of the worker trap that has the client's connection.
async fn trap(client: &Client) {
    let answer = client.post_with_trailer(CHAT.path, &chat("trap")).await;
    assert_eq!(answer.unwrap().status, 503);
}

/// VMs that were started anew.
async fn reloads(stack: &Stack) -> u64 {
    let metrics = stack.envoy().metrics().await.unwrap();
    metrics.sum("wasm.sluice.vm_reload_success", &[])
}

/// A budget with room for one [`dear`] request.
fn budget() -> Value {
    json!([{"per": "tenant", "tokens": 20_000, "every": "month", "over": "reject"}])
}

fn dear(word: &str) -> Value {
    chat(&format!("{word} ").repeat(12_000))
}

#[tokio::test]
async fn a_vm_that_traps_is_started_anew_and_nothing_that_was_settled_is_lost_or_booked_twice() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"route": tiers(), "cache": caching(), "budgets": budget()});
    let stack = Stack::start(Setup {
        module: Some(trapping(dir.path())),
        ..Setup::with(config)
    })
    .await
    .unwrap();
    // Each client has a connection of its own, to whichever worker.
    let client = |task: &str, tenant: &str| {
        let client = stack.internal().with("x-sluice-task", task);
        client.with("x-tenant", tenant)
    };
    let ask = async |task: &str, tenant: &str, body: &Value| {
        let client = client(task, tenant);
        client.post(CHAT.path, body).await.unwrap()
    };
    let first = ask("before", "spender", &dear("word")).await;
    assert_eq!(first.status, 200, "{}", first.text());
    for number in 0..4 {
        let body = chat(&format!("{EASY} {number}"));
        assert_eq!(ask("before", "acme", &body).await.status, 200);
    }
    stack.settled(5).await.unwrap();

    // The record of an answered request may still lie in the VM that traps on its connection.
    let queued = client("queued", "acme");
    let answer = queued.post(CHAT.path, &chat(EASY)).await.unwrap();
    assert_eq!(answer.status, 200);
    trap(&queued.with("x-sluice-task", "trapped")).await;

    let mut after = 0;
    eventually(SOON, async || {
        let tenant = format!("tenant-{after}");
        let answer = ask("after", &tenant, &chat(&format!("{EASY} {tenant}"))).await;
        assert!([200, 503].contains(&answer.status), "{}", answer.text());
        after += usize::from(answer.status == 200);
        match reloads(&stack).await {
            0 => Err("no VM was started anew".to_owned()),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    for number in 0..8 {
        let answer = ask("after", "acme", &chat(&format!("{EASY} again {number}"))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("x-sluice-tier"), Some("small"));
        assert_eq!(answer.header("x-sluice-cache"), Some("miss"));
        after += 1;
    }
    let upstream = stack.provider().stats().http_requests;
    let expected = 5 + 1 + after as u64;
    assert_eq!(upstream, expected, "the request that trapped went nowhere");

    let of = |records: &[Record], task: &str| {
        let records = records.iter().filter(|record| record.task == task);
        records.count()
    };
    let settled = eventually(SOON, async || {
        let records = stack.sidecar().records();
        let records = records.map_err(|error| format!("{error:#}"))?;
        match of(&records, "after") {
            booked if booked == after => Ok(records),
            booked => Err(format!("{booked} booked, expected {after}")),
        }
    });
    let records = settled.await.unwrap();
    let ids: BTreeSet<&str> = records.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids.len(), records.len(), "none is booked twice");
    assert_eq!((of(&records, "before"), of(&records, "trapped")), (5, 0));
    assert!(of(&records, "queued") <= 1, "{records:?}");

    // Budgets and caches know what was before the trap, and the cache what came after it.
    let second = ask("over", "spender", &dear("more")).await;
    assert_eq!(second.status, 429, "{}", second.text());
    for text in [format!("{EASY} 0"), format!("{EASY} again 0")] {
        let answer = ask("hit", "acme", &chat(&text)).await;
        assert_eq!(answer.header("x-sluice-cache"), Some("hit"), "{text}");
    }
    let told = stack.envoy().prometheus().await.unwrap();
    assert!(told.contains("envoy_wasm_sluice_vm_reload_success{} 1\n"));
}

#[tokio::test]
async fn what_is_under_way_in_a_vm_that_traps_breaks_off_or_ends_by_the_idle_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeSidecar::start(Manner::Go).await;
    let stack = Stack::start(Setup {
        module: Some(trapping(dir.path())),
        sidecar_at: Some(fake.address),
        concurrency: 1,
        idle_secs: 6,
        ..Setup::with(json!({"cache": caching(), "sidecar": {"timeout": "4s"}}))
    })
    .await
    .unwrap();
    stack.provider().fault(Fault {
        chunk_delay_ms: 100,
        ..Fault::default()
    });
    let response = stack.client().open(CHAT.path, &CHAT.streamed(EASY)).await;
    let mut stream = response.unwrap().bytes_stream();
    stream.next().await.unwrap().unwrap();
    let ask = |text: &'static str| {
        let client = stack.client();
        tokio::spawn(async move { client.post(CHAT.path, &chat(text)).await })
    };
    // Held by the filter until it is whole, which takes seconds.
    stack.provider().fault(Fault {
        cut_bytes: Some(10),
        chunk_delay_ms: 100,
        ..Fault::default()
    });
    let held = ask("answered");
    eventually(SOON, async || {
        match stack.provider().stats().http_requests {
            2 => Ok(()),
            requests => Err(format!("{requests} requests")),
        }
    })
    .await
    .unwrap();
    fake.behave(Manner::Hang);
    let waiting = ask("not admitted");
    eventually(SOON, async || match fake.admits() {
        3 => Ok(()),
        admits => Err(format!("{admits} calls")),
    })
    .await
    .unwrap();
    fake.behave(Manner::Go);
    trap(&stack.client()).await;

    let broken = stream.any(|chunk| std::future::ready(chunk.is_err()));
    assert!(broken.await, "the stream must not look whole");
    assert_eq!(held.await.unwrap().unwrap().status, 503);
    // Neither the sidecar's answer nor its timeout reaches it any more: Envoy's idle timeout does.
    assert_eq!(waiting.await.unwrap().unwrap().status, 503);
    eventually(SOON, async || {
        match ask(EASY).await.unwrap().unwrap().status {
            200 => Ok(()),
            status => Err(format!("status {status}")),
        }
    })
    .await
    .unwrap();
    assert_eq!(reloads(&stack).await, 1);
}

#[tokio::test]
async fn budgets_that_envoy_keeps_outlive_a_vm_that_traps() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup {
        module: Some(trapping(dir.path())),
        concurrency: 1,
        ..Setup::with(json!({"budgets": budget()}))
    };
    let stack = Stack::start(setup.without_sidecar()).await.unwrap();
    let client = stack.client();
    let answer = client.post(CHAT.path, &dear("word")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    trap(&client).await;
    let status = eventually(SOON, async || {
        match client.post(CHAT.path, &dear("more")).await.unwrap().status {
            503 => Err("no VM was started anew".to_owned()),
            status => Ok(status),
        }
    });
    assert_eq!(status.await.unwrap(), 429);
}
