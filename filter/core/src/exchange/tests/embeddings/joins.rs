//! Whom a part is asked of: a client that would have had its answer has it, whatever an upstream is
//! like.

use super::*;

#[test]
fn a_worker_asks_for_a_part_once_it_has_seen_a_whole_answer() {
    let mut mesh = mesh(ON);
    mesh.ask(&body(json!(["a", "b"])));
    // Another worker, that finds what this one stored.
    mesh.run.vm = Vm::new(mesh.run.vm.plan.clone(), Tokens::load(&[]));
    let request = body(json!(["a", "c"]));
    let whole = mesh.ask(&request);
    assert_eq!(
        (whole.upstream.as_deref(), whole.cache.as_str()),
        (Some(request.as_str()), "miss")
    );
    assert_eq!(
        mesh.ask(&body(json!(["b", "a"]))).cache,
        "hit",
        "to tell what is known nothing is to be joined"
    );
    assert_eq!(mesh.ask(&body(json!(["b", "d"]))).cache, "partial");
    assert_eq!(
        mesh.ask(r#"{"model":"text-embedding-3-large","input":["a","b"]}"#)
            .cache,
        "miss"
    );
}

#[test]
fn an_upstream_that_gives_every_vector_one_number_fails_no_request() {
    let zero = |body: &str| {
        let mut answer = provide(body);
        for element in answer["data"].as_array_mut().unwrap() {
            element["index"] = json!(0);
        }
        ("200", answer.to_string())
    };
    let mut mesh = mesh(ON);
    for (input, cache) in [
        (json!("a"), "miss"),
        (json!(["a", "b", "c"]), "miss"),
        (json!(["a", "d"]), "miss"),
        (json!(["e"]), "miss"),
        (json!(["a", "f"]), "partial"),
        (json!(["g", "a", "h"]), "miss"),
    ] {
        let told = mesh.ask_of(&body(input.clone()), zero);
        assert_eq!((told.status, told.cache.as_str()), (200, cache), "{input}");
    }
}

#[test]
fn an_upstream_of_several_names_is_soon_asked_for_wholes_alone() {
    let mut mesh = mesh(ON);
    let (mut failed, mut partial) = (0, 0);
    for minute in 0..300 {
        let request = body(json!(["a", format!("b{minute}")]));
        let told = mesh.ask_of(&request, |body| {
            let mut answer = provide(body);
            answer["model"] = json!(["east", "west"][minute % 2]);
            ("200", answer.to_string())
        });
        failed += usize::from(told.status == 502);
        partial += usize::from(told.cache == "partial");
        mesh.run.world.now_ns += 60 * SECOND;
    }
    assert_eq!((failed, partial), (1, 1));
}

#[test]
fn a_whole_answer_of_another_revision_teaches_it_before_a_part_is_asked() {
    let mut mesh = mesh(ON);
    let second = |body: &str| {
        let mut answer = provide(body);
        answer["model"] = json!("text-embedding-3-small-2");
        ("200", answer.to_string())
    };
    mesh.ask(&body(json!(["a", "b"])));
    mesh.ask_of(&body(json!(["c", "d"])), second);
    // As where the sidecar that is asked has only the older ones.
    mesh.newest.0 = "text-embedding-3-small-1".to_owned();
    let told = mesh.ask_of(&body(json!(["a", "e"])), second);
    assert_eq!((told.status, told.cache.as_str()), (200, "miss"));
}

#[test]
fn a_part_without_a_vector_for_one_input_stands_in_the_whole_as_it_was_told() {
    for (base64, none) in [
        (false, json!(null)),
        (true, json!(null)),
        (false, json!([])),
        (true, json!([])),
    ] {
        let mut mesh = mesh(ON);
        mesh.ask(&body(json!(["a", "b"])));
        let mut request = json!({"model": MODEL, "input": ["a", "", "c"]});
        if base64 {
            request["encoding_format"] = json!("base64");
        }
        let lacks = |body: &str| {
            let mut answer = provide(body);
            let at = serde_json::from_str::<Value>(body).unwrap()["input"]
                .as_array()
                .and_then(|list| list.iter().position(|it| it == ""));
            answer["data"][at.unwrap()]["embedding"] = none.clone();
            ("200", answer.to_string())
        };
        let told = mesh.ask_of(&request.to_string(), lacks);
        assert_eq!((told.status, told.cache.as_str()), (200, "partial"));
        let told: Value = serde_json::from_str(&told.body).unwrap();
        let whole: Value = serde_json::from_str(&lacks(&request.to_string()).1).unwrap();
        assert_eq!(told["data"][1], whole["data"][1]);
        assert_eq!(told["data"].as_array().unwrap().len(), 3);
        assert_eq!(mesh.run.vm.vectors.get(), 0);
    }
}

#[test]
fn vectors_of_a_model_with_a_name_beyond_measure_are_not_kept_one_by_one() {
    let mut mesh = mesh(ON);
    let told = mesh.ask_of(&body(json!(["a"])), |body| {
        let mut answer = provide(body);
        answer["model"] = json!("m".repeat(257));
        ("200", answer.to_string())
    });
    assert_eq!((told.status, told.stored), (200, None));
}
