//! What any filter in Envoy pays, to see what is left for ours: modules of a few instructions.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The modules' text; `;;@` begins what only the second does.
const TEXT: &str = include_str!("floor.wat");

/// How far a floor goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Floor {
    /// Reads headers and bodies, and changes nothing.
    Reads,
    /// Does to Envoy besides what Sluice does to a routed request, and computes nothing.
    Acts,
}

impl Floor {
    /// Puts the module into `dir`.
    pub(crate) fn module(self, dir: &Path) -> anyhow::Result<PathBuf> {
        let (name, text) = match self {
            Floor::Reads => ("floor-reads.wasm", TEXT.to_owned()),
            Floor::Acts => ("floor-acts.wasm", TEXT.replace(";;@", "")),
        };
        let module = wat::parse_str(text).context("floor.wat")?;
        let path = dir.join(name);
        fs::write(&path, module).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}
