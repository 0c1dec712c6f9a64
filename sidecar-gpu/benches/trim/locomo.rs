//! LoCoMo: two people's conversation over months, and questions whose answers stand in some of its
//! turns.
//!
//! A turn is a message as a chat client sends it: its text, from the user where the first speaker
//! said it and from the assistant where the second did. Each question is appended as the current
//! turn. A user's message with what was answered is an exchange, as the filter keeps or drops it;
//! the last two always stay, by default. Rows of `single messages` keep or drop each message alone.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use sluice_core::policy::trim::history::{self, Past};
use sluice_core::policy::trim::rank::{self, Passage};
use sluice_core::policy::trim::terms::Terms;
use sluice_core::tokens::{Encoding, Tokens};

use crate::data::{self, Asked, Conversation};
use crate::row::{Row, percent};
use crate::vectors::Vectors;

/// Percent of the conversation's tokens that may stay.
const BUDGETS: [u64; 4] = [5, 10, 20, 40];

/// The budget of the aims: of the mean share of evidence kept, as its first figures were.
const AIM_AT: u64 = 10;

/// Exchanges that always stay: the default of `trim.history.last`.
const LAST: usize = 2;

/// Tokens of a chat message beside its text (OpenAI cookbook, "How to count tokens with tiktoken").
const PER_MESSAGE: u64 = 4;

/// By what a past is chosen, with what should be kept of the evidence at 10%.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Recent,
    Words,
    Meaning,
}

impl Keep {
    const ALL: [Keep; 3] = [Keep::Recent, Keep::Words, Keep::Meaning];

    fn name(self) -> &'static str {
        match self {
            Keep::Recent => "recent",
            Keep::Words => "relevant, words alone",
            Keep::Meaning => "relevant, with embeddings",
        }
    }

    /// Percent of the evidence that should stay within 10% of the tokens.
    fn target(self) -> Option<f64> {
        match self {
            Keep::Recent => None,
            Keep::Words => Some(80.0),
            Keep::Meaning => Some(90.0),
        }
    }
}

/// What is kept or dropped as one.
struct Exchange<'a> {
    /// Ids of its turns.
    turns: Vec<&'a str>,
    text: String,
    terms: Terms,
    tokens: u64,
}

/// A question with what of its evidence stayed.
struct Outcome<'a> {
    conversation: &'a str,
    category: &'a str,
    /// Share of the evidence.
    kept: f64,
}

/// How a past is cut.
#[derive(Clone, Copy)]
struct Way<'a> {
    keep: Keep,
    /// Percent of the tokens.
    budget: u64,
    vectors: Option<&'a Vectors>,
}

/// The figures; none where the conversations are absent.
pub(crate) fn measure(model: &Path, quick: bool) -> Result<Vec<Row>> {
    let (mut conversations, asked) = data::conversations()?;
    conversations.truncate(if quick { 1 } else { usize::MAX });
    if conversations.is_empty() || asked.is_empty() {
        return Ok(Vec::new());
    }
    let tokens = Tokens::load(&[Encoding::O200kBase]);
    let cut = |conversation, by_message| exchanges(conversation, by_message, &tokens);
    let pasts = |by_message: bool| -> Result<Vec<Vec<Exchange<'_>>>> {
        let pasts = conversations.iter().map(|it| cut(it, by_message));
        pasts.collect()
    };
    let (exchanges, messages) = (pasts(false)?, pasts(true)?);
    let questions = asked.iter().map(|asked| asked.question.as_str());
    let past = exchanges.iter().chain(&messages).flatten();
    let texts = past.map(|exchange| exchange.text.as_str()).chain(questions);
    let vectors = Vectors::of(model, texts.collect())?;
    let mut rows = Vec::new();
    for (unit, pasts) in [("", &exchanges), (" · single messages", &messages)] {
        for (keep, budget) in Keep::ALL
            .into_iter()
            .flat_map(|keep| BUDGETS.map(|budget| (keep, budget)))
        {
            let vectors = vectors.as_ref().filter(|_| keep == Keep::Meaning);
            if keep == Keep::Meaning && vectors.is_none() {
                continue;
            }
            let way = Way {
                keep,
                budget,
                vectors,
            };
            let outcomes: Vec<Outcome<'_>> = conversations
                .iter()
                .zip(pasts)
                .flat_map(|(conversation, past)| outcomes(conversation, past, &asked, way))
                .collect();
            let case = format!("LoCoMo{unit} · {} · {budget}%", keep.name());
            let is_aim = budget == AIM_AT && unit.is_empty();
            rows.extend(report(&case, &outcomes, keep.target().filter(|_| is_aim)));
        }
    }
    Ok(rows)
}

/// The conversation as a chat client would send it, in what is kept or dropped as one.
fn exchanges<'a>(
    conversation: &'a Conversation,
    by_message: bool,
    tokens: &Tokens,
) -> Result<Vec<Exchange<'a>>> {
    let user = conversation.speakers.first().context("no speakers")?;
    let turns = conversation
        .sessions
        .iter()
        .flat_map(|session| &session.turns);
    let mut exchanges: Vec<Exchange<'a>> = Vec::new();
    let mut before_was_user = false;
    for turn in turns {
        let is_user = turn.speaker == *user;
        let count = tokens.count_text(Encoding::O200kBase, &turn.text);
        let count = PER_MESSAGE + count.context("the vocabulary is not loaded")?;
        let opens = by_message || is_user && !before_was_user;
        match exchanges.last_mut().filter(|_| !opens) {
            Some(open) => {
                open.turns.push(&turn.id);
                open.text.push('\n');
                open.text.push_str(&turn.text);
                open.tokens += count;
            }
            None => exchanges.push(Exchange {
                turns: vec![&turn.id],
                text: turn.text.clone(),
                terms: Terms::default(),
                tokens: count,
            }),
        }
        before_was_user = is_user;
    }
    for exchange in &mut exchanges {
        exchange.terms = Terms::of(&exchange.text);
    }
    Ok(exchanges)
}

/// What stays of the evidence of each question about the conversation. What has none, or none that
/// is in the conversation, is left out.
fn outcomes<'a>(
    conversation: &'a Conversation,
    past: &[Exchange<'_>],
    asked: &'a [Asked],
    way: Way<'_>,
) -> Vec<Outcome<'a>> {
    let turns: HashSet<&str> = past
        .iter()
        .flat_map(|it| it.turns.iter().copied())
        .collect();
    let about = asked.iter().filter(|it| it.conversation == conversation.id);
    let outcome = |asked: &'a Asked| {
        let evidence = asked.evidence.iter().map(String::as_str);
        let evidence: HashSet<&str> = evidence.filter(|id| turns.contains(id)).collect();
        let stays = stays(past, &asked.question, way);
        let kept = past.iter().zip(stays).filter(|(_, stays)| *stays);
        let kept = kept.flat_map(|(exchange, _)| &exchange.turns);
        let kept = kept.filter(|id| evidence.contains(**id)).count();
        (!evidence.is_empty()).then(|| Outcome {
            conversation: &conversation.id,
            category: &asked.category_name,
            kept: kept as f64 / evidence.len() as f64,
        })
    };
    about.filter_map(outcome).collect()
}

/// The filter's choice.
fn stays(past: &[Exchange<'_>], question: &str, way: Way<'_>) -> Vec<bool> {
    let all: u64 = past.iter().map(|exchange| exchange.tokens).sum();
    let budget = all * way.budget / 100;
    let sizes = past.iter().enumerate().map(|(at, exchange)| Past {
        tokens: exchange.tokens,
        must: at + LAST >= past.len(),
    });
    let sizes: Vec<Past> = sizes.collect();
    if way.keep == Keep::Recent {
        return history::recent(&sizes, budget);
    }
    let passages = past.iter().map(|exchange| Passage {
        terms: &exchange.terms,
        similarity: way
            .vectors
            .and_then(|vectors| vectors.cosine(&exchange.text, question)),
    });
    let passages: Vec<Passage<'_>> = passages.collect();
    let scores = rank::conversation(&Terms::of(question), &passages);
    history::relevant(&sizes, &scores, budget)
}

/// Both measures, and at the budget that is aimed at how they spread over conversations and kinds
/// of question.
fn report(case: &str, outcomes: &[Outcome<'_>], target: Option<f64>) -> Vec<Row> {
    let kept = |of: &[&Outcome<'_>]| percent(of.iter().map(|it| it.kept));
    let all: Vec<&Outcome<'_>> = outcomes.iter().collect();
    let whole = outcomes
        .iter()
        .map(|it| f64::from(u8::from(it.kept >= 1.0)));
    let mut rows = vec![
        Row::higher(format!("{case} · evidence kept"), kept(&all), "%").target(target),
        Row::higher(format!("{case} · all evidence kept"), percent(whole), "%"),
    ];
    if target.is_some() {
        let mut spread: BTreeMap<&str, Vec<&Outcome<'_>>> = BTreeMap::new();
        for outcome in outcomes {
            for group in [outcome.conversation, outcome.category] {
                spread.entry(group).or_default().push(outcome);
            }
        }
        rows.extend(spread.into_iter().map(|(group, of)| {
            let case = format!("{case} · evidence kept · {group}, {} questions", of.len());
            Row::higher(case, kept(&of), "%")
        }));
    }
    rows
}
