//! How a request's tokens are counted, in whole and in parts.

use super::{Job, Memories, parsed};
use crate::config::{self, Plan, Prefix, Price};
use crate::formats::{Digests, Request};
use crate::tokens::{Each, Encoding, Tokens};

/// The model that answers.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    /// Its name in the config, or as it was asked for.
    pub name: &'a str,
    /// How its tokens are counted; None: by what its usage taught.
    pub counting: Option<Counting>,
    /// Its prices, if known.
    pub price: Option<Price>,
    /// Its provider's prefix cache.
    pub prefix: Prefix,
}

/// A vocabulary to count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counting {
    /// Which.
    pub encoding: Encoding,
    /// Tokens for a thousand of that vocabulary's: 1000 where it is the model's own. Another's counts
    /// are off by much the same everywhere, where bytes are off by the kind of text.
    pub scale_milli: u64,
}

/// Bytes of English that a token of the built-in vocabularies is of, roughly (OpenAI's rule of thumb is
/// four characters): what another model's bytes per token are held against.
const BYTES_PER_TOKEN: f64 = 4.2;

impl<'a> Model<'a> {
    /// The model of that name; `tokens` has the vocabularies that are loaded.
    #[must_use]
    pub fn of(plan: &'a Plan, name: &'a str, tokens: &Tokens) -> Model<'a> {
        let Some((name, model)) = plan.model(name) else {
            return Model {
                name,
                counting: None,
                price: None,
                prefix: Prefix::default(),
            };
        };
        Model {
            name,
            counting: Counting::of(model, tokens),
            price: model.price,
            prefix: model.prefix,
        }
    }
}

impl Counting {
    /// By the model's own vocabulary, else by another that is loaded.
    fn of(model: &config::Model, tokens: &Tokens) -> Option<Counting> {
        if let Some(encoding) = model.encoding {
            return Some(Counting {
                encoding,
                scale_milli: 1000,
            });
        }
        let scale = BYTES_PER_TOKEN / model.bytes_per_token.max(0.1) * 1000.0;
        Some(Counting {
            encoding: tokens.any()?,
            scale_milli: (scale as u64).max(1),
        })
    }

    pub(super) fn own(self) -> bool {
        self.scale_milli == 1000
    }

    fn scaled(self, tokens: u64) -> u64 {
        (tokens.saturating_mul(self.scale_milli) / 1000).max(tokens.min(1))
    }
}

/// A request, its digests and its tokens.
pub(super) struct Counted<'r, 'a> {
    pub(super) request: &'r Request<'a>,
    pub(super) digests: Digests,
    pub(super) each: Each,
}

impl<'r, 'a> Counted<'r, 'a> {
    pub(super) fn of(job: &Job<'_>, request: &'r Request<'a>, memories: &mut Memories<'_>) -> Self {
        let digests = Digests::of(request);
        Counted {
            request,
            each: count_by(job, (request, &digests), memories.tokens),
            digests,
        }
    }
}

/// Whether a body has fewer tokens.
pub(super) fn shorter(
    job: &Job<'_>,
    body: Option<&str>,
    before: &Counted<'_, '_>,
    memories: &mut Memories<'_>,
) -> bool {
    let request = parsed(job.format, body);
    request
        .is_some_and(|request| count(job, &request, memories.tokens).total() < before.each.total())
}

pub(super) fn count(job: &Job<'_>, request: &Request<'_>, tokens: &mut Tokens) -> Each {
    count_by(job, (request, &Digests::of(request)), tokens)
}

/// As [`count`] where the request's digests are known.
fn count_by(
    job: &Job<'_>,
    (request, digests): (&Request<'_>, &Digests),
    tokens: &mut Tokens,
) -> Each {
    let format = job.format.name();
    let exact = job
        .model
        .counting
        .and_then(|by| Some((by, tokens.each_by(by.encoding, (request, digests), format)?)));
    let exact = exact.map(|(by, each)| each.map(|tokens| by.scaled(tokens)));
    exact.unwrap_or_else(|| tokens.estimate_each(job.model.name, request, format))
}

impl Job<'_> {
    /// Tokens of a text.
    pub(super) fn tokens_of(&self, text: &str, tokens: &Tokens) -> u64 {
        let exact = self
            .model
            .counting
            .and_then(|by| Some(by.scaled(tokens.count_text(by.encoding, text)?)));
        exact.unwrap_or_else(|| tokens.estimate(self.model.name, text.len() as u64))
    }
}
