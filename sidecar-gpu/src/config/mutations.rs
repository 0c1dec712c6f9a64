//! A valid config, its text changed in one place: it is read, or refused with a place; never a panic.

use super::tests::env;
use super::*;

/// Every section, in block style and in flow style, with an anchor, a merge and quotes.
const FULL: &str = r#"# Sluice
mode: on
sidecar:
  cluster: sluice_sidecar
  timeout: 50ms
  secret: env:SLUICE_SECRET
  breaker: {failures: 3, pause: 2s}
models:
  "gpt-4o": &prices {encoding: o200k_base, input: 2.5, output: 10.0}
  gpt-4o-mini: {<<: *prices, input: 0.15}
identity:
  tenant: [{jwt: {claim: org, payload: p}}, {key_hash: true}]
  trust:
    - source: 10.0.0.0/8
  allow: {acme: [gpt-4o]}
route:
  tiers:
    - {name: small, below: 0.3, model: {openai: gpt-4o-mini}, max_tokens: 256}
    - {name: large, model: gpt-4o}
trim:
  mode: dry
  retry: {cluster: sluice_self, timeout: 120s, streams: relay}
  input_tokens: {limit: 8_000, tenants: {acme: 4000}}
  context:
    markers: [{tag: document}, {list: {after: "Sources:"}}]
    top_k: 5
    filter: lang == "en"
    duplicates: off
  template: support
  system: {tokens: 1_200, minify: true, examples: {top_k: 3}}
  history: {keep: relevant, tokens: 2_000, last: 2, pin_first: 1, embeddings: {timeout: 50ms}}
templates:
  - name: support
    user: |
      {{context}}
      {{question}}
    tokens: {question: 500}
budgets:
  - per: tenant
    tokens: 0x1000
    every: day
    over: reject
  - {per: task, dollars: 50, every: month, over: small_tier}
cache:
  exact: {ttl: 10m, max_answer: 256KiB, max_temperature: 1.0}
  semantic: {threshold: auto, audit: 0.01, false_hits: 0.02}
routes:
  - name: internal
    match: {host: "*.acme.com", path: '/v1/chat/*'}
    cache: {mode: off}
serve:
  listen: 127.0.0.1:8089
  semantic: {model: /models/m, threads: 1, entries: 100_000, texts: 64MiB, keep_answers: false}
  conversations: 32MiB
  relay: {url: "http://127.0.0.1:10001", timeout: 5m}
  summaries:
    url: http://127.0.0.1:10000/v1/chat/completions
    headers: {x-tenant: "{tenant}"}
    queue: 64
  store: memory
  operators: [env:SLUICE_OPERATOR]
  tenants:
    acme: env:ACME_REPORT_TOKEN
  retention: 30d
"#;

/// Whether it is refused, with a place in every fault.
fn is_refused(text: &str) -> bool {
    let Err(Faults(faults)) = parse(text, false, &env) else {
        return false;
    };
    assert!(!faults.is_empty());
    for fault in &faults {
        let placed = match fault.path.as_str() {
            WHOLE => fault.message.contains("line ") && fault.message.contains("column "),
            path => !path.is_empty(),
        };
        assert!(
            placed && !fault.to_string().contains(char::is_control),
            "{fault:?} of\n{text}"
        );
    }
    true
}

#[test]
fn text_that_is_cut_or_changed_at_any_byte_is_read_or_refused_with_a_place() {
    assert!(!is_refused(FULL));
    let others = [
        ":", "\t", "\n", " ", "\"", "'", "[", "}", ",", "- ", "*", "&x ", "!!int ", "? ", "# ",
        "|", "\u{0}", "é", "9", "<<: ",
    ];
    let mut refused = 0;
    for at in 1..FULL.len() {
        let (head, tail) = (&FULL[..at], &FULL[at + 1..]);
        let other = others[at / 3 % others.len()];
        let changed = match at % 3 {
            0 => format!("{head}{tail}"),
            1 => format!("{head}{other}{tail}"),
            _ => format!("{head}{other}{}", &FULL[at..]),
        };
        for text in [head, &changed] {
            refused += usize::from(is_refused(text));
        }
    }
    assert!(refused > FULL.len(), "{refused}");
}

#[test]
fn lines_that_are_left_out_doubled_or_moved_are_read_or_refused_with_a_place() {
    let lines: Vec<&str> = FULL.lines().collect();
    for at in 0..lines.len() {
        for indent in ["", " ", "    ", "\t"] {
            let line = format!("{indent}{}", lines[at].trim_start());
            let mut changed = lines.clone();
            changed[at] = &line;
            is_refused(&changed.join("\n"));
            changed.insert(at, lines[at]);
            is_refused(&changed.join("\n"));
        }
        let mut less = lines.clone();
        less.remove(at);
        is_refused(&less.join("\n"));
    }
}

#[test]
fn a_value_of_another_kind_is_read_or_refused_with_a_place() {
    let others = [
        "",
        "~",
        ".nan",
        "-.inf",
        "1e400",
        "-1",
        "0x10",
        "010",
        "1_000",
        "1.",
        "99999999999999999999",
        "on",
        "[]",
        "[[[]]]",
        "{}",
        "{a: 1, a: 2}",
        "{? [k] : v}",
        "{~: 1}",
        "{1: {2: 3}}",
        "*prices",
        "*nobody",
        "&a [*a]",
        "!!int x",
        "!!float .nan",
        "!!binary aGk=",
        "!own x",
        "2026-01-01",
        "\"\\q\"",
        "|\n  text",
    ];
    let mut refused = 0;
    for (start, _) in FULL.match_indices(": ") {
        let from = start + 2;
        let ends = [",", "}", "]", "\n"].map(|end| FULL[from..].find(end).unwrap_or(0));
        let until = from + ends.into_iter().min().unwrap_or(0);
        for other in others {
            refused += usize::from(is_refused(&format!(
                "{}{other}{}",
                &FULL[..from],
                &FULL[until..]
            )));
        }
    }
    assert!(refused > 500, "{refused}");
}
