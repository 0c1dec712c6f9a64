//! OpenAI chat completions: `POST /v1/chat/completions`.

use sluice_wire::Usage;

use super::conversation::{self, Conversation, Fields, Tie};
use super::openai::{self, ChunkReader, ChunkWriter, Flavour, MAX_DELTA};
use super::{
    Answer, ApiError, Content, Edit, Format, Kind, NotThisApi, Part, Request, Role, StreamReader,
    SystemPlace, content,
};
use crate::json::{self, Cursor, JsonStr, Object, ObjectWriter, split_escaped};

/// The format.
#[derive(Clone, Copy, Debug)]
pub struct OpenAiChat;

impl Format for OpenAiChat {
    fn name(&self) -> &'static str {
        "openai.chat"
    }

    fn family(&self) -> &'static str {
        "openai"
    }

    fn kind(&self) -> Kind {
        Kind::Generation
    }

    fn serves(&self, path: &str) -> bool {
        path.ends_with("/v1/chat/completions")
    }

    fn read<'a>(&self, body: &'a str, fields: Object<'a>) -> Result<Request<'a>, NotThisApi> {
        let mut list = content::list(&fields, "messages")?;
        let mut system = Vec::new();
        let mut messages = Vec::with_capacity(8);
        while list.element() {
            let (speaker, content) = message(&mut list);
            content::file(speaker, content, &mut system, &mut messages);
        }
        Ok(Request {
            body,
            model: content::model(&fields)?,
            system,
            messages,
            tools: content::tools(&fields, &["tools", "functions"]),
            structured: openai::asks_json(fields.get("response_format")),
            output_limit: fields
                .count("max_completion_tokens")
                .or_else(|| fields.count("max_tokens")),
            stream: fields.read("stream").unwrap_or(false),
            stream_usage: openai::asks_usage(&fields),
            temperature: fields.read("temperature"),
            choices: fields.count("n").unwrap_or(1).max(1),
            fields,
        })
    }

    fn output_limit_field(&self, request: &Request<'_>) -> &'static str {
        let set = |key| request.fields.set(key).is_some();
        if set("max_tokens") && !set("max_completion_tokens") {
            "max_tokens"
        } else {
            "max_completion_tokens"
        }
    }

    fn ask_usage(&self, request: &Request<'_>) -> Option<Edit> {
        openai::ask_usage(request)
    }

    fn not_in_key(&self) -> &'static [&'static str] {
        // `service_tier` is in the key, because the answer tells it. `store` need not be: where it
        // is true the answer is not cached, and false is what its absence means.
        &[
            "stream",
            "stream_options",
            "user",
            "safety_identifier",
            "metadata",
            "store",
            "prompt_cache_key",
            "prompt_cache_retention",
            "prompt_cache_options",
        ]
    }

    fn key_headers(&self) -> &'static [&'static str] {
        openai::KEY_HEADERS
    }

    fn cacheable(&self, request: &Request<'_>) -> bool {
        let fields = &request.fields;
        // Whoever stores completions (distillation, evaluations) wants each of them stored.
        let stored = fields.read("store").unwrap_or(false);
        // Spoken answers have an id that refers to the upstream and expires there.
        let spoken = fields.set("audio").is_some()
            || fields
                .get("modalities")
                .is_some_and(|raw| raw.contains("audio"));
        // The web changes under the same question; these models search unasked. (A prompt may name
        // images by URL that change too; the time to live bounds that, as in any HTTP cache.)
        let searches =
            fields.set("web_search_options").is_some() || request.model.contains("-search");
        let functions = fields.get("functions").is_some() && fields.set("tools").is_none();
        !stored
            && !spoken
            && !searches
            && (functions || content::only_client_tools(request.tools, &["function", "custom"]))
    }

    fn conversation<'a>(&self, request: &Request<'a>) -> Option<Conversation<'a>> {
        conversation::read(request, ("messages", "text"), ties)
    }

    fn system_place(&self) -> SystemPlace {
        SystemPlace::Message("messages")
    }

    fn answer(&self, body: &[u8]) -> Answer {
        openai::answer(body, Flavour::Chat)
    }

    fn usage(&self, usage: &str) -> Option<Usage> {
        openai::usage(usage)
    }

    fn stream(&self, hide_usage: bool) -> Box<dyn StreamReader> {
        Box::new(ChunkReader::new(Flavour::Chat, hide_usage))
    }

    fn replay(&self, answer: &str, usage: bool) -> Option<Vec<u8>> {
        let answer = json::minify(answer);
        let fields = Object::parse(&answer).ok()?;
        let mut out = ChunkWriter::new(&fields, "chat.completion.chunk", usage);
        let choices = json::array(fields.get("choices")?).ok()?;
        if choices.is_empty() {
            return None;
        }
        for choice in choices {
            replay_choice(&Object::parse(choice).ok()?, &mut out)?;
        }
        Some(out.end())
    }

    fn error(&self, error: &ApiError) -> String {
        openai::error(error)
    }
}

/// Reads the message that the cursor stands before.
fn message<'a>(cursor: &mut Cursor<'a>) -> (content::Speaker, Content<'a>) {
    let start = cursor.mark();
    let mut parts = Vec::new();
    if !cursor.enter(b'{') {
        let raw = cursor.value();
        parts.push(Part::Other(raw));
        return (content::Speaker::Other(Role::User), Content { raw, parts });
    }
    let mut speaker = content::Speaker::Other(Role::User);
    while let Some(key) = cursor.key() {
        match &*key {
            "role" => speaker = content::Speaker::of(&content::word(cursor)),
            "content" => content::parts(cursor, &mut parts),
            "refusal" => parts.extend(JsonStr::new(cursor.value()).map(Part::Text)),
            "tool_calls" if cursor.enter(b'[') => {
                while cursor.element() {
                    parts.push(Part::ToolCall(cursor.value()));
                }
            }
            "function_call" if cursor.peek() == Some(b'{') => {
                parts.push(Part::ToolCall(cursor.value()));
            }
            "audio" if cursor.peek() == Some(b'{') => parts.push(Part::Media(cursor.value())),
            _ => {
                cursor.value();
            }
        }
    }
    let raw = cursor.since(start);
    (speaker, Content { raw, parts })
}

/// What ties a message to others.
fn ties<'a>(fields: &Fields<'a>, content: &Content<'a>) -> Vec<Tie<'a>> {
    let calls = fields.objects("tool_calls");
    let ids = calls.iter().map(|call| call.word("id"));
    let mut ties: Vec<_> = ids.map(|id| conversation::by_id(id, Tie::Call)).collect();
    // Functions, which tools came after, are paired by their names.
    let function = fields.object("function_call").word("name");
    ties.extend(function.map(Tie::Call));
    ties.extend(match fields.word("role").as_deref() {
        Some("tool") => Some(conversation::by_id(
            fields.word("tool_call_id"),
            Tie::Result,
        )),
        Some("function") => Some(conversation::by_id(fields.word("name"), Tie::Result)),
        Some("user" | "assistant" | "system" | "developer") => None,
        _ => Some(Tie::Unknown),
    });
    ties.extend(conversation::odd(content));
    ties
}

/// One choice as a stream: the role, the deltas, the end. None when it holds what a stream cannot
/// tell (sound), or what this version does not know.
fn replay_choice(choice: &Object<'_>, out: &mut ChunkWriter<'_>) -> Option<()> {
    let index = choice.count("index")?;
    let finish = choice.set("finish_reason")?;
    let message = choice.object("message")?;
    let mut logprobs = choice.set("logprobs").unwrap_or("null");
    let mut delta = |delta: &str, logprobs: &str, finish: &str| {
        let choice = ObjectWriter::new()
            .int("index", index)
            .raw("delta", delta)
            .raw("logprobs", logprobs)
            .raw("finish_reason", finish);
        out.choice(&choice.end());
    };
    let text = message.str("content");
    let role = ObjectWriter::new()
        .str("role", "assistant")
        .raw("content", if text.is_some() { "\"\"" } else { "null" })
        .raw("refusal", "null");
    delta(&role.end(), "null", "null");
    let plain = |key: &str| matches!(key, "content" | "refusal");
    // What compatible upstreams add (`reasoning_content`) comes before the content.
    let (texts, others): (Vec<_>, Vec<_>) = message
        .iter()
        .filter(|(key, _)| !matches!(*key, "role" | "tool_calls" | "function_call"))
        .filter(|(_, value)| !matches!(*value, "null" | "[]" | "{}"))
        .partition(|(key, _)| plain(key));
    for (key, value) in others.into_iter().chain(texts) {
        let text = JsonStr::new(value)?.escaped();
        // Logprobs go with the text in one piece: which belong to which byte is not told.
        let scores = if plain(key) {
            std::mem::replace(&mut logprobs, "null")
        } else {
            "null"
        };
        let max = if scores == "null" {
            MAX_DELTA
        } else {
            usize::MAX
        };
        for piece in split_escaped(text, max) {
            let piece = ObjectWriter::new()
                .named(key, &format!("\"{piece}\""))
                .end();
            delta(&piece, scores, "null");
        }
    }
    if let Some(call) = message.object("function_call") {
        let (name, arguments) = (call.get("name")?, call.str("arguments")?);
        let function_call = |json: String| ObjectWriter::new().raw("function_call", &json).end();
        let start = ObjectWriter::new().raw("name", name).str("arguments", "");
        delta(&function_call(start.end()), "null", "null");
        for piece in split_escaped(arguments.escaped(), MAX_DELTA) {
            let piece = ObjectWriter::new().str("arguments", piece).end();
            delta(&function_call(piece), "null", "null");
        }
    }
    let calls = message.set("tool_calls").unwrap_or("[]");
    for (at, call) in json::array(calls).ok()?.into_iter().enumerate() {
        let call = Object::parse(call).ok()?;
        // The API's description says nothing of custom tools in streams, and its own clients do
        // not read them there.
        (call.str("type")?.text() == "function").then_some(())?;
        let function = call.object("function")?;
        let tool_call = |head: ObjectWriter, function: String| {
            let call = head.raw("function", &function).end();
            ObjectWriter::new()
                .raw("tool_calls", &format!("[{call}]"))
                .end()
        };
        let head = ObjectWriter::new()
            .int("index", at as u64)
            .raw("id", call.get("id")?)
            .str("type", "function");
        let start = ObjectWriter::new()
            .raw("name", function.get("name")?)
            .str("arguments", "");
        delta(&tool_call(head, start.end()), "null", "null");
        for piece in split_escaped(function.str("arguments")?.escaped(), MAX_DELTA) {
            let head = ObjectWriter::new().int("index", at as u64);
            let piece = ObjectWriter::new().str("arguments", piece).end();
            delta(&tool_call(head, piece), "null", "null");
        }
    }
    delta("{}", "null", finish);
    Some(())
}
