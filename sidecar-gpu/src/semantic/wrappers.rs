//! What goes before, after and between the words of a question and asks nothing itself.

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
    "can you please explain",
    "could you please explain",
    "can you explain",
    "could you explain",
    "would you mind telling me",
    "please tell me",
    "tell me",
    "please explain",
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

/// Drops greetings, thanks and *could you tell me* from where sentences begin, and fillers anywhere.
pub(super) fn drop(tokens: &mut Vec<Token>) {
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].starts_sentence {
            let wrapper = WRAPPERS
                .iter()
                .filter(|wrapper| {
                    let mut words = tokens[at..].iter();
                    wrapper
                        .split(' ')
                        .all(|word| words.next().is_some_and(|token| token.text == word))
                })
                .map(|wrapper| wrapper.split(' ').count())
                .max();
            if let Some(length) = wrapper {
                tokens.drain(at..at + length);
                if let Some(next) = tokens.get_mut(at) {
                    next.starts_sentence = true;
                }
                continue;
            }
        }
        let filler = matches!(
            tokens[at].text.as_str(),
            "please" | "kindly" | "actually" | "basically" | "thanks" | "pls" | "exactly"
        );
        if filler && tokens[at].kind != Kind::Quoted {
            let began = tokens.remove(at).starts_sentence;
            if let Some(next) = tokens.get_mut(at) {
                next.starts_sentence |= began;
            }
            continue;
        }
        at += 1;
    }
}
