//! One pass over a bounded window of the request: what is there to see, counted.

use super::lexicon::{Lexicon, WordHash};
use super::rule::Hits;
use crate::formats::{Part, Request, Role};

/// Bytes read of the last user turn: its beginning (the task mostly stands there) and, of what
/// is longer, its end (where the question follows a document).
const HEAD: usize = 3072;
const TAIL: usize = 1024;

/// Bytes read of the system prompt.
const SYSTEM: usize = 512;

/// What the window shows. Counts are of the last user turn unless said otherwise.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Bytes of the last user turn in all, read or not.
    pub(super) bytes: f32,
    /// Letters and digits, each Chinese, Japanese or Korean character as three: what they say in
    /// one takes about as many in English.
    pub(super) units: f32,
    pub(super) words: f32,
    pub(super) long_words: f32,
    /// Words that begin upper case, not at the start of a sentence.
    pub(super) names: f32,
    pub(super) numbers: f32,
    pub(super) sentences: f32,
    pub(super) questions: f32,
    pub(super) lines: f32,
    pub(super) list_items: f32,
    /// Lines that begin `A.`, `B)`, `(C)`.
    pub(super) options: f32,
    /// Letters in those lines.
    pub(super) option_units: f32,
    pub(super) blanks: f32,
    /// `$5`, `20%`.
    pub(super) amounts: f32,
    /// `=`, `+`, `<`, `∑`, …
    pub(super) operators: f32,
    /// `\frac`, `\sum`, …
    pub(super) latex: f32,
    /// `{`, `;`, `()`, `::`, …
    pub(super) code_signs: f32,
    /// snake_case, camelCase.
    pub(super) identifiers: f32,
    pub(super) fences: f32,
    pub(super) indented: f32,
    pub(super) quotes: f32,
    /// Messages of user and assistant in all.
    pub(super) turns: f32,
    /// Bytes of all messages.
    pub(super) history_bytes: f32,
    pub(super) tool_results: f32,
    pub(super) tools: bool,
    pub(super) structured: bool,
    pub(super) media: f32,
    /// Bytes of the system prompt in all.
    pub(super) system_bytes: f32,
}

/// Reads the window of a request. Hits of the system prompt count like those of the user turn.
pub(super) fn of_request(request: &Request<'_>, lexicon: &Lexicon) -> (Facts, Hits) {
    let mut scan = Scan::new(lexicon);
    let user = request.last_user();
    let texts: Vec<&str> = user
        .iter()
        .filter_map(|part| match part {
            Part::Text(text) => Some(text.escaped()),
            _ => None,
        })
        .collect();
    scan.window(&texts, true);
    let mut facts = std::mem::take(&mut scan.facts);
    facts.media = user
        .iter()
        .filter(|part| matches!(part, Part::Media(_)))
        .count() as f32;
    for message in &request.messages {
        match message.role {
            Role::Tool => facts.tool_results += 1.0,
            Role::User | Role::Assistant => facts.turns += 1.0,
        }
        facts.history_bytes += message.content.raw.len() as f32;
    }
    facts.tools = request.tools.is_some_and(|tools| tools.len() > 2);
    facts.structured = request.structured;
    let mut left = SYSTEM;
    for content in &request.system {
        for part in &content.parts {
            if let Part::Text(text) = part {
                let text = text.escaped();
                facts.system_bytes += text.len() as f32;
                let head = head(text, left);
                left -= head.len();
                scan.text(head, true);
            }
        }
    }
    (facts, scan.hits)
}

/// Reads the window of a bare prompt.
pub(super) fn of_prompt(prompt: &str, lexicon: &Lexicon) -> (Facts, Hits) {
    let mut scan = Scan::new(lexicon);
    scan.window(&[prompt], false);
    scan.facts.turns = 1.0;
    scan.facts.history_bytes = prompt.len() as f32;
    (scan.facts, scan.hits)
}

/// The first `most` bytes, to a character's end.
fn head(text: &str, most: usize) -> &str {
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

struct Scan<'l> {
    lexicon: &'l Lexicon,
    facts: Facts,
    hits: Hits,
}

/// Where the scanner stands in a line: option letters and list signs are only such at its start.
#[derive(Clone, Copy, PartialEq)]
enum Line {
    /// Nothing but so many spaces yet.
    Start(u8),
    /// After `(` or a single letter or digit at the start.
    Label,
    /// In the line; it is an option's.
    Option,
    /// In the line.
    Text,
}

impl<'l> Scan<'l> {
    fn new(lexicon: &'l Lexicon) -> Self {
        Scan {
            lexicon,
            facts: Facts::default(),
            hits: Hits::new(),
        }
    }

    /// Reads the window of a turn in parts. `escaped`: as it stands in JSON.
    fn window(&mut self, texts: &[&str], escaped: bool) {
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

    fn text(&mut self, text: &str, escaped: bool) {
        let bytes = text.as_bytes();
        let facts = &mut self.facts;
        let mut line = Line::Start(0);
        let mut word = Word::new();
        let mut previous = WordHash::EMPTY;
        let mut sentence_start = true;
        // The last character that is not a letter or digit, for pairs such as `()` and `::`.
        let mut before = b' ';
        let mut ideograph: Option<char> = None;
        let mut run = 0_u32;
        facts.lines += 1.0;
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            at += 1;
            let mut byte = byte;
            let mut wide = None;
            if byte >= 0x80 {
                let Some(letter) = text.get(at - 1..).and_then(|rest| rest.chars().next()) else {
                    continue;
                };
                at += letter.len_utf8() - 1;
                wide = Some(letter);
            } else if byte == b'\\' && escaped {
                let sign = bytes.get(at).copied().unwrap_or(b' ');
                at += 1;
                match sign {
                    b'n' => byte = b'\n',
                    b't' | b'r' | b'b' | b'f' => byte = b' ',
                    b'u' => {
                        let code = text
                            .get(at..at + 4)
                            .and_then(|hex| u32::from_str_radix(hex, 16).ok());
                        at += 4;
                        // A surrogate is half of an emoji or a rare ideograph: a sign.
                        match code.and_then(char::from_u32) {
                            Some(letter) if letter.is_ascii() => byte = letter as u8,
                            Some(letter) => wide = Some(letter),
                            None => byte = b' ',
                        }
                    }
                    other => byte = other,
                }
            }
            if let Some(letter) = wide {
                if is_ideograph(letter) {
                    word.end(facts, self.lexicon, &mut self.hits, &mut previous);
                    facts.units += 3.0;
                    // About two characters make a word.
                    facts.words += 0.5;
                    if let Some(first) = ideograph.replace(letter) {
                        let pair = WordHash::EMPTY.with(first as u32).with(letter as u32);
                        self.lexicon.hit(pair, &mut self.hits);
                    }
                    line = line.in_text();
                    continue;
                }
                ideograph = None;
                if letter.is_alphanumeric() || is_mark(letter) {
                    word.push(lower(letter), false);
                    facts.units += 1.0;
                    line = line.in_text();
                    continue;
                }
                word.end(facts, self.lexicon, &mut self.hits, &mut previous);
                match letter {
                    '。' | '！' | '।' | '．' => facts.sentences += 1.0,
                    '？' | '؟' => facts.questions += 1.0,
                    '×' | '÷' | '±' | '√' | '≤' | '≥' | '≠' | '≈' | '∞' | '∈' | '∀' | '∃' | '→'
                    | '⇒' | '∧' | '∨' | '¬' | '⊃' | '≡' | '∑' | '∏' | '∫' | '∂' | '°' | '²'
                    | '³' => {
                        facts.operators += 1.0;
                    }
                    '€' | '£' | '¥' | '₹' => facts.amounts += 1.0,
                    '_' => facts.blanks += 1.0,
                    '“' | '”' | '«' | '»' => facts.quotes += 1.0,
                    _ => {}
                }
                before = b' ';
                continue;
            }
            ideograph = None;
            match byte {
                b'a'..=b'z' => {
                    word.push(u32::from(byte), false);
                    facts.units += 1.0;
                    line = line.label_or_text(word.letters == 1 && before == b'(');
                    sentence_start = false;
                    run = 0;
                }
                b'A'..=b'Z' => {
                    if word.letters == 0 && !sentence_start {
                        word.name = true;
                    }
                    word.push(u32::from(byte | 0x20), true);
                    facts.units += 1.0;
                    line = line.label_or_text(true);
                    sentence_start = false;
                    run = 0;
                }
                b'0'..=b'9' => {
                    word.digits += 1;
                    word.push(u32::from(byte), false);
                    facts.units += 1.0;
                    line = line.label_or_text(false);
                    sentence_start = false;
                    run = 0;
                }
                b'_' if word.letters > 0 => word.joined = true,
                // Part of a word or number: don't, 1,000, 3.5.
                b'\'' if word.letters > 0 => {}
                b',' | b'.'
                    if word.is_number() && bytes.get(at).is_some_and(u8::is_ascii_digit) => {}
                _ => {
                    let single = word.letters == 1;
                    word.end(facts, self.lexicon, &mut self.hits, &mut previous);
                    run = if byte == before { run + 1 } else { 1 };
                    let next = bytes.get(at).copied().unwrap_or(b' ');
                    match byte {
                        b'\n' => {
                            facts.lines += 1.0;
                            line = Line::Start(0);
                            sentence_start = true;
                        }
                        b' ' | b'\t' => {
                            if let Line::Start(spaces) = line {
                                if spaces == 3 {
                                    facts.indented += 1.0;
                                }
                                line = Line::Start(spaces.saturating_add(1));
                            }
                        }
                        b'.' | b')' | b':' if line == Line::Label && single => {
                            facts.options += 1.0;
                            line = Line::Option;
                            sentence_start = true;
                        }
                        b'-' | b'*' if matches!(line, Line::Start(_)) && next == b' ' => {
                            facts.list_items += 1.0;
                            line = Line::Text;
                        }
                        b'(' if matches!(line, Line::Start(_)) => line = Line::Label,
                        b'.' | b'!' => {
                            if !next.is_ascii_alphanumeric() && run == 1 {
                                facts.sentences += 1.0;
                                sentence_start = true;
                            }
                        }
                        b'?' => {
                            facts.questions += 1.0;
                            sentence_start = true;
                        }
                        b'$' if next.is_ascii_digit() => facts.amounts += 1.0,
                        b'%' => facts.amounts += 1.0,
                        b'=' | b'+' | b'<' | b'>' | b'^' | b'~' | b'*' | b'|' => {
                            facts.operators += 1.0;
                            if run == 2 {
                                facts.code_signs += 1.0;
                            }
                        }
                        b'\\' if next.is_ascii_alphabetic() => facts.latex += 1.0,
                        b'{' | b'}' | b';' | b'[' | b']' | b'#' => facts.code_signs += 1.0,
                        b')' if before == b'(' => facts.code_signs += 1.0,
                        b':' if run == 2 => facts.code_signs += 1.0,
                        b'`' if run == 3 => facts.fences += 1.0,
                        b'_' => {
                            if run == 1 && !next.is_ascii_alphanumeric() {
                                facts.blanks += 1.0;
                            }
                        }
                        b'"' => facts.quotes += 1.0,
                        _ => {}
                    }
                    if !matches!(byte, b' ' | b'\t' | b'\n' | b'(') {
                        line = line.in_text();
                    }
                }
            }
            if line == Line::Option && byte.is_ascii_alphanumeric() {
                facts.option_units += 1.0;
            }
            before = byte;
        }
        word.end(facts, self.lexicon, &mut self.hits, &mut previous);
    }
}

impl Line {
    fn in_text(self) -> Line {
        match self {
            Line::Option => Line::Option,
            _ => Line::Text,
        }
    }

    /// After a letter or digit: a single one at the start may be an option's label.
    fn label_or_text(self, may_be_label: bool) -> Line {
        match self {
            Line::Start(_) if may_be_label => Line::Label,
            Line::Label if may_be_label => Line::Label,
            other => other.in_text(),
        }
    }
}

/// The word that is being read.
struct Word {
    hash: WordHash,
    letters: u32,
    digits: u32,
    name: bool,
    /// Has an underscore inside, or an upper-case letter after a lower-case one.
    joined: bool,
    last_lower: bool,
}

impl Word {
    fn new() -> Word {
        Word {
            hash: WordHash::EMPTY,
            letters: 0,
            digits: 0,
            name: false,
            joined: false,
            last_lower: false,
        }
    }

    #[inline]
    fn push(&mut self, letter: u32, upper: bool) {
        self.hash = self.hash.with(letter);
        self.joined |= upper && self.last_lower;
        self.last_lower = !upper;
        self.letters += 1;
    }

    fn is_number(&self) -> bool {
        self.letters > 0 && self.digits == self.letters
    }

    #[inline]
    fn end(
        &mut self,
        facts: &mut Facts,
        lexicon: &Lexicon,
        hits: &mut Hits,
        previous: &mut WordHash,
    ) {
        if self.letters == 0 {
            return;
        }
        if self.is_number() {
            facts.numbers += 1.0;
        } else {
            facts.words += 1.0;
            if self.letters >= 9 {
                facts.long_words += 1.0;
            }
            if self.name {
                facts.names += 1.0;
            }
            if self.joined {
                facts.identifiers += 1.0;
            }
            lexicon.hit(self.hash, hits);
            lexicon.hit(previous.pair(self.hash), hits);
        }
        *previous = self.hash;
        *self = Word::new();
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
fn is_ideograph(letter: char) -> bool {
    matches!(letter as u32, 0x3040..=0x30FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xAC00..=0xD7AF | 0x20000..=0x2FA1F)
}
