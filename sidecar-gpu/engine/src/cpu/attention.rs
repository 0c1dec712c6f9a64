//! Attention of one sequence to itself, head by head.

use pulp::{Simd, WithSimd};

use super::Unit;
use super::math::softmax;
use super::product::{Packing, Product, Rows};

/// What attention writes in passing; kept between calls.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
}

/// The shape of a model's attention. Queries come scaled already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    unit: Unit,
    packing: Packing,
    heads: usize,
    /// Width of a head.
    size: usize,
}

impl Attention {
    pub(crate) fn new(unit: Unit, heads: usize, size: usize) -> Self {
        Attention {
            unit,
            packing: Packing::of(unit),
            heads,
            size,
        }
    }

    /// `qkv` has a row per token: queries, keys, values of all heads. `output` has a row per token
    /// with all heads' answers.
    pub(crate) fn apply(
        &self,
        qkv: &[f32],
        output: &mut [f32],
        (scratch, tiles): (&mut Scratch, &mut Vec<f32>),
    ) {
        let hidden = self.heads * self.size;
        let stride = 3 * hidden;
        let tokens = qkv.len() / stride;
        let Scratch {
            keys,
            values,
            scores,
        } = scratch;
        keys.resize(self.packing.len(self.size, tokens), 0.0);
        values.resize(self.packing.len(tokens, self.size), 0.0);
        scores.resize(tokens * tokens, 0.0);
        for head in 0..self.heads {
            let at = head * self.size;
            self.pack(&qkv[at + hidden..], (tokens, stride), (keys, values));
            self.unit.dispatch(Product {
                left: Rows {
                    data: &qkv[at..],
                    stride,
                },
                rows: tokens,
                depth: self.size,
                panels: keys,
                columns: tokens,
                bias: None,
                activation: None,
                output: scores,
                stride: tokens,
                tiles,
            });
            self.unit.dispatch(Softmax {
                rows: scores,
                width: tokens,
            });
            self.unit.dispatch(Product {
                left: Rows {
                    data: scores,
                    stride: tokens,
                },
                rows: tokens,
                depth: tokens,
                panels: values,
                columns: self.size,
                bias: None,
                activation: None,
                output: &mut output[at..],
                stride: hidden,
                tiles,
            });
        }
    }

    /// Lays out one head's keys (turned on their side) and values for the products. What pads the
    /// last panel may be stale: it only reaches columns that are not stored.
    fn pack(
        &self,
        from_key: &[f32],
        (tokens, stride): (usize, usize),
        (keys, values): (&mut [f32], &mut [f32]),
    ) {
        let hidden = self.heads * self.size;
        let width = self.packing.width();
        for token in 0..tokens {
            let row = &from_key[token * stride..];
            let (key, value) = (&row[..self.size], &row[hidden..][..self.size]);
            let start = self.packing.place(self.size, 0, token);
            for (to, &x) in keys[start..].iter_mut().step_by(width).zip(key) {
                *to = x;
            }
            for (panel, part) in value.chunks(width).enumerate() {
                let start = self.packing.place(tokens, token, panel * width);
                values[start..][..part.len()].copy_from_slice(part);
            }
        }
    }
}

struct Softmax<'a> {
    rows: &'a mut [f32],
    width: usize,
}

impl WithSimd for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for row in self.rows.chunks_exact_mut(self.width) {
            softmax(row);
        }
    }
}
