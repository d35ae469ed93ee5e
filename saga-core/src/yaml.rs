//! Reads YAML by the core schema of YAML 1.2. Every file that people write is read here.
//!
//! The library that deserializes follows YAML 1.1 where the two versions differ: it would read `NO` as `false`, `1_000`
//! as a thousand, and an integer of more than 64 bits as the nearest floating-point number. In a template that is
//! another country, product number or amount. Therefore the text is scanned first. A scalar that is text by the core
//! schema but that the library would read as something else gets the tag `!!str`. A number that cannot be held exactly
//! is refused.

use serde::de::DeserializeOwned;
use serde_saphyr::{
    MergeKeyPolicy, MessageFormatter, UserMessageFormatter,
    granit_parser::{Event, Parser, ScalarStyle, Span},
};

/// Says why a YAML text cannot be read, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
pub struct YamlError {
    /// Counted from 1; `None` if the error has no place in the text.
    pub line: Option<usize>,
    pub message: String,
}

/// Reads one document.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    let marked = mark_text(text)?;
    let options = serde_saphyr::options! {
        merge_keys: MergeKeyPolicy::Error,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(&marked, options).map_err(|error| YamlError {
        line: error
            .location()
            .map(|place| place.line() as usize)
            .filter(|line| *line > 0),
        message: message(&error),
    })
}

const TEXT_TAG: &str = "!!str ";

/// Returns the document with [`TEXT_TAG`] before each scalar that the library would misread. Line numbers do not
/// change.
fn mark_text(text: &str) -> Result<String, YamlError> {
    let mut marked = String::with_capacity(text.len());
    let mut copied = 0;
    for next in Parser::new_from_str(text) {
        // The library, which reads the text next, finds the same syntax error and reports it.
        let Ok((event, span)) = next else { break };
        refuse_tag(&event, &span)?;
        let Event::Scalar(value, style, _, None) = &event else {
            continue;
        };
        let meaning = Meaning::of(value);
        let is_marked = match style {
            ScalarStyle::Plain => {
                refuse_number(value, meaning, &span)?;
                meaning == Meaning::Text && may_be_misread(value)
            }
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
                !value.is_empty() && (meaning != Meaning::Text || may_be_misread(value))
            }
            ScalarStyle::Literal | ScalarStyle::Folded => false,
        };
        let Some(start) = span.start.byte_offset().filter(|_| is_marked) else {
            continue;
        };
        marked.push_str(text.get(copied..start).unwrap_or_default());
        marked.push_str(TEXT_TAG);
        copied = start;
    }
    marked.push_str(text.get(copied..).unwrap_or_default());
    Ok(marked)
}

fn refuse_tag(event: &Event<'_>, span: &Span) -> Result<(), YamlError> {
    match event.tag() {
        Some(tag) if tag.core_suffix() != Some("str") => Err(YamlError {
            line: Some(span.tag_start().unwrap_or(span.start).line()),
            message: format!(
                "the tag {} is not known here: remove it, and put the value into quotes if it is text",
                tag.original()
            ),
        }),
        Some(_) | None => Ok(()),
    }
}

fn refuse_number(value: &str, meaning: Meaning, span: &Span) -> Result<(), YamlError> {
    let why = match meaning {
        Meaning::Inexact => "is a number with more digits than can be kept",
        Meaning::NotFinite => "is a number that JSON does not have",
        Meaning::Text | Meaning::Value => return Ok(()),
    };
    Err(YamlError {
        line: Some(span.start.line()),
        message: format!("{value} {why}: put it into quotes if it is text"),
    })
}

/// The meaning of a plain scalar by the core schema (YAML 1.2.2, section 10.3.2). One rule is stricter: a number with
/// leading zeros is text, because it is a code or an article number, and no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Text,
    /// Null, a boolean, or a number that is held exactly.
    Value,
    /// An integer of more than 64 bits, or a fraction that floating point cannot represent exactly.
    Inexact,
    /// Infinity or NaN.
    NotFinite,
}

impl Meaning {
    fn of(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" | "true" | "True" | "TRUE" | "false" | "False"
            | "FALSE" => return Self::Value,
            ".nan" | ".NaN" | ".NAN" => return Self::NotFinite,
            _ => {}
        }
        for (prefix, radix) in [("0o", 8), ("0x", 16)] {
            if let Some(digits) = text.strip_prefix(prefix)
                && !digits.is_empty()
                && digits.chars().all(|digit| digit.is_digit(radix))
            {
                return Self::exact(u64::from_str_radix(digits, radix).is_ok());
            }
        }
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
            return Self::NotFinite;
        }
        let (mantissa, exponent) = split_exponent(unsigned);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_number = is_digits(whole)
            && is_digits(fraction)
            && !(whole.is_empty() && fraction.is_empty())
            && exponent.is_none_or(|exponent| {
                let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
                !digits.is_empty() && is_digits(digits)
            });
        let has_leading_zero = whole.len() > 1 && whole.starts_with('0');
        if !is_number || has_leading_zero {
            Self::Text
        } else if mantissa == whole && exponent.is_none() {
            Self::exact(text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok())
        } else {
            Self::exact(unsigned.parse().is_ok_and(|number: f64| {
                number.is_finite() && decimal(unsigned) == decimal(&format!("{number:e}"))
            }))
        }
    }

    fn exact(is_exact: bool) -> Self {
        if is_exact { Self::Value } else { Self::Inexact }
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn split_exponent(number: &str) -> (&str, Option<&str>) {
    match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (number, None),
    }
}

/// Returns the significant digits of an unsigned number, and the position of its decimal point relative to the first
/// one.
fn decimal(number: &str) -> (String, i64) {
    let (mantissa, exponent) = split_exponent(number);
    let exponent: i64 = exponent.map_or(0, |text| text.parse().unwrap_or(i64::MAX));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return (String::new(), 0);
    }
    let zeros = (digits.len() - significant.len()) as i64;
    (
        significant.trim_end_matches('0').to_owned(),
        exponent.saturating_add(whole.len() as i64 - zeros),
    )
}

/// Words that YAML 1.1 does not read as text. They are compared without regard to case.
const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// Returns true for text that the library may read as a number or as one of the words of YAML 1.1.
fn may_be_misread(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.'))
        || WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn message(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    if let Error::InvalidScalar { ty, .. } = error {
        let expected = match *ty {
            "boolean" => "true or false",
            "floating point" => "a number such as 1.5",
            _ => "a whole number such as 3",
        };
        return format!("expected {expected}, without quotes, underscores or leading zeros");
    }
    if let Error::DuplicateMappingKey { key, .. } = error {
        let key = key.as_deref().unwrap_or_default();
        return format!("the key {key} occurs here for the second time: remove one of the two");
    }
    if matches!(error, Error::NullIntoString { .. }) {
        return "expected a text, and there is none".to_owned();
    }
    if matches!(error, Error::MultipleDocuments { .. }) {
        return "a second document begins here: put it into a file of its own".to_owned();
    }
    if matches!(error, Error::MergeKeyNotAllowed { .. }) {
        return "`<<` is not part of YAML 1.2: write out the keys that it would add".to_owned();
    }
    let message = UserMessageFormatter.format_message(error);
    for (part, advice) in ADVICE {
        if message.contains(part) {
            return format!("{message}: {advice}");
        }
    }
    message.into_owned()
}

/// The advice about a syntax error, by a part of the library's message.
const ADVICE: &[(&str, &str)] = &[
    (
        "unexpected end of file",
        "the text is empty, or ends too early",
    ),
    (
        "a tab",
        "indent with spaces, and put a text with a tab into quotes",
    ),
    (
        "unknown value",
        "put the text into quotes if its `*` is no reference to an anchor (`&name`) above",
    ),
    (
        "unexpected character",
        "put a text that begins with this character into quotes",
    ),
    (
        "mapping values are not allowed",
        "put a text with a colon into quotes, and begin a key on a line of its own",
    ),
    (
        "quoted scalar",
        "close the quotes that are open here or in a line above; in double quotes, write a backslash as two",
    ),
    (
        "unclosed quote",
        "close the quotes that are open here or in a line above",
    ),
    (
        "unclosed bracket",
        "close the `[` or `{` that is open here or in a line above",
    ),
    (
        "illegal placement of ':'",
        "close the `[` or `{` that is open in a line above, or put a text with a colon into quotes",
    ),
    (
        "block scalar",
        "after `|` or `>`, begin the text on the next line and indent it",
    ),
    ("directive", "remove the line that begins with `%`"),
    (
        "sequence start",
        "a list is needed here: one `- ` for each element, or `[a, b]`",
    ),
    (
        "mapping start",
        "keys with values are needed here: `key: value`",
    ),
    (
        "flow mapping",
        "close the `{` that is open here or in a line above",
    ),
    (
        "block mapping",
        "indent all keys of a section alike, and end each key with a colon",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    #[test]
    fn a_syntax_error_says_what_to_do() {
        for (text, line, advice) in [
            ("a: 1\n\tb: 2", 1, "indent with spaces"),
            ("a: *b", 1, "put the text into quotes"),
            ("a: @b", 1, "begins with this character"),
            ("a: `b", 1, "begins with this character"),
            ("a: b: c", 1, "a text with a colon"),
            ("a: \"b\nc: 1", 2, "close the quotes"),
            ("a: 'b", 1, "close the quotes"),
            (r#"a: "\q""#, 1, "write a backslash as two"),
            ("a: |x\n  b", 1, "begin the text on the next line"),
            ("%YAML 9\na: b", 1, "begins with `%`"),
            ("- a", 1, "keys with values are needed"),
            ("a b", 1, "keys with values are needed"),
            ("a: [b, c\nd: 1", 2, "close the `[`"),
            ("a: {b: c\nd: 1", 2, "close the `{`"),
            ("a: [b, c", 1, "close the `[`"),
            ("a: 1\n b: 2", 2, "a text with a colon"),
            ("a:\n  - b\n - c", 3, "indent all"),
        ] {
            let error = from_str::<BTreeMap<String, Value>>(text).unwrap_err();
            assert!(error.message.contains(advice), "{text:?}: {error}");
            assert_eq!(error.line, Some(line), "{text:?}: {error}");
        }
        let error = from_str::<Vec<String>>("a: 1").unwrap_err();
        assert!(error.message.contains("a list is needed"), "{error}");
        let error = from_str::<String>("").unwrap_err();
        assert!(error.message.contains("the text is empty"), "{error}");
    }

    #[track_caller]
    fn check(scalar: &str, expected: &Value) {
        for text in [
            format!("value: {scalar}"),
            format!("{{value: {scalar}, after: 1}}"),
            format!("value: &here {scalar} # behind"),
            format!("list:\n- {scalar}\n- other\nvalue:\n  {scalar}\n"),
        ] {
            let read: BTreeMap<String, Value> = from_str(&text).expect(&text);
            assert_eq!(&read["value"], expected, "{text}");
        }
    }

    #[track_caller]
    fn refused(text: &str, line: usize, contains: &str) {
        let error = from_str::<Value>(text).expect_err(text);
        assert_eq!(error.line, Some(line), "{text}: {error}");
        assert!(error.message.contains(contains), "{text}: {error}");
    }

    #[test]
    fn words_and_numbers_of_yaml_1_1_alone_are_text() {
        for text in [
            "NO",
            "no",
            "n",
            "y",
            "Y",
            "yes",
            "on",
            "off",
            "OFF",
            "tRUE",
            "nULL",
            "1_000",
            "1_000.5",
            "01234",
            "-007",
            "00",
            "01.5",
            "0b11",
            "0B11",
            "0X1F",
            "0O7",
            "0x",
            "+0x1F",
            "0o8",
            "190:20:30",
            "1e",
            "e5",
            "1.2.3",
            "-",
            "+",
            ".",
            "-.iNf",
            "+.nan",
            "12e03e",
            "2026-11-30",
            "inf",
            "infinity",
            "NaN",
            "5 pieces",
        ] {
            // A lone dash begins a list.
            if text != "-" {
                check(text, &json!(text));
            }
            check(&format!("'{text}'"), &json!(text));
            check(&format!("\"{text}\""), &json!(text));
        }
    }

    #[test]
    fn words_and_numbers_follow_the_core_schema() {
        for (text, expected) in [
            ("~", Value::Null),
            ("null", Value::Null),
            ("NULL", Value::Null),
            ("true", json!(true)),
            ("TRUE", json!(true)),
            ("False", json!(false)),
            ("0", json!(0)),
            ("-0", json!(0)),
            ("12", json!(12)),
            ("+12", json!(12)),
            ("-19", json!(-19)),
            ("0o14", json!(12)),
            ("0xC", json!(12)),
            ("0xFFFFFFFFFFFFFFFF", json!(u64::MAX)),
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("0.1", json!(0.1)),
            (".5", json!(0.5)),
            ("+.5", json!(0.5)),
            ("1.", json!(1.0)),
            ("-1.50", json!(-1.5)),
            ("1e3", json!(1000.0)),
            ("12e03", json!(12000.0)),
            ("1.2E-5", json!(1.2e-5)),
            ("1e300", json!(1e300)),
            ("0.30000000000000004", json!(0.300_000_000_000_000_04)),
            ("0.0", json!(0.0)),
            ("10.50", json!(10.5)),
        ] {
            check(text, &expected);
            if !text.is_empty() {
                check(&format!("'{text}'"), &json!(text));
            }
        }
    }

    #[test]
    fn a_number_that_is_not_held_exactly_is_refused_with_its_line() {
        for number in [
            "1234567890123456789012",
            "18446744073709551616",
            "-9223372036854775809",
            "0x10000000000000000",
            "0o7777777777777777777777777",
            "0.1234567890123456789",
            "12345678901234567890.5",
            "1e400",
            "1e-400",
            "9007199254740993.0",
        ] {
            refused(
                &format!("a: 1\nb:\n  - {number}\n"),
                3,
                &format!("{number} is a number with more digits than can be kept"),
            );
            check(&format!("'{number}'"), &json!(number));
        }
        refused("a: .inf", 1, "JSON does not have");
        refused("a: -.INF", 1, "JSON does not have");
        refused("a: .NaN", 1, "put it into quotes");
    }

    #[test]
    fn typed_fields_accept_only_the_core_schema() {
        let whole = |text: &str| from_str::<BTreeMap<String, u32>>(text).map(|read| read["a"]);
        assert_eq!(whole("a: 10"), Ok(10));
        for text in [
            "a: 1_0",
            "a: '10'",
            "a: \"1_0\"",
            "a: 010",
            "a: 0b11",
            "a: ten",
            "a: -1",
        ] {
            let error = whole(text).expect_err(text);
            assert_eq!(error.line, Some(1));
            assert!(error.message.contains("expected a whole number"), "{error}");
        }
        let truth = |text: &str| from_str::<BTreeMap<String, bool>>(text).map(|read| read["a"]);
        assert_eq!(truth("a: True"), Ok(true));
        for text in ["a: yes", "a: on", "a: 'true'", "a: NO"] {
            let error = truth(text).expect_err(text);
            assert!(error.message.contains("expected true or false"), "{error}");
        }
        let words = "NO: off\n1_000: no\n";
        let read: BTreeMap<String, String> = from_str(words).expect(words);
        assert_eq!(read["NO"], "off");
        assert_eq!(read["1_000"], "no");
    }

    #[test]
    fn messages_give_advice_and_name_no_setting_of_the_library() {
        refused("a: 1\nb: 2\na: 3", 3, "remove one of the two");
        refused("a: &x {b: 1}\nc:\n  <<: *x", 3, "write out the keys");
        refused("a: 1\n---\nb: 2", 3, "a file of its own");
        refused("a:\n  b: !!int 1_000", 2, "the tag !!int is not known here");
        refused("a: !money 5", 1, "the tag !money is not known here");
        refused("a: !!set {b}", 1, "the tag !!set is not known here");
        refused("a: [1", 1, "");
        refused("a: *nowhere", 1, "");
        for text in [
            "a: [1",
            "a: 1\na: 2",
            "a: *x",
            "",
            "a: 1\n---\nb: 1",
            "\ta: 1",
            "a: !!binary x",
        ] {
            if let Err(error) = from_str::<BTreeMap<String, Value>>(text) {
                for word in ["Options", "Policy", "policy", "_", "from_"] {
                    assert!(!error.message.contains(word), "{text:?}: {error}");
                }
            }
        }
        assert_eq!(
            from_str::<Value>("a: !!str 12").expect("text"),
            json!({"a": "12"})
        );
    }
}
