//! A sidecar that misbehaves on purpose.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;

/// How it answers `/v1/admit`.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// "Go", as a healthy one with room in every budget.
    Go,
    /// Never.
    Hang,
    /// With this status and an empty body.
    Status(u16),
    /// 200 with these bytes.
    Body(Vec<u8>),
    /// With half an answer and the end of the connection.
    Close,
}

#[derive(Debug)]
struct Inner {
    manner: Mutex<Manner>,
    admits: AtomicU64,
}

/// One that runs.
#[derive(Debug)]
pub(crate) struct FakeSidecar {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
}

impl FakeSidecar {
    pub(crate) async fn start(manner: Manner) -> FakeSidecar {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            manner: Mutex::new(manner),
            admits: AtomicU64::new(0),
        });
        let app = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, app).await });
        FakeSidecar { address, inner }
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.inner.manner.lock().unwrap() = manner;
    }

    /// Calls of `/v1/admit` so far.
    pub(crate) fn admits(&self) -> u64 {
        self.inner.admits.load(Ordering::SeqCst)
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    if request.uri().path() != sluice_wire::path::ADMIT {
        // What is to be settled is taken and forgotten.
        return "{\"booked\":1,\"repeated\":0}\n".into_response();
    }
    inner.admits.fetch_add(1, Ordering::SeqCst);
    let manner = inner.manner.lock().unwrap().clone();
    match manner {
        Manner::Go => "{\"verdict\":{\"go\":{\"plan\":0}}}\n".into_response(),
        Manner::Hang => std::future::pending().await,
        Manner::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Manner::Body(bytes) => bytes.into_response(),
        Manner::Close => {
            let parts = [Ok("{\"verdict\""), Err(std::io::Error::other("closes"))];
            Body::from_stream(futures_util::stream::iter(parts)).into_response()
        }
    }
}
