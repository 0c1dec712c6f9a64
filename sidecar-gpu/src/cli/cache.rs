//! `sluice cache`: look into the cache of a running sidecar, and drop from it.

use anyhow::bail;
use clap::Subcommand;
use hyper::Method;
use serde_json::Value;
use sluice_wire::{Invalidate, Invalidated, path};

use super::fetch::Remote;
use crate::cache::{Key, Layer};
use crate::http::{Kept, Listing};

/// Look into the cache, and drop from it
#[derive(clap::Args)]
#[command(
    long_about = "Look into the cache of a running sidecar, and drop from it, with an operator's \
                  token. Sidecars that share a Redis share what is dropped; of those that do not, \
                  each is asked by itself.",
    after_help = "Examples:\n  sluice cache stats --url http://127.0.0.1:8089\n  \
                  sluice cache get 0f1e…\n  sluice cache get 0f1e… --body\n  \
                  sluice cache drop 0f1e…\n  sluice cache drop --tag doc:42 --tenant acme\n  \
                  sluice cache drop --all --yes\n\nThe token is read from SLUICE_TOKEN."
)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show what is kept and how look-ups fared since the start
    Stats {
        #[command(flatten)]
        remote: Remote,
        /// Print JSON, as `/v1/cache` answers it
        #[arg(long)]
        json: bool,
    },
    /// Show what is kept under a key: times, tags, sizes, usage
    Get {
        #[command(flatten)]
        remote: Remote,
        /// The key, 64 hex digits
        key: Key,
        /// Print the answer as well. It is what a model told someone: that it was read is logged
        #[arg(long)]
        body: bool,
    },
    /// Drop one answer, all that were built on something, or everything
    #[command(group = clap::ArgGroup::new("what").required(true).args(["key", "tag", "all"]))]
    Drop {
        #[command(flatten)]
        remote: Remote,
        /// The key, 64 hex digits
        key: Option<Key>,
        /// What the answers were built on; those under way are dropped too
        #[arg(long)]
        tag: Option<String>,
        /// Only this tenant's
        #[arg(long, requires = "tag")]
        tenant: Option<String>,
        /// Everything; each request is paid for once more
        #[arg(long)]
        all: bool,
        /// Do not ask
        #[arg(long, requires = "all")]
        yes: bool,
    },
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.action {
        Action::Stats { remote, json } => {
            let listing: Listing = remote.call(Method::GET, path::CACHE, Vec::new())?;
            if *json {
                println!("{}", serde_json::to_string_pretty(&listing)?);
            } else {
                listing
                    .layers
                    .iter()
                    .for_each(|layer| print!("{}", show(layer)));
            }
        }
        Action::Get { remote, key, body } => {
            let path = format!("{}/{key}?body={body}", path::CACHE);
            let kept: Kept = remote.call(Method::GET, &path, Vec::new())?;
            println!("{}", serde_json::to_string_pretty(&kept)?);
        }
        Action::Drop {
            remote,
            key: Some(key),
            ..
        } => {
            let path = format!("{}/{key}", path::CACHE);
            let answer: Value = remote.call(Method::DELETE, &path, Vec::new())?;
            match answer["dropped"].as_bool() {
                Some(true) => println!("dropped"),
                _ => bail!("no answer is kept there"),
            }
        }
        Action::Drop {
            remote,
            tag: Some(tag),
            tenant,
            ..
        } => {
            let ask = Invalidate {
                tenant: tenant.clone(),
                tag: tag.clone(),
            };
            let body = serde_json::to_vec(&ask)?;
            let done: Invalidated = remote.call(Method::POST, path::INVALIDATE, body)?;
            let wait = done.everywhere_ms.saturating_sub(done.at_ms);
            println!("what was built on {tag:?} is void; everywhere within {wait} ms");
        }
        Action::Drop { remote, yes, .. } => {
            if !yes && !confirmed()? {
                bail!("nothing was dropped; --yes does not ask");
            }
            let _: Value = remote.call(Method::DELETE, path::CACHE, Vec::new())?;
            println!("everything was dropped");
        }
    }
    Ok(())
}

fn confirmed() -> anyhow::Result<bool> {
    eprint!("Drop every answer? Each request is paid for once more. [y/N] ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

fn show(layer: &Layer) -> String {
    let looked = layer.hits + layer.misses;
    let mut out = format!("{}\n", layer.name);
    let mut line = |name: &str, value: String| out.push_str(&format!("  {name:<10} {value}\n"));
    if let Some(entries) = layer.entries {
        line("entries", entries.to_string());
    }
    if let (Some(bytes), Some(capacity)) = (layer.bytes, layer.capacity) {
        line("bytes", format!("{bytes} of {capacity}"));
    }
    if let Some(subscribed) = layer.subscribed {
        let state = if subscribed { "yes" } else { "no: not used" };
        line("subscribed", state.to_owned());
    }
    let share = |part: u64| part as f64 * 100.0 / looked.max(1) as f64;
    line(
        "hits",
        format!("{} ({:.1}%)", layer.hits, share(layer.hits)),
    );
    line("misses", layer.misses.to_string());
    line("stored", layer.stored.to_string());
    for (name, count) in [
        ("voided", layer.voided),
        ("fenced", layer.fenced),
        ("refused", layer.refused),
    ] {
        if count > 0 {
            line(name, count.to_string());
        }
    }
    for (kind, count) in layer.corrupt.iter().filter(|(_, count)| **count > 0) {
        line("corrupt", format!("{count} ({kind})"));
    }
    out
}
