//! Redis by TLS, and a cluster of three.

use std::net::TcpListener;

use redis::Commands;
use serde_json::{Value, json};
use sluice_wire::{Over, Verdict};

use crate::common::{
    OPERATOR, Redis, Sidecar, ask, charge, id, item, key, plan, tagged, until, with_answer,
};
use crate::embeddings;
use crate::mtls::{authority, issue};

/// Ports that were free a moment ago: Redis cannot choose its own.
fn free<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|it| it.local_addr().unwrap().port())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Certificates of a server, as Redis's options and as files.
struct Certificates {
    options: String,
    ca: String,
    files: tempfile::TempDir,
}

impl Certificates {
    fn of(name: &str) -> Self {
        let ours = authority();
        let (cert, key) = issue(&ours, name);
        let mut all = Certificates {
            options: String::new(),
            ca: String::new(),
            files: tempfile::tempdir().unwrap(),
        };
        let (cert, key) = (all.write("cert.pem", &cert), all.write("key.pem", &key));
        all.ca = all.write("ca.pem", &ours.pem());
        all.options = format!(
            "--tls-cert-file {cert} --tls-key-file {key} --tls-ca-cert-file {} --tls-auth-clients no",
            all.ca
        );
        all
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_redis_behind_tls_is_trusted_by_the_authority_that_the_config_names() {
    let certificates = Certificates::of("localhost");
    let [port] = free();
    let options = words(&format!(
        "--tls-port {port} --bind 127.0.0.1 {}",
        certificates.options
    ));
    let Some(_redis) = Redis::start_with(&options) else {
        return;
    };
    let patch = |ca: &str| {
        json!({
            "store": format!("rediss://localhost:{port}"),
            "cache": {"local": {}},
            "redis": {"timeout": "2s", "ca": ca},
        })
    };
    let sidecar = Sidecar::new(&patch(&certificates.ca));
    let app = sidecar.app.clone();
    tokio::spawn(async move { app.listen().await });
    sidecar
        .settle(vec![with_answer(item(1, 1), key(1), 1)], b"a")
        .await;
    assert_eq!(sidecar.hit(key(1)).await.unwrap(), b"a");
    until("the subscription is by TLS too", async || {
        let text = sidecar.metrics().await;
        text.contains("sluice_cache_local_subscribed 1")
    })
    .await;

    let stranger = Sidecar::new(&patch(&certificates.write("other.pem", &authority().pem())));
    assert_eq!(stranger.hit(key(1)).await, None);
    let text = stranger.metrics().await;
    assert!(
        text.contains("sluice_cache_lookups_total{result=\"error\"} 1"),
        "{text}"
    );
}

/// Three masters that share the slots, by TLS or without.
fn cluster(certificates: Option<&Certificates>) -> Option<(Vec<Redis>, String)> {
    let (port_option, more, scheme) = match certificates {
        None => ("--port", "", "redis+cluster"),
        Some(it) => (
            "--tls-cluster yes --tls-port",
            &*it.options,
            "rediss+cluster",
        ),
    };
    let ports = [free::<2>(), free(), free()];
    let mut nodes = Vec::new();
    for [port, bus] in ports {
        nodes.push(Redis::start_with(&words(&format!(
            "{port_option} {port} --bind 127.0.0.1 --cluster-enabled yes --cluster-port {bus} \
             --cluster-node-timeout 5000 {more}"
        )))?);
    }
    let ranges = [(0, 5460), (5461, 10922), (10923, 16383)];
    for (n, (node, (from, to))) in nodes.iter().zip(ranges).enumerate() {
        let mut client = node.client().get_connection().unwrap();
        let mut call = |text: String| {
            let mut command = redis::cmd("CLUSTER");
            command.arg(words(&text));
            let answer: String = command.query(&mut client).unwrap();
            assert_eq!(answer, "OK", "{text}");
        };
        call(format!("SET-CONFIG-EPOCH {}", n + 1));
        call(format!("ADDSLOTSRANGE {from} {to}"));
        for [port, bus] in ports {
            call(format!("MEET 127.0.0.1 {port} {bus}"));
        }
    }
    let hosts = ports.map(|[port, _]| format!("127.0.0.1:{port}")).join(",");
    Some((nodes, format!("{scheme}://{hosts}")))
}

async fn joined(nodes: &[Redis]) {
    until("the cluster is whole", async || {
        nodes.iter().all(|node| {
            let mut client = node.client().get_connection().unwrap();
            let info: String = redis::cmd("CLUSTER")
                .arg("INFO")
                .query(&mut client)
                .unwrap();
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        })
    })
    .await;
}

#[tokio::test]
async fn a_cluster_spreads_answers_and_keeps_budgets_tags_and_layers() {
    let Some((nodes, url)) = cluster(None) else {
        return;
    };
    joined(&nodes).await;
    let patch = json!({
        "store": url,
        "cache": {"local": {"ttl": "1h"}},
        "redis": {"timeout": "5s"},
    });
    let (one, two) = (Sidecar::new(&patch), Sidecar::new(&patch));
    for sidecar in [&one, &two] {
        let app = sidecar.app.clone();
        tokio::spawn(async move { app.listen().await });
        until("it subscribes", async || {
            let text = sidecar.metrics().await;
            text.contains("sluice_cache_local_subscribed 1")
        })
        .await;
    }

    for n in 1..=30 {
        one.settle(vec![tagged(n, "acme/doc:1", 0, &[n])], &[n])
            .await;
    }
    for n in 1..=30 {
        assert_eq!(two.hit(key(n)).await, Some(vec![n]));
    }
    let mut kept = Vec::new();
    for node in &nodes {
        let mut client = node.client().get_connection().unwrap();
        kept.push(client.keys::<_, Vec<Vec<u8>>>("sluice:c:*").unwrap().len());
    }
    assert_eq!(kept.iter().sum::<usize>(), 30);
    assert!(kept.iter().all(|&it| it > 0), "{kept:?}");

    // Vectors lie on all servers too, and are asked for at once.
    let inputs: Vec<u8> = (90..120).collect();
    embeddings::keep(&one, 400, &inputs).await;
    assert_eq!(embeddings::found_of(&two, 401, &inputs).await, inputs.len());

    // Budgets are shared; a batch is one pipeline.
    let budget = || plan(None, vec![charge(100, 60, Over::Reject)]);
    let (reply, _) = one.admit(&ask(101, vec![budget()])).await;
    assert_eq!(reply.verdict, Verdict::go(0), "the answers above used 31");
    let (reply, _) = two.admit(&ask(102, vec![budget()])).await;
    assert!(
        matches!(reply.verdict, Verdict::Over { used: 91, .. }),
        "{reply:?}"
    );
    let batch = (200..210).map(|n| item(n, 1)).collect();
    assert_eq!(two.settle(batch, b"").await.booked, 10);

    let ask = json!({"tenant": "acme", "tag": "doc:1"});
    let (status, _) = one.ask(("POST", "/v1/invalidate"), OPERATOR, &ask).await;
    assert_eq!(status, 200);
    assert_eq!(one.hit(key(1)).await, None);
    until("the other one hears of it", async || {
        two.hit(key(30)).await.is_none()
    })
    .await;

    let mut plain = with_answer(item(0, 1), key(77), 1);
    plain.record.id = id(300);
    one.settle(vec![plain], b"a").await;
    assert!(one.hit(key(77)).await.is_some());
    let (status, reply) = one
        .ask(("DELETE", "/v1/cache"), OPERATOR, &Value::Null)
        .await;
    assert_eq!(status, 200, "{reply}");
    for node in &nodes {
        let mut client = node.client().get_connection().unwrap();
        let left: Vec<Vec<u8>> = client.keys("sluice:c:*").unwrap();
        assert_eq!(left.len(), 0);
    }
    assert_eq!(one.hit(key(77)).await, None);
    let text = one.metrics().await;
    assert!(text.contains("sluice_redis_errors 0"), "{text}");
}

#[tokio::test]
async fn a_cluster_behind_tls_is_reached_through_any_of_its_nodes() {
    let certificates = Certificates::of("127.0.0.1");
    let Some((nodes, url)) = cluster(Some(&certificates)) else {
        return;
    };
    joined(&nodes).await;
    let sidecar = Sidecar::new(&json!({
        "store": url,
        "redis": {"timeout": "5s", "ca": certificates.ca},
    }));
    for n in 1..=10 {
        sidecar
            .settle(vec![tagged(n, "acme/doc:1", 0, &[n])], &[n])
            .await;
        assert_eq!(sidecar.hit(key(n)).await, Some(vec![n]));
    }
    let text = sidecar.metrics().await;
    assert!(text.contains("sluice_redis_errors 0"), "{text}");
}
