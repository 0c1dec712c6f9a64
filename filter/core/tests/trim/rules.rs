//! What each API asks of a conversation, beyond its schema.
//!
//! OpenAI: "An assistant message with 'tool_calls' must be followed by tool messages responding to
//! each 'tool_call_id'", and "messages with role 'tool' must be a response to a preceding message
//! with 'tool_calls'"; Responses: "No tool output found for function call …", "No tool call found
//! for function call output …", "Item 'rs_…' of type 'reasoning' was provided without its required
//! following item". Anthropic: "the first message must use the user role"; "`tool_use` ids were
//! found without `tool_result` blocks immediately after", "unexpected `tool_use_id` found in
//! `tool_result` blocks"; results come before text in their message; equal roles in a row are taken
//! for one turn.

use std::collections::BTreeSet;

use serde_json::Value;

/// Everything that is wrong with a conversation, each by what is wrong and with what.
pub(crate) fn faults(format: &str, items: &[Value]) -> Vec<String> {
    match format {
        "openai.chat" => chat(items),
        "openai.responses" => responses(items),
        _ => anthropic(items),
    }
}

/// How often two of one role speak in a row, where that is looked at.
pub(crate) fn in_a_row(items: &[Value]) -> usize {
    let roles = items.iter().filter_map(|item| item["role"].as_str());
    let roles: Vec<_> = roles
        .filter(|role| matches!(*role, "user" | "assistant"))
        .collect();
    let both = roles.windows(2);
    both.filter(|both| both[0] == both[1]).count()
}

fn ids<'v>(list: &'v Value, kind: &'v str, key: &'v str) -> impl Iterator<Item = String> + 'v {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter()
        .filter(move |one| kind.is_empty() || one["type"] == kind)
        .filter_map(move |one| Some(one[key].as_str()?.to_owned()))
}

fn chat(items: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut open = BTreeSet::new();
    for item in items {
        let role = item["role"].as_str().unwrap_or("");
        if matches!(role, "tool" | "function") {
            let key = if role == "tool" {
                "tool_call_id"
            } else {
                "name"
            };
            let id = item[key].as_str().unwrap_or("").to_owned();
            if !open.remove(&id) {
                faults.push(format!("result without call {id}"));
            }
            continue;
        }
        faults.extend(open.iter().map(|id| format!("call without result {id}")));
        open = ids(&item["tool_calls"], "", "id").collect();
        open.extend(item["function_call"]["name"].as_str().map(str::to_owned));
    }
    faults.extend(open.iter().map(|id| format!("call without result {id}")));
    faults
}

fn anthropic(items: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    if items.first().is_none_or(|item| item["role"] != "user") {
        faults.push("the first message is not the user's".to_owned());
    }
    let mut open: BTreeSet<String> = BTreeSet::new();
    for item in items {
        let content = &item["content"];
        for id in ids(content, "tool_result", "tool_use_id") {
            if !open.remove(&id) {
                faults.push(format!("result without call {id}"));
            }
        }
        faults.extend(open.iter().map(|id| format!("call without result {id}")));
        open = ids(content, "tool_use", "id").collect();
        let parts = content.as_array().map_or(&[][..], Vec::as_slice);
        let result = |part: &&Value| part["type"] == "tool_result";
        let results = parts.iter().filter(result).count();
        if parts.iter().take(results).filter(result).count() < results {
            faults.push(format!("text before results in {content}"));
        }
        let hosted: BTreeSet<_> = ids(content, "server_tool_use", "id").collect();
        let found: BTreeSet<_> = ids(content, "web_search_tool_result", "tool_use_id").collect();
        if hosted != found {
            faults.push(format!("hosted tools without results in {content}"));
        }
    }
    faults.extend(open.iter().map(|id| format!("call without result {id}")));
    faults
}

fn responses(items: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    // In order, because some clients use the same ids again in each turn.
    let mut open: Vec<String> = Vec::new();
    let mut stored = false;
    let mut reasons: Option<String> = None;
    for item in items {
        let kind = item["type"].as_str().unwrap_or("message");
        let id = item["call_id"].as_str().unwrap_or("").to_owned();
        let system = matches!(item["role"].as_str(), Some("system" | "developer"));
        let stands_alone = system || matches!(kind, "compaction" | "mcp_list_tools");
        if !stands_alone
            && let Some(reasoning) = reasons.take()
            && (item["role"] == "user" || kind.ends_with("_output"))
        {
            faults.push(format!("reasoning without what follows it {reasoning}"));
        }
        match kind {
            "reasoning" => reasons = Some(item["id"].to_string()),
            "item_reference" => stored = true,
            "function_call" | "custom_tool_call" => open.push(id),
            "function_call_output" | "custom_tool_call_output" => {
                match open.iter().rposition(|call| *call == id) {
                    Some(call) => drop(open.remove(call)),
                    // The call may be one of those of this turn that are only named.
                    None if stored => {}
                    None => faults.push(format!("result without call {id}")),
                }
            }
            "message" if item["role"] == "user" => stored = false,
            _ => {}
        }
    }
    faults.extend(reasons.map(|id| format!("reasoning without what follows it {id}")));
    faults.extend(open.iter().map(|id| format!("call without result {id}")));
    faults
}
