//! Arithmetic on the CPU: what a transformer's forward pass needs, on plain slices of `f32`.
//!
//! The vector unit is chosen when a model is loaded (AVX-512, AVX2, NEON or plain code), so that
//! one binary runs everywhere and is fast where it can be. Nothing here starts threads: at these
//! sizes a parallel product costs more than it saves, so whole sequences are handed to threads
//! instead, one level up.

mod attention;
mod math;
mod product;
#[cfg(test)]
mod tests;

pub(crate) use attention::Attention;
pub(crate) use math::{Activation, Norm, add_norm, unit};
pub(crate) use product::Linear;

/// The vector unit of this machine.
pub(crate) type Unit = pulp::Arch;

/// What a forward pass writes: kept from call to call, so that a pass allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// A row per token: what goes from layer to layer.
    pub(crate) rows: Vec<f32>,
    /// What a layer makes of it, before it is added.
    pub(crate) more: Vec<f32>,
    /// Queries, keys and values.
    pub(crate) qkv: Vec<f32>,
    /// What the heads answered.
    pub(crate) heads: Vec<f32>,
    /// Between the two halves of a feed-forward block.
    pub(crate) wide: Vec<f32>,
    pub(crate) attention: attention::Scratch,
    pub(crate) tiles: Vec<f32>,
}
