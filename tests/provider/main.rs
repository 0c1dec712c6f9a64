//! `sluice-provider`: the stand-in provider as a program.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use sluice_tests::provider::{Catalog, Config, Counting, run};
use tokio::net::TcpListener;

/// Answers as OpenAI and Anthropic do, without a model: deterministic text, honest token counts.
#[derive(Debug, Parser)]
#[command(name = "sluice-provider", version)]
struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// Price table (JSON): {MODEL: {input, cached_input, cache_write, output}} in dollars per
    /// million tokens, or an object with such a `models` field.
    #[arg(long)]
    prices: Option<PathBuf>,
    /// Milliseconds to the first token.
    #[arg(long, default_value_t = 5)]
    ttft_ms: u64,
    /// Generation speed; 0: as fast as possible.
    #[arg(long, default_value_t = 2000)]
    tokens_per_second: u64,
    /// How to count prompts.
    #[arg(long, value_enum, default_value_t = Counting::Exact)]
    counting: Counting,
    /// Answer with about so many tokens instead of a plausible length.
    #[arg(long)]
    answer_tokens: Option<u64>,
    /// Milliseconds after its last use that the front of a prompt is remembered and discounted; the
    /// request header `x-provider-clock` says what time it is, else the clock does.
    #[arg(long, default_value_t = 300_000)]
    prefix_ms: u64,
    /// Largest request body in bytes.
    #[arg(long, default_value_t = 32 << 20)]
    max_body: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let catalog = match &args.prices {
        None => Catalog::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.with_context(|| format!("--prices {}", path.display()))?;
            Catalog::priced_by(&serde_json::from_str(&text)?)?
        }
    };
    let config = Config {
        catalog,
        ttft_ms: args.ttft_ms,
        tokens_per_second: args.tokens_per_second,
        counting: args.counting,
        answer_tokens: args.answer_tokens,
        prefix_ms: args.prefix_ms,
        max_body: args.max_body,
    };
    let listener = TcpListener::bind(&args.listen).await;
    let listener = listener.with_context(|| format!("--listen {}", args.listen))?;
    println!("listening on http://{}", listener.local_addr()?);
    let shutdown = async {
        // Without a signal handler the process ends at the signal anyway.
        let _ = tokio::signal::ctrl_c().await;
    };
    run(listener, config, shutdown).await
}
