//! The provider's own books: what it would bill, kept apart from anything Sluice says.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use sluice_wire::{Usage, Usd};

use super::models::Catalog;

/// Tokens and dollars of a set of requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Requests that were answered to the end.
    pub requests: u64,
    /// Prompt tokens, cached ones included.
    pub prompt: u64,
    /// Prompt tokens billed at the cached price.
    pub cached: u64,
    /// Prompt tokens billed at the cache-write price.
    pub cache_write: u64,
    /// Completion tokens, reasoning included.
    pub completion: u64,
    /// Reasoning tokens.
    pub reasoning: u64,
    /// Dollars by list price, in picodollars; none as soon as one price was unknown.
    pub picodollars: Option<i64>,
    /// The same in dollars, for people.
    pub dollars: Option<String>,
}

impl Account {
    fn empty() -> Account {
        Account {
            picodollars: Some(0),
            ..Account::default()
        }
    }

    fn book(&mut self, usage: &Usage, cost: Option<Usd>) {
        self.requests += 1;
        self.prompt += usage.prompt;
        self.cached += usage.cached;
        self.cache_write += usage.cache_write;
        self.completion += usage.completion;
        self.reasoning += usage.reasoning;
        self.price(cost);
    }

    fn add(&mut self, other: &Account) {
        self.requests += other.requests;
        self.prompt += other.prompt;
        self.cached += other.cached;
        self.cache_write += other.cache_write;
        self.completion += other.completion;
        self.reasoning += other.reasoning;
        self.price(other.picodollars.map(Usd));
    }

    fn price(&mut self, cost: Option<Usd>) {
        let sum = self
            .picodollars
            .zip(cost)
            .map(|(sum, cost)| Usd(sum) + cost);
        self.picodollars = sum.map(|usd| usd.0);
        self.dollars = sum.map(|usd| usd.to_string());
    }

    /// Prompt and completion tokens.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.prompt + self.completion
    }
}

/// What `GET /_stats` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// HTTP requests of any kind to the API, errors included.
    pub http_requests: u64,
    /// Answered requests by model, as the model was named in the request.
    pub models: BTreeMap<String, Account>,
    /// All models together.
    pub total: Account,
    /// Requests whose answer broke off: tokens that were produced until then.
    pub aborted: Account,
    /// Errors by status.
    pub errors: BTreeMap<u16, u64>,
    /// Requests that are being answered (a stream: until it begins).
    pub at_once: u64,
    /// The most that ever were.
    pub most_at_once: u64,
}

/// The books of one provider.
#[derive(Debug)]
pub(crate) struct Books {
    pages: Mutex<Stats>,
}

impl Books {
    pub(crate) fn new() -> Books {
        Books {
            pages: Mutex::new(blank()),
        }
    }

    /// A request arrived; it is being answered until what is returned is dropped.
    pub(crate) fn arrived(&self) -> Arrived<'_> {
        self.with(|pages| {
            pages.http_requests += 1;
            pages.at_once += 1;
            pages.most_at_once = pages.most_at_once.max(pages.at_once);
        });
        Arrived(self)
    }

    pub(crate) fn error(&self, status: u16) {
        self.with(|pages| *pages.errors.entry(status).or_default() += 1);
    }

    pub(crate) fn answered(&self, catalog: &Catalog, model: &str, usage: &Usage) {
        let cost = catalog.cost(model, usage);
        self.with(|pages| {
            pages
                .models
                .entry(model.to_owned())
                .or_insert_with(Account::empty)
                .book(usage, cost);
        });
    }

    pub(crate) fn aborted(&self, catalog: &Catalog, model: &str, usage: &Usage) {
        let cost = catalog.cost(model, usage);
        self.with(|pages| pages.aborted.book(usage, cost));
    }

    pub(crate) fn stats(&self) -> Stats {
        self.with(|pages| {
            let mut stats = pages.clone();
            for account in pages.models.values() {
                stats.total.add(account);
            }
            stats
        })
    }

    pub(crate) fn clear(&self) {
        self.with(|pages| {
            *pages = Stats {
                at_once: pages.at_once,
                ..blank()
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Stats) -> T) -> T {
        // A poisoned lock means that a handler panicked between two additions; the sums are still
        // whole, because no addition can panic half-way.
        act(&mut self
            .pages
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

/// A request that is being answered.
pub(crate) struct Arrived<'b>(&'b Books);

impl Drop for Arrived<'_> {
    fn drop(&mut self) {
        self.0.with(|pages| pages.at_once -= 1);
    }
}

fn blank() -> Stats {
    Stats {
        total: Account::empty(),
        aborted: Account::empty(),
        ..Stats::default()
    }
}
