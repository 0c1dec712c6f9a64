//! From a folder to an engine: reads the config, finds the architecture, hands it the files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Place;
use crate::weights::Weights;
use crate::{Engine, LoadError, models};

/// What to do with a text of more tokens than the model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlong {
    /// [`EngineError::TooLong`](crate::EngineError::TooLong). Right for a semantic cache: two
    /// prompts that differ only behind the cut would have one vector, and one's answer would be
    /// given for the other.
    #[default]
    Refuse,
    /// Keeps the beginning, as sentence-transformers does. Right for search.
    Truncate,
}

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Name to go by; without one, the folder's.
    pub name: Option<String>,
    /// What happens to texts that are too long.
    pub overlong: Overlong,
    /// Most tokens in a text, if fewer than the model's own limit are wanted.
    pub max_tokens: Option<usize>,
    /// Most texts in one call.
    pub max_batch: usize,
    /// Threads that work on one call, at least 1. One text is never split, so more than one only
    /// helps batches; with one thread no thread is ever started.
    pub threads: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            name: None,
            overlong: Overlong::Refuse,
            max_tokens: None,
            max_batch: 256,
            threads: 1,
        }
    }
}

/// Loads the model in `folder`: `config.json`, `tokenizer.json`, `model.safetensors` (`f32`, `f16`
/// or `bf16`) and, where sentence-transformers wrote them, `modules.json`,
/// `sentence_bert_config.json` and the pooling module's `config.json`.
///
/// The weights are copied, and the file is closed again, before this returns: whoever replaces it
/// afterwards changes nothing. While it is being read it must not shrink; see `Weights`.
///
/// # Errors
/// [`LoadError`] names the file, the place in it, what is there and what was expected.
pub fn load(folder: impl AsRef<Path>, options: &LoadOptions) -> Result<Arc<dyn Engine>, LoadError> {
    let folder = Folder::open(folder.as_ref())?;
    let architecture = models::find(&folder)?;
    (architecture.build)(&folder, options)
}

/// A model's folder, its config read.
pub(crate) struct Folder {
    path: PathBuf,
    /// `config.json`.
    pub(crate) config: Json,
}

impl Folder {
    fn open(path: &Path) -> Result<Self, LoadError> {
        let folder = Folder {
            path: path.to_path_buf(),
            config: Json::read(path.join("config.json"))?,
        };
        Ok(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What the model is called when nobody says otherwise.
    pub(crate) fn name(&self) -> String {
        let full = self.path.canonicalize();
        let path = full.as_deref().unwrap_or(&self.path);
        path.file_name()
            .map_or_else(|| "model".into(), |name| name.to_string_lossy())
            .into_owned()
    }

    /// A JSON file that need not be there.
    pub(crate) fn optional(&self, name: &str) -> Result<Option<Json>, LoadError> {
        match Json::read(self.path(name)) {
            Ok(json) => Ok(Some(json)),
            Err(LoadError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn weights(&self) -> Result<Weights, LoadError> {
        Weights::open(self.path("model.safetensors"))
    }
}

/// A JSON file.
pub(crate) struct Json {
    pub(crate) path: PathBuf,
    /// As it lies on the disk, for the revision.
    pub(crate) bytes: Vec<u8>,
    pub(crate) value: Value,
}

impl Json {
    fn read(path: PathBuf) -> Result<Self, LoadError> {
        let bytes = read(&path)?;
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            let at = format!("line {}, column {}", error.line(), error.column());
            Place {
                path: &path,
                at: &at,
            }
            .expected("JSON", error)
        })?;
        Ok(Json { path, bytes, value })
    }

    /// For an error about a field.
    pub(crate) fn place<'a>(&'a self, at: &'a str) -> Place<'a> {
        Place {
            path: &self.path,
            at,
        }
    }

    /// A field that must be there.
    pub(crate) fn required<T: DeserializeOwned + Kind>(&self, field: &str) -> Result<T, LoadError> {
        self.field(field)?
            .ok_or_else(|| self.place(field).expected(T::KIND, "nothing"))
    }

    /// A field that may be missing or null.
    pub(crate) fn field<T: DeserializeOwned + Kind>(
        &self,
        field: &str,
    ) -> Result<Option<T>, LoadError> {
        let value = &self.value[field];
        if value.is_null() {
            return Ok(None);
        }
        let read = T::deserialize(value);
        read.map(Some)
            .map_err(|_| self.place(field).expected(T::KIND, value))
    }
}

/// How a type is called in an error.
pub(crate) trait Kind {
    const KIND: &'static str;
}

macro_rules! kinds {
    ($($type:ty: $kind:literal,)*) => {
        $(impl Kind for $type { const KIND: &'static str = $kind; })*
    };
}

kinds! {
    bool: "true or false",
    usize: "a whole number",
    f32: "a number",
    String: "a string",
    Vec<String>: "a list of strings",
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    fs::read(path).map_err(|source| LoadError::Read {
        path: path.to_path_buf(),
        source,
    })
}
