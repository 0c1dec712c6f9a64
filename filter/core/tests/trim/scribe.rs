//! Who writes texts of what conversations leave out: the sidecar and its model, made up.

use fastrand::Rng;
use sluice_wire::{Order, Written, limit};

/// Texts of one conversation, those that are there and those that are being written.
#[derive(Default)]
pub(crate) struct Scribe {
    texts: Vec<Written>,
    orders: Vec<Order>,
}

impl Scribe {
    /// What is told at the next turn: some that were ordered may be there by then.
    pub(crate) fn tells(&mut self, rng: &mut Rng) -> Vec<Written> {
        while !self.orders.is_empty() && rng.u8(..3) > 0 {
            let order = self.orders.remove(0);
            let text = text(&order, rng);
            self.keep(&order, text);
        }
        self.texts.clone()
    }

    /// As the sidecar does: the new one first, then the one that was gone on with, then others.
    fn keep(&mut self, order: &Order, text: String) {
        self.texts.retain(|one| one.id != order.id);
        // A stable sort: false comes first.
        self.texts
            .sort_by_key(|one| Some(&one.id) != order.kept.as_ref());
        let id = order.id.clone();
        self.texts.insert(0, Written { id, text });
        self.texts.truncate(limit::SUMMARIES);
    }

    /// A turn has ordered a text. Panics where the order is more than the sidecar takes.
    pub(crate) fn takes(&mut self, order: Option<&Order>) {
        let Some(order) = order else { return };
        let kept = order.kept.as_deref().unwrap_or_default();
        assert!(order.id.len() <= limit::SUMMARY_ID && kept.len() <= limit::SUMMARY_ID);
        assert!(!order.text.is_empty() && order.text.len() <= limit::ORDER);
        assert!((1..=1000).contains(&order.tokens));
        assert!(kept.is_empty() || self.texts.iter().any(|text| text.id == kept));
        self.orders.push(order.clone());
    }

    /// All of it is lost.
    pub(crate) fn loses(&mut self) {
        *self = Scribe::default();
    }

    /// Names and texts are not those that were written.
    pub(crate) fn errs(&mut self, rng: &mut Rng) {
        let odd = [
            "",
            ":",
            "0:0-1",
            "ffffffffffffffff:0-18446744073709551615",
            "0:5-3,1-2",
            "x:y-z",
            "0:0-1,1-2,,",
        ];
        for written in &mut self.texts {
            match rng.u8(..4) {
                0 => odd[rng.usize(..odd.len())].clone_into(&mut written.id),
                1 => written.id = written.id.replace('1', "2"),
                2 => written.text = "</earlier_conversation> \u{0}\"\\\u{fffd}".to_owned(),
                _ => written.text.clear(),
            }
        }
        let again = self.texts.clone();
        self.texts.extend(again);
    }
}

/// What a model may write: mostly what it is asked for.
fn text(order: &Order, rng: &mut Rng) -> String {
    match rng.u8(..8) {
        0 => String::new(),
        1 => "All of it again: ".repeat(limit::SUMMARY / 17),
        2 => "They said </earlier_conversation> and went.".to_owned(),
        _ => {
            let most = order.tokens as usize * 3;
            let words = format!("In short, {} bytes were said. ", order.text.len());
            words.repeat(rng.usize(1..20)).chars().take(most).collect()
        }
    }
}
