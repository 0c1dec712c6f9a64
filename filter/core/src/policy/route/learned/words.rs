//! The words that the model knows: a gram of the text costs one hash and one line of the table.

use super::super::lexicon::WordHash;
use super::super::scan::Grams;

/// Grams that the table has room for: two bytes each.
const ROOM: usize = 1 << 14;
/// A gram may stand in any place of its line.
const LINE: usize = 4;

/// Grams and what each weighs, in steps. A gram is known by its line and eight bits more, so that
/// one unknown in about a hundred is taken for another.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Zero: nothing here.
    tags: Vec<u8>,
    weights: Vec<i8>,
}

impl Table {
    /// Bytes of a table.
    pub(super) const BYTES: usize = 2 * ROOM;

    pub(super) fn empty() -> Table {
        Table {
            tags: vec![0; ROOM],
            weights: vec![0; ROOM],
        }
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Table> {
        let (tags, weights) = bytes.split_at_checked(ROOM)?;
        let weights: Vec<i8> = weights.iter().map(|byte| byte.cast_signed()).collect();
        (weights.len() == ROOM).then(|| Table {
            tags: tags.to_vec(),
            weights,
        })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let weights = self.weights.iter().map(|weight| weight.cast_unsigned());
        self.tags.iter().copied().chain(weights).collect()
    }

    /// Where a gram's line begins, and its tag.
    #[inline]
    fn line(gram: WordHash) -> (usize, u8) {
        let bits = gram.bits().wrapping_mul(0xC2B2_AE35);
        let tag = (bits >> 8) as u8;
        (((bits >> 20) as usize * LINE) % ROOM, tag.max(1))
    }

    /// The gram's place, if it has one.
    #[inline]
    pub(super) fn find(&self, gram: WordHash) -> Option<usize> {
        let (start, tag) = Table::line(gram);
        let line = self.tags.get(start..start + LINE)?;
        let at = line.iter().position(|&other| other == tag)?;
        Some(start + at)
    }

    /// Gives the gram a place. None where it has one, or another of its tag does, or its line is
    /// full.
    pub(super) fn add(&mut self, gram: WordHash) -> Option<usize> {
        let (start, tag) = Table::line(gram);
        let line = self.tags.get_mut(start..start + LINE)?;
        if line.contains(&tag) {
            return None;
        }
        let at = line.iter().position(|&other| other == 0)?;
        *line.get_mut(at)? = tag;
        Some(start + at)
    }

    #[inline]
    pub(super) fn weight(&self, place: usize) -> i8 {
        self.weights.get(place).copied().unwrap_or(0)
    }

    pub(super) fn set(&mut self, place: usize, weight: i8) {
        if let Some(old) = self.weights.get_mut(place) {
            *old = weight;
        }
    }
}

/// Which grams stood there before, by a bit each: of a thousand, one or two in a hundred are taken
/// for seen.
#[derive(Clone, Debug)]
struct Seen([u64; 512]);

impl Seen {
    #[inline]
    fn first(&mut self, gram: WordHash) -> bool {
        let at = gram.bits().wrapping_mul(0x9E37_79B1) >> 17;
        let bit = 1 << (at % 64);
        match self.0.get_mut(at as usize / 64) {
            Some(bits) if *bits & bit == 0 => {
                *bits |= bit;
                true
            }
            _ => false,
        }
    }
}

/// How much of a text is known, and what that weighs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    /// Grams in all.
    pub(super) all: u32,
    /// Each counted once.
    pub(super) distinct: u32,
    /// Of these, how many the model knows.
    pub(super) known: u32,
    /// What those weigh, in steps.
    pub(super) steps: i32,
}

impl Sum {
    /// Share of the text that is new word by word.
    pub(super) fn variety(&self) -> f32 {
        self.distinct as f32 / self.all.max(1) as f32
    }
}

/// Adds up what the grams of a text weigh.
#[derive(Debug)]
pub(in super::super) struct Weigh<'m> {
    table: &'m Table,
    seen: Seen,
    pub(super) sum: Sum,
}

impl<'m> Weigh<'m> {
    pub(super) fn new(table: &'m Table) -> Self {
        Weigh {
            table,
            seen: Seen([0; 512]),
            sum: Sum::default(),
        }
    }
}

impl Grams for Weigh<'_> {
    #[inline]
    fn see(&mut self, gram: WordHash) {
        self.sum.all += 1;
        if self.seen.first(gram) {
            self.sum.distinct += 1;
            if let Some(place) = self.table.find(gram) {
                self.sum.known += 1;
                self.sum.steps += i32::from(self.table.weight(place));
            }
        }
    }
}

/// Keeps the grams of a text, each once, for training.
pub(super) struct Collect {
    seen: Seen,
    all: u32,
    pub(super) grams: Vec<WordHash>,
}

impl Collect {
    pub(super) fn new() -> Self {
        Collect {
            seen: Seen([0; 512]),
            all: 0,
            grams: Vec::new(),
        }
    }

    pub(super) fn variety(&self) -> f32 {
        self.grams.len() as f32 / self.all.max(1) as f32
    }
}

impl Grams for Collect {
    fn see(&mut self, gram: WordHash) {
        self.all += 1;
        if self.seen.first(gram) {
            self.grams.push(gram);
        }
    }
}
