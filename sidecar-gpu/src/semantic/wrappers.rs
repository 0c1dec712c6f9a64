//! What goes before, after and between the words of a question and asks nothing itself.

use super::lexicon;
use super::question::Kind;
use super::scan::Token;

/// Ways to begin that ask nothing themselves. Longest first where one begins another.
const WRAPPERS: &[&str] = &[
    "can you please tell me",
    "could you please tell me",
    "can you tell me",
    "could you tell me",
    "can anyone tell me",
    "can someone tell me",
    "can someone explain",
    "can anyone explain",
    "could someone explain",
    "could anyone explain",
    "could someone tell me",
    "could anyone tell me",
    "can you help me understand",
    "help me understand",
    "can you show me",
    "could you show me",
    "please show me",
    "i would like to understand",
    "i want to understand",
    "can you please explain",
    "could you please explain",
    "can you explain",
    "could you explain",
    "would you mind telling me",
    "please tell me",
    "tell me",
    "please explain",
    "will you tell me",
    "i would like to know",
    "i want to know",
    "i need to know",
    "i was wondering",
    "i am wondering",
    "i wonder",
    "do you know",
    "does anyone know",
    "does anybody know",
    "let me know",
    "just wondering",
    "quick question",
    "may i know",
    "may i ask",
    "can i ask",
    "could i ask",
    "hi there",
    "hi",
    "hello",
    "hey",
    "please",
    "kindly",
    "ok",
    "okay",
    "so",
    "well",
    "also",
    "thank you",
    "thanks",
    "thanks in advance",
    "many thanks",
    "sorry",
    "excuse me",
    "good morning",
    "good afternoon",
    "good evening",
    "anyone know",
];

/// Drops greetings, thanks and *could you tell me* from where sentences begin, fillers anywhere, and
/// a *why* that only ends a choice: an answer gives its reasons unasked.
pub(super) fn drop(tokens: &mut Vec<Token>) {
    let mut at = 0;
    while at < tokens.len() {
        let wrapper = WRAPPERS
            .iter()
            .filter_map(|wrapper| says(&tokens[at..], wrapper))
            .max()
            .filter(|length| {
                // *it was declined, do you know why*, but not *who said do you know who I am*.
                let asks = tokens.get(at + length);
                tokens[at].starts_sentence
                    || *length > 2
                        && asks.is_some_and(|next| next.kind == Kind::Wh)
                        && follows_statement(tokens, at)
            });
        if let Some(length) = wrapper {
            let began = tokens[at].starts_sentence;
            tokens.drain(at..at + length);
            if let Some(next) = tokens.get_mut(at) {
                next.starts_sentence |= began;
            }
            continue;
        }
        let filler = matches!(
            tokens[at].text.as_str(),
            "please" | "kindly" | "actually" | "basically" | "thanks" | "pls" | "exactly"
        ) || is_more_about(tokens, at);
        if filler && tokens[at].kind != Kind::Quoted {
            let began = tokens.remove(at).starts_sentence;
            if let Some(next) = tokens.get_mut(at) {
                next.starts_sentence |= began;
            }
            continue;
        }
        at += 1;
    }
    drop_why(tokens);
    plain(tokens);
}

/// How many of the first tokens say `phrase`, where they do.
fn says(tokens: &[Token], phrase: &str) -> Option<usize> {
    let mut length = 0;
    for word in phrase.split(' ') {
        (tokens.get(length)?.text == word).then_some(())?;
        length += 1;
    }
    Some(length)
}

/// Whether what goes before `at` in its sentence asks nothing.
fn follows_statement(tokens: &[Token], at: usize) -> bool {
    let begins = tokens[..at].iter().rposition(|token| token.starts_sentence);
    let before = &tokens[begins.unwrap_or(0)..at];
    let asks = before.first().is_some_and(|first| first.kind == Kind::Aux);
    !asks && !before.iter().any(|token| token.kind == Kind::Wh)
}

/// Roundabout ways to ask, and the plain ones. Longest first where one begins another.
const ROUNDABOUT: &[(&str, &str)] = &[
    ("is it possible for me to", "can i"),
    ("is it possible to", "can i"),
    ("would it be possible to", "can i"),
    ("am i able to", "can i"),
    ("are you able to", "can you"),
    ("is there a reason why", "why"),
    ("is there any reason why", "why"),
    ("is there a reason", "why"),
];

/// Says plainly what is asked in a roundabout way.
fn plain(tokens: &mut Vec<Token>) {
    for (roundabout, plain) in ROUNDABOUT {
        let said = |at: usize| {
            let end = at + says(&tokens[at..], roundabout)?;
            (!asks_for_reason(roundabout, tokens.get(end))).then_some(at..end)
        };
        let Some(said) = (0..tokens.len()).find_map(said) else {
            continue;
        };
        let mut starts_sentence = tokens[said.start].starts_sentence;
        let plain = plain.split(' ').map(|word| Token {
            text: word.to_owned(),
            kind: lexicon::kind(word).unwrap_or(Kind::Content),
            starts_sentence: std::mem::take(&mut starts_sentence),
            roman: None,
        });
        tokens.splice(said, plain);
    }
}

/// *is there a reason to …*, *is there a reason code* do not ask why.
fn asks_for_reason(roundabout: &str, next: Option<&Token>) -> bool {
    roundabout.ends_with("reason")
        && next.is_some_and(|next| {
            next.kind == Kind::Content || matches!(next.text.as_str(), "to" | "for" | "of")
        })
}

/// *learn more about* asks for what *learn about* does.
fn is_more_about(tokens: &[Token], at: usize) -> bool {
    let word = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    at > 0
        && (word(at), word(at + 1)) == ("more", "about")
        && matches!(word(at - 1), "learn" | "know" | "read" | "out")
        && !tokens[at..].iter().any(|token| token.text == "than")
}

/// *… and why*, *…? Why?*, *…? Why or why not?* behind *which …*, *what is …*,
/// *is …*.
fn drop_why(tokens: &mut Vec<Token>) {
    const TAILS: &[&str] = &["why or why not", "and why or why not", "and why", "why"];
    let tail = TAILS.iter().find_map(|tail| {
        let length = tail.split(' ').count();
        let at = tokens.len().checked_sub(length).filter(|at| *at >= 3)?;
        says(&tokens[at..], tail)?;
        // *do you know why* ends in what it asks.
        let apart = tokens[at].starts_sentence || tail.starts_with("and");
        // Behind a statement it is the question, and behind *when* or *who* a second one.
        let asked = tokens[..at].windows(2).any(|two| {
            let chosen = matches!(two[1].text.as_str(), "is" | "are" | "would" | "do");
            two[0].text == "which"
                || two[0].text == "what" && chosen
                || two[0].starts_sentence && two[0].kind == Kind::Aux
        });
        (apart && asked).then_some(at)
    });
    if let Some(at) = tail {
        tokens.truncate(at);
    }
}
