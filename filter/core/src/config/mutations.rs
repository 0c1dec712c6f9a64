//! A valid config, changed in one place: it is refused with a place, or it is a plan; never a panic.
//! Damage at random is `tests/fuzz/`'s.

use serde_json::{Value, json};

use super::tests::{FULL, parse};
use super::*;

/// Every value below the root: its JSON pointer, its path, and itself.
fn values(of: &Value) -> Vec<(String, String, Value)> {
    let children: Vec<(String, String, &Value)> = match of {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| {
                let token = key.replace('~', "~0").replace('/', "~1");
                (format!("/{token}"), format!(".{key}"), value)
            })
            .collect(),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .map(|(at, value)| (format!("/{at}"), format!("[{at}]"), value))
            .collect(),
        _ => Vec::new(),
    };
    let mut all = Vec::new();
    for (pointer, path, value) in children {
        all.push((pointer.clone(), path.clone(), value.clone()));
        all.extend(values(value).into_iter().map(|(inner, deeper, value)| {
            (
                format!("{pointer}{inner}"),
                format!("{path}{deeper}"),
                value,
            )
        }));
    }
    all
}

/// The faults, each of which says where it is.
fn faults(config: &str) -> Vec<Fault> {
    let faults = parse(config)
        .err()
        .map_or_else(Vec::new, |Faults(list)| list);
    for fault in &faults {
        let placed = match fault.path.as_str() {
            "(config)" => fault.message.contains("line ") && fault.message.contains("column "),
            path => !path.is_empty(),
        };
        assert!(placed && !fault.message.is_empty(), "{fault:?} of {config}");
    }
    faults
}

#[test]
fn a_value_of_another_kind_makes_a_plan_or_a_fault_with_a_path() {
    let full: Value = serde_json::from_str(FULL).unwrap();
    let others = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(0.5),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("*"),
        json!("env:NOT_SET"),
        json!("-.inf"),
        json!("99999999999999999999d"),
        json!([]),
        json!([[null]]),
        json!({}),
        json!({"": {"": 0}}),
    ];
    let mut refused = 0;
    for (pointer, ..) in values(&full) {
        for other in &others {
            let mut changed = full.clone();
            *changed.pointer_mut(&pointer).unwrap() = other.clone();
            refused += usize::from(!faults(&changed.to_string()).is_empty());
        }
    }
    assert!(refused > 500, "{refused}");
}

#[test]
fn a_number_that_is_none_is_a_fault_of_its_own_field() {
    let full: Value = serde_json::from_str(FULL).unwrap();
    let mut seen = 0;
    for (pointer, path, value) in values(&full) {
        for word in [".nan", ".inf", "-.Inf", "1e400", "many"] {
            if value.is_number() {
                let mut changed = full.clone();
                *changed.pointer_mut(&pointer).unwrap() = json!(word);
                let found = faults(&changed.to_string());
                assert_eq!(
                    found
                        .iter()
                        .map(|fault| fault.path.as_str())
                        .collect::<Vec<_>>(),
                    [&path[1..]],
                    "{word}: {found:?}"
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn a_key_that_nobody_knows_is_a_fault_in_its_section() {
    let full: Value = serde_json::from_str(FULL).unwrap();
    for (pointer, path, value) in values(&full) {
        if !value.is_object() || path == ".serve" {
            continue;
        }
        for key in ["unheard", "", "."] {
            let mut changed = full.clone();
            changed.pointer_mut(&pointer).unwrap()[key] = json!({"of": [1]});
            let found = faults(&changed.to_string());
            assert!(
                found.iter().any(|fault| fault.path.starts_with(&path[1..])),
                "{key} in {path}: {found:?}"
            );
        }
    }
}

#[test]
fn a_key_that_is_missing_or_has_no_name_is_no_panic() {
    let full: Value = serde_json::from_str(FULL).unwrap();
    let mut objects = values(&full);
    objects.push((String::new(), String::new(), full.clone()));
    for (pointer, _, value) in objects {
        for key in value.as_object().into_iter().flat_map(|map| map.keys()) {
            for name in [None, Some("")] {
                let mut changed = full.clone();
                let map = changed
                    .pointer_mut(&pointer)
                    .unwrap()
                    .as_object_mut()
                    .unwrap();
                let value = map.remove(key).unwrap();
                if let Some(name) = name {
                    map.insert(name.to_owned(), value);
                }
                faults(&changed.to_string());
            }
        }
    }
}

#[test]
fn text_that_is_cut_anywhere_is_refused_with_its_place() {
    for at in 1..FULL.len() {
        assert!(!faults(&FULL[..at]).is_empty(), "cut at {at}");
    }
}
