//! Envoy's statistics, with the filter's labels taken out of their names.

use std::collections::BTreeMap;

use serde_json::Value;

/// One counter or gauge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name without labels: `sluice.requests`.
    pub name: String,
    /// What the name carries as `;label=value`.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: u64,
}

/// All of them at one moment.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Vec<Metric>);

/// Envoy puts this in front of every metric of a wasm module.
const WASM: &str = "wasmcustom.";

impl Metrics {
    /// Reads the answer of `/stats?format=json`.
    #[must_use]
    pub fn parse(stats: &Value) -> Metrics {
        let list = stats["stats"].as_array();
        let read = |stat: &Value| {
            let name = stat["name"].as_str()?;
            let mut parts = name.strip_prefix(WASM).unwrap_or(name).split(';');
            Some(Metric {
                name: parts.next()?.to_owned(),
                labels: parts
                    .filter_map(|part| part.split_once('='))
                    .map(|(label, value)| (label.to_owned(), value.to_owned()))
                    .collect(),
                value: stat["value"].as_u64()?,
            })
        };
        Metrics(list.into_iter().flatten().filter_map(read).collect())
    }

    /// The sum over all series of `name` that have these labels.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let series = self.0.iter().filter(|metric| {
            let has = |(label, value): &(&str, &str)| {
                metric.labels.get(*label).is_some_and(|v| v == value)
            };
            metric.name == name && labels.iter().all(has)
        });
        series.map(|metric| metric.value).sum()
    }

    /// The series of the filter.
    pub fn ours(&self) -> impl Iterator<Item = &Metric> {
        self.0
            .iter()
            .filter(|metric| metric.name.starts_with("sluice."))
    }

    /// VMs that crashed and were brought back, or could not be.
    #[must_use]
    pub fn crashes(&self) -> u64 {
        let told = self.0.iter().filter(|metric| {
            let name = metric.name.as_str();
            name.contains("wasm")
                && (name.contains("crash")
                    || name.contains("vm_reload")
                    || name.contains("vm_fail"))
        });
        told.map(|metric| metric.value).sum()
    }

    /// Everything whose name holds `part`, for messages.
    #[must_use]
    pub fn about(&self, part: &str) -> Vec<&Metric> {
        self.0
            .iter()
            .filter(|metric| metric.name.contains(part))
            .collect()
    }
}
