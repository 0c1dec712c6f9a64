use super::*;

fn terms(texts: &[&str]) -> Vec<Terms> {
    texts.iter().map(|text| Terms::of(text)).collect()
}

fn scores(question: &str, past: &[&str], similarities: &[Option<f32>]) -> Vec<f32> {
    let terms = terms(past);
    let passages: Vec<Passage<'_>> = terms
        .iter()
        .enumerate()
        .map(|(at, terms)| Passage {
            terms,
            similarity: similarities.get(at).copied().flatten(),
        })
        .collect();
    conversation(&Terms::of(question), &passages)
}

/// Places of the texts, best first.
fn ranking(question: &str, past: &[&str], similarities: &[Option<f32>]) -> Vec<usize> {
    let scores = scores(question, past, similarities);
    let mut places: Vec<usize> = (0..past.len()).collect();
    places.sort_by(|&one, &other| scores[other].total_cmp(&scores[one]));
    places
}

const PAST: [&str; 6] = [
    "My order of shoes has not arrived. / It left our warehouse on Tuesday.",
    "Do you sell umbrellas? / Yes, in three colours.",
    "How do I reset my password? / Use the link below the form.",
    "Is the shop in Leeds open on Sunday? / From ten to four.",
    "Thank you! / You are welcome.",
    "What does shipping to Norway cost? / Nine euros.",
];

#[test]
fn what_shares_rare_words_with_the_question_comes_first() {
    assert_eq!(ranking("I forgot the password again", &PAST, &[])[0], 2);
    assert_eq!(ranking("Which colours of umbrella?", &PAST, &[])[0], 1);
    assert_eq!(ranking("Where is my order?", &PAST, &[])[0], 0);
}

#[test]
fn what_nothing_is_known_about_goes_by_recency() {
    assert_eq!(ranking("Hm?", &["a b c", "d e f", "g h i"], &[]), [2, 1, 0]);
    assert_eq!(ranking("xylophone", &PAST, &[]), [5, 4, 3, 2, 1, 0]);
}

#[test]
fn a_question_that_points_back_is_about_what_was_said_last() {
    let past = [
        "And a toaster of steel? / Two kinds.",
        "Do you have the blue kettle? / Yes, it costs 30 euros.",
        "When do you close today? / At six.",
        "Which toaster is faster? / The small one.",
    ];
    let best_first = ranking("How much is it?", &past, &[]);
    let place = |at| best_first.iter().position(|&it| it == at);
    assert_eq!(best_first[0], 3);
    assert!(
        place(0) < place(1),
        "of toasters, though older: {best_first:?}"
    );
    // A question that names what it means does not lean on it.
    assert_eq!(
        ranking("Does the kettle still cost 30 euros?", &past, &[])[0],
        1
    );
}

#[test]
fn an_exchange_gains_from_the_hit_beside_it_and_less_the_more_is_said_between() {
    let filler = ["alpha beta", "gamma delta", "epsilon zeta", "eta theta"];
    let long = "lorem ipsum dolor ".repeat(60);
    let near = scores(
        "how much coal burns",
        &[filler[0], "coal", filler[1], filler[2]],
        &[],
    );
    assert!(near[1] > near[2] && near[2] > near[3], "{near:?}");
    let far = scores(
        "how much coal burns",
        &[filler[0], "coal", &long, filler[2]],
        &[],
    );
    assert!(far[2] < near[2] && far[3] < near[3], "{far:?}");
}

#[test]
fn meaning_decides_where_words_do_not() {
    let similar = [0.1, 0.0, 0.1, 0.6, 0.1, 0.0].map(Some);
    assert_eq!(ranking("opening hours", &PAST, &similar)[0], 3);
}

#[test]
fn a_text_of_unknown_meaning_is_neither_first_nor_last_for_it() {
    let known = [Some(0.1), Some(0.7), None];
    assert_eq!(ranking("xylophone lessons", &PAST[..3], &known), [1, 2, 0]);
}

#[test]
fn no_similarity_whatever_it_is_makes_a_score_that_is_none() {
    let odd = [f32::NAN, f32::INFINITY, f32::MAX, f32::MIN, -0.0, 2.0].map(Some);
    let scores = scores("Where is my order?", &PAST, &odd);
    assert!(
        scores
            .iter()
            .all(|score| score.is_finite() && score.abs() < 10.0)
    );
    assert_eq!(ranking("Where is my order?", &PAST, &odd).len(), PAST.len());
}

#[test]
fn nothing_at_all_is_ranked_without_complaint() {
    assert_eq!(scores("", &[], &[]), [0.0; 0]);
    assert_eq!(scores("What?", &["", ""], &[]).len(), 2);
    assert!(chunks(&Terms::default(), &[]).is_empty());
}

#[test]
fn a_chunk_without_the_questions_words_gains_from_what_it_has_of_the_best_ones() {
    let texts = terms(&[
        "The valve opens at 3 bar.",
        "Paint dries in two hours.",
        "Pressure above 3 bar trips the alarm.",
    ]);
    let mut passages = texts.iter().map(|terms| Passage {
        terms,
        similarity: None,
    });
    let passages = [(); 3].map(|()| passages.next().unwrap());
    let scores = chunks(&Terms::of("When does the valve open?"), &passages);
    assert!(scores[0] > scores[2] && scores[2] > scores[1], "{scores:?}");
}

proptest::proptest! {
    #[test]
    fn any_past_has_as_many_finite_scores_and_always_the_same(
        question in "\\PC{0,40}",
        past in proptest::collection::vec(("\\PC{0,60}", proptest::option::of(proptest::num::f32::ANY)), 0..12),
    ) {
        let (texts, similarities): (Vec<_>, Vec<_>) = past.iter().map(|(text, it)| (text.as_str(), *it)).unzip();
        let first = scores(&question, &texts, &similarities);
        assert_eq!(first.len(), past.len());
        assert!(first.iter().all(|score| score.is_finite()));
        assert_eq!(first, scores(&question, &texts, &similarities));
    }
}

#[test]
fn what_is_shared_does_not_hang_on_which_of_the_two_is_longer() {
    let long = Terms::of("Sail, mast, rudder, keel, anchor, rope, sail, deck and 40 knots.");
    for short in ["A sail of 40 feet, and rope: rope!", "Bread.", ""] {
        let short = Terms::of(short);
        let of = |question: &Terms, text: &Terms| {
            let mut found = Vec::new();
            shared(question, text, &mut found);
            let hash = |(at, count): (u32, u16)| (question.terms[at as usize].hash, count);
            found.into_iter().map(hash).collect::<Vec<_>>()
        };
        let (there, back) = (of(&long, &short), of(&short, &long));
        let hashes = |found: &[(u32, u16)]| found.iter().map(|one| one.0).collect::<Vec<_>>();
        assert_eq!(hashes(&there), hashes(&back));
        assert!(there.is_sorted());
        for (found, text) in [(there, &short), (back, &long)] {
            for (hash, count) in found {
                assert_eq!(text.terms[text.place(hash).unwrap()].count, count);
            }
        }
    }
}
