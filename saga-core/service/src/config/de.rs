//! Deserializes the tree. A text from the environment becomes what its field asks for; a refusal knows its key and layer.

use super::{
    Layer,
    tree::{Node, Value},
};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Unexpected, Visitor,
};
use std::{collections::BTreeMap, fmt};

/// Why a configuration was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    kind: Kind,
    /// Outermost first.
    path: Vec<String>,
    layer: Option<Layer>,
}

#[derive(Debug)]
enum Kind {
    Invalid(String),
    Missing(&'static str),
    Unknown {
        key: String,
        known: &'static [&'static str],
    },
    /// Unknown too, where the type skips what it does not know.
    Skipped,
}

impl Refusal {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            path: Vec::new(),
            layer: None,
        }
    }

    fn within(mut self, key: &str) -> Self {
        self.path.insert(0, key.to_owned());
        self
    }

    fn set_by(mut self, layer: &Layer) -> Self {
        self.layer.get_or_insert_with(|| layer.clone());
        self
    }

    /// For the person who has to correct it.
    pub fn explain(&self, prefix: &str) -> String {
        let full = |key: Option<&str>| {
            self.path
                .iter()
                .map(String::as_str)
                .chain(key)
                .collect::<Vec<_>>()
                .join(".")
        };
        let origin = self
            .layer
            .as_ref()
            .map_or_else(String::new, |layer| format!(" (from {layer})"));
        match &self.kind {
            Kind::Invalid(message) => format!("{}: {message}{origin}", full(None)),
            Kind::Missing(key) => {
                let key = full(Some(key));
                let variable = key.to_uppercase().replace('.', "__");
                format!(
                    "{key} is not set: give it in a configuration file, or as {prefix}__{variable}"
                )
            }
            Kind::Unknown { key, known } => {
                let known = match known {
                    [] => String::new(),
                    names => format!("; known here: {}", names.join(", ")),
                };
                format!("{} is not a known key{origin}{known}", full(Some(key)))
            }
            Kind::Skipped => format!("{} is not a known key{origin}", full(None)),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.explain(""))
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Kind::Invalid(message.to_string()))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Kind::Missing(field))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Kind::Unknown {
            key: field.to_owned(),
            known: expected,
        })
    }
}

pub(super) fn deserialize<T: DeserializeOwned>(tree: &Node) -> Result<T, Refusal> {
    T::deserialize(Reader::of(tree))
}

/// Reads one value.
#[derive(Clone, Copy)]
struct Reader<'a> {
    view: View<'a>,
    layer: &'a Layer,
}

#[derive(Clone, Copy)]
enum View<'a> {
    /// A variable's text, or one piece of it where it is a list.
    Text(&'a str),
    String(&'a str),
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Array(&'a [Node]),
    Table(&'a BTreeMap<String, Node>),
}

impl<'a> Reader<'a> {
    fn of(node: &'a Node) -> Self {
        let view = match &node.value {
            Value::Text(text) => View::Text(text),
            Value::String(text) => View::String(text),
            Value::Boolean(boolean) => View::Boolean(*boolean),
            Value::Integer(number) => View::Integer(*number),
            Value::Float(number) => View::Float(*number),
            Value::Array(items) => View::Array(items),
            Value::Table(entries) => View::Table(entries),
        };
        Self {
            view,
            layer: &node.layer,
        }
    }

    fn unexpected(self, expected: &dyn de::Expected) -> Refusal {
        let unexpected = match self.view {
            View::Text(text) | View::String(text) => Unexpected::Str(text),
            View::Boolean(boolean) => Unexpected::Bool(boolean),
            View::Integer(number) => Unexpected::Signed(number),
            View::Float(number) => Unexpected::Float(number),
            View::Array(_) => Unexpected::Other("a list"),
            View::Table(_) => Unexpected::Other("a section"),
        };
        <Refusal as de::Error>::invalid_type(unexpected, expected)
    }

    fn entries<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        if let View::Table(entries) = self.view {
            visitor.visit_map(Entries {
                entries: entries.iter(),
                current: None,
            })
        } else {
            Err(self.unexpected(&visitor))
        }
    }

    fn items<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.view {
            View::Array(items) => visitor.visit_seq(Items::new(items.iter().map(Reader::of))),
            View::Text(text) => {
                let parts = text
                    .split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty());
                visitor.visit_seq(Items::new(parts.map(|part| Reader {
                    view: View::Text(part),
                    layer: self.layer,
                })))
            }
            View::String(_)
            | View::Boolean(_)
            | View::Integer(_)
            | View::Float(_)
            | View::Table(_) => Err(self.unexpected(&visitor)),
        }
    }
}

/// For types whose text form is their `FromStr`.
macro_rules! scalars {
    ($($method:ident, $visit:ident, $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
            match self.view {
                View::Text(text) => match text.trim().parse::<$type>() {
                    Ok(value) => visitor.$visit(value),
                    Err(_) => Err(self.unexpected(&visitor)),
                },
                View::String(_)
                | View::Boolean(_)
                | View::Integer(_)
                | View::Float(_)
                | View::Array(_)
                | View::Table(_) => self.deserialize_any(visitor),
            }
            .map_err(|refusal: Refusal| refusal.set_by(self.layer))
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Reader<'de> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let result = match self.view {
            View::Text(text) | View::String(text) => visitor.visit_borrowed_str(text),
            View::Boolean(boolean) => visitor.visit_bool(boolean),
            View::Integer(number) => visitor.visit_i64(number),
            View::Float(number) => visitor.visit_f64(number),
            View::Array(_) => self.items(visitor),
            View::Table(_) => self.entries(visitor),
        };
        result.map_err(|refusal| refusal.set_by(self.layer))
    }

    scalars! {
        deserialize_bool, visit_bool, bool;
        deserialize_i8, visit_i8, i8;
        deserialize_i16, visit_i16, i16;
        deserialize_i32, visit_i32, i32;
        deserialize_i64, visit_i64, i64;
        deserialize_u8, visit_u8, u8;
        deserialize_u16, visit_u16, u16;
        deserialize_u32, visit_u32, u32;
        deserialize_u64, visit_u64, u64;
        deserialize_f32, visit_f32, f32;
        deserialize_f64, visit_f64, f64;
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        // What a container's environment makes of a variable that has no value.
        if matches!(self.view, View::Text("")) {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.items(visitor)
            .map_err(|refusal| refusal.set_by(self.layer))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.entries(visitor)
            .map_err(|refusal| refusal.set_by(self.layer))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let result = match self.view {
            View::Text(text) | View::String(text) => {
                let name: de::value::BorrowedStrDeserializer<'de, Refusal> =
                    de::value::BorrowedStrDeserializer::new(text);
                visitor.visit_enum(name)
            }
            View::Table(entries) if entries.len() == 1 => {
                visitor.visit_enum(de::value::MapAccessDeserializer::new(Entries {
                    entries: entries.iter(),
                    current: None,
                }))
            }
            View::Boolean(_)
            | View::Integer(_)
            | View::Float(_)
            | View::Array(_)
            | View::Table(_) => Err(self.unexpected(&visitor)),
        };
        result.map_err(|refusal| refusal.set_by(self.layer))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refusal> {
        Err(Refusal::new(Kind::Skipped).set_by(self.layer))
    }

    serde::forward_to_deserialize_any! { char str string bytes byte_buf unit unit_struct identifier i128 u128 }
}

struct Entries<'a> {
    entries: std::collections::btree_map::Iter<'a, String, Node>,
    current: Option<(&'a str, &'a Node)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refusal> {
        let Some((key, node)) = self.entries.next() else {
            return Ok(None);
        };
        self.current = Some((key, node));
        let name = de::value::BorrowedStrDeserializer::new(key);
        seed.deserialize(name)
            .map(Some)
            .map_err(|refusal: Refusal| refusal.set_by(&node.layer))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let Some((key, node)) = self.current.take() else {
            return Err(de::Error::custom("a value without a key"));
        };
        seed.deserialize(Reader::of(node))
            .map_err(|refusal| refusal.within(key))
    }
}

struct Items<I> {
    readers: I,
    index: usize,
}

impl<I> Items<I> {
    fn new(readers: I) -> Self {
        Self { readers, index: 0 }
    }
}

impl<'de, I: Iterator<Item = Reader<'de>>> SeqAccess<'de> for Items<I> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refusal> {
        let Some(reader) = self.readers.next() else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        seed.deserialize(reader)
            .map(Some)
            .map_err(|refusal| refusal.within(&index.to_string()))
    }
}
