//! Products with matrices that were packed beforehand: the whole cost of an encoder.
//!
//! A weight is cut once, when it is loaded, into panels of two vectors' width, in the order in
//! which the inner loop reads them. A general product would pack it at every call, which for the
//! dozen rows of one short sentence costs more than the product itself.

use pulp::{Simd, WithSimd};

use super::Unit;
use super::math::{Activation, activate};

/// Vectors per panel: with this many, a tile's sums and what it reads fill the registers.
const VECTORS: usize = 2;

/// Most rows of a tile where there are 32 registers, and where there are 16.
const TALL: usize = 14;
const SHORT: usize = 6;

/// Rows that are multiplied by one panel before the next panel is fetched: few enough that they
/// stay in the second-level cache.
const BLOCK: usize = 112;

/// How the columns of a matrix are laid out for a vector unit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packing {
    /// Columns in a panel.
    width: usize,
}

impl Packing {
    pub(crate) fn of(unit: Unit) -> Self {
        struct Lanes;
        impl WithSimd for Lanes {
            type Output = usize;
            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> usize {
                S::F32_LANES
            }
        }
        Packing {
            width: VECTORS * unit.dispatch(Lanes),
        }
    }

    /// Floats that a packed matrix takes.
    pub(super) fn len(self, depth: usize, columns: usize) -> usize {
        columns.next_multiple_of(self.width) * depth
    }

    /// Where an element stands in a packed matrix of `depth` rows.
    #[inline(always)]
    pub(super) fn place(self, depth: usize, row: usize, column: usize) -> usize {
        let (panel, within) = (column / self.width, column % self.width);
        (panel * depth + row) * self.width + within
    }

    pub(super) fn width(self) -> usize {
        self.width
    }
}

/// `x · Wᵀ + b`, then perhaps an activation.
#[derive(Debug)]
pub(crate) struct Linear {
    /// Wᵀ, packed.
    panels: Vec<f32>,
    /// As long as the panels are wide together.
    bias: Vec<f32>,
    depth: usize,
    columns: usize,
    unit: Unit,
}

impl Linear {
    /// From checkpoints' layout: `weight` is one row of `depth` per output.
    pub(crate) fn new(unit: Unit, weight: &[f32], bias: &[f32]) -> Self {
        let packing = Packing::of(unit);
        let columns = bias.len();
        let depth = weight.len() / columns.max(1);
        let mut panels = vec![0.0; packing.len(depth, columns)];
        for (column, row) in weight.chunks_exact(depth.max(1)).enumerate() {
            for (at, &value) in row.iter().enumerate() {
                panels[packing.place(depth, at, column)] = value;
            }
        }
        let mut bias = bias.to_vec();
        bias.resize(columns.next_multiple_of(packing.width), 0.0);
        Linear {
            panels,
            bias,
            depth,
            columns,
            unit,
        }
    }

    /// Applies it to each row of `input`. `tiles` is scratch.
    pub(crate) fn apply(
        &self,
        input: &[f32],
        activation: Option<Activation>,
        (output, tiles): (&mut [f32], &mut Vec<f32>),
    ) {
        self.unit.dispatch(Product {
            left: Rows {
                data: input,
                stride: self.depth,
            },
            rows: input.len() / self.depth.max(1),
            depth: self.depth,
            panels: &self.panels,
            columns: self.columns,
            bias: Some(&self.bias),
            activation,
            output,
            stride: self.columns,
            tiles,
        });
    }
}

/// The rows of a matrix that may lie inside a wider one.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) data: &'a [f32],
    /// From the start of one row to that of the next.
    pub(super) stride: usize,
}

/// One product: `output = activation(left · right + bias)`.
pub(super) struct Product<'a> {
    pub(super) left: Rows<'a>,
    pub(super) rows: usize,
    /// What is summed over.
    pub(super) depth: usize,
    /// The right side, packed.
    pub(super) panels: &'a [f32],
    pub(super) columns: usize,
    /// As long as the panels are wide together.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) activation: Option<Activation>,
    pub(super) output: &'a mut [f32],
    /// From the start of one row of the output to that of the next.
    pub(super) stride: usize,
    /// Scratch.
    pub(super) tiles: &'a mut Vec<f32>,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        if self.depth == 0 {
            return;
        }
        let tall = if S::REGISTER_COUNT >= 32 { TALL } else { SHORT };
        let width = VECTORS * S::F32_LANES;
        let mut tiles = std::mem::take(self.tiles);
        for block in Tiles::new(0, self.rows, BLOCK) {
            if tiles.len() < block.rows * self.depth {
                tiles.resize(block.rows * self.depth, 0.0);
            }
            for tile in Tiles::new(block.from, block.rows, tall) {
                self.pack(tile, &mut tiles[(tile.from - block.from) * self.depth..]);
            }
            for panel in 0..self.columns.div_ceil(width) {
                for tile in Tiles::new(block.from, block.rows, tall) {
                    let left = &tiles[(tile.from - block.from) * self.depth..];
                    self.tile(simd, tile, (left, panel));
                }
            }
        }
        *self.tiles = tiles;
    }
}

impl Product<'_> {
    /// A tile's rows, turned on their side: what one step of the inner loop reads lies together.
    #[inline(always)]
    fn pack(&self, tile: Tile, to: &mut [f32]) {
        // Four rows at a time: one at a time would go through the tile as often as it has rows.
        let row = |row: usize| {
            let from = (tile.from + row) * self.left.stride;
            self.left.data[from..][..self.depth].iter()
        };
        let mut done = 0;
        while done + 4 <= tile.rows {
            let rows = row(done).zip(row(done + 1));
            let rows = rows.zip(row(done + 2).zip(row(done + 3)));
            for (to, ((a, b), (c, d))) in to[done..].chunks_mut(tile.rows).zip(rows) {
                if let [first, second, third, fourth, ..] = to {
                    (*first, *second, *third, *fourth) = (*a, *b, *c, *d);
                }
            }
            done += 4;
        }
        for done in done..tile.rows {
            for (to, &value) in to[done..].iter_mut().step_by(tile.rows).zip(row(done)) {
                *to = value;
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd>(&mut self, simd: S, tile: Tile, (left, panel): (&[f32], usize)) {
        // A tile's height is part of its code: only then do its sums stay in registers.
        macro_rules! heights {
            ($($rows:literal)*) => {
                match tile.rows {
                    $($rows => self.fixed::<S, $rows>(simd, tile.from, (left, panel)),)*
                    _ => {}
                }
            };
        }
        if S::REGISTER_COUNT >= 32 {
            heights!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
        } else {
            heights!(1 2 3 4 5 6);
        }
    }

    #[inline(always)]
    fn fixed<S: Simd, const ROWS: usize>(
        &mut self,
        simd: S,
        from: usize,
        (left, panel): (&[f32], usize),
    ) {
        let width = VECTORS * S::F32_LANES;
        let right = &self.panels[panel * self.depth * width..][..self.depth * width];
        let (right, _) = S::as_simd_f32s(right);
        let (right, _) = right.as_chunks::<VECTORS>();
        let (left, _) = left.as_chunks::<ROWS>();
        let zero = simd.splat_f32s(0.0);
        let mut sums = [[zero; VECTORS]; ROWS];
        for (left, right) in left.iter().zip(right) {
            for row in 0..ROWS {
                let value = simd.splat_f32s(left[row]);
                for vector in 0..VECTORS {
                    sums[row][vector] =
                        simd.mul_add_e_f32s(value, right[vector], sums[row][vector]);
                }
            }
        }
        // A copy, in which the loops below may look things up: were it the sums themselves, the
        // loop above would store them at every step.
        let mut done = [[zero; VECTORS]; ROWS];
        for row in 0..ROWS {
            for vector in 0..VECTORS {
                done[row][vector] = sums[row][vector];
            }
        }
        let column = panel * width;
        if let Some(bias) = self.bias {
            let (bias, _) = S::as_simd_f32s(&bias[column..][..width]);
            for row in &mut done {
                for (sum, &bias) in row.iter_mut().zip(bias) {
                    *sum = simd.add_f32s(*sum, bias);
                }
            }
        }
        let used = width.min(self.columns - column);
        for (row, sums) in done.iter().enumerate() {
            let to = &mut self.output[(from + row) * self.stride + column..][..used];
            let sums: &[f32] = pulp::bytemuck::cast_slice(sums);
            if used == width {
                // The usual case, apart so that its length is known to the compiler.
                to.copy_from_slice(&sums[..width]);
            } else {
                to.copy_from_slice(&sums[..used]);
            }
            if let Some(activation) = self.activation {
                activate(activation, to);
            }
        }
    }
}

/// Neighbouring rows that are worked on together.
#[derive(Clone, Copy)]
struct Tile {
    from: usize,
    rows: usize,
}

/// Cuts rows into tiles of nearly equal height: 15 rows are 8 and 7, since a tile of one row would
/// wait for memory.
struct Tiles {
    from: usize,
    rows: usize,
    tiles: usize,
}

impl Tiles {
    #[inline(always)]
    fn new(from: usize, rows: usize, tallest: usize) -> Self {
        Tiles {
            from,
            rows,
            tiles: rows.div_ceil(tallest),
        }
    }
}

impl Iterator for Tiles {
    type Item = Tile;

    #[inline(always)]
    fn next(&mut self) -> Option<Tile> {
        if self.tiles == 0 {
            return None;
        }
        let rows = self.rows.div_ceil(self.tiles);
        let tile = Tile {
            from: self.from,
            rows,
        };
        self.from += rows;
        self.rows -= rows;
        self.tiles -= 1;
        Some(tile)
    }
}
