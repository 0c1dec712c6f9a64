//! `sluice serve`.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::config;

/// Run the sidecar
#[derive(clap::Args)]
#[command(
    long_about = "Run the sidecar: budgets, caches and the ledger behind /v1/admit and /v1/settle, \
                  and /report, /metrics, /healthz and /readyz.\n\nPrints `listening on URL` once \
                  it can be called. SIGTERM and SIGINT end it in order: calls in flight are \
                  answered, the ledger is flushed.",
    after_help = "Examples:\n  sluice serve --config sluice.yaml\n  \
                  sluice serve --config sluice.yaml --listen 127.0.0.1:0"
)]
pub(super) struct Args {
    /// Config file, YAML or JSON; the filter's, with a section `serve`
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Address instead of `serve.listen` (default 127.0.0.1:8089); port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut config = config::read(&args.config, &config::process_env)
        .with_context(|| format!("{} is refused", args.config.display()))?
        .serve;
    if let Some(listen) = &args.listen {
        config.listen.clone_from(listen);
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve(config))
}

async fn serve(config: config::Serve) -> anyhow::Result<()> {
    // Before the address is told: whoever reads it may send the signal at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(&config.listen)
        .await
        .with_context(|| format!("serve.listen: {}", config.listen))?;
    let address = listener.local_addr()?;
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    if config.tls.is_none() && !address.ip().is_loopback() {
        log::warn!("listening beyond this machine without TLS: the shared secret can be read");
    }
    let app = crate::App::open(config, crate::clock::Clock::System)?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening on {scheme}://{address}")?;
    stdout.flush()?;
    crate::server::serve(listener, app, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        log::info!("ending: draining calls, flushing the ledger");
    })
    .await
}
