//! Requests taken apart, answers put together.

use super::*;
use crate::formats::{Format, OpenAiEmbeddings};

fn digests(body: &str) -> Option<Vec<[u8; 32]>> {
    let request = OpenAiEmbeddings.parse(body).unwrap();
    let batch = OpenAiEmbeddings.batch(&request)?;
    Some(batch.inputs.iter().map(|input| input.digest).collect())
}

#[test]
fn a_text_counts_by_its_characters_and_tokens_by_their_numbers() {
    let one = digests(r#"{"model":"m","input":"a\/\u00e9\n"}"#).unwrap();
    assert_eq!(
        digests(r#"{"model":"m","input":["a/é\u000a"]}"#).unwrap(),
        one
    );
    let ids = digests(r#"{"model":"m","input":[ 1, 2 ]}"#).unwrap();
    assert_eq!(digests(r#"{"model":"m","input":[[1,2]]}"#).unwrap(), ids);
    let all = digests(r#"{"model":"m","input":["12","1",[12],[1],[1,2],[2,1]]}"#).unwrap();
    let different: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), 6);
}

#[test]
fn how_much_an_input_is_is_counted_in_tokens_or_bytes() {
    let request = r#"{"model":"m","input":["\u00e9b",[7,8,9]]}"#;
    let request = OpenAiEmbeddings.parse(request).unwrap();
    let batch = OpenAiEmbeddings.batch(&request).unwrap();
    let weights: Vec<_> = batch.inputs.iter().map(|input| input.weight).collect();
    assert_eq!(weights, [3, 3]);
}

const ANSWER: &str = "{\n  \"object\": \"list\",\n  \"data\": [\n    {\"embedding\": [0.10000000149011612], \"index\": 1, \"object\": \"embedding\", \"x\": 1},\n    {\"index\": 0, \"embedding\": [2]}\n  ],\n  \"model\": \"m\",\n  \"usage\": {\"prompt_tokens\": 4, \"total_tokens\": 5, \"kind\": \"x\"}\n}";

fn form(base64: bool) -> Form {
    Form {
        base64,
        dtype: Dtype::F32,
    }
}

#[test]
fn vectors_are_in_the_order_of_their_numbers_and_everything_else_stays() {
    let list = List::read(ANSWER.as_bytes(), 2).unwrap();
    assert_eq!(list.model().as_deref(), Some("m"));
    let (vectors, each) = list.vectors(Dtype::F32).unwrap();
    let expected: Vec<u8> = [2.0_f32, 0.1]
        .iter()
        .flat_map(|it| it.to_le_bytes())
        .collect();
    assert_eq!((vectors, each), (expected, 4));
    let kept = 1.5_f32.to_le_bytes();
    let pieces = [
        Piece::Told(1),
        Piece::Kept(&kept),
        Piece::Told(0),
        Piece::Told(1),
    ];
    let joined = list.joined(&pieces, form(false), 3).unwrap();
    assert_eq!(
        joined,
        "{\n  \"object\": \"list\",\n  \"data\": [{\"embedding\": [0.10000000149011612], \"index\": 0, \"object\": \"embedding\", \"x\": 1},{\"object\":\"embedding\",\"index\":1,\"embedding\":[1.5]},{\"index\": 2, \"embedding\": [2]},{\"embedding\": [0.10000000149011612], \"index\": 3, \"object\": \"embedding\", \"x\": 1}],\n  \"model\": \"m\",\n  \"usage\": {\"prompt_tokens\": 7, \"total_tokens\": 8, \"kind\": \"x\"}\n}"
    );
    // An upstream that tells numbers though it was asked for base64.
    let coded = list.joined(&pieces[..2], form(true), 0).unwrap();
    assert!(coded.contains(r#""embedding": "zczMPQ==""#), "{coded}");
    assert!(coded.contains(r#""embedding":"AADAPw==""#), "{coded}");
}

#[test]
fn an_answer_without_numbers_is_in_order_and_one_without_usage_gets_none() {
    let answer = br#"{"data":[{"embedding":[1]},{"embedding":[2]}]}"#;
    let list = List::read(answer, 2).unwrap();
    let pieces = [Piece::Told(1), Piece::Told(0)];
    assert_eq!(
        list.joined(&pieces, form(false), 9).unwrap(),
        r#"{"data":[{"embedding":[2]},{"embedding":[1]}]}"#
    );
}

#[test]
fn what_is_no_list_of_so_many_is_told_apart() {
    let read = |answer: &str| List::read(answer.as_bytes(), 2).map(|_| ()).unwrap_err();
    for answer in [
        "",
        "[]",
        "{}",
        r#"{"data":{}}"#,
        r#"{"data":[{"index":0},{"index":1}]}"#,
        r#"{"data":[1,2]}"#,
        r#"{"data":[],"error":{"message":"m"}}"#,
        "{\"data\":[]",
    ] {
        assert_eq!(read(answer), NoList::Unreadable, "{answer}");
    }
    let one = r#"{"index":0,"embedding":[1]}"#;
    for answer in [
        r#"{"data":[]}"#.to_owned(),
        format!(r#"{{"data":[{one}]}}"#),
        format!(r#"{{"data":[{one},{one}]}}"#),
        format!(r#"{{"data":[{one},{{"index":2,"embedding":[1]}}]}}"#),
        format!(r#"{{"data":[{one},{{"index":"1","embedding":[1]}}]}}"#),
        format!(r#"{{"data":[{one},{{"embedding":[1]}},{{"embedding":[1]}}]}}"#),
    ] {
        assert_eq!(read(&answer), NoList::Count, "{answer}");
    }
    let uneven = r#"{"data":[{"embedding":[1]},{"embedding":[1,2]}]}"#;
    assert_eq!(
        List::read(uneven.as_bytes(), 2)
            .unwrap()
            .vectors(Dtype::F32),
        None
    );
}
