//! What happens to single elements and rows, written so that the compiler turns it into vectors.

use pulp::{Simd, WithSimd};

use super::Unit;

/// Partial sums that are kept apart, so that additions need not wait for each other.
const LANES: usize = 16;

/// What stands between the two halves of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x · Φ(x)`, by the error function.
    Gelu,
    /// The same by its approximation with a hyperbolic tangent.
    GeluTanh,
    Relu,
    Silu,
}

/// Applies it in place.
#[inline(always)]
pub(super) fn activate(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::Gelu => values.iter_mut().for_each(|x| *x = gelu(*x)),
        Activation::GeluTanh => values.iter_mut().for_each(|x| *x = gelu_tanh(*x)),
        Activation::Relu => values.iter_mut().for_each(|x| *x = x.max(0.0)),
        Activation::Silu => values.iter_mut().for_each(|x| *x /= 1.0 + exp(-*x)),
    }
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    let half = 0.5 * x;
    half + half * erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    // x · (1 + tanh(u)) / 2 is x · σ(2u).
    let u = 0.797_884_6 * (x + 0.044_715 * x * x * x);
    x / (1.0 + exp(-2.0 * u))
}

/// The error function by Abramowitz and Stegun 7.1.26: off by at most 1.5e-7.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let size = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * size);
    let mut sum = 1.061_405_4;
    sum = sum * t - 1.453_152;
    sum = sum * t + 1.421_413_7;
    sum = sum * t - 0.284_496_74;
    sum = sum * t + 0.254_829_6;
    (1.0 - sum * t * exp(-size * size)).copysign(x)
}

/// `eˣ` without branches: within two units in the last place; below -87 it is the smallest normal
/// number's neighbourhood, above 88 it stays finite.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding it leaves a number's nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let power = rounded - ROUND;
    // ln 2 in two parts, so that the difference is exact.
    let rest = x - power * 0.693_359_4 + power * 2.121_944_4e-4;
    let mut sum = 1.987_569_1e-4;
    sum = sum * rest + 1.398_2e-3;
    sum = sum * rest + 8.333_452e-3;
    sum = sum * rest + 4.166_579_6e-2;
    sum = sum * rest + 0.166_666_65;
    sum = sum * rest + 0.5;
    sum = sum * rest * rest + rest + 1.0;
    sum * f32::from_bits((rounded.to_bits() << 23).wrapping_add(0x3f80_0000))
}

#[inline(always)]
fn sum(values: impl Iterator<Item = [f32; LANES]>, rest: impl Iterator<Item = f32>) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    for chunk in values {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    lanes.iter().sum::<f32>() + rest.sum::<f32>()
}

/// Sum of `of(x)`.
#[inline(always)]
fn sum_of(values: &[f32], of: impl Fn(f32) -> f32 + Copy) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    sum(
        chunks.iter().map(|chunk| chunk.map(of)),
        rest.iter().map(|&x| of(x)),
    )
}

/// Turns scores into weights that sum to 1.
#[inline(always)]
pub(super) fn softmax(row: &mut [f32]) {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    let most = lanes
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |most, &x| most.max(x));
    row.iter_mut().for_each(|x| *x = exp(*x - most));
    let scale = 1.0 / sum_of(row, |x| x);
    row.iter_mut().for_each(|x| *x *= scale);
}

/// Parameters of a layer norm.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) epsilon: f32,
}

/// `rows = norm(rows + more)`, row by row.
pub(crate) fn add_norm(unit: Unit, norm: &Norm, rows: &mut [f32], more: &[f32]) {
    unit.dispatch(AddNorm { norm, rows, more });
}

struct AddNorm<'a> {
    norm: &'a Norm,
    rows: &'a mut [f32],
    more: &'a [f32],
}

impl WithSimd for AddNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let width = self.norm.weight.len();
        let rows = self.rows.chunks_exact_mut(width);
        for (row, more) in rows.zip(self.more.chunks_exact(width)) {
            for (x, &more) in row.iter_mut().zip(more) {
                *x += more;
            }
            let mean = sum_of(row, |x| x) / width as f32;
            let variance = sum_of(row, |x| (x - mean) * (x - mean)) / width as f32;
            let scale = 1.0 / (variance + self.norm.epsilon).sqrt();
            let parameters = self.norm.weight.iter().zip(&self.norm.bias);
            for (x, (&weight, &bias)) in row.iter_mut().zip(parameters) {
                *x = (*x - mean) * scale * weight + bias;
            }
        }
    }
}

/// Scales a vector to length 1; `false` where it has no direction (zero, or not finite).
pub(crate) fn unit(vector: &mut [f32]) -> bool {
    let length = sum_of(vector, |x| x * x).sqrt();
    let fine = length.is_finite() && length > 0.0;
    if fine {
        vector.iter_mut().for_each(|x| *x /= length);
    }
    fine
}
