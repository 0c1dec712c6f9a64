//! How one vector comes from a text's many: what sentence-transformers wrote beside the model.

use crate::LoadError;
use crate::error::Place;
use crate::load::{Folder, Json};

/// What becomes a text's vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// The mean over all tokens, those around the text included.
    Mean,
    /// The first token, `[CLS]`.
    First,
}

/// What sentence-transformers says about a model.
pub(crate) struct Sentences {
    pub(crate) pooling: Pooling,
    /// Most tokens that it was trained for, fewer than it has positions.
    pub(crate) max_tokens: Option<usize>,
    /// The files that say so, for the revision.
    pub(crate) files: Vec<Json>,
}

impl Sentences {
    /// `dimensions` is how wide the model's vectors are. Without such files: the mean.
    pub(crate) fn read(folder: &Folder, dimensions: usize) -> Result<Self, LoadError> {
        let modules = folder.optional("modules.json")?;
        let config = folder.optional("sentence_bert_config.json")?;
        let named = match &modules {
            Some(modules) => pooling_folder(modules)?,
            None => None,
        };
        let file = format!("{}/config.json", named.as_deref().unwrap_or("1_Pooling"));
        let pooling = folder.optional(&file)?;
        if named.is_some() && pooling.is_none() {
            let path = folder.path(&file);
            let place = Place {
                path: &path,
                at: "file",
            };
            return Err(place.expected("the pooling that modules.json names", "none"));
        }
        let mut sentences = Sentences {
            pooling: Pooling::Mean,
            max_tokens: None,
            files: Vec::new(),
        };
        if let Some(config) = &config {
            sentences.max_tokens = config.field("max_seq_length")?;
            if config.field("do_lower_case")? == Some(true) {
                let place = config.place("do_lower_case");
                return Err(place.expected("false (tokenizer.json decides that)", true));
            }
        }
        if let Some(pooling) = &pooling {
            sentences.pooling = mode(pooling)?;
            let found = pooling.field("word_embedding_dimension")?;
            if let Some(found) = found.filter(|&found: &usize| found != dimensions) {
                let place = pooling.place("word_embedding_dimension");
                let expected = format!("{dimensions} (config.json: hidden_size)");
                return Err(place.expected(expected, found));
            }
        }
        sentences.files.extend(modules);
        sentences.files.extend(config);
        sentences.files.extend(pooling);
        Ok(sentences)
    }
}

/// The folder of the pooling module; refuses modules that would change the vectors otherwise.
fn pooling_folder(modules: &Json) -> Result<Option<String>, LoadError> {
    let list = modules.value.as_array();
    let list = list.ok_or_else(|| modules.place("modules").expected("a list", &modules.value))?;
    let mut folder = None;
    for (index, module) in list.iter().enumerate() {
        let name = module["type"].as_str().unwrap_or_default();
        match name.rsplit('.').next().unwrap_or_default() {
            "Transformer" | "Normalize" => {}
            "Pooling" => folder = module["path"].as_str().map(str::to_owned),
            _ => {
                let at = format!("[{index}].type");
                let place = modules.place(&at);
                return Err(place.expected("Transformer, Pooling or Normalize", &module["type"]));
            }
        }
    }
    Ok(folder)
}

fn mode(pooling: &Json) -> Result<Pooling, LoadError> {
    let fields = pooling.value.as_object().into_iter().flatten();
    let on: Vec<_> = fields
        .filter(|(name, value)| name.starts_with("pooling_mode") && value.as_bool() == Some(true))
        .map(|(name, _)| name.as_str())
        .collect();
    match on[..] {
        ["pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
        ["pooling_mode_cls_token"] => Ok(Pooling::First),
        _ => {
            let expected = "pooling_mode_mean_tokens or pooling_mode_cls_token, one of them";
            let found = if on.is_empty() {
                "none".to_owned()
            } else {
                on.join(", ")
            };
            Err(pooling.place("pooling_mode").expected(expected, found))
        }
    }
}
