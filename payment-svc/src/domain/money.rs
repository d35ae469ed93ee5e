//! Money: integer minor units inside, decimals in major units at the edges.

use iso_currency::Currency;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most digits that a currency of ISO 4217 has after the point.
const DIGITS_MAX: u32 = 4;
const PARTS: i64 = 10_i64.pow(DIGITS_MAX);

/// Digits after the point of an ISO 4217 currency; `None` if there is no such currency, or if it is not money that
/// can be counted in minor units (gold, test codes).
pub fn digits_of(currency: &str) -> Option<u32> {
    Currency::from_code(currency)?.exponent().map(u32::from)
}

/// Minor units as a decimal in major units, such as `10.50`; an unknown currency is shown with two digits.
pub fn decimal(minor: i64, currency: &str) -> String {
    let digits = digits_of(currency).unwrap_or(2);
    if digits == 0 {
        return minor.to_string();
    }
    let unit = 10_u64.pow(digits);
    let (sign, amount) = (if minor < 0 { "-" } else { "" }, minor.unsigned_abs());
    format!(
        "{sign}{}.{:0width$}",
        amount / unit,
        amount % unit,
        width = digits as usize
    )
}

/// An amount that means the same in every currency, such as the limit `1000.00`; never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MajorAmount {
    parts: i64,
}

impl MajorAmount {
    /// Whole units and up to four digits after the point.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) || fraction.len() > DIGITS_MAX as usize {
            return None;
        }
        let scale = 10_i64.pow(DIGITS_MAX - u32::try_from(fraction.len()).ok()?);
        let parts = whole.parse::<i64>().ok()?.checked_mul(PARTS)?;
        Some(Self {
            parts: parts.checked_add(fraction.parse::<i64>().ok()? * scale)?,
        })
    }

    /// In minor units of a currency with so many digits, what is smaller cut off.
    pub fn minor(self, digits: u32) -> i64 {
        self.parts / 10_i64.pow(DIGITS_MAX.saturating_sub(digits))
    }
}

impl std::fmt::Display for MajorAmount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, fraction) = (self.parts / PARTS, self.parts % PARTS);
        if fraction % 100 == 0 {
            write!(f, "{whole}.{:02}", fraction / 100)
        } else {
            write!(f, "{whole}.{fraction:04}")
        }
    }
}

impl<'de> Deserialize<'de> for MajorAmount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "'{text}' is not an amount such as \"1000.00\" (at most {DIGITS_MAX} digits after the point)"
            ))
        })
    }
}

impl Serialize for MajorAmount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(minor: i64, currency: &str, expected: &str) {
        assert_eq!(decimal(minor, currency), expected);
    }

    #[test]
    fn decimals_have_the_currency_s_digits() {
        check(1_050, "EUR", "10.50");
        check(7, "EUR", "0.07");
        check(-7, "EUR", "-0.07");
        check(1_050, "JPY", "1050");
        check(1_050, "KWD", "1.050");
        check(i64::MIN, "EUR", "-92233720368547758.08");
    }

    #[test]
    fn a_limit_is_the_same_amount_in_every_currency() {
        let limit = MajorAmount::parse("1000.00").expect("an amount");
        assert_eq!(
            [0, 2, 3].map(|digits| limit.minor(digits)),
            [1_000, 100_000, 1_000_000]
        );
        assert_eq!(limit.to_string(), "1000.00");
        assert_eq!(MajorAmount::parse("0.0125").expect("an amount").minor(2), 1);
    }

    #[test]
    fn what_is_not_an_amount_is_refused() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1,5",
            "1.00001",
            "9999999999999999",
        ] {
            assert_eq!(MajorAmount::parse(text), None, "{text}");
        }
    }
}
