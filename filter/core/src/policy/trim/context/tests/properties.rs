//! What holds for any text.

use proptest::prelude::*;

use super::*;

fn marker() -> impl Strategy<Value = Marker> {
    let (sign, signs) = Fence::line("---").unwrap();
    prop_oneof![
        Just(tag("d")),
        Just(Marker::Tag(Tag {
            name: "d".into(),
            inside: Some("ds".into()),
            text: Some("t".into())
        })),
        Just(Marker::List(List {
            after: "C:".into(),
            before: None,
            number: List::number("[{n}]").unwrap()
        })),
        Just(Marker::List(List {
            after: "C:".into(),
            before: Some("Q:".into()),
            number: List::number("{n}.").unwrap()
        })),
        Just(Marker::Fence(Fence {
            sign,
            signs,
            label: "C".into(),
            split: None
        })),
        Just(Marker::Fence(Fence {
            sign,
            signs,
            label: "C".into(),
            split: Some(split("\n\n", true))
        })),
        Just(Marker::Section(Section {
            after: "C:".into(),
            before: "Q:".into(),
            split: split("\n\n", false)
        })),
        Just(Marker::Json(Array { after: None })),
        Just(Marker::Json(Array {
            after: Some("C:".into())
        })),
    ]
}

/// Pieces of which texts with marks are made.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<d>"),
        Just("</d>"),
        Just("<d n=\"1\">"),
        Just("<ds>"),
        Just("</ds>"),
        Just("<t>"),
        Just("</t>"),
        Just("C:\n"),
        Just("Q: what is this?\n"),
        Just("[1] "),
        Just("[2] "),
        Just("[3] "),
        Just("1. "),
        Just("2. "),
        Just("---\n"),
        Just("--- C\n"),
        Just("C\n---\n"),
        Just("k: v\n"),
        Just("\n"),
        Just("\n\n"),
        Just(" "),
        Just("[{\"text\": \"a é\"}, {\"text\": \"b\"}]"),
        Just("[\"x\", \"y\"]"),
        Just("["),
        Just("]"),
        Just("{\"text\": \"c\"}"),
        Just("alpha"),
        Just("beta. "),
        Just("Gamma é 😀 "),
        Just("\\"),
        Just("\""),
        Just("what"),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn policy() -> impl Strategy<Value = Policy> {
    (
        prop::collection::vec(marker(), 1..3),
        prop::option::of(1..4_usize),
        prop::option::of(0..6_u64),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(markers, top_k, tokens, dedupe, extra)| Policy {
            markers,
            top_k,
            tokens,
            duplicates: dedupe.then_some(0.9),
            extra,
            ..Policy::default()
        })
}

fn is_subsequence(part: &str, whole: &str) -> bool {
    let mut rest = whole.chars();
    part.chars().all(|c| rest.any(|other| other == c))
}

/// Kept chunks as they stand, and what stands around all of them.
fn found(text: &str, policy: &Policy) -> Vec<std::ops::Range<usize>> {
    let groups = markers::find(&policy.markers, text);
    groups
        .iter()
        .flat_map(|group| &group.blocks)
        .map(|block| block.whole.clone())
        .collect()
}

proptest! {
    #[test]
    fn what_is_sent_is_a_part_of_what_came(text in text(), policy in policy()) {
        let out = after(&text, &policy);
        prop_assert!(is_subsequence(&out, &text), "{:?} of {:?}", out, text);
    }

    #[test]
    fn kept_chunks_stand_as_they_did_and_so_does_what_is_around_them(text in text(), policy in policy()) {
        let policy = Policy { extra: false, ..policy };
        let body = chat(&text);
        let request = OpenAiChat.parse(&body).unwrap();
        let chosen = Found::of(&request, Some(&policy)).unwrap().choose(&policy, &mut Words::default(), &[]);
        let out: serde_json::Value = serde_json::from_str(&chosen.edits.apply(&body)).unwrap();
        let out = out["messages"][0]["content"].as_str().unwrap();
        let wholes = found(&text, &policy);
        let kept = chosen.selections.first().map_or(Vec::new(), |selection| selection.kept.clone());
        let mut at = 0;
        for index in kept {
            let chunk = &text[wholes[index].clone()];
            let place = out[at..].find(chunk);
            prop_assert!(place.is_some(), "{:?} of {:?}", chunk, text);
            at += place.unwrap() + chunk.len();
        }
        // Outside of chunks only white space and commas go.
        let plain = |text: &str| text.chars().filter(|c| !c.is_whitespace() && *c != ',').collect::<String>();
        let mut around = String::new();
        let mut from = 0;
        for whole in &wholes {
            around += &text[from..whole.start];
            from = whole.end;
        }
        around += &text[from..];
        prop_assert!(is_subsequence(&plain(&around), &plain(out)), "{:?} of {:?}", out, text);
        if wholes.is_empty() {
            prop_assert_eq!(out, text.as_str());
        }
    }

    #[test]
    fn what_was_trimmed_is_not_trimmed_again(text in text(), policy in policy()) {
        let policy = Policy { extra: false, ..policy };
        let once = after(&text, &policy);
        prop_assert_eq!(after(&once, &policy), once);
    }

    #[test]
    fn any_order_stands_each_kept_chunk_once(text in text(), policy in policy()) {
        let policy = Policy { order: Order::Rank, extra: false, ..policy };
        let out = after(&text, &policy);
        let mut one: Vec<char> = out.chars().filter(|c| c.is_alphanumeric()).collect();
        let mut other: Vec<char> = after(&text, &Policy { order: Order::Original, ..policy }).chars().filter(|c| c.is_alphanumeric()).collect();
        one.sort_unstable();
        other.sort_unstable();
        prop_assert_eq!(one, other);
    }

    #[test]
    fn the_cut_is_the_same_however_the_body_is_escaped(text in text(), policy in policy()) {
        let plain = chat(&text);
        let mut escaped = String::new();
        for c in plain.chars() {
            match c {
                '<' | 'é' | '😀' => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        escaped += &format!("\\u{unit:04x}");
                    }
                }
                c => escaped.push(c),
            }
        }
        let read = |body: &str| serde_json::from_str::<serde_json::Value>(body).unwrap();
        prop_assert_eq!(read(&trimmed(&OpenAiChat, &plain, &policy)), read(&trimmed(&OpenAiChat, &escaped, &policy)));
    }
}
