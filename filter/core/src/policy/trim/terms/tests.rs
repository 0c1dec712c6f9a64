use std::cell::Cell;
use std::rc::Rc;

use xxhash_rust::xxh3::xxh3_128;

use super::*;

/// Words of `text`, each as the stem of the same word alone.
fn has(text: &str, word: &str) -> bool {
    let word = Terms::of(word);
    assert_eq!(word.terms.len(), 1, "one word");
    Terms::of(text).place(word.terms[0].hash).is_some()
}

fn same(one: &str, other: &str) -> bool {
    Terms::of(one).terms[0].hash == Terms::of(other).terms[0].hash
}

fn kinds(text: &str) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = Terms::of(text).terms.iter().map(|term| term.kind).collect();
    kinds.sort_unstable();
    kinds
}

#[test]
fn forms_of_a_word_are_one_term() {
    for forms in [
        ["bake", "baking", "baked", "bakes"],
        ["plan", "planned", "planning", "plans"],
        ["study", "studies", "studied", "studying"],
        ["box", "boxes", "boxed", "boxing"],
        ["match", "matches", "matched", "matching"],
        ["call", "calls", "calling", "called"],
        ["quick", "quickly", "quickness", "quick"],
        ["move", "movement", "moving", "moved"],
        ["Refund", "refund's", "REFUNDS", "refunded"],
    ] {
        for form in forms {
            assert!(same(forms[0], form), "{} {form}", forms[0]);
        }
    }
}

#[test]
fn words_that_only_look_alike_stay_apart() {
    for (one, other) in [
        ("string", "str"),
        ("bus", "bu"),
        ("red", "r2"),
        ("analysis", "analysi"),
        ("thing", "th2"),
        ("class", "clas"),
    ] {
        assert!(!same(one, other), "{one} {other}");
    }
}

#[test]
fn function_words_are_no_terms_and_pronouns_point_back() {
    let terms = Terms::of("What did they do with it, and wasn't that theirs?");
    assert_eq!(terms.length, 0);
    assert!(terms.points_back);
    assert!(!Terms::of("What is the price of coal?").points_back);
}

#[test]
fn names_and_numbers_are_told_from_words() {
    assert_eq!(kinds("The invoice of Meyer"), [Kind::Word, Kind::Name]);
    assert_eq!(kinds("Invoices. Meyer"), [Kind::Word, Kind::Word]);
    assert_eq!(kinds("NATO kcnq1"), [Kind::Name, Kind::Name]);
    assert_eq!(kinds("1,000 or 2.5"), [Kind::Number, Kind::Number]);
    assert_eq!(
        kinds("coal from Coal"),
        [Kind::Name],
        "a name once is one everywhere"
    );
}

#[test]
fn numbers_are_the_same_however_their_thousands_are_told() {
    assert!(same("1,000,000", "1000000"));
    assert!(!same("2.5", "25"));
    assert!(has("It costs 2.5.", "2.5"));
    assert!(has("in 2023, we", "2023"));
}

#[test]
fn scripts_without_spaces_meet_in_pairs_of_characters() {
    for (text, part) in [
        ("我想退回上周买的鞋子", "退回"),
        ("ขอคืนเงินสำหรับคำสั่งซื้อ", "คืนเงิน"),
        ("先週買った靴を返品したい", "返品"),
        ("지난주에 산 신발을 반품하고", "반품"),
    ] {
        let (whole, part) = (Terms::of(text), Terms::of(part));
        assert!(!part.terms.is_empty());
        for term in &part.terms {
            assert!(whole.place(term.hash).is_some(), "{text}");
        }
    }
    assert!(has("买 茶 吧", "茶"), "alone it is a word");
    assert_eq!(Terms::of("茶ab茶").length, 3);
}

#[test]
fn letters_beyond_ascii_and_accents_are_parts_of_words() {
    assert!(same("ÜBER", "über"));
    assert!(same("МОСКВА", "москва"));
    assert!(same("cafe\u{301}", "cafe"));
    assert!(has("l'eau d’hiver", "hiver"));
}

#[test]
fn a_paste_is_read_at_its_ends() {
    let middle =
        "x".repeat(40) + &" filler".repeat(100_000) + " hidden " + &" filler".repeat(100_000);
    let text = format!("beginning {middle} ending");
    assert!(has(&text, "beginning") && has(&text, "ending"));
    assert!(!has(&text, "hidden"));
    let wide = "é".repeat(2 * END);
    assert_eq!(Terms::of(&wide).terms.len(), 1);
}

#[test]
fn a_text_seen_before_is_not_read_again() {
    let (mut memory, read) = (TermMemory::default(), Cell::new(0));
    let mut get = |raw: &str| {
        memory.get(xxh3_128(raw.as_bytes()), || {
            read.set(read.get() + 1);
            Terms::of(raw)
        })
    };
    let first = get("a question about coal");
    assert!(Rc::ptr_eq(&first, &get("a question about coal")));
    assert_eq!(read.get(), 1);
    get("a question about steel");
    assert_eq!(read.get(), 2);
}

#[test]
fn the_memory_is_bounded_and_keeps_what_is_asked_for_again() {
    let mut memory = TermMemory::default();
    let words = |seed: usize| -> String {
        let words = (0..200).map(|word| format!("w{}x{word} ", seed));
        words.collect()
    };
    let kept = words(0);
    let mut again = 0;
    for seed in 1..5000 {
        let text = words(seed);
        memory.get(key([seed as u128]), || Terms::of(&text));
        memory.get(key([0]), || {
            again += 1;
            Terms::of(&kept)
        });
        assert!(memory.size() <= 2 << 20, "{}", memory.size());
    }
    assert_eq!(again, 1);
    let huge: String = (0..100_000).map(|word| format!("{word} ")).collect();
    let before = memory.size();
    for _ in 0..2 {
        memory.get(key([1, 2]), || Terms::of(&huge));
    }
    assert!(memory.size() <= before.max(1 << 20) + (1 << 20));
}

proptest::proptest! {
    #[test]
    fn any_text_has_terms_in_order_that_add_up(text in "\\PC*") {
        let terms = Terms::of(&text);
        assert!(terms.terms.is_sorted_by(|one, other| one.hash < other.hash));
        let sum: u32 = terms.terms.iter().map(|term| u32::from(term.count)).sum();
        assert_eq!(sum, terms.length);
        assert!(terms.length as usize <= text.len());
    }

    #[test]
    fn case_and_signs_between_words_do_not_matter(words in proptest::collection::vec("[a-z]{3,12}", 1..8)) {
        let hashes = |text: &str| -> Vec<u32> { Terms::of(text).terms.iter().map(|term| term.hash).collect() };
        let plain = hashes(&words.join(" "));
        assert_eq!(plain, hashes(&words.join(" ").to_uppercase()));
        assert_eq!(plain, hashes(&words.join("\n- ")));
        assert_eq!(plain, hashes(&words.join("，")));
    }
}

#[test]
fn every_term_is_found_where_it_is_and_no_other_is() {
    for words in [0, 1, 2, 3, 100, 5_000] {
        let text: String = (0..words).map(|at| format!("w{} w{at} ", at % 7)).collect();
        let terms = Terms::of(&text);
        for (at, term) in terms.terms.iter().enumerate() {
            assert_eq!(terms.place(term.hash), Some(at));
            let other = term.hash ^ 1;
            let place = terms.terms.iter().position(|term| term.hash == other);
            assert_eq!(terms.place(other), place);
        }
    }
    assert_eq!(Terms::default().place(7), None);
}
