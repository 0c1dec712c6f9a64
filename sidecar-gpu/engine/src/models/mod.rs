//! The registry of architectures. Another one is a file beside these and a line in [`ALL`].

mod bert;

use std::sync::Arc;

use crate::load::Folder;
use crate::{Engine, LoadError, LoadOptions};

/// A kind of model that can be loaded.
pub(crate) struct Architecture {
    /// `model_type` of its `config.json`.
    pub(crate) model_type: &'static str,
    /// What may stand in `architectures`: the heads whose body this is. A config need not say.
    pub(crate) heads: &'static [&'static str],
    pub(crate) build: Build,
}

/// Makes an engine of a folder whose config asks for the architecture.
type Build = fn(&Folder, &LoadOptions) -> Result<Arc<dyn Engine>, LoadError>;

const ALL: &[Architecture] = &[bert::ARCHITECTURE];

/// The architecture that the folder's config asks for.
pub(crate) fn find(folder: &Folder) -> Result<&'static Architecture, LoadError> {
    let config = &folder.config;
    let wanted: String = config.required("model_type")?;
    let architecture = ALL.iter().find(|one| one.model_type == wanted);
    let architecture = architecture.ok_or_else(|| {
        let known: Vec<_> = ALL.iter().map(|one| one.model_type).collect();
        let place = config.place("model_type");
        place.expected(format!("one of: {}", known.join(", ")), wanted)
    })?;
    let heads: Vec<String> = config.field("architectures")?.unwrap_or_default();
    if !heads.is_empty()
        && !heads
            .iter()
            .any(|head| architecture.heads.contains(&&**head))
    {
        let place = config.place("architectures");
        let known = format!("one of: {}", architecture.heads.join(", "));
        return Err(place.expected(known, heads.join(", ")));
    }
    Ok(architecture)
}
