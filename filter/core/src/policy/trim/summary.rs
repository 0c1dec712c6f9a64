//! An extractive digest of what is left out of a conversation: whole sentences as they were said,
//! with who said them.
//!
//! Which ones: those that carry facts (numbers, names, decisions, wishes, promises) and what the
//! conversation keeps coming back to (the centroid of Radev et al., "Centroid-based summarization
//! of multiple documents", 2004), each as far as it says what those chosen before it do not
//! (Carbonell and Goldstein's maximal marginal relevance, 1998, by words instead of vectors).

mod memory;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::sentences::sentences;
use super::spoken;
use super::terms::{Kind, Term, Terms};
use super::turns::Turns;
use crate::formats::Role;

pub use memory::DigestMemory;

/// The digest begins and ends with these: tags, which every model reads as "not said now".
const OPEN: &str = "<earlier_conversation note=\"extract; the rest is left out\">\n";
const CLOSE: &str = "</earlier_conversation>";
/// One that a model wrote begins with this.
const OPEN_WRITTEN: &str = "<earlier_conversation note=\"summary; the rest is left out\">\n";

/// Longest sentence that is quoted, in bytes: a longer one is a paste.
const LONGEST: usize = 600;
/// Sentences in a row that may be too long for what is left before no more is tried.
const MISFITS: usize = 16;
/// What a sentence must say, of its weight, that is not said yet; a new name or number is enough.
const NEW: f32 = 0.5;

/// Something that was said in an exchange that is left out.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// Who; what tools said is not quoted.
    pub who: Role,
    /// The text.
    pub text: &'a str,
    /// How much its exchange has to do with the question, 0 to 1, where that is known. A digest
    /// that is to stay the same from turn to turn, for the provider's cache, has none.
    pub relevance: Option<f32>,
}

/// The digest of what was said, oldest first, in at most `tokens` as `count` counts
/// them. None
/// where nothing is worth it, or nothing fits.
///
/// Takes time in the length of what was said, but for a logarithm of its sentences.
#[must_use]
pub fn digest(said: &[Said<'_>], tokens: u64, count: &dyn Fn(&str) -> u64) -> Option<String> {
    let mut candidates = candidates(said);
    weigh(&mut candidates);
    let budget = tokens.checked_sub(count(OPEN) + count(CLOSE))?;
    let chosen = choose(&candidates, budget, count);
    if chosen.is_empty() {
        return None;
    }
    let mut out = String::from(OPEN);
    let mut last = None;
    for one in chosen {
        let who = who(one.who);
        match last == Some(one.said) {
            true => out.push(' '),
            false => {
                if last.is_some() {
                    out.push('\n');
                }
                out.push_str(who);
            }
        }
        last = Some(one.said);
        out.push_str(&one.line());
    }
    out.push('\n');
    out.push_str(CLOSE);
    Some(out)
}

/// The digest of the exchanges of a conversation whose `keep` is false and which need not stay; see
/// [`digest`]. `relevance` is that of each exchange, where it is known.
#[must_use]
pub fn of_dropped(
    turns: &Turns<'_>,
    (keep, relevance): (&[bool], Option<&[f32]>),
    tokens: u64,
    count: &dyn Fn(&str) -> u64,
) -> Option<String> {
    let mut texts: Vec<(Role, Cow<'_, str>, Option<f32>)> = Vec::new();
    for (index, exchange) in turns.dropped(keep) {
        let relevance = relevance.and_then(|all| all.get(index)).copied();
        for item in turns.going(exchange) {
            let who = item.role.unwrap_or(Role::Tool);
            let own = spoken::texts(&item.content).into_iter();
            texts.extend(own.map(|text| (who, text.text(), relevance)));
        }
    }
    let said = texts.iter().map(|(who, text, relevance)| Said {
        who: *who,
        text,
        relevance: *relevance,
    });
    digest(&said.collect::<Vec<_>>(), tokens, count)
}

/// A text that a model wrote, as it stands in the prompt; None where it says nothing. It cannot end
/// itself.
#[must_use]
pub fn written(text: &str) -> Option<String> {
    let text = text
        .trim()
        .replace("earlier_conversation", "earlier conversation")
        .replace("</", "< /");
    (!text.is_empty()).then(|| format!("{OPEN_WRITTEN}{text}\n{CLOSE}"))
}

fn who(role: Role) -> &'static str {
    match role {
        Role::User => "User: ",
        Role::Assistant => "Assistant: ",
        Role::Tool => "Tool: ",
    }
}

/// A sentence that may be quoted.
struct Candidate<'a> {
    /// Which of what was said it is from.
    said: usize,
    who: Role,
    text: &'a str,
    words: Terms,
    relevance: Option<f32>,
    score: f32,
}

impl Candidate<'_> {
    /// On one line.
    fn line(&self) -> String {
        self.text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

fn candidates<'a>(said: &[Said<'a>]) -> Vec<Candidate<'a>> {
    let mut all = Vec::new();
    for (index, one) in said
        .iter()
        .enumerate()
        .filter(|(_, one)| one.who != Role::Tool)
    {
        for sentence in sentences(one.text).iter().filter(|one| !one.verbatim) {
            let text = one.text.get(sentence.at.clone()).unwrap_or("");
            // What ends the digest must not be quoted in it.
            if text.len() > LONGEST || text.contains("earlier_conversation") {
                continue;
            }
            let words = Terms::of(text);
            if words.terms.is_empty() {
                continue;
            }
            all.push(Candidate {
                said: index,
                who: one.who,
                text,
                words,
                relevance: one.relevance,
                score: 0.0,
            });
        }
    }
    all
}

/// Gives each sentence its score.
fn weigh(candidates: &mut [Candidate<'_>]) {
    let mut found: BTreeMap<u32, u32> = BTreeMap::new();
    for word in candidates.iter().flat_map(|one| &one.words.terms) {
        *found.entry(word.hash).or_default() += 1;
    }
    let all = candidates.len() as f32;
    for one in candidates {
        let weight = |word: &Term| {
            let sentences = found.get(&word.hash).copied().unwrap_or(1) as f32;
            // Of the conversation's matter: said more than once, and not everywhere.
            let central = (1.0 + sentences).ln() * (1.0 + all / sentences).ln();
            central * kind_weight(word.kind)
        };
        let words = one.words.terms.len() as f32;
        let sum: f32 = one.words.terms.iter().map(weight).sum();
        // Between the sum, which prefers the longest, and the mean, which prefers the shortest.
        let mut score = sum / words.sqrt() * manner(one.who, one.text);
        if let Some(relevance) = one.relevance {
            score *= 0.25 + relevance.clamp(0.0, 1.0);
        }
        one.score = score;
    }
}

/// What a word is worth for being what it is.
fn kind_weight(kind: Kind) -> f32 {
    match kind {
        // Two of three pairs in a row are of one word.
        Kind::Pair => 0.4,
        Kind::Word => 1.0,
        Kind::Name => 1.6,
        Kind::Number => 2.0,
    }
}

/// What it is worth by how it is said: the user's wishes and what was agreed, less for questions
/// and pleasantries.
fn manner(who: Role, text: &str) -> f32 {
    let question = text
        .trim_end_matches(['"', '\'', '”', ')', '*'])
        .ends_with(['?', '？', '؟']);
    let mut worth = match (who, question) {
        (Role::User, false) => 1.2,
        (Role::User, true) => 0.8,
        (_, false) => 0.9,
        (_, true) => 0.4,
    };
    let lower = text.to_lowercase();
    if says(&lower, KEPT) {
        worth *= 1.5;
    }
    if says(&lower, POLITE) {
        worth *= 0.4;
    }
    worth
}

/// Whether a text in lower case has one of these phrases, which are in the order of their bytes.
fn says(text: &str, phrases: &[&str]) -> bool {
    let mut before = ' ';
    text.char_indices().any(|(at, char)| {
        let begins = char.is_alphanumeric() && !before.is_alphanumeric();
        before = char;
        begins && begins_with(text.get(at..).unwrap_or(""), phrases)
    })
}

fn begins_with(text: &str, phrases: &[&str]) -> bool {
    let first = |phrase: &str| phrase.bytes().next();
    let wanted = first(text);
    let start = phrases.partition_point(|phrase| first(phrase) < wanted);
    let mut same = phrases.iter().skip(start);
    let mut same = std::iter::from_fn(|| same.next().filter(|phrase| first(phrase) == wanted));
    same.any(|phrase| {
        let after = text.strip_prefix(phrase).map(|rest| rest.chars().next());
        after.is_some_and(|next| !next.is_some_and(char::is_alphanumeric))
    })
}

/// Wishes, decisions, promises, and what must not be forgotten.
const KEPT: &[&str] = &[
    "agree",
    "agreed",
    "always",
    "at least",
    "at most",
    "budget",
    "by friday",
    "by monday",
    "by thursday",
    "by tuesday",
    "by wednesday",
    "called",
    "deadline",
    "decide",
    "decided",
    "do not",
    "don't",
    "due",
    "going to",
    "i am",
    "i hate",
    "i have",
    "i like",
    "i live",
    "i love",
    "i need",
    "i prefer",
    "i want",
    "i work",
    "i'll",
    "i'm",
    "i'm allergic",
    "important",
    "instead of",
    "let's",
    "must",
    "my",
    "name is",
    "never",
    "no later",
    "only",
    "our",
    "plan to",
    "promise",
    "promised",
    "rather than",
    "remember",
    "we need",
    "we use",
    "we want",
    "we'll",
    "will",
];

/// What is said to be polite.
const POLITE: &[&str] = &[
    "anything else",
    "certainly",
    "feel free",
    "glad to help",
    "good question",
    "great question",
    "happy to help",
    "hello",
    "hi there",
    "hope this helps",
    "let me know",
    "no problem",
    "of course",
    "sure thing",
    "thank you",
    "thanks",
    "you are welcome",
    "you're welcome",
];

/// The sentences to quote, in order.
fn choose<'c, 'a>(
    candidates: &'c [Candidate<'a>],
    budget: u64,
    count: &dyn Fn(&str) -> u64,
) -> Vec<&'c Candidate<'a>> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    let score = |at: &usize| candidates.get(*at).map_or(0.0, |one| one.score);
    // Stable: of two that are worth the same, what was said first.
    order.sort_by(|one, other| score(other).total_cmp(&score(one)));
    let mut said: BTreeSet<u32> = BTreeSet::new();
    let mut left = budget;
    let mut misfits = 0;
    let mut chosen = Vec::new();
    for at in order {
        let Some(one) = candidates.get(at) else {
            continue;
        };
        let worth = |word: &Term| kind_weight(word.kind);
        let whole: f32 = one.words.terms.iter().map(worth).sum();
        let fresh = || {
            one.words
                .terms
                .iter()
                .filter(|word| !said.contains(&word.hash))
        };
        let fact = fresh().any(|word| matches!(word.kind, Kind::Name | Kind::Number));
        if !fact && fresh().map(worth).sum::<f32>() < NEW * whole {
            continue;
        }
        // With its speaker, as if it stood alone: at most what it will take.
        let cost = count(&format!("{}{}\n", who(one.who), one.line()));
        if cost > left {
            misfits += 1;
            if misfits >= MISFITS {
                break;
            }
            continue;
        }
        misfits = 0;
        left -= cost;
        said.extend(one.words.terms.iter().map(|word| word.hash));
        chosen.push(at);
    }
    chosen.sort_unstable();
    chosen.iter().filter_map(|at| candidates.get(*at)).collect()
}

#[cfg(test)]
mod tests;
