//! Between an API's file and the socket: what an endpoint answers, before faults and bytes.

use serde_json::{Value, json};
use sluice_wire::Usage;

/// What an endpoint answers.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) model: String,
    pub(crate) usage: Usage,
    pub(crate) body: Body,
}

/// One JSON value, or events.
#[derive(Debug)]
pub(crate) enum Body {
    Json(Value),
    Events(Vec<Event>),
}

/// One server-sent event.
#[derive(Debug)]
pub(crate) struct Event {
    /// The `event:` line.
    pub(crate) name: Option<&'static str>,
    pub(crate) data: Data,
    /// Completion tokens that the client has got with it, as billed.
    pub(crate) told: u64,
}

/// The `data:` line.
#[derive(Debug)]
pub(crate) enum Data {
    Json(Value),
    Done,
}

impl Event {
    /// An event named by its own `type` field, as Anthropic and the Responses API do.
    pub(crate) fn typed(name: &'static str, mut data: Value, told: u64) -> Event {
        data["type"] = json!(name);
        Event {
            name: Some(name),
            data: Data::Json(data),
            told,
        }
    }

    /// An event without a name, as the older OpenAI APIs send.
    pub(crate) fn plain(data: Value, told: u64) -> Event {
        Event {
            name: None,
            data: Data::Json(data),
            told,
        }
    }

    /// `data: [DONE]`.
    pub(crate) fn done(told: u64) -> Event {
        Event {
            name: None,
            data: Data::Done,
            told,
        }
    }

    /// Its bytes.
    pub(crate) fn render(&self) -> String {
        let data = match &self.data {
            Data::Json(data) => data.to_string(),
            Data::Done => "[DONE]".to_owned(),
        };
        match self.name {
            Some(name) => format!("event: {name}\ndata: {data}\n\n"),
            None => format!("data: {data}\n\n"),
        }
    }
}

/// Removes what a provider that reports no usage would not send.
pub(crate) fn omit_usage(body: &mut Body) {
    let strip = |value: &mut Value| {
        for at in ["", "/response", "/message"] {
            if let Some(Value::Object(fields)) = value.pointer_mut(at) {
                fields.remove("usage");
            }
        }
    };
    match body {
        Body::Json(value) => strip(value),
        Body::Events(events) => {
            events.retain(|event| {
                // The chunk that carries nothing but usage does not exist without it.
                !matches!(&event.data, Data::Json(data) if data["choices"].as_array().is_some_and(Vec::is_empty))
            });
            for event in events {
                if let Data::Json(data) = &mut event.data {
                    strip(data);
                }
            }
        }
    }
}

/// Why an endpoint refuses.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// Anthropic's and OpenAI's `type`.
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
    pub(crate) code: Option<&'static str>,
}

impl Refusal {
    pub(crate) fn invalid(param: &str, message: impl Into<String>) -> Refusal {
        Refusal {
            status: 400,
            kind: "invalid_request_error",
            message: message.into(),
            param: (!param.is_empty()).then(|| param.to_owned()),
            code: None,
        }
    }

    pub(crate) fn code(mut self, code: &'static str) -> Refusal {
        self.code = Some(code);
        self
    }

    pub(crate) fn unknown_model(model: &str) -> Refusal {
        Refusal {
            status: 404,
            kind: "invalid_request_error",
            message: format!("The model `{model}` does not exist or you do not have access to it."),
            param: None,
            code: Some("model_not_found"),
        }
    }

    pub(crate) fn wrong_endpoint(model: &str, endpoint: &str) -> Refusal {
        Refusal {
            status: 404,
            kind: "invalid_request_error",
            message: format!("The model `{model}` is not supported in the {endpoint} endpoint."),
            param: Some("model".to_owned()),
            code: None,
        }
    }

    /// By a status alone, as faults ask for it.
    pub(crate) fn of_status(status: u16) -> Refusal {
        let (kind, message) = match status {
            400 => ("invalid_request_error", "Bad request."),
            401 => ("authentication_error", "Incorrect API key provided."),
            403 => ("permission_error", "You are not allowed to do this."),
            404 => ("not_found_error", "Not found."),
            413 => ("request_too_large", "Request exceeds the maximum size."),
            429 => (
                "rate_limit_error",
                "Rate limit reached. Please try again later.",
            ),
            529 => ("overloaded_error", "Overloaded."),
            503 => (
                "service_unavailable",
                "The service is temporarily overloaded.",
            ),
            _ => (
                "server_error",
                "The server had an error while processing your request.",
            ),
        };
        Refusal {
            status,
            kind,
            message: message.to_owned(),
            param: None,
            code: (status == 429).then_some("rate_limit_exceeded"),
        }
    }

    pub(crate) fn openai(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }})
    }

    pub(crate) fn anthropic(&self, request_id: &str) -> Value {
        let kind = match self.status {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            529 => "overloaded_error",
            400..500 => "invalid_request_error",
            _ => "api_error",
        };
        json!({
            "type": "error",
            "error": {"type": kind, "message": self.message},
            "request_id": request_id,
        })
    }
}
