//! A way to an Envoy for a sidecar whose config has to name it before it is there.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::anyhow;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What came by each connection, in their order.
type Came = Arc<Mutex<Vec<Vec<u8>>>>;

/// A listener on this machine whose place is known at once: what comes there goes to what is behind
/// it, as soon as there is something.
#[derive(Debug)]
pub struct Door {
    address: SocketAddr,
    behind: Arc<OnceLock<SocketAddr>>,
    came: Came,
}

impl Door {
    /// Opens one with nothing behind it.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn open() -> anyhow::Result<Door> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let behind = Arc::new(OnceLock::new());
        let to = behind.clone();
        let came = Came::default();
        let all = came.clone();
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok((from, _)) = listener.accept().await {
                let Some(address) = to.get().copied() else {
                    continue;
                };
                keep(&all, number, &[]);
                tokio::spawn(pass(from, address, (all.clone(), number)));
                number += 1;
            }
        });
        Ok(Door {
            address,
            behind,
            came,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Says what is behind it.
    ///
    /// # Errors
    /// When that was said before.
    pub fn leads_to(&self, address: SocketAddr) -> anyhow::Result<()> {
        let said = self.behind.set(address);
        said.map_err(|_| anyhow!("the door leads somewhere already"))
    }

    /// What has come so far by each connection, as whoever reads the loopback sees it.
    #[must_use]
    pub fn came(&self) -> Vec<Vec<u8>> {
        let came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        came.clone()
    }
}

fn keep(came: &Came, number: usize, bytes: &[u8]) {
    let mut came = came.lock().unwrap_or_else(PoisonError::into_inner);
    if came.len() <= number {
        came.resize_with(number + 1, Vec::new);
    }
    if let Some(own) = came.get_mut(number) {
        own.extend_from_slice(bytes);
    }
}

/// Passes a connection on, and keeps what came by it.
async fn pass(
    mut from: TcpStream,
    address: SocketAddr,
    (came, number): (Came, usize),
) -> std::io::Result<()> {
    let mut to = TcpStream::connect(address).await?;
    let (mut client, mut back) = from.split();
    let (mut answers, mut behind) = to.split();
    let there = async {
        let mut part = vec![0; 64 << 10];
        loop {
            let len = client.read(&mut part).await?;
            let bytes = part.get(..len).unwrap_or_default();
            if bytes.is_empty() {
                return behind.shutdown().await;
            }
            keep(&came, number, bytes);
            behind.write_all(bytes).await?;
        }
    };
    let here = tokio::io::copy(&mut answers, &mut back);
    tokio::select! {
        ended = there => ended,
        ended = here => ended.map(drop),
    }
}
