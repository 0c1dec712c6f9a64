//! OpenAI legacy completions: `POST /v1/completions`.

use sluice_wire::Usage;

use super::openai::{self, ChunkReader, ChunkWriter, Flavour, MAX_DELTA};
use super::{
    Answer, ApiError, Edit, Format, Kind, Message, NotThisApi, Request, Role, StreamReader, content,
};
use crate::json::{self, Object, ObjectWriter, split_escaped};

/// The format.
#[derive(Clone, Copy, Debug)]
pub struct OpenAiCompletions;

impl Format for OpenAiCompletions {
    fn name(&self) -> &'static str {
        "openai.completions"
    }

    fn family(&self) -> &'static str {
        "openai-completions"
    }

    fn kind(&self) -> Kind {
        Kind::Generation
    }

    fn serves(&self, path: &str) -> bool {
        path.ends_with("/v1/completions")
    }

    fn read<'a>(&self, body: &'a str, fields: Object<'a>) -> Result<Request<'a>, NotThisApi> {
        // Without a prompt the model starts a new document.
        let messages: Vec<_> = content::inputs(fields.set("prompt"))
            .into_iter()
            .map(|content| Message {
                role: Role::User,
                content,
            })
            .collect();
        let n = fields.count("n").unwrap_or(1).max(1);
        // All of `best_of` are generated and paid, `n` of them shown.
        let each = fields.count("best_of").unwrap_or(1).max(n);
        Ok(Request {
            body,
            model: content::model(&fields)?,
            system: Vec::new(),
            tools: None,
            structured: openai::asks_json(fields.get("response_format")),
            output_limit: fields.count("max_tokens"),
            stream: fields.read("stream").unwrap_or(false),
            stream_usage: openai::asks_usage(&fields),
            temperature: fields.read("temperature"),
            choices: each.saturating_mul((messages.len() as u64).max(1)),
            messages,
            fields,
        })
    }

    fn output_limit_field(&self, _request: &Request<'_>) -> &'static str {
        "max_tokens"
    }

    fn ask_usage(&self, request: &Request<'_>) -> Option<Edit> {
        openai::ask_usage(request)
    }

    fn not_in_key(&self) -> &'static [&'static str] {
        &["stream", "stream_options", "user"]
    }

    fn key_headers(&self) -> &'static [&'static str] {
        openai::KEY_HEADERS
    }

    fn has_turns(&self) -> bool {
        false
    }

    fn cacheable(&self, _request: &Request<'_>) -> bool {
        // The answer hangs on nothing but the request.
        true
    }

    fn answer(&self, body: &[u8]) -> Answer {
        openai::answer(body, Flavour::Completions)
    }

    fn usage(&self, usage: &str) -> Option<Usage> {
        openai::usage(usage)
    }

    fn stream(&self, hide_usage: bool) -> Box<dyn StreamReader> {
        Box::new(ChunkReader::new(Flavour::Completions, hide_usage))
    }

    fn replay(&self, answer: &str, usage: bool) -> Option<Vec<u8>> {
        let answer = json::minify(answer);
        let fields = Object::parse(&answer).ok()?;
        let mut out = ChunkWriter::new(&fields, "text_completion", usage);
        let choices = json::array(fields.get("choices")?).ok()?;
        if choices.is_empty() {
            return None;
        }
        for choice in choices {
            let choice = Object::parse(choice).ok()?;
            let index = choice.count("index")?;
            let finish = choice.set("finish_reason")?;
            let logprobs = choice.set("logprobs").unwrap_or("null");
            let mut chunk = |text: &str, logprobs: &str, finish: &str| {
                let choice = ObjectWriter::new()
                    .str("text", text)
                    .int("index", index)
                    .raw("logprobs", logprobs)
                    .raw("finish_reason", finish);
                out.choice(&choice.end());
            };
            let text = choice.str("text")?.escaped();
            if logprobs == "null" {
                for piece in split_escaped(text, MAX_DELTA) {
                    chunk(piece, "null", "null");
                }
            } else {
                // In one piece: which logprobs belong to which byte is not told.
                chunk(text, logprobs, "null");
            }
            chunk("", "null", finish);
        }
        Some(out.end())
    }

    fn error(&self, error: &ApiError) -> String {
        openai::error(error)
    }
}
