//! Money: integer minor units inside, decimals in major units at the edges.
//!
//! An amount is read from its characters, never through a float. `0.1` is ten cents of a euro. `10.505` is refused, and
//! so is `1e3`, because nobody writes a price that way on purpose. An amount may have as many digits after the point as
//! its currency (ISO 4217): none for JPY, two for EUR, three for KWD.

use iso_currency::Currency;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use std::fmt;
use thiserror::Error;

/// The maximum amount of an order, minor units. It is far below the overflow of 64-bit sums and far above any real
/// order.
pub const MAX_AMOUNT_MINOR: i64 = 1_000_000_000_000;
/// The maximum number of digits that an ISO 4217 currency has after the point.
const MAX_DIGITS: usize = 4;
/// The number of digits with which an amount in an unknown currency is shown.
const USUAL_DIGITS: usize = 2;

/// A currency that amounts can be counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrencyUnit {
    currency: Currency,
    /// The number of digits after the point.
    digits: usize,
}

/// The reason why an amount or a currency is refused. The texts are part of order-svc's answers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MoneyError {
    #[error("must be a number, such as 10.50")]
    NotANumber,
    #[error("must be written without an exponent")]
    Exponent,
    #[error("must be greater than zero")]
    NotPositive,
    #[error("may have at most {digits} digits behind the point in {code}")]
    TooManyDigits { digits: usize, code: &'static str },
    #[error("is too large: the limit is {MAX_AMOUNT_MINOR} minor units")]
    TooLarge,
    #[error("must be an ISO 4217 code of a currency with minor units, such as EUR")]
    UnknownCurrency,
}

impl CurrencyUnit {
    /// Returns the currency of an ISO 4217 code in upper case. Refuses units without a minor unit (gold, test codes).
    pub fn from_code(code: &str) -> Result<Self, MoneyError> {
        let currency = Currency::from_code(code).ok_or(MoneyError::UnknownCurrency)?;
        let digits = currency.exponent().ok_or(MoneyError::UnknownCurrency)?;
        Ok(Self {
            currency,
            digits: digits.into(),
        })
    }

    pub fn code(self) -> &'static str {
        self.currency.code()
    }

    /// Parses a positive JSON number in major units into minor units, without rounding.
    pub fn parse(self, number: &str) -> Result<i64, MoneyError> {
        if number.starts_with('-') {
            return Err(MoneyError::NotPositive);
        }
        if !number.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(MoneyError::NotANumber);
        }
        if number.contains(['e', 'E']) {
            return Err(MoneyError::Exponent);
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.len() > self.digits {
            return Err(MoneyError::TooManyDigits {
                digits: self.digits,
                code: self.code(),
            });
        }
        match scaled(whole, fraction, self.digits) {
            Some(..=0) => Err(MoneyError::NotPositive),
            Some(minor @ 1..=MAX_AMOUNT_MINOR) => Ok(minor),
            Some(_) | None => Err(MoneyError::TooLarge),
        }
    }

    /// Formats minor units as decimal text in major units, with all of the currency's digits.
    pub fn format(self, minor: i64) -> String {
        decimal(minor, self.digits)
    }

    /// Formats minor units as a JSON number in major units, with all of the currency's digits.
    pub fn to_json(self, minor: i64) -> Box<RawValue> {
        RawValue::from_string(self.format(minor)).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }
}

/// Formats minor units as decimal text in major units, such as `10.50`. An amount in an unknown currency is shown with
/// two digits.
pub fn format(minor: i64, currency: &str) -> String {
    decimal(minor, digits_of(currency))
}

/// An amount in major units of any currency, such as the limit `1000.00`; never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct MajorAmount {
    /// The amount in units of 10^-[`MAX_DIGITS`].
    parts: i64,
}

impl MajorAmount {
    /// Parses whole units with up to four digits after the point.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let is_amount = all_digits(whole) && all_digits(fraction) && fraction.len() <= MAX_DIGITS;
        let parts = is_amount.then(|| scaled(whole, fraction, MAX_DIGITS))??;
        Some(Self { parts })
    }

    /// Returns the amount in minor units of a currency, rounded down. An unknown currency is taken to have two digits.
    pub fn minor(self, currency: &str) -> i64 {
        let surplus = MAX_DIGITS.saturating_sub(digits_of(currency));
        self.parts / 10_i64.pow(surplus as u32)
    }
}

impl TryFrom<String> for MajorAmount {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| {
            format!(
                "'{text}' is not an amount such as \"1000.00\" (at most {MAX_DIGITS} digits after the point)"
            )
        })
    }
}

impl fmt::Display for MajorAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = decimal(self.parts, MAX_DIGITS);
        f.write_str(text.strip_suffix("00").unwrap_or(&text))
    }
}

impl Serialize for MajorAmount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn digits_of(currency: &str) -> usize {
    CurrencyUnit::from_code(currency).map_or(USUAL_DIGITS, |unit| unit.digits)
}

/// Returns the decimal `whole.fraction` in units of 10^-`digits`, or `None` if it does not fit 64 bits.
fn scaled(whole: &str, fraction: &str, digits: usize) -> Option<i64> {
    format!("{whole}{fraction:0<digits$}").parse().ok()
}

/// Formats a number of units of 10^-`digits`.
fn decimal(scaled: i64, digits: usize) -> String {
    if digits == 0 {
        return scaled.to_string();
    }
    let sign = if scaled < 0 { "-" } else { "" };
    let padded = format!("{:0>width$}", scaled.unsigned_abs(), width = digits + 1);
    let (whole, fraction) = padded.split_at(padded.len() - digits);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: &str, number: &str, expected: Result<i64, &MoneyError>) {
        let unit = CurrencyUnit::from_code(code).expect("currency");
        assert_eq!(
            unit.parse(number).as_ref().copied(),
            expected,
            "{number} {code}"
        );
    }

    #[test]
    fn amounts_are_read_exactly() {
        check("EUR", "10", Ok(1000));
        check("EUR", "10.5", Ok(1050));
        check("EUR", "10.50", Ok(1050));
        check("EUR", "0.01", Ok(1));
        check("EUR", "0.29", Ok(29));
        check("EUR", "1.15", Ok(115));
        check("EUR", "10000000000", Ok(MAX_AMOUNT_MINOR));
        check("EUR", "9999999999.99", Ok(MAX_AMOUNT_MINOR - 1));
        check("JPY", "500", Ok(500));
        check("KWD", "1.234", Ok(1234));
    }

    #[test]
    fn everything_else_is_refused() {
        let two_digits = MoneyError::TooManyDigits {
            digits: 2,
            code: "EUR",
        };
        check("EUR", "10.505", Err(&two_digits));
        check("EUR", "10.500", Err(&two_digits));
        check("EUR", "0.001", Err(&two_digits));
        check(
            "JPY",
            "1.0",
            Err(&MoneyError::TooManyDigits {
                digits: 0,
                code: "JPY",
            }),
        );
        check("EUR", "0", Err(&MoneyError::NotPositive));
        check("EUR", "0.00", Err(&MoneyError::NotPositive));
        check("EUR", "-1", Err(&MoneyError::NotPositive));
        check("EUR", "-0", Err(&MoneyError::NotPositive));
        check("EUR", "1e3", Err(&MoneyError::Exponent));
        check("EUR", "1E-2", Err(&MoneyError::Exponent));
        check("EUR", "10000000000.01", Err(&MoneyError::TooLarge));
        check(
            "EUR",
            "99999999999999999999999999",
            Err(&MoneyError::TooLarge),
        );
        check("EUR", &"9".repeat(10_000), Err(&MoneyError::TooLarge));
        check("EUR", "\"10\"", Err(&MoneyError::NotANumber));
        check("EUR", "null", Err(&MoneyError::NotANumber));
        check("EUR", "true", Err(&MoneyError::NotANumber));
        check("EUR", "[1]", Err(&MoneyError::NotANumber));
    }

    #[test]
    fn only_currencies_with_minor_units_count() {
        for code in ["eur", "EURO", "", "XXX", "XAU", "E\0R", "AAA"] {
            assert_eq!(
                CurrencyUnit::from_code(code),
                Err(MoneyError::UnknownCurrency),
                "{code}"
            );
        }
    }

    #[test]
    fn amounts_are_written_with_the_currencys_digits() {
        for (code, minor, text) in [
            ("EUR", 1050, "10.50"),
            ("EUR", 1, "0.01"),
            ("EUR", 100_000, "1000.00"),
            ("JPY", 500, "500"),
            ("KWD", 1, "0.001"),
        ] {
            let unit = CurrencyUnit::from_code(code).expect("currency");
            assert_eq!(unit.format(minor), text);
            assert_eq!(unit.to_json(minor).get(), text);
            assert_eq!(unit.parse(text), Ok(minor));
            assert_eq!(format(minor, code), text);
        }
        assert_eq!(format(-7, "EUR"), "-0.07");
        assert_eq!(format(i64::MIN, "EUR"), "-92233720368547758.08");
        assert_eq!(format(1050, "of the moon"), "10.50");
    }

    #[test]
    fn a_limit_is_the_same_amount_in_every_currency() {
        let limit = MajorAmount::parse("1000.00").expect("an amount");
        assert_eq!(
            ["JPY", "EUR", "KWD"].map(|currency| limit.minor(currency)),
            [1_000, 100_000, 1_000_000]
        );
        assert_eq!(limit.to_string(), "1000.00");
        let parsed = |text| MajorAmount::parse(text).expect("an amount");
        assert_eq!(parsed("0.0125").minor("EUR"), 1);
        assert_eq!(parsed("0.0125").to_string(), "0.0125");
    }

    #[test]
    fn invalid_amounts_are_refused() {
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
