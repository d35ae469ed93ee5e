//! Reads the templates of command payloads, and renders payloads from them.

use super::path::{self, Reference};
use serde_json::{Map, Value, json};
use serde_json_path::JsonPath;

/// The source of a command's payload. Paths are JSONPath (RFC 9535) into
/// `{"input": …, "steps": {"<name>": <result>}, "cause": …}`. A path that finds nothing yields `null`. A path that may
/// match several nodes (wildcard, filter, slice, union, descendants) yields a list, however many nodes it matches.
#[derive(Clone, Debug)]
pub enum InputMapping {
    /// The whole input of the saga.
    WholeInput,
    /// A template: strings that begin with `$` are paths, everything else is taken literally. `$$` at the beginning of
    /// a string is a dollar sign.
    Template(MappingNode),
}

#[derive(Clone, Debug)]
pub enum MappingNode {
    /// The value that the path yields; a list if `several` nodes may match the path, however many do. The path starts
    /// at `root`, or at the whole object if `root` is `None`.
    Path {
        root: Option<Reference>,
        path: JsonPath,
        several: bool,
    },
    Literal(Value),
    Object(Vec<(String, MappingNode)>),
    Array(Vec<MappingNode>),
}

/// A path of a template, with the values that it refers to.
pub(super) struct FoundPath {
    pub text: String,
    pub references: Vec<Reference>,
}

/// A path that cannot be used, and the reason.
pub(super) struct BadPath {
    pub text: String,
    pub why: String,
}

impl InputMapping {
    /// Reads a template; `None` means the whole input of the saga. Appends the paths of the template to `found`.
    pub(super) fn read(
        template: Option<&Value>,
        found: &mut Vec<FoundPath>,
    ) -> Result<Self, Vec<BadPath>> {
        let Some(template) = template else {
            return Ok(Self::WholeInput);
        };
        let mut bad = Vec::new();
        let node = MappingNode::read(template, found, &mut bad);
        if bad.is_empty() {
            Ok(Self::Template(node))
        } else {
            Err(bad)
        }
    }
}

impl MappingNode {
    fn read(template: &Value, found: &mut Vec<FoundPath>, bad: &mut Vec<BadPath>) -> Self {
        match template {
            Value::String(text) if text.starts_with("$$") => {
                Self::Literal(Value::from(text.strip_prefix('$').unwrap_or_default()))
            }
            Value::String(text) if text.starts_with('$') => match path::parse(text) {
                Ok(path) => {
                    found.push(FoundPath {
                        text: text.clone(),
                        references: path.references,
                    });
                    Self::Path {
                        root: path.root,
                        path: path.rest,
                        several: path::may_match_several(text),
                    }
                }
                Err(why) => {
                    bad.push(BadPath {
                        text: text.clone(),
                        why,
                    });
                    Self::Literal(Value::Null)
                }
            },
            Value::Object(entries) => Self::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.clone(), Self::read(value, found, bad)))
                    .collect(),
            ),
            Value::Array(items) => Self::Array(
                items
                    .iter()
                    .map(|item| Self::read(item, found, bad))
                    .collect(),
            ),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Self::Literal(template.clone())
            }
        }
    }

    /// Returns the value that this node yields.
    pub fn render(&self, sources: &Sources<'_>) -> Value {
        match self {
            Self::Literal(value) => value.clone(),
            Self::Path {
                root: Some(root),
                path,
                several,
            } => select(path, *several, sources.get(root)),
            Self::Path {
                root: None,
                path,
                several,
            } => select(path, *several, &sources.all()),
            Self::Object(entries) => {
                let entries: Map<String, Value> = entries
                    .iter()
                    .map(|(key, node)| (key.clone(), node.render(sources)))
                    .collect();
                Value::Object(entries)
            }
            Self::Array(items) => {
                Value::Array(items.iter().map(|item| item.render(sources)).collect())
            }
        }
    }
}

/// The values that paths select from. They are borrowed, because most paths select only a small part.
pub struct Sources<'a> {
    pub input: &'a Value,
    /// Results by step name; `null` for a step without a result.
    pub steps: Vec<(&'a str, &'a Value)>,
    pub cause: Value,
}

impl Sources<'_> {
    fn get(&self, root: &Reference) -> &Value {
        match root {
            Reference::Input => self.input,
            Reference::Cause => &self.cause,
            Reference::Step(name) => {
                let found = self.steps.iter().find(|(step, _)| step == name);
                found.map_or(&Value::Null, |(_, result)| result)
            }
        }
    }

    /// Builds the whole object `{"input", "steps", "cause"}`.
    fn all(&self) -> Value {
        let steps: Map<String, Value> = self
            .steps
            .iter()
            .map(|(step, result)| ((*step).to_owned(), (*result).clone()))
            .collect();
        json!({"input": self.input, "steps": steps, "cause": self.cause})
    }
}

fn select(path: &JsonPath, several: bool, value: &Value) -> Value {
    let mut nodes = path.query(value).into_iter().cloned();
    if several {
        Value::Array(nodes.collect())
    } else {
        nodes.next().unwrap_or(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_several_matches_yield_lists_and_literals_are_kept() {
        let template = json!({
            "orderId": "$.input.id", "all": "$.input.items[*].n", "gone": "$.steps['a'].x",
            "cause": "$.cause.code", "final": true, "note": "as it is", "list": ["$.input.id", 1],
            "single": "$.input.items[?@.n == 2].n", "none": "$.input.items[?@.n == 3].n",
            "quoted": "$.input['a,b']", "whole": "$.steps['b']",
            "elsewhere": "$.input.items[?@.n == $.steps['b'].n].n",
            "price": "$$5 off", "home": "$$HOME", "twice": "$$$", "pathlike": "$$.input.id", "inside": "a$$b",
        });
        let mut found = Vec::new();
        let Ok(InputMapping::Template(node)) = InputMapping::read(Some(&template), &mut found)
        else {
            panic!("the template is good");
        };
        assert_eq!(found.len(), 10);
        let result = json!({"n": 1});
        let sources = Sources {
            input: &json!({"id": 7, "items": [{"n": 1}, {"n": 2}], "a,b": 3}),
            steps: vec![("a", &Value::Null), ("b", &result)],
            cause: json!({"code": "declined"}),
        };
        assert_eq!(
            node.render(&sources),
            json!({
                "orderId": 7, "all": [1, 2], "gone": null, "cause": "declined",
                "final": true, "note": "as it is", "list": [7, 1],
                "single": [2], "none": [], "quoted": 3, "whole": {"n": 1},
                "elsewhere": [1],
                "price": "$5 off", "home": "$HOME", "twice": "$$", "pathlike": "$.input.id", "inside": "a$$b",
            })
        );
    }
}
