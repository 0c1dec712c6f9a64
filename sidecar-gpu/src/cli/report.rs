//! `sluice report`: spend and savings as a table.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use comfy_table::{CellAlignment, Table, presets};
use hyper::Method;
use sluice_wire::Lever;

use super::fetch::Remote;
use crate::clock::Clock;
use crate::config::{self, Store};
use crate::http;
use crate::ledger::{self, shared};
use crate::report::{Booked, ByLever, Covers, Money, Report, Sums, Trimming};
use crate::store::Link;
use crate::tuning::{self, Goal, Tuning};

/// Show spend and savings
#[derive(clap::Args)]
#[command(
    long_about = "Show what requests cost, what they would have cost as asked, and which lever \
                  saved what. Reads the ledger's file (also beside a running sidecar), or asks a \
                  sidecar by --url. Where the sidecars share a Redis, a single --config or --url \
                  shows what all of them booked, by whole hours. Name several, and the sums of \
                  their own ledgers are added.",
    after_help = "Examples:\n  sluice report --config sluice.yaml\n  \
                  sluice report --data /var/lib/sluice --by tenant:model,day --from 7d\n  \
                  sluice report --data ledger-a --data ledger-b\n  \
                  sluice report --config sluice.yaml --cache\n  \
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
    /// Breakdowns by task, model, endpoint, tenant, tier, route, cache, outcome, day, hour; `a:b`
    /// is by both
    #[arg(long, value_name = "LIST", default_value = "task,model,endpoint")]
    by: String,
    /// Requests from then on: `2026-01-31`, `2026-01-31T12:00:00Z`, `24h` (ago)
    #[arg(long, value_name = "WHEN")]
    from: Option<String>,
    /// Requests before then
    #[arg(long, value_name = "WHEN")]
    to: Option<String>,
    /// Whose records: one sidecar's own, or all that share a Redis (the default where one does)
    #[arg(long, value_enum)]
    scope: Option<Scope>,
    /// Show how long answers should be cached, from what one sidecar has seen asked again and
    /// changed
    #[arg(long, conflicts_with_all = ["by", "from", "to", "scope", "records"])]
    cache: bool,
    /// With --cache: most cached answers that may have changed meanwhile
    #[arg(long, value_name = "PERCENT", requires = "cache")]
    changed: Option<f64>,
    /// With --cache: share of what the longest such TTL catches that will do
    #[arg(long, value_name = "PERCENT", requires = "cache")]
    caught: Option<f64>,
    /// Show the latest records too
    #[arg(long, value_name = "COUNT", default_value_t = 0,
          value_parser = clap::value_parser!(u16).range(0..=1000))]
    records: u16,
    /// Print JSON, as `/report` answers it
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scope {
    Local,
    Shared,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    if args.cache {
        return tune(args);
    }
    let report = load(args)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", show(&report));
    }
    Ok(())
}

impl Args {
    /// The sidecar at `url`, asked with the token that was given.
    fn remote(&self, url: &str) -> Remote {
        Remote {
            url: url.to_owned(),
            token: self.token.clone().unwrap_or_default(),
        }
    }
}

/// `sluice report --cache`.
fn tune(args: &Args) -> anyhow::Result<()> {
    let goal =
        Goal::percent(args.changed, args.caught).map_err(|error| anyhow::anyhow!("--{error}"))?;
    let read = |data: &Path| {
        tuning::read(data, goal).with_context(|| {
            let file = tuning::file(data);
            format!(
                "{}: a sidecar writes it every ten minutes and when it ends",
                file.display()
            )
        })
    };
    let tuning: Tuning = match (&*args.url, &*args.config, &*args.data) {
        ([url], [], []) => {
            let (changed, caught) = (goal.changed * 100.0, goal.caught * 100.0);
            let path = format!("/report/cache?changed={changed}&caught={caught}");
            args.remote(url).call(Method::GET, &path, Vec::new())?
        }
        ([], [file], []) => read(&configured(file)?.data)?,
        ([], [], [data]) => read(data)?,
        _ => bail!("--cache: expected one of --config FILE, --data DIR and --url URL"),
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&tuning)?);
    } else {
        print!("{}", super::tuning::show(&tuning));
    }
    Ok(())
}

fn configured(file: &Path) -> anyhow::Result<config::Serve> {
    let config = config::read(file, &config::process_env)
        .with_context(|| format!("{} is refused", file.display()))?;
    Ok(config.serve)
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
        records: usize::from(args.records),
    };
    let several = args.url.len() + args.config.len() + args.data.len() > 1;
    if args.scope == Some(Scope::Shared) && (several || !args.data.is_empty()) {
        bail!("--scope shared: expected a single --url or --config: it is the same ledger for all");
    }
    // What all share must not be added to itself.
    let scope = if several {
        Some(Scope::Local)
    } else {
        args.scope
    };
    let mut reports = Vec::new();
    for url in &args.url {
        // Names, `:` and `,`, and whole seconds: nothing that would have to be escaped. The
        // dimensions were checked above.
        let mut text = format!("by={}&records={}", args.by.replace(' ', ""), args.records);
        for (name, moment) in [("from", query.from_ms), ("to", query.to_ms)] {
            if let Some(ms) = moment {
                text.push_str(&format!("&{name}={}", ms / 1000));
            }
        }
        match scope {
            Some(Scope::Local) => text.push_str("&scope=local"),
            Some(Scope::Shared) => text.push_str("&scope=shared"),
            None => {}
        }
        let path = format!("/report?{text}");
        reports.push(args.remote(url).call(Method::GET, &path, Vec::new())?);
    }
    for file in &args.config {
        let config = configured(file)?;
        reports.push(of_config(&config, (&query, now_ms), scope)?);
    }
    for data in &args.data {
        reports.push(ledger::query(&mut ledger::read(data)?, &query)?);
    }
    let mut report = reports
        .into_iter()
        .reduce(|mut sum, other| {
            sum.add(other);
            sum
        })
        .context("expected --config FILE, --data DIR or --url URL, found none")?;
    report.records.truncate(query.records);
    Ok(report)
}

/// The report of the sidecar that runs by `config`, and of those that share its Redis.
fn of_config(
    config: &config::Serve,
    (query, now_ms): (&ledger::Query, u64),
    scope: Option<Scope>,
) -> anyhow::Result<Report> {
    let own = || -> anyhow::Result<Report> {
        Ok(ledger::query(&mut ledger::read(&config.data)?, query)?)
    };
    let url = match (&config.store, scope) {
        (Store::Memory, Some(Scope::Shared)) => {
            bail!("--scope shared: expected a `serve.store` of Redis, found `memory`")
        }
        (Store::Memory, _) | (_, Some(Scope::Local)) => return own(),
        (Store::Redis(url), _) => url,
    };
    let reader = shared::Reader::new(Arc::new(Link::new(url, config.redis)?));
    let shared = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(shared::report(&reader, query, now_ms));
    shared.or_else(|reason| {
        let mut report = own()?;
        report.covers.leave_out(Vec::new(), &reason);
        Ok(report)
    })
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
    if let Some(line) = trimming(&total.trim) {
        out.push_str(&line);
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
    out.push_str(&bounds(report));
    out.push_str(&coverage(&report.covers));
    if !report.records.is_empty() {
        out.push_str(&format!("\n{}\n", latest(&report.records)));
    }
    out
}

/// A moment as it is shown.
pub(super) fn when(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| format!("{ms} ms"), |it| it.to_string())
}

fn bounds(report: &Report) -> String {
    let bound = |word: &str, ms: Option<u64>| ms.map(|ms| format!("{word} {}", when(ms)));
    let bounds = [bound("from", report.from_ms), bound("before", report.to_ms)];
    let bounds: Vec<String> = bounds.into_iter().flatten().collect();
    if bounds.is_empty() {
        return String::new();
    }
    let hours = if report.covers.shared {
        " (whole hours)"
    } else {
        ""
    };
    format!("requests {}{hours}\n", bounds.join(" "))
}

/// Whose records these are, where that is not plain.
fn coverage(covers: &Covers) -> String {
    let mut out = String::new();
    if covers.shared {
        out.push_str(&format!("of all {} sidecars\n", covers.sidecars.len()));
    }
    if !covers.complete {
        out.push_str("INCOMPLETE:\n");
    }
    for it in covers
        .sidecars
        .iter()
        .filter(|_| !covers.complete && covers.shared)
    {
        let until = it
            .until_ms
            .map_or("never all".to_owned(), |ms| format!("until {}", when(ms)));
        let state = if it.closed { ", ended" } else { "" };
        out.push_str(&format!(
            "  {} has published {until}, {} records wait{state}\n",
            it.sidecar, it.pending
        ));
    }
    if !covers.missing.is_empty() {
        out.push_str(&format!("  not in it: {}\n", covers.missing.join(", ")));
    }
    for note in &covers.notes {
        out.push_str(&format!("  {note}\n"));
    }
    out
}

fn latest(records: &[Booked]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "arrived", "tenant", "task", "model", "cache", "outcome", "tokens", "paid $", "id",
    ]);
    for Booked { record, .. } in records {
        let paid = record.cost.map(|it| Money(i128::from(it.0)).rounded(6));
        table.add_row([
            when(record.at_ms),
            record.tenant.clone(),
            record.task.clone(),
            record.model.clone(),
            record.cache.name().to_owned(),
            record.outcome.name().to_owned(),
            record.usage.total().to_string(),
            paid.unwrap_or_else(|| "unknown".to_owned()),
            record.id.clone(),
        ]);
    }
    table
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

fn trimming(trim: &Trimming) -> Option<String> {
    let [gross, lost, net] = [trim.gross, trim.lost, trim.net].map(|it| it.rounded(6));
    (trim.requests > 0).then(|| {
        format!(
            "trimmed: {} prompt tokens of {} requests, ${gross} at list price, ${lost} of the \
             provider's discounts lost, ${net} net\n",
            trim.tokens, trim.requests
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Published, Row, UnknownPrices};

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
            trim: Trimming::new((3, 4500), (Money(10_000_000_000), Money(12_500_000_000))),
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
            "trimmed: 4500 prompt tokens of 3 requests, $0.010000 at list price, $0.012500 of the \
             provider's discounts lost, $-0.002500 net\n",
            "1 requests as asked, 2 as sent",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!show(&Report::default()).contains("trimmed"));
    }

    #[test]
    fn a_table_says_what_its_sums_do_not_have() {
        let late = Published {
            sidecar: "aaaa".to_owned(),
            until_ms: Some(1_700_000_000_000),
            lag_secs: Some(60),
            pending: 7,
            closed: false,
        };
        let mut report = Report {
            from_ms: Some(1_699_999_200_000),
            covers: Covers {
                shared: true,
                sidecars: vec![late],
                ..Covers::default()
            },
            ..Report::default()
        };
        let text = show(&report);
        for part in [
            "from 2023-11-14T22:00:00Z (whole hours)",
            "INCOMPLETE",
            "aaaa has published until 2023-11-14T22:13:20Z, 7 records wait",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        report.covers.complete = true;
        assert!(!show(&report).contains("INCOMPLETE"));
        report.covers = Covers::default();
        report
            .covers
            .leave_out(vec!["bbbb".to_owned()], "no answer");
        let text = show(&report);
        for part in ["INCOMPLETE", "not in it: bbbb", "(no answer)"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
