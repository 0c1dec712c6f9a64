//! Questions of a help desk, each in many words, none of them twice.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use sluice_tests::load;

use crate::latency::Source;

/// Without their first capital and their question mark.
const QUESTIONS: &[&str] = &[
    "how do I reset my password",
    "how do I cancel my subscription",
    "how do I change my delivery address",
    "how do I return a damaged lamp",
    "how do I add a second card to my wallet",
    "how do I download an invoice",
    "how do I export my contacts",
    "how do I turn off email notifications",
    "how do I install the app on a tablet",
    "how do I connect the printer to the router",
    "how do I clean the filter of the dishwasher",
    "how do I redeem a gift voucher",
    "how do I merge two accounts",
    "how do I report a stolen phone",
    "how do I translate a page",
    "where can I see my loyalty points",
    "where can I find the serial number",
    "where can I pick up a parcel",
    "where can I recycle old batteries",
    "where is the warranty card",
    "when does the sale end",
    "when will my refund arrive",
    "when does the shop open on sundays",
    "why was my payment declined",
    "why does the heater make a noise",
    "why is the screen flickering",
    "why is shipping so expensive",
    "what is the return policy",
    "what is the difference between standard and express delivery",
    "what is the weight of the large suitcase",
    "what is the battery life of the headphones",
    "what does the red light mean",
    "what documents do I need to open an account",
    "which vacuum is best for pet hair",
    "which countries do you ship to",
    "who delivers the furniture",
    "is the kettle dishwasher safe",
    "is assembly included in the price",
    "does the jacket run small",
    "are the curtains fireproof",
];

/// What may go before a question.
const BEFORE: &[&str] = &[
    "Please tell me, ",
    "Can you tell me, ",
    "Could you tell me, ",
    "Could you please tell me, ",
    "Hi, ",
    "Hello, ",
    "Hey, ",
    "Hi there, ",
    "Hello, can you tell me, ",
    "Hi, could you tell me, ",
    "Good morning, ",
    "Good evening, ",
    "Excuse me, ",
    "Quick question: ",
    "Does anyone know, ",
    "I would like to know, ",
    "I was wondering, ",
    "Sorry, ",
];

/// What may go after it.
const AFTER: &[&str] = &["?", " please?", "? Thanks!", "? Thank you."];

/// The requests that ask each question for the first time.
pub(crate) fn questions() -> impl Iterator<Item = Vec<u8>> {
    let plain = |question: &&str| {
        let (first, rest) = question.split_at(1);
        request(&format!("{}{rest}?", first.to_uppercase()))
    };
    QUESTIONS.iter().map(plain)
}

fn request(question: &str) -> Vec<u8> {
    let brief = "You are the help desk of a shop. Answer in at most four sentences.";
    let body = json!({
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": brief},
            {"role": "user", "content": question},
        ],
        "temperature": 0.2,
    });
    let headers = [("authorization", "Bearer sk-test"), ("x-tenant", "acme")];
    load::post("/v1/chat/completions", &headers, &body.to_string())
}

/// The same questions in other words, each question in turn.
#[derive(Debug, Default)]
pub(crate) struct Paraphrases {
    next: AtomicU64,
}

impl Paraphrases {
    /// All of them, none handed out.
    pub(crate) fn new() -> Paraphrases {
        Paraphrases::default()
    }

    /// How many there are; after these they repeat.
    pub(crate) fn count(&self) -> u64 {
        (QUESTIONS.len() * BEFORE.len() * AFTER.len()) as u64
    }

    fn text(&self) -> String {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.count();
        let turn = usize::try_from(turn).unwrap_or(0);
        let (ways, question) = (turn / QUESTIONS.len(), turn % QUESTIONS.len());
        let (after, before) = (ways / BEFORE.len(), ways % BEFORE.len());
        format!("{}{}{}", BEFORE[before], QUESTIONS[question], AFTER[after])
    }
}

impl Source for Paraphrases {
    fn next(&self, into: &mut Vec<u8>) {
        *into = request(&self.text());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_paraphrase_comes_twice_and_none_is_the_question_itself() {
        let paraphrases = Paraphrases::new();
        let count = usize::try_from(paraphrases.count()).unwrap();
        let texts: HashSet<_> = (0..count).map(|_| paraphrases.text()).collect();
        assert_eq!(texts.len(), count);
        assert!(texts.contains("Please tell me, how do I reset my password?"));
        let plain: HashSet<_> = questions().collect();
        assert_eq!(plain.len(), QUESTIONS.len());
        assert!(texts.iter().all(|text| !plain.contains(&request(text))));
    }
}
