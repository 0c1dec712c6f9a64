//! Recorded prompts that two models answered, where they are present.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Error, Result};
use std::path::PathBuf;

use serde::Deserialize;

/// The strong model that most sets have, beside one weak model.
const MIXED: &str = "gpt-4-1106-preview";

/// Name of the set that [`mix`] makes.
pub(crate) const MIX: &str = "mix";

/// Sets whose licence lets weights that are shipped be trained on them.
const TRAINED_ON: [&str; 3] = ["routellm_mmlu", "routellm_gsm8k", "uiuc_llmrouter"];

/// A set of more domains is one benchmark in many subjects.
const MOST_BENCHMARKS: usize = 20;

/// A prompt and how well the models did.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Prompt {
    /// Benchmark, or the subject of one that has many.
    pub(crate) domain: String,
    /// Of one benchmark are the subjects that it has.
    #[serde(skip)]
    pub(crate) benchmark: String,
    pub(crate) prompt: String,
    pub(crate) strong_model: String,
    /// None: not recorded.
    strong: Option<f64>,
    weak: Option<f64>,
    /// A recording artefact: what is written there is not how the models did.
    #[serde(default)]
    suspect: bool,
    /// The prompt is thought to stand in a model's training data.
    #[serde(default)]
    contaminated: bool,
}

impl Prompt {
    /// Quality of the strong model's answer, and of the weak one's.
    pub(crate) fn qualities(&self) -> (f64, f64) {
        (self.strong.unwrap_or(0.0), self.weak.unwrap_or(0.0))
    }
}

impl Set {
    /// Whether weights that are shipped may be trained on it.
    pub(crate) fn trains(&self) -> bool {
        TRAINED_ON.contains(&self.name.as_str())
    }

    /// The prompts of each benchmark in it.
    pub(crate) fn benchmarks(&self) -> BTreeMap<&str, Vec<&Prompt>> {
        let mut all: BTreeMap<&str, Vec<&Prompt>> = BTreeMap::new();
        for prompt in &self.prompts {
            all.entry(&prompt.benchmark).or_default().push(prompt);
        }
        all
    }
}

/// Those of one file.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    /// The file's name without its ending.
    pub(crate) name: String,
    pub(crate) prompts: Vec<Prompt>,
}

/// Every file in `routing/` of the folder that `SLUICE_ROUTER_DATA` names, in the order of their
/// names, without rows that are suspect, contaminated or not graded. None where there is none.
pub(crate) fn sets() -> Result<Vec<Set>> {
    let data = std::env::var_os("SLUICE_ROUTER_DATA").map_or_else(
        || concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data").into(),
        PathBuf::from,
    );
    let folder = data.join("routing");
    let Ok(entries) = fs::read_dir(&folder) else {
        eprintln!("skipped: no {}", folder.display());
        return Ok(Vec::new());
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "jsonl") {
            files.push(path);
        }
    }
    files.sort();
    files.iter().map(read).collect()
}

/// Prompts of every set that the same strong model answered, as traffic mixes them.
pub(crate) fn mix(sets: &[Set]) -> Set {
    let prompts = sets.iter().flat_map(|set| &set.prompts);
    let prompts = prompts.filter(|prompt| prompt.strong_model == MIXED);
    Set {
        name: MIX.to_owned(),
        prompts: prompts.cloned().collect(),
    }
}

fn read(path: &PathBuf) -> Result<Set> {
    let mut prompts = Vec::new();
    for (at, line) in (1..).zip(fs::read_to_string(path)?.lines()) {
        let row: Prompt = serde_json::from_str(line)
            .map_err(|error| Error::other(format!("{}:{at}: {error}", path.display())))?;
        let graded = row.strong.is_some() && row.weak.is_some();
        if graded && !row.suspect && !row.contaminated {
            prompts.push(row);
        }
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let domains: BTreeSet<_> = prompts.iter().map(|row| row.domain.clone()).collect();
    for row in &mut prompts {
        row.benchmark = if domains.len() > MOST_BENCHMARKS {
            name.rsplit('_').next().unwrap_or_default().to_owned()
        } else {
            row.domain.clone()
        };
    }
    Ok(Set {
        name: name.into_owned(),
        prompts,
    })
}
