//! How alike texts are in their words: the cosine of their vectors of weights, term frequency by
//! inverse document frequency (Salton, Buckley: "Term-weighting approaches in automatic text
//! retrieval", Information Processing & Management 24(5), 1988).

use super::Passage;
use crate::policy::trim::terms::Terms;

/// Texts that are held against each other.
pub(super) struct Likeness {
    /// One each, of length 1: terms by hash, ascending, with their weights.
    vectors: Vec<Vec<(u32, f32)>>,
}

impl Likeness {
    pub(super) fn among(texts: &[Passage<'_>]) -> Likeness {
        let all = texts.iter().flat_map(|text| &text.terms.terms);
        let mut all: Vec<u32> = all.map(|term| term.hash).collect();
        all.sort_unstable();
        let count = texts.len() as f32;
        let rarity = all.chunk_by(|one, other| one == other).filter_map(|same| {
            let with = same.len() as f32;
            let rare = (1.0 + (count - with + 0.5) / (with + 0.5)).ln();
            Some((*same.first()?, rare))
        });
        let rarity: Vec<(u32, f32)> = rarity.collect();
        let vectors = texts.iter().map(|text| vector(text.terms, &rarity));
        Likeness {
            vectors: vectors.collect(),
        }
    }

    /// Cosine of two texts, 0 to 1.
    pub(super) fn of(&self, one: usize, other: usize) -> f32 {
        let (Some(one), Some(other)) = (self.vectors.get(one), self.vectors.get(other)) else {
            return 0.0;
        };
        let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
        let mut sum = 0.0;
        while let (Some(&&(left, weight)), Some(&&(right, beside))) = (one.peek(), other.peek()) {
            if left == right {
                sum += weight * beside;
            }
            if left <= right {
                one.next();
            }
            if right <= left {
                other.next();
            }
        }
        sum
    }
}

fn vector(text: &Terms, rarity: &[(u32, f32)]) -> Vec<(u32, f32)> {
    // Both are in order.
    let mut rarity = rarity.iter();
    let weights = text.terms.iter().filter_map(|term| {
        let &(_, rare) = rarity.find(|(hash, _)| *hash == term.hash)?;
        Some((term.hash, (1.0 + f32::from(term.count)).ln() * rare))
    });
    let mut weights: Vec<(u32, f32)> = weights.collect();
    let length = weights.iter().map(|(_, weight)| weight * weight);
    let length = length.sum::<f32>().sqrt().max(f32::EPSILON);
    for (_, weight) in &mut weights {
        *weight /= length;
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_like_itself_and_unlike_one_without_its_words() {
        let texts = [
            "The valve opens at 3 bar.",
            "Paint dries.",
            "A valve of brass.",
        ];
        let terms = texts.map(Terms::of);
        let texts = [0, 1, 2].map(|at: usize| Passage {
            terms: &terms[at],
            similarity: None,
        });
        let likeness = Likeness::among(&texts);
        assert!((likeness.of(0, 0) - 1.0).abs() < 1e-5);
        assert_eq!(likeness.of(0, 1), 0.0);
        let (there, back) = (likeness.of(0, 2), likeness.of(2, 0));
        assert!(
            0.0 < there && there < 1.0 && there == back,
            "{there} {back}"
        );
        assert_eq!(likeness.of(0, 3), 0.0);
    }
}
