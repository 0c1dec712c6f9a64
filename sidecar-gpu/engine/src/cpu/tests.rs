//! Every vector unit that this machine has, beside plain loops.

use super::{Activation, Attention, Linear, Norm, Scratch, Unit, add_norm};

/// The best unit, and those that a lesser machine would have.
fn units() -> Vec<Unit> {
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(unused_mut, reason = "only x86 has lesser ones")
    )]
    let mut units = vec![Unit::new()];
    #[cfg(target_arch = "x86_64")]
    {
        units.extend(pulp::x86::V3::try_new().map(Unit::V3));
        units.push(Unit::Scalar);
    }
    units
}

fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..count).map(|_| random.f32() * 2.0 - 1.0).collect()
}

fn near(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (x, y)) in found.iter().zip(expected).enumerate() {
        let apart = (f64::from(*x) - y).abs();
        assert!(
            apart < 5e-6 * (1.0 + y.abs()),
            "{what}, element {at}: {x} for {y}"
        );
    }
}

#[test]
fn a_product_is_right_at_every_height_and_width() {
    for unit in units() {
        // Past two blocks, so that all heights of a tile occur.
        for rows in (1..40).chain([111, 112, 113, 226]) {
            let (depth, columns) = (1 + rows % 19, 1 + rows % 70);
            let input = random(rows * depth, 1);
            let weight = random(columns * depth, 2);
            let bias = random(columns, 3);
            let mut output = vec![9.0; rows * columns];
            let mut tiles = vec![7.0; 3];
            let linear = Linear::new(unit, &weight, &bias);
            linear.apply(&input, None, (&mut output, &mut tiles));
            let mut expected = Vec::new();
            for row in input.chunks(depth) {
                for (weight, bias) in weight.chunks(depth).zip(&bias) {
                    let products = row.iter().zip(weight).map(|(x, w)| f64::from(x * w));
                    expected.push(products.sum::<f64>() + f64::from(*bias));
                }
            }
            near(&output, &expected, &format!("{unit:?}, {rows} rows"));
        }
    }
}

#[test]
fn activations_are_right_from_end_to_end() {
    let inputs: Vec<f32> = (-2000..2000)
        .map(|x| x as f32 / 100.0)
        .chain([-1e30, 1e30])
        .collect();
    let tanh =
        |x: f64| 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x.powi(3))).tanh());
    let cases: [(Activation, &dyn Fn(f64) -> f64); 3] = [
        (Activation::GeluTanh, &tanh),
        (Activation::Relu, &|x| x.max(0.0)),
        (Activation::Silu, &|x| x / (1.0 + (-x).exp())),
    ];
    for unit in units() {
        let same = Linear::new(unit, &[1.0], &[0.0]);
        for (activation, of) in cases {
            let mut found = vec![0.0; inputs.len()];
            same.apply(&inputs, Some(activation), (&mut found, &mut Vec::new()));
            let expected: Vec<f64> = inputs.iter().map(|&x| of(f64::from(x))).collect();
            near(&found, &expected, &format!("{unit:?}, {activation:?}"));
        }
        // The exact one at values from a table of the normal distribution.
        let mut found = [0.0; 5];
        let inputs = [-6.0, -1.0, 0.0, 0.5, 2.0];
        same.apply(
            &inputs,
            Some(Activation::Gelu),
            (&mut found, &mut Vec::new()),
        );
        let share = [
            9.865_876e-10,
            0.158_655_253_9,
            0.5,
            0.691_462_461_3,
            0.977_249_868_1,
        ];
        let expected = [0, 1, 2, 3, 4].map(|at| f64::from(inputs[at]) * share[at]);
        near(&found, &expected, &format!("{unit:?}, gelu"));
    }
}

#[test]
fn a_number_that_is_none_stays_visible() {
    for unit in units() {
        let same = Linear::new(unit, &[1.0], &[0.0]);
        for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
            let mut found = [0.0; 1];
            same.apply(&[f32::NAN], Some(activation), (&mut found, &mut Vec::new()));
            assert!(found[0].is_nan(), "{unit:?}, {activation:?}");
        }
    }
}

#[test]
fn attention_is_right_for_every_length_and_size_of_head() {
    for unit in units() {
        let mut scratch = Scratch::default();
        // Falling, so that what a longer text left in the scratch would be seen.
        for (tokens, heads, size) in [(70, 1, 40), (33, 2, 32), (16, 3, 7), (2, 2, 64), (1, 1, 1)] {
            let hidden = heads * size;
            let qkv = random(tokens * 3 * hidden, 4);
            let mut output = vec![9.0; tokens * hidden];
            let attention = Attention::new(unit, heads, size);
            let Scratch {
                attention: buffers,
                tiles,
                ..
            } = &mut scratch;
            attention.apply(&qkv, &mut output, (buffers, tiles));
            let cell = |token: usize, part: usize, column: usize| {
                f64::from(qkv[token * 3 * hidden + part * hidden + column])
            };
            let mut expected = vec![0.0; tokens * hidden];
            for (at, expected) in expected.iter_mut().enumerate() {
                let (token, column) = (at / hidden, at % hidden);
                let start = column / size * size;
                let weights: Vec<f64> = (0..tokens)
                    .map(|other| {
                        let products = (start..start + size)
                            .map(|column| cell(token, 0, column) * cell(other, 1, column));
                        products.sum::<f64>().exp()
                    })
                    .collect();
                let sum: f64 = weights.iter().sum();
                *expected = (0..tokens)
                    .map(|other| weights[other] / sum * cell(other, 2, column))
                    .sum();
            }
            near(&output, &expected, &format!("{unit:?}, {tokens} tokens"));
        }
    }
}

#[test]
fn scores_that_are_far_apart_do_not_overflow() {
    for unit in units() {
        let mut scratch = Scratch::default();
        let Scratch {
            attention: buffers,
            tiles,
            ..
        } = &mut scratch;
        // Two tokens of one number: scores of 0, ±10⁶.
        let qkv = [1000.0, 1000.0, 1.0, -1000.0, -1000.0, 3.0];
        let mut output = [0.0; 2];
        Attention::new(unit, 1, 1).apply(&qkv, &mut output, (buffers, tiles));
        assert_eq!(output, [1.0, 3.0], "{unit:?}");
    }
}

#[test]
fn a_norm_is_right_at_every_width() {
    for unit in units() {
        for width in [1, 7, 16, 21, 40] {
            let norm = Norm {
                weight: random(width, 5),
                bias: random(width, 6),
                epsilon: 1e-5,
            };
            let (mut rows, more) = (random(3 * width, 7), random(3 * width, 8));
            let mut expected = Vec::new();
            for (row, more) in rows.chunks(width).zip(more.chunks(width)) {
                let row: Vec<f64> = row
                    .iter()
                    .zip(more)
                    .map(|(x, y)| f64::from(x + y))
                    .collect();
                let mean = row.iter().sum::<f64>() / width as f64;
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                expected.extend(row.iter().zip(&norm.weight).zip(&norm.bias).map(
                    |((x, weight), bias)| {
                        (x - mean) / (variance + 1e-5).sqrt() * f64::from(*weight)
                            + f64::from(*bias)
                    },
                ));
            }
            add_norm(unit, &norm, &mut rows, &more);
            near(&rows, &expected, &format!("{unit:?}, width {width}"));
        }
    }
}
