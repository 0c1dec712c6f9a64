//! The deterministic stand-in: an engine without weights, for tests and for machines without a model.

use crate::{Engine, EngineError, Finish, Generate, Generated, Info};

/// Says the prompt back, word by word, and embeds texts by hashing their words: texts that share
/// words are near, equal texts equal. A token is a word with the space before it.
#[derive(Clone, Debug)]
pub struct Echo {
    info: Info,
}

impl Echo {
    /// An engine that embeds into `dimensions` (at least 1).
    #[must_use]
    pub fn new(dimensions: usize) -> Self {
        Echo {
            info: Info {
                model: "echo".to_owned(),
                revision: "1".to_owned(),
                dimensions: dimensions.max(1),
                max_batch: 256,
                max_tokens: 8192,
            },
        }
    }

    fn fits(&self, found: usize) -> Result<usize, EngineError> {
        let limit = self.info.max_tokens;
        if found > limit {
            return Err(EngineError::TooLong {
                index: 0,
                found,
                limit,
            });
        }
        Ok(found)
    }

    fn embed_one(&self, tokens: &[u32]) -> Vec<f32> {
        let mut vector = vec![0.0_f32; self.info.dimensions];
        for &token in tokens {
            let slot = usize::try_from(token >> 1).unwrap_or(usize::MAX) % vector.len();
            // The low bit gives the sign, so that unrelated texts are near zero on average.
            vector[slot] += if token & 1 == 0 { 1.0 } else { -1.0 };
        }
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        if norm > 0.0 {
            for x in &mut vector {
                *x /= norm;
            }
        } else {
            // No words, or words that cancel out: still a unit vector, and always the same one.
            vector[0] = 1.0;
        }
        vector
    }
}

impl Engine for Echo {
    fn info(&self) -> &Info {
        &self.info
    }

    /// A word's token is its hash.
    fn encode(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        self.fits(text.split_inclusive(' ').count())?;
        Ok(text.split_whitespace().map(token).collect())
    }

    fn embed_tokens(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, EngineError> {
        let limit = self.info.max_batch;
        if texts.len() > limit {
            return Err(EngineError::BatchTooLarge {
                found: texts.len(),
                limit,
            });
        }
        Ok(texts.iter().map(|tokens| self.embed_one(tokens)).collect())
    }

    fn generate(
        &self,
        ask: &Generate<'_>,
        piece: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generated, EngineError> {
        let prompt_tokens = self.fits(ask.prompt.split_inclusive(' ').count())?;
        let mut completion_tokens = 0;
        let mut finish = Finish::Stop;
        for word in ask.prompt.split_inclusive(' ') {
            if completion_tokens == ask.max_tokens {
                finish = Finish::Length;
                break;
            }
            completion_tokens += 1;
            if !piece(word) {
                finish = Finish::Cancelled;
                break;
            }
        }
        Ok(Generated {
            prompt_tokens,
            completion_tokens,
            finish,
        })
    }
}

/// FNV-1a of the word in small letters, folded to 32 bits: stable across runs and platforms, which
/// std's hasher does not promise.
fn token(word: &str) -> u32 {
    let hash = word
        .to_lowercase()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let [a, b, c, d, e, f, g, h] = hash.to_le_bytes();
    u32::from_le_bytes([a, b, c, d]) ^ u32::from_le_bytes([e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(x, y)| x * y).sum()
    }

    fn say(ask: &Generate<'_>) -> (String, Generated) {
        let mut text = String::new();
        let done = Echo::new(8)
            .generate(ask, &mut |piece| {
                text.push_str(piece);
                true
            })
            .unwrap();
        (text, done)
    }

    const ASK: Generate<'_> = Generate {
        prompt: "one two three",
        max_tokens: 10,
        temperature: 0.0,
        seed: 0,
    };

    #[test]
    fn embeddings_have_length_one_and_texts_that_share_words_are_nearer() {
        let vectors = Echo::new(384)
            .embed(&[
                "reset my card pin",
                "please reset my card pin",
                "integrate x squared",
                "",
            ])
            .unwrap();
        for vector in &vectors {
            assert_eq!(vector.len(), 384);
            assert!((cosine(vector, vector) - 1.0).abs() < 1e-5);
        }
        assert!(cosine(&vectors[0], &vectors[1]) > 0.8);
        assert!(cosine(&vectors[0], &vectors[2]) < 0.3);
    }

    #[test]
    fn a_generation_says_the_prompt_back_and_counts_its_words() {
        let (text, done) = say(&ASK);
        assert_eq!(text, "one two three");
        assert_eq!(
            (done.prompt_tokens, done.completion_tokens, done.finish),
            (3, 3, Finish::Stop)
        );
    }

    #[test]
    fn a_generation_stops_at_its_token_limit() {
        let (text, done) = say(&Generate {
            max_tokens: 2,
            ..ASK
        });
        assert_eq!((text.as_str(), done.finish), ("one two ", Finish::Length));
    }

    #[test]
    fn a_generation_stops_when_the_client_left() {
        let mut pieces = 0;
        let done = Echo::new(8)
            .generate(&ASK, &mut |_| {
                pieces += 1;
                false
            })
            .unwrap();
        assert_eq!((pieces, done.finish), (1, Finish::Cancelled));
    }

    #[test]
    fn too_many_texts_and_too_long_texts_are_refused_with_the_numbers() {
        let echo = Echo::new(8);
        assert_eq!(
            echo.embed(&vec![""; 257]),
            Err(EngineError::BatchTooLarge {
                found: 257,
                limit: 256
            })
        );
        let long = "w ".repeat(8193);
        assert_eq!(
            echo.embed(&["short", &long]),
            Err(EngineError::TooLong {
                index: 1,
                found: 8193,
                limit: 8192
            })
        );
    }
}
