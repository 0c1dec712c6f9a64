//! Values of the config that JSON has no type for: spans of time, sizes, secrets.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// A span of time, written `50ms`, `20s`, `10m`, `1h` or `90d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Bytes, written `65536`, `64KiB`, `256MiB`, `2GiB` (or decimal: `KB`, `MB`, `GB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A secret. It is never shown, not even by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// `text` as a number and its unit; `None` when there is no number.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let number = text[..end].replace('_', "").parse().ok()?;
    Some((number, text[end..].trim()))
}

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let millis_each = |unit: &str| {
            Some(match unit {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            })
        };
        number_and_unit(text)
            .and_then(|(number, unit)| number.checked_mul(millis_each(unit)?))
            .map(|millis| Span(Duration::from_millis(millis)))
            .ok_or_else(|| format!("expected {SPAN}, found `{text}`"))
    }
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes_each = |unit: &str| {
            Some(match unit {
                "" | "B" => 1_u64,
                "KiB" => 1 << 10,
                "MiB" => 1 << 20,
                "GiB" => 1 << 30,
                "KB" => 1_000,
                "MB" => 1_000_000,
                "GB" => 1_000_000_000,
                _ => return None,
            })
        };
        number_and_unit(text)
            .and_then(|(number, unit)| number.checked_mul(bytes_each(unit)?))
            .map(Size)
            .ok_or_else(|| format!("expected {SIZE}, found `{text}`"))
    }
}

const SPAN: &str = "a span of time like `50ms`, `20s`, `10m`, `1h` or `90d`";
const SIZE: &str = "a size like `64KiB`, `256MiB` or `2GiB`";

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(SPAN)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }
        }
        from.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(SIZE)
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }
            fn visit_f64<E: de::Error>(self, bytes: f64) -> Result<Size, E> {
                // Envoy's Struct has only doubles; a whole one is a whole number.
                if bytes >= 0.0 && bytes.fract() == 0.0 && bytes < 9e15 {
                    Ok(Size(bytes as u64))
                } else {
                    Err(E::invalid_value(de::Unexpected::Float(bytes), &self))
                }
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }
        from.deserialize_any(Visitor)
    }
}

/// A whole number of the width `T`.
pub(super) fn whole<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = u64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number")
        }
        fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }
    }
    let number = from.deserialize_any(Visitor)?;
    T::try_from(number).map_err(|_| de::Error::custom(format!("found {number}, expected less")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_read_with_their_units() {
        assert_eq!("50ms".parse(), Ok(Span(Duration::from_millis(50))));
        assert_eq!("90d".parse(), Ok(Span(Duration::from_secs(90 * 86_400))));
        assert_eq!("256MiB".parse(), Ok(Size(256 << 20)));
        assert_eq!("2_000".parse(), Ok(Size(2_000)));
    }

    #[test]
    fn a_wrong_unit_is_refused_and_quoted() {
        for text in ["10", "10w", "h", "", "99999999999999999999d"] {
            let error = text.parse::<Span>().unwrap_err();
            assert!(error.contains(&format!("found `{text}`")), "{error}");
        }
        for text in ["10 bananas", "MiB", "-1", "99999999999GiB"] {
            let error = text.parse::<Size>().unwrap_err();
            assert!(error.contains(&format!("found `{text}`")), "{error}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert!(!format!("{:?}", Secret::new("hunter2")).contains("hunter2"));
    }
}
