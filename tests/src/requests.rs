//! Requests of the five APIs that say the same thing.

use serde_json::{Value, json};

/// One API, as tests need it.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    /// Name in the ledger.
    pub name: &'static str,
    /// Path.
    pub path: &'static str,
    /// The field that limits the output; none where there is no output.
    pub limit: Option<&'static str>,
    build: fn(&str) -> Value,
}

impl Api {
    /// A request that says `text`.
    #[must_use]
    pub fn request(&self, text: &str) -> Value {
        (self.build)(text)
    }

    /// The same, streamed.
    #[must_use]
    pub fn streamed(&self, text: &str) -> Value {
        let mut body = self.request(text);
        body["stream"] = json!(true);
        body
    }
}

/// OpenAI chat completions.
pub const CHAT: Api = Api {
    name: "openai.chat",
    path: "/v1/chat/completions",
    limit: Some("max_tokens"),
    build: chat,
};

/// OpenAI legacy completions.
pub const COMPLETIONS: Api = Api {
    name: "openai.completions",
    path: "/v1/completions",
    limit: Some("max_tokens"),
    build: |text| json!({"model": "gpt-3.5-turbo-instruct", "prompt": text, "max_tokens": 400}),
};

/// OpenAI Responses.
pub const RESPONSES: Api = Api {
    name: "openai.responses",
    path: "/v1/responses",
    limit: Some("max_output_tokens"),
    build: |text| json!({"model": "gpt-4o", "input": text}),
};

/// OpenAI embeddings.
pub const EMBEDDINGS: Api = Api {
    name: "openai.embeddings",
    path: "/v1/embeddings",
    limit: None,
    build: |text| json!({"model": "text-embedding-3-small", "input": text, "dimensions": 16}),
};

/// Anthropic Messages.
pub const MESSAGES: Api = Api {
    name: "anthropic.messages",
    path: "/v1/messages",
    limit: Some("max_tokens"),
    build: |text| {
        json!({
            "model": "claude-sonnet-4-5",
            "max_tokens": 800,
            "messages": [{"role": "user", "content": text}],
        })
    },
};

/// All five.
pub const APIS: [Api; 5] = [CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, MESSAGES];

/// Those that generate text and can stream it.
pub const STREAMING: [Api; 4] = [CHAT, COMPLETIONS, RESPONSES, MESSAGES];

/// A chat request with one user message to gpt-4o.
#[must_use]
pub fn chat(text: &str) -> Value {
    json!({"model": "gpt-4o", "messages": [{"role": "user", "content": text}]})
}

/// A prompt that nobody would give to a small model.
pub const HARD: &str = "We have a race condition: two workers read the same row from our jobs table, both see \
state 'new', both run the job.\n\n```sql\nSELECT id, payload FROM jobs WHERE state = 'new' ORDER BY id LIMIT 1;\n\
UPDATE jobs SET state = 'running' WHERE id = $1;\n```\n\nDesign a fix that works on PostgreSQL 15, keeps throughput at \
about 2,000 jobs a minute, survives a worker that dies in the middle of a job, and does not need another service. \
First derive which interleavings are possible and prove that your claim query excludes each of them. Then implement \
the worker loop in Rust with sqlx, including the lease that expires, the retry with exponential backoff and the \
dead-letter table. Finally analyse step by step in which case a job can still run twice, calculate how long it may \
be stuck in the worst case, and compare your design with advisory locks, with LISTEN/NOTIFY and with a message \
broker: trade-offs in latency, correctness and operations. Explain every assumption that you make.";

/// A prompt that any model can answer.
pub const EASY: &str = "Hello, what are your opening hours?";
