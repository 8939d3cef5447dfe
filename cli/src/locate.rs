//! Where a field of an API error stands in the YAML that a person wrote.

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A value of a document, and the lines of what is below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Places {
    /// Nothing is below it.
    #[default]
    Scalar,
    /// Its keys, each with its line.
    Map(Vec<(String, usize, Places)>),
    /// Its items, each with its line.
    List(Vec<(usize, Places)>),
}

/// What was found of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// The line of the field, or of its nearest parent that is there; `None` when there is neither.
    pub(crate) line: Option<usize>,
    /// Whether it is the field's own line.
    pub(crate) exact: bool,
}

impl Places {
    /// Reads a document; lines count from 1. What is no YAML has no places.
    pub(crate) fn parse(text: &str) -> Self {
        serde_saphyr::from_str(text).unwrap_or_default()
    }

    /// An item of a list below a key, as `items` of a `List`.
    pub(crate) fn item(&self, key: &str, index: usize) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        let (.., list) = entries.iter().find(|(name, ..)| name == key)?;
        let Self::List(items) = list else { return None };
        items.get(index).map(|(_, places)| places)
    }

    /// The first line of it.
    pub(crate) fn first_line(&self) -> Option<usize> {
        match self {
            Self::Scalar => None,
            Self::Map(entries) => entries.first().map(|(_, line, _)| *line),
            Self::List(items) => items.first().map(|(line, _)| *line),
        }
    }

    /// The line of a field such as `spec.containers[0].image` or `metadata.labels[a.b/c]`.
    pub(crate) fn find(&self, field: &str) -> Found {
        let (mut here, mut line) = (self, None);
        let mut rest = field;
        loop {
            rest = rest.trim_start_matches('.');
            if rest.is_empty() {
                return Found { line, exact: line.is_some() };
            }
            let Some((below, at, after)) = here.step(rest) else { return Found { line, exact: false } };
            (here, line, rest) = (below, Some(at), after);
        }
    }

    /// One step down the path: what is there, its line, and the rest of the path.
    fn step<'p>(&self, path: &'p str) -> Option<(&Self, usize, &'p str)> {
        let (inner, after) = match path.strip_prefix('[') {
            Some(bracketed) => {
                let (inner, after) = bracketed.split_once(']')?;
                (Some(inner.trim_matches('"')), after)
            }
            None => (None, path),
        };
        match (self, inner) {
            (Self::List(items), Some(index)) => {
                let (line, places) = items.get(index.parse::<usize>().ok()?)?;
                Some((places, *line, after))
            }
            (Self::Map(entries), Some(key)) => {
                let (_, line, places) = entries.iter().find(|(name, ..)| name == key)?;
                Some((places, *line, after))
            }
            (Self::Map(entries), None) => {
                // A key may hold dots itself, which paths do not tell from steps.
                let fits = |name: &String| {
                    path.strip_prefix(name.as_str())
                        .filter(|after| after.is_empty() || after.starts_with(['.', '[']))
                };
                let (name, line, places) = entries
                    .iter()
                    .filter(|(name, ..)| fits(name).is_some())
                    .max_by_key(|(name, ..)| name.len())?;
                Some((places, *line, &path[name.len()..]))
            }
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlacesVisitor)
    }
}

struct PlacesVisitor;

impl<'de> Visitor<'de> for PlacesVisitor {
    type Value = Places;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Places, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            entries.push((key.value, line(key.referenced), map.next_value()?));
        }
        Ok(Places::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Places, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element::<Spanned<Places>>()? {
            items.push((line(item.referenced), item.value));
        }
        Ok(Places::List(items))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Places, D::Error> {
        Places::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Places, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Places::Scalar)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Places, E> {
        Ok(Places::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Places, E> {
        Ok(Places::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Places, E> {
        Ok(Places::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Places, E> {
        Ok(Places::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Places, E> {
        Ok(Places::Scalar)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Places, E> {
        Ok(Places::Scalar)
    }

    fn visit_unit<E>(self) -> Result<Places, E> {
        Ok(Places::Scalar)
    }

    fn visit_none<E>(self) -> Result<Places, E> {
        Ok(Places::Scalar)
    }
}

fn line(location: serde_saphyr::Location) -> usize {
    usize::try_from(location.line()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "\
apiVersion: v1
metadata:
  name: p
  annotations: {a.b/c: x, \"d\": y}
spec:
  # the containers
  containers:
  - name: a
    image: x
  -
    name: b
    resources:
      limits:
        cpu: 1
  tolerations: [{key: k},
    {key: l, effect: Never}]
";

    fn line_of(field: &str) -> Option<usize> {
        let found = Places::parse(POD).find(field);
        found.line.filter(|_| found.exact)
    }

    #[test]
    fn finds_fields_in_every_style() {
        assert_eq!(line_of("metadata.name"), Some(3));
        assert_eq!(line_of(".spec.containers[0].image"), Some(9));
        assert_eq!(line_of("spec.containers[1].resources.limits[cpu]"), Some(14));
        assert_eq!(line_of("metadata.annotations[a.b/c]"), Some(4));
        assert_eq!(line_of("metadata.annotations.a.b/c"), Some(4));
        assert_eq!(line_of("spec.tolerations[1].effect"), Some(16));
        assert_eq!(Places::parse("{\n \"spec\": {\n\"a\": [1,\n2]}}").find("spec.a[1]").line, Some(4));
    }

    #[test]
    fn a_missing_field_is_placed_at_its_nearest_parent() {
        let places = Places::parse(POD);
        assert_eq!(places.find("spec.containers[0].env[0].name"), Found { line: Some(8), exact: false });
        assert_eq!(places.find("spec.nodeName"), Found { line: Some(5), exact: false });
        assert_eq!(places.find("status"), Found { line: None, exact: false });
        assert_eq!(Places::parse("").find("spec").line, None);
        assert_eq!(places.first_line(), Some(1));
    }

    #[test]
    fn items_of_a_list_are_documents_of_their_own() {
        let list = Places::parse("kind: List\nitems:\n- kind: A\n- kind: B\n  spec: {}\n");
        assert_eq!(list.item("items", 1).map(|item| item.find("spec").line), Some(Some(5)));
        assert_eq!(list.item("items", 2), None);
    }
}
