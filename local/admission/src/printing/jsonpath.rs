//! The part of JSONPath that printed columns of custom resources use: fields, quoted fields, indexes, slices, wildcards
//! and filters that compare one field.

use serde_json::Value;

/// A compiled path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

/// Why a text is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("json path {path:?} is not understood at {rest:?}")]
pub struct JsonPathError {
    path: String,
    rest: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    All,
    Slice { start: Option<i64>, end: Option<i64> },
    Index(i64),
    Filter { path: JsonPath, comparison: Option<(Comparison, Value)> },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl JsonPath {
    /// Compiles a path such as `.status.conditions[?(@.type=="Ready")].status`, with or without braces.
    pub fn parse(path: &str) -> Result<Self, JsonPathError> {
        let trimmed = path.trim();
        let inner = trimmed.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(trimmed);
        let inner = inner.strip_prefix('$').unwrap_or(inner);
        Self::steps(inner).map_err(|rest| JsonPathError { path: path.to_owned(), rest })
    }

    fn steps(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if rest.starts_with('[') {
                let end = closing_bracket(rest).ok_or_else(|| rest.to_owned())?;
                steps.push(bracket(&rest[1..end]).ok_or_else(|| rest.to_owned())?);
                rest = &rest[end + 1..];
            } else {
                let name = rest.strip_prefix('.').ok_or_else(|| rest.to_owned())?;
                let (name, after) = field_name(name);
                match name.as_str() {
                    // A lone dot is the object itself.
                    "" if after.is_empty() || after.starts_with('[') => {}
                    "" => return Err(rest.to_owned()),
                    "*" => steps.push(Step::All),
                    _ => steps.push(Step::Field(name)),
                }
                rest = after;
            }
        }
        Ok(Self { steps })
    }

    /// Everything that the path leads to; nothing where a part is missing.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.steps {
            found = found.into_iter().flat_map(|value| step.apply(value)).collect();
        }
        found
    }
}

/// A name up to the next dot or bracket; a backslash keeps the character after it.
fn field_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '.' | '[' => return (name, &text[index..]),
            '\\' => name.extend(characters.next().map(|(_, character)| character)),
            other => name.push(other),
        }
    }
    (name, "")
}

fn closing_bracket(text: &str) -> Option<usize> {
    let (mut depth, mut quoted) = (0_usize, None);
    for (index, character) in text.char_indices() {
        match (quoted, character) {
            (Some(quote), character) if quote == character => quoted = None,
            (None, '\'' | '"') => quoted = Some(character),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

fn unquoted(text: &str) -> Option<&str> {
    ['\'', '"'].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

fn bracket(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquoted(text) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Some(condition) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        return filter(condition.trim());
    }
    if let Some((start, end)) = text.split_once(':') {
        let bound = |text: &str| match text.trim() {
            "" => Some(None),
            number => number.parse().ok().map(Some),
        };
        return Some(Step::Slice { start: bound(start)?, end: bound(end)? });
    }
    text.parse().ok().map(Step::Index)
}

fn filter(condition: &str) -> Option<Step> {
    let condition = condition.strip_prefix('@')?;
    let found = COMPARISONS
        .into_iter()
        .filter_map(|(text, comparison)| Some((condition.find(text)?, text, comparison)))
        .min_by_key(|(index, text, _)| (*index, std::cmp::Reverse(text.len())));
    let Some((index, text, comparison)) = found else {
        return Some(Step::Filter { path: JsonPath::steps(condition.trim()).ok()?, comparison: None });
    };
    let path = JsonPath::steps(condition[..index].trim()).ok()?;
    let right = condition[index + text.len()..].trim();
    let right = match unquoted(right) {
        Some(text) => Value::from(text),
        None => serde_json::from_str(right).ok()?,
    };
    Some(Step::Filter { path, comparison: Some((comparison, right)) })
}

impl Step {
    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).filter(|value| !value.is_null()).into_iter().collect(),
            Self::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(fields) => fields.values().collect(),
                _ => Vec::new(),
            },
            Self::Index(index) => value
                .as_array()
                .and_then(|items| items.get(usize::try_from(from_end(*index, items.len())).ok()?))
                .into_iter()
                .collect(),
            Self::Slice { start, end } => {
                let Some(items) = value.as_array() else { return Vec::new() };
                let bound = |bound: Option<i64>, default: usize| {
                    bound.map_or(default, |bound| {
                        usize::try_from(from_end(bound, items.len()).max(0)).unwrap_or(0).min(items.len())
                    })
                };
                let (start, end) = (bound(*start, 0), bound(*end, items.len()));
                items.get(start..end).unwrap_or_default().iter().collect()
            }
            Self::Filter { path, comparison } => {
                let Some(items) = value.as_array() else { return Vec::new() };
                let holds = |item: &&Value| {
                    path.find(item).first().is_some_and(|left| match comparison {
                        None => true,
                        Some((comparison, right)) => comparison.holds(left, right),
                    })
                };
                items.iter().filter(holds).collect()
            }
        }
    }
}

fn from_end(index: i64, length: usize) -> i64 {
    if index < 0 { index + length as i64 } else { index }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> bool {
        use std::cmp::Ordering;
        let order = match (left, right) {
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (Value::Number(left), Value::Number(right)) => {
                left.as_f64().zip(right.as_f64()).and_then(|(left, right)| left.partial_cmp(&right))
            }
            (left, right) => (left == right).then_some(Ordering::Equal),
        };
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::NotEqual => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::JsonPath;

    #[test]
    fn paths_find_what_they_name() {
        let object = json!({
            "spec": {"size": 3, "a.b": "dotted"},
            "status": {"conditions": [
                {"type": "Created", "status": "True"},
                {"type": "Ready", "status": "False"}
            ]}
        });
        for (path, expected) in [
            (".spec.size", json!([3])),
            ("{.spec.size}", json!([3])),
            (".spec['a.b']", json!(["dotted"])),
            (r".spec.a\.b", json!(["dotted"])),
            (".status.conditions[-1:].type", json!(["Ready"])),
            (".status.conditions[0].type", json!(["Created"])),
            (".status.conditions[-1].type", json!(["Ready"])),
            (".status.conditions[*].type", json!(["Created", "Ready"])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["False"])),
            (".status.conditions[?(@.type=='Ready')].status", json!(["False"])),
            (".status.conditions[?(@.type != 'Ready')].status", json!(["True"])),
            (".status.missing[0].x", json!([])),
            (".status.conditions[7].x", json!([])),
        ] {
            let found = JsonPath::parse(path).unwrap();
            assert_eq!(json!(found.find(&object)), expected, "{path}");
        }
    }

    #[test]
    fn malformed_paths_are_refused() {
        for path in ["spec", ".a[", ".a[x]", ".a..b", ".a[?(b)]"] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }
}
