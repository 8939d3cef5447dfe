//! One CEL expression over variables of one's own, with the functions that Kubernetes offers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cel::objects::{Key, Map};

use super::program::Program;
use super::{quantity, semver};

/// A compiled expression that is true or false.
#[derive(Debug)]
pub struct Expression {
    program: Program,
}

/// Why an expression says neither yes nor no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// It is not valid.
    #[error("does not compile: {0}")]
    Invalid(String),
    /// It cannot be evaluated for this value.
    #[error("cannot be evaluated: {0}")]
    Failed(String),
}

/// A value for an expression's variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A text.
    Text(String),
    /// A semantic version; a text that is none stays a text.
    Version(String),
    /// A Kubernetes quantity; a text that is none stays a text.
    Quantity(String),
    /// Values in order.
    List(Vec<Variable>),
    /// Values by name.
    Map(BTreeMap<String, Variable>),
}

impl Expression {
    /// Compiles an expression over these variables.
    ///
    /// # Errors
    /// When it is not valid, or names something else.
    pub fn compile(source: &str, variables: &[&str]) -> Result<Self, ExpressionError> {
        let program = Program::compile_over(source, variables).map_err(ExpressionError::Invalid)?;
        Ok(Self { program })
    }

    /// The texts that are written in it, such as keys of maps.
    pub fn texts(&self) -> Vec<String> {
        self.program.texts()
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// When it cannot be evaluated, or is neither true nor false.
    pub fn holds(&self, variables: &[(&str, &Variable)]) -> Result<bool, ExpressionError> {
        let variables = variables.iter().map(|(name, value)| (*name, value.to_cel()));
        self.program.holds(variables.collect()).map_err(ExpressionError::Failed)
    }
}

impl Variable {
    fn to_cel(&self) -> cel::Value {
        match self {
            Self::Bool(value) => cel::Value::Bool(*value),
            Self::Int(value) => cel::Value::Int(*value),
            Self::Text(text) => cel::Value::from(text.as_str()),
            Self::Version(text) => semver::read(text).unwrap_or_else(|| cel::Value::from(text.as_str())),
            Self::Quantity(text) => quantity::read(text).unwrap_or_else(|| cel::Value::from(text.as_str())),
            Self::List(items) => cel::Value::List(Arc::new(items.iter().map(Self::to_cel).collect())),
            Self::Map(entries) => {
                let key = |name: &String| Key::String(Arc::new(name.clone()));
                let map: HashMap<Key, cel::Value> =
                    entries.iter().map(|(name, value)| (key(name), value.to_cel())).collect();
                cel::Value::Map(Map { map: Arc::new(map) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Variable {
        let map = |entries: Vec<(&str, Variable)>| {
            Variable::Map(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
        };
        let attributes = map(vec![
            ("productName", Variable::Text("A100".into())),
            ("driverVersion", Variable::Version("1.10.2".into())),
            ("numa", Variable::List(vec![Variable::Int(0), Variable::Int(1)])),
            ("shared", Variable::Bool(false)),
        ]);
        map(vec![
            ("driver", Variable::Text("gpu.example.com".into())),
            ("attributes", map(vec![("gpu.example.com", attributes), ("other.example.com", map(vec![]))])),
            (
                "capacity",
                map(vec![("gpu.example.com", map(vec![("memory", Variable::Quantity("80Gi".into()))]))]),
            ),
        ])
    }

    fn holds(source: &str) -> Result<bool, ExpressionError> {
        Expression::compile(source, &["device"])?.holds(&[("device", &device())])
    }

    #[test]
    fn selectors_of_devices_are_understood() {
        for source in [
            "device.driver == 'gpu.example.com'",
            "device.attributes['gpu.example.com'].productName.lowerAscii().matches('^a100$')",
            "device.attributes['gpu.example.com'].driverVersion.isGreaterThan(semver('1.9.0'))",
            "device.attributes['gpu.example.com'].driverVersion.compareTo(semver('1.10.2')) == 0",
            "device.attributes['gpu.example.com'].driverVersion.major() == 1",
            "device.capacity['gpu.example.com'].memory.compareTo(quantity('40Gi')) >= 0",
            "!('numa' in device.attributes['other.example.com'])",
            "!has(device.attributes['other.example.com'].numa)",
            "1 in device.attributes['gpu.example.com'].numa",
            "!device.attributes['gpu.example.com'].shared",
        ] {
            assert_eq!(holds(source), Ok(true), "{source}");
        }
        assert_eq!(holds("device.driver == 'other'"), Ok(false));
    }

    #[test]
    fn what_says_neither_yes_nor_no_says_why() {
        let said = |source: &str| holds(source).unwrap_err().to_string();
        assert_eq!(
            said("device.attributes['other.example.com'].numa == 1"),
            "cannot be evaluated: no such key: numa"
        );
        assert_eq!(said("device.driver"), "cannot be evaluated: result is of type string, not bool");
        assert_eq!(said("self.driver == 'x'"), "does not compile: undeclared reference to 'self'");
        assert!(said("device.driver ==").starts_with("does not compile: "), "{}", said("device.driver =="));
    }

    #[test]
    fn texts_of_an_expression_are_known() {
        let expression = Expression::compile("device.attributes['a.b'].c == 'd'", &["device"]).unwrap();
        assert_eq!(expression.texts(), ["a.b", "d"]);
    }
}
