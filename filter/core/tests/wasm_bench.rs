//! The core's cases in wasm under node, one line each: `bench NAME NANOSECONDS`.
#![cfg(target_arch = "wasm32")]

#[path = "../benches/cases/mod.rs"]
mod cases;

use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_test::{console_log, wasm_bindgen_test};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance)]
    fn now() -> f64;
}

/// Milliseconds that one case is timed for at a time, after one time to warm up, and how often: what
/// else the machine does takes some of the times, and not the middle one.
const BUDGET: f64 = 30.0;
const TIMES: usize = 11;

#[wasm_bindgen_test]
fn every_case_is_timed() {
    let mut timed = 0;
    for (name, mut case) in cases::all() {
        let mut run = |budget: f64| {
            let (start, mut rounds) = (now(), 0.0);
            while now() - start < budget {
                case();
                rounds += 1.0;
            }
            (now() - start) * 1e6 / rounds
        };
        run(BUDGET);
        let mut times: Vec<f64> = (0..TIMES).map(|_| run(BUDGET)).collect();
        times.sort_unstable_by(f64::total_cmp);
        let nanoseconds = times[TIMES / 2];
        assert!(nanoseconds > 0.0, "{name}");
        console_log!("bench {name} {nanoseconds:.0}");
        timed += 1;
    }
    assert!(timed >= 15, "{timed} cases");
}
