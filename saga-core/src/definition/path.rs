//! What a JSONPath refers to. The paths of a template look into `{"input", "steps", "cause"}`; to know at load
//! that a path names an ancestor, its root and the step after `$.steps` must stand in it by name.

use serde_json_path::JsonPath;
use std::{iter::Peekable, str::Chars};

/// One absolute path, or one inside another's filter, by what it looks into first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    Input,
    Cause,
    /// A step's result.
    Step(String),
}

/// A valid path.
pub(super) struct Path {
    /// What it refers to: first what it looks into itself, then what its filters do.
    pub references: Vec<Reference>,
    /// What it begins at; `None` is all that there is, which only filters that look elsewhere need.
    pub root: Option<Reference>,
    /// From there on.
    pub rest: JsonPath,
}

/// Parses a path and says what it refers to.
pub(super) fn parse(text: &str) -> Result<Path, String> {
    let parsed = |path: &str| {
        JsonPath::parse(path)
            .map_err(|error| format!("'{text}' is not a JSONPath (RFC 9535): {error}"))
    };
    let whole = parsed(text)?;
    let mut found = Vec::new();
    for root in roots(text) {
        found.push(reference(&root).ok_or_else(|| {
            format!("'{text}' must begin with $.input, $.cause or $.steps['a-step']")
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

/// Whether a valid path is no *singular query* (RFC 9535, section 2.3.5.1): it has a wildcard, a filter, a slice, a
/// union or a descendant segment, so that how many nodes it matches depends on the data.
pub(super) fn may_match_several(text: &str) -> bool {
    let bare = unquoted(text);
    bare.contains("..") || bare.contains(['*', '?', ':', ','])
}

/// The text without what stands in quotes.
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

/// What follows each `$` that stands outside a quoted name.
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

/// What a path looks into, and the rest of the path from there.
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

/// The single name of the next segment: `.name`, `['name']` or `["name"]`.
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
    fn what_cannot_be_told_at_load_is_refused() {
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
