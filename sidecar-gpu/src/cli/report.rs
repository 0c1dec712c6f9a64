//! `sluice report`: spend and savings as a table.

use std::path::PathBuf;

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use hyper::Method;
use sluice_wire::Lever;

use super::fetch::Remote;
use crate::clock::Clock;
use crate::report::{ByLever, Report, Sums};
use crate::{config, http, ledger};

/// Show spend and savings
#[derive(clap::Args)]
#[command(
    long_about = "Show what requests cost, what they would have cost as asked, and which lever \
                  saved what. Reads the ledger's file (also beside a running sidecar), or asks a \
                  sidecar by --url. Every sidecar has a ledger of its own: name several, and \
                  their sums are added.",
    after_help = "Examples:\n  sluice report --config sluice.yaml\n  \
                  sluice report --data /var/lib/sluice --by tenant:model,day --from 7d\n  \
                  sluice report --data ledger-a --data ledger-b\n  \
                  SLUICE_TOKEN=… sluice report --url http://127.0.0.1:8089 --json"
)]
pub(super) struct Args {
    /// Config file; its `serve.data` says where the ledger is
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Directory of the ledger
    #[arg(long, value_name = "DIR")]
    data: Vec<PathBuf>,
    /// A running sidecar
    #[arg(long, value_name = "URL", requires = "token")]
    url: Vec<String>,
    /// Token of an operator or a tenant, for --url
    #[arg(long, env = "SLUICE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Breakdowns by task, model, endpoint, tenant, tier, route, cache, day; `a:b` is by both
    #[arg(long, value_name = "LIST", default_value = "task,model,endpoint")]
    by: String,
    /// Requests from then on: `2026-01-31`, `2026-01-31T12:00:00Z`, `24h` (ago)
    #[arg(long, value_name = "WHEN")]
    from: Option<String>,
    /// Requests before then
    #[arg(long, value_name = "WHEN")]
    to: Option<String>,
    /// Print JSON, as `/report` answers it
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let report = load(args)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", show(&report));
    }
    Ok(())
}

fn load(args: &Args) -> anyhow::Result<Report> {
    let now_ms = Clock::System.now_ms();
    let time = |name: &str, text: &Option<String>| {
        text.as_deref()
            .map(|text| http::moment(text, now_ms))
            .transpose()
            .map_err(|error| anyhow::anyhow!("--{name}: {error}"))
    };
    let query = ledger::Query {
        from_ms: time("from", &args.from)?,
        to_ms: time("to", &args.to)?,
        tenant: None,
        by: ledger::Query::breakdowns(&args.by)
            .map_err(|error| anyhow::anyhow!("--by: {error}"))?,
    };
    let mut reports = Vec::new();
    for url in &args.url {
        // Names, `:` and `,`, and whole seconds: nothing that would have to be escaped. The
        // dimensions were checked above.
        let mut text = format!("by={}", args.by.replace(' ', ""));
        for (name, moment) in [("from", query.from_ms), ("to", query.to_ms)] {
            if let Some(ms) = moment {
                text.push_str(&format!("&{name}={}", ms / 1000));
            }
        }
        let remote = Remote {
            url: url.clone(),
            token: args.token.clone().unwrap_or_default(),
        };
        reports.push(remote.call(Method::GET, &format!("/report?{text}"), Vec::new())?);
    }
    let mut directories = args.data.clone();
    for file in &args.config {
        let config = config::read(file, &config::process_env)
            .with_context(|| format!("{} is refused", file.display()))?;
        directories.push(config.serve.data);
    }
    for data in directories {
        reports.push(ledger::query(&mut ledger::read(&data)?, &query)?);
    }
    reports
        .into_iter()
        .reduce(|mut sum, other| {
            sum.add(other);
            sum
        })
        .context("expected --config FILE, --data DIR or --url URL, found none")
}

/// The report as tables.
fn show(report: &Report) -> String {
    let mut out = String::new();
    for (name, rows) in &report.by {
        let dimensions: Vec<&str> = name.split(':').collect();
        let mut table = table(&dimensions);
        for row in rows {
            let key = dimensions.iter().map(|dimension| {
                let value = row.key.get(*dimension).map_or("", String::as_str);
                if value.is_empty() { "–" } else { value }.to_owned()
            });
            table.add_row(key.chain(cells(&row.sums)));
        }
        align(&mut table, dimensions.len());
        out.push_str(&format!("{table}\n"));
        if report.cut.contains(name) {
            out.push_str("(more rows than are shown: the cheapest are left out)\n");
        }
        out.push('\n');
    }
    let total = &report.total;
    let mut all = table(&["total"]);
    all.add_row(std::iter::once(String::new()).chain(cells(total)));
    align(&mut all, 1);
    out.push_str(&format!("{all}\n"));
    if let Some(line) = levers(&total.saved) {
        out.push_str(&format!("saved by lever: {line}\n"));
    }
    if let Some(line) = levers(&total.would_save) {
        out.push_str(&format!("levers in mode dry would have saved: {line}\n"));
    }
    let unknown = total.unknown_prices;
    if unknown.as_asked + unknown.cost > 0 {
        out.push_str(&format!(
            "price unknown, in no sum of dollars: {} requests as asked, {} as sent\n",
            unknown.as_asked, unknown.cost
        ));
    }
    if total.estimated > 0 {
        out.push_str(&format!(
            "tokens estimated, because upstream reported none: {} requests\n",
            total.estimated
        ));
    }
    out
}

const COLUMNS: [&str; 8] = [
    "requests",
    "hits",
    "prompt",
    "completion",
    "as asked $",
    "paid $",
    "saved $",
    "unknown",
];

fn table(dimensions: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(dimensions.iter().chain(&COLUMNS).map(ToString::to_string));
    table
}

fn align(table: &mut Table, dimensions: usize) {
    for column in table.column_iter_mut().skip(dimensions) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn cells(sums: &Sums) -> [String; 8] {
    [
        sums.requests.to_string(),
        sums.cache_hits.to_string(),
        sums.tokens.prompt.to_string(),
        sums.tokens.completion.to_string(),
        sums.as_asked.rounded(6),
        sums.cost.rounded(6),
        sums.saved.total.rounded(6),
        // Requests without a known price are never shown as if they had cost nothing.
        sums.unknown_prices
            .as_asked
            .max(sums.unknown_prices.cost)
            .to_string(),
    ]
}

fn levers(by: &ByLever) -> Option<String> {
    let parts: Vec<String> = Lever::ALL
        .into_iter()
        .filter(|lever| by.of(*lever).0 != 0)
        .map(|lever| format!("{} ${}", lever.name(), by.of(lever).rounded(6)))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Money, Row, UnknownPrices};

    #[test]
    fn a_table_tells_sums_levers_and_unknown_prices() {
        let sums = Sums {
            requests: 12,
            as_asked: Money(3_000_000_000_000),
            cost: Money(1_000_000_000_000),
            saved: ByLever::new([
                Money(2_000_000_000_000),
                Money(0),
                Money(0),
                Money(0),
                Money(0),
            ]),
            unknown_prices: UnknownPrices {
                as_asked: 1,
                cost: 2,
            },
            ..Sums::default()
        };
        let report = Report {
            total: sums.clone(),
            by: [(
                "task".to_owned(),
                vec![Row {
                    key: [("task".to_owned(), String::new())].into(),
                    sums,
                }],
            )]
            .into(),
            ..Report::default()
        };
        let text = show(&report);
        for part in [
            "3.000000",
            "–",
            "saved by lever: route $2.000000",
            "1 requests as asked, 2 as sent",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
