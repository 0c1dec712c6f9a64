//! Known counts are those of OpenAI's Python package tiktoken 0.12 over the same vocabularies.

use std::borrow::Cow;

use super::*;
use crate::formats::{self, Content, Message, Role};
use crate::json::{JsonStr, Object, array};

const O200K: &[Encoding] = &[Encoding::O200kBase];

/// Messages of an OpenAI chat request, as its format would read them.
fn chat<'a>(messages: &'a str) -> Request<'a> {
    let mut request = Request {
        body: "{}",
        fields: Object::parse("{}").unwrap(),
        model: Cow::Borrowed("gpt-4o"),
        system: Vec::new(),
        messages: Vec::new(),
        tools: None,
        structured: false,
        output_limit: None,
        stream: false,
        stream_usage: false,
        temperature: None,
        choices: 1,
    };
    for raw in array(messages).unwrap() {
        let message = Object::parse(raw).unwrap();
        let text = JsonStr::new(message.get("content").unwrap()).unwrap();
        let content = Content {
            raw,
            parts: vec![Part::Text(text)],
        };
        match message.str("role").unwrap().escaped() {
            "system" => request.system.push(content),
            "user" => request.messages.push(Message {
                role: Role::User,
                content,
            }),
            _ => request.messages.push(Message {
                role: Role::Assistant,
                content,
            }),
        }
    }
    request
}

/// A conversation of one user message.
fn one(text: &str) -> String {
    serde_json::json!([{"role": "user", "content": text}]).to_string()
}

#[test]
fn texts_count_as_in_tiktoken() {
    let cases: [(&str, u64, u64); 14] = [
        ("", 0, 0),
        ("Hello, world!", 4, 4),
        ("The quick brown fox jumps over the lazy dog.", 10, 10),
        (
            "def f(x):\n    return x ** 2  # square\n\n\nprint(f(3))",
            19,
            19,
        ),
        ("Wie spät ist es? Übung macht den Meister.", 11, 13),
        ("你好，世界。今天天气很好", 8, 15),
        ("こんにちは世界", 2, 4),
        ("مرحبا بالعالم", 4, 10),
        ("👩\u{200d}👩\u{200d}👧\u{200d}👦 family", 12, 19),
        ("<|endoftext|>", 7, 7),
        ("   \n\n\t  x", 3, 3),
        ("1234567890 3.14159", 9, 9),
        ("I'm HERE'S don't WE'LL", 7, 9),
        ("x", 1, 1),
    ];
    let tokens = Tokens::load(&Encoding::ALL);
    for (text, o200k, cl100k) in cases {
        let counts = Encoding::ALL.map(|encoding| tokens.count_text(encoding, text));
        assert_eq!(counts, [Some(o200k), Some(cl100k)], "{text:?}");
    }
}

#[test]
fn long_texts_with_spaces_are_cut_without_an_error() {
    let tokens = Tokens::load(&Encoding::ALL);
    let cases = [
        (" a".repeat(5000), 5000, 5000),
        ("word ".repeat(3000) + "end", 3001, 3001),
        (
            "The price is $5.00, isn't it?\n".repeat(1000),
            11_000,
            12_000,
        ),
    ];
    for (text, o200k, cl100k) in cases {
        let counts = Encoding::ALL.map(|encoding| tokens.count_text(encoding, &text));
        assert_eq!(counts, [Some(o200k), Some(cl100k)], "{}", &text[..20]);
    }
}

#[test]
fn long_runs_without_a_space_are_off_by_less_than_a_tenth_of_a_percent() {
    let tokens = Tokens::load(O200K);
    let cases = [
        ("a".repeat(100_000), 12_500_u64),
        (" ".repeat(100_000), 782),
        ("你好世界天气很好".repeat(4166), 16_664),
    ];
    for (text, exact) in cases {
        let count = tokens.count_text(Encoding::O200kBase, &text).unwrap();
        assert!(count.abs_diff(exact) * 1000 <= exact, "{count} for {exact}");
    }
}

#[test]
fn a_chat_counts_as_in_openais_cookbook() {
    let messages = r#"[
        {"role": "system", "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."},
        {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
        {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
        {"role": "system", "name": "example_user", "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."},
        {"role": "system", "name": "example_assistant", "content": "Let's talk later when we're less busy about how to do better."},
        {"role": "user", "content": "This late pivot means we don't have time to boil the ocean for the client deliverable."}
    ]"#;
    let mut tokens = Tokens::load(&Encoding::ALL);
    let request = chat(messages);
    assert_eq!(
        tokens.count(Encoding::O200kBase, &request, "openai.chat"),
        Some(124)
    );
    assert_eq!(
        tokens.count(Encoding::Cl100kBase, &request, "openai.chat"),
        Some(129)
    );
}

#[test]
fn completions_and_embeddings_have_no_tokens_beside_their_text() {
    let mut tokens = Tokens::load(O200K);
    let messages = one("Hello, world!");
    let request = chat(&messages);
    for (format, expected) in [
        ("openai.completions", 4),
        ("openai.embeddings", 4),
        ("openai.chat", 11),
        ("openai.responses", 11),
    ] {
        assert_eq!(
            tokens.count(Encoding::O200kBase, &request, format),
            Some(expected),
            "{format}"
        );
    }
}

#[test]
fn tools_and_media_are_counted_too() {
    let mut tokens = Tokens::load(O200K);
    let messages = one("Hello, world!");
    let mut request = chat(&messages);
    request.tools = Some(r#"[{"type":"function","function":{"name":"f"}}]"#);
    request.messages[0].content.parts.push(Part::Media("{}"));
    let count = tokens.count(Encoding::O200kBase, &request, "openai.chat");
    let tools = tokens.count_text(Encoding::O200kBase, request.tools.unwrap());
    assert_eq!(count, Some(11 + MEDIA_TOKENS + tools.unwrap()));
}

#[test]
fn a_vocabulary_that_is_not_loaded_counts_nothing() {
    let mut tokens = Tokens::load(O200K);
    let messages = one("hi");
    assert_eq!(
        tokens.count(Encoding::Cl100kBase, &chat(&messages), "openai.chat"),
        None
    );
}

#[test]
fn a_message_that_was_counted_is_remembered_per_encoding_and_format() {
    let mut tokens = Tokens::load(&Encoding::ALL);
    let messages = one("Wie spät ist es? Übung macht den Meister.");
    let request = chat(&messages);
    for _ in 0..2 {
        for (encoding, format, expected) in [
            (Encoding::O200kBase, "openai.chat", 18),
            (Encoding::Cl100kBase, "openai.chat", 20),
            (Encoding::O200kBase, "openai.completions", 11),
        ] {
            assert_eq!(tokens.count(encoding, &request, format), Some(expected));
        }
    }
    assert_eq!(tokens.memory.len(), 3);
}

#[test]
fn what_one_tenant_sent_is_not_known_of_another() {
    let mut tokens = Tokens::load(O200K);
    let body = r#"{"messages":[{"role":"user","content":"the same words"}]}"#;
    let request = formats::ALL[0].parse(body).unwrap();
    for (whose, known) in [(1, 1), (2, 2), (1, 2), (2, 2)] {
        tokens.serve(whose);
        assert!(tokens.count(O200K[0], &request, "openai.chat").is_some());
        assert_eq!(tokens.memory.len(), known, "{whose}");
    }
}

#[test]
fn the_memory_of_counts_is_bounded_and_keeps_what_is_used() {
    let mut memory = Memory::default();
    let used = Memory::key(1, 0);
    memory.put(used, 7);
    for number in 0..40_000_u64 {
        memory.put(Memory::key(2, number), number);
        assert_eq!(memory.get(used), Some(7), "after {number} others");
        assert!(memory.len() <= 16_384);
    }
    assert_eq!(memory.get(Memory::key(2, 1)), None);
}

#[test]
fn a_huge_prompt_is_sampled_to_within_two_percent() {
    let mut tokens = Tokens::load(O200K);
    let prose = "The price is $5.00, isn't it?\n".repeat(10_000);
    let chinese = "你好世界天气很好 ".repeat(30_000);
    let messages = serde_json::json!([
        {"role": "user", "content": prose},
        {"role": "user", "content": chinese},
    ])
    .to_string();
    let count = tokens
        .count(Encoding::O200kBase, &chat(&messages), "openai.chat")
        .unwrap();
    // 11 per line of prose; 4 and the space for each of the others.
    let exact: u64 = 110_000 + 150_000;
    assert!(
        count.abs_diff(exact) * 50 <= exact,
        "{count}, exactly {exact}"
    );
}

#[test]
fn a_long_conversation_of_small_messages_becomes_known_exactly() {
    let mut tokens = Tokens::load(O200K);
    let turn = serde_json::json!({"role": "user", "content": "Hello, world! ".repeat(400)});
    let turns: Vec<_> = (0..100)
        .map(|number| {
            let mut turn = turn.clone();
            turn["id"] = number.into();
            turn
        })
        .collect();
    let messages = serde_json::Value::from(turns).to_string();
    let request = chat(&messages);
    let one = tokens
        .count_text(Encoding::O200kBase, &"Hello, world! ".repeat(400))
        .unwrap();
    for _ in 0..5 {
        let _ = tokens.count(Encoding::O200kBase, &request, "openai.chat");
    }
    assert_eq!(tokens.memory.len(), 100, "all of them are remembered");
    assert_eq!(
        tokens.count(Encoding::O200kBase, &request, "openai.chat"),
        Some(100 * (one + 4) + 3)
    );
}

#[test]
fn the_count_lies_within_the_bounds() {
    let mut tokens = Tokens::load(O200K);
    for text in [
        "",
        "a",
        "\u{1}\u{2}\u{3}",
        &" ".repeat(5000),
        "你好，世界\n\"\\",
        "👩‍👩‍👧‍👦",
    ] {
        let messages = one(text);
        let request = chat(&messages);
        let (least, most) = Extent::of(&request, "openai.chat").bounds();
        let count = tokens
            .count(Encoding::O200kBase, &request, "openai.chat")
            .unwrap();
        assert!(
            least <= count && count <= most,
            "{text:?}: {least} {count} {most}"
        );
    }
}

#[test]
fn an_estimate_starts_from_the_guess_and_follows_reported_usage() {
    let mut tokens = Tokens::load(&[]);
    assert_eq!(tokens.estimate("claude", 4000), 1000);
    tokens.guess("claude", 3.2);
    assert_eq!(tokens.estimate("claude", 3200), 1000);
    for _ in 0..300 {
        tokens.learn("claude", 5000, 2000);
    }
    let learned = tokens.estimate("claude", 2500);
    assert!((990..=1010).contains(&learned), "{learned}");
    assert_eq!(
        tokens.estimate("other", 4000),
        1000,
        "others keep the default"
    );
}

#[test]
fn absurd_usage_cannot_carry_an_estimate_away() {
    let mut tokens = Tokens::load(&[]);
    for _ in 0..1000 {
        tokens.learn("m", u64::MAX, 1);
        tokens.learn("m", 0, 0);
        tokens.learn("m", 0, 5);
    }
    assert_eq!(tokens.estimate("m", 8000), 1000);
    for _ in 0..10_000 {
        tokens.learn("n", 10, u64::MAX);
    }
    assert!(tokens.estimate("n", 1000) <= 1000);
    tokens.guess("o", f64::NAN);
    assert_eq!(tokens.estimate("o", 4000), 1000);
}

#[test]
fn models_beyond_the_bound_are_estimated_by_the_default() {
    let mut tokens = Tokens::load(&[]);
    for number in 0..1000 {
        tokens.learn(&format!("model-{number}"), 100_000, 50_000);
    }
    assert!(tokens.estimate("model-0", 4000) > 1000);
    assert_eq!(tokens.estimate("model-999", 4000), 1000);
}

#[test]
fn an_encoding_is_found_by_its_name() {
    for encoding in Encoding::ALL {
        assert_eq!(Encoding::from_name(encoding.name()), Some(encoding));
    }
    assert_eq!(Encoding::from_name("p50k_base"), None);
}

#[test]
fn the_packed_vocabularies_count_as_tiktoken_rs_own() {
    let own = Tokens::load(&Encoding::ALL);
    let theirs = [
        tiktoken_rs::o200k_base().unwrap(),
        tiktoken_rs::cl100k_base().unwrap(),
    ];
    // Every token of both vocabularies that is text, one by one and run together.
    for (encoding, vocabulary) in Encoding::ALL.into_iter().zip(&theirs) {
        let mut all = String::new();
        for rank in (0..200_000).step_by(7) {
            let Ok(bytes) = vocabulary.decode_bytes(&[rank]) else {
                continue;
            };
            if let Ok(token) = std::str::from_utf8(&bytes) {
                let count = own.count_text(encoding, token);
                assert_eq!(
                    count,
                    Some(vocabulary.count_ordinary(token) as u64),
                    "{token:?}"
                );
                if all.len() < 3000 {
                    all.push_str(token);
                }
            }
        }
        assert_eq!(
            own.count_text(encoding, &all),
            Some(vocabulary.count_ordinary(&all) as u64)
        );
    }
}

#[test]
fn a_text_counts_the_same_whether_its_words_were_seen_or_not() {
    // What stands at and around the places where words are cut apart.
    let pieces = [
        "the",
        "The",
        "don't",
        "WE'LL",
        "x",
        "9",
        "1234567",
        "3.5",
        "$5",
        "--",
        "(",
        ")",
        "/\r\n",
        "\n",
        "\n\n ",
        "  ",
        "   ",
        "\t",
        " ",
        "\u{a0}",
        "\u{3000}",
        "é",
        "Straße",
        "你好",
        "👩\u{200d}👧",
        "a,b",
        "e.g.",
        "snake_case",
        "<|endoftext|>",
        "\u{7f}",
        "\u{b}",
        "\u{1c}",
        "\u{85}",
        "42",
        "1a2b3c",
        "x86_64",
        "'s",
        "½",
        "٣",
        "9é",
        "\u{301}",
        "e\u{301}7",
        "0\r\n",
        "v2.",
    ];
    let theirs = [
        tiktoken_rs::o200k_base_singleton(),
        tiktoken_rs::cl100k_base_singleton(),
    ];
    let tokens = Tokens::load(&Encoding::ALL);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..10_000 {
        let mut text = String::new();
        for _ in 0..random.usize(1..9) {
            text.push_str(pieces[random.usize(..pieces.len())]);
            text.push_str(["", " ", " ", "  "][random.usize(..4)]);
        }
        for (encoding, theirs) in Encoding::ALL.into_iter().zip(theirs) {
            let expected = Some(theirs.count_ordinary(&text) as u64);
            assert_eq!(tokens.count_text(encoding, &text), expected, "{text:?}");
        }
    }
}

#[test]
fn one_to_three_digits_are_a_token_in_both_vocabularies() {
    let theirs = [
        tiktoken_rs::o200k_base_singleton(),
        tiktoken_rs::cl100k_base_singleton(),
    ];
    for bpe in theirs {
        for number in 0..1000 {
            for text in [
                format!("{number}"),
                format!("{number:02}"),
                format!("{number:03}"),
            ] {
                assert_eq!(bpe.count_ordinary(&text), 1, "{text}");
            }
        }
    }
}
