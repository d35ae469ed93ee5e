//! Parses durations as people write them: `500ms`, `5s`, `1h30m`.

/// The longest duration that is accepted, longer than any saga should live. It keeps every computed instant in range.
pub(super) const MAX_DURATION_MS: u64 = 366 * 24 * 60 * 60 * 1000;

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Returns the duration in milliseconds, or a message about what is wrong with the text.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err("a duration is empty; write it as 500ms, 5s, 10m or 24h".to_owned());
    }
    let mut rest = trimmed;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = split_while(rest, |letter| letter.is_ascii_digit());
        let (unit, after) = split_while(after, |letter| letter.is_ascii_alphabetic());
        let count: u64 = number.parse().map_err(|_| hint(text))?;
        let (_, factor) = UNITS
            .into_iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| hint(text))?;
        total = count
            .checked_mul(factor)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| format!("'{text}' is longer than a year"))?;
        rest = after;
    }
    if total > MAX_DURATION_MS {
        return Err(format!("'{text}' is longer than a year"));
    }
    Ok(total)
}

fn split_while(text: &str, keep: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|letter| !keep(letter)).unwrap_or(text.len());
    text.split_at(end)
}

fn hint(text: &str) -> String {
    format!("'{text}' is not a duration; write whole numbers with a unit: 500ms, 5s, 10m, 24h, 7d")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_sums_are_read() {
        for (text, expected) in [
            ("500ms", 500),
            ("5s", 5_000),
            ("10m", 600_000),
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            (" 0s ", 0),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_text_in_the_message() {
        for text in [
            "",
            "5",
            "s",
            "5 s",
            "5sec",
            "1.5s",
            "-5s",
            "5s!",
            "99999999999999999999s",
            "800d",
        ] {
            let error = parse(text).unwrap_err();
            assert!(text.is_empty() || error.contains(text), "{text}: {error}");
        }
    }
}
