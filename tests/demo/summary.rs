//! What the demo prints at its end.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_tests::client::Answer;
use sluice_tests::figures::{Money, Report, Row, Sums, of_ledger};
use sluice_tests::stack::Stack;
use sluice_wire::Lever;

/// What became of the requests, as their sender saw it.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Requests that got an HTTP answer.
    pub(crate) reached: u64,
    /// Requests that got none.
    pub(crate) lost: u64,
    /// Answers that were no success: by status, how many and what the first said.
    pub(crate) failed: BTreeMap<u16, (u64, String)>,
    /// From the first request to the last answer.
    pub(crate) took: Duration,
}

impl Sent {
    pub(crate) fn count(&mut self, answer: anyhow::Result<Answer>) {
        match answer {
            Ok(answer) => {
                self.reached += 1;
                if answer.status != 200 {
                    let said = || answer.text().chars().take(200).collect();
                    let entry = self.failed.entry(answer.status);
                    entry.or_insert_with(|| (0, said())).0 += 1;
                }
            }
            Err(_) => self.lost += 1,
        }
    }
}

/// Everything that is told at the end.
#[derive(Debug)]
pub(crate) struct Summary<'a> {
    pub(crate) stack: &'a Stack,
    pub(crate) sent: &'a Sent,
    pub(crate) report: &'a Report,
    pub(crate) operator: &'a str,
    pub(crate) differences: Vec<String>,
}

impl Summary<'_> {
    /// Prints it; whether every figure agreed with every other.
    pub(crate) fn print(&self) -> bool {
        let total = &self.report.total;
        self.print_sent();
        println!(
            "\n{:<27}{:>9}{:>14}{:>14}{:>9}",
            "spend", "requests", "as asked", "as paid", "saved"
        );
        self.table("by task", "task");
        self.table("by model that answered", "model");
        println!("{}", line("all", total));
        println!("\nsaved by lever");
        for lever in Lever::ALL {
            let saved = total.saved_by(lever);
            if saved != Money::default() {
                println!(
                    "  {:<25}{:>37}{:>9}",
                    lever.name(),
                    dollars(saved),
                    share(saved, total.as_asked)
                );
            }
        }
        println!("\n{:<27}{:>9}{:>10}", "share", "requests", "of all");
        self.shares("tier", "no tier");
        self.shares("cache", "off");
        self.print_places();
        let agreed = self.print_agreement();
        println!(
            "saved ${:.4} of ${:.4} ({})",
            total.as_asked.dollars() - total.cost.dollars(),
            total.as_asked.dollars(),
            share(Money(total.as_asked.0 - total.cost.0), total.as_asked),
        );
        agreed
    }

    fn print_sent(&self) {
        let Sent {
            reached,
            lost,
            failed,
            took,
        } = self.sent;
        let seconds = took.as_secs_f64();
        println!(
            "{reached} requests answered in {seconds:.1} s ({:.0} a second)",
            *reached as f64 / seconds.max(0.001)
        );
        if *lost > 0 {
            println!("{lost} requests got no answer");
        }
        for (status, (count, said)) in failed {
            println!("{count} × {status}: {said}");
        }
    }

    fn table(&self, title: &str, by: &str) {
        println!("{title}");
        for row in self.report.rows(by) {
            println!(
                "{}",
                line(&format!("  {}", name(row, by, "(not stated)")), &row.sums)
            );
        }
    }

    fn shares(&self, by: &str, empty: &str) {
        let all = self.report.total.requests.max(1);
        for row in self.report.rows(by) {
            let share = 100.0 * row.sums.requests as f64 / all as f64;
            println!(
                "  {:<25}{:>9}{share:>9.1}%",
                format!("{by} {}", name(row, by, empty)),
                row.sums.requests
            );
        }
    }

    fn print_places(&self) {
        println!("\nwhere it can be looked up (with --serve, while it runs)");
        let sidecar = self.stack.sidecar().url();
        println!(
            "  ledger      curl -H 'authorization: Bearer {}' '{sidecar}/report?by=task,model,endpoint'",
            self.operator
        );
        for envoy in &self.stack.envoys {
            println!("  Envoy       curl {}/stats/prometheus", envoy.admin_url());
        }
        if let Some(provider) = &self.stack.provider {
            println!("  provider    curl {}/_stats", provider.url());
        }
        println!();
    }

    fn print_agreement(&self) -> bool {
        let total = &self.report.total;
        let mut faults = self.differences.clone();
        if self.stack.provider.is_none() {
            // A real provider's books cannot be read; its own usage is what the ledger holds.
            faults.retain(|fault| !fault.contains("by the provider"));
        }
        if total.requests != self.sent.reached {
            faults.push(format!(
                "{} requests in the ledger, {} sent",
                total.requests, self.sent.reached
            ));
        }
        if self.sent.lost > 0 {
            faults.push(format!("{} requests got no answer", self.sent.lost));
        }
        if !faults.is_empty() {
            println!("ledger, provider and metrics DIFFER:");
            for fault in &faults {
                println!("  {fault}");
            }
            return false;
        }
        let upstream = of_ledger(std::slice::from_ref(self.report));
        let sum = |figure: &dyn Fn(&sluice_tests::figures::Told) -> u64| {
            upstream.values().map(figure).sum::<u64>()
        };
        let sides = match self.stack.provider {
            Some(_) => "ledger = provider = metrics",
            None => "ledger = metrics",
        };
        println!(
            "{sides}: {} answers, {} prompt and {} completion tokens, ${}",
            sum(&|told| told.requests),
            sum(&|told| told.tokens.prompt),
            sum(&|told| told.tokens.completion),
            total.cost,
        );
        true
    }
}

fn name<'a>(row: &'a Row, by: &str, empty: &'a str) -> &'a str {
    row.key
        .get(by)
        .map(String::as_str)
        .filter(|name| !name.is_empty())
        .unwrap_or(empty)
}

fn line(name: &str, sums: &Sums) -> String {
    let saved = Money(sums.as_asked.0 - sums.cost.0);
    format!(
        "{name:<27}{:>9}{:>14}{:>14}{:>9}",
        sums.requests,
        dollars(sums.as_asked),
        dollars(sums.cost),
        share(saved, sums.as_asked),
    )
}

fn dollars(amount: Money) -> String {
    format!("${amount}")
}

fn share(part: Money, whole: Money) -> String {
    if whole == Money::default() {
        return "0.0%".to_owned();
    }
    format!("{:.1}%", 100.0 * part.0 as f64 / whole.0 as f64)
}
