use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::formats;

/// A token per four bytes, begun ones counted.
fn count(text: &str) -> u64 {
    text.len().div_ceil(4) as u64
}

fn shortened(format: &str, body: &Value, plan: &SystemPrompt) -> (Value, Shortened) {
    let by_length = |texts: &[&str]| texts.iter().map(|text| text.len() as f32).collect();
    let format = formats::by_name(format).unwrap();
    let body = body.to_string();
    let request = format.parse(&body).unwrap();
    let measures = Measures {
        count: &count,
        scores: Some(&by_length),
    };
    let shortened = shorten(&request, format, plan, measures);
    let after = shortened.splices.clone().apply(&body);
    (serde_json::from_str(&after).unwrap(), shortened)
}

fn chat(system: &str) -> Value {
    json!({"model": "m", "messages": [
        {"role": "system", "content": system}, {"role": "user", "content": "  q  \n\n\n\nq"}
    ]})
}

/// The system message of a chat after it.
fn of_chat(system: &str, plan: &SystemPrompt) -> (String, Shortened) {
    let (after, shortened) = shortened("openai.chat", &chat(system), plan);
    assert_eq!(after["messages"][1], chat("")["messages"][1]);
    let content = after["messages"][0]["content"].as_str().unwrap();
    (content.to_owned(), shortened)
}

fn capped(tokens: u64, cut: Cut) -> SystemPrompt {
    SystemPrompt {
        tokens: Some(tokens),
        cut,
        ..SystemPrompt::default()
    }
}

#[test]
fn what_nothing_is_configured_for_stays() {
    let (after, shortened) = of_chat("a  \n\n\n\nb", &SystemPrompt::default());
    assert_eq!(after, "a  \n\n\n\nb");
    assert!(shortened.splices.is_empty() && !shortened.cut && !shortened.over);
}

#[test]
fn every_apis_prompt_is_minified_where_it_stands() {
    let plan = SystemPrompt {
        minify: true,
        ..SystemPrompt::default()
    };
    let (wide, short) = ("Be \"kind\".  \n\n\n\nBe é.", "Be \"kind\".\n\nBe é.");
    let (after, _) = shortened(
        "openai.chat",
        &json!({"messages": [
            {"role": "developer", "content": [{"type": "text", "text": wide}]}, {"role": "system", "content": wide}
        ]}),
        &plan,
    );
    assert_eq!(after["messages"][0]["content"][0]["text"], short);
    assert_eq!(after["messages"][1]["content"], short);
    let (after, _) = shortened(
        "openai.responses",
        &json!({"instructions": wide, "input": [
            {"role": "developer", "content": [{"type": "input_text", "text": wide}]}
        ]}),
        &plan,
    );
    assert_eq!(after["instructions"], short);
    assert_eq!(after["input"][0]["content"][0]["text"], short);
    let block = json!({"type": "text", "text": wide, "cache_control": {"type": "ephemeral"}});
    let (after, _) = shortened(
        "anthropic.messages",
        &json!({"system": [block], "messages": []}),
        &plan,
    );
    assert_eq!(after["system"][0]["text"], short);
    assert_eq!(after["system"][0]["cache_control"]["type"], "ephemeral");
    let (after, _) = shortened(
        "anthropic.messages",
        &json!({"system": wide, "messages": []}),
        &plan,
    );
    assert_eq!(after["system"], short);
}

#[test]
fn a_prompt_of_nothing_but_white_space_stays() {
    let plan = SystemPrompt {
        minify: true,
        ..SystemPrompt::default()
    };
    assert_eq!(of_chat("  \n\n ", &plan).0, "  \n\n ");
}

const PARAGRAPHS: &str =
    "You are Ann.\n\nRule one is long. Rule one has more.\n\nRule two.\n\nAnswer in JSON.";

#[test]
fn a_cap_takes_the_middle_out_and_says_so() {
    let (after, shortened) = of_chat(PARAGRAPHS, &capped(19, Cut::Middle));
    assert_eq!(
        after,
        "You are Ann.\n\nRule one is long.\n\n[…]\n\nAnswer in JSON."
    );
    assert!(shortened.cut && !shortened.over);
    assert!(count(&after) <= 19, "{}", count(&after));
    let (after, shortened) = of_chat(PARAGRAPHS, &capped(12, Cut::End));
    assert_eq!(after, "You are Ann.\n\n[…]");
    assert!(shortened.cut);
    let (after, shortened) = of_chat(PARAGRAPHS, &capped(100, Cut::Middle));
    assert!(after == PARAGRAPHS && !shortened.cut && !shortened.over);
}

#[test]
fn where_not_a_sentence_fits_nothing_is_cut() {
    for cap in [0, 1, 5] {
        let (after, shortened) = of_chat(PARAGRAPHS, &capped(cap, Cut::Middle));
        assert!(
            after == PARAGRAPHS && shortened.over && !shortened.cut,
            "{cap}"
        );
    }
}

#[test]
fn code_is_never_cut_in_two() {
    let prompt = format!("Say.\n\n```\n{}\n```\n\nEnd.", "code. Code.\n\n".repeat(9));
    for cap in 0..60 {
        let (after, _) = of_chat(&prompt, &capped(cap, Cut::Middle));
        let fences = after.matches("```").count();
        assert!(
            fences == 0 || after.contains(&"code. Code.\n\n".repeat(9)),
            "{after}"
        );
    }
}

#[test]
fn a_system_message_whose_text_is_all_gone_says_that_it_is() {
    let long = "Long. ".repeat(40);
    let body = json!({"messages": [
        {"role": "system", "content": "First."}, {"role": "system", "content": long},
        {"role": "system", "content": "Last."}, {"role": "user", "content": "q"}
    ]});
    let (after, shortened) = shortened("openai.chat", &body, &capped(22, Cut::Middle));
    assert!(shortened.cut);
    assert_eq!(after["messages"][0]["content"], "First.");
    assert_eq!(after["messages"][2]["content"], "Last.");
    let middle = after["messages"][1]["content"].as_str().unwrap();
    assert!(middle.ends_with("[…]"), "{middle}");
}

fn top(top_k: usize, tokens: Option<u64>) -> SystemPrompt {
    SystemPrompt {
        tokens,
        examples: Some(Examples {
            top_k,
            markers: Vec::new(),
        }),
        ..SystemPrompt::default()
    }
}

const EXAMPLES: &str = "Classify.\n\nInput: a\nOutput: longest\n\nInput: b\nOutput: x\n\nInput: c\nOutput: longer\n\nOne word.";

#[test]
fn the_best_examples_stay_in_their_order() {
    let (after, shortened) = of_chat(EXAMPLES, &top(2, None));
    assert_eq!(
        after,
        "Classify.\n\nInput: a\nOutput: longest\n\nInput: c\nOutput: longer\n\nOne word."
    );
    assert_eq!(shortened.examples, 1);
    let (after, shortened) = of_chat(EXAMPLES, &top(0, None));
    assert_eq!(after, "Classify.\n\nOne word.");
    assert_eq!(shortened.examples, 3);
    assert_eq!(of_chat(EXAMPLES, &top(3, None)).0, EXAMPLES);
}

#[test]
fn a_cap_takes_examples_before_it_takes_text() {
    let (after, shortened) = of_chat(EXAMPLES, &top(3, Some(20)));
    assert_eq!(
        after,
        "Classify.\n\nInput: a\nOutput: longest\n\nInput: c\nOutput: longer\n\nOne word."
    );
    assert_eq!(
        (shortened.examples, shortened.cut, shortened.over),
        (1, false, false)
    );
}

#[test]
fn examples_in_messages_of_their_own_are_chosen_too() {
    for role in ["system", "user"] {
        let says = |name: &str, text: &str| {
            let role = match name == "example_assistant" && role == "user" {
                true => "assistant",
                false => role,
            };
            json!({"role": role, "name": name, "content": text})
        };
        let one = [says("example_user", "a"), says("example_assistant", "b")];
        let two = [
            says("example_user", "c"),
            says("example_assistant", "longer"),
        ];
        let alone = says("example_user", "no answer");
        let system = json!({"role": "system", "content": "s"});
        let last = json!({"role": "user", "content": "q"});
        let body = json!({"messages": [system, one[0], one[1], two[0], two[1], alone, last]});
        let (after, shortened) = shortened("openai.chat", &body, &top(1, None));
        assert_eq!(
            after["messages"],
            json!([system, two[0], two[1], alone, last])
        );
        assert_eq!(shortened.examples, 1);
    }
}

#[test]
fn the_same_prompt_is_shortened_to_the_same_text() {
    let plan = SystemPrompt {
        minify: true,
        ..top(2, Some(20))
    };
    let (once, _) = of_chat(EXAMPLES, &plan);
    assert_eq!(of_chat(EXAMPLES, &plan).0, once);
    assert_eq!(of_chat(&once, &plan).0, once);
}

#[test]
fn hostile_prompts_take_time_in_their_length() {
    let named = json!({"role": "system", "name": "example_user", "content": "x"});
    let messages: Vec<_> = (0..20_000).map(|_| named.clone()).collect();
    let plan = SystemPrompt {
        minify: true,
        ..top(1, Some(50))
    };
    let _ = shortened("openai.chat", &json!({"messages": messages}), &plan);
    let system: Vec<_> = (0..5_000)
        .map(|_| json!({"role": "system", "content": EXAMPLES}))
        .collect();
    let _ = shortened("openai.chat", &json!({"messages": system}), &plan);
    let _ = of_chat(&EXAMPLES.repeat(5_000), &plan);
}

proptest! {
    #[test]
    fn what_a_cap_leaves_is_within_it_and_made_of_whole_sentences(
        prompt in "([A-Z][a-z]{2,9}( [a-z]{1,9}){0,6}[.!?] ?|\n\n|\n- [A-Z][a-z]{3,9}[.]\n|\n```\n[a-z. ]{0,20}\n```\n){1,16}",
        cap in 0_u64..80,
        end in any::<bool>(),
    ) {
        let place = if end { Cut::End } else { Cut::Middle };
        let (after, shortened) = of_chat(&prompt, &capped(cap, place));
        if !shortened.cut {
            prop_assert_eq!(&after, &prompt);
            prop_assert_eq!(shortened.over, count(&prompt) > cap);
            return Ok(());
        }
        prop_assert!(count(&after) <= cap && after.contains(MARK_IN_TEXT), "{}", after);
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let whole: Vec<String> = crate::policy::trim::sentences::sentences(&prompt)
            .into_iter()
            .map(|one| squeezed(&prompt[one.at]))
            .collect();
        let after = squeezed(&after);
        let mut rest = after.as_str();
        let mut at = 0;
        while !rest.is_empty() {
            if let Some(more) = rest.strip_prefix(MARK_IN_TEXT) {
                rest = more.trim_start();
                continue;
            }
            let next = whole[at..].iter().position(|one| rest.starts_with(one.as_str()));
            prop_assert!(next.is_some(), "{} is no sentence of {:?}", rest, whole);
            at += next.unwrap_or(0);
            rest = rest[whole[at].len()..].trim_start();
            at += 1;
        }
    }
}

const MARK_IN_TEXT: &str = "[…]";
