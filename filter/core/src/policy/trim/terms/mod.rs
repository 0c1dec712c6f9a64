//! What a text is about, for holding it against others: its words, stemmed and hashed, with counts.

mod memory;
mod stem;
mod stop;
#[cfg(test)]
mod tests;

pub use memory::TermMemory;

/// Bytes of a text that are read from each of its ends. What a longer one is about, and what is
/// asked of it, stands there; reading on would make one paste cost more than a conversation.
const END: usize = 64 << 10;

/// Longest word, in bytes; of what is longer (base64, a URL) the beginning.
const WORD: usize = 32;

/// What one text is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    /// Each once, by hash, ascending.
    pub(super) terms: Box<[Term]>,
    /// Where those begin whose hashes begin with the bits 0, 1, 2, …, as many bits as make about one
    /// term for each: one is found at one look, where halving them would take eight.
    begins: Box<[u16]>,
    /// Words, function words left out, repeated ones counted each time.
    pub(super) length: u32,
    /// It has a pronoun, or another word for something said before.
    pub(super) points_back: bool,
}

/// A word of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) hash: u32,
    /// How often it is there.
    pub(super) count: u16,
    pub(super) kind: Kind,
}

/// What a word is, as far as its letters tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Two characters next to each other, in a script without spaces.
    Pair,
    Word,
    /// Digits.
    Number,
    /// A name, or another word for one thing: capitals within a sentence, letters with digits.
    Name,
}

/// What [`TermMemory`] knows a text by that stands in pieces of these digests.
#[must_use]
pub fn key(digests: impl IntoIterator<Item = u128>) -> u128 {
    // Both halves by FNV-1a's rule, each with an odd factor of its own.
    let (high, low) = digests
        .into_iter()
        .fold((0_u64, 0_u64), |(high, low), one| {
            let (one_high, one_low) = ((one >> 64) as u64, one as u64);
            (
                (high ^ one_high).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                (low ^ one_low).wrapping_mul(0xd6e8_feb8_6659_fd93),
            )
        });
    u128::from(high) << 64 | u128::from(low)
}

impl Terms {
    /// Reads a text. Takes time in its length, up to a bound.
    #[must_use]
    pub fn of(text: &str) -> Terms {
        let mut reader = Reader::default();
        let (head, tail) = ends(text);
        reader.read(head);
        reader.read(tail);
        reader.terms()
    }

    /// Bytes that it takes in memory.
    pub(super) fn size(&self) -> usize {
        let lists = size_of_val::<[Term]>(&self.terms) + size_of_val::<[u16]>(&self.begins);
        size_of::<Terms>() + lists
    }

    /// Where in its list a term is.
    pub(super) fn place(&self, hash: u32) -> Option<usize> {
        let at = first_bits(hash, self.begins.len());
        let from = usize::from(*self.begins.get(at)?);
        let to = usize::from(*self.begins.get(at + 1)?);
        let alike = self.terms.get(from..to)?;
        let found = alike.iter().position(|term| term.hash == hash);
        found.map(|at| from + at)
    }
}

/// Of a hash as many of the first bits as tell apart one place less than `places`, which is a power of
/// two and one more.
fn first_bits(hash: u32, places: usize) -> usize {
    let bits = places.saturating_sub(1).trailing_zeros().min(16);
    (u64::from(hash) >> (32 - bits)) as usize
}

/// [`Terms::begins`] of terms in order.
fn begins(terms: &[Term]) -> Box<[u16]> {
    let places = terms.len().next_power_of_two().min(1 << 16) + 1;
    let mut begins = vec![0_u16; places];
    for term in terms {
        // How many there are of each, behind its own place; what is past counting is not found.
        if let Some(next) = begins.get_mut(first_bits(term.hash, places) + 1) {
            *next = next.saturating_add(1);
        }
    }
    let mut before = 0_u16;
    for begin in &mut begins {
        before = before.saturating_add(*begin);
        *begin = before;
    }
    begins.into()
}

/// The text's first and last [`END`] bytes, to characters' ends; the second is empty where the
/// first is everything.
fn ends(text: &str) -> (&str, &str) {
    if text.len() <= 2 * END {
        return (text, "");
    }
    let head = (0..=END).rev().find_map(|end| text.get(..end));
    let tail = (text.len() - END..=text.len()).find_map(|start| text.get(start..));
    (head.unwrap_or(""), tail.unwrap_or(""))
}

/// The pass over a text.
#[derive(Default)]
struct Reader {
    found: Vec<(u32, Kind)>,
    points_back: bool,
    /// The word that is being read, in lower case.
    word: Vec<u8>,
    letters: bool,
    digits: bool,
    /// Letters beyond ASCII, which have no stem here.
    wide: bool,
    /// Its first letter is a capital.
    capital: bool,
    /// So is another.
    capitals: bool,
    /// The word is not the first of a sentence.
    inside: bool,
    /// A word stood in this sentence before.
    begun: bool,
    /// The character before, in a script without spaces, and whether it has been paired.
    dense: Option<(char, bool)>,
}

impl Reader {
    fn read(&mut self, text: &str) {
        self.begun = false;
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                'a'..='z' | 'A'..='Z' => self.letter(char.to_ascii_lowercase(), char < 'a'),
                '0'..='9' => self.digit(char),
                // "2.5" is one number, "1,000" too.
                '.' | ',' if self.is_number() && chars.peek().is_some_and(char::is_ascii_digit) => {
                    if char == '.' {
                        self.push(char);
                    }
                }
                _ if char.is_ascii() => {
                    self.end();
                    if matches!(char, '.' | '!' | '?' | '\n' | ':') {
                        self.begun = false;
                    }
                }
                _ if is_dense(char) => self.dense(char),
                // Accents that stand alone belong to the letter before.
                '\u{300}'..='\u{36f}' => {}
                _ if char.is_alphanumeric() => {
                    self.wide = true;
                    let lower = char.to_lowercase().next().unwrap_or(char);
                    self.letter(lower, lower != char);
                }
                _ => self.end(),
            }
        }
        self.end();
    }

    fn end(&mut self) {
        self.end_word();
        self.end_dense();
    }

    fn is_number(&self) -> bool {
        self.digits && !self.letters
    }

    fn letter(&mut self, lower: char, capital: bool) {
        if self.word.is_empty() {
            (self.capital, self.inside) = (capital, self.begun);
        } else if capital {
            self.capitals = true;
        }
        self.letters = true;
        self.push(lower);
    }

    fn digit(&mut self, digit: char) {
        self.digits = true;
        self.push(digit);
    }

    fn push(&mut self, char: char) {
        self.end_dense();
        if self.word.len() + char.len_utf8() <= WORD {
            let mut bytes = [0; 4];
            let bytes = char.encode_utf8(&mut bytes).as_bytes();
            self.word.extend_from_slice(bytes);
        }
    }

    /// Takes a character of a script without spaces, together with the one before.
    fn dense(&mut self, char: char) {
        self.end_word();
        let before = self.dense.replace((char, true));
        match before {
            Some((before, _)) => {
                let mut bytes = [0; 8];
                let first = before.encode_utf8(&mut bytes).len();
                let (_, rest) = bytes.split_at_mut(first);
                let length = first + char.encode_utf8(rest).len();
                let pair = bytes.get(..length).unwrap_or_default();
                self.found.push((hash(pair), Kind::Pair));
            }
            None => self.dense = Some((char, false)),
        }
    }

    /// A character that stands alone among other signs is a word.
    fn end_dense(&mut self) {
        if let Some((char, false)) = self.dense.take() {
            let mut bytes = [0; 4];
            let hash = hash(char.encode_utf8(&mut bytes).as_bytes());
            self.found.push((hash, Kind::Pair));
        }
    }

    fn end_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let kind = match (self.letters, self.digits) {
            (true, true) => Kind::Name,
            (false, _) => Kind::Number,
            _ if self.capitals || self.capital && self.inside => Kind::Name,
            _ => Kind::Word,
        };
        let is_plain = self.letters && !self.digits && !self.wide;
        if is_plain && stop::is_stop(&self.word) {
            self.points_back |= stop::is_pointing(&self.word);
        // What apostrophes leave of "it's", and "l'eau"; not "vitamin D".
        } else if self.word.len() > 1 || self.capital || self.digits {
            if is_plain {
                stem::stem(&mut self.word);
            }
            self.found.push((hash(&self.word), kind));
        }
        self.word.clear();
        (self.letters, self.digits, self.wide) = (false, false, false);
        (self.capital, self.capitals, self.inside) = (false, false, false);
        self.begun = true;
    }

    fn terms(mut self) -> Terms {
        self.found.sort_unstable();
        let same = |one: &(u32, Kind), other: &(u32, Kind)| one.0 == other.0;
        let term = |all: &[(u32, Kind)]| {
            // What is a name once is one everywhere.
            let &(hash, kind) = all.last()?;
            let count = u16::try_from(all.len()).unwrap_or(u16::MAX);
            Some(Term { hash, count, kind })
        };
        let terms: Box<[Term]> = self.found.chunk_by(same).filter_map(term).collect();
        Terms {
            begins: begins(&terms),
            terms,
            length: u32::try_from(self.found.len()).unwrap_or(u32::MAX),
            points_back: self.points_back,
        }
    }
}

/// Whether the script is written without spaces between words, or with endings that stick to them
/// (Korean): Thai to Burmese, Khmer, kana, ideographs, Hangul.
fn is_dense(char: char) -> bool {
    matches!(char,
        '\u{0e00}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3041}'..='\u{30ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
