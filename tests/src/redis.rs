//! A Redis of the test's own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::process::Process;
use crate::tools;

/// A running Redis that keeps nothing on disk.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    address: SocketAddr,
}

impl Redis {
    /// Starts one.
    ///
    /// # Errors
    /// When there is no `redis-server`, or it does not answer.
    pub async fn start(dir: &Path) -> anyhow::Result<Redis> {
        // Redis cannot pick a port: take one that was free a moment ago.
        let address = TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?;
        Redis::start_at(dir, address).await
    }

    /// Starts one at a given address, for instance where another one was killed.
    ///
    /// # Errors
    /// When there is no `redis-server`, or it does not answer.
    pub async fn start_at(dir: &Path, address: SocketAddr) -> anyhow::Result<Redis> {
        let mut command = Command::new(tools::redis()?);
        command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"]);
        command
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(dir);
        let mut process = Process::start("redis", &mut command, dir)?;
        process
            .until(async |_| {
                let mut socket = TcpStream::connect(address).await.ok()?;
                socket.write_all(b"PING\r\n").await.ok()?;
                let mut answer = [0; 7];
                socket.read_exact(&mut answer).await.ok()?;
                (&answer == b"+PONG\r\n").then_some(())
            })
            .await?;
        Ok(Redis { process, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As the config's `serve.store` names it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Sends one command, and returns the first line of its answer.
    ///
    /// # Errors
    /// When Redis does not answer, or with an error.
    pub async fn command(&self, command: &str) -> anyhow::Result<String> {
        let mut socket = TcpStream::connect(self.address).await?;
        socket
            .write_all(format!("{command}\r\n").as_bytes())
            .await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n") {
            if socket.read_buf(&mut answer).await? == 0 {
                anyhow::bail!("{command}: no answer");
            }
        }
        let answer = String::from_utf8_lossy(&answer).trim_end().to_owned();
        anyhow::ensure!(!answer.starts_with('-'), "{command}: {answer}");
        Ok(answer)
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}
