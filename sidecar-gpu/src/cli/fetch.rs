//! Calls to a running sidecar, over HTTP.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

/// How long the whole call may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest answer that is read.
const MAX_ANSWER: usize = 64 << 20;

/// A running sidecar, and who asks it.
#[derive(clap::Args)]
pub(super) struct Remote {
    /// A running sidecar
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8089")]
    pub(super) url: String,
    /// Token of an operator
    #[arg(long, env = "SLUICE_TOKEN", hide_env_values = true)]
    pub(super) token: String,
}

impl Remote {
    /// Asks for `path` and reads the answer's JSON.
    pub(super) fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<T> {
        let url: Uri = self
            .url
            .parse()
            .with_context(|| format!("--url {}", self.url))?;
        if url.scheme_str() != Some("http") {
            bail!(
                "--url: expected `http://HOST:PORT`, found `{url}`; a sidecar that serves TLS is reached through a tunnel, and its report by --config"
            );
        }
        let authority = url
            .authority()
            .with_context(|| format!("--url: expected `http://HOST:PORT`, found `{url}`"))?
            .clone();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, authority.as_str())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Full::new(Bytes::from(body)))?;
        let address = format!(
            "{}:{}",
            authority.host(),
            authority.port_u16().unwrap_or(80)
        );
        let answer = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(async {
                tokio::time::timeout(PATIENCE, ask(&address, request))
                    .await
                    .with_context(|| format!("{address}: no answer within {PATIENCE:?}"))?
            })?;
        serde_json::from_slice(&answer)
            .with_context(|| format!("{address}: not what {path} answers"))
    }
}

async fn ask(address: &str, request: Request<Full<Bytes>>) -> anyhow::Result<Bytes> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot reach {address}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let talking = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("{address}: {error}"))?
        .to_bytes();
    talking.abort();
    if !status.is_success() {
        bail!("{address}: {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(body)
}
