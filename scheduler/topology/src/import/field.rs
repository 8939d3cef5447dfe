//! Reading fields of generic objects, with errors that name the field.

use serde_json::Value;
use thiserror::Error;

/// A field that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// The path of the field, such as `spec.levels[0].nodeLabel`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl FieldError {
    pub(super) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// A place in an object, which knows its path.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    pub(super) path: String,
    value: Option<&'a Value>,
}

impl<'a> Field<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value: Some(value) }
    }

    pub(super) fn get(&self, name: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self {
            path: format!("{}{dot}{name}", self.path),
            value: self.value.and_then(|value| value.get(name)),
        }
    }

    pub(super) fn exists(&self) -> bool {
        self.value.is_some_and(|value| !value.is_null())
    }

    pub(super) fn error(&self, problem: impl Into<String>) -> FieldError {
        let path = if self.path.is_empty() { "the object" } else { &self.path };
        FieldError::new(path, problem)
    }

    /// A text that is not empty.
    pub(super) fn text(&self) -> Result<&'a str, FieldError> {
        match self.value {
            Some(Value::String(text)) if !text.is_empty() => Ok(text),
            None | Some(Value::Null) => Err(self.error("must be set")),
            Some(_) => Err(self.error("must be a text that is not empty")),
        }
    }

    /// A whole number that is not negative, as number or text.
    pub(super) fn number(&self) -> Result<u64, FieldError> {
        let number = match self.value {
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.parse().ok(),
            None | Some(Value::Null) => return Err(self.error("must be set")),
            Some(_) => None,
        };
        number.ok_or_else(|| self.error("must be a whole number of at least 0"))
    }

    /// The elements of a list; none when the field is not set.
    pub(super) fn list(&self) -> Result<Vec<Self>, FieldError> {
        match self.value {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(values)) => {
                let element =
                    |(index, value)| Self { path: format!("{}[{index}]", self.path), value: Some(value) };
                Ok(values.iter().enumerate().map(element).collect())
            }
            Some(_) => Err(self.error("must be a list")),
        }
    }

    /// The entries of a map; none when the field is not set.
    pub(super) fn entries(&self) -> Result<Vec<(&'a str, Self)>, FieldError> {
        match self.value {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Object(map)) => {
                let entry = |(name, value): (&'a String, &'a Value)| {
                    let path = format!("{}[{name:?}]", self.path);
                    (name.as_str(), Self { path, value: Some(value) })
                };
                Ok(map.iter().map(entry).collect())
            }
            Some(_) => Err(self.error("must be a map")),
        }
    }
}

/// Arbitrary values, for tests that feed them to importers.
#[cfg(test)]
pub(super) mod arbitrary {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// Any small JSON value that uses these names for fields.
    pub(crate) fn value(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (0_i64..4).prop_map(Value::from),
            prop::sample::select(vec![
                "",
                "a",
                "b",
                "gpu",
                "Node",
                "HyperNode",
                "nvidia.com/gpu",
                "(",
                "4",
                "pci:0"
            ])
            .prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 48, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((prop::sample::select(names), inner), 0..5).prop_map(|fields| {
                    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
                }),
            ]
        })
    }

    /// `value` with one place in it replaced.
    pub(crate) fn damaged(mut value: Value, steps: &[usize], with: Value) -> Value {
        let inner = steps.split_first().filter(|(step, _)| *step % 7 != 6);
        let place = inner.and_then(|(step, rest)| {
            let place = match &mut value {
                Value::Array(list) if !list.is_empty() => {
                    let index = step % list.len();
                    list.get_mut(index)
                }
                Value::Object(map) if !map.is_empty() => {
                    let index = step % map.len();
                    map.values_mut().nth(index)
                }
                _ => None,
            };
            place.map(|place| (place, rest))
        });
        match place {
            Some((place, rest)) => *place = damaged(place.take(), rest, with),
            None => value = with,
        }
        value
    }

    #[test]
    fn damage_changes_the_value() {
        assert_eq!(damaged(json!({"a": [1, 2]}), &[0, 1], json!("x")), json!({"a": [1, "x"]}));
    }
}
