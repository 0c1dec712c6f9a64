//! How usual a word is, by the order of an embedding model's vocabulary.

use std::collections::HashMap;
use std::path::Path;

/// The word pieces of an embedding model, in the order of their numbers: the more usual a whole
/// word, the lower its number. About 2 MB for 30,000 pieces.
///
/// The model's static vectors for them were tried as a measure of how near two words are and are
/// not used: for one word in place of another they do not tell a synonym from a sister term.
#[derive(Debug)]
pub struct Vocabulary {
    places: HashMap<Box<str>, u32>,
}

impl Vocabulary {
    /// From a WordPiece vocabulary (`##` before what goes on inside a word).
    #[must_use]
    pub fn new<T: Into<Box<str>>>(pieces: impl IntoIterator<Item = T>) -> Self {
        Self {
            places: (0..)
                .zip(pieces)
                .map(|(at, piece)| (piece.into(), at))
                .collect(),
        }
    }

    /// The word pieces of the model in `folder`; `None` where its `tokenizer.json` has none.
    #[must_use]
    pub fn of_model(folder: &Path) -> Option<Self> {
        let bytes = std::fs::read(folder.join("tokenizer.json")).ok()?;
        let tokenizer: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        let model = tokenizer.get("model")?;
        if model.get("type")?.as_str()? != "WordPiece" {
            return None;
        }
        let pieces = model.get("vocab")?.as_object()?;
        let mut pieces: Vec<(u64, &str)> = pieces
            .iter()
            .filter_map(|(piece, number)| Some((number.as_u64()?, piece.as_str())))
            .collect();
        pieces.sort_unstable();
        Some(Self::new(pieces.into_iter().map(|(_, piece)| piece)))
    }

    /// Whether the word is one piece: common enough for the model to know it as a whole.
    pub(super) fn is_usual(&self, word: &str) -> bool {
        self.places.contains_key(word)
    }

    /// 0 for the most usual words, 1 for the rarest and for what is no piece.
    pub(super) fn rarity(&self, word: &str) -> f32 {
        self.places.get(word).map_or(1.0, |place| {
            ((*place as f32 / 1000.0).max(1.0).ln() / 3.5).min(1.0)
        })
    }
}
