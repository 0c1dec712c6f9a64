use proptest::prelude::*;

use super::*;

type Told = Vec<(String, String)>;

/// Events, bytes passed and count of missed events, of a stream in pieces; events whose data is
/// `hide` are hidden.
fn read<'a>(limit: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Told, Vec<u8>, u64) {
    let mut parser = SseParser::with_limit(limit);
    let mut told = Vec::new();
    let mut passed = Vec::new();
    let mut on_event = |event: &SseEvent<'_>| {
        told.push((event.name.to_owned(), event.data.to_string()));
        if event.data == "hide" {
            Show::Hide
        } else {
            Show::Pass
        }
    };
    for piece in pieces {
        passed.extend(parser.push(piece, &mut on_event));
        assert!(parser.held() <= limit);
    }
    passed.extend(parser.finish(&mut on_event));
    (told, passed, parser.missed())
}

fn events(stream: &str) -> Told {
    read(MAX_EVENT, [stream.as_bytes()]).0
}

fn told(events: &[(&str, &str)]) -> Told {
    let own = |(name, data): &(&str, &str)| ((*name).to_owned(), (*data).to_owned());
    events.iter().map(own).collect()
}

#[test]
fn events_are_read_as_the_standard_says() {
    // The examples of WHATWG HTML, 9.2.6.
    assert_eq!(
        events("data: YHOO\ndata: +2\ndata: 10\n\n"),
        told(&[("", "YHOO\n+2\n10")])
    );
    assert_eq!(
        events(
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"
        ),
        told(&[
            ("", "first event"),
            ("", "second event"),
            ("", " third event")
        ])
    );
    assert_eq!(
        events("data\n\ndata\ndata\n\n"),
        told(&[("", ""), ("", "\n")])
    );
    assert_eq!(
        events("data:test\n\ndata: test\n\n"),
        told(&[("", "test"), ("", "test")])
    );
    assert_eq!(
        events("event: a\nevent: b\ndata: x\nretry: 5\nother\n\n"),
        told(&[("b", "x")])
    );
    assert_eq!(
        events("event: no data\n\n: only a comment\n\n\n\n"),
        told(&[])
    );
}

#[test]
fn all_three_line_ends_end_lines() {
    let expected = told(&[("e", "a\nb"), ("", "c")]);
    for end in ["\n", "\r\n", "\r"] {
        let stream = "event: e|data: a|data: b||data: c||".replace('|', end);
        assert_eq!(events(&stream), expected, "{end:?}");
        let mixed = stream.replacen(end, "\n", 2);
        assert_eq!(events(&mixed), expected, "{mixed:?}");
    }
}

#[test]
fn a_byte_order_mark_is_skipped_at_the_start_only() {
    assert_eq!(
        events("\u{feff}data: a\n\n\u{feff}data: b\n\n"),
        told(&[("", "a")])
    );
}

#[test]
fn the_last_event_needs_no_blank_line() {
    for tail in ["", "\n", "\r", "\r\n"] {
        let stream = format!("data: a\n\ndata: b{tail}");
        assert_eq!(events(&stream), told(&[("", "a"), ("", "b")]), "{tail:?}");
    }
}

#[test]
fn hidden_events_leave_no_byte_and_others_every_byte() {
    let stream = ": c\n\ndata: a\r\n\r\nevent: x\ndata: hide\n\n\n\ndata: b\n\ndata: hide";
    let (_, passed, _) = read(MAX_EVENT, [stream.as_bytes()]);
    assert_eq!(
        String::from_utf8(passed).unwrap(),
        ": c\n\ndata: a\r\n\r\n\n\ndata: b\n\n"
    );
}

#[test]
fn only_an_incomplete_event_is_held_back() {
    let mut parser = SseParser::new();
    let all = |_: &SseEvent<'_>| Show::Pass;
    assert_eq!(parser.push(b"data: a\n\ndata: b", all), b"data: a\n\n");
    assert_eq!(parser.held(), 7);
    assert_eq!(parser.push(b"\n", all), b"");
    assert_eq!(parser.push(b"\n", all), b"data: b\n\n");
    assert_eq!(parser.held(), 0);
    assert_eq!(parser.push(b"data: c", all), b"");
    assert_eq!(parser.finish(all), b"data: c");
}

#[test]
fn an_event_past_the_limit_passes_unread_and_is_counted() {
    let long = format!("data: {}\n\n", "x".repeat(100));
    let stream = format!("data: a\n\n{long}data: hide\n\n{long}");
    for size in [1, 7, 50, 1000] {
        let (told_, passed, missed) = read(64, stream.as_bytes().chunks(size));
        assert_eq!(told_, told(&[("", "a"), ("", "hide")]), "{size}");
        assert_eq!(missed, 2);
        assert_eq!(
            String::from_utf8(passed).unwrap(),
            format!("data: a\n\n{long}{long}")
        );
    }
}

#[test]
fn an_event_that_is_not_utf8_passes_unread_and_is_counted() {
    let stream = b"data: a\n\ndata: \xff\n\ndata: b\n\n";
    for size in 1..stream.len() {
        let (told_, passed, missed) = read(MAX_EVENT, stream.chunks(size));
        assert_eq!(told_, told(&[("", "a"), ("", "b")]));
        assert_eq!((passed.as_slice(), missed), (stream.as_slice(), 1));
    }
}

#[test]
fn a_written_event_reads_back() {
    let mut out = Vec::new();
    SseEvent::write(&mut out, "e", "{\"a\": 1}");
    SseEvent::write(&mut out, "", "[DONE]");
    assert_eq!(out, b"event: e\ndata: {\"a\": 1}\n\ndata: [DONE]\n\n");
    let out = String::from_utf8(out).unwrap();
    assert_eq!(events(&out), told(&[("e", "{\"a\": 1}"), ("", "[DONE]")]));
}

#[test]
fn watching_tells_the_same_as_pushing() {
    let stream = "data: a\n\n: c\n\ndata: b\r\r";
    let mut parser = SseParser::new();
    let mut seen = Vec::new();
    for byte in stream.as_bytes() {
        parser.watch(&[*byte], |event| seen.push(event.data.to_string()));
    }
    parser.finish(|event| {
        seen.push(event.data.to_string());
        Show::Pass
    });
    assert_eq!(seen, ["a", "b"]);
}

/// Streams of lines that look like events, with every line end and some bytes that are no UTF-8.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        3 => Just("data: a".as_bytes().to_vec()),
        2 => Just("data: hide".as_bytes().to_vec()),
        1 => Just("event: é😀".as_bytes().to_vec()),
        1 => Just(": comment".as_bytes().to_vec()),
        1 => Just("data:".as_bytes().to_vec()),
        1 => Just("\u{feff}".as_bytes().to_vec()),
        1 => Just(b"data: \xf0\x9f".to_vec()),
        4 => Just(Vec::new()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\r")];
    prop::collection::vec((line, end), 0..24).prop_map(|lines| {
        let mut stream = Vec::new();
        for (line, end) in lines {
            stream.extend(line);
            stream.extend_from_slice(end.as_bytes());
        }
        stream
    })
}

proptest! {
    #[test]
    fn cuts_change_nothing(
        stream in stream(), limit in 4_usize..80, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let whole = read(limit, [stream.as_slice()]);
        for cut in 0..=stream.len() {
            let (a, b) = stream.split_at(cut);
            prop_assert_eq!(&read(limit, [a, b]), &whole, "cut at {}", cut);
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&stream[from..cut]);
            from = cut;
        }
        pieces.push(&stream[from..]);
        prop_assert_eq!(&read(limit, pieces), &whole);
    }

    #[test]
    fn where_nothing_is_hidden_every_byte_passes(stream in stream(), limit in 4_usize..80) {
        let mut parser = SseParser::with_limit(limit);
        let mut passed = Vec::new();
        for piece in stream.chunks(5) {
            passed.extend(parser.push(piece, |_| Show::Pass));
        }
        passed.extend(parser.finish(|_| Show::Pass));
        prop_assert_eq!(passed, stream);
    }
}
