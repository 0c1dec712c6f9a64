//! Vectors: as the embedding cache keeps them, numbers of one width in little-endian order, and as
//! an API tells them, a JSON array of numbers or base64 of `f32`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use half::f16;
use serde::Deserialize;

use crate::json::{Cursor, JsonStr};

/// Longest JSON number of a provider, its comma included: a double as Python writes it.
pub(crate) const LONGEST_TOLD: usize = 25;

/// Longest JSON number that is written here, its comma included: an `f32`.
pub(crate) const LONGEST_OURS: usize = 18;

/// How wide the numbers are that are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// As the APIs compute them.
    #[default]
    F32,
    /// Half of the room, with eleven bits of each number: rounded by at most a 2048th of it.
    F16,
}

impl Dtype {
    /// Bytes of a number.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 => 2,
        }
    }

    /// The config's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
        }
    }
}

/// Appends the vector that `raw` (valid JSON) tells to `out`, and says how many numbers it has. None
/// where it tells none, or one with a number that is not finite in that width; `out` may then end in
/// a part of it.
pub(crate) fn read(raw: &str, dtype: Dtype, out: &mut Vec<u8>) -> Option<usize> {
    let mut count = 0_usize;
    let mut push = |number: f32| {
        count += 1;
        match dtype {
            Dtype::F32 => out.extend_from_slice(&number.to_le_bytes()),
            Dtype::F16 => {
                let half = f16::from_f32(number);
                half.is_finite().then_some(())?;
                out.extend_from_slice(&half.to_le_bytes());
            }
        }
        number.is_finite().then_some(())
    };
    if let Some(text) = JsonStr::new(raw) {
        let bytes = STANDARD.decode(text.text().as_bytes()).ok()?;
        let numbers = bytes.chunks_exact(4);
        numbers.remainder().is_empty().then_some(())?;
        for number in numbers {
            push(f32::from_le_bytes(number.try_into().ok()?))?;
        }
    } else {
        let mut numbers = Cursor::new(raw);
        numbers.enter(b'[').then_some(())?;
        while numbers.element() {
            let number = numbers.value();
            // What Rust reads beside JSON's numbers are words.
            number
                .starts_with(|first: char| first == '-' || first.is_ascii_digit())
                .then_some(())?;
            push(number.parse().ok()?)?;
        }
    }
    (count > 0).then_some(count)
}

/// Writes a vector as JSON: base64 of `f32`, or an array of the shortest numbers that read back as
/// these.
pub(crate) fn write(vector: &[u8], dtype: Dtype, base64: bool, out: &mut String) {
    let size = dtype.size();
    let numbers = vector.chunks_exact(size).map(|bytes| match (dtype, bytes) {
        (Dtype::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        (_, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
        // No chunk has another size.
        _ => 0.0,
    });
    if base64 {
        out.push('"');
        match dtype {
            Dtype::F32 => STANDARD.encode_string(vector, out),
            Dtype::F16 => {
                let wide: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
                STANDARD.encode_string(wide, out);
            }
        }
        out.push('"');
        return;
    }
    let mut before = '[';
    for number in numbers {
        out.push(before);
        before = ',';
        // A number is serialised without fail.
        out.push_str(&serde_json::to_string(&number).unwrap_or_default());
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|it| it.to_le_bytes()).collect()
    }

    fn read_as(raw: &str, dtype: Dtype) -> Option<(usize, Vec<u8>)> {
        let mut out = Vec::new();
        let count = read(raw, dtype, &mut out)?;
        Some((count, out))
    }

    fn written(vector: &[u8], dtype: Dtype, base64: bool) -> String {
        let mut out = String::new();
        write(vector, dtype, base64, &mut out);
        out
    }

    #[test]
    fn numbers_and_base64_are_read_as_the_same_vector() {
        let vector = [0.1_f32, -2.5, 0.0, 1e-20];
        let expected = Some((4, bytes(&vector)));
        assert_eq!(read_as("[0.1, -2.5,0 , 1e-20]", Dtype::F32), expected);
        let coded = written(&bytes(&vector), Dtype::F32, true);
        assert_eq!(read_as(&coded, Dtype::F32), expected);
        // As some JSON writers do.
        assert_eq!(read_as(&coded.replace('/', "\\/"), Dtype::F32), expected);
        // As OpenAI tells an f32, by the double that it is.
        let told = read_as("[-0.006929283495992422]", Dtype::F32).unwrap();
        assert_eq!(told.1, bytes(&[-0.006_929_283_5]));
    }

    #[test]
    fn what_is_no_vector_of_finite_numbers_is_none() {
        let infinite = written(&bytes(&[f32::INFINITY]), Dtype::F32, true);
        let nan = written(&bytes(&[1.0, f32::NAN]), Dtype::F32, true);
        for raw in [
            "[]",
            "\"\"",
            "[1e39]",
            "[\"1\"]",
            "[null]",
            "[[1]]",
            "[NaN]",
            "[inf]",
            "{}",
            "3",
            "\"AAA\"",
            "\"AAAAAAA=\"",
            "\"?\"",
            &infinite,
            &nan,
        ] {
            assert_eq!(read_as(raw, Dtype::F32), None, "{raw}");
        }
        assert_eq!(read_as("[70000]", Dtype::F16), None, "the most is 65504");
    }

    #[test]
    fn every_f32_reads_back_as_itself_from_both_forms() {
        let mut state = 1_u64;
        let mut numbers = vec![0.0, -0.0, f32::MIN_POSITIVE, f32::MAX, f32::MIN, 1e-45];
        while numbers.len() < 20_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let number = f32::from_bits((state >> 32) as u32);
            numbers.extend(number.is_finite().then_some(number));
        }
        let vector = bytes(&numbers);
        for base64 in [false, true] {
            let told = written(&vector, Dtype::F32, base64);
            assert!(read_as(&told, Dtype::F32) == Some((numbers.len(), vector.clone())));
            let longest = told.split(',').map(str::len).max().unwrap() + 1;
            assert!(base64 || longest <= LONGEST_OURS, "{longest}");
        }
    }

    #[test]
    fn halves_are_rounded_once_and_told_in_both_forms() {
        let told = "[0.1,-2.5,0.0000305,1]";
        let (count, kept) = read_as(told, Dtype::F16).unwrap();
        assert_eq!((count, kept.len()), (4, 8));
        let numbers = written(&kept, Dtype::F16, false);
        assert_eq!(numbers, "[0.099975586,-2.5,0.000030517578,1.0]");
        assert_eq!(read_as(&numbers, Dtype::F16).unwrap().1, kept);
        let coded = written(&kept, Dtype::F16, true);
        assert_eq!(read_as(&coded, Dtype::F16).unwrap().1, kept);
    }
}
