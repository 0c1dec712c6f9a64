//! The learned score where it has not seen what it is asked: fitted anew without a fifth of a set,
//! and without a whole benchmark.

use std::collections::BTreeMap;

use sluice_core::policy::route::learned::{Example, Model, Reading, SHIPPED, fit, read_prompt};
use sluice_core::policy::route::quality::{Graded, Ranked};
use sluice_core::policy::route::score_prompt_by;

use crate::data::{MIX, Prompt, Set};
use crate::report::{Aims, Report};
use crate::shipped::{LENGTH, graded};

/// Parts of a cross-validation.
const PARTS: usize = 5;

/// Benchmarks that ask the same: where one is left out, so are those of its line.
const ALIKE: [&[&str]; 2] = [&["gsm8k", "agentverse-mgsm"], &["mbpp", "human_eval"]];

/// A prompt as training reads it.
struct Read<'a> {
    prompt: &'a Prompt,
    domain: String,
    reading: Reading,
}

fn read(set: &Set) -> Vec<Read<'_>> {
    let read = |prompt| Read {
        prompt,
        domain: format!("{}/{}", prompt.strong_model, prompt.domain),
        reading: read_prompt(&prompt.prompt),
    };
    set.prompts.iter().map(read).collect()
}

fn fitted<'a>(prompts: impl IntoIterator<Item = &'a Read<'a>>) -> Model {
    let example = |read: &'a Read<'a>| {
        let (strong, weak) = read.prompt.qualities();
        Example {
            reading: &read.reading,
            domain: &read.domain,
            gain: strong - weak,
        }
    };
    fit(&prompts.into_iter().map(example).collect::<Vec<_>>())
}

/// The model that is shipped: fitted to every set that may train it. None where one is absent.
pub(crate) fn shipped(sets: &[Set]) -> Option<Model> {
    let trained: Vec<_> = sets.iter().filter(|set| set.trains()).collect();
    let read: Vec<_> = trained.iter().flat_map(|set| read(set)).collect();
    (trained.len() == 3).then(|| fitted(&read))
}

pub(crate) fn measure(sets: &[Set], report: &mut Report) {
    if shipped(sets).is_some_and(|model| model.to_bytes() != SHIPPED) {
        eprintln!("\nthe shipped weights are not what training gives: cargo xtask train-router");
    }
    report.part("cross-validation within a set");
    for set in sets {
        let aims = match set.name.as_str() {
            "routellm_mmlu" => Aims::new(0.66, 0.5),
            "routellm_gsm8k" => Aims::new(0.65, 0.4),
            MIX => Aims {
                apgr: None,
                ..Aims::new(0.0, 0.45)
            },
            _ => Aims::default(),
        };
        let read = read(set);
        report.case(
            &format!("{} · cross-validated", set.name),
            cross_validated(&read),
            aims,
        );
    }
    left_out(sets, report);
}

/// Each prompt's score by a model that was fitted to the other parts.
fn cross_validated(read: &[Read<'_>]) -> Vec<Graded> {
    let mut all = Vec::new();
    for part in 0..PARTS {
        // Rows stand in the order of their subjects: every fifth is a fair sample.
        let held = |at: &usize| at % PARTS == part;
        let others = (0..read.len()).filter(|at| !held(at));
        let model = fitted(others.map(|at| &read[at]));
        let held = (0..read.len()).filter(held).map(|at| read[at].prompt);
        all.extend(scored(&model, held));
    }
    all
}

fn scored<'a>(model: &Model, prompts: impl IntoIterator<Item = &'a Prompt>) -> Vec<Graded> {
    graded(prompts, |prompt| {
        f64::from(score_prompt_by(model, &prompt.prompt).value)
    })
}

/// The names that are left out with a benchmark's.
fn alike(benchmark: &str) -> Vec<&str> {
    let line = ALIKE.iter().find(|line| line.contains(&benchmark));
    line.map_or_else(|| vec![benchmark], |line| line.to_vec())
}

/// Models of all sets that may train, each without some benchmarks.
struct Without<'a> {
    read: Vec<Read<'a>>,
    models: BTreeMap<Vec<&'a str>, Model>,
}

impl<'a> Without<'a> {
    fn model(&mut self, mut names: Vec<&'a str>) -> &Model {
        names.sort_unstable();
        names.dedup();
        let left = |read: &&Read<'_>| !names.contains(&read.prompt.benchmark.as_str());
        let read = &self.read;
        self.models
            .entry(names.clone())
            .or_insert_with(|| fitted(read.iter().filter(left)))
    }
}

fn left_out(sets: &[Set], report: &mut Report) {
    let trained = sets.iter().filter(|set| set.trains());
    let mut without = Without {
        read: trained.flat_map(read).collect(),
        models: BTreeMap::new(),
    };
    report.part("fitted without the benchmark");
    for set in sets.iter().filter(|set| set.name != MIX) {
        let benchmarks = set.benchmarks();
        // Without all that a set of many benchmarks has there is nothing left to learn from.
        if benchmarks.len() > 1 && !set.trains() {
            let names = benchmarks.keys().flat_map(|name| alike(name)).collect();
            case(set.name.clone(), &set.prompts, without.model(names), report);
        }
        for (benchmark, prompts) in benchmarks {
            let name = format!("{} · {benchmark}", set.name);
            case(name, prompts, without.model(alike(benchmark)), report);
        }
    }
}

/// A benchmark's interval should lie above what chance and the prompt's length have.
fn case<'a>(
    name: String,
    prompts: impl IntoIterator<Item = &'a Prompt> + Clone,
    model: &Model,
    report: &mut Report,
) {
    let length = Ranked::new(graded(prompts.clone(), LENGTH.1)).quality();
    let length = length.map_or(0.5, |quality| quality.apgr);
    let aims = Aims {
        low: Some(length.max(0.5)),
        ..Aims::default()
    };
    report.case(&format!("{name} · left out"), scored(model, prompts), aims);
}
