//! Load at little cost: kept-alive HTTP/1.1 connections that send prepared bytes, so that what is
//! measured is Envoy and not its client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::prompts::Prompts;

/// Longest answer that is read.
const ANSWER: usize = 4 << 20;

/// An answer, as far as a loop looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// HTTP status.
    pub status: u16,
    /// Status line and headers.
    pub head: &'a str,
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// The value of a header (lower case, as Envoy writes them).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        header(self.head, name)
    }
}

/// One connection, kept alive.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    input: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Connection> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Connection {
            socket,
            input: Vec::with_capacity(16 << 10),
        })
    }

    /// Sends a whole request and reads its whole answer, which must say its length.
    ///
    /// # Errors
    /// When the connection ends before, or the answer cannot be read.
    pub async fn send(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.socket.write_all(request).await?;
        self.input.clear();
        let mut end = None;
        loop {
            if self.socket.read_buf(&mut self.input).await? == 0 {
                bail!("the connection ended within an answer");
            }
            if end.is_none()
                && let Some(at) = head_end(&self.input)
            {
                let head = std::str::from_utf8(&self.input[..at])?;
                let length: usize = header(head, "content-length")
                    .context("an answer without content-length")?
                    .parse()?;
                if length > ANSWER {
                    bail!("an answer of {length} bytes; at most {ANSWER} are read");
                }
                end = Some((at, at + length));
            }
            if let Some((head, all)) = end
                && self.input.len() >= all
            {
                let text = std::str::from_utf8(&self.input[..head])?;
                let status = text.get(9..12).context("a status line")?.parse()?;
                let body = &self.input[head..all];
                return Ok(Answer {
                    status,
                    head: text,
                    body,
                });
            }
        }
    }
}

/// Where the body begins.
pub(crate) fn head_end(input: &[u8]) -> Option<usize> {
    let at = input.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(at + 4)
}

/// The value of a header, whose name is lower case.
#[must_use]
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// A whole request, as [`Connection::send`] takes it.
#[must_use]
pub fn post(path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut request = format!("POST {path} HTTP/1.1\r\nhost: llm.example.com\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("content-type: application/json\r\n");
    request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    request.into_bytes()
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answers.
    pub answers: u64,
    /// Of these, status 200.
    pub ok: u64,
    /// Of these, `x-sluice-cache: hit`.
    pub hits: u64,
    /// From the first request to the last answer.
    pub took: Duration,
}

impl Tally {
    /// Answers per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.answers as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }

    /// Counts an answer.
    pub fn count(&mut self, answer: &Answer<'_>) {
        self.answers += 1;
        self.ok += u64::from(answer.status == 200);
        self.hits += u64::from(answer.header("x-sluice-cache") == Some("hit"));
    }

    fn add(&mut self, other: &Tally) {
        self.answers += other.answers;
        self.ok += other.ok;
        self.hits += other.hits;
    }
}

/// When a loop ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After so many requests in all.
    Requests(u64),
    /// After so long.
    Passed(Duration),
}

/// A closed loop: each of `connections` sends its next request when the last was answered.
///
/// # Errors
/// When a connection fails.
pub async fn closed(
    address: SocketAddr,
    prompts: &Arc<Prompts>,
    connections: usize,
    until: Until,
) -> anyhow::Result<Tally> {
    let start = Instant::now();
    let taken = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (prompts, taken) = (prompts.clone(), taken.clone());
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut tally = Tally::default();
            let mut request = Vec::new();
            let more = || match until {
                Until::Requests(most) => taken.fetch_add(1, Ordering::Relaxed) < most,
                Until::Passed(time) => start.elapsed() < time,
            };
            while more() {
                prompts.next(&mut request);
                tally.count(&connection.send(&request).await?);
            }
            anyhow::Ok(tally)
        });
    }
    let mut all = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        all.add(&tally??);
    }
    all.took = start.elapsed();
    Ok(all)
}
