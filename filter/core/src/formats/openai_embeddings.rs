//! OpenAI embeddings: `POST /v1/embeddings`.

use sluice_wire::Usage;

use super::openai;
use super::unstreamed::Unstreamed;
use super::{
    Answer, ApiError, Batch, Edit, Format, Kind, Message, NotThisApi, Request, Role, StreamReader,
    content,
};
use crate::json::{Cursor, Object};

/// The format.
#[derive(Clone, Copy, Debug)]
pub struct OpenAiEmbeddings;

impl Format for OpenAiEmbeddings {
    fn name(&self) -> &'static str {
        "openai.embeddings"
    }

    fn family(&self) -> &'static str {
        "openai-embeddings"
    }

    fn kind(&self) -> Kind {
        Kind::Embedding
    }

    fn serves(&self, path: &str) -> bool {
        path.ends_with("/v1/embeddings")
    }

    fn read<'a>(&self, body: &'a str, fields: Object<'a>) -> Result<Request<'a>, NotThisApi> {
        let Some(input) = fields.set("input") else {
            return Err(NotThisApi("`input`: expected text or token ids".to_owned()));
        };
        let messages: Vec<_> = content::inputs(Some(input))
            .into_iter()
            .map(|content| Message {
                role: Role::User,
                content,
            })
            .collect();
        Ok(Request {
            body,
            model: content::model(&fields)?,
            system: Vec::new(),
            tools: None,
            structured: false,
            output_limit: None,
            stream: false,
            stream_usage: true,
            temperature: None,
            choices: (messages.len() as u64).max(1),
            messages,
            fields,
        })
    }

    fn output_limit_field(&self, _request: &Request<'_>) -> &'static str {
        "max_tokens"
    }

    fn ask_usage(&self, _request: &Request<'_>) -> Option<Edit> {
        None
    }

    fn not_in_key(&self) -> &'static [&'static str] {
        &["user"]
    }

    fn key_headers(&self) -> &'static [&'static str] {
        openai::KEY_HEADERS
    }

    fn cacheable(&self, _request: &Request<'_>) -> bool {
        // Vectors hang on nothing but the request.
        true
    }

    fn batch<'a>(&self, request: &Request<'a>) -> Option<Batch<'a>> {
        Batch::read(request)
    }

    fn answer(&self, body: &[u8]) -> Answer {
        let Some(fields) = std::str::from_utf8(body)
            .ok()
            .and_then(|body| Object::parse(body).ok())
        else {
            return Answer::default();
        };
        let mut data = Cursor::new(fields.get("data").unwrap_or(""));
        Answer {
            usage: fields.set("usage").and_then(openai::usage),
            usage_so_far: false,
            complete: data.enter(b'[') && data.element() && fields.set("error").is_none(),
            text_bytes: 0,
        }
    }

    fn usage(&self, usage: &str) -> Option<Usage> {
        openai::usage(usage)
    }

    fn stream(&self, _hide_usage: bool) -> Box<dyn StreamReader> {
        Box::new(Unstreamed)
    }

    fn replay(&self, _answer: &str, _usage: bool) -> Option<Vec<u8>> {
        None
    }

    fn error(&self, error: &ApiError) -> String {
        openai::error(error)
    }
}
