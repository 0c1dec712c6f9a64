use super::*;
use crate::policy::route::score_prompt_by;

const DOMAIN: &str = "garden";

/// Prompts of one domain: the weak model fails where roots are asked about.
fn readings() -> Vec<(Reading, f64)> {
    let prompt = |at: usize| {
        let (part, does) = [("roots", "drink"), ("leaves", "breathe")][at % 2];
        format!("Plant {at}: say how its {part} grow in spring and why they {does} by night.")
    };
    (0..400)
        .map(|at| (read_prompt(&prompt(at)), f64::from(u8::from(at % 2 == 0))))
        .collect()
}

fn examples(readings: &[(Reading, f64)]) -> Vec<Example<'_>> {
    readings
        .iter()
        .map(|(reading, gain)| Example {
            reading,
            domain: DOMAIN,
            gain: *gain,
        })
        .collect()
}

#[test]
fn what_tells_prompts_of_one_domain_apart_is_learned_where_there_are_many() {
    let readings = readings();
    let examples = examples(&readings);
    let ask = |part: &str, does: &str| {
        format!("Plant 7: say how its {part} grow in spring and why they {does} by night.")
    };
    let apart = |model: &Model| {
        let value = |part, does| score_prompt_by(model, &ask(part, does)).value;
        value("roots", "drink") - value("leaves", "breathe")
    };
    let many = apart(&fit(&examples));
    let few = apart(&fit(&examples[..20]));
    assert!(many > 0.05, "{many}");
    assert!(few < many / 2.0, "{few} {many}");
}

#[test]
fn no_weight_moved_a_little_fits_better() {
    let readings = readings();
    let examples = &examples(&readings)[..60];
    let mut model = Model::empty();
    model.form = columns(examples);
    let (table, places) = vocabulary(examples);
    model.table = table;
    let problem = Problem::new(examples, &model, &places);
    let targets = targets(examples);
    let mean = targets.iter().sum::<f64>() / targets.len() as f64;
    // Squares of what is missed by rows less their means, and the penalties.
    let cost = |weights: &[f64]| {
        let offset = dot(&problem.means, weights);
        let rows = problem.rows.iter().zip(&targets);
        let missed = rows.map(|(row, target)| target - mean - (row.times(weights) - offset));
        let penalties = weights.iter().zip(&problem.penalties);
        missed.map(|missed| missed * missed).sum::<f64>()
            + penalties
                .map(|(weight, penalty)| penalty * weight * weight)
                .sum::<f64>()
    };
    let weights = problem.solve(&targets);
    assert!(cost(&weights) < cost(&vec![0.0; weights.len()]));
    for at in 0..weights.len() {
        for step in [1e-3, -1e-3] {
            let mut moved = weights.clone();
            moved[at] += step;
            assert!(cost(&moved) > cost(&weights), "weight {at}");
        }
    }
}

#[test]
fn every_gram_of_the_vocabulary_is_found_where_it_was_put() {
    let mut table = Table::empty();
    let mut dice = fastrand::Rng::with_seed(7);
    let grams: Vec<_> = (0..12_000)
        .map(|_| WordHash::of_bits(dice.u32(..)))
        .collect();
    let placed: Vec<_> = (grams.iter())
        .filter_map(|&gram| Some((gram, table.add(gram)?)))
        .collect();
    assert!(placed.len() > 9_000, "{}", placed.len());
    for (gram, place) in placed {
        assert_eq!(table.find(gram), Some(place));
        assert_eq!(table.add(gram), None);
    }
}
