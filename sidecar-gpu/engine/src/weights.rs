//! `model.safetensors`: tensors by name, checked against what the config promises.

use std::fs::File;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};

use crate::LoadError;
use crate::error::Place;

/// An open weights file.
///
/// It is mapped, not read: the pages of a model of many gigabytes then come from the page cache and
/// are never held twice. What that costs: as long as the mapping lives, a file that another process
/// truncates kills this one (`SIGBUS`), and one that is overwritten in place gives a mixture of old
/// and new. So it lives only while the model is loaded, and a model is replaced by renaming a new
/// file over the old one, never by writing into it. The revision is taken from the same bytes.
pub(crate) struct Weights {
    path: PathBuf,
    bytes: Mmap,
    /// Where the tensors start.
    start: usize,
    /// What they are.
    header: Metadata,
    /// What stands before every name: nothing, or `bert.`.
    prefix: String,
}

impl Weights {
    pub(crate) fn open(path: PathBuf) -> Result<Self, LoadError> {
        let read = |source| LoadError::Read {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(read)?;
        #[expect(
            unsafe_code,
            reason = "the mapping is only read and does not outlive the loading; that no one \
                      shrinks the file meanwhile is asked of the operator above"
        )]
        // SAFETY: as said; the bytes are plain, so that no value of them is invalid.
        let bytes = unsafe { Mmap::map(&file) }.map_err(read)?;
        let header = SafeTensors::read_metadata(&bytes).map_err(|error| {
            let place = Place {
                path: &path,
                at: "header",
            };
            place.expected("safetensors", error)
        })?;
        let (header_length, header) = header;
        Ok(Weights {
            path,
            bytes,
            // Behind the header and, in front of it, its length in eight bytes.
            start: size_of::<u64>() + header_length,
            header,
            prefix: String::new(),
        })
    }

    /// Looks for names behind `prefix` from now on, if `probe` is there with it and not without.
    pub(crate) fn with_prefix(mut self, prefix: &str, probe: &str) -> Self {
        if !self.has(probe) && self.has(&format!("{prefix}{probe}")) {
            prefix.clone_into(&mut self.prefix);
        }
        self
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        let full = format!("{}{name}", self.prefix);
        self.header.info(&full).is_some()
    }

    /// The names that are there, without the prefix.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let names = self.header.tensors().into_keys();
        names.filter_map(|name| name.strip_prefix(&self.prefix).map(str::to_owned))
    }

    /// A tensor of that shape, as `f32`.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let full = format!("{}{name}", self.prefix);
        let place = Place {
            path: &self.path,
            at: &full,
        };
        let wanted = format!("a tensor of shape {shape:?}");
        let Some(info) = self.header.info(&full) else {
            return Err(place.expected(wanted, "no such tensor"));
        };
        if info.shape != shape {
            return Err(place.expected(wanted, format_args!("shape {:?}", info.shape)));
        }
        let (from, to) = info.data_offsets;
        let bytes = self.bytes.get(self.start + from..self.start + to);
        let bytes = bytes.ok_or_else(|| place.expected("its bytes", "the end of the file"))?;
        let values: Vec<f32> = match info.dtype {
            Dtype::F32 => cells(bytes).map(f32::from_le_bytes).collect(),
            Dtype::F16 => cells(bytes)
                .map(|cell| f16::from_le_bytes(cell).to_f32())
                .collect(),
            Dtype::BF16 => cells(bytes)
                .map(|cell| bf16::from_le_bytes(cell).to_f32())
                .collect(),
            other => return Err(place.expected("F32, F16 or BF16", format_args!("{other:?}"))),
        };
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let found = format!("{} as element {at}", values[at]);
            return Err(place.expected("finite numbers", found));
        }
        Ok(values)
    }
}

fn cells<const SIZE: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; SIZE]> {
    bytes.as_chunks().0.iter().copied()
}
