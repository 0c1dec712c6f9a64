//! Packs tiktoken-rs's vocabularies for the filter.
//!
//! As tiktoken-rs carries them (base64 in text) they are 5.3 MB of the module and of every VM's
//! memory; packed they are 2.4 MB. The tokens come from tiktoken-rs itself, so a new version of it
//! cannot disagree with what is counted, and a test compares the two.

use std::path::Path;

use tiktoken_rs::CoreBPE;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = std::env::var("OUT_DIR")?;
    let out = Path::new(&out);
    std::fs::write(
        out.join("o200k_base.tokens"),
        pack(&tiktoken_rs::o200k_base()?),
    )?;
    std::fs::write(
        out.join("cl100k_base.tokens"),
        pack(&tiktoken_rs::cl100k_base()?),
    )?;
    Ok(())
}

/// Every token in the order of its rank: its length in one byte, its bytes. Ranks start at 0 and
/// have no gap below the special tokens.
fn pack(vocabulary: &CoreBPE) -> Vec<u8> {
    let mut packed = Vec::new();
    for rank in 0.. {
        let Ok(token) = vocabulary.decode_bytes(&[rank]) else {
            break;
        };
        let Ok(length) = u8::try_from(token.len()) else {
            break;
        };
        packed.push(length);
        packed.extend(token);
    }
    packed
}
