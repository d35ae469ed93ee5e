//! Where a command's payload comes from.

use super::{
    InputMapping, MappingNode,
    path::{self, Reference},
};
use serde_json::{Map, Value};

/// A path of a template with what it refers to.
pub(super) struct FoundPath {
    pub text: String,
    pub references: Vec<Reference>,
}

/// A path that cannot be used: its text, and why.
pub(super) struct BadPath {
    pub text: String,
    pub why: String,
}

impl InputMapping {
    /// Reads a template; `None` is all of the saga's input. The paths found are told to `found`.
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
            Value::String(text) if text.starts_with('$') => match path::parse(text) {
                Ok((path, references)) => {
                    found.push(FoundPath {
                        text: text.clone(),
                        references,
                    });
                    Self::Path {
                        path,
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

    /// The value that this node yields for `{"input", "steps", "cause"}`.
    pub fn render(&self, context: &Value) -> Value {
        match self {
            Self::Literal(value) => value.clone(),
            Self::Path { path, several } => {
                let mut nodes = path.query(context).into_iter().cloned();
                if *several {
                    Value::Array(nodes.collect())
                } else {
                    nodes.next().unwrap_or(Value::Null)
                }
            }
            Self::Object(entries) => {
                let entries: Map<String, Value> = entries
                    .iter()
                    .map(|(key, node)| (key.clone(), node.render(context)))
                    .collect();
                Value::Object(entries)
            }
            Self::Array(items) => {
                Value::Array(items.iter().map(|item| item.render(context)).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_that_may_match_several_yield_lists_and_literals_stand() {
        let template = json!({
            "orderId": "$.input.id", "all": "$.input.items[*].n", "gone": "$.steps['a'].x",
            "cause": "$.cause.code", "final": true, "note": "as it is", "list": ["$.input.id", 1],
            "single": "$.input.items[?@.n == 2].n", "none": "$.input.items[?@.n == 3].n",
            "quoted": "$.input['a,b']",
        });
        let mut found = Vec::new();
        let Ok(InputMapping::Template(node)) = InputMapping::read(Some(&template), &mut found)
        else {
            panic!("the template is good");
        };
        assert_eq!(found.len(), 8);
        let context = json!({
            "input": {"id": 7, "items": [{"n": 1}, {"n": 2}], "a,b": 3},
            "steps": {"a": null}, "cause": {"code": "declined"},
        });
        assert_eq!(
            node.render(&context),
            json!({
                "orderId": 7, "all": [1, 2], "gone": null, "cause": "declined",
                "final": true, "note": "as it is", "list": [7, 1],
                "single": [2], "none": [], "quoted": 3,
            })
        );
    }
}
