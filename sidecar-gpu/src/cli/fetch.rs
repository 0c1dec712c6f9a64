//! A report from a running sidecar, over HTTP.

use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

/// How long the whole call may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest answer that is read.
const MAX_ANSWER: usize = 64 << 20;

/// Asks the sidecar at `url` (`http://HOST:PORT`) for what is at `path`.
pub(super) fn get<T: DeserializeOwned>(url: &str, path: &str, token: &str) -> anyhow::Result<T> {
    let url: Uri = url.parse().with_context(|| format!("--url {url}"))?;
    if url.scheme_str() != Some("http") {
        bail!(
            "--url: expected `http://HOST:PORT`, found `{url}`; where the sidecar serves TLS, read the ledger with --config instead"
        );
    }
    let authority = url
        .authority()
        .with_context(|| format!("--url: expected `http://HOST:PORT`, found `{url}`"))?
        .clone();
    let request = Request::get(path)
        .header(header::HOST, authority.as_str())
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Empty::<bytes::Bytes>::new())?;
    let address = format!(
        "{}:{}",
        authority.host(),
        authority.port_u16().unwrap_or(80)
    );
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            tokio::time::timeout(PATIENCE, ask(&address, request))
                .await
                .with_context(|| format!("{address}: no answer within {PATIENCE:?}"))?
        })
}

async fn ask<T: DeserializeOwned>(
    address: &str,
    request: Request<Empty<bytes::Bytes>>,
) -> anyhow::Result<T> {
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
    serde_json::from_slice(&body).with_context(|| format!("{address}: not a report"))
}
