//! Compressed answers: cut at every byte, damaged at every byte, and blown up.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "clippy knows unit tests only as tests; the support module serves several files"
)]

mod support;

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use proptest::prelude::*;
use sluice_core::coding::{Decoder, MOST_MEMORY, Memory, Unreadable};
use sluice_core::formats::{Tap, UsageScan};
use support::fixtures;

/// A `content-encoding`, and what a server does for it: all is flushed after every event.
type Server = (&'static str, fn(&[u8]) -> Vec<u8>);

const SERVERS: [Server; 6] = [
    ("gzip", gzip),
    ("deflate", zlib),
    ("Deflate", raw),
    ("br", |plain| br(plain, 22)),
    ("gzip, br", |plain| br(&gzip(plain), 18)),
    ("br, identity, x-gzip", |plain| gzip(&br(plain, 24))),
];

fn events<W: Write>(mut encoder: W, plain: &[u8]) -> W {
    for event in plain.split_inclusive(|byte| *byte == b'\n') {
        encoder.write_all(event).unwrap();
        encoder.flush().unwrap();
    }
    encoder
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    events(encoder, plain).finish().unwrap()
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    events(encoder, plain).finish().unwrap()
}

fn raw(plain: &[u8]) -> Vec<u8> {
    let encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    events(encoder, plain).finish().unwrap()
}

fn br(plain: &[u8], window: u32) -> Vec<u8> {
    let encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, window);
    events(encoder, plain).into_inner()
}

fn memory() -> Memory {
    Memory::new(MOST_MEMORY)
}

fn decoder(coding: &str, memory: &Memory) -> Decoder {
    Decoder::new(coding, memory).unwrap().unwrap()
}

/// What comes out of pieces, and whether they came to their end.
fn decode<'p>(
    coding: &str,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> (Vec<u8>, Result<(), Unreadable>) {
    let memory = memory();
    let mut decoder = decoder(coding, &memory);
    let mut plain = Vec::new();
    for piece in pieces {
        let read = decoder.push(piece, &mut |bytes| {
            plain.extend_from_slice(bytes);
            Ok(())
        });
        if let Err(error) = read {
            return (plain, Err(error));
        }
    }
    let end = decoder.end();
    drop(decoder);
    assert_eq!(memory.left(), MOST_MEMORY, "all is given back");
    (plain, end)
}

const EVENTS: &[u8] = b"data: {\"choices\":[{\"delta\":{\"content\":\"Thirty days.\"}}]}\n\n\
    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":10}}\n\n\
    data: [DONE]\n\n";

#[test]
fn every_coding_cut_at_every_byte_gives_the_plain_bytes() {
    for (coding, compress) in SERVERS {
        let packed = compress(EVENTS);
        for cut in 0..=packed.len() {
            let (a, b) = packed.split_at(cut);
            assert_eq!(
                decode(coding, [a, b]),
                (EVENTS.to_vec(), Ok(())),
                "{coding} at {cut}"
            );
        }
        let bytes = packed.chunks(1);
        assert_eq!(decode(coding, bytes), (EVENTS.to_vec(), Ok(())), "{coding}");
    }
}

#[test]
fn what_a_server_flushed_is_read_at_once() {
    // An outer coding would not see where the inner one flushed.
    for (coding, compress) in SERVERS
        .into_iter()
        .filter(|(coding, _)| !coding.contains(','))
    {
        let whole = compress(EVENTS);
        let first = EVENTS.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let flushed = compress(EVENTS.get(..first).unwrap());
        let same = whole
            .iter()
            .zip(&flushed)
            .take_while(|(a, b)| a == b)
            .count();
        let (plain, end) = decode(coding, [whole.get(..same).unwrap()]);
        assert_eq!(
            (plain.len() >= first, end),
            (true, Err(Unreadable::Cut)),
            "{coding}"
        );
    }
}

#[test]
fn every_fixture_tells_the_same_compressed_and_plain() {
    let mut exact = 0;
    for fixture in fixtures(".stream.sse") {
        let mut plain = Tap::new(fixture.format, false);
        plain.chunk(&fixture.bytes);
        plain.end();
        for (coding, compress) in SERVERS {
            let mut tap = Tap::new(fixture.format, false);
            let mut decoder = decoder(coding, &memory());
            for piece in compress(&fixture.bytes).chunks(100) {
                let read = decoder.push(piece, &mut |bytes| {
                    tap.chunk(bytes);
                    Ok(())
                });
                read.unwrap();
            }
            decoder.end().unwrap();
            tap.end();
            assert_eq!(tap.outcome(), plain.outcome(), "{} {coding}", fixture.name);
            assert_eq!(
                tap.assemble(),
                plain.assemble(),
                "{} {coding}",
                fixture.name
            );
            exact += usize::from(tap.outcome().usage.is_some());
        }
    }
    for fixture in fixtures(".answer.json") {
        let plain = fixture.format.answer(&fixture.bytes);
        for (coding, compress) in SERVERS {
            let packed = compress(&fixture.bytes);
            let read = decoder(coding, &memory()).whole(&packed, fixture.bytes.len(), &mut |_| {});
            let read = fixture.format.answer(&read.unwrap().unwrap());
            assert_eq!(read, plain, "{} {coding}", fixture.name);
            let mut scan = UsageScan::new();
            let mut decoder = decoder(coding, &memory());
            let read = decoder.push(&packed, &mut |bytes| {
                scan.push(bytes);
                Ok(())
            });
            assert_eq!(read, Ok(()));
            let scanned = scan.usage().and_then(|usage| fixture.format.usage(usage));
            assert_eq!(scanned, plain.usage, "{} {coding}", fixture.name);
            exact += usize::from(scanned.is_some());
        }
    }
    assert!(exact > 100, "usage was there to be read: {exact}");
}

#[test]
fn cut_short_at_every_byte_it_is_known_to_lack_its_end() {
    for (coding, compress) in SERVERS {
        let packed = compress(EVENTS);
        for end in 0..packed.len() {
            let (plain, read) = decode(coding, [packed.get(..end).unwrap()]);
            assert_eq!(read, Err(Unreadable::Cut), "{coding} to {end}");
            assert!(EVENTS.starts_with(&plain), "{coding} to {end}");
        }
    }
}

#[test]
fn damaged_at_every_bit_it_is_refused_where_there_is_a_checksum_and_never_panics() {
    for (coding, compress) in SERVERS {
        let packed = compress(EVENTS);
        let (mut refused, mut differ) = (0, 0);
        for bit in 0..packed.len() * 8 {
            let mut damaged = packed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let (plain, read) = decode(coding, damaged.chunks(50));
            refused += usize::from(read.is_err());
            differ += usize::from(read.is_ok() && plain != EVENTS);
        }
        assert!(refused > packed.len(), "{coding}: {refused}");
        let checked = coding.contains("gzip") || coding == "deflate";
        assert!(
            !checked || differ == 0,
            "{coding}: {differ} damages went unseen"
        );
    }
}

#[test]
fn a_bomb_is_given_up_after_a_bounded_number_of_bytes() {
    let zeros = vec![0; 16 << 20];
    let bombs: [(&str, Vec<u8>); 4] = [
        ("gzip", gzip(&zeros)),
        ("deflate", raw(&zeros)),
        ("br", br(&zeros, 24)),
        ("gzip, gzip", gzip(&gzip(&zeros))),
    ];
    // A ring for the bomb's window may be refused before its bytes are counted.
    let refused = |read: &Unreadable| matches!(read, Unreadable::TooLong | Unreadable::NoMemory);
    for (coding, bomb) in bombs {
        assert!(bomb.len() < zeros.len() / 150, "{coding}: {}", bomb.len());
        let (plain, read) = decode(coding, bomb.chunks(4096));
        assert!(refused(&read.unwrap_err()), "{coding}: {}", plain.len());
        let most = (1 << 20) + 100 * bomb.len();
        assert!(plain.len() <= most, "{coding}: {}", plain.len());
        let read = decoder(coding, &memory()).whole(&bomb, 100_000, &mut |_| {});
        assert!(refused(&read.unwrap_err()), "{coding}");
    }
}

#[test]
fn a_long_stream_of_small_events_is_no_bomb() {
    let mut rng = fastrand::Rng::with_seed(1);
    let events: String = (0..7_000)
        .map(|_| {
            let token: String = (0..rng.usize(1..7)).map(|_| rng.alphabetic()).collect();
            format!(
                "data: {{\"id\":\"chatcmpl-9a8b7c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o-2024-08-06\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" {token}\"}},\"finish_reason\":null}}]}}\n\n"
            )
        })
        .collect();
    for (coding, compress) in SERVERS {
        let packed = compress(events.as_bytes());
        let (plain, read) = decode(coding, packed.chunks(1000));
        assert_eq!(
            (plain.len(), read),
            (events.len(), Ok(())),
            "{coding}: {}",
            packed.len()
        );
    }
}

#[test]
fn gzip_has_headers_of_many_fields_many_members_and_padding() {
    let header = flate2::GzBuilder::new()
        .filename("name")
        .comment("a comment")
        .extra([7; 300]);
    let mut encoder = header.write(Vec::new(), Compression::best());
    encoder.write_all(b"one ").unwrap();
    let mut packed = encoder.finish().unwrap();
    // A checksum of the header, which flate2 does not write.
    packed[3] |= 2;
    let fields = 10 + 2 + 300 + "name\0a comment\0".len();
    packed.splice(fields..fields, [9, 9]);
    packed.extend(gzip(b"two"));
    packed.extend([0, 0, 0x1f]);
    for size in [1, 7, packed.len()] {
        assert_eq!(
            decode("gzip", packed.chunks(size)),
            (b"one two".to_vec(), Ok(()))
        );
    }
}

#[test]
fn a_coding_that_is_not_known_is_said_to_be_so() {
    for coding in ["", "identity", " Identity ", ","] {
        assert!(
            Decoder::new(coding, &memory()).unwrap().is_none(),
            "{coding}"
        );
    }
    for coding in [
        "zstd",
        "compress",
        "gzip, zstd",
        "gzip, gzip, gzip",
        "gzip;q=1",
    ] {
        let refused = Decoder::new(coding, &memory()).unwrap_err();
        assert_eq!(refused, Unreadable::Unknown, "{coding}");
    }
}

#[test]
fn all_decoders_together_keep_to_their_memory() {
    let memory = memory();
    let mut open: Vec<Decoder> = (0..1000).map(|_| decoder("gzip", &memory)).collect();
    let begin = |decoder: &mut Decoder| decoder.push(&[0x1f], &mut |_| Ok(()));
    let begun = open
        .iter_mut()
        .map_while(|decoder| begin(decoder).ok())
        .count();
    assert!((100..200).contains(&begun), "{begun}");
    let refused = begin(&mut open[begun]);
    assert_eq!(refused, Err(Unreadable::NoMemory));
    open.clear();
    assert_eq!(memory.left(), MOST_MEMORY);
}

#[test]
fn brotli_takes_what_its_answer_needs_and_stops_where_there_is_no_more() {
    let text: String = (0..40_000).map(|n| format!("{} ", n * 7919)).collect();
    let packed = br(text.as_bytes(), 24);
    let least = (16..)
        .map(|kib| kib << 10)
        .find(|bytes| {
            let memory = Memory::new(*bytes);
            let read = decoder("br", &memory).whole(&packed, text.len(), &mut |_| {});
            assert_eq!(memory.left(), *bytes);
            match read {
                Ok(plain) => plain.as_deref() == Some(text.as_bytes()),
                Err(reason) => {
                    assert_eq!(reason, Unreadable::NoMemory);
                    false
                }
            }
        })
        .unwrap();
    // A ring for all of it, its half while it grows, and the code tables.
    let ring = text.len().next_power_of_two();
    assert!(
        least < ring * 3 / 2 + (100 << 10),
        "{least} for {}",
        text.len()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_sent_in_whatever_pieces_is_read(
        plain in prop::collection::vec(any::<u8>(), 0..5000),
        copies in 1_usize..20,
        server in 0..SERVERS.len(),
        size in 1_usize..3000,
    ) {
        let (coding, compress) = SERVERS[server];
        let plain = plain.repeat(copies);
        let packed = compress(&plain);
        prop_assert_eq!(decode(coding, packed.chunks(size)), (plain, Ok(())));
    }

    #[test]
    fn garbage_in_the_name_of_a_coding_never_panics(
        garbage in prop::collection::vec(any::<u8>(), 0..400),
        server in 0..SERVERS.len(),
    ) {
        let (coding, compress) = SERVERS[server];
        let _ = decode(coding, [garbage.as_slice()]);
        let mut mixed = compress(EVENTS);
        let middle = mixed.len() / 2;
        mixed.splice(middle.., garbage);
        let _ = decode(coding, [mixed.as_slice()]);
    }
}
