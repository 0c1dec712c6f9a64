use std::collections::BTreeSet;

use super::*;

/// The two questions of each line, and what is before them.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split('\t').collect())
}

const DIFFERENT: &str = include_str!("tests/different.tsv");
const SAME: &str = include_str!("tests/same.tsv");

fn decide(a: &str, b: &str, cosine: f32) -> Verdict {
    judge(&Question::read(a), &Question::read(b), cosine, None)
}

fn hit(a: &str, b: &str, cosine: f32) -> bool {
    matches!(decide(a, b, cosine), Verdict::Probability(one) if one >= DEFAULT_THRESHOLD)
}

fn refusal(a: &str, b: &str) -> Option<Refusal> {
    compare(&Question::read(a), &Question::read(b), None)
}

#[test]
fn no_pair_of_different_questions_is_a_hit_however_near_they_are() {
    let pairs: Vec<_> = rows(DIFFERENT).collect();
    assert!(pairs.len() >= 200);
    let hits: Vec<_> = pairs
        .iter()
        .filter(|row| hit(row[1], row[2], 0.995) || hit(row[2], row[1], 0.995))
        .collect();
    assert!(hits.is_empty(), "{hits:#?}");
}

#[test]
fn case_and_missing_punctuation_make_no_hit_of_different_questions() {
    let bare = |text: &str| text.to_lowercase().replace(['?', '"', '“', '”'], "");
    let hits: Vec<_> = rows(DIFFERENT)
        .filter(|row| hit(&bare(row[1]), &bare(row[2]), 0.995))
        .collect();
    assert!(hits.is_empty(), "{hits:#?}");
}

#[test]
fn most_pairs_of_one_question_are_hits() {
    let pairs: Vec<_> = rows(SAME).collect();
    let missed: Vec<_> = pairs
        .iter()
        .filter(|row| !hit(row[0], row[1], 0.97))
        .collect();
    let hits = pairs.len() - missed.len();
    assert!(
        hits * 100 >= pairs.len() * 80,
        "{hits} of {}: {missed:#?}",
        pairs.len()
    );
}

#[test]
fn the_order_of_the_two_does_not_matter_to_the_guards() {
    for row in rows(DIFFERENT) {
        let (one, other) = (refusal(row[1], row[2]), refusal(row[2], row[1]));
        assert_eq!(
            one.is_some(),
            other.is_some(),
            "{row:?}: {one:?}, {other:?}"
        );
    }
}

#[test]
fn a_refusal_names_what_differs() {
    for (a, b, expected) in [
        ("Is 5 km far?", "Is 6 km far?", Refusal::Number),
        ("Is 5 km far?", "Is 5 miles far?", Refusal::Unit),
        ("Is it open in May?", "Is it open in June?", Refusal::Date),
        ("Why is it red?", "Why isn't it red?", Refusal::Negation),
        (
            "Is it legal in Ohio?",
            "Is it legal in Iowa?",
            Refusal::Name,
        ),
        (
            "How do I lock it?",
            "How do I unlock it?",
            Refusal::Opposite,
        ),
        (
            "Is it done before lunch?",
            "Is it done after lunch?",
            Refusal::Relation,
        ),
        ("How does rain form?", "Why does rain form?", Refusal::Ask),
        (
            "Where can I eat?",
            "Where and when can I eat?",
            Refusal::Ask,
        ),
        (
            "What is rust?",
            "What is rust and what is it like?",
            Refusal::Ask,
        ),
        ("Is it like this?", "Is it like that?", Refusal::Relation),
        ("What is the law?", "What was the law?", Refusal::Tense),
        ("Does he like rain?", "Does she like rain?", Refusal::Person),
        (
            "Is it the road to town?",
            "Is it the road from town?",
            Refusal::Opposite,
        ),
        (
            "Can a dog bite a cat?",
            "Can a cat bite a dog?",
            Refusal::Order,
        ),
        (
            "How do I cook rice?",
            "How do I cook pasta?",
            Refusal::Content,
        ),
        ("What does `a b` do?", "What does `a c` do?", Refusal::Code),
        ("Who said \"yes\"?", "Who said \"no\"?", Refusal::Quoted),
        ("怎么取消订单？", "怎么修改订单？", Refusal::Language),
    ] {
        assert_eq!(refusal(a, b), Some(expected), "{a} {b}");
    }
}

#[test]
fn numbers_are_compared_by_value() {
    for (a, b) in [
        ("Is it 1,000 miles away?", "Is it one thousand miles away?"),
        ("Is it 25 pages long?", "Is it twenty-five pages long?"),
        ("Was it in World War II?", "Was it in World War 2?"),
        ("Who won the 3rd race?", "Who won the third race?"),
        ("Is it 5km long?", "Is it 5 kilometres long?"),
        ("Is $20 enough?", "Is 20 dollars enough?"),
        ("Is 2 million enough?", "Is two million enough?"),
    ] {
        assert_ne!(refusal(a, b), Some(Refusal::Number), "{a} {b}");
        assert_ne!(refusal(a, b), Some(Refusal::Unit), "{a} {b}");
    }
    // Versions are no decimal fractions.
    assert_eq!(
        refusal("Is it in 3.1?", "Is it in 3.10?"),
        Some(Refusal::Number)
    );
}

#[test]
fn one_is_a_number_only_where_it_counts() {
    assert_eq!(
        refusal("How can one lose weight?", "How can I lose weight?"),
        None
    );
    let counted = refusal("How do I merge one file?", "How do I merge two files?");
    assert_eq!(counted, Some(Refusal::Number));
}

#[test]
fn what_is_not_understood_must_be_the_same_text() {
    assert!(hit("怎么取消订单？", "怎么取消订单", 0.9));
    assert!(hit("Wie kündige ich das?", "wie kündige ich das", 0.9));
    assert!(!hit("Wie kündige ich das?", "Wie kündige ich dies?", 0.999));
    assert_eq!(
        Question::read("Как отменить заказ?").reading(),
        Reading::Verbatim
    );
    assert_eq!(
        Question::read("reset password").reading(),
        Reading::Verbatim
    );
}

#[test]
fn a_text_too_long_to_be_read_is_never_the_same() {
    let long = "why is it so? ".repeat(MAX_BYTES / 10);
    assert_eq!(Question::read(&long).reading(), Reading::TooLong);
    assert_eq!(refusal(&long, &long), Some(Refusal::TooLong));
    let many = format!("why is {} red?", "it or ".repeat(60));
    assert_eq!(refusal(&many, &many), Some(Refusal::TooLong));
}

#[test]
fn questions_read_by_other_rules_are_not_compared() {
    let now = Question::read("Why is the sky blue?");
    let mut before = now.clone();
    before.rules = RULES - 1;
    assert_eq!(compare(&before, &now, None), Some(Refusal::Rules));
}

#[test]
fn a_question_survives_being_stored_and_is_about_as_long_as_its_text() {
    for row in rows(DIFFERENT) {
        let question = Question::read(row[1]);
        let stored = serde_json::to_string(&question).unwrap();
        assert_eq!(serde_json::from_str::<Question>(&stored).unwrap(), question);
        assert!(question.text.len() <= row[1].len() + 32);
    }
}

#[test]
fn every_refusal_has_a_name_of_its_own() {
    let names: BTreeSet<_> = Refusal::ALL.iter().map(|one| one.name()).collect();
    assert_eq!(names.len(), Refusal::ALL.len());
}

#[test]
fn the_nearer_and_the_more_alike_the_more_probable() {
    let probability = |b: &str, cosine: f32| match decide("How do I fix a flat tire?", b, cosine) {
        Verdict::Probability(probability) => probability,
        Verdict::Refused(refusal) => panic!("{b}: {refusal:?}"),
    };
    let equal = probability("how do i fix a flat tire", 0.99);
    let near = probability("How can I fix a flat tire?", 0.97);
    let far = probability("How can I fix a flat tire?", 0.8);
    let pointing = probability("How can I fix every flat tire?", 0.97);
    assert!(equal > near && near > far && near > pointing);
    assert!(equal < 1.0 && far > 0.0);
}

#[test]
fn a_misspelt_word_is_known_by_the_usual_one() {
    let words = Vocabulary::new(["causal", "casual", "remove", "ink", "stain"]);
    let compare = |a: &str, b: &str| compare(&Question::read(a), &Question::read(b), Some(&words));
    assert_eq!(
        compare("How do I remove ink?", "How do I remvoe ink?"),
        None
    );
    let two_words = compare("What is a causal link?", "What is a casual link?");
    assert_eq!(two_words, Some(Refusal::Content));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_and_is_the_same_as_itself(text in "\\PC{0,200}") {
        let question = Question::read(&text);
        proptest::prop_assert_eq!(compare(&question, &question, None), None);
        proptest::prop_assert!(question.text.len() <= 3 * text.len() + 64);
    }

    #[test]
    fn another_number_is_never_a_hit(a in 0_u32..100_000, b in 0_u32..100_000, row in 0_usize..62) {
        proptest::prop_assume!(a != b);
        let question = rows(SAME).nth(row).unwrap()[0].to_string();
        proptest::prop_assume!(Question::read(&question).reading() == Reading::English);
        let with = |number: u32| format!("{} {number}?", question.trim_end_matches('?'));
        proptest::prop_assert!(!hit(&with(a), &with(b), 1.0));
    }
}
