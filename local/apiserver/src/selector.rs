//! Label and field selectors: parsing with Kubernetes' messages, and matching.

use serde_json::Value;

use crate::meta::{at, meta};
use crate::registry::Resource;
use crate::status::{ApiError, ApiResult};

/// What a label requirement asks of the label's value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
    Greater(i64),
    Less(i64),
}

/// A conjunction of label requirements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<(String, Test)>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Symbol(&'static str),
    End,
}

impl Token {
    fn shown(&self) -> &str {
        match self {
            Self::Word(text) => text,
            Self::Symbol(text) => text,
            Self::End => "",
        }
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text;
    'next: loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            found.push(Token::End);
            return found;
        }
        for symbol in ["==", "!=", "=", "!", "(", ")", ",", ">", "<"] {
            if let Some(after) = rest.strip_prefix(symbol) {
                found.push(Token::Symbol(symbol));
                rest = after;
                continue 'next;
            }
        }
        let end = rest.find(|c: char| c.is_whitespace() || "=!(),<>".contains(c)).unwrap_or(rest.len());
        found.push(Token::Word(rest[..end].to_owned()));
        rest = &rest[end..];
    }
}

struct Parser {
    tokens: Vec<Token>,
    place: usize,
}

type Parsed<T> = Result<T, String>;

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.place).unwrap_or(&Token::End)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.place += 1;
        token
    }

    fn eat(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Token::Symbol(text) if *text == symbol);
        self.place += usize::from(found);
        found
    }

    fn key(&mut self) -> Parsed<String> {
        match self.take() {
            Token::Word(word) => {
                check_key(&word)?;
                Ok(word)
            }
            other => Err(format!("found '{}', expected: identifier", other.shown())),
        }
    }

    fn requirement(&mut self) -> Parsed<(String, Test)> {
        if self.eat("!") {
            return Ok((self.key()?, Test::Missing));
        }
        let key = self.key()?;
        let test = match self.peek().clone() {
            Token::End | Token::Symbol(",") => Test::Exists,
            Token::Symbol("=" | "==") => {
                self.take();
                Test::In(vec![self.value()?])
            }
            Token::Symbol("!=") => {
                self.take();
                Test::NotIn(vec![self.value()?])
            }
            Token::Symbol(">") => {
                self.take();
                Test::Greater(self.number(&key)?)
            }
            Token::Symbol("<") => {
                self.take();
                Test::Less(self.number(&key)?)
            }
            Token::Word(word) if word == "in" => {
                self.take();
                Test::In(self.set()?)
            }
            Token::Word(word) if word == "notin" => {
                self.take();
                Test::NotIn(self.set()?)
            }
            other => {
                let expected = "in, notin, =, ==, !=, gt, lt";
                return Err(format!("found '{}', expected: {expected}", other.shown()));
            }
        };
        Ok((key, test))
    }

    fn value(&mut self) -> Parsed<String> {
        match self.peek().clone() {
            Token::End | Token::Symbol(",") => Ok(String::new()),
            Token::Word(word) => {
                self.take();
                check_value(&word)?;
                Ok(word)
            }
            Token::Symbol(other) => Err(format!("found '{other}', expected: identifier")),
        }
    }

    fn number(&mut self, key: &str) -> Parsed<i64> {
        let value = self.value()?;
        let wrong = || format!("values[0][{key}]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the value must be an integer");
        value.parse().map_err(|_| wrong())
    }

    fn set(&mut self) -> Parsed<Vec<String>> {
        if !self.eat("(") {
            return Err(format!("found '{}' expected: '('", self.peek().shown()));
        }
        let mut values = Vec::new();
        loop {
            values.push(match self.peek().clone() {
                Token::Word(word) => {
                    self.take();
                    check_value(&word)?;
                    word
                }
                _ => String::new(),
            });
            if self.eat(")") {
                return Ok(values);
            }
            if !self.eat(",") {
                return Err(format!("found '{}', expected: ',', ')' or identifier", self.peek().shown()));
            }
        }
    }
}

fn name_part(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn check_key(key: &str) -> Parsed<()> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_fine = prefix.is_none_or(|prefix| {
        !prefix.is_empty() && prefix.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c))
    });
    if prefix_fine && name_part(name) {
        return Ok(());
    }
    Err(format!(
        "key: Invalid value: \"{key}\": name part must consist of alphanumeric characters, '-', '_' or '.', and must \
         start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
         validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
    ))
}

fn check_value(value: &str) -> Parsed<()> {
    if value.is_empty() || name_part(value) {
        return Ok(());
    }
    Err(format!(
        "values[0][key]: Invalid value: \"{value}\": a valid label must be an empty string or consist of alphanumeric \
         characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
         'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
    ))
}

impl LabelSelector {
    /// Parses the query form.
    pub(crate) fn parse(text: &str) -> ApiResult<Self> {
        Self::requirements(text)
            .map_err(|why| ApiError::bad_request(format!("unable to parse requirement: {why}")))
    }

    fn requirements(text: &str) -> Parsed<Self> {
        let mut parser = Parser { tokens: tokens(text), place: 0 };
        let mut found = Vec::new();
        if *parser.peek() == Token::End {
            return Ok(Self::default());
        }
        loop {
            found.push(parser.requirement()?);
            match parser.take() {
                Token::End => return Ok(Self(found)),
                Token::Symbol(",") => {
                    if *parser.peek() == Token::End {
                        return Err("found '', expected: identifier after ','".into());
                    }
                }
                other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.shown())),
            }
        }
    }

    /// A `LabelSelector` object (`matchLabels`, `matchExpressions`); a null one matches nothing.
    pub(crate) fn from_object(selector: &Value) -> Option<Self> {
        let selector = selector.as_object()?;
        let mut found = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            found.push((key.clone(), Test::In(vec![value.as_str().unwrap_or_default().to_owned()])));
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let key = expression.get("key")?.as_str()?.to_owned();
            let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            let test = match expression.get("operator")?.as_str()? {
                "In" => Test::In(values),
                "NotIn" => Test::NotIn(values),
                "Exists" => Test::Exists,
                "DoesNotExist" => Test::Missing,
                _ => return None,
            };
            found.push((key, test));
        }
        Some(Self(found))
    }

    /// Whether nothing is asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the object's labels meet every requirement.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = at(object, &["metadata", "labels"]);
        self.0.iter().all(|(key, test)| {
            let value = labels.get(key).and_then(Value::as_str);
            let number = || value.and_then(|value| value.parse::<i64>().ok());
            match test {
                Test::In(values) => value.is_some_and(|value| values.iter().any(|other| other == value)),
                Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|other| other != value)),
                Test::Exists => value.is_some(),
                Test::Missing => value.is_none(),
                Test::Greater(bound) => number().is_some_and(|value| value > *bound),
                Test::Less(bound) => number().is_some_and(|value| value < *bound),
            }
        })
    }
}

/// Fields that can be selected besides `metadata.name` and `metadata.namespace`: resource and path, and the text
/// that an absent field has.
#[rustfmt::skip]
const FIELDS: &[(&str, &str, &[(&str, &str)])] = &[
    ("", "pods", &[("spec.nodeName", ""), ("spec.restartPolicy", ""), ("spec.schedulerName", ""),
        ("spec.serviceAccountName", ""), ("spec.hostNetwork", "false"), ("status.phase", ""), ("status.podIP", ""),
        ("status.nominatedNodeName", "")]),
    ("", "nodes", &[("spec.unschedulable", "false")]),
    ("", "namespaces", &[("status.phase", "")]),
    ("", "secrets", &[("type", "")]),
    ("", "services", &[("spec.clusterIP", ""), ("spec.type", "")]),
    ("", "replicationcontrollers", &[("status.replicas", "0")]),
    ("", "events", &[("involvedObject.kind", ""), ("involvedObject.namespace", ""), ("involvedObject.name", ""),
        ("involvedObject.uid", ""), ("involvedObject.apiVersion", ""), ("involvedObject.resourceVersion", ""),
        ("involvedObject.fieldPath", ""), ("reason", ""), ("reportingComponent", ""), ("source", ""), ("type", "")]),
    ("apps", "replicasets", &[("status.replicas", "0")]),
    ("batch", "jobs", &[("status.successful", "0")]),
    ("certificates.k8s.io", "certificatesigningrequests", &[("spec.signerName", "")]),
];

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldTest {
    path: Vec<String>,
    absent: &'static str,
    value: String,
    equal: bool,
}

/// A conjunction of field comparisons.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector(Vec<FieldTest>);

impl FieldSelector {
    /// Parses the query form and refuses fields the resource cannot be selected by.
    pub(crate) fn parse(text: &str, resource: &Resource) -> ApiResult<Self> {
        let mut tests = Vec::new();
        for term in split_terms(text) {
            let (field, value, equal) = if let Some((field, value)) = term.split_once("!=") {
                (field, value, false)
            } else if let Some((field, value)) = term.split_once("==") {
                (field, value, true)
            } else if let Some((field, value)) = term.split_once('=') {
                (field, value, true)
            } else {
                let why = format!("invalid selector: '{text}'; can't understand '{term}'");
                return Err(ApiError::bad_request(why));
            };
            let field = field.trim();
            let (path, absent) = supported(resource, field)
                .ok_or_else(|| ApiError::bad_request(format!("field label not supported: {field}")))?;
            let path = path.split('.').map(str::to_owned).collect();
            tests.push(FieldTest { path, absent, value: unescape(value.trim()), equal });
        }
        Ok(Self(tests))
    }

    /// Selects one object by name.
    pub(crate) fn name(name: &str) -> Self {
        let path = vec!["metadata".to_owned(), "name".to_owned()];
        Self(vec![FieldTest { path, absent: "", value: name.to_owned(), equal: true }])
    }

    /// Whether nothing is asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name that every match must have, when the selector fixes it.
    pub(crate) fn required_name(&self) -> Option<&str> {
        let name = |test: &&FieldTest| test.equal && test.path == ["metadata", "name"];
        self.0.iter().find(name).map(|test| test.value.as_str())
    }

    /// Whether the object meets every comparison.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|test| (field_text(object, test) == test.value) == test.equal)
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (place, c) in text.char_indices() {
        match c {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            ',' if !escaped => {
                terms.push(&text[start..place]);
                start = place + 1;
            }
            _ => {}
        }
        escaped = false;
    }
    terms.push(&text[start..]);
    terms.retain(|term| !term.trim().is_empty());
    terms
}

fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    out
}

/// The stored path of a selectable field and the text of its absence.
fn supported(resource: &Resource, field: &str) -> Option<(String, &'static str)> {
    if matches!(field, "metadata.name") || (field == "metadata.namespace" && resource.namespaced) {
        return Some((field.to_owned(), ""));
    }
    if let Some(custom) = &resource.custom {
        let own = custom.selectable_fields.iter().find(|path| path.trim_start_matches('.') == field)?;
        return Some((own.trim_start_matches('.').to_owned(), ""));
    }
    // events.k8s.io names the same stored fields differently.
    let is_new_event = resource.group == "events.k8s.io";
    let group = if is_new_event { "" } else { resource.group.as_str() };
    let core = if is_new_event {
        match field.strip_prefix("regarding.") {
            Some(rest) => format!("involvedObject.{rest}"),
            None if field == "reportingController" => "reportingComponent".to_owned(),
            None => field.to_owned(),
        }
    } else {
        field.to_owned()
    };
    let (_, _, fields) = FIELDS.iter().find(|(g, plural, _)| *g == group && *plural == resource.plural)?;
    let (path, absent) = fields.iter().find(|(path, _)| *path == core)?;
    let path = if *path == "source" && group.is_empty() { "source.component" } else { path };
    let path = if *path == *"status.successful" { "status.succeeded" } else { path };
    Some((path.to_owned(), absent))
}

fn field_text(object: &Value, test: &FieldTest) -> String {
    if test.path == ["metadata", "name"] {
        return meta(object, "name").to_owned();
    }
    let found = test.path.iter().fold(object, |value, key| value.get(key).unwrap_or(&Value::Null));
    match found {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        _ => test.absent.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use serde_json::json;

    fn labelled(labels: Value) -> Value {
        json!({ "metadata": { "name": "x", "labels": labels } })
    }

    #[test]
    fn label_requirements_match() {
        let object = labelled(json!({ "app": "a", "size": "5" }));
        for (text, expected) in [
            ("", true),
            ("app=a", true),
            ("app==a,size", true),
            ("app!=a", false),
            ("other!=a", true),
            ("app in (b, a)", true),
            ("app notin (a)", false),
            ("!other", true),
            ("size>4", true),
            ("size<5", false),
        ] {
            let selector = LabelSelector::parse(text).expect(text);
            assert_eq!(selector.matches(&object), expected, "{text}");
        }
    }

    #[test]
    fn a_wrong_selector_is_told_as_kubernetes_does() {
        let error = LabelSelector::parse("!!").unwrap_err();
        assert_eq!(error.message, "unable to parse requirement: found '!', expected: identifier");
    }

    #[test]
    fn fields_are_checked_by_resource() {
        let registry = Registry::default();
        let pods = registry.snapshot().find("", "v1", "pods").expect("pods");
        let selector = FieldSelector::parse("spec.nodeName=n,status.phase!=Failed", &pods).expect("fields");
        assert!(selector.matches(&json!({ "spec": { "nodeName": "n" } })));
        assert!(!selector.matches(&json!({ "spec": { "nodeName": "n" }, "status": { "phase": "Failed" } })));
        let error = FieldSelector::parse("spec.nope=1", &pods).unwrap_err();
        assert_eq!(error.message, "field label not supported: spec.nope");
    }
}
