//! The pass over the window's text, as it stands in JSON or plain.

use super::facts::{Facts, HEAD, TAIL};
use super::lexicon::{Lexicon, WordHash};
use super::rule::Hits;

/// Letters of a word that is not long.
const LONG: u32 = 8;

/// The first `most` bytes, to a character's end.
pub(super) fn head(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("")
}

/// The last `most` bytes, from a character's start.
fn tail(text: &str, most: usize) -> &str {
    let mut start = text.len().saturating_sub(most);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.get(start..).unwrap_or("")
}

/// Is told of every word, pair of words and pair of ideographs, beside the rules' own.
pub(super) trait Grams {
    /// One of them, however often it stood before.
    fn see(&mut self, gram: WordHash);
}

pub(super) struct Scan<'l, G> {
    lexicon: &'l Lexicon,
    pub(super) grams: G,
    pub(super) facts: Facts,
    pub(super) hits: Hits,
    state: State,
}

/// Where the scanner stands in a line: option letters and list signs are only such at its start.
#[derive(Clone, Copy, PartialEq)]
enum Line {
    /// Nothing but so many spaces yet.
    Start(u8),
    /// After `(` or a single letter or digit at the start.
    Label,
    /// In the line.
    Text,
}

impl<'l, G: Grams> Scan<'l, G> {
    pub(super) fn new(lexicon: &'l Lexicon, grams: G) -> Self {
        Scan {
            lexicon,
            grams,
            facts: Facts::default(),
            hits: Hits::new(),
            state: State::default(),
        }
    }

    /// Reads the window of a turn in parts. `escaped`: as it stands in JSON.
    pub(super) fn window(&mut self, texts: &[&str], escaped: bool) {
        let all: usize = texts.iter().map(|text| text.len()).sum();
        self.facts.bytes = all as f32;
        let mut left = HEAD;
        let mut unread = 0;
        let mut last = "";
        for text in texts {
            let head = head(text, left);
            left -= head.len();
            if !head.is_empty() {
                self.text(head, escaped);
            }
            if head.len() < text.len() {
                last = text.get(head.len()..).unwrap_or("");
                unread += last.len();
            }
        }
        if unread > 0 {
            self.text(tail(last, TAIL), escaped);
        }
    }

    /// Reads `text`, decoding JSON's escapes on the way if it is `escaped`.
    pub(super) fn text(&mut self, text: &str, escaped: bool) {
        let bytes = text.as_bytes();
        self.state = State::default();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            // Most of a text is small letters and the spaces between words, about which there is
            // nothing to decide: a first letter may only be an option's label behind a `(`.
            if byte.is_ascii_lowercase()
                && (self.state.word.letters > 0 || self.state.before != b'(')
            {
                at += self.small_letters(bytes.get(at..).unwrap_or_default());
                continue;
            }
            if byte == b' ' && self.state.line == Line::Text && self.state.before != b' ' {
                self.end_word();
                (self.state.before, self.state.run) = (b' ', 1);
                self.state.ideograph = None;
                at += 1;
                continue;
            }
            let letter = if byte < 0x80 {
                at += 1;
                char::from(byte)
            } else {
                let letter = text.get(at..).and_then(|rest| rest.chars().next());
                at += letter.map_or(1, char::len_utf8);
                letter.unwrap_or(' ')
            };
            let letter = if letter == '\\' && escaped {
                let sign = bytes.get(at).copied().unwrap_or(b' ');
                at += 1;
                match sign {
                    b'n' => '\n',
                    b't' | b'r' | b'b' | b'f' => ' ',
                    b'u' => {
                        let hex = text.get(at..at + 4);
                        at += 4;
                        let code = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok());
                        // A surrogate is half of an emoji or a rare ideograph: a sign.
                        code.and_then(char::from_u32).unwrap_or(' ')
                    }
                    other => char::from(other),
                }
            } else {
                letter
            };
            match u8::try_from(letter) {
                Ok(ascii) if ascii < 0x80 => {
                    let next = bytes.get(at).copied().unwrap_or(b' ');
                    self.ascii(ascii, next);
                }
                _ => self.wide(letter),
            }
        }
        self.end_word();
    }

    /// Takes the small letters that `rest` begins with into the word, as [`Scan::ascii`] would one
    /// by one; returns how many there are.
    #[inline]
    fn small_letters(&mut self, rest: &[u8]) -> usize {
        let word = &mut self.state.word;
        let mut hash = word.hash;
        let mut count = 0;
        for &byte in rest.iter().take_while(|byte| byte.is_ascii_lowercase()) {
            hash = hash.with(u32::from(byte));
            count += 1;
        }
        word.hash = hash;
        word.letters += count as u32;
        word.last_lower = true;
        self.state.ideograph = None;
        self.state.letter(false);
        self.state.before = b'a';
        count
    }

    #[inline]
    fn ascii(&mut self, byte: u8, next: u8) {
        self.state.ideograph = None;
        let word = &mut self.state.word;
        match byte {
            b'a'..=b'z' => {
                word.push(u32::from(byte), false);
                let label = word.letters == 1 && self.state.before == b'(';
                self.state.letter(label);
            }
            b'A'..=b'Z' => {
                word.push(u32::from(byte | 0x20), true);
                self.state.letter(true);
            }
            b'0'..=b'9' => {
                word.digits += 1;
                word.push(u32::from(byte), false);
                self.state.letter(false);
            }
            b'_' if word.letters > 0 => word.joined = true,
            // Part of a word or number: don't, 1,000, 3.5.
            b'\'' if word.letters > 0 => {}
            b',' | b'.' if word.is_number() && next.is_ascii_digit() => {}
            _ => self.sign(byte, next),
        }
        self.state.before = byte;
    }

    /// A space, line feed or other sign in ASCII.
    fn sign(&mut self, byte: u8, next: u8) {
        let label = self.state.line == Line::Label && self.state.word.letters == 1;
        self.end_word();
        let before = self.state.before;
        self.state.run = if byte == before {
            self.state.run + 1
        } else {
            1
        };
        let (facts, run) = (&mut self.facts, self.state.run);
        let start = matches!(self.state.line, Line::Start(_));
        match byte {
            b'\n' => {
                facts.lines += 1.0;
                return self.state.line = Line::Start(0);
            }
            b' ' | b'\t' => {
                if let Line::Start(spaces) = &mut self.state.line {
                    if *spaces == 3 {
                        facts.indented += 1.0;
                    }
                    *spaces = spaces.saturating_add(1);
                }
                return;
            }
            b'(' if start => return self.state.line = Line::Label,
            b'.' | b')' | b':' if label => {
                if facts.options == 0.0 {
                    facts.before_options = facts.words + facts.numbers;
                    facts.numbers_before_options = facts.numbers;
                }
                facts.options += 1.0;
            }
            b',' => facts.commas += 1.0,
            b'"' if run == 1 => facts.quotes += 1.0,
            b'_' if run == 2 => facts.blanks += 1.0,
            b'(' => facts.brackets += 1.0,
            b'-' | b'*' if start && next == b' ' => facts.list_items += 1.0,
            b'.' | b'!' if !next.is_ascii_alphanumeric() && run == 1 => facts.sentences += 1.0,
            b'?' => facts.questions += 1.0,
            b'$' if next.is_ascii_digit() => facts.amounts += 1.0,
            b'%' => facts.amounts += 1.0,
            b'=' | b'+' | b'<' | b'>' | b'^' | b'~' | b'*' | b'|' => {
                facts.operators += 1.0;
                // `==`, `**`, `||`
                if run == 2 {
                    facts.code_signs += 1.0;
                }
            }
            b'\\' if next.is_ascii_alphabetic() => facts.latex += 1.0,
            b'{' | b'}' | b';' | b'[' | b']' | b'#' => facts.code_signs += 1.0,
            b')' if before == b'(' => facts.code_signs += 1.0,
            b':' if run == 2 => facts.code_signs += 1.0,
            b'`' if run == 3 => facts.fences += 1.0,
            _ => {}
        }
        if byte != b'(' {
            self.state.line = Line::Text;
        }
    }

    /// A character that is not ASCII.
    fn wide(&mut self, letter: char) {
        let first = self.state.ideograph.take();
        self.state.before = b' ';
        if is_ideograph(letter) {
            self.end_word();
            // About two characters make a word.
            self.facts.words += 0.5;
            self.state.ideograph = Some(letter);
            self.state.line = Line::Text;
            if let Some(first) = first {
                let pair = WordHash::EMPTY.with(first as u32).with(letter as u32);
                self.lexicon.hit(pair, &mut self.hits);
                self.grams.see(pair);
            }
            return;
        }
        if letter.is_alphanumeric() || is_mark(letter) {
            self.state.word.push(lower(letter), false);
            self.state.line = Line::Text;
            return;
        }
        self.end_word();
        match letter {
            '。' | '！' | '।' | '．' => self.facts.sentences += 1.0,
            '？' | '؟' => self.facts.questions += 1.0,
            '×' | '÷' | '±' | '√' | '≤' | '≥' | '≠' | '≈' | '∞' | '∈' | '∀' | '∃' | '→' | '⇒'
            | '∧' | '∨' | '¬' | '⊃' | '≡' | '∑' | '∏' | '∫' | '∂' | '°' => {
                self.facts.operators += 1.0;
            }
            '€' | '£' | '¥' | '₹' => self.facts.amounts += 1.0,
            _ => {}
        }
    }

    #[inline]
    fn end_word(&mut self) {
        let word = std::mem::take(&mut self.state.word);
        if word.letters == 0 {
            return;
        }
        if word.is_number() {
            self.facts.numbers += 1.0;
            // Which number it is says nothing; that there is one does.
            self.grams.see(WordHash::NUMBER);
            self.grams.see(self.state.previous.pair(WordHash::NUMBER));
            self.state.previous = WordHash::NUMBER;
        } else {
            self.facts.words += 1.0;
            self.facts.letters += f32::from(word.letters.min(40) as u8);
            self.facts.long_words += if word.letters > LONG { 1.0 } else { 0.0 };
            self.facts.capitals += if word.capital { 1.0 } else { 0.0 };
            if word.joined {
                self.facts.identifiers += 1.0;
            }
            self.lexicon.hit(word.hash, &mut self.hits);
            let phrase = self.state.previous.pair(word.hash);
            self.lexicon.hit(phrase, &mut self.hits);
            self.grams.see(word.hash);
            self.grams.see(phrase);
            self.state.previous = word.hash;
        }
    }
}

/// Where the pass is within a text.
struct State {
    line: Line,
    word: Word,
    previous: WordHash,
    /// The ASCII character before, for pairs such as `()` and `::`.
    before: u8,
    /// How often it stood in a row.
    run: u32,
    /// The ideograph before, if the last character was one.
    ideograph: Option<char>,
}

impl Default for State {
    fn default() -> State {
        State {
            line: Line::Start(0),
            word: Word::default(),
            previous: WordHash::EMPTY,
            before: b' ',
            run: 0,
            ideograph: None,
        }
    }
}

impl State {
    /// After a letter or digit: a single one at the start of a line may be an option's label.
    fn letter(&mut self, may_be_label: bool) {
        self.run = 0;
        self.line = match self.line {
            Line::Start(_) | Line::Label if may_be_label => Line::Label,
            _ => Line::Text,
        };
    }
}

/// The word that is being read.
struct Word {
    hash: WordHash,
    letters: u32,
    digits: u32,
    /// Has an underscore inside, or an upper-case letter after a lower-case one.
    joined: bool,
    last_lower: bool,
    /// Begins with an upper-case letter of ASCII.
    capital: bool,
}

impl Default for Word {
    fn default() -> Word {
        Word {
            hash: WordHash::EMPTY,
            letters: 0,
            digits: 0,
            joined: false,
            last_lower: false,
            capital: false,
        }
    }
}

impl Word {
    #[inline]
    fn push(&mut self, letter: u32, upper: bool) {
        self.hash = self.hash.with(letter);
        self.joined |= upper && self.last_lower;
        self.capital |= upper && self.letters == 0;
        self.last_lower = !upper;
        self.letters += 1;
    }

    fn is_number(&self) -> bool {
        self.letters > 0 && self.digits == self.letters
    }
}

/// Lower case of the scripts that have it and that the rules' words are in.
fn lower(letter: char) -> u32 {
    let code = letter as u32;
    match code {
        // Latin-1, Greek and Cyrillic capitals stand a fixed step before their small letters.
        0xC0..=0xDE | 0x391..=0x3A9 | 0x410..=0x42F => code + 0x20,
        0x400..=0x40F => code + 0x50,
        _ => code,
    }
}

/// A combining mark of a script that writes vowels so (Devanagari, Thai, Arabic, Hebrew).
fn is_mark(letter: char) -> bool {
    matches!(letter as u32, 0x300..=0x36F | 0x591..=0x5C7 | 0x610..=0x65F | 0x900..=0xDFF | 0xE31..=0xE4E)
}

/// Chinese, Japanese, Korean: written without spaces, or (Korean) with endings that hide words.
pub(super) fn is_ideograph(letter: char) -> bool {
    matches!(letter as u32, 0x3040..=0x30FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xAC00..=0xD7AF | 0x20000..=0x2FA1F)
}
