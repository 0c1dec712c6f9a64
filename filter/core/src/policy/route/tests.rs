use std::borrow::Cow;

use super::*;
use crate::formats::{Content, Message, Part, Role};
use crate::json::{JsonStr, Object};

fn tier(prompt: &str) -> usize {
    pick(score_prompt(prompt).value, &THRESHOLDS)
}

/// A request of one user message; `text` is JSON.
fn request<'a>(texts: &[&'a str]) -> Request<'a> {
    let parts = texts
        .iter()
        .map(|text| Part::Text(JsonStr::new(text).unwrap()))
        .collect();
    Request {
        body: "{}",
        fields: Object::parse("{}").unwrap(),
        model: Cow::Borrowed("m"),
        system: Vec::new(),
        messages: vec![Message {
            role: Role::User,
            content: Content { raw: "{}", parts },
        }],
        tools: None,
        structured: false,
        output_limit: None,
        stream: false,
        stream_usage: false,
        temperature: None,
        choices: 1,
    }
}

#[test]
fn everyday_questions_are_small_in_any_language() {
    for prompt in [
        "",
        "Hi, how are you?",
        "What is the capital of France?",
        "Translate to German: Good morning",
        "How do I reset my password?",
        "Where is my order #12345?",
        "Can I change my delivery address?",
        "Extract the email address from: contact us at bob@example.com or call 555-1234.",
        "Wie lautet die Hauptstadt von Italien?",
        "Quelle est la capitale de l'Espagne ?",
        "¿Cuál es la capital de Perú?",
        "翻译成英文：你好，很高兴认识你。",
        "日本の首都はどこですか",
        "Где мой заказ?",
        "ما هي عاصمة مصر؟",
        "भारत की राजधानी क्या है?",
    ] {
        assert_eq!(tier(prompt), 0, "{prompt}: {:?}", score_prompt(prompt));
    }
}

#[test]
fn word_problems_and_small_programs_are_medium() {
    for prompt in [
        "Write a Python function that returns the n-th Fibonacci number.",
        "Write a SQL query that lists all customers with more than 5 orders last month.",
        "Schreibe eine Python-Funktion, die eine Liste sortiert.",
        "写一个Python函数，计算列表中所有偶数的和。",
        "Напиши функцию на Python, которая проверяет, является ли строка палиндромом.",
        "A baker sells 12 loaves a day at $3 each. How much does he earn in a 7-day week if he \
         gives away 2 loaves every day?",
    ] {
        assert_eq!(tier(prompt), 1, "{prompt}: {:?}", score_prompt(prompt));
    }
}

#[test]
fn proofs_designs_and_hard_debugging_are_large_in_any_language() {
    for prompt in [
        "Prove that there are infinitely many primes of the form 4k+3.",
        "Design a distributed rate limiter that works across 5 regions with at most 50 ms added \
         latency. Compare token bucket and sliding window, and analyze the trade-offs under \
         network partition.",
        "Beweise, dass die Quadratwurzel aus 2 irrational ist, und verallgemeinere den Beweis \
         auf alle Primzahlen p.",
        "证明：对任意正整数n，n^3-n能被6整除。分析其推广并详细论证。",
        "Докажите, что сумма углов треугольника равна 180 градусам, и обоснуйте каждый шаг.",
        "Démontrez que toute suite convergente est bornée, puis analysez si la réciproque est \
         vraie.",
        "Debug this deadlock in our distributed transaction code and propose a redesign of the \
         locking protocol:\n```rust\nlet a = m1.lock();\nlet b = m2.lock();\n```\nStack trace: \
         thread 'main' panicked",
    ] {
        assert_eq!(tier(prompt), 2, "{prompt}: {:?}", score_prompt(prompt));
    }
}

#[test]
fn a_script_that_no_rule_knows_is_judged_by_its_length_and_signs_only() {
    // Thai for "Where is my order?" and a long Thai text.
    assert_eq!(tier("คำสั่งซื้อของฉันอยู่ที่ไหน"), 0);
    let long = "คำสั่งซื้อของฉันอยู่ที่ไหน ".repeat(500);
    assert!(score_prompt(&long).value < 0.5, "{:?}", score_prompt(&long));
}

#[test]
fn the_score_lies_between_zero_and_one_and_is_the_same_each_time() {
    for prompt in [
        "",
        "\u{0}",
        "\\",
        "\\u12",
        "😀😀",
        "\"\"\"",
        &"prove ".repeat(100_000),
        &"\n".repeat(9000),
        &"證".repeat(5000),
    ] {
        let first = score_prompt(prompt);
        assert!((0.0..=1.0).contains(&first.value), "{first:?}");
        assert_eq!(first, score_prompt(prompt));
        assert!(first.milli() <= 1000);
    }
}

#[test]
fn json_escapes_are_read_as_what_they_stand_for() {
    let text = "Prove it:\n\tif x \\frac{1}{2} < 3 \"quoted\"\n```rust\nlet é = '証明';\n```\nA. one\nB. two\n";
    let plain = serde_json::to_string(text).unwrap();
    let ascii: String = plain
        .chars()
        .map(|one| match u32::from(one) {
            code @ 0x80.. => format!("\\u{code:04x}"),
            _ => one.to_string(),
        })
        .collect();
    assert_ne!(plain, ascii);
    for json in [&plain, &ascii] {
        let (facts, hits, grams) = facts::of_request(&request(&[json]), &LEXICON, MODEL.weigh());
        let (mut bare, bare_hits, bare_grams) = facts::of_prompt(text, &LEXICON, MODEL.weigh());
        // Escapes take more bytes, and only that may differ.
        bare.bytes = facts.bytes;
        bare.history_bytes = facts.history_bytes;
        assert_eq!(format!("{facts:?}"), format!("{bare:?}"));
        assert_eq!(hits.0, bare_hits.0);
        assert_eq!(format!("{grams:?}"), format!("{bare_grams:?}"));
    }
}

#[test]
fn what_lies_between_the_head_and_the_tail_of_a_long_turn_is_not_read() {
    let filler = "lorem ipsum dolor sit amet ".repeat(1000);
    let plain = score_prompt(&filler).value;
    let hard = "Prove the theorem, design and analyze the proof step by step. ";
    let mut middle = filler.clone();
    middle.insert_str(filler.len() / 2, hard);
    assert_eq!(score_prompt(&middle).value, plain);
    assert!(score_prompt(&format!("{hard}{filler}")).value > plain + 0.2);
    assert!(score_prompt(&format!("{filler}{hard}")).value > plain + 0.2);
}

#[test]
fn tools_schemas_turns_and_images_raise_the_score() {
    let text = r#""What is the weather like in Paris?""#;
    let plain = score(&request(&[text])).value;
    let mut with_tools = request(&[text]);
    with_tools.tools = Some(r#"[{"type":"function"}]"#);
    let mut with_schema = request(&[text]);
    with_schema.structured = true;
    let mut with_image = request(&[text]);
    with_image.messages[0].content.parts.push(Part::Media("{}"));
    let mut with_turns = request(&[text]);
    for _ in 0..12 {
        let earlier = with_turns.messages[0].clone();
        with_turns.messages.push(earlier);
    }
    for harder in [with_tools, with_schema, with_image, with_turns] {
        assert!(score(&harder).value > plain);
    }
}

#[test]
fn the_last_user_turn_decides_and_not_what_was_said_before() {
    let mut conversation = request(&[r#""Prove that the square root of 2 is irrational.""#]);
    let hard = score(&conversation).value;
    let mut thanks = request(&[r#""Thanks!""#]).messages;
    conversation.messages.append(&mut thanks);
    assert!(score(&conversation).value < hard - 0.3);
}

#[test]
fn a_request_without_a_user_message_has_a_score() {
    let mut empty = request(&[]);
    assert!(score(&empty).value < 0.3);
    empty.messages.clear();
    assert!(score(&empty).value < 0.3);
}

#[test]
fn a_tier_is_picked_by_the_first_threshold_above_the_score() {
    assert_eq!(
        [0.0, 0.29, 0.3, 0.69, 0.7, 1.0].map(|score| pick(score, &THRESHOLDS)),
        [0, 0, 1, 1, 2, 2]
    );
    assert_eq!(pick(0.9, &[]), 0);
}

#[test]
fn no_word_of_the_lexicon_is_lost_for_want_of_room() {
    let mut hashes = std::collections::BTreeMap::new();
    for (rule, &(name, rule_impl)) in RULES.iter().enumerate() {
        let groups = rule_impl.words();
        assert!(groups.len() <= rule::GROUPS, "{name}");
        for (group, words) in groups.iter().enumerate() {
            for word in words.split_whitespace() {
                assert_eq!(word, word.to_lowercase(), "{name} looks for lower case");
                let ideographs = word.chars().filter(|one| scan::is_ideograph(*one)).count();
                assert!(ideographs == 0 || ideographs == 2, "{word} is no pair");
                let hash = format!("{:?}", lexicon::hash_entry(word));
                if let Some(taken) = hashes.insert(hash, (word, rule, group)) {
                    assert_eq!(taken.0, word, "two words with one hash");
                    panic!("{word} stands in {taken:?} and in rule {rule}, group {group}");
                }
            }
        }
    }
    assert_eq!(LEXICON.len(), hashes.len());
}

#[test]
fn recorded_prompts_fall_into_sensible_tiers() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
    let shares = |file: &str, field: &str, domain: &str| {
        let rows = std::fs::read_to_string(format!("{data}/{file}")).ok()?;
        let mut tiers = [0_usize; 3];
        for row in rows.lines() {
            let row: serde_json::Value = serde_json::from_str(row).unwrap();
            if domain.is_empty() || row["domain"] == domain {
                tiers[tier(row[field].as_str().unwrap())] += 1;
            }
        }
        let all = tiers.iter().sum::<usize>() as f64;
        Some(tiers.map(|count| count as f64 / all))
    };
    let Some(support) = shares("cache/banking77.jsonl", "text", "") else {
        eprintln!("skipped: no recorded prompts here");
        return;
    };
    assert!(support[0] > 0.9, "support questions: {support:?}");
    let school = shares("routing/routellm_gsm8k.jsonl", "prompt", "").unwrap();
    assert!(school[1] > 0.6, "word problems: {school:?}");
    let puzzles = shares(
        "routing/uiuc_llmrouter.jsonl",
        "prompt",
        "agentverse-logicgrid",
    )
    .unwrap();
    assert!(puzzles[2] > 0.8, "logic puzzles: {puzzles:?}");
}
