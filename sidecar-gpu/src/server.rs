//! The listener: connections, TLS, and an orderly end.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use crate::app::App;
use crate::clock::Clock;
use crate::config::Serve;
use crate::http::{self, ClientCertificate};
use crate::tls;

/// Connections open at once; more wait in the listener's backlog.
const CONNECTIONS: usize = 4096;
/// Streams at once on one HTTP/2 connection.
const STREAMS: u32 = 256;
/// How long a connection may take to send a request's headers, idle time between requests
/// included; Envoy opens another when it needs one.
const IDLE: Duration = Duration::from_secs(600);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long calls in flight may take to end at shutdown.
const DRAIN: Duration = Duration::from_secs(10);
/// How often Redis is told what it missed.
const CATCH_UP: Duration = Duration::from_secs(1);
/// How often the ledger is pruned.
const PRUNE: Duration = Duration::from_secs(600);
/// How often memory is freed of answers past their time.
const SWEEP: Duration = Duration::from_secs(60);

/// Serves `config` on `listener` until `shutdown`, then drains calls and flushes the ledger.
///
/// # Errors
/// When the ledger, the store or the certificates cannot be opened.
pub async fn run(
    listener: TcpListener,
    config: Serve,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let app = App::open(config, Clock::System)?;
    serve(listener, app, shutdown).await
}

/// [`run`] over an application that is open already.
///
/// # Errors
/// When the certificates cannot be read.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let acceptor = match &app.config().tls {
        Some(files) => Some(tls::acceptor(files)?),
        None => None,
    };
    app.restore().await;
    let background = tokio::spawn(background(app.clone()));
    let connections = Connections {
        router: http::app(app.clone()),
        acceptor,
        room: Arc::new(Semaphore::new(CONNECTIONS)),
    };
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = connections.accept(&listener) => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, permit)) => connections.start(stream, permit, graceful.watcher()),
            Err(error) => {
                // Out of file descriptors, mostly: what is open goes on, and room comes back.
                log::warn!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown())
        .await
        .is_err()
    {
        log::warn!("calls in flight were given up after {DRAIN:?}");
    }
    background.abort();
    // What Redis has not heard of is in this process only.
    app.leave().await;
    app.ledger().close().await;
    Ok(())
}

async fn background(app: Arc<App>) {
    tokio::join!(chores(&app), questions(&app), app.listen());
}

/// Apart from the chores: what budgets wait for must not wait until a slow Redis has heard and told
/// all questions.
async fn questions(app: &App) {
    let mut turn = tokio::time::interval(CATCH_UP);
    loop {
        turn.tick().await;
        app.exchange_questions().await;
    }
}

async fn chores(app: &Arc<App>) {
    let mut catch_up = tokio::time::interval(CATCH_UP);
    let mut prune = tokio::time::interval(PRUNE);
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            _ = catch_up.tick() => app.catch_up_accounts().await,
            _ = prune.tick() => app.prune().await,
            _ = sweep.tick() => app.sweep().await,
        }
    }
}

struct Connections {
    router: axum::Router,
    acceptor: Option<TlsAcceptor>,
    room: Arc<Semaphore>,
}

impl Connections {
    async fn accept(
        &self,
        listener: &TcpListener,
    ) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let permit = self
            .room
            .clone()
            .acquire_owned()
            .await
            .map_err(std::io::Error::other)?;
        let (stream, _) = listener.accept().await?;
        // Answers are small; waiting to fill a packet would cost 40 ms.
        stream.set_nodelay(true)?;
        Ok((stream, permit))
    }

    fn start(&self, stream: TcpStream, permit: OwnedSemaphorePermit, watcher: Watcher) {
        let router = self.router.clone();
        let acceptor = self.acceptor.clone();
        tokio::spawn(async move {
            let _permit = permit;
            match acceptor {
                None => talk(stream, router, (false, watcher)).await,
                Some(acceptor) => {
                    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            let certificate = stream.get_ref().1.peer_certificates().is_some();
                            talk(stream, router, (certificate, watcher)).await;
                        }
                        Ok(Err(error)) => log::debug!("handshake: {error}"),
                        Err(_) => log::debug!("handshake: too slow"),
                    }
                }
            }
        });
    }
}

/// One connection, HTTP/1 or HTTP/2 as its first bytes say.
async fn talk<S>(stream: S, router: axum::Router, (certificate, watcher): (bool, Watcher))
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(Body::new);
        if certificate {
            request.extensions_mut().insert(ClientCertificate);
        }
        router.clone().call(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        log::debug!("connection: {error}");
    }
}
