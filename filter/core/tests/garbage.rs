//! Streams cut at every byte, and bodies that are not what they should be: nothing panics, nothing
//! is made up.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "clippy knows unit tests only as tests; the support module serves several files"
)]

mod support;

use proptest::prelude::*;
use sluice_core::formats::{self, Format, Show, UsageScan};
use sluice_core::json::{self, Object};
use sluice_core::sse::SseParser;
use support::{Fixture, fixtures, stream};

/// A change to bytes: at a place, so many bytes go and others come.
type Change = (prop::sample::Index, usize, Vec<u8>);

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4),
        Just(b"null".to_vec()),
        Just(b"[".to_vec()),
        Just(b"{}".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"\\".to_vec()),
        Just(b"-1e999".to_vec()),
        Just(b"\n\n".to_vec()),
        Just(b"data: ".to_vec()),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, bytes), 1..5)
}

fn changed(bytes: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, gone, come) in changes {
        let start = at.index(bytes.len() + 1);
        let end = (start + gone).min(bytes.len());
        bytes.splice(start..end, come.iter().copied());
    }
    bytes
}

/// Everything that reads a request.
fn read_request(format: &dyn Format, body: &str) {
    let Ok(request) = format.parse(body) else {
        return;
    };
    let _ = request.last_user();
    let _ = format.cacheable(&request);
    let _ = format.output_limit_field(&request);
    let mut edits = vec![
        ("model", "\"m\""),
        (format.output_limit_field(&request), "7"),
    ];
    let asked = format.ask_usage(&request);
    if let Some(edit) = &asked {
        edits.push((edit.field, &edit.json));
    }
    let edited = json::set_fields(body, &request.fields, &edits);
    let again = format.parse(&edited).expect("an edited request is one");
    assert_eq!(again.model, "m");
    if format.name() != "openai.embeddings" {
        assert_eq!(again.output_limit, Some(7));
    }
    assert_eq!(again.messages.len(), request.messages.len());
    assert!(format.ask_usage(&again).is_none());
}

/// Everything that reads an answer.
fn read_answer(format: &dyn Format, answer: &[u8]) {
    let read = format.answer(answer);
    let mut scan = UsageScan::new();
    for piece in answer.chunks(9) {
        scan.push(piece);
    }
    let Ok(text) = std::str::from_utf8(answer) else {
        return;
    };
    if let Ok(fields) = Object::parse(text)
        && !text.contains("\\u")
    {
        let found = scan.usage().and_then(|raw| format.usage(raw));
        let usages = fields.iter().filter(|(key, _)| *key == "usage").count();
        if usages == 1 {
            assert_eq!(found, fields.get("usage").and_then(|raw| format.usage(raw)));
        }
    }
    if let Some(events) = format.replay(text, true) {
        let again = stream(format, false, [events.as_slice()]);
        if read.complete {
            assert!(again.outcome.complete, "{text}");
        }
    }
}

/// Everything that reads a stream.
fn read_stream(format: &dyn Format, bytes: &[u8]) {
    let whole = stream(format, false, [bytes]);
    assert_eq!(whole.passed, bytes);
    let hiding = stream(format, true, bytes.chunks(11));
    assert_eq!(hiding.outcome, whole.outcome);
    assert_eq!(hiding.assembled, whole.assembled);
    if let Some(assembled) = whole.assembled {
        assert!(Object::parse(&assembled).is_ok());
        let _ = format.replay(&assembled, false);
    }
}

fn read_all(fixture: &Fixture, bytes: &[u8]) {
    if fixture.name.ends_with(".sse") {
        read_stream(fixture.format, bytes);
    } else if fixture.name.ends_with(".answer.json") {
        read_answer(fixture.format, bytes);
    } else if let Ok(body) = std::str::from_utf8(bytes) {
        read_request(fixture.format, body);
    }
}

/// All fixtures but the golden files.
fn all() -> Vec<Fixture> {
    [".request.json", ".answer.json", ".stream.sse"]
        .into_iter()
        .flat_map(fixtures)
        .collect()
}

#[test]
fn every_stream_cut_at_every_byte_gives_the_same_events_and_bytes() {
    for fixture in fixtures(".stream.sse") {
        let read = |cut: usize| {
            let mut parser = SseParser::new();
            let mut told = Vec::new();
            let mut on_event = |event: &sluice_core::sse::SseEvent<'_>| {
                told.push((event.name.to_owned(), event.data.to_string()));
                if told.len() % 3 == 0 {
                    Show::Hide
                } else {
                    Show::Pass
                }
            };
            let (a, b) = fixture.bytes.split_at(cut);
            let mut passed = parser.push(a, &mut on_event);
            passed.extend(parser.push(b, &mut on_event));
            passed.extend(parser.finish(&mut on_event));
            (told, passed)
        };
        let whole = read(0);
        assert!(whole.0.len() > 1);
        for cut in 1..=fixture.bytes.len() {
            assert!(read(cut) == whole, "{} cut at {cut}", fixture.name);
        }
    }
}

#[test]
fn every_fixture_cut_short_at_every_byte_is_read_without_a_panic() {
    for fixture in all() {
        // The streams are long; their events are what matters, and those are cut by the others.
        let step = if fixture.name.ends_with(".sse") { 7 } else { 1 };
        for end in (0..fixture.bytes.len()).step_by(step) {
            read_all(&fixture, &fixture.bytes[..end]);
        }
    }
}

#[test]
fn any_body_of_one_format_can_be_given_to_another() {
    for fixture in all() {
        for format in formats::ALL {
            let other = Fixture {
                format: *format,
                name: fixture.name.clone(),
                bytes: Vec::new(),
            };
            read_all(&other, &fixture.bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_bodies_are_read_without_a_panic(pick in any::<prop::sample::Index>(), changes in changes()) {
        let all = all();
        let fixture = &all[pick.index(all.len())];
        read_all(fixture, &changed(&fixture.bytes, &changes));
    }

    #[test]
    fn streams_in_any_pieces_give_the_same(
        pick in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        changes in prop::option::of(changes()),
        hide in any::<bool>(),
    ) {
        let streams = fixtures(".stream.sse");
        let fixture = &streams[pick.index(streams.len())];
        let bytes = changed(&fixture.bytes, changes.as_deref().unwrap_or(&[]));
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let mut from = 0;
        let pieces: Vec<&[u8]> = cuts
            .into_iter()
            .map(|cut| &bytes[std::mem::replace(&mut from, cut)..cut])
            .collect();
        prop_assert_eq!(
            stream(fixture.format, hide, pieces),
            stream(fixture.format, hide, [bytes.as_slice()])
        );
    }

    #[test]
    fn plain_garbage_is_read_without_a_panic(garbage in prop::collection::vec(any::<u8>(), 0..200)) {
        for format in formats::ALL {
            read_stream(*format, &garbage);
            read_answer(*format, &garbage);
            if let Ok(body) = std::str::from_utf8(&garbage) {
                read_request(*format, body);
            }
        }
    }
}
