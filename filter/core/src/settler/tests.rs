use sluice_wire::{EntryHead, Order, Record, Remember, Store, StoreVectors, limit};

use super::*;

const SECOND: u64 = 1_000_000_000;

fn settle(id: usize, answer: &[u8]) -> (Settle, Vec<u8>) {
    let entry = EntryHead {
        format: "openai.chat".into(),
        model: "gpt-4o".into(),
        ..EntryHead::default()
    };
    let store = Store {
        key: format!("{id:064x}"),
        ttl_secs: 600,
        entry,
        len: answer.len() as u64,
        ..Store::default()
    };
    let settle = Settle {
        record: Record {
            id: id.to_string(),
            ..Record::default()
        },
        counted: Vec::new(),
        store: (!answer.is_empty()).then_some(store),
        ..Settle::default()
    };
    (settle, answer.to_vec())
}

fn push(settler: &mut Settler, id: usize, answer: &[u8]) {
    let (settle, answer) = settle(id, answer);
    settler.push(settle, answer);
}

/// Ids in the batch, and every stored answer by its declared length.
fn read(batch: &Batch) -> (Vec<usize>, Vec<Vec<u8>>) {
    let frame = Frame::<SettleRequest, _>::decode(&batch.body).unwrap();
    let mut rest = frame.body;
    let mut answers = Vec::new();
    for item in &frame.head.items {
        if let Some(store) = &item.store {
            let (answer, after) = rest.split_at(store.len as usize);
            answers.push(answer.to_vec());
            rest = after;
        }
    }
    assert!(rest.is_empty(), "bytes that belong to no answer");
    (
        frame
            .head
            .items
            .iter()
            .map(|item| item.record.id.parse().unwrap())
            .collect(),
        answers,
    )
}

#[test]
fn what_is_pushed_is_sent_in_order_with_its_answers() {
    let mut settler = Settler::new();
    push(&mut settler, 1, b"one\n");
    push(&mut settler, 2, b"");
    push(&mut settler, 3, b"three");
    let batch = settler.next(0).unwrap();
    assert_eq!(
        read(&batch),
        (vec![1, 2, 3], vec![b"one\n".to_vec(), b"three".to_vec()])
    );
    assert_eq!(settler.next(0), None);
    assert!(!settler.is_idle());
    settler.done(batch.id, true, 0);
    assert!(settler.is_idle());
    assert_eq!(settler.bytes, 0);
}

#[test]
fn vectors_travel_behind_an_answer_and_are_left_out_where_their_length_is_wrong() {
    let with_vectors = |id, answer: &[u8]| {
        let (mut settle, mut bytes) = settle(id, answer);
        settle.vectors = Some(StoreVectors {
            len: 4,
            tokens: vec![1, 2],
            ..StoreVectors::default()
        });
        bytes.extend([7; 2 * (32 + 4)]);
        (settle, bytes)
    };
    let mut settler = Settler::new();
    let (one, bytes) = with_vectors(1, b"one");
    settler.push(one, bytes);
    let (two, bytes) = with_vectors(2, b"");
    settler.push(two, bytes);
    let (three, mut bytes) = with_vectors(3, b"");
    bytes.pop();
    settler.push(three, bytes);
    push(&mut settler, 4, b"four");
    let batch = settler.next(0).unwrap();
    let frame = Frame::<SettleRequest, _>::decode(&batch.body).unwrap();
    let lengths: Vec<u64> = frame.head.items.iter().map(Settle::body_len).collect();
    assert_eq!(lengths, [3 + 72, 72, 0, 4]);
    assert_eq!(frame.body.len(), 3 + 72 + 72 + 4);
    assert!(frame.body.ends_with(b"four"));
}

#[test]
fn a_batch_has_at_most_64_items_and_a_mebibyte() {
    let mut settler = Settler::new();
    for id in 0..100 {
        push(&mut settler, id, b"");
    }
    let first = settler.next(0).unwrap();
    assert_eq!(read(&first).0, (0..64).collect::<Vec<_>>());
    let second = settler.next(0).unwrap();
    assert_eq!(read(&second).0.len(), 36);
    settler.done(first.id, true, 0);
    settler.done(second.id, true, 0);

    push(&mut settler, 1, &vec![b'a'; 700_000]);
    push(&mut settler, 2, &vec![b'b'; 700_000]);
    push(&mut settler, 3, &vec![b'c'; 3_000_000]);
    let first = settler.next(0).unwrap();
    assert_eq!(read(&first).0, [1]);
    let second = settler.next(0).unwrap();
    assert_eq!(read(&second).0, [2]);
    assert_eq!(settler.next(0), None, "two batches at once are enough");
    settler.done(first.id, true, 0);
    assert_eq!(
        read(&settler.next(0).unwrap()).0,
        [3],
        "a large answer goes alone"
    );
}

#[test]
fn a_failed_batch_is_sent_again_in_order_after_a_pause_that_doubles() {
    let mut settler = Settler::new();
    push(&mut settler, 1, b"answer");
    push(&mut settler, 2, b"");
    let mut now = 0;
    for pause in [100_000_000, 200_000_000, 400_000_000] {
        let batch = settler.next(now).unwrap();
        assert_eq!(read(&batch), (vec![1, 2], vec![b"answer".to_vec()]));
        settler.done(batch.id, false, now);
        assert_eq!(settler.next(now + pause - 1), None);
        now += pause;
    }
    let batch = settler.next(now).unwrap();
    settler.done(batch.id, true, now);
    push(&mut settler, 3, b"");
    let batch = settler.next(now).unwrap();
    settler.done(batch.id, false, now);
    assert!(
        settler.next(now + 100_000_000).is_some(),
        "success ends the doubling"
    );
    assert_eq!(settler.dropped(), 0);
}

#[test]
fn a_record_that_always_fails_goes_alone_and_is_given_up_and_counted() {
    let mut settler = Settler::new();
    for id in 0..10 {
        push(&mut settler, id, b"");
    }
    let mut booked = Vec::new();
    let mut now = 0;
    while !settler.is_idle() {
        while let Some(batch) = settler.next(now) {
            let (ids, _) = read(&batch);
            let ok = !ids.contains(&4);
            if ok {
                booked.extend(ids);
            }
            settler.done(batch.id, ok, now);
        }
        now += SECOND;
        assert!(now < 600 * SECOND, "it ends");
    }
    booked.sort_unstable();
    assert_eq!(booked, [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    assert_eq!(settler.dropped(), 1);
    assert_eq!(settler.bytes, 0);
}

#[test]
fn a_sidecar_that_is_gone_for_a_minute_costs_no_record() {
    let mut settler = Settler::new();
    let mut booked = 0;
    let mut now = 0;
    for id in 0..3000 {
        push(&mut settler, id, b"answer");
        now += SECOND / 25;
        while let Some(batch) = settler.next(now) {
            let up = now > 60 * SECOND;
            booked += if up { read(&batch).0.len() } else { 0 };
            settler.done(batch.id, up, now);
        }
    }
    while !settler.is_idle() {
        now += SECOND;
        while let Some(batch) = settler.next(now) {
            booked += read(&batch).0.len();
            settler.done(batch.id, true, now);
        }
    }
    assert_eq!((booked, settler.dropped()), (3000, 0));
}

#[test]
fn past_the_bound_of_records_the_oldest_is_dropped_and_counted() {
    let mut settler = Settler::new();
    for id in 0..MAX_ITEMS + 5 {
        push(&mut settler, id, b"");
    }
    assert_eq!(settler.dropped(), 5);
    assert_eq!(read(&settler.next(0).unwrap()).0[0], 5);
}

#[test]
fn past_the_bound_of_bytes_old_answers_go_before_records() {
    let mut settler = Settler::new();
    for id in 0..20 {
        push(&mut settler, id, &vec![b'x'; 1 << 20]);
    }
    assert!(settler.bytes <= MAX_BYTES);
    assert_eq!(settler.dropped(), 0, "no record is lost");
    assert!(settler.dropped_answers() >= 12);
    let (ids, answers) = read(&settler.next(0).unwrap());
    assert_eq!(ids[0], 0);
    assert!(answers.is_empty(), "the oldest answers went");
}

#[test]
fn texts_that_are_to_be_written_count_as_bytes_and_go_before_records() {
    let mut settler = Settler::new();
    for id in 0..200 {
        let (mut settle, answer) = settle(id, b"");
        settle.sent = Some(Remember {
            state: "kept".to_owned(),
            order: Some(Order {
                text: "x".repeat(limit::ORDER),
                ..Order::default()
            }),
            ..Remember::default()
        });
        settler.push(settle, answer);
    }
    assert!(settler.bytes <= MAX_BYTES);
    assert_eq!((settler.dropped(), settler.dropped_answers()), (0, 0));
    let batch = settler.next(0).unwrap();
    let frame = Frame::<SettleRequest, _>::decode(&batch.body[..]).unwrap();
    let sent = frame.head.items[0].sent.as_ref().unwrap();
    assert_eq!((sent.state.as_str(), &sent.order), ("kept", &None));
    while let Some(batch) = settler.next(0) {
        settler.done(batch.id, true, 0);
    }
    settler.done(batch.id, true, 0);
    while let Some(batch) = settler.next(0) {
        settler.done(batch.id, true, 0);
    }
    assert_eq!(settler.bytes, 0, "what is given up is not counted twice");
}

#[test]
fn an_answer_larger_than_the_queue_is_not_kept_but_its_record_is() {
    let mut settler = Settler::new();
    push(&mut settler, 1, &vec![b'x'; MAX_BYTES + 1]);
    assert_eq!(read(&settler.next(0).unwrap()), (vec![1], vec![]));
    assert_eq!((settler.dropped(), settler.dropped_answers()), (0, 1));
}

#[test]
fn a_batch_that_the_host_forgot_is_sent_again() {
    let mut settler = Settler::new();
    push(&mut settler, 1, b"");
    let lost = settler.next(0).unwrap();
    assert_eq!(settler.next(LOST_NS - 1), None);
    assert_eq!(settler.next(LOST_NS), None, "it pauses first");
    let again = settler.next(LOST_NS + SECOND).unwrap();
    assert_eq!(read(&again).0, [1]);
    settler.done(lost.id, true, LOST_NS + SECOND);
    assert!(
        !settler.is_idle(),
        "a late reply to the lost batch settles nothing"
    );
    settler.done(again.id, true, LOST_NS + SECOND);
    assert!(settler.is_idle());
}

#[test]
fn an_answer_of_another_length_than_declared_is_not_sent() {
    let mut settler = Settler::new();
    let (settle, _) = settle(1, b"four");
    settler.push(settle, b"five5".to_vec());
    push(&mut settler, 2, b"right");
    assert_eq!(
        read(&settler.next(0).unwrap()),
        (vec![1, 2], vec![b"right".to_vec()])
    );
}

#[test]
fn when_a_sidecar_answers_others_a_batch_goes_before_its_pause_is_over_and_costs_no_try() {
    let mut settler = Settler::new();
    push(&mut settler, 1, b"");
    let mut now_ns = SECOND;
    for _ in 0..6 {
        let batch = settler.next(now_ns).unwrap();
        settler.done(batch.id, false, now_ns);
        now_ns = settler.paused_until_ns;
    }
    let before = (settler.waiting[0].tries, settler.failures);
    let batch = settler.next(now_ns).unwrap();
    settler.done(batch.id, false, now_ns);
    let until_ns = settler.paused_until_ns;
    assert!(until_ns > now_ns + 5 * SECOND && settler.next(now_ns).is_none());
    // Once, and not again at once.
    settler.reachable(now_ns);
    let early = settler.next(now_ns).unwrap();
    assert!(settler.next(now_ns).is_none());
    settler.done(early.id, false, now_ns);
    settler.reachable(now_ns);
    assert!(settler.next(now_ns).is_none());
    assert_eq!(settler.paused_until_ns, until_ns);
    let after = (settler.waiting[0].tries, settler.failures);
    assert_eq!(after, (before.0 + 1, before.1 + 1));
    now_ns += SECOND / 4;
    settler.reachable(now_ns);
    let booked = settler.next(now_ns).unwrap();
    settler.done(booked.id, true, now_ns);
    assert!(settler.is_idle());
    push(&mut settler, 2, b"");
    assert!(settler.next(now_ns).is_some(), "the pause is over");
}

#[test]
fn what_is_refused_while_others_are_booked_is_tried_for_as_long_as_if_all_were_refused() {
    let mut settler = Settler::new();
    push(&mut settler, 0, b"");
    let mut now_ns = SECOND;
    let (mut refused, mut id) = (0, 1);
    while settler.dropped() == 0 {
        // Others come all the time, and are booked.
        push(&mut settler, id, b"");
        id += 1;
        while let Some(batch) = settler.next(now_ns) {
            let has_it = read(&batch).0.contains(&0);
            refused += u32::from(has_it);
            settler.done(batch.id, !has_it, now_ns);
        }
        now_ns += SECOND / 20;
    }
    assert_eq!(refused, u32::from(MAX_TRIES));
    assert!(now_ns > 70 * SECOND, "{now_ns}");
}
