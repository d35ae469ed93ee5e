//! Parses a JSONPath and finds which values it refers to. The paths of a template select from
//! `{"input", "steps", "cause"}`. A path must name its root, and the step after `$.steps`, literally: only then can the
//! loader check that the step is an ancestor.

use serde_json_path::JsonPath;
use std::{iter::Peekable, str::Chars};

/// A value that an absolute path selects from. Paths inside filters count too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    Input,
    Cause,
    /// The result of a step.
    Step(String),
}

/// A parsed path.
pub(super) struct Path {
    /// The values that the path selects from: first the path's own root, then the roots in its filters.
    pub references: Vec<Reference>,
    /// The value at which the path starts; `None` for the whole object, which only a path with several roots needs.
    pub root: Option<Reference>,
    /// The path, relative to `root`.
    pub rest: JsonPath,
}

/// Parses a path and finds the values that it refers to.
pub(super) fn parse(text: &str) -> Result<Path, String> {
    let parsed =
        |path: &str| JsonPath::parse(path).map_err(|error| mistake(text, error.position()));
    let whole = parsed(text)?;
    let mut found = Vec::new();
    for root in roots(text) {
        found.push(reference(&root).ok_or_else(|| {
            let place = under(text, text.len() - root.len());
            format!("'{text}' must begin with $.input, $.cause or $.steps['a-step']{place}")
        })?);
    }
    let (root, rest) = match found.as_slice() {
        [(only, rest)] => (Some(only.clone()), parsed(&format!("${rest}"))?),
        _ => (None, whole),
    };
    Ok(Path {
        references: found.into_iter().map(|(reference, _)| reference).collect(),
        root,
        rest,
    })
}

/// Returns the error for a text that begins with `$` and does not parse, with a correction.
fn mistake(text: &str, offset: usize) -> String {
    let after_root = text.trim_start_matches('$').trim_start();
    if !after_root.starts_with(['.', '[']) {
        return format!(
            "'{text}' begins with $ and is not a JSONPath (RFC 9535): write '${text}' for a text that begins with a \
             dollar sign"
        );
    }
    let bracketed = with_hyphens_in_brackets(text);
    if bracketed != text && JsonPath::parse(&bracketed).is_ok() {
        return format!(
            "'{text}' is not a JSONPath (RFC 9535), in which a name with a hyphen needs brackets: use {bracketed}"
        );
    }
    format!(
        "'{text}' is not a JSONPath (RFC 9535) from the marked place on{}",
        under(text, offset)
    )
}

/// Returns the text on a line of its own, with a mark below the byte at `offset`.
fn under(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text).chars().count();
    format!("\n    {text}\n    {}^", " ".repeat(before))
}

/// Rewrites `$.steps.a-b.id` as `$.steps['a-b'].id`.
fn with_hyphens_in_brackets(text: &str) -> String {
    let mut written = String::new();
    let mut quote = None;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(_), '\\') => {
                written.push(letter);
                written.extend(letters.next());
                continue;
            }
            (Some(open), _) if open == letter => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, '.') => {
                let mut name = String::new();
                while let Some(part) =
                    letters.next_if(|part| part.is_alphanumeric() || matches!(part, '_' | '-'))
                {
                    name.push(part);
                }
                if name.contains('-') {
                    // Two dots select all levels below, so both must stay before a bracket.
                    if written.ends_with('.') {
                        written.push('.');
                    }
                    written.extend(["['", &name, "']"]);
                } else {
                    written.push(letter);
                    written.push_str(&name);
                }
                continue;
            }
            (Some(_) | None, _) => {}
        }
        written.push(letter);
    }
    written
}

/// Returns true if a valid path is no *singular query* (RFC 9535, section 2.3.5.1): it has a wildcard, a filter, a
/// slice, a union or a descendant segment, so that the number of matching nodes depends on the data.
pub(super) fn may_match_several(text: &str) -> bool {
    let bare = unquoted(text);
    bare.contains("..") || bare.contains(['*', '?', ':', ','])
}

/// Returns the text without its quoted parts.
fn unquoted(text: &str) -> String {
    let mut bare = String::new();
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(_), '\\') => {
                letters.next();
            }
            (Some(open), _) if open == letter => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, _) => bare.push(letter),
            (Some(_), _) => {}
        }
    }
    bare
}

/// Returns the text behind each `$` that is outside of quotes.
fn roots(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(_), '\\') => {
                letters.next();
            }
            (Some(open), _) if open == letter => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, '$') => found.push(letters.clone().collect()),
            (Some(_) | None, _) => {}
        }
    }
    found
}

/// Returns the value that a path selects from, and the rest of the path from there.
fn reference(after_root: &str) -> Option<(Reference, String)> {
    let mut letters = after_root.chars().peekable();
    let reference = match name(&mut letters)?.as_str() {
        "input" => Reference::Input,
        "cause" => Reference::Cause,
        "steps" => Reference::Step(name(&mut letters)?),
        _ => return None,
    };
    Some((reference, letters.collect()))
}

/// Returns the single name of the next segment: `.name`, `['name']` or `["name"]`.
fn name(letters: &mut Peekable<Chars<'_>>) -> Option<String> {
    skip_spaces(letters);
    match letters.next()? {
        '.' => {
            skip_spaces(letters);
            let mut name = String::new();
            while let Some(letter) =
                letters.next_if(|letter| letter.is_alphanumeric() || *letter == '_')
            {
                name.push(letter);
            }
            (!name.is_empty()).then_some(name)
        }
        '[' => {
            skip_spaces(letters);
            let quote = letters.next_if(|letter| matches!(letter, '\'' | '"'))?;
            let name: String = letters
                .by_ref()
                .take_while(|letter| *letter != quote)
                .collect();
            skip_spaces(letters);
            // Anything but the end of the bracket is a second selector.
            (letters.next()? == ']').then_some(name)
        }
        _ => None,
    }
}

fn skip_spaces(letters: &mut Peekable<Chars<'_>>) {
    while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[Reference]) {
        assert_eq!(
            parse(text).map(|path| path.references).as_deref(),
            Ok(expected)
        );
    }

    #[test]
    fn roots_are_found_in_every_notation_and_inside_filters() {
        let step = |name: &str| Reference::Step(name.to_owned());
        check("$.input.orderId", &[Reference::Input]);
        check("$['input'].items[*].productId", &[Reference::Input]);
        check("$.cause", &[Reference::Cause]);
        check("$.steps['reserve-stock'].id", &[step("reserve-stock")]);
        check("$[\"steps\"][\"a\"]", &[step("a")]);
        check("$.steps.charge", &[step("charge")]);
        check(
            "$.input.items[?@.id == $.steps['a'].id]",
            &[Reference::Input, step("a")],
        );
        check("$.input['$.steps.x']", &[Reference::Input]);
    }

    #[test]
    fn a_name_with_a_hyphen_is_refused_with_the_path_that_was_meant() {
        for (text, meant) in [
            ("$.steps.reserve-stock.id", "$.steps['reserve-stock'].id"),
            ("$.input.order-id", "$.input['order-id']"),
            ("$.input.a-b.c_d.e-f[0].x", "$.input['a-b'].c_d['e-f'][0].x"),
            ("$.input..a-b", "$.input..['a-b']"),
            ("$.input['x.y-z'].a-b", "$.input['x.y-z']['a-b']"),
            (
                "$.input.items[?@.a-b == 1]",
                "$.input.items[?@['a-b'] == 1]",
            ),
        ] {
            let error = parse(text).err().unwrap();
            assert!(error.ends_with(&format!(": use {meant}")), "{error}");
            assert!(parse(meant).is_ok(), "{meant}");
        }
    }

    #[test]
    fn a_text_that_begins_with_a_dollar_sign_is_refused_with_its_escape() {
        for text in ["$5 off", "$HOME", "$ 5", "$,"] {
            let error = parse(text).err().unwrap();
            assert!(error.contains(&format!(": write '${text}'")), "{error}");
        }
    }

    #[test]
    fn other_mistakes_show_their_place_under_the_text() {
        for (text, place) in [
            ("$.input.items[", "             ^"),
            ("$.input.größe!", "             ^"),
            ("$.input.a b", "         ^"),
            ("$.inputs.x", " ^"),
            ("$.input[?@.a == $.other]", "                 ^"),
        ] {
            let error = parse(text).err().unwrap();
            assert!(
                error.ends_with(&format!("\n    {text}\n    {place}")),
                "{error}"
            );
        }
    }

    #[test]
    fn paths_that_cannot_be_checked_at_load_are_refused() {
        for text in [
            "$",
            "$..orderId",
            "$.steps",
            "$.steps.*",
            "$.steps['a','b']",
            "$.other",
            "$[",
        ] {
            let error = parse(text).err().unwrap();
            assert!(error.contains(text), "{error}");
        }
    }
}
