//! Dollars as whole picodollars, so that sums are exact.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// An amount of US dollars in picodollars (1e-12 dollars).
///
/// A list price of `$P` per million tokens is `P × 1_000_000` picodollars per token: a price with
/// up to six decimals is exact, and so is every sum. The range is ±9.2 million dollars; additions
/// saturate.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Usd(pub i64);

impl Usd {
    /// Nothing.
    pub const ZERO: Usd = Usd(0);
    /// Picodollars in a dollar.
    pub const PER_DOLLAR: i64 = 1_000_000_000_000;

    /// The nearest amount to `dollars`; saturates, and NaN is nothing.
    #[must_use]
    pub fn from_dollars(dollars: f64) -> Usd {
        Usd((dollars * Self::PER_DOLLAR as f64).round() as i64)
    }

    /// In dollars, for display and statistics; never for sums.
    #[must_use]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / Self::PER_DOLLAR as f64
    }

    /// `tokens` at this price per token.
    #[must_use]
    pub fn times(self, tokens: u64) -> Usd {
        Usd(self
            .0
            .saturating_mul(i64::try_from(tokens).unwrap_or(i64::MAX)))
    }
}

impl Add for Usd {
    type Output = Usd;
    fn add(self, other: Usd) -> Usd {
        Usd(self.0.saturating_add(other.0))
    }
}

impl Sub for Usd {
    type Output = Usd;
    fn sub(self, other: Usd) -> Usd {
        Usd(self.0.saturating_sub(other.0))
    }
}

impl AddAssign for Usd {
    fn add_assign(&mut self, other: Usd) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Usd {
    fn sum<I: Iterator<Item = Usd>>(amounts: I) -> Usd {
        amounts.fold(Usd::ZERO, Add::add)
    }
}

/// Plain decimal dollars without trailing zeros, as in the `x-sluice-cost` header: `0.00042`.
impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let abs = self.0.unsigned_abs();
        let per = Self::PER_DOLLAR.unsigned_abs();
        let fraction = format!("{:012}", abs % per);
        let fraction = fraction.trim_end_matches('0');
        if fraction.is_empty() {
            write!(f, "{sign}{}", abs / per)
        } else {
            write!(f, "{sign}{}.{fraction}", abs / per)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_with_six_decimals_is_exact_per_token() {
        assert_eq!(Usd::from_dollars(0.000_001).0, 1_000_000);
        assert_eq!(
            Usd::from_dollars(0.15 / 1e6).times(1_000_000),
            Usd::from_dollars(0.15)
        );
    }

    #[test]
    fn display_is_plain_decimal() {
        assert_eq!(Usd(0).to_string(), "0");
        assert_eq!(Usd::from_dollars(0.00042).to_string(), "0.00042");
        assert_eq!(Usd::from_dollars(-12.5).to_string(), "-12.5");
        assert_eq!(Usd(1).to_string(), "0.000000000001");
    }
}
