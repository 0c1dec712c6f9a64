//! Ways to pack an answer: how small it gets, and how long that takes.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use sluice::cache::Entry;

use crate::answers::{answer, entry};
use crate::row::Row;

/// Answers of each size.
const ANSWERS: usize = 500;
/// What an entry may leave of the answer, its head included.
const MOST: f64 = 0.55;

/// Shares and times of each way at each size.
pub(crate) fn measure() -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for len in [70, 500, 1_500, 3_500, 7_500] {
        let mut state = 7;
        let entries: Vec<Entry> = (0..ANSWERS)
            .map(|_| entry(answer(&mut state, len)))
            .collect();
        let plain: Vec<Vec<u8>> = entries.iter().map(|it| it.body.to_vec()).collect();
        let bytes = plain.iter().map(Vec::len).sum::<usize>() as f64 / ANSWERS as f64;
        let name = |way: &str| format!("answer of {:.1} KB · {way}", bytes / 1e3);
        eprintln!("packing answers of {bytes:.0} bytes");

        let pack = |it: &[u8]| Ok(lz4_flex::block::compress(it));
        rows.push(Row::lower(
            name("lz4 leaves"),
            share(&plain, pack)?,
            "share",
        ));
        for level in [1, 3] {
            let mut zstd = zstd::bulk::Compressor::new(level)?;
            let left = share(&plain, |it| Ok(zstd.compress(it)?))?;
            rows.push(Row::lower(
                name(&format!("zstd {level} leaves")),
                left,
                "share",
            ));
        }

        // With everything that an entry is made of: head, checksum, dictionary.
        let mut packed = Vec::new();
        for entry in &entries {
            packed.push(entry.encode().context("an entry that cannot be kept")?);
        }
        for (packed, entry) in packed.iter().zip(&entries) {
            let back = Entry::decode(packed).map_err(|why| anyhow::anyhow!("{why}"))?;
            ensure!(back.body == entry.body, "an answer came back as another");
        }
        let left = packed.iter().map(Vec::len).sum::<usize>() as f64 / ANSWERS as f64 / bytes;
        rows.push(Row::lower(name("as it is kept"), left, "share").at_most(MOST));
        let pack = best(|| entries.iter().for_each(|it| drop(black_box(it.encode()))));
        rows.push(Row::lower(name("to pack"), pack, "µs"));
        let unpack = best(|| {
            packed
                .iter()
                .for_each(|it| drop(black_box(Entry::decode(it))))
        });
        rows.push(Row::lower(name("to unpack"), unpack, "µs"));
    }
    Ok(rows)
}

/// What `pack` leaves of all.
fn share(
    plain: &[Vec<u8>],
    mut pack: impl FnMut(&[u8]) -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<f64> {
    let (mut packed, mut all) = (0, 0);
    for plain in plain {
        packed += pack(plain)?.len();
        all += plain.len();
    }
    Ok(packed as f64 / all as f64)
}

/// µs for one of [`ANSWERS`], the best of five rounds: other programs only ever make it longer.
fn best(mut round: impl FnMut()) -> f64 {
    let rounds = (0..5).map(|_| {
        let started = Instant::now();
        round();
        started.elapsed().as_secs_f64() * 1e6 / ANSWERS as f64
    });
    rounds.fold(f64::INFINITY, f64::min)
}
