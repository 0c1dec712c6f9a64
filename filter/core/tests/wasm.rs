//! The decisions as Envoy runs them: the same code on wasm32, under node.
#![cfg(target_arch = "wasm32")]

use sluice_core::json::Object;
use sluice_wire::Usd;
use wasm_bindgen_test::wasm_bindgen_test;

#[wasm_bindgen_test]
fn sums_past_32_bits_are_exact() {
    let price = Usd::from_dollars(2.5 / 1e6);
    assert_eq!(price.times(40_000_000_000).dollars(), 100_000.0);
}

#[wasm_bindgen_test]
fn a_body_is_read_with_every_value_as_it_stands() {
    let body = r#"{"model":"gpt-4o","seed":9007199254740993,"model":"gpt-4o-mini"}"#;
    let object = Object::parse(body).unwrap();
    assert_eq!(object.get("seed"), Some("9007199254740993"));
    assert_eq!(object.str("model").unwrap().text(), "gpt-4o-mini");
}
