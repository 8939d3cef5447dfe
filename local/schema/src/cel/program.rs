//! One compiled CEL expression over `self` and `oldSelf`.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::objects::OptionalValue;
use cel::{Context, Env, ExecutionError};
use serde_json::Value;

use super::functions;

/// The longest expression that is accepted, in bytes.
const MAX_SOURCE: usize = 64 * 1024;

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(functions::environment()));

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Program {
    compiled: cel::Program,
    uses_old_self: bool,
    nodes: u64,
    loops: u32,
}

/// What a rule says.
pub(super) enum Verdict {
    Holds,
    Fails,
    NoOverload,
    Error(String),
}

impl Program {
    /// Compiles `source`, which may use `self`, `oldSelf` and the functions Kubernetes offers.
    pub(super) fn compile(source: &str) -> Result<Self, String> {
        Self::compile_over(source, &["self", "oldSelf"])
    }

    /// Compiles `source`, which may use these variables and the functions Kubernetes offers.
    pub(super) fn compile_over(source: &str, variables: &[&str]) -> Result<Self, String> {
        if source.len() > MAX_SOURCE {
            return Err(format!("expression is longer than {MAX_SOURCE} bytes"));
        }
        let compiled = ENVIRONMENT.compile(source).map_err(|error| error.to_string())?;
        let mut survey = Survey { variables, ..Survey::default() };
        survey.visit(compiled.expression(), 0);
        if let Some(name) = survey.undeclared {
            return Err(format!("undeclared reference to '{name}'"));
        }
        let Survey { uses_old_self, nodes, loops, .. } = survey;
        Ok(Self { compiled, uses_old_self, nodes, loops })
    }

    /// The texts that are written in it.
    pub(super) fn texts(&self) -> Vec<String> {
        let mut survey = Survey::default();
        survey.visit(self.compiled.expression(), 0);
        survey.texts.into_iter().map(str::to_owned).collect()
    }

    /// Evaluates it over variables, and says what it is not `true` or `false` for.
    pub(super) fn holds(&self, variables: Vec<(&str, cel::Value)>) -> Result<bool, String> {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        for (name, value) in variables {
            context.add_variable_from_value(name, value);
        }
        match self.compiled.execute(&context) {
            Ok(cel::Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("result is of type {}, not bool", other.type_of())),
            Err(error) => Err(describe(&error)),
        }
    }

    /// Whether this is a transition rule.
    pub(super) fn uses_old_self(&self) -> bool {
        self.uses_old_self
    }

    /// An upper estimate of the steps it takes to evaluate this for `value`.
    pub(super) fn steps(&self, value: &Value) -> u64 {
        if self.loops == 0 {
            self.nodes
        } else {
            self.nodes.saturating_mul(longest(value).max(1).saturating_pow(self.loops))
        }
    }

    /// Evaluates a rule.
    pub(super) fn check(&self, value: &cel::Value, old: Option<&cel::Value>, optional_old: bool) -> Verdict {
        match self.run(value, old, optional_old) {
            Ok(cel::Value::Bool(true)) => Verdict::Holds,
            Ok(cel::Value::Bool(false)) => Verdict::Fails,
            Ok(other) => Verdict::Error(format!("result is of type {}, not bool", other.type_of())),
            Err(ExecutionError::NoSuchOverload(_)) => Verdict::NoOverload,
            Err(error) => Verdict::Error(describe(&error)),
        }
    }

    /// Evaluates a message expression.
    pub(super) fn text(
        &self,
        value: &cel::Value,
        old: Option<&cel::Value>,
        optional_old: bool,
    ) -> Result<String, String> {
        match self.run(value, old, optional_old) {
            Ok(cel::Value::String(text)) => Ok(text.to_string()),
            Ok(other) => Err(format!("result is of type {}, not string", other.type_of())),
            Err(error) => Err(describe(&error)),
        }
    }

    fn run(
        &self,
        value: &cel::Value,
        old: Option<&cel::Value>,
        optional_old: bool,
    ) -> Result<cel::Value, ExecutionError> {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.add_variable_from_value("self", value.clone());
        if optional_old {
            let old = old.map_or_else(OptionalValue::none, |old| OptionalValue::of(old.clone()));
            context.add_variable_from_value("oldSelf", cel::Value::Opaque(Arc::new(old)));
        } else if let Some(old) = old {
            context.add_variable_from_value("oldSelf", old.clone());
        }
        self.compiled.execute(&context)
    }
}

/// An evaluation error in the words of Kubernetes' evaluator.
fn describe(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(name) => format!("no such key: {name}"),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::IndexOutOfBounds(cel::Value::Int(position)) => {
            format!("index out of bounds: {position}")
        }
        ExecutionError::FunctionError { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// The number of entries of the longest list, map or text in `value`.
fn longest(value: &Value) -> u64 {
    match value {
        Value::Array(items) => items.iter().map(longest).max().unwrap_or(0).max(items.len() as u64),
        Value::Object(fields) => fields.values().map(longest).max().unwrap_or(0).max(fields.len() as u64),
        Value::String(text) => (text.len() / 8) as u64,
        _ => 1,
    }
}

/// What an expression uses, and how deeply it loops.
#[derive(Default)]
struct Survey<'a> {
    variables: &'a [&'a str],
    scope: Vec<&'a str>,
    texts: Vec<&'a str>,
    undeclared: Option<String>,
    uses_old_self: bool,
    nodes: u64,
    loops: u32,
}

/// Type names that are values in CEL.
const TYPES: [&str; 14] = [
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
    "optional_type",
    "optional",
    "cel",
    "math",
];

static FUNCTIONS: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| functions::NAMES.iter().copied().collect());

impl<'a> Survey<'a> {
    fn visit(&mut self, node: &'a IdedExpr, loops: u32) {
        self.nodes += 1;
        self.loops = self.loops.max(loops);
        match &node.expr {
            Expr::Ident(name) => self.name(name),
            Expr::Call(call) => {
                if is_word(&call.func_name) && !FUNCTIONS.contains(call.func_name.as_str()) {
                    self.undeclared.get_or_insert_with(|| call.func_name.clone());
                }
                for part in call.target.iter().map(AsRef::as_ref).chain(&call.args) {
                    self.visit(part, loops);
                }
            }
            Expr::Comprehension(comprehension) => {
                self.visit(&comprehension.iter_range, loops);
                self.visit(&comprehension.accu_init, loops);
                let outer = self.scope.len();
                self.scope.push(&comprehension.iter_var);
                self.scope.extend(comprehension.iter_var2.as_deref());
                self.scope.push(&comprehension.accu_var);
                self.visit(&comprehension.loop_cond, loops + 1);
                self.visit(&comprehension.loop_step, loops + 1);
                self.visit(&comprehension.result, loops);
                self.scope.truncate(outer);
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.visit(element, loops)),
            Expr::Map(map) => {
                for entry in &map.entries {
                    match &entry.expr {
                        EntryExpr::MapEntry(entry) => {
                            self.visit(&entry.key, loops);
                            self.visit(&entry.value, loops);
                        }
                        EntryExpr::StructField(field) => self.visit(&field.value, loops),
                    }
                }
            }
            Expr::Select(select) => self.visit(&select.operand, loops),
            Expr::Struct(_) => {
                self.undeclared.get_or_insert_with(|| "message literals".to_owned());
            }
            Expr::Literal(LiteralValue::String(text)) => self.texts.push(text),
            Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn name(&mut self, name: &'a str) {
        if name == "oldSelf" && self.variables.contains(&name) && !self.scope.contains(&name) {
            self.uses_old_self = true;
        } else if !self.variables.contains(&name)
            && !name.starts_with('@')
            && !self.scope.contains(&name)
            && !TYPES.contains(&name)
        {
            self.undeclared.get_or_insert_with(|| name.to_owned());
        }
    }
}

fn is_word(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
}
