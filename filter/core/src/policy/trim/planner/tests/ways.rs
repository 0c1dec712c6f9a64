//! Which way is taken, and what is remembered of it.

use proptest::prelude::*;

use super::*;

/// A conversation of exchanges of 400 tokens behind a front of 1,500: `turns` of them, the last
/// still without an answer.
fn conversation(turns: u64) -> Vec<Item> {
    let mut items = vec![Item::plain(1500, 999)];
    for turn in 1..=turns {
        items.push(Item::plain(100, turn * 10));
        if turn < turns {
            items.push(Item::plain(300, turn * 10 + 1));
        }
    }
    items
}

/// Keeps the front and the last `turns` turns.
fn last(items: &[Item], turns: usize) -> Vec<bool> {
    let first = items.len().saturating_sub(2 * turns - 1);
    (0..items.len()).map(|at| at == 0 || at >= first).collect()
}

const HALF: Price = Price {
    input: Usd(1000),
    cached_input: Usd(500),
    cache_write: Usd(1000),
    output: Usd(4000),
};

/// Asks at a turn, with the last two turns as the fresh selection.
fn ask<'a>(items: &'a [Item], anew: &'a [Anew<'a>], last: Option<&'a Sent>) -> Ask<'a> {
    Ask {
        items,
        turn: items.len() - 1,
        turns: u32::try_from(items.len() / 2).unwrap(),
        price: HALF,
        prefix: AUTOMATIC,
        anew,
        limit: None,
        marks: false,
        last,
        going: None,
        now_ms: 1_000_000 + 60_000 * items.len() as u64,
        margin_milli: 0,
    }
}

/// Plans so many turns with the last `kept` of them as the fresh selection.
fn run(turns: u64, kept: usize, price: Price) -> Vec<Decision> {
    let mut sent = None;
    (1..=turns)
        .map(|turn| {
            let items = conversation(turn);
            let keep = last(&items, kept);
            let anew = [Anew {
                keep: &keep,
                extra: 0,
            }];
            let decision = plan(&Ask {
                price,
                ..ask(&items, &anew, sent.as_ref())
            });
            sent = Some(decision.sent.clone());
            decision
        })
        .collect()
}

#[test]
fn a_conversation_keeps_its_front_for_several_turns_between_two_cuts() {
    let ways: Vec<Why> = run(30, 4, price(1000, 250, 1000))
        .iter()
        .map(|one| one.why)
        .collect();
    let cuts = ways.iter().filter(|why| **why == Why::Anew).count();
    let extended = ways.iter().filter(|why| **why == Why::Extended).count();
    assert!(cuts >= 2 && extended >= 2 * cuts, "{ways:?}");
}

#[test]
fn a_cut_that_would_cost_more_than_the_conversation_has_saved_is_not_made() {
    // At a tenth of the price the 2,600 tokens that are held cost less than 500 new ones.
    let early = run(4, 2, price(1000, 100, 1000));
    assert!(
        early.iter().all(|decision| decision.why == Why::Whole),
        "{early:?}"
    );
    let anew = early[3].candidates.iter().find(|one| one.why == Why::Anew);
    let anew = anew.unwrap();
    assert!(anew.saves < Usd::ZERO && !anew.payable, "{anew:?}");
}

#[test]
fn after_a_pause_in_which_everything_was_forgotten_a_cut_is_free() {
    let before = run(4, 2, price(1000, 100, 1000));
    let items = conversation(5);
    let keep = last(&items, 2);
    let anew = [Anew {
        keep: &keep,
        extra: 0,
    }];
    let mut ask = ask(&items, &anew, Some(&before[3].sent));
    ask.price = price(1000, 100, 1000);
    assert_eq!(plan(&ask).why, Why::Whole);
    ask.now_ms += ask.prefix.longest_ms + 1;
    let decision = plan(&ask);
    assert_eq!((decision.why, decision.anew), (Why::Anew, Some(0)));
    assert_eq!(decision.tokens, 1500 + 500);
}

#[test]
fn what_is_needed_again_comes_back_or_it_is_said_that_it_does_not() {
    let before = run(10, 2, HALF);
    let last_sent = &before[9].sent;
    assert!(!last_sent.dropped.is_empty());
    let mut items = conversation(11);
    let dropped = last_sent.dropped[0].0 as usize;
    items[dropped].needed = true;
    let decision = plan(&ask(&items, &[], Some(last_sent)));
    assert!(decision.keep[dropped]);
    assert_eq!(decision.unmet, None);
    let poor = Sent {
        balance: Usd::ZERO,
        ..last_sent.clone()
    };
    let decision = plan(&Ask {
        price: price(1000, 100, 1000),
        ..ask(&items, &[], Some(&poor))
    });
    assert_eq!(decision.why, Why::Extended);
    assert_eq!(decision.unmet, Some(Unmet::Needed));
}

#[test]
fn a_client_that_asks_its_last_question_anew_has_its_front_still() {
    let before = run(10, 2, HALF);
    let mut items = conversation(10);
    let end = items.len() - 1;
    items[end] = Item::plain(120, 7777);
    let decision = plan(&ask(&items, &[], Some(&before[9].sent)));
    assert_eq!(decision.why, Why::Extended);
    assert_eq!(decision.unmet, None);
    assert_eq!(decision.sent.dropped, before[9].sent.dropped);
}

#[test]
fn of_a_history_that_is_another_nothing_is_presumed() {
    let before = run(10, 2, HALF);
    let items: Vec<Item> = (0..19).map(|at| Item::plain(200, 5000 + at)).collect();
    let decision = plan(&ask(&items, &[], Some(&before[9].sent)));
    assert_eq!(decision.why, Why::Whole);
    assert!(decision.sent.balance <= before[9].sent.balance);
    assert_eq!(decision.sent.dropped, []);
}

#[test]
fn a_limit_comes_before_the_price() {
    let items = conversation(10);
    let keep = last(&items, 2);
    let anew = [Anew {
        keep: &keep,
        extra: 0,
    }];
    let free = |limit| Ask {
        price: price(1000, 0, 1000),
        limit,
        ..ask(&items, &anew, None)
    };
    assert_eq!(
        plan(&free(None)).why,
        Why::Whole,
        "what is held costs nothing"
    );
    assert_eq!(plan(&free(Some(2500))).why, Why::Anew);
}

#[test]
fn our_marks_are_set_once_the_conversation_has_saved_for_them_and_never_beside_the_clients() {
    let marked = |turns, marks, client: bool| {
        let mut sent = None;
        let mut all = Vec::new();
        for turn in 1..=turns {
            let mut items = conversation(turn);
            items[0].mark = client.then_some(Mark::Short);
            let keep = last(&items, 2);
            let anew = [Anew {
                keep: &keep,
                extra: 0,
            }];
            let decision = plan(&Ask {
                price: price(1000, 100, 1250),
                prefix: MARKED,
                marks,
                ..ask(&items, &anew, sent.as_ref())
            });
            sent = Some(decision.sent.clone());
            all.push(decision);
        }
        all
    };
    let ours = marked(12, true, false);
    assert_eq!(ours[0].marks, [0_usize; 0], "nothing is saved yet");
    let set: Vec<&Decision> = ours.iter().filter(|one| !one.marks.is_empty()).collect();
    assert!(set.len() >= 6, "{}", set.len());
    for decision in set {
        assert!(decision.marks.len() <= 4);
        assert_eq!(decision.marks.last(), Some(&(decision.keep.len() - 1)));
        assert!(decision.marks.iter().all(|at| decision.keep[*at]));
    }
    for decision in marked(12, false, false)
        .iter()
        .chain(&marked(12, true, true))
    {
        assert_eq!(decision.marks, [0_usize; 0]);
    }
}

#[test]
fn what_is_remembered_fits_its_kilobyte_and_reads_back() {
    let end = End {
        items: u32::MAX,
        client: u64::MAX,
        sent: u64::MAX,
    };
    let sent = Sent {
        at_ms: u64::MAX,
        ends: vec![end; 1 + MAX_TURNS],
        dropped: vec![(4_000_000, 4_000_001); MAX_RANGES],
        edited_from: u32::MAX,
        extra: u64::MAX,
        marks: vec![u32::MAX; MAX_MARKS],
        own: false,
        balance: Usd(i64::MIN),
        pauses: u32::MAX,
        short_pauses: u32::MAX,
    };
    let text = serde_json::to_string(&sent).unwrap();
    assert!(text.len() <= sluice_wire::limit::STATE, "{}", text.len());
    assert_eq!(serde_json::from_str::<Sent>(&text).unwrap(), sent);
}

#[test]
fn a_selection_in_too_many_pieces_is_not_sent() {
    let items = conversation(60);
    let keep: Vec<bool> = (0..items.len())
        .map(|at| at % 3 != 1 || at + 5 > items.len())
        .collect();
    let anew = [Anew {
        keep: &keep,
        extra: 0,
    }];
    let decision = plan(&ask(&items, &anew, None));
    assert_eq!(decision.why, Why::Whole);
    let anew = decision.candidates.iter().find(|one| one.why == Why::Anew);
    assert!(!anew.unwrap().payable);
}

#[test]
fn the_ledger_learns_from_what_was_read_whether_the_rest_would_have_been() {
    let nothing = Nothing {
        tokens: 4000,
        held: 3840,
        marked: 0,
        sent_held: 1408,
        odds_milli: 1000,
    };
    let usage = |cached| Usage {
        prompt: 1510,
        cached,
        ..Usage::default()
    };
    let prompt = nothing.prompt(1500, &usage(1408));
    assert_eq!((prompt.tokens, prompt.cached), (4010, 3840));
    assert_eq!(nothing.prompt(1500, &usage(0)).cached, 0);
}

proptest! {
    /// Whatever is remembered and asked: a decision about every item, and no panic.
    #[test]
    fn any_state_and_any_request_make_a_decision(
        tokens in proptest::collection::vec(any::<u64>(), 0..12),
        needed in any::<u16>(),
        ends in proptest::collection::vec(any::<(u32, u64, u64)>(), 0..4),
        dropped in proptest::collection::vec(any::<(u32, u32)>(), 0..4),
        marks in proptest::collection::vec(any::<u32>(), 0..6),
        (turn, turns, edited_from, extra) in any::<(usize, u32, u32, u64)>(),
        (own, ours, balance, at_ms, now_ms) in any::<(bool, bool, i64, u64, u64)>(),
        (input, cached, margin_milli) in (0..1_000_000_000_i64, 0..1_000_000_000_i64, 0..2000_u64),
        kind in 0..3_usize,
    ) {
        let items: Vec<Item> = tokens
            .iter()
            .enumerate()
            .map(|(at, tokens)| Item {
                needed: needed & (1 << at) != 0,
                sent_tokens: tokens.wrapping_mul(3),
                mark: (at % 3 == kind).then_some(Mark::Hour),
                ..Item::plain(*tokens, at as u64)
            })
            .collect();
        let sent = Sent {
            at_ms,
            ends: ends.into_iter().map(End::from).collect(),
            dropped,
            edited_from,
            extra,
            marks,
            own,
            balance: Usd(balance),
            pauses: turns,
            short_pauses: turns,
        };
        let keep = vec![false; items.len()];
        let anew = [Anew { keep: &keep, extra }, Anew { keep: &[true], extra: 0 }];
        let cache = [PrefixCache::None, PrefixCache::Automatic, PrefixCache::Marked][kind];
        let decision = plan(&Ask {
            items: &items,
            turn,
            turns,
            price: price(input, cached, input),
            prefix: Prefix { cache, ..AUTOMATIC },
            anew: &anew,
            limit: Some(now_ms),
            marks: ours,
            last: Some(&sent),
            going: None,
            now_ms,
            margin_milli,
        });
        prop_assert_eq!(decision.keep.len(), items.len());
        prop_assert!(decision.marks.len() <= MAX_MARKS);
        prop_assert!(serde_json::to_string(&decision.sent).unwrap().len() <= sluice_wire::limit::STATE);
    }
}
