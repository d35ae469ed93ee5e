//! Money: decimals in major units at the edge, integer minor units inside.
//!
//! An amount is read from the very characters of the JSON number, never through a float: `0.1` is ten cents of a
//! euro, `10.505` is refused, and so is `1e3`, since no one writes a price that way on purpose. As many digits may
//! stand behind the point as the currency has (ISO 4217): none for JPY, two for EUR, three for KWD.

use super::limits::{MAX_AMOUNT_CHARS, MAX_TOTAL_MINOR};
use iso_currency::Currency;
use serde_json::value::RawValue;
use thiserror::Error;

/// A currency that amounts can be counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrencyUnit {
    currency: Currency,
    /// Digits behind the point.
    digits: u32,
}

/// Why an amount or a currency is refused, in the words of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MoneyError {
    #[error("must be a number, such as 10.50")]
    NotANumber,
    #[error("must be written without an exponent")]
    Exponent,
    #[error("must be greater than zero")]
    NotPositive,
    #[error("may have at most {digits} digits behind the point in {code}")]
    TooManyDigits { digits: u32, code: &'static str },
    #[error("is too large: the limit is {MAX_TOTAL_MINOR} minor units")]
    TooLarge,
    #[error("must be an ISO 4217 code of a currency with minor units, such as EUR")]
    UnknownCurrency,
}

impl CurrencyUnit {
    /// By ISO 4217 code, upper case. Units that have no minor unit defined (gold, test codes) are refused.
    pub fn from_code(code: &str) -> Result<Self, MoneyError> {
        let currency = Currency::from_code(code).ok_or(MoneyError::UnknownCurrency)?;
        let digits = currency.exponent().ok_or(MoneyError::UnknownCurrency)?;
        if currency.code() != code {
            return Err(MoneyError::UnknownCurrency);
        }
        Ok(Self {
            currency,
            digits: u32::from(digits),
        })
    }

    pub fn code(self) -> &'static str {
        self.currency.code()
    }

    /// Minor units of a positive JSON number in major units, read exactly.
    pub fn parse(self, number: &str) -> Result<i64, MoneyError> {
        if !number.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            return Err(MoneyError::NotANumber);
        }
        if number.starts_with('-') {
            return Err(MoneyError::NotPositive);
        }
        if number.contains(['e', 'E']) {
            return Err(MoneyError::Exponent);
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.len() > self.digits as usize {
            return Err(MoneyError::TooManyDigits {
                digits: self.digits,
                code: self.code(),
            });
        }
        if number.len() > MAX_AMOUNT_CHARS {
            return Err(MoneyError::TooLarge);
        }
        let padding = self.digits as usize - fraction.len();
        let minor = format!("{whole}{fraction}{:0<padding$}", "");
        let minor: i64 = minor.parse().map_err(|_| MoneyError::TooLarge)?;
        match minor {
            ..=0 => Err(MoneyError::NotPositive),
            1..=MAX_TOTAL_MINOR => Ok(minor),
            _ => Err(MoneyError::TooLarge),
        }
    }

    /// Minor units as decimal text in major units, with all of the currency's digits.
    pub fn format(self, minor: i64) -> String {
        let digits = self.digits as usize;
        if digits == 0 {
            return minor.to_string();
        }
        let sign = if minor < 0 { "-" } else { "" };
        let padded = format!("{:0>width$}", minor.unsigned_abs(), width = digits + 1);
        let (whole, fraction) = padded.split_at(padded.len() - digits);
        format!("{sign}{whole}.{fraction}")
    }

    /// The same as a JSON number, its digits kept.
    pub fn to_json(self, minor: i64) -> Box<RawValue> {
        RawValue::from_string(self.format(minor)).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }
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
        check("EUR", "10000000000", Ok(MAX_TOTAL_MINOR));
        check("EUR", "9999999999.99", Ok(MAX_TOTAL_MINOR - 1));
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
        }
    }
}
