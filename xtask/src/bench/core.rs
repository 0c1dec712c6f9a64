//! The core's cases, natively by criterion and in wasm under node, side by side.
//!
//! Contract with `filter/core`: `benches/core.rs` is a criterion bench; `tests/wasm_bench.rs` is a
//! wasm-bindgen test that prints a line `bench NAME NANOSECONDS` for every case of the same names.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Asked;
use super::table::{Better, Row};
use crate::build::wasm_cargo;
use crate::run::{self, Workspace};
use crate::setup::{self, cargo_tool, wasm::Wasm};

/// Times of every case, in microseconds.
pub(super) fn measure(workspace: &Workspace, _asked: &Asked<'_>) -> Result<Vec<Row>> {
    let native = native(workspace)?;
    let wasm = wasm(workspace)?;
    let mut rows = Vec::new();
    for (case, time) in &native {
        rows.push(row(format!("{case} · native"), time / 1e3, "µs"));
        if let Some(slow) = wasm.get(case) {
            rows.push(row(format!("{case} · wasm"), slow / 1e3, "µs"));
            rows.push(row(format!("{case} · wasm ÷ native"), slow / time, "times"));
        }
    }
    if let Some(case) = wasm.keys().find(|case| !native.contains_key(*case)) {
        bail!("case '{case}' was measured in wasm and not natively");
    }
    Ok(rows)
}

fn row(case: String, value: f64, unit: &str) -> Row {
    Row {
        case,
        value,
        unit: unit.into(),
        target: None,
        better: Better::Lower,
    }
}

fn native(workspace: &Workspace) -> Result<BTreeMap<String, f64>> {
    let results = workspace.target.join("criterion");
    // Cases of an earlier version must not stand beside today's.
    let _ = fs::remove_dir_all(&results);
    run::show(
        workspace
            .cargo()
            .args(["bench", "--package", "sluice-core", "--bench", "core"]),
    )?;
    let mut times = BTreeMap::new();
    collect(&results, &mut times)?;
    Ok(times)
}

/// criterion leaves `…/new/benchmark.json` (the name) beside `…/new/estimates.json` (the times).
fn collect(folder: &Path, times: &mut BTreeMap<String, f64>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        if path.ends_with("new") {
            let read = |name: &str| -> Result<Value> {
                Ok(serde_json::from_str(&fs::read_to_string(path.join(name))?)?)
            };
            let name = read("benchmark.json")?["full_id"]
                .as_str()
                .context("full_id")?
                .to_string();
            let mean = &read("estimates.json")?["mean"]["point_estimate"];
            times.insert(name, mean.as_f64().context("mean.point_estimate")?);
        } else {
            collect(&path, times)?;
        }
    }
    Ok(())
}

/// Nanoseconds of every case in wasm.
pub(super) fn wasm(workspace: &Workspace) -> Result<BTreeMap<String, f64>> {
    let wasm = Wasm::find(workspace)?;
    setup::node()?;
    let runner = cargo_tool::wasm_bindgen_test_runner(workspace)?;
    let output = wasm_cargo(&wasm, "test")?
        .args([
            "--release",
            "--package",
            "sluice-core",
            "--test",
            "wasm_bench",
            "--",
            "--nocapture",
        ])
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", runner)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("starting the cases in wasm")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("the cases in wasm: {}\n{text}", output.status);
    }
    Ok(text.lines().filter_map(case).collect())
}

/// `bench NAME NANOSECONDS`, wherever the runner indents it.
fn case(line: &str) -> Option<(String, f64)> {
    let (name, time) = line.trim().strip_prefix("bench ")?.rsplit_once(' ')?;
    Some((name.to_string(), time.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::case;

    #[test]
    fn a_case_line_is_read_and_other_output_is_not() {
        assert_eq!(
            case("    bench parse/1 KB 1250.5"),
            Some(("parse/1 KB".into(), 1250.5))
        );
        assert_eq!(case("running 1 test"), None);
        assert_eq!(case("bench parse fast"), None);
    }
}
