//! stand-in until the real one is merged
#![allow(missing_docs, clippy::allow_attributes)]
use crate::formats::Request;
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding { O200kBase, Cl100kBase }
#[derive(Debug, Default)]
pub struct Tokens;
impl Tokens {
    pub fn load(_: &[Encoding]) -> Self { Tokens }
    pub fn estimate(&self, _model: &str, bytes: u64) -> u64 { bytes.div_ceil(4) }
    pub fn learn(&mut self, _model: &str, _bytes: u64, _prompt: u64) {}
    pub fn count(&mut self, _e: Encoding, r: &Request<'_>, _format: &str) -> u64 { r.body.len() as u64 / 4 }
}
