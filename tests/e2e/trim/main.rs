//! Prompts go out shorter, through real Envoy: what must stay stays byte for byte, nothing gets dearer,
//! and what upstream refuses for it goes out as it came.
#![expect(
    clippy::unwrap_used,
    reason = "what a test's helper cannot do fails the test"
)]

mod chunks;
mod dollars;
mod dry;
mod history;
mod levers;
mod limits;
mod retry;
mod summaries;
mod templates;

use serde_json::{Value, json};
use sluice_tests::client::{Answer, Client};
use sluice_tests::conversations::{Conversation, Marks};
use sluice_tests::provider::Seen;
use sluice_tests::requests::{Api, CHAT, MESSAGES, RESPONSES};
use sluice_tests::stack::{Setup, Stack};
use sluice_wire::{Record, Usd};

/// The APIs whose requests hold a conversation.
const TALKING: [Api; 3] = [CHAT, RESPONSES, MESSAGES];

/// Tokens of the past that are to stay: a few exchanges of the support conversations.
const KEPT: u64 = 900;

/// A config that leaves out what has nothing to do with the current turn.
fn relevant() -> Value {
    json!({"mode": "on", "history": {"keep": "relevant", "tokens": KEPT}})
}

fn trimming(trim: &Value) -> Setup {
    Setup::with(json!({"trim": trim}))
}

/// The request of a turn of a support conversation, with tool calls. Its answer has one token, so
/// that it costs the same whatever was asked.
fn turn(api: Api, conversation: &Conversation, turn: usize) -> Value {
    match api.name {
        "anthropic.messages" => {
            let (system, messages) = conversation.anthropic(turn, (0, Marks::None));
            json!({"model": "claude-sonnet-4-5", "max_tokens": 1, "system": system, "messages": messages})
        }
        "openai.responses" => json!({
            "model": "gpt-4o",
            "max_output_tokens": 16,
            "input": conversation.openai(turn, 0).iter().flat_map(items).collect::<Value>(),
        }),
        _ => json!({"model": "gpt-4o", "max_tokens": 1, "messages": conversation.openai(turn, 0)}),
    }
}

/// A chat message as input items of the Responses API.
fn items(message: &Value) -> Vec<Value> {
    if let Some(calls) = message["tool_calls"].as_array() {
        let call = |call: &Value| {
            json!({
                "type": "function_call",
                "call_id": call["id"],
                "name": call["function"]["name"],
                "arguments": call["function"]["arguments"],
            })
        };
        return calls.iter().map(call).collect();
    }
    if message["role"] == "tool" {
        let id = &message["tool_call_id"];
        return vec![
            json!({"type": "function_call_output", "call_id": id, "output": message["content"]}),
        ];
    }
    vec![message.clone()]
}

/// The messages or input items of a request.
fn messages(body: &Value) -> &[Value] {
    let list = body["messages"].as_array().or(body["input"].as_array());
    list.map_or(&[], Vec::as_slice)
}

/// What is said in a conversation of chat messages, some about one thing and then some about others.
fn chat(said: &[(&str, &str)], question: &str) -> Value {
    let mut messages =
        vec![json!({"role": "system", "content": "You are the help desk of a shop."})];
    for (user, assistant) in said {
        messages.push(json!({"role": "user", "content": user}));
        messages.push(json!({"role": "assistant", "content": assistant}));
    }
    messages.push(json!({"role": "user", "content": question}));
    json!({"model": "gpt-4o", "max_tokens": 1, "messages": messages})
}

/// So many exchanges of about 60 tokens each, all about things of their own.
fn chatter(exchanges: usize) -> Value {
    let texts: Vec<(String, String)> = (0..exchanges).map(exchange).collect();
    let said: Vec<(&str, &str)> = texts
        .iter()
        .map(|(user, assistant)| (user.as_str(), assistant.as_str()))
        .collect();
    chat(&said, "When does the shop open on Sundays?")
}

fn exchange(number: usize) -> (String, String) {
    (
        format!("Parcel {number} went to depot {number} and has not come back since last Monday."),
        format!(
            "Parcel {number} is at depot {number}, shelf {number}. The courier of that depot will take \
             it along tomorrow morning, and it should be at your door between ten and twelve o'clock."
        ),
    )
}

async fn post(client: &Client, api: Api, body: &Value) -> Answer {
    let answer = client.post(api.path, body).await.unwrap();
    assert_eq!(answer.status, 200, "{}: {}", api.name, answer.text());
    answer
}

/// What an answer says of its prompt.
fn left_out(answer: &Answer) -> u64 {
    let told = answer.header("x-sluice-tokens-trimmed");
    told.unwrap().parse().unwrap()
}

/// The request that upstream was sent last.
fn sent(stack: &Stack) -> Seen {
    stack.provider().last_request().unwrap()
}

/// The ledger, once it holds so many records; its figures are the provider's and the metrics', what
/// trimming saved is what it says that it left out and lost, and no VM has crashed.
async fn booked(stack: &Stack, count: usize) -> Vec<Record> {
    let records = stack.settled(count).await.unwrap();
    for record in &records {
        let net = record.trim.map_or(Usd::ZERO, |trim| trim.net());
        assert_eq!(net, record.saved.trim, "{record:?}");
    }
    assert_eq!(stack.differences().await.unwrap(), [""; 0]);
    stack.check_no_trap().await.unwrap();
    records
}
