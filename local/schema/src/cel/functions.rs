//! The functions that Kubernetes adds to CEL.

use std::cmp::Ordering;
use std::sync::Arc;

use cel::common::types::{DYN_TYPE, LIST_TYPE, STRING_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{Env, ExecutionError, Value, extensions};
use regex::Regex;

use super::{network, quantity, semver};

/// Every function name a rule may call.
pub(super) const NAMES: &[&str] = &[
    // the language's own
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "bool",
    "bytes",
    "double",
    "int",
    "string",
    "uint",
    "dyn",
    "type",
    "max",
    "min",
    "all",
    "exists",
    "exists_one",
    "map",
    "filter",
    "has",
    // times
    "duration",
    "timestamp",
    "getFullYear",
    "getMonth",
    "getDayOfYear",
    "getDayOfMonth",
    "getDate",
    "getDayOfWeek",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
    // optional values
    "of",
    "none",
    "ofNonZeroValue",
    "hasValue",
    "value",
    "or",
    "orValue",
    "optMap",
    "optFlatMap",
    "optional.of",
    "optional.none",
    "optional.ofNonZeroValue",
    // texts
    "charAt",
    "indexOf",
    "lastIndexOf",
    "join",
    "lowerAscii",
    "upperAscii",
    "replace",
    "split",
    "substring",
    "trim",
    "format",
    "quote",
    "reverse",
    "find",
    "findAll",
    // lists
    "isSorted",
    "sum",
    "slice",
    "flatten",
    "distinct",
    "sort",
    // URLs, quantities, versions, addresses
    "url",
    "isURL",
    "getScheme",
    "getHost",
    "getHostname",
    "getPort",
    "getEscapedPath",
    "getQuery",
    "quantity",
    "isQuantity",
    "isInteger",
    "asInteger",
    "asApproximateFloat",
    "sign",
    "add",
    "sub",
    "isGreaterThan",
    "isLessThan",
    "compareTo",
    "semver",
    "isSemver",
    "major",
    "minor",
    "patch",
    "ip",
    "isIP",
    "cidr",
    "isCIDR",
    "family",
    "isLoopback",
    "isUnspecified",
    "containsIP",
    "containsCIDR",
    "prefixLength",
    "masked",
];

/// Calls `inner` with owned values.
pub(super) fn call<'b, 'v>(
    inner: fn(&[Value]) -> Result<Value, ExecutionError>,
    arguments: Vec<CowVal<'b, 'v>>,
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let arguments: Vec<Value> =
        arguments.iter().map(|argument| Value::try_from(argument.as_ref())).collect::<Result<_, _>>()?;
    let result: Box<dyn Val> = inner(&arguments)?.try_into()?;
    Ok(CowVal::Owned(result))
}

/// Adds overloads to an environment. Names are constants; one that clashes is left out and its test fails.
macro_rules! member {
    ($env:expr, $name:literal, $target:expr, [$($argument:expr),*], $inner:path) => {
        let arguments: Vec<cel::common::types::Type> = vec![$($argument),*];
        let id = format!("kubernetes_{}_{}_{}", $name, stringify!($target), arguments.len());
        let added = $env.add_member_overload($name, &id, $target, arguments, |arguments| {
            crate::cel::functions::call($inner, arguments)
        });
        debug_assert!(added.is_ok(), "{}: {added:?}", $name);
    };
}

macro_rules! global {
    ($env:expr, $name:literal, [$($argument:expr),*], $inner:path) => {
        let id = concat!("kubernetes_", $name);
        let added = $env.add_overload($name, id, vec![$($argument),*], |arguments| {
            crate::cel::functions::call($inner, arguments)
        });
        debug_assert!(added.is_ok(), "{}: {added:?}", $name);
    };
}

pub(super) use {global, member};

/// The environment all rules are compiled and run in.
pub(super) fn environment() -> Env {
    let mut env = Env::stdlib();
    let extended = env.add_extension(extensions::strings).and_then(|()| env.add_extension(extensions::lists));
    debug_assert!(extended.is_ok(), "{extended:?}");
    member!(env, "isSorted", LIST_TYPE, [], is_sorted);
    member!(env, "sum", LIST_TYPE, [], sum);
    member!(env, "min", LIST_TYPE, [], min);
    member!(env, "max", LIST_TYPE, [], max);
    member!(env, "indexOf", LIST_TYPE, [DYN_TYPE], index_of);
    member!(env, "lastIndexOf", LIST_TYPE, [DYN_TYPE], last_index_of);
    member!(env, "find", STRING_TYPE, [STRING_TYPE], find);
    member!(env, "findAll", STRING_TYPE, [STRING_TYPE], find_all);
    quantity::register(&mut env);
    semver::register(&mut env);
    network::register(&mut env);
    env
}

/// A failure of a function.
pub(super) fn failure(message: impl Into<String>) -> ExecutionError {
    ExecutionError::FunctionError { function: String::new(), message: message.into() }
}

/// The text an overload's signature guarantees.
pub(super) fn text(arguments: &[Value], position: usize) -> Result<&str, ExecutionError> {
    match arguments.get(position) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(failure("no such overload")),
    }
}

/// A text as a CEL value.
pub(super) fn string(text: impl Into<String>) -> Value {
    Value::String(Arc::new(text.into()))
}

fn items(arguments: &[Value]) -> Result<&[Value], ExecutionError> {
    match arguments.first() {
        Some(Value::List(items)) => Ok(items),
        _ => Err(failure("no such overload")),
    }
}

fn order(left: &Value, right: &Value) -> Result<Ordering, ExecutionError> {
    left.partial_cmp(right).ok_or_else(|| failure("no such overload"))
}

fn is_sorted(arguments: &[Value]) -> Result<Value, ExecutionError> {
    for pair in items(arguments)?.windows(2) {
        if order(&pair[0], &pair[1])? == Ordering::Greater {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn sum(arguments: &[Value]) -> Result<Value, ExecutionError> {
    let mut total = Value::Int(0);
    for item in items(arguments)? {
        total = match (&total, item) {
            (Value::Int(total), Value::Int(item)) => {
                Value::Int(total.checked_add(*item).ok_or_else(|| failure("integer overflow"))?)
            }
            (Value::Int(0), Value::UInt(_) | Value::Float(_)) => item.clone(),
            (Value::UInt(total), Value::UInt(item)) => {
                Value::UInt(total.checked_add(*item).ok_or_else(|| failure("integer overflow"))?)
            }
            (Value::Float(total), Value::Float(item)) => Value::Float(total + item),
            _ => return Err(failure("no such overload")),
        };
    }
    Ok(total)
}

fn extreme(arguments: &[Value], name: &str, wanted: Ordering) -> Result<Value, ExecutionError> {
    let mut items = items(arguments)?.iter();
    let mut best = items.next().ok_or_else(|| failure(format!("{name} called on empty list")))?;
    for item in items {
        if order(item, best)? == wanted {
            best = item;
        }
    }
    Ok(best.clone())
}

fn min(arguments: &[Value]) -> Result<Value, ExecutionError> {
    extreme(arguments, "min", Ordering::Less)
}

fn max(arguments: &[Value]) -> Result<Value, ExecutionError> {
    extreme(arguments, "max", Ordering::Greater)
}

fn position(found: Option<usize>) -> Value {
    Value::Int(found.and_then(|position| i64::try_from(position).ok()).unwrap_or(-1))
}

fn index_of(arguments: &[Value]) -> Result<Value, ExecutionError> {
    let wanted = arguments.get(1);
    Ok(position(items(arguments)?.iter().position(|item| Some(item) == wanted)))
}

fn last_index_of(arguments: &[Value]) -> Result<Value, ExecutionError> {
    let wanted = arguments.get(1);
    Ok(position(items(arguments)?.iter().rposition(|item| Some(item) == wanted)))
}

fn pattern(arguments: &[Value]) -> Result<Regex, ExecutionError> {
    Regex::new(text(arguments, 1)?).map_err(|error| failure(format!("illegal regex: {error}")))
}

fn find(arguments: &[Value]) -> Result<Value, ExecutionError> {
    let found = pattern(arguments)?.find(text(arguments, 0)?).map_or("", |found| found.as_str());
    Ok(string(found))
}

fn find_all(arguments: &[Value]) -> Result<Value, ExecutionError> {
    let found = pattern(arguments)?;
    let found = found.find_iter(text(arguments, 0)?).map(|found| string(found.as_str())).collect();
    Ok(Value::List(Arc::new(found)))
}
