//! Latency at a fixed rate, of several Envoys in the same seconds, so that each sees the same
//! disturbances.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sluice_tests::prompts::Prompts;

/// Between two requests to one Envoy: 100 a second.
const GAP: Duration = Duration::from_millis(10);

/// Sends 100 requests a second to every target for `time`, and returns each one's milliseconds.
///
/// A request that could not be sent in time, because the one before was not answered, counts from
/// when it should have been sent. The targets take turns within the gap.
pub(crate) fn measure(
    targets: &[(SocketAddr, Arc<Prompts>)],
    time: Duration,
) -> anyhow::Result<Vec<Vec<f64>>> {
    let count = u32::try_from(targets.len()).unwrap_or(1).max(1);
    let start = Instant::now() + GAP;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(targets)
            .map(|(turn, (address, prompts))| {
                let first = start + GAP * turn / count;
                scope.spawn(move || one(*address, prompts, first, time))
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
    address: SocketAddr,
    prompts: &Prompts,
    first: Instant,
    time: Duration,
) -> anyhow::Result<Vec<f64>> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let mut request = Vec::new();
    let mut input = vec![0; 64 << 10];
    let mut times = Vec::new();
    let mut due = first;
    while due < first + time {
        prompts.next(&mut request);
        let mut begin = due;
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            thread::sleep(wait);
            begin = Instant::now();
        }
        socket.write_all(&request)?;
        answer(&mut socket, &mut input)?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        due += GAP;
    }
    Ok(times)
}

/// Reads one answer, which has to be a 200.
fn answer(socket: &mut TcpStream, input: &mut [u8]) -> anyhow::Result<()> {
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
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .context("an answer without content-length")?;
            end = Some(at + 4 + length.trim().parse::<usize>()?);
        }
        if end.is_some_and(|end| len >= end) {
            return Ok(());
        }
    }
}
