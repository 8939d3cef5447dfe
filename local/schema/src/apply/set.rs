//! Sets of field paths, and their `FieldsV1` form in managed fields.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

/// One step of a path into an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathElement {
    /// A named field or map key.
    Field(String),
    /// An entry of a keyed list: the key fields as a JSON object with sorted names.
    Key(String),
    /// An entry of a set, as JSON.
    Value(String),
    /// An entry at a position.
    Index(usize),
}

impl PathElement {
    /// The text of this step in `FieldsV1`.
    pub(super) fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(key) => format!("k:{key}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(position) => format!("i:{position}"),
        }
    }

    fn decode(text: &str) -> Result<Self, SetError> {
        let broken = || SetError::Element(text.to_owned());
        let canonical = |json: &str| serde_json::from_str::<Value>(json).map_err(|_| broken());
        let (kind, rest) = text.split_once(':').ok_or_else(broken)?;
        match kind {
            "f" => Ok(Self::Field(rest.to_owned())),
            "k" => {
                Ok(Self::Key(canonical(rest).ok().filter(Value::is_object).ok_or_else(broken)?.to_string()))
            }
            "v" => Ok(Self::Value(canonical(rest)?.to_string())),
            "i" => Ok(Self::Index(rest.parse().map_err(|_| broken())?)),
            _ => Err(broken()),
        }
    }
}

impl fmt::Display for PathElement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(formatter, ".{name}"),
            Self::Value(value) => write!(formatter, "[={value}]"),
            Self::Index(position) => write!(formatter, "[{position}]"),
            Self::Key(key) => {
                let fields: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
                let parts: Vec<String> =
                    fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(formatter, "[{}]", parts.join(","))
            }
        }
    }
}

/// Why `FieldsV1` cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// A step has no known form.
    #[error("managed fields name an unknown path element \"{0}\"")]
    Element(String),
    /// A value is no JSON object.
    #[error("managed fields must be nested JSON objects")]
    Shape,
    /// Nested too deeply.
    #[error("managed fields are nested too deeply")]
    Depth,
}

/// The deepest nesting that is read.
const MAX_DEPTH: usize = 256;

/// A set of paths, as a tree. Canonical: no child is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSet {
    members: BTreeSet<PathElement>,
    children: BTreeMap<PathElement, FieldSet>,
}

impl FieldSet {
    /// A set of paths of field names, such as `[["status"], ["metadata", "name"]]`.
    pub fn of_fields<'a>(paths: impl IntoIterator<Item = &'a [&'a str]>) -> Self {
        let mut set = Self::default();
        for path in paths {
            let path: Vec<_> = path.iter().map(|name| PathElement::Field((*name).to_owned())).collect();
            set.insert(&path);
        }
        set
    }

    /// Reads `fieldsV1`.
    pub fn parse(fields: &Value) -> Result<Self, SetError> {
        Self::parse_below(fields, 0)
    }

    fn parse_below(fields: &Value, depth: usize) -> Result<Self, SetError> {
        if depth > MAX_DEPTH {
            return Err(SetError::Depth);
        }
        let mut set = Self::default();
        for (name, below) in fields.as_object().ok_or(SetError::Shape)? {
            if name == "." {
                continue;
            }
            let element = PathElement::decode(name)?;
            let children = Self::parse_below(below, depth + 1)?;
            if children.is_empty() || below.get(".").is_some() {
                set.members.insert(element.clone());
            }
            if !children.is_empty() {
                set.children.entry(element).or_default().extend(&children);
            }
        }
        Ok(set)
    }

    /// The `fieldsV1` form.
    pub fn to_value(&self) -> Value {
        let mut fields = Map::new();
        for member in &self.members {
            fields.insert(member.encode(), Value::Object(Map::new()));
        }
        for (element, below) in &self.children {
            let mut value = below.to_value();
            if self.members.contains(element)
                && let Some(fields) = value.as_object_mut()
            {
                fields.insert(".".to_owned(), Value::Object(Map::new()));
            }
            fields.insert(element.encode(), value);
        }
        Value::Object(fields)
    }

    /// Whether it holds no path.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// Adds one path; the empty path is not a member of any set.
    pub fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// The paths of one element.
    pub(super) fn members(&self) -> impl Iterator<Item = &PathElement> {
        self.members.iter()
    }

    /// The first elements of longer paths, and what follows them.
    pub(super) fn children(&self) -> impl Iterator<Item = (&PathElement, &Self)> {
        self.children.iter()
    }

    /// Whether `element` itself is in the set.
    pub(super) fn has(&self, element: &PathElement) -> bool {
        self.members.contains(element)
    }

    /// The paths below `element`.
    pub(super) fn below(&self, element: &PathElement) -> Option<&Self> {
        self.children.get(element)
    }

    /// Every path in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut result = self.clone();
        result.extend(other);
        result
    }

    fn extend(&mut self, other: &Self) {
        self.members.extend(other.members.iter().cloned());
        for (element, below) in &other.children {
            self.children.entry(element.clone()).or_default().extend(below);
        }
    }

    /// Every path in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let members = self.members.intersection(&other.members).cloned().collect();
        self.rebuild(members, |element, below| {
            other.children.get(element).map(|other| below.intersection(other))
        })
    }

    /// Every path that is not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let members = self.members.difference(&other.members).cloned().collect();
        self.rebuild(members, |element, below| {
            Some(other.children.get(element).map_or_else(|| below.clone(), |other| below.difference(other)))
        })
    }

    /// Every path that is neither in `other` nor below a path in it.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        let members = self.members.difference(&other.members).cloned().collect();
        self.rebuild(members, |element, below| {
            if other.members.contains(element) {
                return None;
            }
            Some(
                other
                    .children
                    .get(element)
                    .map_or_else(|| below.clone(), |other| below.recursive_difference(other)),
            )
        })
    }

    fn rebuild(
        &self,
        members: BTreeSet<PathElement>,
        mut child: impl FnMut(&PathElement, &Self) -> Option<Self>,
    ) -> Self {
        let children = self.children.iter().filter_map(|(element, below)| {
            let below = child(element, below).filter(|below| !below.is_empty())?;
            Some((element.clone(), below))
        });
        Self { members, children: children.collect() }
    }

    /// Adds the members that `named` picks among the elements with children, and does so below as well.
    pub(super) fn with_named<T>(
        &self,
        place: &T,
        named: &impl Fn(&T, &PathElement) -> bool,
        descend: &impl Fn(&T, &PathElement) -> T,
    ) -> Self {
        let mut members = self.members.clone();
        members.extend(self.children.keys().filter(|element| named(place, element)).cloned());
        let children = self.children.iter().map(|(element, below)| {
            (element.clone(), below.with_named(&descend(place, element), named, descend))
        });
        Self { members, children: children.collect() }
    }

    /// All paths, in order, as Kubernetes prints them: `.spec.parts[key="a"].count`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, prefix: &str, paths: &mut Vec<String>) {
        paths.extend(self.members.iter().map(|member| format!("{prefix}{member}")));
        for (element, below) in &self.children {
            below.collect(&format!("{prefix}{element}"), paths);
        }
    }
}
