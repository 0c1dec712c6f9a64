//! Plain values as people write them: `50ms`, `256KiB`, `2_000_000`, `env:NAME`.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// A whole number. Envoy's `Struct` makes every number a double and leaves `2_000_000` a string,
/// so both are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u64);

/// A length of time in milliseconds: `50ms`, `20s`, `10m`, `1h`, `1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Millis(pub(crate) u64);

/// A size in bytes: `256KiB`, `8MiB`, `1GiB`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

/// Digits with optional underscores between them.
fn digits(text: &str) -> Option<u64> {
    let plain: String = text.chars().filter(|&c| c != '_').collect();
    (text.starts_with(|c: char| c.is_ascii_digit()) && plain.bytes().all(|b| b.is_ascii_digit()))
        .then(|| plain.parse().ok())
        .flatten()
}

/// Splits `10ms` into its number and its unit.
fn with_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    Some((digits(&text[..end])?, text[end..].trim()))
}

fn count(text: &str) -> Option<u64> {
    digits(text.trim())
}

fn millis(text: &str) -> Option<u64> {
    let (number, unit) = with_unit(text)?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = with_unit(text)?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" | "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Reads a number or a string by one of the functions above.
struct Reader {
    expected: &'static str,
    number: fn(u64) -> Option<u64>,
    text: fn(&str) -> Option<u64>,
}

impl Visitor<'_> for Reader {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
        (self.number)(value)
            .ok_or_else(|| E::custom(format!("found {value}, expected {}", self.expected)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<u64, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(E::custom(format!(
                "found {value}, expected {}",
                self.expected
            ))),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<u64, E> {
        // 2^53: up to there a double is a whole number exactly.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if value.fract() == 0.0 && (0.0..=EXACT).contains(&value) {
            self.visit_u64(value as u64)
        } else if value > EXACT {
            Err(E::custom(format!("found {value}, expected at most 2^53")))
        } else {
            Err(E::custom(format!(
                "found {value}, expected {}",
                self.expected
            )))
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<u64, E> {
        (self.text)(value)
            .ok_or_else(|| E::custom(format!("found `{value}`, expected {}", self.expected)))
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let expected = "a whole number, like 2000 or 2_000_000";
        reader
            .deserialize_any(Reader {
                expected,
                number: Some,
                text: count,
            })
            .map(Count)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let expected = "a length of time with its unit, like 50ms, 20s, 10m, 1h or 1d";
        let number = |value| (value == 0).then_some(0);
        reader
            .deserialize_any(Reader {
                expected,
                number,
                text: millis,
            })
            .map(Millis)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let expected = "a size, like 256KiB, 8MiB or a number of bytes";
        reader
            .deserialize_any(Reader {
                expected,
                number: Some,
                text: bytes,
            })
            .map(Bytes)
    }
}

/// A number with decimals. Envoy's YAML reader knows whole numbers only and leaves `0.3` a string.
///
/// YAML's `.nan` and `.inf` and what is too large for a double come through: the field's range
/// refuses them, and says what the field may be.
pub(super) fn decimal<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<f64>, D::Error> {
    reader.deserialize_any(Decimal {
        expected: "a number, like 0.3 or 12",
        read: number,
    })
}

/// `auto`, or a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum AutoOr {
    Auto,
    Number(f64),
}

impl From<f64> for AutoOr {
    fn from(number: f64) -> Self {
        AutoOr::Number(number)
    }
}

/// `auto`, or what [`decimal`] reads.
pub(super) fn auto_or_decimal<'de, D: Deserializer<'de>>(
    reader: D,
) -> Result<Option<AutoOr>, D::Error> {
    reader.deserialize_any(Decimal {
        expected: "`auto` or a number, like 0.98",
        read: |text| match text {
            "auto" => Some(AutoOr::Auto),
            text => number(text).map(AutoOr::Number),
        },
    })
}

/// `off`, or a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum OffOr {
    Off,
    Number(f64),
}

/// `off` (YAML 1.1 makes `false` of it), or what [`decimal`] reads.
pub(super) fn off_or_decimal<'de, D: Deserializer<'de>>(
    reader: D,
) -> Result<Option<OffOr>, D::Error> {
    struct Either(Decimal<f64>);
    impl Visitor<'_> for Either {
        type Value = Option<OffOr>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0.expected)
        }
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_bool<E: Error>(self, on: bool) -> Result<Self::Value, E> {
            match on {
                false => Ok(Some(OffOr::Off)),
                true => Err(E::invalid_type(Unexpected::Bool(true), &self)),
            }
        }
        fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
            Ok(Some(OffOr::Number(value as f64)))
        }
        fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
            Ok(Some(OffOr::Number(value as f64)))
        }
        fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
            Ok(Some(OffOr::Number(value)))
        }
        fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
            match value {
                "off" => Ok(Some(OffOr::Off)),
                value => Ok(self.0.visit_str(value)?.map(OffOr::Number)),
            }
        }
    }
    reader.deserialize_any(Either(Decimal {
        expected: "off or a number, like 0.9",
        read: number,
    }))
}

fn number(text: &str) -> Option<f64> {
    // Rust's parser also reads words: `inf`, `nan`.
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-.eE_".contains(&b));
    match text.to_ascii_lowercase().as_str() {
        ".nan" => Some(f64::NAN),
        ".inf" | "+.inf" => Some(f64::INFINITY),
        "-.inf" => Some(f64::NEG_INFINITY),
        _ => text.replace('_', "").parse().ok().filter(|_| plain),
    }
}

/// Reads a number that may come as text.
struct Decimal<T> {
    expected: &'static str,
    read: fn(&str) -> Option<T>,
}

impl<T: From<f64>> Visitor<'_> for Decimal<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_unit<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Option<T>, E> {
        Ok(Some(T::from(value as f64)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Option<T>, E> {
        Ok(Some(T::from(value as f64)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Option<T>, E> {
        Ok(Some(T::from(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Option<T>, E> {
        match (self.read)(value) {
            Some(read) => Ok(Some(read)),
            None => Err(E::invalid_value(Unexpected::Str(value), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: for<'de> Deserialize<'de>>(json: &str) -> Result<T, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_come_as_integers_doubles_and_strings_with_underscores() {
        for json in [
            "2000000",
            "2000000.0",
            "2e6",
            "\"2_000_000\"",
            "\"2000000\"",
        ] {
            assert_eq!(read::<Count>(json), Ok(Count(2_000_000)), "{json}");
        }
        for json in [
            "-1",
            "1.5",
            "\"_1\"",
            "\"\"",
            "\"1k\"",
            "true",
            "1e300",
            "\"99999999999999999999\"",
        ] {
            assert!(read::<Count>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn lengths_of_time_need_a_unit() {
        assert_eq!(read::<Millis>("\"50ms\""), Ok(Millis(50)));
        assert_eq!(read::<Millis>("\"2m\""), Ok(Millis(120_000)));
        assert_eq!(read::<Millis>("\"1d\""), Ok(Millis(86_400_000)));
        let error = read::<Millis>("50")
            .map(|_| ())
            .map_err(|error| error.contains("50ms, 20s"));
        assert_eq!(error, Err(true));
        assert!(read::<Millis>("\"5 weeks\"").is_err());
    }

    #[test]
    fn sizes_know_binary_and_decimal_units() {
        assert_eq!(read::<Bytes>("\"256KiB\""), Ok(Bytes(262_144)));
        assert_eq!(read::<Bytes>("\"8 MB\""), Ok(Bytes(8_000_000)));
        assert_eq!(read::<Bytes>("4096"), Ok(Bytes(4096)));
        assert!(read::<Bytes>("\"8 parsecs\"").is_err());
    }

    #[test]
    fn decimals_come_as_numbers_and_as_strings() {
        let decimal = |json: &str| super::decimal(&mut serde_json::Deserializer::from_str(json));
        for (json, expected) in [
            ("0.3", Some(0.3)),
            ("\"0.075\"", Some(0.075)),
            ("12", Some(12.0)),
            ("\"1_000.5\"", Some(1000.5)),
            ("-1", Some(-1.0)),
            ("\"1e999\"", Some(f64::INFINITY)),
            ("\"-.Inf\"", Some(f64::NEG_INFINITY)),
            ("null", None),
        ] {
            assert_eq!(decimal(json).unwrap(), expected, "{json}");
        }
        for json in ["\"\"", "\"inf\"", "\"NaN\"", "\"cheap\"", "true", "[]"] {
            assert!(decimal(json).is_err(), "{json}");
        }
    }
}
