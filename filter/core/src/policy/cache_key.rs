//! What makes two requests the same. Every input is named here; there is no default.

use crate::config::Scope;
use crate::exchange::Headers;
use crate::formats::{Format, Kind, Request};
use crate::json::JsonStr;

/// Changes when the meaning of a key changes: old entries are then never found.
const VERSION: &str = "sluice exact v1";
/// The same for [`scope`].
const SCOPE_VERSION: &str = "sluice scope v1";

/// Everything that an exact key is made of.
#[derive(Clone, Copy, Debug)]
pub struct KeyInput<'a> {
    /// Who shares.
    pub scope: Scope,
    /// The tenant; part of the key unless the scope is global.
    pub tenant: &'a str,
    /// API format.
    pub format: &'static dyn Format,
    /// The request as the client sent it.
    pub request: &'a Request<'a>,
    /// Its headers: `:authority`, `:path` and the format's `key_headers` count.
    pub headers: &'a Headers,
    /// Model after routing.
    pub model: &'a str,
    /// Limit on output tokens after routing.
    pub output_limit: Option<u64>,
    /// Digest of the policies that change the request beyond model and limit.
    pub policies: &'a [u8; 32],
}

/// The exact-cache key: 64 hex digits of BLAKE3 over labelled, length-prefixed parts.
#[must_use]
pub fn exact(input: &KeyInput<'_>) -> String {
    digest(input, VERSION, None)
}

/// What must be equal before two questions are compared by meaning: the route, and all that is in
/// the exact key but the text of `question`, which is a part of the request.
#[must_use]
pub fn scope(input: &KeyInput<'_>, (route, question): (&str, JsonStr<'_>)) -> String {
    digest(input, SCOPE_VERSION, Some((route, question.raw())))
}

fn digest(input: &KeyInput<'_>, version: &str, apart: Option<(&str, &str)>) -> String {
    let mut hash = blake3::Hasher::new();
    let mut part = |name: &str, value: &[u8]| {
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(&(value.len() as u64).to_le_bytes());
        hash.update(value);
    };
    part("version", version.as_bytes());
    if let Some((route, _)) = apart {
        part("route", route.as_bytes());
    }
    match input.scope {
        Scope::Tenant => part("tenant", input.tenant.as_bytes()),
        Scope::Global => part("global", b""),
    }
    part("format", input.format.name().as_bytes());
    part("model", input.model.as_bytes());
    part(
        "output_limit",
        input
            .output_limit
            .map(|limit| limit.to_string())
            .unwrap_or_default()
            .as_bytes(),
    );
    part("policies", input.policies);
    part(
        "authority",
        input
            .headers
            .get(":authority")
            .unwrap_or("")
            .to_ascii_lowercase()
            .as_bytes(),
    );
    part("path", input.headers.get(":path").unwrap_or("").as_bytes());
    for name in input.format.key_headers() {
        part(name, input.headers.get(name).unwrap_or("").as_bytes());
    }
    // Every other field of the body, known or not, unless the format says that it does not matter.
    // A field that stands twice counts as it counts for the provider: by its last value.
    let limit_field = match input.format.kind() {
        Kind::Generation => input.format.output_limit_field(input.request),
        Kind::Embedding => "",
    };
    let mut fields: Vec<(&str, &str)> = input
        .request
        .fields
        .iter()
        .filter(|(name, _)| {
            *name != "model" && *name != limit_field && !input.format.not_in_key().contains(name)
        })
        .filter_map(|(name, _)| Some((name, input.request.fields.get(name)?)))
        .collect();
    fields.sort_unstable();
    fields.dedup_by_key(|(name, _)| *name);
    for (name, value) in fields {
        part("field", name.as_bytes());
        match apart.and_then(|(_, question)| around(value, question)) {
            Some((before, after)) => {
                part("before", before.as_bytes());
                part("after", after.as_bytes());
            }
            None => part("value", value.as_bytes()),
        }
    }
    hash.finalize().to_hex().to_string()
}

/// What stands around `part` where it is a piece of `whole`, the same bytes and not equal ones.
fn around<'a>(whole: &'a str, part: &str) -> Option<(&'a str, &'a str)> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    Some((whole.get(..start)?, whole.get(end..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats;

    struct Case {
        path: &'static str,
        body: String,
        headers: Vec<(&'static str, &'static str)>,
        scope: Scope,
        tenant: &'static str,
        model: &'static str,
        cap: Option<u64>,
        policies: [u8; 32],
    }

    const BODY: &str = r#"{"model":"gpt-4o","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}],"temperature":0}"#;

    fn case(body: &str) -> Case {
        Case {
            path: "/v1/chat/completions",
            body: body.to_owned(),
            headers: vec![(":authority", "api.example.com")],
            scope: Scope::Tenant,
            tenant: "acme",
            model: "gpt-4o-mini",
            cap: None,
            policies: [0; 32],
        }
    }

    impl Case {
        fn key(&self) -> String {
            self.digest(exact)
        }

        /// The scope on `route`.
        fn scope_on(&self, route: &str) -> String {
            self.digest(|input| scope(input, (route, input.request.question().unwrap())))
        }

        fn scope(&self) -> String {
            self.scope_on("")
        }

        fn digest(&self, of: impl FnOnce(&KeyInput<'_>) -> String) -> String {
            let format = formats::by_path(self.path).unwrap();
            let request = format.parse(&self.body).unwrap();
            let mut headers: Headers = self.headers.iter().copied().collect();
            headers = headers
                .iter()
                .map(|(name, value)| (std::str::from_utf8(name).unwrap(), value))
                .chain([(":path", self.path.as_bytes())])
                .collect();
            of(&KeyInput {
                scope: self.scope,
                tenant: self.tenant,
                format,
                request: &request,
                headers: &headers,
                model: self.model,
                output_limit: self.cap.or(request.output_limit),
                policies: &self.policies,
            })
        }
    }

    /// `BODY` with one more field.
    fn with(field: &str) -> Case {
        case(&BODY.replace("\"temperature\":0", &format!("\"temperature\":0,{field}")))
    }

    /// `BODY` with another value for each input of a key.
    fn others() -> Vec<(&'static str, Case)> {
        vec![
            (
                "tenant",
                Case {
                    tenant: "globex",
                    ..case(BODY)
                },
            ),
            (
                "scope",
                Case {
                    scope: Scope::Global,
                    ..case(BODY)
                },
            ),
            (
                "model after routing",
                Case {
                    model: "gpt-4o",
                    ..case(BODY)
                },
            ),
            (
                "output limit after routing",
                Case {
                    cap: Some(64),
                    ..case(BODY)
                },
            ),
            (
                "policies",
                Case {
                    policies: [1; 32],
                    ..case(BODY)
                },
            ),
            (
                "authority",
                Case {
                    headers: vec![(":authority", "other")],
                    ..case(BODY)
                },
            ),
            (
                "query",
                Case {
                    path: "/v1/chat/completions?api-version=2",
                    ..case(BODY)
                },
            ),
            ("system prompt", case(&BODY.replace("brief", "long"))),
            ("message", case(&BODY.replace("Hi", "Ho"))),
            (
                "message's role",
                case(&BODY.replace("\"user\"", "\"assistant\"")),
            ),
            (
                "temperature",
                case(&BODY.replace("\"temperature\":0", "\"temperature\":0.1")),
            ),
            (
                "tools",
                with(r#""tools":[{"type":"function","function":{"name":"f"}}]"#),
            ),
            ("tool choice", with(r#""tool_choice":"none""#)),
            (
                "response format",
                with(r#""response_format":{"type":"json_object"}"#),
            ),
            ("seed", with(r#""seed":1"#)),
            ("top_p", with(r#""top_p":0.5"#)),
            ("stop", with(r#""stop":"x""#)),
            ("n", with(r#""n":2"#)),
            ("penalty", with(r#""presence_penalty":1"#)),
            ("logit bias", with(r#""logit_bias":{"1":1}"#)),
            ("log-probabilities", with(r#""logprobs":true"#)),
            ("max_tokens", with(r#""max_tokens":5"#)),
            ("a field nobody knows", with(r#""brand_new":1"#)),
        ]
    }

    #[test]
    fn every_input_changes_the_key() {
        let base = case(BODY).key();
        assert_eq!(base.len(), 64);
        let others = others();
        let mut keys = vec![base];
        for (what, case) in others {
            let key = case.key();
            assert!(!keys.contains(&key), "{what} does not change the key");
            keys.push(key);
        }
        let anthropic =
            r#"{"model":"claude","max_tokens":5,"messages":[{"role":"user","content":"Hi"}]}"#;
        let beta = |value| Case {
            path: "/v1/messages",
            headers: vec![("anthropic-beta", value)],
            ..case(anthropic)
        };
        assert_ne!(
            beta("a").key(),
            beta("b").key(),
            "a header that changes the answer"
        );
    }

    #[test]
    fn what_does_not_change_the_answer_does_not_change_the_key() {
        let base = case(BODY).key();
        for field in [
            r#""stream":true"#,
            r#""stream":true,"stream_options":{"include_usage":true}"#,
            r#""user":"u1""#,
        ] {
            assert_eq!(with(field).key(), base, "{field}");
        }
        let reordered = r#"{"temperature":0,"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}],"model":"gpt-4o"}"#;
        assert_eq!(case(reordered).key(), base, "the order of fields");
        assert_eq!(
            case(&BODY.replace("\"gpt-4o\"", "\"other\"")).key(),
            base,
            "the model before routing"
        );
        assert_eq!(
            Case {
                headers: vec![(":authority", "API.example.com"), ("x-request-id", "7")],
                ..case(BODY)
            }
            .key(),
            base
        );
        let capped = Case {
            cap: Some(64),
            ..with(r#""max_tokens":500"#)
        };
        assert_eq!(
            capped.key(),
            Case {
                cap: Some(64),
                ..case(BODY)
            }
            .key(),
            "a limit that was lowered"
        );
    }

    /// An earlier turn, its answer, and a question.
    const TURNS: &str = r#"{"model":"gpt-4o","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"},{"role":"user","content":"Hi"}],"temperature":0}"#;

    #[test]
    fn every_input_but_the_question_changes_the_scope() {
        let base = case(BODY).scope();
        assert_ne!(base, case(BODY).key());
        let mut scopes = vec![base.clone()];
        for (what, case) in others() {
            if what == "message" {
                assert_eq!(case.scope(), base, "the question alone is left out");
            } else if what != "message's role" {
                let scope = case.scope();
                assert!(!scopes.contains(&scope), "{what} does not change the scope");
                scopes.push(scope);
            }
        }
        for (what, scope) in [
            ("route", case(BODY).scope_on("support")),
            ("earlier turns", case(TURNS).scope()),
            (
                "an earlier question",
                case(&TURNS.replacen("\"Hi\"", "\"Ho\"", 1)).scope(),
            ),
            (
                "an earlier answer",
                case(&TURNS.replace("Hello", "Yo")).scope(),
            ),
            (
                "who asks",
                case(&BODY.replace("\"content\":\"Hi\"", "\"name\":\"a\",\"content\":\"Hi\""))
                    .scope(),
            ),
        ] {
            assert!(!scopes.contains(&scope), "{what} does not change the scope");
            scopes.push(scope);
        }
        let asked = |question: &str| {
            let (before, after) = TURNS.rsplit_once("\"Hi\"").unwrap();
            case(&format!("{before}\"{question}\"{after}")).scope()
        };
        assert_eq!(asked("Hi"), asked("What is your \\n refund policy?"));
    }

    #[test]
    fn a_scope_is_told_in_every_api_that_has_turns() {
        for (path, body) in [
            (
                "/v1/responses",
                r#"{"model":"m","instructions":"Be brief.","input":"QUESTION"}"#,
            ),
            (
                "/v1/responses",
                r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"QUESTION"}]}]}"#,
            ),
            (
                "/v1/messages",
                r#"{"model":"m","max_tokens":9,"system":"Be brief.","messages":[{"role":"user","content":"QUESTION"}]}"#,
            ),
        ] {
            let asked = |body: String| Case {
                path,
                ..case(&body)
            };
            let one = asked(body.replace("QUESTION", "Hi")).scope();
            assert_eq!(one, asked(body.replace("QUESTION", "Hello there")).scope());
            assert_ne!(
                one,
                asked(
                    body.replace("brief", "long")
                        .replace("\"m\"", "\"m\",\"zz\":1")
                )
                .scope()
            );
        }
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let a = Case {
            tenant: "ab",
            model: "c",
            ..case(BODY)
        };
        let b = Case {
            tenant: "a",
            model: "bc",
            ..case(BODY)
        };
        assert_ne!(a.key(), b.key());
    }
}
