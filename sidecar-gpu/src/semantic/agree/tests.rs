use super::*;

fn chat(text: &str) -> String {
    serde_json::json!({"id": text.len(), "model": "m", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": text}}]})
    .to_string()
}

fn words(one: &str, other: &str) -> Option<Agreement> {
    by_words((one.as_bytes(), other.as_bytes()), None).ok()
}

#[test]
fn what_an_answer_says_is_read_from_each_api() {
    let chat = chat("Nine  to\nfive.");
    let messages = r#"{"type":"message","role":"assistant","content":[
        {"type":"thinking","thinking":"Hm."},{"type":"text","text":"Nine to"},{"type":"text","text":"five."}]}"#;
    let responses = r#"{"object":"response","instructions":"Be brief.","text":{"format":{"type":"text"}},"output":[
        {"type":"reasoning","content":[{"type":"reasoning_text","text":"Hm."}]},
        {"type":"message","content":[{"type":"output_text","text":"Nine to five."}]}]}"#;
    for body in [chat.as_str(), messages, responses] {
        assert_eq!(
            said(body.as_bytes()).unwrap().text,
            "Nine to five.",
            "{body}"
        );
    }
    for body in [
        "",
        "no JSON",
        "{}",
        "[]",
        r#"{"choices":[]}"#,
        &" ".repeat(MAX_ANSWER + 1),
    ] {
        assert_eq!(said(body.as_bytes()), None);
    }
}

#[test]
fn equal_texts_are_the_same_and_what_a_word_tells_apart_is_not() {
    let both = |one: &str, other: &str| words(&chat(one), &chat(other));
    assert_eq!(
        both("Nine to five.", "Nine  to five.\n"),
        Some(Agreement::Same)
    );
    for (one, other) in [
        ("Within 30 days.", "Within 14 days."),
        ("Yes.", "No."),
        (
            "Yes, it is covered by the warranty.",
            "No, it is covered by nothing.",
        ),
        ("You can return it.", "You cannot return it."),
        (
            "Our office in Berlin is open.",
            "Our office in Munich is open.",
        ),
        ("It costs 5 dollars.", "It costs 5 euros."),
    ] {
        assert_eq!(
            both(one, other),
            Some(Agreement::Different),
            "{one} {other}"
        );
    }
    let long = |days: u8| format!("{} It takes {days} days.", "It depends. ".repeat(30));
    assert_eq!(both(&long(3), &long(4)), None, "left to the model");
    assert_eq!(words("{}", &chat("Hi")), Some(Agreement::Unjudged));
}

/// The model of `SLUICE_MODEL`, which must then be there, or that of `cargo xtask setup model`.
fn model() -> Option<std::path::PathBuf> {
    let told = std::env::var_os("SLUICE_MODEL").map(std::path::PathBuf::from);
    let required = told.is_some() || std::env::var_os("SLUICE_REQUIRE_ALL").is_some();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = told.unwrap_or_else(|| root.join("../target/models/all-MiniLM-L6-v2"));
    if !required && !folder.is_dir() {
        eprintln!("SKIPPED: no model in {}", folder.display());
        return None;
    }
    Some(folder)
}

#[tokio::test]
async fn answers_that_say_the_same_are_told_from_those_that_do_not() {
    let Some(folder) = model() else { return };
    let engine = sluice_engine::load(&folder, &sluice_engine::LoadOptions::default()).unwrap();
    let batcher = Batcher::new(engine, sluice_engine::BatcherOptions::default()).unwrap();
    let mut wrong = Vec::new();
    for line in include_str!("answers.tsv").lines() {
        let [label, one, other] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let (a, b) = (
            embed(&batcher, one).await.unwrap(),
            embed(&batcher, other).await.unwrap(),
        );
        let cosine: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
        println!("{label} {cosine:.3} {one:.40}");
        let (one, other) = (chat(one), chat(other));
        let told = agree((one.as_bytes(), other.as_bytes()), &batcher, None).await;
        if told.name() != label {
            wrong.push(format!("{cosine:.3} {line}"));
        }
    }
    assert_eq!(wrong.len(), 2, "{wrong:#?}");
    assert_ne!(
        wrong[0].contains("same"),
        wrong[1].contains("same"),
        "{wrong:#?}"
    );
    // As long as it may be, and in a script of which a token is few bytes.
    for text in ["word ".repeat(5_000), "字".repeat(5_000)] {
        assert!(embed(&batcher, &text).await.is_ok());
    }
}

#[test]
fn calls_of_tools_are_the_same_only_where_they_are_equal() {
    let call = |id: u8, city: &str| {
        format!(
            r#"{{"choices":[{{"message":{{"content":null,"tool_calls":[{{"id":"{id}","function":
            {{"name":"weather","arguments":"{{\"city\":\"{city}\"}}"}}}}]}}}}]}}"#
        )
    };
    assert_eq!(
        words(&call(1, "Rome"), &call(2, "Rome")),
        Some(Agreement::Same)
    );
    assert_eq!(
        words(&call(1, "Rome"), &call(1, "Oslo")),
        Some(Agreement::Different)
    );
    assert_eq!(
        words(&call(1, "Rome"), &chat("Rome")),
        Some(Agreement::Different)
    );
    let used = |city: &str| {
        format!(
            r#"{{"content":[{{"type":"text","text":"Let me see."}},{{"type":"tool_use","id":"t","name":"weather","input":{{"city":"{city}"}}}}]}}"#
        )
    };
    assert_eq!(
        words(&used("Rome"), &used("Oslo")),
        Some(Agreement::Different)
    );
}
