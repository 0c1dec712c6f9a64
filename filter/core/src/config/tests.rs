use std::collections::BTreeMap;

use sluice_wire::{Over, Unit, Usage, Usd, Window};

use super::*;
use crate::exchange::Headers;
use crate::vectors::Dtype;

pub(super) fn parse(json: &str) -> Result<Plan, Faults> {
    let env = |name: &str| (name == "SLUICE_SECRET").then(|| "s3cret".to_owned());
    Plan::parse(json.as_bytes(), &env)
}

pub(super) fn faults(json: &str) -> Vec<(String, String)> {
    let faults = parse(json).expect_err("a config with faults").0;
    faults
        .into_iter()
        .map(|fault| (fault.path, fault.message))
        .collect()
}

/// The config in one screen, as the README shows it, in the form that Envoy makes of YAML.
pub(super) const FULL: &str = r#"{
  "mode": "on",
  "sidecar": {"cluster": "sluice_sidecar", "timeout": "50ms", "on_failure": "closed", "secret": "env:SLUICE_SECRET",
              "breaker": {"failures": 3.0, "pause": "2s"}},
  "models": {
    "gpt-4o": {"encoding": "o200k_base", "input": 2.5, "cached_input": 1.25, "output": 10.0},
    "gpt-4o-mini": {"encoding": "o200k_base", "input": 0.15, "cached_input": 0.075, "output": 0.6,
                    "prefix": {"cache": "automatic", "min_tokens": 1024, "step": 128, "lifetime": "5m", "longest": "1h"}},
    "claude-haiku-4-5": {"bytes_per_token": 3.6, "input": 1, "cached_input": 0.1, "cache_write": 1.25, "output": 5},
    "text-embedding-3-small": {"encoding": "cl100k_base", "input": 0.02},
    "own": {}
  },
  "identity": {
    "tenant": [{"header": "X-Tenant"}, {"jwt": {"claim": "org", "payload": "p"}}, {"key_hash": true}],
    "trust": [{"source": "10.0.0.0/8"}],
    "allow": {"acme": ["gpt-4o-mini"]}
  },
  "route": {"tiers": [
    {"name": "small", "below": 0.3, "model": {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}, "max_tokens": 256},
    {"name": "large", "model": "gpt-4o", "max_tokens": 1024.0}
  ]},
  "trim": {"mode": "dry", "input_tokens": {"limit": 8000, "tenants": {"acme": 4000}, "models": {"gpt-4o": 16000}},
           "context": {"markers": [{"tag": {"name": "document", "inside": "documents"}}, {"fence": {"line": "---", "label": "Context", "split": "\n\n", "metadata": true}},
                                   {"list": {"after": "Sources:", "number": "[{n}]"}}, {"json": {}}],
                       "top_k": 5, "tokens": "1_500", "filter": "lang == \"en\" and year >= 2020", "duplicates": 0.9, "rank": "given", "min_score": 0.2,
                       "order": "original", "extra": "off"},
           "template": "support",
           "system": {"tokens": 1200, "cut": "end", "minify": true, "examples": {"top_k": 3, "markers": [{"open": "<shot>", "close": "</shot>"}]}},
           "history": {"keep": "relevant", "tokens": "2_000", "last": 3, "pin_first": 1, "summary": {"tokens": 400}, "embeddings": {"mode": "on", "timeout": "50ms"}}},
  "templates": [{"name": "support", "system": "Be brief.", "user": "{{context}}\n\n{{question}}", "tokens": {"context": 1500, "question": 500.0},
                 "client_system": "keep", "over": "reject"}],
  "budgets": [
    {"per": "tenant", "tokens": "2_000_000", "every": "day", "over": "reject"},
    {"per": "tenant", "tokens": 1000000, "every": "day", "over": "shadow"},
    {"per": "task", "dollars": 50, "every": "month", "over": "small_tier"}
  ],
  "reserve": {"output_tokens": 128, "hold": "2m"},
  "cache": {"exact": {"ttl": "10m", "max_answer": "256KiB", "max_temperature": 1.0}, "scope": "tenant",
            "semantic": {"threshold": "auto", "audit": 0.01, "false_hits": 0.02},
            "embedding": {"mode": "on", "dtype": "f32"}},
  "limits": {"request_body": "8MiB"},
  "routes": [
    {"name": "internal", "match": {"host": "*.acme.com", "path": "/v1/chat/*", "headers": {"X-Team": "ml"}},
     "mode": "dry", "route": {"pin": true}, "cache": {"exact": {"ttl": "1m"}}}
  ],
  "serve": {"anything": "the sidecar checks this"}
}"#;

#[test]
fn the_whole_config_becomes_a_plan() {
    let plan = parse(FULL).unwrap();
    let sidecar = plan.sidecar.as_ref().unwrap();
    assert_eq!(
        (
            sidecar.timeout_ms,
            sidecar.breaker_failures,
            sidecar.breaker_pause_ns
        ),
        (50, 3, 2_000_000_000)
    );
    assert_eq!(
        (sidecar.secret.as_deref(), sidecar.on_failure),
        (Some("s3cret"), OnFailure::Closed)
    );
    assert!(
        !format!("{plan:?}").contains("s3cret"),
        "secrets are never printed"
    );

    let budgets: Vec<_> = plan
        .budgets
        .iter()
        .map(|rule| (rule.unit, rule.limit, rule.every, rule.over, rule.series))
        .collect();
    assert_eq!(
        budgets,
        [
            (Unit::Tokens, 2_000_000, Window::Day, Over::Reject, 0),
            (Unit::Tokens, 1_000_000, Window::Day, Over::Shadow, 1),
            (
                Unit::Usd,
                50_000_000_000_000,
                Window::Month,
                Over::SmallTier,
                0
            ),
        ]
    );
    let tiers = &plan.default.route.tiers;
    assert_eq!(tiers[0].models["anthropic"], "claude-haiku-4-5");
    assert_eq!(
        tiers[1].models,
        BTreeMap::from([("openai".to_owned(), "gpt-4o".to_owned())])
    );
    assert_eq!(
        (tiers[1].below, tiers[1].max_tokens),
        (f64::INFINITY, Some(1024))
    );
    assert_eq!(plan.encodings().len(), 2);
    assert_eq!(
        plan.warnings,
        [
            "identity.tenant: header `x-tenant` is believed from every caller; unless something in front of this filter sets or strips it, anyone can be any tenant",
            "models.own: no price; its cost is reported as unknown"
        ]
    );
}

#[test]
fn a_lever_goes_as_far_as_its_own_mode_and_the_ceiling_allow() {
    let plan = parse(FULL).unwrap();
    let default = &plan.default;
    assert_eq!(
        (default.route.mode, default.trim.mode, default.cache.mode),
        (Mode::On, Mode::Dry, Mode::On)
    );
    let internal = &plan.routes[0].1;
    assert_eq!(
        (
            internal.mode,
            internal.route.mode,
            internal.trim.mode,
            internal.cache.mode
        ),
        (Mode::Dry, Mode::Dry, Mode::Dry, Mode::Dry)
    );
    assert!(
        internal.route.pin && !internal.route.tiers.is_empty(),
        "an override keeps what it does not name"
    );
    assert_eq!(
        (internal.cache.ttl_secs, internal.cache.max_answer),
        (60, 256 << 10)
    );
    assert_eq!(
        parse("{}").unwrap().default.cache.mode,
        Mode::Off,
        "a lever that is not named is off"
    );
    assert_eq!(parse("").unwrap().default.route.mode, Mode::Off);
    let off = parse(r#"{"mode":"off","cache":{"mode":"on"}}"#).unwrap();
    assert_eq!(off.default.cache.mode, Mode::Off);
    let louder = parse(r#"{"mode":"dry","routes":[{"name":"a","match":{"path":"/x"},"mode":"on","cache":{"mode":"on"}}]}"#).unwrap();
    assert_eq!(
        louder.routes[0].1.cache.mode,
        Mode::Dry,
        "an override does not lift the overall ceiling"
    );
}

#[test]
fn modes_are_words_or_what_envoys_yaml_makes_of_them() {
    let mode = |json: &str| parse(&format!(r#"{{"mode":{json}}}"#)).map(|plan| plan.default.mode);
    assert_eq!(mode("true"), Ok(Mode::On));
    assert_eq!(mode("false"), Ok(Mode::Off));
    assert_eq!(mode("\"dry\""), Ok(Mode::Dry));
    assert!(mode("1").is_err());
}

#[test]
fn overrides_match_on_host_path_and_headers() {
    let plan = parse(FULL).unwrap();
    let index = |pairs: &[(&str, &str)]| {
        let headers: Headers = pairs.iter().map(|(name, value)| (*name, *value)).collect();
        plan.route_index(&headers)
    };
    let fits = [
        (":authority", "api.ACME.com:8080"),
        (":path", "/v1/chat/completions?x=1"),
        ("x-team", "ml"),
    ];
    assert_eq!(index(&fits), Some(0));
    for (at, other) in [
        (":authority", "acme.com"),
        (":path", "/v1/embeddings"),
        ("x-team", "web"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut headers = fits;
        headers[at] = other;
        assert_eq!(index(&headers), None, "{other:?}");
    }
}

/// The prefix cache of a model so configured.
fn prefix(name: &str, model: &str) -> Prefix {
    let plan = parse(&format!(r#"{{"models": {{"{name}": {model}}}}}"#)).unwrap();
    plan.models[name].prefix
}

#[test]
fn the_prices_tell_what_gets_into_a_prefix_cache() {
    let minutes = |prefix: Prefix| (prefix.lifetime_ms / 60_000, prefix.longest_ms / 60_000);
    let openai = prefix(
        "gpt-4o",
        r#"{"input": 2.5, "cached_input": 1.25, "output": 10}"#,
    );
    assert_eq!(openai.cache, PrefixCache::Automatic);
    assert_eq!((openai.min_tokens, openai.step), (1024, 128));
    assert_eq!(minutes(openai), (5, 60));
    let claude = r#"{"input": 3, "cached_input": 0.3, "cache_write": 3.75, "output": 15}"#;
    let sonnet = prefix("claude-sonnet-4-5", claude);
    assert_eq!(sonnet.cache, PrefixCache::Marked);
    assert_eq!((sonnet.min_tokens, sonnet.step), (1024, 1));
    assert_eq!(minutes(sonnet), (5, 10));
    assert_eq!(prefix("claude-haiku-4-5-20251001", claude).min_tokens, 4096);
    for undiscounted in [
        r#"{"input": 1, "output": 1}"#,
        "{}",
        r#"{"input": 1, "cached_input": 1}"#,
    ] {
        assert_eq!(prefix("m", undiscounted).cache, PrefixCache::None);
    }
}

#[test]
fn marks_are_set_only_where_that_is_asked_for() {
    let config = r#"{"trim": {"marks": true}, "routes": [
        {"name": "a", "match": {"path": "/a"}, "trim": {"marks": "off"}},
        {"name": "b", "match": {"path": "/b"}, "trim": {"mode": "on"}}]}"#;
    let plan = parse(config).unwrap();
    let marks = plan.routes.iter().map(|(_, route)| route.trim.marks);
    assert_eq!(marks.collect::<Vec<_>>(), [false, true]);
    assert!(plan.default.trim.marks && !parse("{}").unwrap().default.trim.marks);
    let dry = parse(r#"{"trim": {"marks": "dry"}}"#)
        .unwrap_err()
        .to_string();
    assert!(
        dry.contains("trim.marks: found dry, expected on or off"),
        "{dry}"
    );
}

#[test]
fn what_is_said_of_a_prefix_cache_wins() {
    let said = r#"{"input": 2.5, "cached_input": 1.25, "prefix":
        {"cache": "marked", "min_tokens": 2048, "step": 64, "lifetime": "2h"}}"#;
    let expected = Prefix {
        cache: PrefixCache::Marked,
        min_tokens: 2048,
        step: 64,
        lifetime_ms: 7_200_000,
        longest_ms: 7_200_000,
    };
    assert_eq!(prefix("m", said), expected, "a longer lifetime is one");
    let faults = parse(
        r#"{"models": {"m": {"input": 1, "prefix": {"min_tokens": 64, "step": 128, "lifetime": "5m", "longest": "4m"}},
                       "n": {"input": 1, "prefix": {"cache": "sometimes"}},
                       "o": {"input": 1, "prefix": {"min_tokens": 0}}}}"#,
    );
    let faults = faults.unwrap_err().to_string();
    for (path, told) in [
        (
            "models.m.prefix.step",
            "found 128, expected 1 to `min_tokens`",
        ),
        ("models.m.prefix.longest", "shorter than `lifetime`"),
        ("models.n.prefix.cache", "none"),
        (
            "models.o.prefix.min_tokens",
            "found 0, expected 1 to 1000000",
        ),
    ] {
        let fault = faults.lines().find(|fault| fault.starts_with(path));
        let fault = fault.unwrap_or_else(|| panic!("{path} in {faults}"));
        assert!(fault.contains(told), "{fault}");
    }
}

#[test]
fn a_dated_snapshot_has_its_models_price() {
    let plan = parse(FULL).unwrap();
    let name = |asked: &str| plan.model(asked).map(|(name, _)| name.to_owned());
    assert_eq!(name("gpt-4o-2024-08-06").as_deref(), Some("gpt-4o"));
    assert_eq!(
        name("claude-haiku-4-5-20251001").as_deref(),
        Some("claude-haiku-4-5")
    );
    assert_eq!(name("gpt-4o-audio-preview"), None);
    assert_eq!(name("gpt-4o-2024-08-xx"), None);
    assert_eq!(name("ü-2024-08-06"), None);
    let price = plan.model("gpt-4o").unwrap().1.price.unwrap();
    let usage = Usage {
        prompt: 1000,
        cached: 400,
        completion: 100,
        ..Usage::default()
    };
    assert_eq!(
        price.of(&usage),
        Usd::from_dollars((600.0 * 2.5 + 400.0 * 1.25 + 100.0 * 10.0) / 1e6)
    );
}

#[test]
fn the_most_specific_input_limit_wins() {
    let plan = parse(FULL).unwrap();
    let limit = plan.default.trim.input.unwrap();
    assert_eq!(limit.of("acme", "gpt-4o"), Some(4000));
    assert_eq!(limit.of("globex", "gpt-4o"), Some(16000));
    assert_eq!(limit.of("globex", "other"), Some(8000));
}

#[test]
fn what_stays_of_a_past_has_a_budget_and_defaults() {
    let history = |config: &str| {
        let plan = parse(&format!(r#"{{"trim":{{"history":{config}}}}}"#)).unwrap();
        plan.default.trim.history.unwrap()
    };
    let plain = History {
        keep: Keep::Relevant,
        tokens: 2000,
        last: 2,
        embeddings_ms: None,
        pin_first: 0,
        digest: 300,
        writer: None,
    };
    assert_eq!(history(r#"{"tokens":2000}"#), plain);
    for (embeddings, expected) in [
        ("true", Some(60)),
        ("\"on\"", Some(60)),
        ("false", None),
        ("\"off\"", None),
        (r#"{"timeout":"9ms"}"#, Some(9)),
        (r#"{"mode":"off","timeout":"9ms"}"#, None),
    ] {
        let found = history(&format!(r#"{{"tokens":1,"embeddings":{embeddings}}}"#));
        assert_eq!(found.embeddings_ms, expected, "{embeddings}");
    }
    assert_eq!(parse("{}").unwrap().default.trim.history, None);
}

#[test]
fn a_history_that_makes_no_sense_is_a_fault_of_its_field() {
    for (config, path) in [
        ("{}", "tokens"),
        (r#"{"tokens":"many"}"#, "tokens"),
        (r#"{"tokens":1,"keep":"all"}"#, "keep"),
        (r#"{"tokens":1,"last":1001}"#, "last"),
        (r#"{"tokens":1,"embeddings":"dry"}"#, "embeddings"),
        (r#"{"tokens":1,"embeddings":"maybe"}"#, "embeddings"),
        (r#"{"tokens":1,"embeddings":7}"#, "embeddings"),
        (
            r#"{"tokens":1,"embeddings":{"timeout":0}}"#,
            "embeddings.timeout",
        ),
    ] {
        let found = faults(&format!(r#"{{"trim":{{"history":{config}}}}}"#));
        let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, [format!("trim.history.{path}")], "{config}");
    }
}

#[test]
fn a_route_changes_what_it_names_of_the_history() {
    let plan = parse(
        r#"{"trim":{"history":{"tokens":2000,"last":4,"embeddings":"off"}},
            "routes":[{"name":"a","match":{"path":"/a"},"trim":{"history":{"keep":"recent"}}},
                      {"name":"b","match":{"path":"/b"},"trim":{"history":{"embeddings":{"timeout":"9ms"}}}}]}"#,
    )
    .unwrap();
    let of = |at: usize| plan.routes[at].1.trim.history.clone().unwrap();
    assert_eq!(
        (of(0).keep, of(0).tokens, of(0).last, of(0).embeddings_ms),
        (Keep::Recent, 2000, 4, None)
    );
    assert_eq!(
        (of(1).keep, of(1).tokens, of(1).embeddings_ms),
        (Keep::Relevant, 2000, Some(9))
    );
}

#[test]
fn every_fault_is_told_with_its_path() {
    let found = faults(
        r#"{"sidecra": {}, "mode": "onn", "models": {"m": {"input": -1, "output": 1}, "n": {"inputt": 2}},
            "budgets": [{"per": "tenant", "every": "day", "over": "reject"},
                        {"per": "team", "tokens": 1, "every": "day", "over": "reject"},
                        {"per": "task", "tokens": 1.5, "every": "day", "over": "reject"}],
            "route": {"tiers": [{"name": "a", "below": 0.7, "model": "x"}, {"name": "a", "below": 0.3, "model": "x"}, {"name": "c", "model": "x", "below": 1}]},
            "cache": {"semantic": {"threshold": "automatic"}},
            "sidecar": {"cluster": "c", "secret": "env:NOPE", "timeout": 50}}"#,
    );
    let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "sidecra",
            "mode",
            "models.n.inputt",
            "budgets[1].per",
            "budgets[2].tokens",
            "cache.semantic.threshold",
            "sidecar.timeout",
            "models.m.input",
            "budgets[0]",
            "route.tiers[1].below",
            "route.tiers[1].name",
            "route.tiers[2].below",
        ]
    );
    let of = |path: &str| {
        found
            .iter()
            .find(|(at, _)| at == path)
            .map(|(_, message)| message.as_str())
            .unwrap()
    };
    assert!(
        of("budgets[1].per").contains("`team`") && of("budgets[1].per").contains("tenant"),
        "{}",
        of("budgets[1].per")
    );
    assert!(
        of("sidecar.timeout").contains("50ms"),
        "{}",
        of("sidecar.timeout")
    );
    assert!(
        of("sidecra").contains("sidecar, models"),
        "{}",
        of("sidecra")
    );
}

#[test]
fn an_unset_environment_variable_is_a_fault_of_the_field_that_names_it() {
    let found = faults(r#"{"sidecar": {"cluster": "c", "secret": "env:NOPE"}}"#);
    assert_eq!(found[0].0, "sidecar.secret");
    assert!(found[0].1.contains("`NOPE`"));
}

#[test]
fn a_fault_in_an_inherited_section_is_told_once() {
    let found = faults(
        r#"{"route": {"tiers": [{"name": "a", "below": 3, "model": "x"}, {"name": "b", "model": "y"}]},
            "routes": [{"name": "r", "match": {"path": "/x"}, "cache": {"exact": {"ttl": "1ms"}}}]}"#,
    );
    let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["route.tiers[0].below", "routes[0].cache.exact.ttl"]);
    let found = faults(
        r#"{"cache": {"exact": {"max_temperature": 3}},
            "routes": [{"name": "r", "match": {"path": "/x"}, "cache": {"exact": {"ttl": "1m"}}}]}"#,
    );
    let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["cache.exact.max_temperature"]);
}

#[test]
fn an_override_cannot_route_where_no_tiers_are() {
    let found =
        faults(r#"{"routes": [{"name": "r", "match": {"path": "/x"}, "route": {"pin": true}}]}"#);
    assert_eq!(found[0].0, "routes[0].route.tiers");
}

#[test]
fn a_fault_is_one_line_whatever_it_quotes() {
    let faults = parse("{\"mode\": \"on\\n\\u001b[2J\", \"a\\r\": 1}").unwrap_err();
    let told = faults.to_string();
    let lines: Vec<_> = told.lines().collect();
    assert!(
        lines[0].starts_with("mode: unknown variant `on\\n\\u{1b}[2J`"),
        "{told:?}"
    );
    assert!(lines[1].starts_with("a\\r: unknown section"), "{told:?}");
    assert_eq!(lines.len(), 2, "{told:?}");
}

#[test]
fn garbage_is_refused_without_a_panic() {
    for json in [
        "[]",
        "nonsense",
        "{\"mode\":",
        "null",
        "{\"models\": []}",
        "{\"budgets\": {}}",
        "{\"mode\":\"on\",\"mode\":\"on\"}",
    ] {
        assert!(parse(json).is_err(), "{json}");
    }
    assert!(Plan::parse(&[0xff, 0xfe], &|_| None).is_err());
}

#[test]
fn levers_of_later_versions_are_unknown() {
    for json in [
        r#"{"batch":{}}"#,
        r#"{"trim":{"history":{"tokens":1,"first":1}}}"#,
        r#"{"route":{"experiment":{}}}"#,
        r#"{"trim":{"input_tokens":{"limit":1,"over":"trim"}}}"#,
    ] {
        assert!(parse(json).is_err(), "{json}");
    }
}

#[test]
fn a_mode_that_envoys_yaml_reader_made_a_boolean_is_read() {
    let cache = |mode: &str| {
        parse(&format!(r#"{{"mode":{mode},"cache":{{"mode":true}}}}"#))
            .unwrap()
            .default
            .cache
            .mode
    };
    assert_eq!(
        (cache("true"), cache("false"), cache("\"dry\"")),
        (Mode::On, Mode::Off, Mode::Dry)
    );
}

#[test]
fn a_fault_where_secrets_are_does_not_quote_what_it_found() {
    for (config, path) in [
        (r#"{"sidecar":"hunter2"}"#, "sidecar"),
        (
            r#"{"sidecar":{"cluster":"c","secret":4242}}"#,
            "sidecar.secret",
        ),
        (
            r#"{"identity":{"hash_key":["hunter2"]}}"#,
            "identity.hash_key",
        ),
        (r#"{"identity":{"trust":"hunter2"}}"#, "identity.trust"),
    ] {
        let faults = Plan::parse(config.as_bytes(), &|_| None).unwrap_err();
        let told = faults.to_string();
        assert!(
            told.starts_with(path) && told.contains("expected"),
            "{told}"
        );
        assert!(
            !told.contains("hunter2") && !told.contains("4242"),
            "{told}"
        );
    }
    let told = Plan::parse(br#"{"budgets":"7 a day"}"#, &|_| None).unwrap_err();
    assert!(told.to_string().contains("expected"), "{told}");
}

#[test]
fn embeddings_are_kept_by_input_unless_that_is_off() {
    let kept = |json: &str| parse(json).unwrap().default.cache.embedding;
    assert_eq!(kept(r#"{"cache":{}}"#), Some(Dtype::F32));
    assert_eq!(
        kept(r#"{"cache":{"embedding":{"dtype":"f16"}}}"#),
        Some(Dtype::F16)
    );
    assert_eq!(
        kept(r#"{"cache":{"embedding":{"mode":"off","dtype":"f16"}}}"#),
        None
    );
    let plan = parse(
        r#"{"cache":{"embedding":{"dtype":"f16"}},
            "routes":[{"name":"a","match":{"path":"/a"},"cache":{"embedding":{"mode":"on"}}},
                      {"name":"b","match":{"path":"/b"},"cache":{"embedding":{"mode":"off"}}}]}"#,
    )
    .unwrap();
    assert_eq!(plan.routes[0].1.cache.embedding, Some(Dtype::F16));
    assert_eq!(plan.routes[1].1.cache.embedding, None);
    for (field, value, expected) in [
        ("dtype", "\"f64\"", "expected `f32` or `f16`"),
        ("mode", "\"dry\"", "expected `on` or `off`"),
        ("bytes", "2", "unknown field `bytes`"),
    ] {
        let found = faults(&format!(
            r#"{{"cache":{{"embedding":{{"{field}":{value}}}}}}}"#
        ));
        let [(path, message)] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(path, &format!("cache.embedding.{field}"));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn questions_are_compared_by_meaning_only_where_that_is_asked_for() {
    let semantic = |json: &str| parse(json).unwrap().default.cache.semantic;
    assert_eq!(semantic(r#"{"cache":{}}"#), None);
    assert_eq!(semantic(r#"{"cache":{"semantic":{"mode":"off"}}}"#), None);
    let default = semantic(r#"{"cache":{"semantic":{}}}"#).unwrap();
    assert_eq!(
        (
            default.threshold_milli,
            default.max_chars,
            default.timeout_ms
        ),
        (None, 500, 60)
    );
    assert_eq!(default.auto, None);
    let plan = parse(
        r#"{"cache":{"semantic":{"threshold":0.985,"timeout":"40ms"}},
            "routes":[{"name":"a","match":{"path":"/a"},"cache":{"semantic":{"max_chars":80}}},
                      {"name":"b","match":{"path":"/b"},"cache":{"semantic":{"mode":"off"}}}]}"#,
    )
    .unwrap();
    let overlaid = plan.routes[0].1.cache.semantic.unwrap();
    assert_eq!(
        (
            overlaid.threshold_milli,
            overlaid.max_chars,
            overlaid.timeout_ms
        ),
        (Some(985), 80, 40)
    );
    assert_eq!(plan.routes[1].1.cache.semantic, None);
    for (field, value) in [
        ("threshold", "0.4"),
        ("threshold", "1"),
        ("threshold", "\"Auto\""),
        ("threshold", "\".nan\""),
        ("audit", "0.01"),
        ("false_hits", "0.02"),
        ("max_chars", "0"),
        ("max_chars", "2001"),
        ("timeout", "\"11s\""),
        ("mode", "\"dry\""),
    ] {
        let found = faults(&format!(
            r#"{{"cache":{{"semantic":{{"{field}":{value}}}}}}}"#
        ));
        let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, [format!("cache.semantic.{field}")], "{value}");
    }
}

#[test]
fn a_threshold_that_finds_itself_has_shares_and_a_fixed_one_has_none() {
    let parsed = |json: &str| parse(json).unwrap();
    let auto = |plan: &RoutePlan| {
        let semantic = plan.cache.semantic.unwrap();
        let shares = semantic.auto.map(|it| (it.audit_ppm, it.false_ppm));
        (semantic.threshold_milli, shares)
    };
    let plan = parsed(
        r#"{"cache":{"semantic":{"threshold":"auto","audit":"0.05"}},
            "routes":[{"name":"a","match":{"path":"/a"},"cache":{"semantic":{"false_hits":0.001}}},
                      {"name":"b","match":{"path":"/b"},"cache":{"semantic":{"threshold":0.97}}}]}"#,
    );
    assert_eq!(auto(&plan.default), (None, Some((50_000, 20_000))));
    assert_eq!(auto(&plan.routes[0].1), (None, Some((50_000, 1_000))));
    assert_eq!(auto(&plan.routes[1].1), (Some(970), None));
    let alone = parsed(r#"{"cache":{"semantic":{"threshold":"auto"}}}"#);
    assert_eq!(auto(&alone.default), (None, Some((10_000, 20_000))));
    for (field, value) in [
        ("audit", "0"),
        ("audit", "0.6"),
        ("audit", "\".nan\""),
        ("false_hits", "0.0009"),
        ("false_hits", "0.51"),
        ("false_hits", "\"auto\""),
    ] {
        let found = faults(&format!(
            r#"{{"cache":{{"semantic":{{"threshold":"auto","{field}":{value}}}}}}}"#
        ));
        let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, [format!("cache.semantic.{field}")], "{value}");
    }
    let fixed = faults(
        r#"{"cache":{},"routes":[{"name":"b","match":{"path":"/b"},"cache":{"semantic":{"threshold":0.97,"audit":0.1}}}]}"#,
    );
    assert_eq!(fixed[0].0, "routes[0].cache.semantic.audit");
}

#[test]
fn a_route_of_searches_caches_and_has_no_lever_that_asks_for_a_model() {
    let searches = |of_route: &str| {
        let config = FULL.replace(r#"{"name": "internal""#, &format!(r#"{{"name": "search", "match": {{"path": "/search"}}, "kind": "retrieval"{of_route}}}, {{"name": "internal""#));
        config.replace(
            r#""scope": "tenant""#,
            r#""scope": "tenant", "negative": {}, "tags": ["all"]"#,
        )
    };
    let plan = parse(&searches(
        r#", "cache": {"exact": {"ttl": "1m"}, "headers": ["X-Index", "accept-language", "x-index"]}"#,
    ))
    .unwrap();
    let search = &plan.routes[0].1;
    assert_eq!(search.kind, RouteKind::Retrieval);
    assert_eq!(
        (search.route.mode, search.trim.mode),
        (Mode::Off, Mode::Off)
    );
    assert_eq!(
        (search.cache.mode, search.cache.negative_secs),
        (Mode::On, 0)
    );
    assert_eq!(search.cache.headers, ["accept-language", "x-index"]);
    assert_eq!(search.cache.tags, ["all"]);
    assert_eq!(plan.routes[1].1.kind, RouteKind::Llm);
    assert_eq!(plan.default.cache.negative_secs, 30);

    let of = |of_route: &str| -> Vec<String> {
        let found = faults(&searches(of_route)).into_iter();
        found.map(|(path, _)| path).collect()
    };
    assert_eq!(
        of(r#", "route": {"pin": true}, "trim": {}, "cache": {"negative": {}}"#),
        [
            "routes[0].route",
            "routes[0].trim",
            "routes[0].cache.negative",
        ]
    );
    assert_eq!(
        of(r#", "cache": {"headers": [":path", "x-sluice-task", "ok", ""]}"#),
        [
            "routes[0].cache.headers[0]",
            "routes[0].cache.headers[1]",
            "routes[0].cache.headers[3]",
        ]
    );
    assert_eq!(
        of(r#", "cache": {"tags": ["a,b", "", "ü", "ok"]}"#),
        [
            "routes[0].cache.tags[0]",
            "routes[0].cache.tags[1]",
            "routes[0].cache.tags[2]",
        ]
    );
    let many = serde_json::json!(
        (0..17)
            .map(|number| format!("x{number}"))
            .collect::<Vec<_>>()
    );
    assert_eq!(
        of(&format!(
            r#", "cache": {{"headers": {many}, "tags": {many}}}"#
        )),
        ["routes[0].cache.headers", "routes[0].cache.tags",]
    );
    let warned = |config: &str, part: &str| {
        let warnings = parse(config).unwrap().warnings;
        warnings.iter().any(|warning| warning.contains(part))
    };
    let (idle, open) = ("caches nothing", "matches by headers alone");
    let searching = searches("");
    assert!(!warned(&searching, idle) && !warned(&searching, open));
    assert!(warned(&searches(r#", "cache": {"mode": "off"}"#), idle));
    let by_header = searching.replace(
        r#"{"path": "/search"}"#,
        r#"{"headers": {"x-search": "*"}}"#,
    );
    assert!(warned(&by_header, open));
    assert!(
        faults(&searches("").replace("retrieval", "vector"))[0]
            .1
            .contains("`llm`")
    );
}

#[test]
fn a_refused_request_goes_once_more_by_a_call_unless_the_sidecar_is_to_relay_streams() {
    let retry = |text: &str| {
        let plan = parse(&format!(r#"{{"trim": {{"retry": {text}}}}}"#)).unwrap();
        (plan.default.trim.retry.unwrap(), plan.warnings)
    };
    let (plain, warnings) = retry(r#"{"cluster": "self"}"#);
    assert_eq!(plain.streams, Streams::Callout);
    assert_eq!(
        (plain.by.cluster.as_str(), plain.by.timeout_ms),
        ("self", 120_000)
    );
    let unsealed = |warnings: &[String]| warnings.iter().any(|it| it.contains("sidecar.secret"));
    assert!(
        unsealed(&warnings),
        "nobody would believe the second request"
    );
    let (relayed, _) = retry(r#"{"cluster": "self", "timeout": "9s", "streams": "relay"}"#);
    assert_eq!(
        (relayed.streams, relayed.by.timeout_ms),
        (Streams::Relay, 9_000)
    );
    let secret =
        r#"{"sidecar": {"cluster": "s", "secret": "x"}, "trim": {"retry": {"cluster": "self"}}}"#;
    assert!(!unsealed(&parse(secret).unwrap().warnings));
    for (text, path) in [
        (r#"{"cluster": ""}"#, "trim.retry.cluster"),
        (
            r#"{"cluster": "self", "timeout": "1ms"}"#,
            "trim.retry.timeout",
        ),
        (
            r#"{"cluster": "self", "streams": "sidecar"}"#,
            "trim.retry.streams",
        ),
    ] {
        let found = faults(&format!(r#"{{"trim": {{"retry": {text}}}}}"#));
        assert_eq!(found[0].0, path, "{text}");
    }
}

#[test]
fn requests_wait_for_their_turn_only_where_a_guard_is_on_that_holds_them() {
    for (config, queues) in [
        ("{}", false),
        (r#"{"guard":{"misses":{"limit":1}}}"#, true),
        (r#"{"guard":{"spend":{}}}"#, true),
        (r#"{"guard":{"backoff":{}}}"#, false),
        (r#"{"guard":{"mode":"dry","misses":{"limit":1}}}"#, false),
    ] {
        let plan = Plan::parse(config.as_bytes(), &|_| None).unwrap();
        assert_eq!(plan.queues(), queues, "{config}");
    }
}
