use proptest::prelude::*;

use super::*;

fn metadata() -> Metadata {
    let mut metadata = Metadata::default();
    metadata.set_object(
        r#"{"lang": "en", "year": 2020, "page": "12", "draft": false, "public": true,
            "source": "b.pdf", "date": "2024-03-01", "tags": ["faq", "public"], "loc": {"page": 3}}"#,
    );
    metadata
}

fn holds(text: &str) -> bool {
    let filter = Filter::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
    filter.holds(&metadata())
}

#[test]
fn comparisons_join_as_they_read() {
    for text in [
        r#"lang == "en""#,
        "lang == 'en'",
        r#"lang == "en" and year >= 2020 and not (source in ["a", "b"])"#,
        "year != 2021",
        "year > 2019.5 and year < 2_021",
        r#"date >= "2024-01-01" and date < "2025""#,
        "page == 12 and page > 9",
        r#"page == "12""#,
        "public",
        "not draft",
        "draft == false",
        r#"draft != "true""#,
        r#""faq" in tags"#,
        r#"lang in ["de", "en"]"#,
        r#"lang not in ["de", "fr"]"#,
        "exists(loc.page) and loc.page == 3",
        "not exists(author)",
        r#"lang == "de" and public or year == 2020"#,
        r#"lang == "en" or lang == "de" and year == 1"#,
        "2020 == year",
        "true",
    ] {
        assert!(holds(text), "{text}");
    }
}

#[test]
fn what_is_missing_or_of_another_kind_compares_false() {
    for text in [
        "author == \"x\"",
        "author != \"x\"",
        "author < 3",
        "author in [\"x\"]",
        "author not in [\"x\"]",
        "\"x\" in author",
        "\"e\" in lang",
        "author",
        "lang",
        "lang > 3",
        "lang == 3",
        "tags == \"faq\"",
        "draft",
        "public < 2",
        "year == \"2020-01\"",
        "(lang == \"de\" or public) and draft",
        "lang == \"en\" and (year == 1 or draft)",
    ] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn a_fault_says_where_it_is_what_was_found_and_what_could_be() {
    for (text, told) in [
        (
            "",
            "column 1: found the end, expected a field's name, a text in quotes, a number, true, false or a list",
        ),
        ("lang = \"en\"", "column 6: found `=`, expected `==`"),
        (
            "lang == ",
            "column 9: found the end, expected a field's name, a text in quotes, a number, true, false or a list",
        ),
        (
            "lang == \"en",
            "column 9: found a text without its end, expected a closing quote",
        ),
        (
            "lang == \"en\" year",
            "column 14: found `year`, expected `and`, `or` or the end",
        ),
        (
            "größe == 1 & x",
            "column 12: found `&`, expected a field's name, a text in quotes, a number, a comparison, and, or, not",
        ),
        (
            "(a == 1",
            "column 8: found the end, expected `and`, `or` or `)`",
        ),
        (
            "a == 1)",
            "column 7: found `)`, expected `and`, `or` or the end",
        ),
        (
            "exists a",
            "column 8: found `a`, expected `(` and a field's name",
        ),
        ("exists(3)", "column 8: found `3`, expected a field's name"),
        ("exists(a", "column 9: found the end, expected `)`"),
        (
            "a in \"b\"",
            "column 6: found `\"b\"`, expected a list, like [\"a\", \"b\"], or a field that is one",
        ),
        (
            "a in [b]",
            "column 7: found `b`, expected a text in quotes, a number, true or false",
        ),
        ("a in [1 2]", "column 9: found `2`, expected `,` or `]`"),
        ("a not 3", "column 7: found `3`, expected `in`"),
        (
            "3",
            "column 2: found the end, expected a comparison: ==, !=, <, <=, >, >=, in",
        ),
        (
            "a == 1.2.3",
            "column 6: found `1.2.3`, expected a number, like 3 or -0.5",
        ),
        (
            "and",
            "column 1: found `and`, expected a field's name, a text in quotes, a number, true, false or a list",
        ),
    ] {
        assert_eq!(Filter::parse(text).unwrap_err().to_string(), told, "{text}");
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Filter::parse(&nested(MAX_DEPTH)).is_ok());
    for text in [
        nested(MAX_DEPTH + 1),
        format!("{}a", "not ".repeat(MAX_DEPTH + 1)),
        "(".repeat(4096),
        format!("a{}", " or a".repeat(2000)),
    ] {
        assert!(Filter::parse(&text).is_err(), "{}", text.len());
    }
    assert!(Filter::parse(&format!("a{}", " or a".repeat(800))).is_ok());
}

proptest! {
    #[test]
    fn any_text_is_an_expression_or_a_fault_in_it(text in r#"(and|or|not|in|exists|[a-c.é]|["'()\[\],=!<>\-\\0-9 ]){0,24}"#) {
        match Filter::parse(&text) {
            Ok(filter) => {
                let _ = filter.holds(&metadata());
            }
            Err(fault) => {
                prop_assert!((1..=text.chars().count() + 1).contains(&fault.column), "{}", fault);
            }
        }
    }
}
