//! The vocabularies that are built in, once per process (or VM).
//!
//! Immutable, so that they are the one global of this crate: a new config must not hold a second
//! 20 MB beside the first.

use std::sync::LazyLock;

use rustc_hash::FxHashMap;
use tiktoken_rs::{CoreBPE, O200K_BASE_PAT_STR};

use super::Encoding;

/// As in tiktoken's `cl100k_base`, which tiktoken-rs has no constant for.
const CL100K_BASE_PAT_STR: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s";

/// Packed by the build script: each token's length in one byte, its bytes, in the order of rank.
static O200K_BASE_TOKENS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/o200k_base.tokens"));
static CL100K_BASE_TOKENS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cl100k_base.tokens"));

static O200K_BASE: LazyLock<Option<CoreBPE>> =
    LazyLock::new(|| unpack(O200K_BASE_TOKENS, 199_998, O200K_BASE_PAT_STR));
static CL100K_BASE: LazyLock<Option<CoreBPE>> =
    LazyLock::new(|| unpack(CL100K_BASE_TOKENS, 100_256, CL100K_BASE_PAT_STR));

pub(super) fn load(encoding: Encoding) -> Option<&'static CoreBPE> {
    match encoding {
        Encoding::O200kBase => O200K_BASE.as_ref(),
        Encoding::Cl100kBase => CL100K_BASE.as_ref(),
    }
}

fn unpack(packed: &[u8], count: usize, pattern: &str) -> Option<CoreBPE> {
    // Sized at once: growing would leave holes as large as the table in a memory that never
    // shrinks.
    let mut ranks = FxHashMap::with_capacity_and_hasher(count, Default::default());
    let mut rest = packed;
    while let Some((&length, after)) = rest.split_first() {
        let (token, after) = after.split_at_checked(usize::from(length))?;
        ranks.insert(token.to_vec(), u32::try_from(ranks.len()).ok()?);
        rest = after;
    }
    // Text is counted as text: a special token's name in it is no special token.
    CoreBPE::new(ranks, FxHashMap::default(), pattern).ok()
}
