//! Retrieval: a search service's, vector database's or re-ranker's JSON POST. No path tells it, a
//! route's `kind` does; what is asked and answered is JSON, and nothing more is known of it.

use serde_json::value::RawValue;
use sluice_wire::Usage;

use super::unstreamed::Unstreamed;
use super::{Answer, ApiError, Edit, Format, Kind, NotThisApi, Request, StreamReader};
use crate::json::{Object, canonical};

/// Longest request that is looked up, in bytes. Vectors of some thousand dimensions, a batch of
/// them too, are well below; a bulk of documents is no question that is asked twice.
const MAX_REQUEST: usize = 1 << 20;

/// The format.
#[derive(Clone, Copy, Debug)]
pub struct Retrieval;

impl Format for Retrieval {
    fn name(&self) -> &'static str {
        "retrieval"
    }

    fn family(&self) -> &'static str {
        "retrieval"
    }

    fn kind(&self) -> Kind {
        Kind::Retrieval
    }

    fn serves(&self, _path: &str) -> bool {
        false
    }

    fn parse<'a>(&self, body: &'a str) -> Result<Request<'a>, NotThisApi> {
        if serde_json::from_str::<&RawValue>(body).is_err() {
            return Err(NotThisApi("expected JSON".to_owned()));
        }
        self.read(body, Object::default())
    }

    fn read<'a>(&self, body: &'a str, _fields: Object<'a>) -> Result<Request<'a>, NotThisApi> {
        Ok(Request {
            body,
            // Nothing reads or changes a field.
            fields: Object::default(),
            model: "".into(),
            system: Vec::new(),
            messages: Vec::new(),
            tools: None,
            structured: false,
            output_limit: None,
            stream: false,
            stream_usage: true,
            temperature: None,
            choices: 1,
        })
    }

    fn output_limit_field(&self, _request: &Request<'_>) -> &'static str {
        ""
    }

    fn ask_usage(&self, _request: &Request<'_>) -> Option<Edit> {
        None
    }

    fn not_in_key(&self) -> &'static [&'static str] {
        &[]
    }

    fn key_headers(&self) -> &'static [&'static str] {
        // The route lists them.
        &[]
    }

    fn key_parts(&self, request: &Request<'_>, part: &mut dyn FnMut(&str, &[u8])) -> bool {
        let body = (request.body.len() <= MAX_REQUEST)
            .then(|| canonical(request.body))
            .flatten();
        if let Some(body) = &body {
            part("body", body.as_bytes());
        }
        body.is_some()
    }

    fn cacheable(&self, _request: &Request<'_>) -> bool {
        // The route says that its answers hang on the request.
        true
    }

    fn answer(&self, body: &[u8]) -> Answer {
        let json = std::str::from_utf8(body)
            .ok()
            .filter(|text| serde_json::from_str::<&RawValue>(text).is_ok());
        Answer {
            usage: Some(Usage::default()),
            usage_so_far: false,
            complete: json.is_some_and(|text| !tells_failure(text)),
            text_bytes: 0,
        }
    }

    fn usage(&self, _usage: &str) -> Option<Usage> {
        Some(Usage::default())
    }

    fn stream(&self, _hide_usage: bool) -> Box<dyn StreamReader> {
        Box::new(Unstreamed)
    }

    fn replay(&self, _answer: &str, _usage: bool) -> Option<Vec<u8>> {
        None
    }

    fn error(&self, error: &ApiError) -> String {
        serde_json::json!({"error": {"code": error.code, "message": error.message}}).to_string()
    }
}

/// Whether an answer with status 200 says that it is none, or only a part of one, so that the next
/// may be another: `error` (Typesense, Solr), `errors` (GraphQL, so Weaviate; Elasticsearch's
/// batches), `timed_out` and failed `_shards` (Elasticsearch, OpenSearch: "Search API", response
/// body), a `code` that is neither 0 nor 200 beside a `message` (Milvus, RESTful API: "Error codes").
fn tells_failure(json: &str) -> bool {
    let Ok(fields) = Object::parse(json) else {
        return false;
    };
    let failed = |name: &str| {
        let value = fields.set(name).map(canonical);
        value.is_some_and(|form| !matches!(form.as_deref(), Some("false" | "[]" | "{}" | "\"\"")))
    };
    let shards = fields.object("_shards");
    let code: Option<i64> = fields.read("code");
    failed("error")
        || failed("errors")
        || fields.get("timed_out") == Some("true")
        || shards.is_some_and(|shards| shards.count("failed").is_some_and(|failed| failed > 0))
        || (fields.get("message").is_some() && code.is_some_and(|code| !matches!(code, 0 | 200)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_json_is_a_request_and_nothing_else_is() {
        for body in [r#"{"q":"x"}"#, "[1]", "\"q\"", " {} ", "null"] {
            assert!(Retrieval.parse(body).is_ok(), "{body}");
        }
        // Elasticsearch's batches are lines of JSON.
        for body in ["", "secret", "{\"q\":", "{}\n{\"q\":1}\n", "\u{feff}{}"] {
            let error = Retrieval.parse(body).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_has_no_canonical_form_or_is_too_long_is_not_kept() {
        let kept = |body: &str| {
            let request = Retrieval.parse(body).unwrap();
            let mut parts = 0;
            let kept = Retrieval.key_parts(&request, &mut |_, _| parts += 1);
            assert_eq!(parts, usize::from(kept));
            kept
        };
        assert!(kept(r#"{"vector":[0.1,0.2],"top_k":3}"#));
        assert!(!kept(r#"{"top_k":1,"top_k":2}"#));
        assert!(!kept(r#"{"q":"\ud800"}"#));
        assert!(kept(&format!("\"{}\"", "x".repeat(MAX_REQUEST - 2))));
        assert!(!kept(&format!("\"{}\"", "x".repeat(MAX_REQUEST - 1))));
    }

    #[test]
    fn an_answer_is_complete_unless_it_says_that_it_failed() {
        let complete = |body: &str| Retrieval.answer(body.as_bytes()).complete;
        for body in [
            "[]",
            r#"{"result":[{"id":1,"score":0.5}],"status":"ok"}"#,
            r#"{"timed_out":false,"_shards":{"total":2,"failed":0},"hits":{}}"#,
            r#"{"code":0,"message":"","data":[]}"#,
            r#"{"code":200,"data":[],"message":"ok"}"#,
            r#"{"code":7,"name":"a document's own code"}"#,
            r#"{"data":{},"errors":[ ],"error":null}"#,
            r#"{"took":30,"errors":false,"items":[]}"#,
        ] {
            assert!(complete(body), "{body}");
        }
        for body in [
            "",
            "{\"hits\":",
            "{} {}",
            r#"{"error":"no such collection"}"#,
            r#"{"data":null,"errors":[{"message":"vector search: timeout"}]}"#,
            r#"{"errors":true,"items":[]}"#,
            r#"{"timed_out":true,"hits":{}}"#,
            r#"{"_shards":{"total":5,"successful":4,"failed":1},"hits":{}}"#,
            r#"{"code":1100,"message":"collection not loaded"}"#,
        ] {
            assert!(!complete(body), "{body}");
        }
        assert!(!Retrieval.answer(b"\"\xff\"").complete);
    }

    #[test]
    fn an_error_of_ours_is_plain_json() {
        let error = ApiError {
            kind: super::super::ErrorKind::Unavailable,
            message: "Too \"many\".".to_owned(),
            code: "too_many",
        };
        assert_eq!(
            Retrieval.error(&error),
            r#"{"error":{"code":"too_many","message":"Too \"many\"."}}"#
        );
    }
}
