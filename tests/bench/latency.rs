//! Latency at a fixed rate, of several Envoys in the same seconds, so that each sees the same
//! disturbances.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sluice_tests::load::header;
use sluice_tests::prompts::Prompts;

/// Where requests come from.
pub(crate) trait Source: Send + Sync {
    /// Puts the next whole request into `into`.
    fn next(&self, into: &mut Vec<u8>);
}

impl Source for Prompts {
    fn next(&self, into: &mut Vec<u8>) {
        Prompts::next(self, into);
    }
}

/// An Envoy, and what it is asked.
pub(crate) type Target = (SocketAddr, Arc<dyn Source>);

/// What one target's requests came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Milliseconds of each.
    pub(crate) times: Vec<f64>,
    /// Answers by their `x-sluice-cache`, empty where there is none.
    pub(crate) cache: BTreeMap<String, usize>,
}

/// Sends `rate` requests a second to every target for `time`.
///
/// A request that could not be sent in time, because the one before was not answered, counts from
/// when it should have been sent. The targets take turns within the gap.
pub(crate) fn measure(
    targets: &[Target],
    (rate, time): (u32, Duration),
) -> anyhow::Result<Vec<Seen>> {
    let count = u32::try_from(targets.len()).unwrap_or(1).max(1);
    let gap = Duration::from_secs(1) / rate.max(1);
    let start = Instant::now() + gap;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(targets)
            .map(|(turn, target)| {
                let first = start + gap * turn / count;
                scope.spawn(move || one(target, (first, gap), time))
            })
            .collect();
        let done = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("a thread of the load panicked"),
        });
        done.collect()
    })
}

fn one(
    (address, source): &Target,
    (first, gap): (Instant, Duration),
    time: Duration,
) -> anyhow::Result<Seen> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let mut request = Vec::new();
    let mut input = vec![0; 64 << 10];
    let mut seen = Seen::default();
    let mut due = first;
    while due < first + time {
        source.next(&mut request);
        let mut begin = due;
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            thread::sleep(wait);
            begin = Instant::now();
        }
        socket.write_all(&request)?;
        let head = answer(&mut socket, &mut input)?;
        seen.times.push(begin.elapsed().as_secs_f64() * 1e3);
        let cache = header(head, "x-sluice-cache").unwrap_or_default();
        *seen.cache.entry(cache.to_owned()).or_default() += 1;
        due += gap;
    }
    Ok(seen)
}

/// Reads one answer, which has to be a 200, and returns its head.
fn answer<'a>(socket: &mut TcpStream, input: &'a mut [u8]) -> anyhow::Result<&'a str> {
    let (mut len, mut end) = (0, None);
    loop {
        let read = socket.read(&mut input[len..])?;
        if read == 0 {
            bail!("the connection ended within an answer, or it is too long");
        }
        len += read;
        if end.is_none()
            && let Some(at) = input[..len].windows(4).position(|four| four == b"\r\n\r\n")
        {
            let head = std::str::from_utf8(&input[..at])?;
            if !head.starts_with("HTTP/1.1 200") {
                bail!("answered: {head}");
            }
            let length = header(head, "content-length");
            let length: usize = length
                .context("an answer without content-length")?
                .parse()?;
            end = Some((at, at + 4 + length));
        }
        if let Some((head, all)) = end
            && len >= all
        {
            return Ok(std::str::from_utf8(&input[..head])?);
        }
    }
}
