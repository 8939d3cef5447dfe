//! Label selectors: `a=b,c!=d,e in (f,g),h,!i,j>1`.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use crate::field::{FieldError, aggregate};
use crate::json::{list, text, texts};
use crate::names;

/// Why a text is no label selector. The wording is what clients of Kubernetes see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelSelectorError {
    /// A requirement is malformed.
    #[error("unable to parse requirement: {0}")]
    Requirement(String),
    /// What stands between requirements is malformed.
    #[error("{0}")]
    Structure(String),
    /// A `matchExpressions` entry has an unknown operator.
    #[error("{} is not a valid label selector operator", crate::field::quote(.0))]
    Operator(String),
}

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// `key=value`.
    Equals,
    /// `key!=value`; also true without the key.
    NotEquals,
    /// `key in (a,b)`.
    In,
    /// `key notin (a,b)`; also true without the key.
    NotIn,
    /// `key`.
    Exists,
    /// `!key`.
    DoesNotExist,
    /// `key>1`.
    GreaterThan,
    /// `key<1`.
    LessThan,
}

/// One condition on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted, without repetition.
    values: Vec<String>,
}

impl Requirement {
    /// A checked requirement; the error is worded as Kubernetes words it.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, String> {
        let mut errors = Vec::new();
        let messages = names::qualified_name(key);
        if !messages.is_empty() {
            errors.push(FieldError::invalid("key", key, messages.join("; ")));
        }
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                let detail = "for 'in', 'notin' operators, values set can't be empty";
                errors.push(FieldError::invalid("values", Vec::<String>::new(), detail));
            }
            Operator::GreaterThan | Operator::LessThan => {
                for (index, value) in
                    values.iter().enumerate().filter(|(_, value)| value.parse::<i64>().is_err())
                {
                    let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                    errors.push(FieldError::invalid(format!("values[{index}]"), value.as_str(), detail));
                }
            }
            _ => {}
        }
        for (index, value) in values.iter().enumerate() {
            let messages = names::label_value(value);
            if !messages.is_empty() {
                let field = format!("values[{index}][{key}]");
                errors.push(FieldError::invalid(field, value.as_str(), messages.join("; ")));
            }
        }
        if !errors.is_empty() {
            return Err(aggregate(&errors));
        }
        let mut values = values;
        values.sort();
        values.dedup();
        Ok(Self { key: key.to_owned(), operator, values })
    }

    /// Whether labels (a JSON object, or null for none) meet this condition.
    pub fn matches(&self, labels: &Value) -> bool {
        let value = labels.get(&self.key).and_then(Value::as_str);
        let listed = || value.is_some_and(|value| self.values.iter().any(|known| known == value));
        let compared = |holds: fn(&i64, &i64) -> bool| {
            let right = self.values.first().and_then(|text| text.parse::<i64>().ok());
            let left = value.and_then(|text| text.parse::<i64>().ok());
            left.zip(right).is_some_and(|(left, right)| holds(&left, &right))
        };
        match self.operator {
            Operator::Equals | Operator::In => listed(),
            Operator::NotEquals | Operator::NotIn => !listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compared(i64::gt),
            Operator::LessThan => compared(i64::lt),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// Conditions that must all hold; none at all select everything. `Display` gives the text it parses from, sorted by key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Selects everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects nothing.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// The selector of a `{matchLabels, matchExpressions}` object: null selects nothing, `{}` everything.
    pub fn from_json(selector: &Value) -> Result<Self, LabelSelectorError> {
        if !selector.is_object() {
            return Ok(Self::nothing());
        }
        let mut requirements = Vec::new();
        let requirement = |key: &str, operator, values| {
            Requirement::new(key, operator, values).map_err(LabelSelectorError::Requirement)
        };
        for (key, value) in texts(selector, "matchLabels") {
            requirements.push(requirement(key, Operator::Equals, vec![value.to_owned()])?);
        }
        for expression in list(selector, "matchExpressions") {
            let operator = match text(expression, "operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(LabelSelectorError::Operator(other.to_owned())),
            };
            let values =
                list(expression, "values").iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect();
            requirements.push(requirement(text(expression, "key"), operator, values)?);
        }
        Ok(Self::of(requirements))
    }

    /// The selector of a plain map of labels, as services and replication controllers have; null selects nothing.
    pub fn from_labels(labels: &Value) -> Self {
        let Some(labels) = labels.as_object() else { return Self::nothing() };
        let equal = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.as_str().unwrap_or_default().to_owned()],
        };
        Self::of(labels.iter().map(equal).collect())
    }

    fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|left, right| left.key.cmp(&right.key));
        Self { requirements, nothing: false }
    }

    /// Whether labels (a JSON object, or null for none) are selected.
    pub fn matches(&self, labels: &Value) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// The conditions, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl FromStr for LabelSelector {
    type Err = LabelSelectorError;

    fn from_str(text: &str) -> Result<Self, LabelSelectorError> {
        Parser { tokens: tokens(text), position: 0 }.selector()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    In(&'a str),
    NotIn(&'a str),
    Symbol(&'static str),
    End,
}

impl<'a> Token<'a> {
    fn literal(self) -> &'a str {
        match self {
            Self::Word(text) | Self::In(text) | Self::NotIn(text) | Self::Symbol(text) => text,
            Self::End => "",
        }
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', '\r', '\n']);
    while !rest.is_empty() {
        if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
            tokens.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
        } else {
            let end =
                rest.find([' ', '\t', '\r', '\n', '=', '!', '(', ')', ',', '>', '<']).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            tokens.push(match word {
                "in" => Token::In(word),
                "notin" => Token::NotIn(word),
                _ => Token::Word(word),
            });
            rest = after;
        }
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }
    tokens
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    position: usize,
}

impl<'a> Parser<'a> {
    fn peek_operator(&self) -> Token<'a> {
        self.tokens.get(self.position).copied().unwrap_or(Token::End)
    }

    /// Outside the operator's place, `in` and `notin` are words like any other.
    fn peek(&self) -> Token<'a> {
        match self.peek_operator() {
            Token::In(text) | Token::NotIn(text) => Token::Word(text),
            other => other,
        }
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.position += 1;
        token
    }

    fn selector(mut self) -> Result<LabelSelector, LabelSelectorError> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::Word(_) | Token::Symbol("!") => {
                    requirements.push(self.requirement().map_err(LabelSelectorError::Requirement)?);
                }
                Token::End => return Ok(LabelSelector::of(requirements)),
                other => return Err(unexpected(other, "!, identifier, or 'end of string'")),
            }
            match self.next() {
                Token::End => return Ok(LabelSelector::of(requirements)),
                Token::Symbol(",") => match self.peek() {
                    Token::Word(_) | Token::Symbol("!") => {}
                    other => return Err(unexpected(other, "identifier after ','")),
                },
                other => return Err(unexpected(other, "',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut token = self.next();
        let negated = token == Token::Symbol("!");
        if negated {
            token = self.next();
        }
        let Token::Word(key) = token else {
            return Err(format!("found '{}', expected: identifier", token.literal()));
        };
        let messages = names::qualified_name(key);
        if !messages.is_empty() {
            return Err(FieldError::invalid("<nil>", key, messages.join("; ")).to_string());
        }
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let values = if matches!(operator, Operator::In | Operator::NotIn) {
            self.values()?
        } else {
            vec![self.exact_value()?]
        };
        Requirement::new(key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, String> {
        let token = self.peek_operator();
        self.position += 1;
        Ok(match token {
            Token::In(_) => Operator::In,
            Token::NotIn(_) => Operator::NotIn,
            Token::Symbol("=" | "==") => Operator::Equals,
            Token::Symbol("!=") => Operator::NotEquals,
            Token::Symbol(">") => Operator::GreaterThan,
            Token::Symbol("<") => Operator::LessThan,
            other => {
                return Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", other.literal()));
            }
        })
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(String::new());
        }
        match self.next() {
            Token::Word(word) => Ok(word.to_owned()),
            other => Err(format!("found '{}', expected: identifier", other.literal())),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let open = self.next();
        if open != Token::Symbol("(") {
            return Err(format!("found '{}' expected: '('", open.literal()));
        }
        match self.peek() {
            Token::Symbol(")") => {
                self.position += 1;
                return Ok(Vec::new());
            }
            Token::Word(_) | Token::Symbol(",") => {}
            other => return Err(format!("found '{}', expected: ',', ')' or identifier", other.literal())),
        }
        // Between commas, nothing stands for the empty text.
        let mut values = Vec::new();
        loop {
            match self.next() {
                Token::Word(word) => {
                    values.push(word.to_owned());
                    match self.next() {
                        Token::Symbol(")") => return Ok(values),
                        Token::Symbol(",") if self.peek() == Token::Symbol(")") => {
                            self.position += 1;
                            values.push(String::new());
                            return Ok(values);
                        }
                        Token::Symbol(",") => {}
                        other => return Err(format!("found '{}', expected: ',' or ')'", other.literal())),
                    }
                }
                Token::Symbol(",") => {
                    values.push(String::new());
                    if self.peek() == Token::Symbol(")") {
                        self.position += 1;
                        return Ok(values);
                    }
                }
                other => return Err(format!("found '{}', expected: ',', or identifier", other.literal())),
            }
        }
    }
}

fn unexpected(token: Token<'_>, expected: &str) -> LabelSelectorError {
    LabelSelectorError::Structure(format!("found '{}', expected: {expected}", token.literal()))
}
