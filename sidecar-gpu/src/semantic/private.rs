//! A file that only its owner may read, written whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file in the making: another than that of its name until it is finished.
pub(super) struct Private<'p> {
    out: BufWriter<File>,
    path: &'p Path,
}

impl<'p> Private<'p> {
    /// Begins what is to become `path`.
    pub(super) fn create(path: &'p Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let out = BufWriter::new(options.open(unfinished(path))?);
        Ok(Private { out, path })
    }

    /// Takes the place of what was there.
    pub(super) fn finish(self) -> io::Result<()> {
        let file = self.out.into_inner();
        file.map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(unfinished(self.path), self.path)
    }
}

impl Write for Private<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What a process that was killed meanwhile leaves behind.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}
