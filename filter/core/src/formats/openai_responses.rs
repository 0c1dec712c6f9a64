//! OpenAI Responses: `POST /v1/responses`.

mod replay;

use sluice_wire::Usage;

use super::conversation::{self, Conversation, Fields, Tie};
use super::openai;
use super::{
    Answer, ApiError, Content, Edit, Format, Kind, MAX_ASSEMBLED, Message, NotThisApi, Part,
    Request, Role, Show, StreamReader, SystemPlace, content,
};
use crate::json::{Cursor, JsonStr, Object};
use crate::sse::SseEvent;

/// The format.
#[derive(Clone, Copy, Debug)]
pub struct OpenAiResponses;

impl Format for OpenAiResponses {
    fn name(&self) -> &'static str {
        "openai.responses"
    }

    fn family(&self) -> &'static str {
        "openai"
    }

    fn kind(&self) -> Kind {
        Kind::Generation
    }

    fn serves(&self, path: &str) -> bool {
        // Not what lies below it: `/v1/responses/{id}`, `/v1/responses/{id}/cancel`.
        path.ends_with("/v1/responses")
    }

    fn read<'a>(&self, body: &'a str, fields: Object<'a>) -> Result<Request<'a>, NotThisApi> {
        let mut system = Vec::new();
        let mut messages = Vec::new();
        if let Some(raw) = fields.set("instructions") {
            let mut parts = Vec::new();
            content::parts(&mut Cursor::new(raw), &mut parts);
            system.push(Content { raw, parts });
        }
        match fields.set("input") {
            // A stored prompt may need no input.
            None => {}
            Some(raw) => match JsonStr::new(raw) {
                Some(text) => messages.push(Message {
                    role: Role::User,
                    content: Content {
                        raw,
                        parts: vec![Part::Text(text)],
                    },
                }),
                None => {
                    let mut list = content::list(&fields, "input")?;
                    while list.element() {
                        let (speaker, content) = item(&mut list);
                        content::file(speaker, content, &mut system, &mut messages);
                    }
                }
            },
        }
        let format = fields
            .object("text")
            .is_some_and(|text| openai::asks_json(text.get("format")));
        Ok(Request {
            body,
            model: content::model(&fields)?,
            system,
            messages,
            tools: content::tools(&fields, &["tools"]),
            structured: format,
            output_limit: fields.count("max_output_tokens"),
            stream: fields.read("stream").unwrap_or(false),
            stream_usage: true,
            temperature: fields.read("temperature"),
            choices: 1,
            fields,
        })
    }

    fn output_limit_field(&self, _request: &Request<'_>) -> &'static str {
        "max_output_tokens"
    }

    fn min_output_limit(&self, _request: &Request<'_>) -> u64 {
        16
    }

    fn ask_usage(&self, _request: &Request<'_>) -> Option<Edit> {
        // `response.completed` always has it.
        None
    }

    fn not_in_key(&self) -> &'static [&'static str] {
        // The answer repeats nearly every field of the request (`user` and `metadata` too), so
        // only how it is delivered can differ.
        &["stream", "stream_options"]
    }

    fn key_headers(&self) -> &'static [&'static str] {
        openai::KEY_HEADERS
    }

    /// `store` is true unless the request says otherwise, so it cannot forbid caching: a replayed
    /// answer keeps its id, which upstream keeps for 30 days, far longer than any time to live
    /// here, and stored responses never change; so a client may go on from it with
    /// `previous_response_id`. `store` is in the key: an answer that was not stored never goes to
    /// a client that wants to go on from it.
    fn cacheable(&self, request: &Request<'_>) -> bool {
        let fields = &request.fields;
        // A background job is polled for; a conversation grows with every response; a stored
        // prompt changes with its published version; and after `previous_response_id` the prompt
        // is not in the request, so the key cannot say what it covers.
        let elsewhere = ["conversation", "prompt", "previous_response_id"]
            .into_iter()
            .any(|key| fields.set(key).is_some());
        !elsewhere
            && !fields.read("background").unwrap_or(false)
            && content::only_client_tools(request.tools, &["function", "custom"])
            && !refers_to_items(fields)
    }

    fn conversation<'a>(&self, request: &Request<'a>) -> Option<Conversation<'a>> {
        conversation::read(request, ("input", "input_text"), ties)
    }

    fn system_place(&self) -> SystemPlace {
        SystemPlace::Field("instructions", "input")
    }

    fn answer(&self, body: &[u8]) -> Answer {
        std::str::from_utf8(body)
            .ok()
            .and_then(|body| Object::parse(body).ok())
            .map_or_else(Answer::default, |response| whole(&response))
    }

    fn usage(&self, usage: &str) -> Option<Usage> {
        openai::usage(usage)
    }

    fn stream(&self, _hide_usage: bool) -> Box<dyn StreamReader> {
        Box::new(Reader::default())
    }

    fn replay(&self, answer: &str, _usage: bool) -> Option<Vec<u8>> {
        replay::replay(answer)
    }

    fn error(&self, error: &ApiError) -> String {
        openai::error(error)
    }
}

/// Reads the input item that the cursor stands before.
fn item<'a>(cursor: &mut Cursor<'a>) -> (content::Speaker, Content<'a>) {
    let start = cursor.mark();
    let mut parts = Vec::new();
    if !cursor.enter(b'{') {
        let raw = cursor.value();
        parts.push(JsonStr::new(raw).map_or(Part::Other(raw), Part::Text));
        return (content::Speaker::Other(Role::User), Content { raw, parts });
    }
    let mut kind = std::borrow::Cow::Borrowed("item_reference");
    let mut role = std::borrow::Cow::Borrowed("");
    let mut output = "";
    let mut body = "";
    let mut typed = false;
    while let Some(key) = cursor.key() {
        // Without a type it is a message, or a reference where it has an id and nothing to say.
        if !typed && matches!(&*key, "role" | "content") {
            kind = std::borrow::Cow::Borrowed("message");
        }
        match &*key {
            "type" if cursor.peek() == Some(b'"') => {
                kind = content::word(cursor);
                typed = true;
            }
            "role" => role = content::word(cursor),
            "content" => body = cursor.value(),
            "output" => output = cursor.value(),
            _ => {
                cursor.value();
            }
        }
    }
    let raw = cursor.since(start);
    let speaker = match &*kind {
        "message" => {
            content::parts(&mut Cursor::new(body), &mut parts);
            content::Speaker::of(&role)
        }
        kind if kind.ends_with("_output") => {
            content::result(output, raw, &mut parts);
            content::Speaker::Other(Role::Tool)
        }
        kind if kind.ends_with("_call") => {
            parts.push(Part::ToolCall(raw));
            content::Speaker::Other(Role::Assistant)
        }
        // Reasoning, references, what comes later: the model's or upstream's own.
        _ => {
            parts.push(Part::Other(raw));
            content::Speaker::Other(Role::Assistant)
        }
    };
    (speaker, Content { raw, parts })
}

/// What ties an item to others.
fn ties<'a>(fields: &Fields<'a>, content: &Content<'a>) -> Vec<Tie<'a>> {
    use conversation::by_id;
    let message = fields.get("role").is_some() || fields.get("content").is_some();
    let kind = fields.word("type");
    let kind = kind.as_deref().unwrap_or(match message {
        true => "message",
        false => "item_reference",
    });
    let call = || fields.word("call_id");
    let id = || fields.word("id");
    let mut ties: Vec<_> = id().map(Tie::Id).into_iter().collect();
    match kind {
        "message" => {
            let role = fields.word("role");
            let known = ["user", "assistant", "system", "developer"];
            let known = role.is_some_and(|role| known.contains(&&*role));
            ties.extend((!known).then_some(Tie::Unknown));
            ties.extend(conversation::odd(content));
        }
        "reasoning" => ties.push(Tie::Next),
        "item_reference" => ties = vec![by_id(id(), Tie::Reference)],
        "function_call" | "custom_tool_call" | "computer_call" | "local_shell_call"
        | "shell_call" | "apply_patch_call" => ties.push(by_id(call(), Tie::Call)),
        "function_call_output"
        | "custom_tool_call_output"
        | "computer_call_output"
        | "shell_call_output"
        | "apply_patch_call_output" => ties.push(by_id(call(), Tie::Result)),
        // Its schema asks for `call_id` and describes `id` alone, as the call's.
        "local_shell_call_output" => ties.push(by_id(call().or_else(id), Tie::Result)),
        // Hosted tools: what they found is in the item itself.
        "file_search_call"
        | "web_search_call"
        | "image_generation_call"
        | "code_interpreter_call" => {}
        "mcp_call" => ties.extend(fields.word("approval_request_id").map(Tie::Reference)),
        "mcp_approval_request" => ties.push(by_id(id(), Tie::Call)),
        "mcp_approval_response" => {
            ties.push(by_id(fields.word("approval_request_id"), Tie::Result));
        }
        // What stands for all that was before it, and the tools that calls after it need.
        "compaction" | "compaction_trigger" | "mcp_list_tools" | "additional_tools" => {
            ties.push(Tie::Stays);
        }
        _ => ties.push(Tie::Unknown),
    }
    // A call made by a program that the model wrote belongs to more than its own result.
    if fields.get("caller").is_some_and(|raw| raw != "null") {
        ties.push(Tie::Unknown);
    }
    ties
}

/// Whether the input names items that only upstream has.
fn refers_to_items(fields: &Object<'_>) -> bool {
    let mut cursor = Cursor::new(fields.get("input").unwrap_or(""));
    if !cursor.enter(b'[') {
        return false;
    }
    while cursor.element() {
        if !cursor.enter(b'{') {
            cursor.value();
            continue;
        }
        // An item without type and content but with an id is a reference too.
        let (mut kind, mut known) = (std::borrow::Cow::Borrowed(""), false);
        while let Some(key) = cursor.key() {
            match &*key {
                "type" => kind = content::word(&mut cursor),
                key => {
                    known |= matches!(key, "content" | "role");
                    cursor.value();
                }
            }
        }
        if kind == "item_reference" || (kind.is_empty() && !known) {
            return true;
        }
    }
    false
}

/// What a response object tells.
fn whole(response: &Object<'_>) -> Answer {
    Answer {
        usage: response.set("usage").and_then(openai::usage),
        usage_so_far: false,
        complete: response.get("status") == Some(r#""completed""#)
            && response.set("error").is_none(),
        text_bytes: output_bytes(response.get("output").unwrap_or("")),
    }
}

/// Bytes of generated text in the output items.
fn output_bytes(output: &str) -> u64 {
    let mut bytes = 0;
    let mut items = Cursor::new(output);
    if !items.enter(b'[') {
        return 0;
    }
    while items.element() {
        if !items.enter(b'{') {
            items.value();
            continue;
        }
        while let Some(key) = items.key() {
            match &*key {
                "arguments" | "input" => bytes += openai::string_bytes(items.value()),
                "content" | "summary" if items.enter(b'[') => {
                    while items.element() {
                        bytes += part_bytes(items.value());
                    }
                }
                _ => {
                    items.value();
                }
            }
        }
    }
    bytes
}

fn part_bytes(part: &str) -> u64 {
    let mut cursor = Cursor::new(part);
    let mut bytes = 0;
    if cursor.enter(b'{') {
        while let Some(key) = cursor.key() {
            let value = cursor.value();
            if matches!(&*key, "text" | "refusal") {
                bytes += openai::string_bytes(value);
            }
        }
    }
    bytes
}

/// Reads a stream of typed events; the last of them holds the whole answer.
#[derive(Debug, Default)]
struct Reader {
    answer: Answer,
    /// The response of `response.completed`, raw.
    response: Option<String>,
    /// Output items that were told whole.
    items: usize,
    failed: bool,
}

impl StreamReader for Reader {
    fn event(&mut self, event: &SseEvent<'_>) -> Show {
        let Ok(fields) = content::fields(&event.data) else {
            // `[DONE]`, which some compatible upstreams send after the last event.
            self.failed |= event.data.trim() != "[DONE]";
            return Show::Pass;
        };
        let kind = fields.str("type").map(JsonStr::text).unwrap_or_default();
        match &*kind {
            "response.completed" | "response.incomplete" | "response.failed" => {
                let Some(raw) = fields.get("response") else {
                    self.failed = true;
                    return Show::Pass;
                };
                let Ok(response) = Object::parse(raw) else {
                    self.failed = true;
                    return Show::Pass;
                };
                let told = whole(&response);
                self.answer.usage = told.usage.or(self.answer.usage);
                self.answer.complete = told.complete && !self.failed;
                let output = crate::json::array(response.get("output").unwrap_or(""));
                let all = output.is_ok_and(|items| items.len() == self.items);
                self.response =
                    (told.complete && all && raw.len() <= MAX_ASSEMBLED).then(|| raw.to_owned());
            }
            "response.output_item.done" => self.items += 1,
            "error" => {
                self.failed = true;
                self.answer.complete = false;
            }
            kind if kind.ends_with(".delta") => {
                self.answer.text_bytes += openai::string_bytes(fields.get("delta").unwrap_or(""));
            }
            _ => {}
        }
        Show::Pass
    }

    fn outcome(&self) -> Answer {
        self.answer.clone()
    }

    fn assemble(&self) -> Option<String> {
        self.response.clone().filter(|_| !self.failed)
    }
}
