//! A provider that costs next to nothing: one fixed chat answer, whatever is asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::load::{head_end, header};

/// A running canned provider; it ends when dropped.
#[derive(Debug)]
pub struct Canned {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

/// Completion tokens of every answer, of which it has about as many as it says.
pub const COMPLETION: u64 = 120;

/// Bytes of a prompt per token, by its books.
const BYTES_PER_TOKEN: usize = 5;

impl Canned {
    /// Starts one on the current runtime.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> anyhow::Result<Canned> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let requests = Arc::new(AtomicU64::new(0));
        let count = requests.clone();
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let count = count.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve(socket, &count).await {
                        eprintln!("canned provider: {error:#}");
                    }
                });
            }
        });
        Ok(Canned {
            address,
            requests,
            task,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests answered so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Canned {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut socket: TcpStream, count: &AtomicU64) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    let mut input = Vec::with_capacity(64 << 10);
    loop {
        let mut end = None;
        while end.is_none_or(|end| input.len() < end) {
            if socket.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
            if end.is_none()
                && let Some(at) = head_end(&input)
            {
                let head = std::str::from_utf8(&input[..at])?;
                let length = header(head, "content-length").context("no content-length")?;
                end = Some(at + length.parse::<usize>()?);
            }
        }
        count.fetch_add(1, Ordering::Relaxed);
        socket.write_all(answer(input.len()).as_bytes()).await?;
        input.clear();
    }
}

fn answer(request_bytes: usize) -> String {
    let prompt = (request_bytes / BYTES_PER_TOKEN) as u64;
    let total = prompt + COMPLETION;
    let text = "The delivery was handed to the carrier on Tuesday evening and should reach you \
                within two working days. You can follow it with the number in your confirmation; \
                if it has not moved by Friday noon, answer this message and we will send a \
                replacement the same day, at no cost to you. The refund for the damaged lamp was \
                approved this morning and takes three to five days, depending on your bank. \
                Please keep the packaging until then, because the carrier may ask to see it, and \
                note that the return label expires at the end of the month.";
    let body = format!(
        r#"{{"id":"chatcmpl-canned","object":"chat.completion","created":1767225600,"model":"gpt-4o-2024-08-06","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{prompt},"completion_tokens":{COMPLETION},"total_tokens":{total},"prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}},"service_tier":"default","system_fingerprint":"fp_canned"}}"#
    );
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
