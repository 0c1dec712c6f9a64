//! The score as it is shipped, beside its rules alone, a constant, the prompt's length and an oracle;
//! the tiers that prompts fall into at the shipped thresholds, and what quality that leaves.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use sluice_core::policy::route::learned::Model;
use sluice_core::policy::route::quality::Graded;
use sluice_core::policy::route::{THRESHOLDS, pick, score_prompt, score_prompt_by};

use crate::data::{MIX, Prompt, Set};
use crate::report::{Aims, Report};

/// A model that knows nothing leaves the rules.
static RULES: LazyLock<Model> = LazyLock::new(Model::empty);

/// How a prompt is scored.
pub(crate) type Score = fn(&Prompt) -> f64;

const SHIPPED: (&str, Score) = ("sluice score", |row| score_prompt(&row.prompt).value.into());
pub(crate) const LENGTH: (&str, Score) = ("prompt length", |row| row.prompt.len() as f64);
const BASELINES: [(&str, Score); 4] = [
    ("rules alone", |row| {
        score_prompt_by(&RULES, &row.prompt).value.into()
    }),
    ("constant", |_| 0.5),
    LENGTH,
    ("oracle", |row| row.qualities().0 - row.qualities().1),
];

pub(crate) fn graded<'a>(
    prompts: impl IntoIterator<Item = &'a Prompt>,
    score: impl Fn(&Prompt) -> f64,
) -> Vec<Graded> {
    let graded = |prompt: &Prompt| {
        let (strong, weak) = prompt.qualities();
        Graded {
            score: score(prompt),
            strong,
            weak,
        }
    };
    prompts.into_iter().map(graded).collect()
}

/// The benchmarks of a set that has several.
fn several(set: &Set) -> BTreeMap<&str, Vec<&Prompt>> {
    let mut benchmarks = set.benchmarks();
    // Those of the mix stand in its sets.
    if benchmarks.len() == 1 || set.name == MIX {
        benchmarks.clear();
    }
    benchmarks
}

pub(crate) fn measure(sets: &[Set], report: &mut Report) {
    for set in sets {
        let seen = if set.trains() {
            ", which the model was trained on"
        } else {
            ""
        };
        report.part(&format!("{}{seen}", set.name));
        for (name, score) in std::iter::once(SHIPPED).chain(BASELINES) {
            let case = format!("{} · {name}", set.name);
            report.case(&case, graded(&set.prompts, score), Aims::default());
        }
        for (benchmark, prompts) in several(set) {
            for (name, score) in [SHIPPED, LENGTH] {
                let case = format!("{} · {benchmark} · {name}", set.name);
                report.case(
                    &case,
                    graded(prompts.iter().copied(), score),
                    Aims::default(),
                );
            }
        }
    }
    tiers(sets, report);
}

/// Shares of the tiers, and the quality where all below a threshold stay on the weak model.
fn tiers(sets: &[Set], report: &mut Report) {
    eprintln!(
        "\n{:<56} {:>6} {:>7} {:>6}   quality, of the strong model's, with the weak one below",
        "tiers at the shipped thresholds", "small", "medium", "large"
    );
    let mut line = |name: &str, prompts: &[&Prompt]| {
        let mut shares = [0.0; THRESHOLDS.len() + 1];
        let mut kept = [0.0; THRESHOLDS.len()];
        let mut strong = 0.0;
        for prompt in prompts {
            let tier = pick(score_prompt(&prompt.prompt).value, &THRESHOLDS);
            let (best, cheap) = prompt.qualities();
            shares[tier] += 100.0 / prompts.len() as f64;
            strong += best;
            for (at, kept) in kept.iter_mut().enumerate() {
                *kept += if tier <= at { cheap } else { best };
            }
        }
        let kept = kept.map(|quality| quality / strong * 100.0);
        eprintln!(
            "{name:<56} {:>5.1}% {:>6.1}% {:>5.1}%   {}: {:.1}%  {}: {:.1}%",
            shares[0], shares[1], shares[2], THRESHOLDS[0], kept[0], THRESHOLDS[1], kept[1],
        );
        for (tier, share) in ["small", "medium", "large"].iter().zip(shares) {
            report.row(&format!("{name} · {tier} tier"), share, ("%", None));
        }
        for (threshold, kept) in THRESHOLDS.iter().zip(kept) {
            let case = format!("{name} · quality with the weak model below {threshold}");
            report.row(&case, kept, ("% of the strong", None));
        }
    };
    for set in sets {
        line(&set.name, &set.prompts.iter().collect::<Vec<_>>());
        for (benchmark, prompts) in several(set) {
            line(&format!("{} · {benchmark}", set.name), &prompts);
        }
    }
}
