//! Text into tokens: sentences, words, names, numbers, quotations and code.

use super::question::Kind;
use super::{lexicon, numbers};

/// A piece of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// In small letters, but code, which stays as it is.
    pub(super) text: String,
    pub(super) kind: Kind,
    pub(super) starts_sentence: bool,
    /// Its value where it was written as a Roman numeral.
    pub(super) roman: Option<u16>,
}

/// Longest quotation, in bytes; a longer one is read as if its marks were not there.
const QUOTATION: usize = 300;

/// The same text with one spelling of quotes, dashes, spaces and full-width letters, and without
/// what does not show.
pub(super) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '\u{2018}' | '\u{2019}' | '\u{201b}' | '\u{2032}' | '\u{b4}' | '\u{2bc}' => {
                folded.push('\'');
            }
            '\u{201c}' | '\u{201d}' | '\u{201e}' | '\u{201f}' | '\u{ab}' | '\u{bb}'
            | '\u{2033}' => folded.push('"'),
            '\u{2010}'..='\u{2013}' | '\u{2212}' => folded.push('-'),
            '\u{2014}' | '\u{2015}' => folded.push_str(" - "),
            '\u{2026}' => folded.push_str("..."),
            '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}' | '\u{fe0f}' => {}
            '\u{ff01}'..='\u{ff5e}' => {
                folded.extend(char::from_u32(one as u32 - 0xfee0));
            }
            one if one.is_whitespace() && one != '\n' => folded.push(' '),
            one => folded.push(one),
        }
    }
    folded
}

/// Letters, digits and signs in small letters, spaces between words: what must be equal where
/// nothing is understood.
pub(super) fn verbatim(folded: &str) -> String {
    let small = folded.to_lowercase();
    let words: Vec<&str> = small.split_whitespace().collect();
    let text = words.join(" ");
    text.trim_end_matches(['?', '.', '!', ' ', '。', '？', '！', '؟'])
        .to_string()
}

/// Whether the text is English enough to compare it word by word.
pub(super) fn is_english(folded: &str, tokens: &[Token]) -> bool {
    const FOREIGN: &str = " der de die das und ist nicht ein eine wie ich zu den mit que el la los las \
        como por para una un puedo mi es le les des et est pas comment quel quelle je du il che \
        non per di sono uma da em meu posso het een niet ik van hoe jag hur och att det som ";
    let known_letters = |one: char| {
        !one.is_alphabetic()
            || one.is_ascii()
            || ('\u{c0}'..='\u{24f}').contains(&one)
            || one == 'µ'
    };
    if !folded.chars().all(known_letters) {
        return false;
    }
    let (mut english, mut shared, mut foreign, mut words) = (0, 0, 0, 0);
    for token in tokens {
        match token.kind {
            Kind::Quoted | Kind::Code | Kind::Number => continue,
            Kind::Function
            | Kind::Wh
            | Kind::Aux
            | Kind::Pronoun
            | Kind::Relation
            | Kind::Negation
                if !ambiguous(&token.text)
                    || token.starts_sentence && matches!(token.text.as_str(), "do" | "will") =>
            {
                english += 1;
            }
            Kind::Function | Kind::Aux | Kind::Pronoun | Kind::Negation => shared += 1,
            _ => {}
        }
        words += 1;
        if FOREIGN.contains(&format!(" {} ", token.text)) {
            foreign += 1;
        }
    }
    if foreign == 0 {
        english += shared;
    }
    english > foreign && english * 8 >= words
}

/// English words that other languages write too.
fn ambiguous(word: &str) -> bool {
    matches!(
        word,
        "a" | "in"
            | "an"
            | "on"
            | "me"
            | "as"
            | "do"
            | "was"
            | "am"
            | "so"
            | "will"
            | "he"
            | "us"
            | "no"
            | "i"
            | "we"
            | "all"
            | "over"
            | "under"
            | "of"
            | "is"
            | "off"
            | "most"
            | "by"
    )
}

/// Reads the folded text.
pub(super) fn tokens(folded: &str) -> Vec<Token> {
    let mut scan = Scan {
        tokens: Vec::new(),
        starts_sentence: true,
        names_show: names_show(folded),
        all_capitals: !folded.chars().any(char::is_lowercase),
    };
    let mut at = 0;
    while let Some(one) = folded[at..].chars().next() {
        let rest = &folded[at..];
        if one == '\n' {
            scan.starts_sentence = true;
        }
        if one.is_whitespace() {
            at += one.len_utf8();
        } else if let Some((kind, inside, length)) = quotation(folded, at) {
            let text = match kind {
                Kind::Code => inside.to_string(),
                _ => inside.to_lowercase(),
            };
            let words: Vec<&str> = text.split_whitespace().collect();
            scan.push(words.join(" "), kind);
            at += length;
        } else {
            let length = rest
                .char_indices()
                .find(|(place, one)| one.is_whitespace() || *place > 0 && matches!(one, '"' | '`'))
                .map_or(rest.len(), |(place, _)| place);
            scan.chunk(&rest[..length]);
            at += length;
        }
    }
    scan.tokens
}

/// A quotation that begins here: its kind, what it says, its length.
fn quotation(text: &str, at: usize) -> Option<(Kind, &str, usize)> {
    let rest = &text[at..];
    let mark = rest
        .chars()
        .next()
        .filter(|one| matches!(one, '"' | '`' | '\''))?;
    let marks = rest.len() - rest.trim_start_matches(mark).len();
    let body = &rest[marks..];
    let end = if mark == '\'' {
        // An apostrophe inside a word ends nothing.
        body.match_indices('\'')
            .map(|(place, _)| place)
            .find(|place| !body[place + 1..].starts_with(char::is_alphanumeric))?
    } else {
        body.find(mark)?
    };
    let closing = body[end..].len() - body[end..].trim_start_matches(mark).len();
    let inside = body[..end]
        .trim_matches(|one: char| one.is_whitespace() || matches!(one, '.' | ',' | '?' | '!'));
    let kind = if mark == '`' {
        Kind::Code
    } else {
        Kind::Quoted
    };
    (!inside.is_empty() && end <= QUOTATION).then_some((kind, inside, marks + end + closing))
}

/// Whether capitals tell names from words here: not in titles, where every word has one.
fn names_show(text: &str) -> bool {
    let (mut words, mut capitals) = (0, 0);
    for word in text.split_whitespace().skip(1) {
        let letters = word.trim_matches(|one: char| !one.is_alphanumeric());
        if letters.len() > 3 && letters.starts_with(char::is_alphabetic) {
            words += 1;
            capitals += usize::from(letters.starts_with(char::is_uppercase));
        }
    }
    words < 3 || capitals * 5 < words * 4
}

struct Scan {
    tokens: Vec<Token>,
    starts_sentence: bool,
    names_show: bool,
    all_capitals: bool,
}

impl Scan {
    fn push(&mut self, text: String, kind: Kind) {
        if text.is_empty() {
            return;
        }
        self.tokens.push(Token {
            text,
            kind,
            starts_sentence: std::mem::take(&mut self.starts_sentence),
            roman: None,
        });
    }

    /// What stands between two spaces.
    fn chunk(&mut self, chunk: &str) {
        let flag = chunk.starts_with('-')
            && chunk[1..].starts_with(|one: char| one == '-' || one.is_alphabetic());
        let start = |one: char| {
            matches!(
                one,
                '(' | '['
                    | '{'
                    | '<'
                    | ','
                    | ';'
                    | ':'
                    | '!'
                    | '?'
                    | '.'
                    | '\''
                    | '"'
                    | '*'
                    | '¿'
                    | '¡'
            ) || one == '-' && !flag
        };
        let end = |one: char| {
            matches!(
                one,
                ')' | ']' | '}' | '>' | ',' | ';' | ':' | '!' | '?' | '.' | '\'' | '"' | '*' | '-'
            )
        };
        let code_like = is_code(chunk.trim_matches([',', ';', ':', '!', '?', '.', '"', '\'']));
        let (core, tail) = if code_like {
            let core = chunk.trim_matches([',', ';', '!', '?', '.', '"', '\'']);
            let core = core.strip_suffix(':').unwrap_or(core);
            (core, chunk)
        } else {
            let inner = chunk.trim_start_matches(start);
            (inner.trim_end_matches(end), inner)
        };
        if core.is_empty() {
            if chunk.chars().all(|one| {
                matches!(
                    one,
                    '-' | '.'
                        | ','
                        | '?'
                        | '!'
                        | ':'
                        | ';'
                        | '\''
                        | '"'
                        | '('
                        | ')'
                        | '*'
                        | '['
                        | ']'
                )
            }) {
                self.starts_sentence |= chunk.contains(['.', '?', '!']);
            } else {
                self.push(chunk.to_string(), Kind::Code);
            }
            return;
        }
        if code_like {
            self.push(core.to_string(), Kind::Code);
        } else {
            let before = &chunk[..chunk.len() - tail.len()];
            if before.ends_with('-') && core.starts_with(|one: char| one.is_numeric()) {
                self.plain("minus");
            }
            self.word(core);
        }
        let abbreviation = matches!(
            core,
            "vs" | "etc" | "Mr" | "Mrs" | "Dr" | "St" | "no" | "No" | "e.g" | "i.e"
        ) || is_dotted(core) && !tail.contains(['?', '!']);
        self.starts_sentence |= tail.ends_with(['?', '!', '.', ';'])
            && !(abbreviation && tail.ends_with('.'))
            || tail.ends_with("?)");
    }

    /// A chunk without the punctuation round it.
    fn word(&mut self, word: &str) {
        if is_dotted(word) {
            let letters = word.replace('.', "").to_lowercase();
            return match letters.as_str() {
                "eg" | "ie" | "etc" => {}
                "us" | "usa" => self.push("usa".into(), Kind::Name),
                "am" | "pm" => self.push(letters, Kind::Unit),
                _ => self.push(letters, Kind::Name),
            };
        }
        if word.contains(|one: char| one.is_numeric()) {
            return self.number(word);
        }
        let small = word.to_lowercase();
        if small == "&" {
            return self.push("and".into(), Kind::Function);
        }
        if let Some(long) = lexicon::spelled_out(&small) {
            return self.plain(long);
        }
        if word.contains(['/', '-']) && word.len() > 1 {
            let caps = self.starts_sentence;
            for (place, part) in word.split(['/', '-']).enumerate() {
                if !part.is_empty() {
                    self.starts_sentence = caps && place == 0;
                    self.word(part);
                }
            }
            return;
        }
        if small.ends_with(['+', '#']) && small.starts_with(char::is_alphabetic) {
            return self.push(small, Kind::Name);
        }
        if !word
            .chars()
            .all(|one| one.is_alphabetic() || matches!(one, '\'' | '.' | '\u{300}'..='\u{36f}'))
        {
            return self.signs(word);
        }
        if let Some((head, tail)) = small.rsplit_once('\'') {
            return self.apostrophe(word, head, tail);
        }
        self.single(word);
    }

    /// Words in small letters, of lists.
    fn plain(&mut self, words: &str) {
        for word in words.split(' ') {
            let kind = lexicon::kind(word).unwrap_or(Kind::Content);
            self.push(word.to_string(), kind);
        }
    }

    fn apostrophe(&mut self, word: &str, head: &str, tail: &str) {
        let long = match tail {
            "t" if head.ends_with('n') => {
                let verb = &head[..head.len() - 1];
                self.single(verb);
                "not"
            }
            "re" => "are",
            "ve" => "have",
            "ll" => "will",
            "m" => "am",
            "d" => "would",
            "s" if lexicon::kind(head).is_some_and(|kind| {
                matches!(kind, Kind::Wh | Kind::Pronoun)
                    || matches!(head, "there" | "that" | "here")
            }) =>
            {
                "is"
            }
            // A possessive, or letters that were left out.
            "s" | "" => return self.single(&word[..word.len().min(head.len())]),
            _ => return self.single(word),
        };
        if tail != "t" {
            self.single(word.get(..head.len()).unwrap_or(head));
        }
        self.plain(long);
    }

    /// One word, in its own letters.
    fn single(&mut self, word: &str) {
        let small = word.to_lowercase();
        let known = lexicon::kind(&small);
        let capitals = word.chars().filter(|one| one.is_uppercase()).count();
        let first = word.starts_with(char::is_uppercase);
        let roman = numbers::roman(word).filter(|_| {
            !self.starts_sentence && !self.all_capitals && small != "i"
                || matches!(word, "II" | "III")
        });
        if word == "US" && !self.all_capitals {
            return self.push("usa".into(), Kind::Name);
        }
        let acronym = capitals >= 2 && !self.all_capitals && word.len() > 1;
        let camel = capitals >= 1 && !first;
        let name = (acronym && self.names_show || camel)
            || first && self.names_show && !self.all_capitals && !self.starts_sentence;
        let kind = match known {
            // *May* and *March* in small letters are other words.
            Some(Kind::Date) if matches!(small.as_str(), "march" | "may") && !first => {
                Kind::Content
            }
            Some(kind) => kind,
            None if small == "may" && first && !self.starts_sentence => Kind::Date,
            None if name => Kind::Name,
            None => Kind::Content,
        };
        self.push(small, kind);
        if word == "I" {
            let after_type = self.tokens.len() > 1;
            if let Some(token) = self.tokens.last_mut().filter(|_| after_type) {
                token.roman = Some(1);
            }
        } else if let Some(token) = self.tokens.last_mut() {
            token.roman = roman;
        }
    }

    /// Anything with a digit: a number and its unit, or a designation that stays whole.
    fn number(&mut self, word: &str) {
        let small = word.to_lowercase();
        let mut body = small.as_str();
        if let Some(sign) = body
            .chars()
            .next()
            .filter(|one| matches!(one, '$' | '€' | '£' | '₹' | '¥'))
        {
            self.push(sign.to_string(), Kind::Unit);
            body = &body[sign.len_utf8()..];
        }
        let digits = body
            .find(|one: char| !one.is_ascii_digit() && !matches!(one, '.' | ','))
            .unwrap_or(body.len());
        let (amount, unit) = body.split_at(digits);
        if amount.is_empty() || !amount.starts_with(|one: char| one.is_ascii_digit()) {
            return self.push(body.to_string(), Kind::Number);
        }
        let unit = unit
            .strip_prefix('-')
            .filter(|rest| rest.chars().all(char::is_alphabetic))
            .unwrap_or(unit);
        let amount = plain_digits(amount);
        match unit {
            "" => self.push(amount, Kind::Number),
            "st" | "nd" | "rd" | "th" => self.push(format!("{amount}th"), Kind::Number),
            "k" => self.push(format!("{amount}000"), Kind::Number),
            "+" | "'s" => self.push(amount, Kind::Number),
            _ if unit
                .chars()
                .all(|one| one.is_alphabetic() || matches!(one, '%' | '$' | '€' | '£' | '°')) =>
            {
                self.push(amount, Kind::Number);
                self.push(unit.trim_start_matches('°').to_string(), Kind::Unit);
            }
            _ => self.push(body.to_string(), Kind::Number),
        }
    }

    /// Letters beside signs that are no punctuation.
    fn signs(&mut self, word: &str) {
        match word {
            "%" | "$" | "€" | "£" | "₹" | "¥" => self.push(word.to_string(), Kind::Unit),
            _ => self.push(word.to_string(), Kind::Code),
        }
    }
}

/// `1,000` is `1000`; other commas end a number.
fn plain_digits(amount: &str) -> String {
    let amount = amount.trim_end_matches(['.', ',']);
    let grouped = amount
        .split(',')
        .skip(1)
        .all(|group| group.len() >= 2 && group.bytes().take(2).all(|one| one.is_ascii_digit()));
    if grouped {
        amount.replace(',', "")
    } else {
        amount.to_string()
    }
}

/// `U.S.`, `p.m`: single letters with dots.
fn is_dotted(word: &str) -> bool {
    word.contains('.')
        && word
            .split('.')
            .all(|part| part.chars().count() <= 1 && part.chars().all(char::is_alphabetic))
}

/// Whether each letter of this counts: addresses, paths, identifiers, operators.
fn is_code(word: &str) -> bool {
    const MARKS: &[&str] = &[
        "://", "::", "()", "->", "=>", "==", "!=", "&&", "||", "_", "=", "\\", "{", "}", "<", ">",
        "^", "~", "|", "@", ";",
    ];
    if word.is_empty() {
        return false;
    }
    let two_sided = |at: usize| at > 0 && at + 1 < word.len();
    let dotted = !is_dotted(word)
        && word.match_indices('.').any(|(at, _)| {
            let after = word.as_bytes().get(at + 1);
            two_sided(at) && after.is_some_and(u8::is_ascii_alphabetic)
        });
    let slashes = word.matches('/').count();
    let number_like = word.starts_with(|one: char| one.is_ascii_digit());
    MARKS.iter().any(|mark| word.contains(mark))
        || word.starts_with("www.")
        || word.starts_with("--")
        || word.starts_with('-') && word[1..].starts_with(char::is_alphabetic)
        || word.starts_with(['/', '#']) && word.len() > 1
        || word.starts_with('$') && word[1..].starts_with(char::is_alphabetic)
        || slashes > 2 && !number_like
        || dotted
        || word.chars().all(|one| matches!(one, '+' | '*' | '/' | '^'))
        || word.ends_with(')') && word.contains('(') && !word.starts_with('(')
}
