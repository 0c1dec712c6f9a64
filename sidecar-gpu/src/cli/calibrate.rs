//! `sluice calibrate`: thresholds between tiers from labelled requests.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;
use sluice_core::config::{Plan, RoutePlan, Tier};

use crate::calibrate::{self, Assumed, Calibration, Goal, Labels, MAX_TIERS, Point};
use crate::config;

/// Choose the thresholds between tiers from labelled requests
#[derive(clap::Args)]
#[command(
    long_about = "Choose the thresholds between tiers so that quality stays above a share of the \
                  largest tier's, or spend below one, or both. Reads labels, a line of JSON each; \
                  prints what each split of the scores would have cost and kept, with 95% \
                  intervals, and the tiers to put into the config.\n\n\
                  A label is a request and how good its answers are:\n  \
                  {\"prompt\": \"…\", \"quality\": {\"small\": 0.5, \"large\": 1}}  graded\n  \
                  {\"score\": 0.41, \"tier\": \"small\", \"thumb\": \"down\"}      what its user said\n  \
                  {\"score\": 0.41, \"tier\": \"small\", \"escalated\": false}   what a check said\n\
                  `score` is the ledger's or that of `sluice score`; a `prompt` is scored here. \
                  Quality is in any unit from 0, the same for all labels. `tokens: {input, output}` \
                  or `usd: {TIER: dollars}` say what it costs, else the prompt's length and \
                  --output-tokens do.",
    after_help = "Examples:\n  \
                  sluice calibrate --config sluice.yaml --labels graded.jsonl --quality 95\n  \
                  sluice calibrate --config sluice.yaml --labels graded.jsonl --quality 95 --spend 40 \
                  --write tiers.yaml\n  \
                  sluice calibrate --config sluice.yaml --labels - --spend 30 --tiers small,large \
                  --json < graded.jsonl"
)]
pub(super) struct Args {
    /// Config file: its tiers and their models' prices
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Labels; `-` reads standard input. Several are added
    #[arg(long, value_name = "FILE", required = true)]
    labels: Vec<PathBuf>,
    /// Route whose tiers are calibrated, by its name (default: the defaults')
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Tiers that requests may go to, smallest first (default: all)
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    tiers: Vec<String>,
    /// API family whose models' prices count, where a tier has several models
    #[arg(long, value_name = "NAME", default_value = "openai")]
    family: String,
    /// Least quality, as a share of the largest tier's
    #[arg(long, value_name = "PERCENT", value_parser = percent,
          required_unless_present = "spend")]
    quality: Option<f64>,
    /// Most spend, as a share of the largest tier's
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    spend: Option<f64>,
    /// How sure the quality must be kept
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "80")]
    confidence: f64,
    /// Tokens of a prompt whose label says neither text nor tokens
    #[arg(long, value_name = "COUNT", default_value_t = 500)]
    input_tokens: u64,
    /// Tokens of an answer whose label does not say
    #[arg(long, value_name = "COUNT", default_value_t = 250)]
    output_tokens: u64,
    /// Write the tiers to a file, which must not be there
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `95` and `95%` as 0.95.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>();
    match number {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err(format!(
            "found `{text}`, expected more than 0 and at most 100"
        )),
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let config = config::read(&args.config, &config::process_env)
        .with_context(|| format!("{} is refused", args.config.display()))?;
    let tiers = tiers(args, &config.plan)?;
    let priced: Vec<calibrate::Tier> = tiers
        .iter()
        .map(|tier| priced(tier, &config.plan, &args.family))
        .collect();
    let labels = labels(args, &priced)?;
    let goal = Goal {
        quality: args.quality,
        spend: args.spend,
        confidence: args.confidence,
    };
    let names: Vec<String> = tiers.iter().map(|tier| tier.name.clone()).collect();
    let found = calibrate::calibrate(&labels, &names, goal)?;
    let patch = patch(&found, &tiers, args.route.as_deref());
    if args.json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        print!("{}", show(&found, &names));
    }
    match &args.write {
        Some(file) => write(file, &patch)?,
        None if !args.json => print!("\n{patch}"),
        None => {}
    }
    Ok(())
}

/// The tiers to choose among, of the route that is named.
fn tiers(args: &Args, plan: &Plan) -> anyhow::Result<Vec<Tier>> {
    let routes = plan.routes.iter().map(|(_, route)| route);
    let route: &RoutePlan = match &args.route {
        None => &plan.default,
        Some(name) => routes
            .clone()
            .find(|route| route.name == *name)
            .with_context(|| {
                let names: Vec<&str> = routes.map(|route| route.name.as_str()).collect();
                format!(
                    "--route: found `{name}`, expected one of: {}",
                    names.join(", ")
                )
            })?,
    };
    let all = &route.route.tiers;
    let names = || {
        let names: Vec<&str> = all.iter().map(|tier| tier.name.as_str()).collect();
        names.join(", ")
    };
    let known: BTreeSet<&str> = all.iter().map(|tier| tier.name.as_str()).collect();
    if let Some(name) = args
        .tiers
        .iter()
        .find(|name| !known.contains(name.as_str()))
    {
        bail!("--tiers: found `{name}`, expected some of: {}", names());
    }
    let chosen = |tier: &&Tier| args.tiers.is_empty() || args.tiers.contains(&tier.name);
    let tiers: Vec<Tier> = all.iter().filter(chosen).cloned().collect();
    ensure!(
        (2..=MAX_TIERS).contains(&tiers.len()),
        "found {} tiers to choose among, expected 2 to {MAX_TIERS}",
        tiers.len()
    );
    let asked: Vec<&str> = args.tiers.iter().map(String::as_str).collect();
    let order: Vec<&str> = tiers.iter().map(|tier| tier.name.as_str()).collect();
    ensure!(
        asked.is_empty() || asked == order,
        "--tiers: found {}, expected each once and in the config's order: {}",
        asked.join(","),
        order.join(",")
    );
    Ok(tiers)
}

/// The tier with the prices of the model that `family` gets in it.
fn priced(tier: &Tier, plan: &Plan, family: &str) -> calibrate::Tier {
    let model = tier.models.get(family).or(tier.models.values().next());
    let model = model
        .and_then(|name| plan.model(name))
        .map(|(_, model)| model);
    calibrate::Tier {
        name: tier.name.clone(),
        price: model.and_then(|model| model.price),
        bytes_per_token: model.map_or(4.0, |model| model.bytes_per_token),
        max_tokens: tier.max_tokens,
    }
}

fn labels(args: &Args, tiers: &[calibrate::Tier]) -> anyhow::Result<Vec<calibrate::Label>> {
    let assumed = Assumed {
        input: args.input_tokens,
        output: args.output_tokens,
    };
    let mut labels = Vec::new();
    for file in &args.labels {
        let from: Box<dyn BufRead> = match file.to_str() {
            Some("-") => Box::new(std::io::stdin().lock()),
            _ => Box::new(BufReader::new(
                File::open(file).with_context(|| file.display().to_string())?,
            )),
        };
        let read =
            Labels::read(from, tiers, assumed).with_context(|| file.display().to_string())?;
        if read.idle > 0 {
            eprintln!(
                "sluice: {}: {} labels say nothing of these tiers and are left out",
                file.display(),
                read.idle
            );
        }
        labels.extend(read.labels);
    }
    Ok(labels)
}

fn show(found: &Calibration, names: &[String]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    let mut header = vec![
        "spend".to_owned(),
        "quality".to_owned(),
        "95% interval".to_owned(),
    ];
    header.extend(names.iter().cloned());
    header.push("below".to_owned());
    table.set_header(header);
    for point in &found.curve {
        table.add_row(row(point));
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let means: Vec<String> = names
        .iter()
        .zip(&found.tier_quality)
        .map(|(name, quality)| format!("{name} {quality:.3}"))
        .collect();
    let chosen = &found.chosen;
    format!(
        "{} labels; mean quality if all went to one tier: {}\n{table}\n\
         spend and quality are shares of the largest tier's\n\n\
         chosen: {} of the quality ({} to {}) at {} of the spend\n\
         judged by labels that it was not chosen by: {} at {}\n",
        found.labels,
        means.join(", "),
        share(chosen.quality),
        share(chosen.quality_95.0),
        share(chosen.quality_95.1),
        share(chosen.spend),
        share(found.held_out.quality),
        share(found.held_out.spend),
    )
}

fn share(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

fn row(point: &Point) -> Vec<String> {
    let (low, high) = point.quality_95;
    let mut row = vec![
        share(point.spend),
        share(point.quality),
        format!("{} to {}", share(low), share(high)),
    ];
    row.extend(point.shares.iter().map(|part| share(*part)));
    let below: Vec<String> = point.below.iter().map(f64::to_string).collect();
    row.push(below.join(", "));
    row
}

/// The config's part that changes: the whole list of tiers, because a list replaces a list.
fn patch(found: &Calibration, tiers: &[Tier], route: Option<&str>) -> String {
    let chosen = &found.chosen;
    let mut out = format!(
        "# sluice calibrate, {} labels: keeps {} ({} to {}) of the largest tier's quality at {} of \
         its spend.\n",
        found.labels,
        share(chosen.quality),
        share(chosen.quality_95.0),
        share(chosen.quality_95.1),
        share(chosen.spend),
    );
    let indent = match route {
        None => {
            out.push_str("route:\n  tiers:\n");
            "    "
        }
        Some(name) => {
            out.push_str("# Goes into the entry of this name under `routes`.\nroutes:\n");
            out.push_str(&format!(
                "  - name: {}\n    route:\n      tiers:\n",
                quoted(name)
            ));
            "        "
        }
    };
    for (at, tier) in tiers.iter().enumerate() {
        let mut fields = vec![format!("name: {}", quoted(&tier.name))];
        fields.extend(chosen.below.get(at).map(|below| format!("below: {below}")));
        let models: BTreeSet<&String> = tier.models.values().collect();
        let model = match models.first() {
            Some(only) if models.len() == 1 => quoted(only),
            _ => {
                let each: Vec<String> = tier
                    .models
                    .iter()
                    .map(|(family, model)| format!("{}: {}", quoted(family), quoted(model)))
                    .collect();
                format!("{{{}}}", each.join(", "))
            }
        };
        fields.push(format!("model: {model}"));
        fields.extend(tier.max_tokens.map(|most| format!("max_tokens: {most}")));
        out.push_str(&format!("{indent}- {{{}}}\n", fields.join(", ")));
    }
    out
}

/// As a text in YAML's flow style.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Writes a new file: what is there may be the config itself.
fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    File::create_new(file)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("--write: {}", file.display()))?;
    eprintln!("sluice: the tiers are in {}", file.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_read_with_and_without_their_sign() {
        assert_eq!(percent("95"), Ok(0.95));
        assert_eq!(percent("2.5%"), Ok(0.025));
        for odd in ["", "0", "101", "-3", "NaN", "x"] {
            assert!(percent(odd).is_err(), "{odd}");
        }
    }
}
