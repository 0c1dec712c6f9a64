//! Each kind of marker, in the prompts of the libraries that make it.

use super::*;
use crate::formats::AnthropicMessages;

#[test]
fn anthropics_documents_lose_those_that_are_not_asked_about() {
    let prompt = "<documents>\n<document index=\"1\">\n<source>annual_report.pdf</source>\n<document_content>\nRevenue rose.\n</document_content>\n</document>\n<document index=\"2\">\n<source>warranty.txt</source>\n<document_content>\nThe warranty lasts two years.\n</document_content>\n</document>\n<document index=\"3\">\n<source>faq.txt</source>\n<document_content>\nWe ship to Europe.\n</document_content>\n</document>\n</documents>\n\nHow long is the warranty?";
    let documents = Marker::Tag(Tag {
        name: "document".into(),
        inside: Some("documents".into()),
        text: Some("document_content".into()),
    });
    assert_eq!(
        chunks(prompt, vec![documents.clone()]),
        [
            "Revenue rose.",
            "The warranty lasts two years.",
            "We ship to Europe."
        ]
    );
    assert_eq!(
        after(prompt, &top(1, vec![documents.clone()])),
        "<documents>\n<document index=\"2\">\n<source>warranty.txt</source>\n<document_content>\nThe warranty lasts two years.\n</document_content>\n</document>\n</documents>\n\nHow long is the warranty?"
    );
    let filter = Filter::parse(r#"source != "faq.txt" and index >= 2"#).unwrap();
    let policy = Policy {
        filter: Some(filter),
        ..top(3, vec![documents.clone()])
    };
    assert!(
        !after(prompt, &policy).contains("faq.txt") && !after(prompt, &policy).contains("annual")
    );
    // As part of a content that has others.
    let body = serde_json::json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [
        {"type": "text", "text": prompt.split("\n\n").next().unwrap()},
        {"type": "image", "source": {}},
        {"type": "text", "text": "How long is the warranty?"}]}]})
    .to_string();
    let trimmed = trimmed(&AnthropicMessages, &body, &top(1, vec![documents]));
    assert!(
        trimmed.contains("two years") && !trimmed.contains("Revenue"),
        "{trimmed}"
    );
    assert!(trimmed.contains(r#""type":"image""#), "{trimmed}");
}

#[test]
fn langchains_stuffed_documents_are_the_pieces_between_two_lines() {
    let prompt = "Use the following pieces of context to answer the question at the end. If you don't know the answer, just say that you don't know, don't try to make up an answer.\n\nWe ship to Europe.\n\nThe warranty lasts two years.\n\nRevenue rose.\n\nQuestion: How long is the warranty?\nHelpful Answer:";
    let section = Marker::Section(Section {
        after: "Use the following pieces of context".into(),
        before: "Question:".into(),
        split: split("\n\n", false),
    });
    assert_eq!(chunks(prompt, vec![section.clone()]).len(), 3);
    assert_eq!(
        after(prompt, &top(1, vec![section])),
        "Use the following pieces of context to answer the question at the end. If you don't know the answer, just say that you don't know, don't try to make up an answer.\n\nThe warranty lasts two years.\n\nQuestion: How long is the warranty?\nHelpful Answer:"
    );
}

#[test]
fn llamaindexs_nodes_keep_their_metadata_with_them() {
    let fence = "---------------------";
    let prompt = format!(
        "Context information is below.\n{fence}\npage_label: 3\nfile_path: /a.pdf\n\nWe ship to Europe.\n\npage_label: 7\nfile_path: /b.pdf\n\nThe warranty lasts two years.\n{fence}\nGiven the context information and not prior knowledge, answer the query.\nQuery: How long is the warranty?\nAnswer: "
    );
    let (sign, signs) = Fence::line(fence).unwrap();
    let marker = Marker::Fence(Fence {
        sign,
        signs,
        label: "Context information is below".into(),
        split: Some(split("\n\n", true)),
    });
    assert_eq!(
        chunks(&prompt, vec![marker.clone()]),
        ["We ship to Europe.", "The warranty lasts two years."]
    );
    let expected = prompt.replace(
        "page_label: 3\nfile_path: /a.pdf\n\nWe ship to Europe.\n\n",
        "",
    );
    assert_eq!(after(&prompt, &top(1, vec![marker.clone()])), expected);
    let filter = Filter::parse("page_label < 5").unwrap();
    let policy = Policy {
        filter: Some(filter),
        ..top(2, vec![marker])
    };
    let expected = prompt.replace(
        "\n\npage_label: 7\nfile_path: /b.pdf\n\nThe warranty lasts two years.",
        "",
    );
    assert_eq!(after(&prompt, &policy), expected);
}

#[test]
fn numbered_sources_keep_their_numbers() {
    let prompt = "Answer with citations.\n\nSources:\n[1] We ship to Europe.\n[2] The warranty lasts\n  two years.\n\nBatteries are not covered.\n[3] Revenue rose, see [1].\n\nHow long is the warranty?";
    let list = |before: Option<&str>| {
        Marker::List(List {
            after: "Sources:".into(),
            before: before.map(str::to_owned),
            number: List::number("[{n}]").unwrap(),
        })
    };
    assert_eq!(
        chunks(prompt, vec![list(None)]),
        [
            "We ship to Europe.",
            "The warranty lasts\n  two years.\n\nBatteries are not covered.",
            "Revenue rose, see [1]."
        ]
    );
    assert_eq!(
        after(prompt, &top(1, vec![list(None)])),
        "Answer with citations.\n\nSources:\n[2] The warranty lasts\n  two years.\n\nBatteries are not covered.\n\nHow long is the warranty?"
    );
    assert_eq!(
        after(prompt, &top(1, vec![list(Some("Question:"))])),
        prompt,
        "an end that is not there"
    );
    let prompt = prompt.replace("How long", "Question: How long");
    assert!(!after(&prompt, &top(1, vec![list(Some("Question:"))])).contains("[3]"));
}

#[test]
fn a_numbering_that_leaves_a_doubt_is_left_alone() {
    let list = |number: &str| {
        let number = List::number(number).unwrap();
        Marker::List(List {
            after: "Context:".into(),
            before: Some("Question:".into()),
            number,
        })
    };
    for text in [
        "Context:\n1. a\n1. inner\n2. inner\n2. b\nQuestion: b?",
        "Context:\n1. a\n3. b\nQuestion: b?",
        "Context:\nSome text\n1. a\n2. b\nQuestion: b?",
        "Context:\n1. a\n2. b\n",
        "Context:\n1. a\nContext:\n2. b\nQuestion: b?",
    ] {
        assert!(chunks(text, vec![list("{n}.")]).is_empty(), "{text}");
    }
    let text = "Context:\n\n1. 1.5 million\n1.5 of it\n   1. inner\n2. b\nQuestion: b?";
    assert_eq!(
        chunks(text, vec![list("{n}.")]),
        ["1.5 million\n1.5 of it\n   1. inner", "b"]
    );
    let text = "Context:\nSource 1:\na\n\nSource 2:\nb\n------\nQuestion: b?";
    assert_eq!(chunks(text, vec![list("Source {n}:")]), ["a", "b\n------"]);
    let text = "Context:\nDocument [1](Title: A) a\nDocument [2](Title: B) b\n\nQuestion: b?";
    assert_eq!(
        chunks(text, vec![list("Document [{n}]")]),
        ["(Title: A) a", "(Title: B) b"]
    );
}

#[test]
fn the_cookbooks_articles_go_with_their_fences_and_labels() {
    let prompt = "Use the below articles on the 2022 Winter Olympics to answer the subsequent question.\n\nWikipedia article section:\n\"\"\"\nCurling is played on ice.\n\"\"\"\n\nWikipedia article section:\n\"\"\"\nSweden won gold in the men's curling tournament.\n\"\"\"\n\nQuestion: Which athletes won the gold medal in curling tournament?";
    let (sign, signs) = Fence::line("\"\"\"").unwrap();
    let articles = Marker::Fence(Fence {
        sign,
        signs,
        label: "Wikipedia article section".into(),
        split: None,
    });
    assert_eq!(
        after(prompt, &top(1, vec![articles])),
        "Use the below articles on the 2022 Winter Olympics to answer the subsequent question.\n\nWikipedia article section:\n\"\"\"\nSweden won gold in the men's curling tournament.\n\"\"\"\n\nQuestion: Which athletes won the gold medal in curling tournament?"
    );
}

#[test]
fn fences_are_told_by_the_label_on_them_and_code_is_not_context() {
    let prompt = "```context\nWe ship to Europe.\n```\n```rust\nfn main() {}\n```\n````Context 2\nThe warranty:\n```\ntwo years\n```\n````\nHow long is the warranty?";
    let (sign, signs) = Fence::line("```").unwrap();
    let marker = Marker::Fence(Fence {
        sign,
        signs,
        label: "context".into(),
        split: None,
    });
    assert_eq!(
        chunks(prompt, vec![marker.clone()]),
        ["We ship to Europe.", "The warranty:\n```\ntwo years\n```"]
    );
    assert_eq!(
        after(prompt, &top(1, vec![marker.clone()])),
        prompt.replace("```context\nWe ship to Europe.\n```\n", "")
    );
    assert!(
        chunks(&prompt.replace("````\nHow", "How"), vec![marker]).is_empty(),
        "a fence that is not closed"
    );
    assert_eq!(Fence::line("=="), None);
    assert_eq!(Fence::line("-=-"), None);
    assert_eq!(Fence::line("aaa"), None);
}

#[test]
fn an_array_of_objects_stays_an_array() {
    let array = || Marker::Json(Array { after: None });
    let prompt = r#"Answer from the search results.
{"results": [
  {"page_content": "We ship to \"Europe\".", "metadata": {"source": "a"}},
  {"page_content": "The warranty lasts two years.", "metadata": {"source": "b"}},
  {"page_content": "Revenue rose.", "metadata": {"source": "c"}}
]}
How long is the warranty? Choose one of ["one", "two"]."#;
    assert_eq!(
        chunks(prompt, vec![array()]),
        [
            "We ship to \"Europe\".",
            "The warranty lasts two years.",
            "Revenue rose."
        ]
    );
    assert_eq!(
        after(prompt, &top(1, vec![array()])),
        r#"Answer from the search results.
{"results": [
  {"page_content": "The warranty lasts two years.", "metadata": {"source": "b"}}
]}
How long is the warranty? Choose one of ["one", "two"]."#
    );
    let policy = Policy {
        filter: Some(Filter::parse("source == 'c'").unwrap()),
        ..top(3, vec![array()])
    };
    assert!(after(prompt, &policy).contains("[\n  {\"page_content\": \"Revenue rose.\""));
    let policy = Policy {
        filter: Some(Filter::parse("source == 'x'").unwrap()),
        ..top(3, vec![array()])
    };
    assert!(after(prompt, &policy).contains("{\"results\": [\n  \n]}"));
}

#[test]
fn strings_are_chunks_only_below_a_label() {
    let labelled = Marker::Json(Array {
        after: Some("Context:".into()),
    });
    let prompt = "Choose one of [\"one\", \"two\"].\nContext:\n[\"We ship.\", \"The warranty is \\u00e9ternal.\"]\nHow long is the warranty?";
    assert!(chunks(prompt, vec![Marker::Json(Array { after: None })]).is_empty());
    assert_eq!(
        chunks(prompt, vec![labelled.clone()]),
        ["We ship.", "The warranty is éternal."]
    );
    assert_eq!(
        after(prompt, &top(1, vec![labelled])),
        prompt.replace("\"We ship.\", ", "")
    );
}

#[test]
fn the_system_prompts_chunks_are_ranked_by_the_last_question() {
    let body = serde_json::json!({"model": "m", "messages": [
        {"role": "system", "content": "Use only:\n<doc>We ship.</doc>\n<doc>The warranty is long.</doc>"},
        {"role": "user", "content": "What about shipping?"},
        {"role": "assistant", "content": "<doc>mine</doc><doc>own</doc>"},
        {"role": "user", "content": "And the warranty?"},
    ]})
    .to_string();
    let body = trimmed(&OpenAiChat, &body, &top(1, vec![tag("doc")]));
    assert!(
        body.contains(r"Use only:\n<doc>The warranty is long.</doc>"),
        "{body}"
    );
    assert!(
        body.contains("<doc>mine</doc><doc>own</doc>"),
        "an answer is no context"
    );
}

#[test]
fn a_message_of_the_past_is_cut_by_its_own_question_or_as_it_was() {
    let docs = "<doc>We ship by sea.</doc>\n<doc>The warranty is long.</doc>\n<doc>Nothing.</doc>";
    let body = serde_json::json!({"model": "m", "messages": [
        {"role": "user", "content": format!("{docs}\nWhat about the warranty?")},
        {"role": "assistant", "content": "Long."},
        {"role": "user", "content": docs},
        {"role": "user", "content": "How do they ship things by sea?"},
    ]})
    .to_string();
    let request = OpenAiChat.parse(&body).unwrap();
    let policy = top(1, vec![tag("doc")]);
    let found = Found::of(&request, Some(&policy)).unwrap();
    let mut judge = Words::default();
    let chosen = found.choose(&policy, &mut judge, &[]);
    assert_eq!(
        judge.asked,
        [
            ("What about the warranty?".to_owned(), Rank::Mix, false),
            (
                "How do they ship things by sea?".to_owned(),
                Rank::Mix,
                true
            ),
        ]
    );
    let kept: Vec<_> = chosen
        .selections
        .iter()
        .map(|selection| selection.kept.clone())
        .collect();
    assert_eq!(kept, [[1], [0]]);
    let mut earlier = chosen.selections;
    earlier[0].kept = vec![2];
    earlier[1].kept = vec![2];
    let again = found.choose(&policy, &mut judge, &earlier);
    let kept: Vec<_> = again
        .selections
        .iter()
        .map(|selection| selection.kept.clone())
        .collect();
    assert_eq!(kept, [[2], [0]], "what is current is chosen anew");
    earlier[0].kept = vec![3];
    assert_eq!(
        found.choose(&policy, &mut judge, &earlier).selections[0].kept,
        [1]
    );
}

#[test]
fn duplicates_go_whatever_else_stays() {
    let long = "The warranty covers manufacturing faults for a period of two years from the date of purchase.";
    let prompt = format!(
        "<doc>{long}</doc>\n<doc>We ship.</doc>\n<doc>{}</doc>\nHow long?",
        long.to_uppercase()
    );
    let policy = Policy {
        duplicates: Some(0.9),
        markers: vec![tag("doc")],
        ..Policy::default()
    };
    assert_eq!(
        after(&prompt, &policy),
        format!("<doc>{long}</doc>\n<doc>We ship.</doc>\nHow long?")
    );
}

#[test]
fn chunks_fit_the_token_limit_and_the_best_stays_even_where_it_does_not() {
    let prompt = "<doc>warranty warranty one two three four</doc>\n<doc>warranty five</doc>\n<doc>six</doc>\nHow long is the warranty?";
    let kept = |tokens: u64| {
        after(
            prompt,
            &Policy {
                tokens: Some(tokens),
                markers: vec![tag("doc")],
                ..Policy::default()
            },
        )
    };
    assert_eq!(kept(9), prompt);
    assert!(kept(8).contains("four") && kept(8).contains("five") && !kept(8).contains("six"));
    assert!(kept(6).contains("four") && !kept(6).contains("five"));
    // The best is passed over for two that fit.
    assert!(!kept(3).contains("four") && kept(3).contains("five") && kept(3).contains("six"));
    assert_eq!(
        kept(0),
        "<doc>warranty warranty one two three four</doc>\nHow long is the warranty?"
    );
}

#[test]
fn given_scores_rank_and_have_a_floor_and_a_mix_uses_both() {
    let prompt = "<doc score=\"0.9\">We ship.</doc>\n<doc score=\"0.2\">The warranty is long.</doc>\n<doc>No score.</doc>\nHow long is the warranty?";
    let policy = |rank: Rank, k: usize, min_score: Option<f64>| Policy {
        rank,
        min_score,
        ..top(k, vec![tag("doc")])
    };
    assert!(
        after(prompt, &policy(Rank::Given, 1, None))
            .starts_with("<doc score=\"0.9\">We ship.</doc>\nHow")
    );
    assert!(after(prompt, &policy(Rank::Bm25, 1, None)).starts_with("<doc score=\"0.2\">"));
    let floored = after(prompt, &policy(Rank::Given, 3, Some(0.5)));
    assert!(
        floored.contains("We ship")
            && floored.contains("No score")
            && !floored.contains("long.</doc>")
    );
    let mixed = |prompt: &str| after(prompt, &policy(Rank::Mix, 1, None));
    assert!(
        mixed(prompt).starts_with("<doc score=\"0.2\">"),
        "words alone where a score is missing"
    );
    let all = prompt.replace("<doc>No score.", "<doc score=\"0.8\">A warranty, how long?");
    assert!(
        mixed(&all).starts_with("<doc score=\"0.8\">"),
        "the first by words, the second by score"
    );
    // Where embeddings are not there, words rank, and the floor, on another scale, does not hold.
    let embedded = after(prompt, &policy(Rank::Embeddings, 1, Some(5.0)));
    assert!(embedded.starts_with("<doc score=\"0.2\">"), "{embedded}");
    // Without any given score words rank.
    let bare = prompt
        .replace(" score=\"0.9\"", "")
        .replace(" score=\"0.2\"", "");
    assert!(after(&bare, &policy(Rank::Given, 1, None)).starts_with("<doc>The warranty"));
}

#[test]
fn the_best_stand_first_where_that_is_asked_for_and_something_goes() {
    let prompt = "[\n  {\"text\": \"one é\"}, {\"text\": \"warranty é\"},\n  {\"text\": \"long warranty\"}\n]\nHow long is the warranty?";
    let policy = |k| Policy {
        order: Order::Rank,
        ..top(k, vec![Marker::Json(Array { after: None })])
    };
    assert_eq!(
        after(prompt, &policy(2)),
        "[\n  {\"text\": \"long warranty\"},\n  {\"text\": \"warranty é\"}\n]\nHow long is the warranty?"
    );
    assert_eq!(
        after(prompt, &policy(3)),
        prompt,
        "a new order alone saves nothing"
    );
}

#[test]
fn sentences_go_inside_of_chunks_where_that_is_asked_for() {
    let long = "The printer came out early. The warranty lasts two years. Batteries are excluded. The box is blue. It weighs a lot.";
    let prompt = format!("<doc>\n{long}\n</doc>\n<doc>We ship.</doc>\nHow long is the warranty?");
    let policy = Policy {
        extra: true,
        markers: vec![tag("doc")],
        ..Policy::default()
    };
    assert_eq!(
        after(&prompt, &policy),
        prompt.replacen(" The box is blue. It weighs a lot.", "", 1)
    );
    let off = Policy {
        extra: false,
        ..policy.clone()
    };
    assert_eq!(after(&prompt, &off), prompt);
    let json = format!("[{{\"text\": \"{long}\"}}]\nHow long is the warranty?");
    let policy = Policy {
        markers: vec![Marker::Json(Array { after: None })],
        ..policy
    };
    assert_eq!(after(&json, &policy), json, "never inside of JSON");
}

#[test]
fn of_marks_that_overlap_the_earlier_in_the_config_counts() {
    let prompt = "<doc>[{\"text\": \"a\"}, {\"text\": \"b\"}]</doc> x <doc>c</doc>";
    let array = || Marker::Json(Array { after: None });
    assert_eq!(chunks(prompt, vec![tag("doc"), array()]).len(), 2);
    assert_eq!(chunks(prompt, vec![array(), tag("doc")]), ["a", "b", "c"]);
}

#[test]
fn escapes_and_layout_of_the_body_stay_byte_for_byte() {
    let body = r#"{ "messages" : [ {"content":"\u00e9\/<doc>one</doc>\n<doc>warranty \ud83d\ude00</doc>\n\ud800 warranty\u003f how long it is","role":"user"} ] , "model":"m"}"#;
    assert_eq!(
        trimmed(&OpenAiChat, body, &top(1, vec![tag("doc")])),
        r#"{ "messages" : [ {"content":"\u00e9\/<doc>warranty \ud83d\ude00</doc>\n\ud800 warranty\u003f how long it is","role":"user"} ] , "model":"m"}"#
    );
}
