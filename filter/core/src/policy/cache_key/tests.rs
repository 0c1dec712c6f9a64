//! Every input changes the key; what does not matter does not.

use super::*;
use crate::formats;

struct Case {
    path: &'static str,
    body: String,
    headers: Vec<(&'static str, &'static str)>,
    key_headers: Vec<String>,
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
        key_headers: Vec::new(),
        scope: Scope::Tenant,
        tenant: "acme",
        model: "gpt-4o-mini",
        cap: None,
        policies: [0; 32],
    }
}

impl Case {
    fn key(&self) -> String {
        self.maybe_key().unwrap()
    }

    fn maybe_key(&self) -> Option<String> {
        self.digest(exact)
    }

    /// The scope on `route`.
    fn scope_on(&self, route: &str) -> String {
        self.digest(|input| scope(input, (route, input.request.question().unwrap())))
            .unwrap()
    }

    fn scope(&self) -> String {
        self.scope_on("")
    }

    fn digest(&self, of: impl FnOnce(&KeyInput<'_>) -> Option<String>) -> Option<String> {
        let format = formats::by_path(self.path).unwrap_or(&formats::Retrieval);
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
            key_headers: &self.key_headers,
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
            case(&BODY.replace("\"content\":\"Hi\"", "\"name\":\"a\",\"content\":\"Hi\"")).scope(),
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

/// A search, whose route lists two headers.
fn search(body: &str) -> Case {
    Case {
        path: "/collections/docs/points/query",
        key_headers: vec!["accept-language".to_owned(), "x-index".to_owned()],
        model: "",
        ..case(body)
    }
}

const SEARCH: &str = r#"{"query":[0.1,0.2],"filter":{"must":[{"key":"a","match":1}]},"limit":5}"#;

#[test]
fn every_input_changes_the_key_of_a_search() {
    let with = |headers: &[(&'static str, &'static str)]| {
        let mut case = search(SEARCH);
        case.headers.extend(headers);
        case
    };
    let change = |from: &str, to: &str| search(&SEARCH.replace(from, to));
    let cases = [
        ("nothing", search(SEARCH)),
        (
            "tenant",
            Case {
                tenant: "globex",
                ..search(SEARCH)
            },
        ),
        (
            "scope",
            Case {
                scope: Scope::Global,
                ..search(SEARCH)
            },
        ),
        (
            "authority",
            Case {
                headers: vec![(":authority", "other")],
                ..search(SEARCH)
            },
        ),
        (
            "path",
            Case {
                path: "/collections/mail/points/query",
                ..search(SEARCH)
            },
        ),
        (
            "query string",
            Case {
                path: "/collections/docs/points/query?consistency=all",
                ..search(SEARCH)
            },
        ),
        (
            "a value deep in the body",
            change("\"match\":1", "\"match\":2"),
        ),
        ("a number's text", change("0.1", "0.10")),
        ("a number's type", change("\"limit\":5", "\"limit\":\"5\"")),
        ("a vector's order", change("0.1,0.2", "0.2,0.1")),
        (
            "one more field",
            change("\"limit\"", "\"offset\":0,\"limit\""),
        ),
        (
            "a null field",
            change("\"limit\"", "\"offset\":null,\"limit\""),
        ),
        (
            "a field that an LLM's key leaves out",
            change("\"limit\"", "\"user\":\"u\",\"limit\""),
        ),
        (
            "a field named as a model is",
            change("\"limit\"", "\"model\":\"m\",\"limit\""),
        ),
        ("a header", with(&[("x-index", "blue")])),
        ("another value", with(&[("x-index", "green")])),
        ("an empty value", with(&[("x-index", "")])),
        (
            "the same under another name",
            with(&[("accept-language", "blue")]),
        ),
        (
            "a second value",
            with(&[("x-index", "blue"), ("x-index", "green")]),
        ),
    ];
    let mut keys = Vec::new();
    for (what, case) in cases {
        let key = case.key();
        assert!(!keys.contains(&key), "{what} does not change the key");
        keys.push(key);
    }
}

#[test]
fn what_does_not_matter_to_a_search_does_not_change_its_key() {
    let base = search(SEARCH).key();
    let texts = [
        r#"{"limit":5,"filter":{"must":[{"match":1,"key":"a"}]},"query":[0.1,0.2]}"#,
        r#" { "query" : [ 0.1 , 0.2 ], "filter": {"must":[ {"key":"a","match":1} ]}, "limit":5 }
"#,
        r#"{"qu\u0065ry":[0.1,0.2],"filter":{"must":[{"key":"\u0061","match":1}]},"limit":5}"#,
    ];
    for text in texts {
        assert_eq!(search(text).key(), base, "{text}");
    }
    let mut other = search(SEARCH);
    other.headers = vec![(":authority", "API.example.com"), ("x-request-id", "7")];
    assert_eq!(other.key(), base);
}

#[test]
fn a_search_whose_body_two_parsers_may_read_in_two_ways_has_no_key() {
    for body in [r#"{"limit":5,"limit":50}"#, r#"{"q":"\ud800"}"#] {
        assert_eq!(search(body).maybe_key(), None, "{body}");
    }
}
