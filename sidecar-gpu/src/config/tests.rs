use std::time::Duration;

use super::*;

pub(super) fn env(name: &str) -> Option<String> {
    match name {
        "SLUICE_SECRET" => Some("s3cret".to_owned()),
        "SLUICE_OPERATOR" => Some("op".to_owned()),
        "ACME_REPORT_TOKEN" => Some("acme-token".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

pub(super) fn faults(text: &str) -> Vec<String> {
    match parse(text, false, &env) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(Faults(list)) => list
            .iter()
            .map(|it| format!("{}: {}", it.path, it.message))
            .collect(),
    }
}

#[test]
fn the_documented_section_is_read_whole() {
    let serve = parse(
        r"
mode: on
sidecar: {cluster: sluice_sidecar, timeout: 50ms, secret: env:SLUICE_SECRET}
serve:
  listen: 127.0.0.1:8089
  store: redis://127.0.0.1:6379
  data: /var/lib/sluice
  cache: {memory: 256MiB, local: {memory: 32MiB, ttl: 2s}}
  operators: [env:SLUICE_OPERATOR]
  tenants: {acme: env:ACME_REPORT_TOKEN}
  tls: {cert: a.pem, key: b.pem, client_ca: c.pem}
  retention: 30d
  max_ledger: 10GiB
  redis: {timeout: 20ms, failures: 3, pause: 2s}
  metrics: {open: true, series: 500}
",
        false,
        &env,
    )
    .unwrap()
    .serve;
    assert_eq!(serve.secret, Some(Secret::new("s3cret")));
    assert_eq!(serve.operators, [Secret::new("op")]);
    assert_eq!(serve.tenants["acme"], Secret::new("acme-token"));
    assert_eq!(
        serve.store,
        Store::Redis(Secret::new("redis://127.0.0.1:6379"))
    );
    assert_eq!(serve.cache_memory, 256 << 20);
    let local = serve.cache_local.unwrap();
    assert_eq!(
        (local.memory, local.life),
        (32 << 20, Duration::from_secs(2))
    );
    assert_eq!(serve.retention, Duration::from_secs(30 * 86_400));
    assert_eq!(serve.max_ledger, Some(10 << 30));
    assert_eq!(serve.redis.failures, 3);
    assert_eq!(serve.tls.unwrap().client_ca, Some(PathBuf::from("c.pem")));
    assert!(serve.metrics_open);
}

#[test]
fn json_is_read_as_yaml_is_and_defaults_fill_the_rest() {
    let serve = parse(
        r#"{"sidecar": {"cluster": "c", "secret": "x"}}"#,
        true,
        &env,
    )
    .unwrap()
    .serve;
    assert_eq!(serve.listen, "127.0.0.1:8089");
    assert_eq!(serve.store, Store::Memory);
    assert_eq!(serve.data, PathBuf::from("sluice-data"));
    assert!(!serve.metrics_open);
}

#[test]
fn yaml_words_for_modes_stay_words() {
    let tree = Document::of_yaml("mode: on\nother: off\nthird: yes\nfourth: true")
        .unwrap()
        .tree;
    assert_eq!(
        tree,
        serde_json::json!({"mode": "on", "other": "off", "third": "yes", "fourth": true})
    );
}

#[test]
fn every_fault_is_told_with_its_path_and_what_was_expected() {
    let list = faults(
        r"
sidecar: {cluster: c, secret: x}
serve:
  listne: 127.0.0.1:1
  cache: {memory: lots}
  counters: many
  tls: {cert: a}
",
    );
    assert_eq!(list.len(), 4, "{list:#?}");
    assert!(
        list.iter()
            .any(|it| it.starts_with("serve.listne: unknown field `listne`, expected one of")),
        "{list:#?}"
    );
    assert!(
        list.contains(
            &"serve.cache.memory: expected a size like `64KiB`, `256MiB` or `2GiB`, found `lots` (line 5, column 19)"
                .to_owned()
        ),
        "{list:#?}"
    );
    assert!(
        list.iter().any(|it| it
            .starts_with("serve.counters: invalid type: string \"many\", expected a whole number")),
        "{list:#?}"
    );
    assert!(
        list.iter()
            .any(|it| it.starts_with("serve.tls") && it.contains("missing field `key`")),
        "{list:#?}"
    );
}

#[test]
fn values_out_of_range_are_told_together() {
    let list = faults(
        r"
sidecar: {cluster: c, secret: env:NOT_SET}
serve: {listen: nonsense, store: s3://bucket, retention: 1h, operators: [env:EMPTY], redis: {failures: 0}}
",
    );
    for start in [
        "sidecar.secret: environment variable `NOT_SET` is not set",
        "serve.listen: expected `HOST:PORT`, found `nonsense`",
        "serve.store: expected `memory`",
        "serve.retention: expected at least `1d`",
        "serve.operators[0]: expected a secret, found an empty one",
        "serve.redis.failures: expected at least 1",
    ] {
        assert!(
            list.iter().any(|it| it.starts_with(start)),
            "{start} in {list:#?}"
        );
    }
}

#[test]
fn a_shared_store_is_one_server_or_a_cluster_with_tls_or_without() {
    let with = |serve: &str| format!("sidecar: {{cluster: c, secret: x}}\nserve: {{{serve}}}");
    for url in [
        "redis://a:6379/3",
        "rediss://user:p%40ss@a",
        "redis+cluster://a:1,b:2",
        "rediss+cluster://u:p@a:1,b:2",
        "unix:///run/redis.sock",
    ] {
        let serve = parse(&with(&format!("store: '{url}'")), false, &env)
            .unwrap()
            .serve;
        assert_eq!(serve.store, Store::Redis(Secret::new(url)));
        assert_eq!((serve.cache_local, serve.redis_ca), (None, None));
    }
    let text = with("store: 'rediss://a', redis: {ca: ca.pem}, cache: {local: {}}");
    let serve = parse(&text, false, &env).unwrap().serve;
    assert_eq!(serve.redis_ca, Some(PathBuf::from("ca.pem")));
    assert_eq!(serve.cache_local.unwrap().life, Duration::from_secs(5));

    for (text, start) in [
        (
            "store: 'redis+cluster://u:hunter2@a,,b'",
            "serve.store: expected `memory`",
        ),
        (
            "store: 'http://u:hunter2@a'",
            "serve.store: expected `memory`",
        ),
        (
            "cache: {local: {}}",
            "serve.cache.local: expected a shared `serve.store`",
        ),
        (
            "store: 'redis://a', cache: {local: {ttl: 0s}}",
            "serve.cache.local.ttl: expected at least `1ms`",
        ),
        (
            "store: 'redis://a', cache: {local: {tll: 1s}}",
            "serve.cache.local.tll: unknown field `tll`, expected `memory` or `ttl`",
        ),
        (
            "store: 'redis://a', redis: {ca: a}",
            "serve.redis.ca: expected a `serve.store`",
        ),
        ("redis: {ca: a}", "serve.redis.ca: expected a `serve.store`"),
    ] {
        let list = faults(&with(text));
        assert!(
            list.iter().any(|it| it.starts_with(start)),
            "{start} in {list:#?}"
        );
        assert!(!list.concat().contains("hunter2"), "{list:#?}");
    }
}

#[test]
fn a_sidecar_that_would_trust_everyone_is_refused() {
    let list = faults("serve: {}");
    assert!(
        list[0].starts_with("sidecar.secret: expected a secret"),
        "{list:?}"
    );
    let with_certificates = parse("serve: {tls: {cert: a, key: b, client_ca: c}}", false, &env);
    assert!(with_certificates.is_ok());
}

#[test]
fn one_token_cannot_be_two_callers() {
    let list = faults(
        "sidecar: {cluster: c, secret: same}\nserve: {operators: [same], tenants: {acme: same}}",
    );
    assert!(
        list.iter()
            .any(|it| it.starts_with("serve.operators[0]: expected a token of its own")),
        "{list:?}"
    );
    assert!(
        list.iter().any(|it| it.starts_with("serve.tenants.acme:")),
        "{list:?}"
    );
}

#[test]
fn text_that_is_no_mapping_is_refused_with_its_place() {
    assert!(faults("[1, 2]")[0].contains("expected a mapping"));
    assert!(faults("serve: [")[0].contains("line"));
    assert!(
        faults("serve: 3\nsidecar: {cluster: c, secret: x}")[0]
            .starts_with("serve: expected a mapping, found a number")
    );
}

#[test]
fn a_fault_in_the_filters_part_is_told_beside_the_sidecars() {
    let list = faults("mode: sideways\nsidecar: {cluster: c, secret: x}\nserve: {listen: 1}");
    assert!(list.iter().any(|it| it.starts_with("mode: ")), "{list:?}");
    assert!(
        list.iter().any(|it| it.starts_with("serve.listen: ")),
        "{list:?}"
    );
}

#[test]
fn a_secret_that_is_not_set_is_told_once() {
    let list = faults("sidecar: {cluster: c, secret: env:NOT_SET}");
    assert_eq!(list.len(), 1, "{list:?}");
}

#[test]
fn a_fault_where_secrets_are_does_not_quote_what_it_found() {
    for text in [
        "serve: {operators: hunter2}",
        "serve: {tenants: [hunter2]}",
        "serve: hunter2",
        "sidecar: hunter2",
        "sidecar: {cluster: c, secret: [hunter2]}",
        "[hunter2]",
        "hunter2",
    ] {
        let told = faults(text).join("\n");
        assert!(told.contains("expected"), "{text}: {told}");
        assert!(!told.contains("hunter2"), "{text}: {told}");
    }
}

#[test]
fn the_semantic_cache_has_a_model_bounds_and_answers_that_are_kept_only_where_nobody_else_does() {
    let read = |serve: &str| {
        let text = format!(
            "sidecar: {{cluster: s, secret: x}}\ncache: {{semantic: {{threshold: auto}}}}\n{serve}"
        );
        parse(&text, false, &env)
    };
    let config = read(
        "serve: {semantic: {model: /m, threads: 2, entries: 5_000, memory: 64MiB, texts: 32MiB, keep_answers: true}}",
    )
    .unwrap();
    let expected = Semantic {
        model: PathBuf::from("/m"),
        threads: 2,
        entries: 5_000,
        memory: 64 << 20,
        texts: 32 << 20,
        keep_answers: true,
    };
    assert_eq!(config.serve.semantic, Some(expected.clone()));
    assert_eq!(config.warnings(), config.plan.warnings);
    let default = read("serve: {semantic: {model: /m}}")
        .unwrap()
        .serve
        .semantic;
    assert!(!default.unwrap().keep_answers);
    for (fields, path) in [
        ("threads: 0", "threads"),
        ("threads: 65", "threads"),
        ("entries: 0", "entries"),
        ("memory: 1KiB", "memory"),
        ("texts: 1KiB", "texts"),
        ("keep_answers: sometimes", "keep_answers"),
        ("bounds: 1", "bounds"),
    ] {
        let found = read(&format!("serve: {{semantic: {{model: /m, {fields}}}}}"));
        let found = found.unwrap_err().0.remove(0);
        assert!(found.path.starts_with("serve.semantic"), "{found:?}");
        assert!(format!("{found:?}").contains(path), "{found:?}");
    }
    let shared = "serve: {store: 'redis://h:1', semantic: {model: /m, keep_answers: true}}";
    assert_eq!(
        read(shared).unwrap_err().0[0].path,
        "serve.semantic.keep_answers"
    );
}

#[test]
fn questions_that_nobody_can_compare_are_warned_of() {
    let warned = |cache: &str| {
        let text = format!("sidecar: {{cluster: s, secret: x}}\n{cache}");
        let warnings = parse(&text, false, &env).unwrap().warnings();
        warnings.iter().any(|it| it.contains("serve.semantic"))
    };
    assert!(warned("cache: {semantic: {}}"));
    assert!(warned(
        "cache: {}\nroutes: [{name: a, match: {path: /a}, cache: {semantic: {}}}]"
    ));
    assert!(!warned("cache: {}"));
    assert!(!warned("cache: {semantic: {mode: off}}"));
    assert!(!warned("cache: {mode: off, semantic: {}}"));
    assert!(!warned(
        "cache: {semantic: {}}\nserve: {semantic: {model: /m}}"
    ));
}

#[test]
fn streams_that_nobody_relays_are_warned_of() {
    let warned = |more: &str| {
        let text = format!("sidecar: {{cluster: s, secret: x}}\n{more}");
        let warnings = parse(&text, false, &env).unwrap().warnings();
        warnings.iter().any(|it| it.contains("trim.retry.streams"))
    };
    let trim = "trim: {retry: {cluster: self, streams: relay}}";
    assert!(warned(trim));
    for quiet in [
        trim.replace("relay", "callout"),
        trim.replace(", streams: relay", ""),
        trim.replace("trim: {", "trim: {mode: off, "),
        format!("{trim}\nserve: {{relay: {{url: 'http://127.0.0.1:80'}}}}"),
    ] {
        assert!(!warned(&quiet), "{quiet}");
    }
}

#[test]
fn chunks_that_nobody_can_rank_by_meaning_are_warned_of() {
    let warned = |trim: &str| {
        let text = format!("sidecar: {{cluster: s, secret: x}}\n{trim}");
        let warnings = parse(&text, false, &env).unwrap().warnings();
        warnings.iter().any(|it| it.contains("trim.context.rank"))
    };
    let context = |rank: &str| {
        format!("trim: {{context: {{markers: [{{tag: doc}}], top_k: 5, rank: {rank}}}}}")
    };
    assert!(warned(&context("embeddings")));
    assert!(warned(
        "routes: [{name: a, match: {path: /a}, trim: {context: {markers: [{tag: doc}], top_k: 5, rank: embeddings}}}]"
    ));
    for quiet in [
        "trim: {}".to_owned(),
        context("bm25"),
        context("mix"),
        context("embeddings").replace("trim: {", "trim: {mode: off, "),
        format!(
            "{}\nserve: {{semantic: {{model: /m}}}}",
            context("embeddings")
        ),
    ] {
        assert!(!warned(&quiet), "{quiet}");
    }
}

#[test]
fn digests_that_nobody_writes_are_warned_of() {
    let warned = |more: &str| {
        let models = "models: {small: {input: 0.1, output: 0.4}}";
        let text = format!("sidecar: {{cluster: s, secret: x}}\n{models}\n{more}");
        let warnings = parse(&text, false, &env).unwrap().warnings();
        let named = |it: &String| it.contains("trim.history.summary.writer");
        warnings.iter().any(named)
    };
    let trim = "trim: {history: {keep: summary, tokens: 500, summary: {tokens: 60, writer: sidecar, model: small}}}";
    assert!(warned(trim));
    for quiet in [
        trim.replace(", writer: sidecar, model: small", ""),
        trim.replace("trim: {", "trim: {mode: off, "),
        format!(
            "{trim}\nserve: {{summaries: {{url: 'http://127.0.0.1:10000/v1/chat/completions'}}}}"
        ),
    ] {
        assert!(!warned(&quiet), "{quiet}");
    }
}

#[test]
fn a_past_that_nobody_can_compare_by_meaning_is_warned_of() {
    let warned = |trim: &str| {
        let text = format!("sidecar: {{cluster: s, secret: x}}\n{trim}");
        let warnings = parse(&text, false, &env).unwrap().warnings();
        warnings
            .iter()
            .any(|it| it.contains("trim.history.embeddings"))
    };
    let trim = "trim: {history: {tokens: 500, embeddings: on}}";
    assert!(warned(trim));
    assert!(warned(&format!(
        "routes: [{{name: a, match: {{path: /a}}, {trim}}}]"
    )));
    for quiet in [
        trim.replace("on}", "off}"),
        trim.replace("trim: {", "trim: {mode: off, "),
        format!("{trim}\nserve: {{semantic: {{model: /m}}}}"),
    ] {
        assert!(!warned(&quiet), "{quiet}");
    }
}

/// The YAML on a page of the documentation, block by block.
fn settings(page: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("docs").join(page)).unwrap();
    let blocks = text.split("```yaml\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("\n```").next());
    blocks.map(str::to_owned).collect()
}

#[test]
fn the_settings_that_the_pages_on_trimming_show_are_settings() {
    for page in ["trimming.md", "trimming-context.md", "trimming-sidecar.md"] {
        let shown = settings(page);
        assert!(!shown.is_empty(), "{page}");
        for block in shown {
            let sidecar = match block.starts_with("sidecar:") {
                true => "",
                false => "sidecar: {cluster: s, secret: x}\n",
            };
            let config = format!("{sidecar}{block}");
            let read = parse(&config, false, &env);
            assert!(read.is_ok(), "{page}:\n{block}\n{:?}", read.err());
        }
    }
}

#[test]
fn what_is_relayed_stays_on_this_machine() {
    let read = |relay: &str| {
        let text = format!("sidecar: {{cluster: s, secret: x}}\nserve: {{relay: {relay}}}");
        parse(&text, false, &env)
    };
    for (url, address) in [
        ("http://127.0.0.1:10001", "127.0.0.1:10001"),
        ("http://[::1]:10001/", "[::1]:10001"),
    ] {
        let config = read(&format!("{{url: '{url}', timeout: 90s}}")).unwrap();
        let expected = Target {
            address: address.parse().unwrap(),
            timeout: Duration::from_secs(90),
        };
        assert_eq!(config.serve.relay, Some(expected));
    }
    for (relay, path) in [
        ("{url: 'http://10.0.0.1:80'}", "serve.relay.url"),
        ("{url: 'https://127.0.0.1:80'}", "serve.relay.url"),
        ("{url: 'http://127.0.0.1'}", "serve.relay.url"),
        ("{url: 'http://127.0.0.1:80/v1'}", "serve.relay.url"),
        ("{url: 'http://user@127.0.0.1:80'}", "serve.relay.url"),
        ("{timeout: 9s}", "serve.relay"),
        (
            "{url: 'http://127.0.0.1:80', timeout: 9ms}",
            "serve.relay.timeout",
        ),
    ] {
        assert_eq!(read(relay).unwrap_err().0[0].path, path, "{relay}");
    }
}
