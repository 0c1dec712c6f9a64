use serde_json::{Value, json};

use super::*;
use crate::formats;

/// `of`'s exchanges as their first and last item, and whether they stay.
fn told(format: &str, body: &Value, stay: Stay) -> Option<Vec<(usize, usize, bool)>> {
    let format = formats::by_name(format).unwrap();
    let body = body.to_string();
    let request = format.parse(&body).unwrap();
    let turns = Turns::of(&request, format, stay)?;
    let told = |one: &Exchange| (one.items.start, one.items.end - 1, one.must);
    Some(turns.exchanges.iter().map(told).collect())
}

fn chat(messages: Value) -> Option<Vec<(usize, usize, bool)>> {
    told(
        "openai.chat",
        &json!({"model": "m", "messages": messages}),
        Stay::default(),
    )
}

fn responses(input: Value) -> Option<Vec<(usize, usize, bool)>> {
    told(
        "openai.responses",
        &json!({"model": "m", "input": input}),
        Stay::default(),
    )
}

fn anthropic(messages: Value) -> Option<Vec<(usize, usize, bool)>> {
    let body = json!({"model": "m", "max_tokens": 9, "messages": messages});
    told("anthropic.messages", &body, Stay::default())
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn says(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

fn calls(ids: &[&str]) -> Value {
    let call = |id: &&str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let calls: Vec<_> = ids.iter().map(call).collect();
    json!({"role": "assistant", "content": null, "tool_calls": calls})
}

fn result(id: &str) -> Value {
    json!({"role": "tool", "tool_call_id": id, "content": "r"})
}

#[test]
fn an_exchange_is_a_users_turn_and_all_that_came_of_it() {
    let system = json!({"role": "system", "content": "s"});
    assert_eq!(
        chat(json!([
            system,
            user("1"),
            says("a"),
            user("2"),
            calls(&["x", "y"]),
            result("y"),
            result("x"),
            says("b"),
            system,
            user("3a"),
            user("3b"),
            says("c"),
            says("d"),
            user("4"),
            says("prefill")
        ])),
        Some(vec![
            (1, 2, false),
            (3, 8, false),
            (9, 12, false),
            (13, 14, true)
        ])
    );
}

#[test]
fn without_a_users_message_there_is_no_exchange() {
    assert_eq!(chat(json!([])), None);
    assert_eq!(
        chat(json!([{"role": "system", "content": "s"}, says("a")])),
        None
    );
    assert_eq!(chat(json!([1, "x", {"role": "stranger"}])), None);
    assert_eq!(responses(json!("one question")), None);
    let embeddings = json!({"model": "m", "input": ["a"]});
    assert_eq!(
        told("openai.embeddings", &embeddings, Stay::default()),
        None
    );
    let completions = json!({"model": "m", "prompt": "a"});
    assert_eq!(
        told("openai.completions", &completions, Stay::default()),
        None
    );
}

#[test]
fn what_comes_before_the_first_user_is_in_no_exchange() {
    assert_eq!(
        chat(json!([says("Hello!"), user("1"), says("a"), user("2")])),
        Some(vec![(1, 2, false), (3, 3, true)])
    );
}

#[test]
fn the_first_and_the_last_stay_as_asked() {
    let messages: Vec<_> = (0..6).flat_map(|_| [user("q"), says("a")]).collect();
    let body = json!({"model": "m", "messages": messages});
    let must = |first, last| {
        let told = told("openai.chat", &body, Stay { first, last }).unwrap();
        told.iter().map(|one| one.2).collect::<Vec<_>>()
    };
    assert_eq!(must(0, 0), [false, false, false, false, false, true]);
    assert_eq!(must(1, 2), [true, false, false, true, true, true]);
    assert_eq!(must(usize::MAX, usize::MAX), [true; 6]);
}

#[test]
fn a_pinned_message_keeps_its_exchange_and_only_true_pins() {
    let pinned = |pin: Value| json!({"role": "user", "content": "q", "sluice_pin": pin});
    assert_eq!(
        chat(json!([
            pinned(json!(true)),
            says("a"),
            pinned(json!("true")),
            says("b"),
            user("c")
        ])),
        Some(vec![(0, 1, true), (2, 3, false), (4, 4, true)])
    );
}

#[test]
fn a_result_after_the_next_user_turn_joins_it_to_its_call() {
    assert_eq!(
        chat(json!([
            user("1"),
            says("a"),
            user("2"),
            calls(&["x"]),
            user("3"),
            says("wait"),
            user("4"),
            result("x"),
            says("b"),
            user("5")
        ])),
        Some(vec![(0, 1, false), (2, 8, false), (9, 9, true)])
    );
}

#[test]
fn a_call_without_result_and_a_result_without_call_stay() {
    assert_eq!(
        chat(json!([
            user("1"),
            calls(&["x"]),
            user("2"),
            result("y"),
            says("b"),
            user("3"),
            says("c"),
            user("4")
        ])),
        Some(vec![
            (0, 1, true),
            (2, 4, true),
            (5, 6, false),
            (7, 7, true)
        ])
    );
}

#[test]
fn ids_that_are_used_again_in_each_turn_join_nothing() {
    let turn = || [user("q"), calls(&["call_0"]), result("call_0"), says("a")];
    let messages: Vec<_> = (0..3).flat_map(|_| turn()).collect();
    assert_eq!(
        chat(json!(messages)),
        Some(vec![(0, 3, false), (4, 7, false), (8, 11, true)])
    );
}

#[test]
fn what_the_current_turn_names_by_id_stays() {
    let turn = |id| [user("q"), calls(&[id]), result(id), says("a")];
    let mut messages = turn("call_first").to_vec();
    messages.extend(turn("call_second"));
    messages.push(user("What did\ncall_first, I mean, tell?"));
    assert_eq!(
        chat(json!(messages)),
        Some(vec![(0, 3, true), (4, 7, false), (8, 8, true)])
    );
}

#[test]
fn functions_of_old_are_paired_by_name() {
    assert_eq!(
        chat(json!([
            user("1"), {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}},
            user("no, wait"), {"role": "function", "name": "f", "content": "r"}, says("a"),
            user("2")
        ])),
        Some(vec![(0, 4, false), (5, 5, true)])
    );
}

#[test]
fn what_is_not_known_stays_with_its_exchange() {
    for odd in [
        json!({"role": "stranger", "content": "x"}),
        json!({"content": "x"}),
        json!(7),
        json!("text"),
        json!({"role": "assistant", "content": [{"type": "hologram"}]}),
        json!({"role": "tool", "content": "no id"}),
        json!({"role": "assistant", "tool_calls": [{"type": "function"}]}),
    ] {
        assert_eq!(
            chat(json!([
                user("1"),
                odd,
                says("a"),
                user("2"),
                says("b"),
                user("3")
            ])),
            Some(vec![(0, 2, true), (3, 4, false), (5, 5, true)]),
            "{odd}"
        );
    }
}

#[test]
fn examples_stay_and_are_not_counted_among_the_first() {
    let named = |role: &str, name: &str| json!({"role": role, "name": name, "content": "x"});
    let body = json!({"model": "m", "messages": [
        named("user", "example_user"), named("assistant", "example_assistant"),
        user("1"), says("a"), user("2"), says("b"), user("3")
    ]});
    assert_eq!(
        told("openai.chat", &body, Stay { first: 1, last: 0 }),
        Some(vec![
            (0, 1, true),
            (2, 3, true),
            (4, 5, false),
            (6, 6, true)
        ])
    );
}

fn tool_use(ids: &[&str]) -> Value {
    let call = |id: &&str| json!({"type": "tool_use", "id": id, "name": "f", "input": {}});
    json!({"role": "assistant", "content": ids.iter().map(call).collect::<Vec<_>>()})
}

fn tool_result(ids: &[&str], text: Option<&str>) -> Value {
    let result = |id: &&str| json!({"type": "tool_result", "tool_use_id": id, "content": "r"});
    let mut parts: Vec<_> = ids.iter().map(result).collect();
    parts.extend(text.map(|text| json!({"type": "text", "text": text})));
    json!({"role": "user", "content": parts})
}

#[test]
fn a_user_of_anthropic_who_hands_results_over_and_speaks_goes_on_in_the_same_exchange() {
    assert_eq!(
        anthropic(json!([
            user("1"),
            tool_use(&["x", "y"]),
            tool_result(&["x", "y"], Some("and?")),
            says("a"),
            user("2"),
            tool_use(&["z"]),
            tool_result(&["z"], None),
            says("b"),
            user("3"),
            tool_use(&["w"]),
            tool_result(&["w"], Some("now?")),
            says("prefill")
        ])),
        Some(vec![(0, 3, false), (4, 7, false), (8, 11, true)])
    );
}

#[test]
fn thinking_goes_with_its_message_and_a_compaction_stays() {
    let thinks = json!({"role": "assistant", "content": [
        {"type": "thinking", "thinking": "h", "signature": "s"}, {"type": "text", "text": "a"}]});
    let compacts = json!({"role": "assistant", "content": [
        {"type": "compaction", "content": "all so far"}, {"type": "text", "text": "a"}]});
    assert_eq!(
        anthropic(json!([user("1"), thinks, user("2"), compacts, user("3")])),
        Some(vec![(0, 1, false), (2, 3, true), (4, 4, true)])
    );
}

#[test]
fn a_hosted_tools_call_has_its_result_in_the_same_message() {
    let searches = json!({"role": "assistant", "content": [
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
        {"type": "text", "text": "a"}]});
    assert_eq!(
        anthropic(json!([user("1"), searches, user("2")])),
        Some(vec![(0, 1, false), (2, 2, true)])
    );
}

fn call(id: &str) -> Value {
    json!({"type": "function_call", "id": format!("fc_{id}"), "call_id": id, "name": "f", "arguments": "{}"})
}

fn output(id: &str) -> Value {
    json!({"type": "function_call_output", "call_id": id, "output": "r"})
}

fn reasoning(id: &str) -> Value {
    json!({"type": "reasoning", "id": id, "summary": []})
}

fn reference(id: &str) -> Value {
    json!({"type": "item_reference", "id": id})
}

#[test]
fn items_of_responses_go_with_their_turn() {
    assert_eq!(
        responses(json!([
            {"role": "developer", "content": "d"},
            user("1"), reasoning("rs_1"), call("x"), call("y"), output("x"), output("y"), reasoning("rs_2"), says("a"),
            user("2"), {"type": "web_search_call", "id": "ws_1", "status": "completed"}, says("b"),
            user("3")
        ])),
        Some(vec![(1, 8, false), (9, 11, false), (12, 12, true)])
    );
}

#[test]
fn reasoning_is_never_parted_from_what_follows_it() {
    assert_eq!(
        responses(json!([
            user("1"),
            says("a"),
            user("2"),
            reasoning("rs_1"),
            user("3"),
            says("c"),
            user("4")
        ])),
        Some(vec![(0, 1, false), (2, 5, false), (6, 6, true)])
    );
}

#[test]
fn references_go_with_their_turn_and_with_what_they_name() {
    let named = json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "a", "annotations": []}]});
    assert_eq!(
        responses(json!([
            user("1"), reference("rs_1"), reference("fc_1"), output("x"), {"id": "msg_0"},
            user("2"), named,
            user("3"), says("c"),
            user("4"), reference("msg_1"), says("d"),
            user("5")
        ])),
        Some(vec![(0, 4, false), (5, 11, false), (12, 12, true)])
    );
    // The current turn's reference keeps what it names.
    assert_eq!(
        responses(json!([
            user("1"),
            named,
            user("2"),
            says("b"),
            user("3"),
            reference("msg_1")
        ])),
        Some(vec![(0, 5, true)])
    );
}

#[test]
fn an_output_whose_call_only_upstream_has_stays() {
    let body = json!({"model": "m", "previous_response_id": "resp_1", "input": [
        output("x"), user("1"), says("a"), user("2"), output("y"), says("b"), user("3")
    ]});
    assert_eq!(
        told("openai.responses", &body, Stay::default()),
        Some(vec![(1, 2, false), (3, 5, true), (6, 6, true)])
    );
}

#[test]
fn what_stands_for_more_than_itself_stays_alone() {
    let compaction = json!({"type": "compaction", "id": "cmp_1", "encrypted_content": "e"});
    let tools = json!({"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": []});
    let body = json!({"model": "m", "input": [user("1"), tools, compaction, says("a"), user("2")]});
    let format = formats::by_name("openai.responses").unwrap();
    let body = body.to_string();
    let request = format.parse(&body).unwrap();
    let turns = Turns::of(&request, format, Stay::default()).unwrap();
    assert!(!turns.exchanges[0].must);
    assert_eq!(turns.going(&turns.exchanges[0]).count(), 2);
}

#[test]
fn an_approval_and_what_it_approves_are_one() {
    assert_eq!(
        responses(json!([
            user("1"), {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "n", "arguments": "{}"},
            user("yes"), {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": true}, says("a"),
            user("2")
        ])),
        Some(vec![(0, 4, false), (5, 5, true)])
    );
}

#[test]
fn many_calls_that_the_current_turn_names_take_no_square_of_them() {
    let id = |at: usize| format!("call_{at:08}");
    let turn = |at: usize| [user("q"), calls(&[&id(at)]), result(&id(at))];
    let mut messages: Vec<_> = (0..20_000).flat_map(turn).collect();
    let all: Vec<_> = (0..20_000).map(id).collect();
    messages.push(user(&all.join(" ")));
    let told = chat(json!(messages)).unwrap();
    assert_eq!(told.len(), 20_001);
    assert!(told.iter().all(|one| one.2));
}

#[test]
fn a_call_told_again_in_the_current_turn_is_its_own() {
    let call = calls(&["call_first"]);
    assert_eq!(
        chat(json!([
            user("1"),
            call,
            result("call_first"),
            user("2"),
            call,
            result("call_first")
        ])),
        Some(vec![(0, 2, false), (3, 5, true)])
    );
}
