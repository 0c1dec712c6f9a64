use super::super::tests::{env, faults};
use super::*;

/// A config with no fault but those of `rest`.
fn with(rest: &str) -> Vec<String> {
    faults(&format!("sidecar: {{cluster: c, secret: x}}\n{rest}"))
}

#[test]
fn a_number_that_is_none_is_told_with_its_range() {
    for (found, word) in [
        (".nan", "NaN"),
        (".NaN", "NaN"),
        (".inf", "inf"),
        ("-.inf", "-inf"),
        ("1e400", "inf"),
        ("-1e400", "-inf"),
        ("-1", "-1"),
    ] {
        let list = with(&format!(
            "route:\n  tiers:\n    - {{name: a, below: {found}, model: m}}\n    - {{name: b, below: 0.5, model: m}}\n    - {{name: c, model: m}}\n"
        ));
        assert_eq!(
            list,
            [format!(
                "route.tiers[0].below: found {word}, expected more than 0 and at most 1 (line 4, column 24)"
            )],
            "{found}"
        );
    }
    assert_eq!(
        with(
            "models:\n  m: {input: .nan, output: .inf, bytes_per_token: -.inf}\ncache: {exact: {max_temperature: .NAN}}\nbudgets:\n  - {per: tenant, dollars: .inf, every: day, over: reject}"
        ),
        [
            "models.m.input: found NaN, expected dollars per million tokens, 0 to 1000000 (line 3, column 14)",
            "models.m.output: found inf, expected dollars per million tokens, 0 to 1000000 (line 3, column 28)",
            "models.m.bytes_per_token: found -inf, expected 0.25 to 64 (line 3, column 51)",
            "cache.exact.max_temperature: found NaN, expected 0 to 2 (line 4, column 34)",
            "budgets[0].dollars: found inf, expected more than 0, at most 1000000 (line 6, column 28)",
        ]
    );
}

#[test]
fn a_whole_number_that_is_none_is_told_with_what_it_may_be() {
    let whole = "expected a whole number, like 2000 or 2_000_000";
    for (written, told) in [
        (".nan", format!("found `.nan`, {whole}")),
        (".inf", format!("found `.inf`, {whole}")),
        ("-1", format!("found -1, {whole}")),
        ("1.5", format!("found 1.5, {whole}")),
        ("many", format!("found `many`, {whole}")),
        (
            "99999999999999999999",
            "found 100000000000000000000, expected at most 2^53".to_owned(),
        ),
        (
            "18446744073709551615",
            "found 18446744073709551615, expected 1 to 2^53".to_owned(),
        ),
        ("0", "found 0, expected 1 to 2^53".to_owned()),
        ("true", format!("invalid type: boolean `true`, {whole}")),
        ("[1]", format!("invalid type: sequence, {whole}")),
        ("{a: 1}", format!("invalid type: map, {whole}")),
    ] {
        let list = with(&format!(
            "budgets:\n  - {{per: task, tokens: 1, every: day, over: reject}}\n  - per: tenant\n    tokens: {written}\n    every: day\n    over: reject\n"
        ));
        assert_eq!(
            list,
            [format!("budgets[1].tokens: {told} (line 5, column 13)")],
            "{written}"
        );
    }
}

#[test]
fn whole_numbers_are_read_in_each_of_yamls_forms() {
    for (written, tokens) in [("0x10", 16), ("1_000", 1000), ("2e3", 2000), ("\"7\"", 7)] {
        let config = super::super::parse(
            &format!("sidecar: {{cluster: c, secret: x}}\nbudgets: [{{per: task, tokens: {written}, every: day, over: reject}}]"),
            false,
            &env,
        )
        .unwrap();
        assert_eq!(config.plan.budgets[0].limit, tokens, "{written}");
    }
}

#[test]
fn every_duplicate_key_is_told_beside_the_other_faults() {
    assert_eq!(
        with(
            "budgets:\n  - {per: task, tokens: 1, every: day, over: reject}\n  - per: tenant\n    tokens: 1\n    every: day\n    tokens: 2\n    over: reject\nserve:\n  tenants: {acme: a, acme: b}\n  counters: 1\nbudgets: []\n"
        ),
        [
            "budgets[1].tokens: found a duplicate key, expected it once; the first: line 5, column 13 (line 7, column 13)",
            "serve.tenants.acme: found a duplicate key, expected it once; the first: line 10, column 19 (line 10, column 28)",
            "serve.counters: expected at least 100, found less (line 11, column 13)",
            "budgets: found a duplicate key, expected it once; the first: line 3, column 3 (line 12, column 10)",
        ]
    );
}

#[test]
fn a_duplicate_key_of_json_is_told_too() {
    let text = r#"{"sidecar": {"cluster": "c", "secret": "x", "cluster": "d"}}"#;
    let Err(super::super::Faults(list)) = super::super::parse(text, true, &env) else {
        panic!("accepted");
    };
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!(list[0].path, "sidecar.cluster");
    assert_eq!(list[0].message, "found a duplicate key, expected it once");
}

#[test]
fn keys_that_a_merge_replaces_are_no_duplicates() {
    let tree = Document::of_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}").unwrap();
    assert!(tree.duplicates.is_empty());
    assert_eq!(tree.tree["b"], serde_json::json!({"x": 3, "y": 2}));
}

#[test]
fn a_syntax_error_is_told_with_its_place_and_the_path_read_so_far() {
    for (rest, told) in [
        (
            "serve:\n\tlisten: x",
            "(config): tabs disallowed within this context (block indentation) (line 3, column 2)",
        ),
        (
            "serve:\n  listen: x\n counters: 1",
            "(config): while parsing a block mapping, did not find expected key (line 4, column 2)",
        ),
        (
            "route:\n  tiers:\n    - {name: small, below: 0.3\n    - {name: large}",
            "route.tiers: unclosed bracket '{' (line 4, column 7)",
        ),
        (
            "budgets:\n  - {per: task}\n  - {per: \"tenant}\n",
            "budgets: unclosed quote (line 4, column 11)",
        ),
        (
            "models:\n  m:\n    input: !!int cheap\n",
            "models.m.input: invalid u64 (line 4, column 18)",
        ),
        (
            "models:\n  m: {[input]: 1}\n",
            "models.m: expected string scalar (line 3, column 7)",
        ),
        (
            "models:\n  ~: {input: 1}\n",
            "models: null is not allowed here (line 3, column 3)",
        ),
        (
            "models:\n  m: *other\n",
            "models: reference to unknown value (line 3, column 6)",
        ),
        (
            "models:\n  m: &m {input: *m}\n",
            "models.m: Recursive reference not allowed here (line 3, column 17)",
        ),
        (
            "mode: on: off\n",
            "(config): mapping values are not allowed in this context (line 2, column 9)",
        ),
        (
            "mode: on\n---\nmode: off\n",
            "(config): only single YAML document expected but multiple found (line 4, column 1)",
        ),
    ] {
        assert_eq!(with(rest), [told], "{rest:?}");
    }
}

#[test]
fn a_wrong_type_is_told_where_it_stands_and_a_missing_field_where_it_should() {
    let sections = "unknown section, expected one of: mode, sidecar, models, identity, route, trim, templates, budgets, reserve, cache, guard, limits, routes, serve";
    assert_eq!(
        with(
            "serve:\n  listen: [x]\n  tls:\n    cert: a\n  counters: .nan\n  retention: 5\n  redis: 1\ntrim: ~\n1: x\ntrue: y\n"
        ),
        [
            "serve.listen: invalid type: sequence, expected a string (line 3, column 11)".to_owned(),
            "serve.tls: missing field `key` (line 5, column 5)".to_owned(),
            "serve.counters: invalid type: string \".nan\", expected a whole number (line 6, column 13)".to_owned(),
            "serve.retention: invalid type: integer `5`, expected a span of time like `50ms`, `20s`, `10m`, `1h` or `90d` (line 7, column 14)".to_owned(),
            "serve.redis: invalid type: integer `1`, expected a mapping (line 8, column 10)".to_owned(),
            "trim: invalid type: null, expected a mapping (line 9, column 7)".to_owned(),
            format!("1: {sections} (line 10, column 4)"),
            format!("true: {sections} (line 11, column 7)"),
        ]
    );
}

#[test]
fn an_alias_bomb_is_refused_early_and_with_its_path() {
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for pair in ["ab", "bc", "cd", "de", "ef", "fg"] {
        let (of, name) = pair.split_at(1);
        bomb += &format!(
            "{name}: &{name} [{}]\n",
            vec![format!("*{of}"); 10].join(",")
        );
    }
    let list = with(&bomb);
    assert_eq!(
        list,
        [
            "e[0][5][2][6]: YAML document too large or too complex: total_replayed_events=20001 > 20000 at line 2, column 27 (defined at line 5, column 7) (used at line 6, column 8)"
        ]
    );
}

#[test]
fn json_of_any_depth_ends_in_a_fault() {
    for depth in [1, 30, 127, 128, 10_000] {
        let text = format!(r#"{{"serve": {}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        let faults = super::super::parse(&text, true, &env).unwrap_err().0;
        assert!(
            faults.iter().all(|fault| !fault.path.is_empty()),
            "{faults:?}"
        );
    }
}

#[test]
fn nesting_without_end_is_refused_with_a_path() {
    let flow = format!("serve: {}{}", "[".repeat(3000), "]".repeat(3000));
    let block: String = (0..3000)
        .map(|at| format!("{}a:\n", " ".repeat(at)))
        .collect();
    for text in [flow, block] {
        let list = with(&text);
        assert!(list.len() == 1 && list[0].contains("line "), "{}", list[0]);
        assert!(
            list[0].starts_with("serve") || list[0].starts_with("a.a.a"),
            "{}",
            list[0]
        );
    }
}
