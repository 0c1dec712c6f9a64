//! The tokenizer of a model's folder.

use std::path::PathBuf;

use tokenizers::{Encoding, Tokenizer};

use crate::error::Place;
use crate::load::{Overlong, read};
use crate::{EngineError, LoadError};

/// Text to tokens, within a model's limit.
pub(crate) struct Tokens {
    tokenizer: Tokenizer,
    limit: usize,
    overlong: Overlong,
    /// How many of the tokens at the end belong to the model and not to the text.
    tail: usize,
}

/// `tokenizer.json`, as read.
pub(crate) struct TokenizerFile {
    path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

impl TokenizerFile {
    pub(crate) fn read(path: PathBuf) -> Result<Self, LoadError> {
        let bytes = read(&path)?;
        Ok(TokenizerFile { path, bytes })
    }
}

impl Tokens {
    /// `vocabulary` is how many tokens the model knows.
    pub(crate) fn new(
        file: &TokenizerFile,
        vocabulary: usize,
        (limit, overlong): (usize, Overlong),
    ) -> Result<Self, LoadError> {
        let place = |at| Place {
            path: &file.path,
            at,
        };
        let mut tokenizer = Tokenizer::from_bytes(&file.bytes)
            .map_err(|error| place("tokenizer").expected("a tokenizer", error))?;
        // Such files come with the cutting and padding of whoever saved them last.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| place("truncation").expected("none", error))?;
        let vocabulary_of_file = tokenizer.get_vocab(true);
        if let Some((word, &id)) = vocabulary_of_file.iter().max_by_key(|(_, id)| **id)
            && usize::try_from(id).is_ok_and(|id| id >= vocabulary)
        {
            let expected = format!("ids below {vocabulary} (config.json: vocab_size)");
            return Err(place("vocabulary").expected(expected, format!("{id} for {word:?}")));
        }
        let mut tokens = Tokens {
            tokenizer,
            limit,
            overlong,
            tail: 0,
        };
        let probe = |text| {
            let encoding = tokens.raw(text);
            encoding.map_err(|error| place("tokenizer").expected("tokens", error))
        };
        let around = probe("")?.get_ids().len();
        if around == 0 {
            let expected = "tokens around a text, so that an empty one has some";
            return Err(place("post_processor").expected(expected, "none"));
        }
        if around > limit {
            let expected = format!("at most {limit} tokens around a text");
            return Err(place("post_processor").expected(expected, around));
        }
        // A word shows which of them stand behind a text.
        let word = probe("a")?;
        let special = word.get_special_tokens_mask().iter().rev();
        tokens.tail = special.take_while(|one| **one == 1).count();
        Ok(tokens)
    }

    fn raw(&self, text: &str) -> Result<Encoding, EngineError> {
        let encoding = self.tokenizer.encode_fast(text, true);
        encoding.map_err(|error| EngineError::NoTokens {
            index: 0,
            found: error.to_string(),
        })
    }

    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        let mut ids = Vec::new();
        // Where the beginning alone is too long already, the rest of it need not be looked at: a
        // text of megabytes is refused as fast as one of a few kilobytes.
        for part in beginning(text, self.limit).into_iter().chain([text]) {
            ids = self.raw(part)?.get_ids().to_vec();
            if ids.len() > self.limit {
                break;
            }
        }
        let (found, limit) = (ids.len(), self.limit);
        if found > limit {
            if self.overlong == Overlong::Refuse {
                return Err(EngineError::TooLong {
                    index: 0,
                    found,
                    limit,
                });
            }
            // What the model wants behind a text stays behind it.
            ids.drain(limit - self.tail..found - self.tail);
        }
        Ok(ids)
    }
}

/// So much of a long text that it is likely to have more than `limit` tokens, up to a space: a
/// tokenizer that splits at spaces first finds the same tokens in it as in the whole.
fn beginning(text: &str, limit: usize) -> Option<&str> {
    /// Prose has four to five, code fewer.
    const BYTES_PER_TOKEN: usize = 8;
    let least = limit.saturating_mul(BYTES_PER_TOKEN);
    let space = text.as_bytes().get(least..)?.iter();
    let space = space.take(least).position(|&byte| byte == b' ')?;
    text.get(..least + space)
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("limit", &self.limit)
            .field("overlong", &self.overlong)
            .finish_non_exhaustive()
    }
}
