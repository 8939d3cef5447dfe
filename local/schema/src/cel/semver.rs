//! Semantic versions (`1.2.3-beta`) in CEL.

use std::sync::Arc;

use cel::common::types::{BOOL_TYPE, DYN_TYPE, STRING_TYPE};
use cel::objects::Opaque;
use cel::{Env, ExecutionError, Value};

use super::functions::{failure, global, member, text};

/// A version; what is built of the same source is one, whatever the build is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version(semver::Version);

impl Opaque for Version {
    fn runtime_type_name(&self) -> &'static str {
        "kubernetes.Semver"
    }
}

impl Version {
    pub(super) fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp_precedence(&other.0)
    }
}

pub(super) fn register(env: &mut Env) {
    global!(env, "semver", [STRING_TYPE], version);
    global!(env, "isSemver", [STRING_TYPE], is_version);
    let added = [
        env.add_overload("semver", "kubernetes_semver_normal", vec![STRING_TYPE, BOOL_TYPE], |arguments| {
            super::functions::call(version, arguments)
        }),
        env.add_overload(
            "isSemver",
            "kubernetes_isSemver_normal",
            vec![STRING_TYPE, BOOL_TYPE],
            |arguments| super::functions::call(is_version, arguments),
        ),
    ];
    debug_assert!(added.iter().all(Result::is_ok), "{added:?}");
    member!(env, "major", DYN_TYPE, [], major);
    member!(env, "minor", DYN_TYPE, [], minor);
    member!(env, "patch", DYN_TYPE, [], patch);
}

/// A version as a value.
pub(super) fn read(text: &str) -> Option<Value> {
    let version = semver::Version::parse(text).ok()?;
    Some(Value::Opaque(Arc::new(Version(version))))
}

/// The text, made a whole version where the second argument says so: no `v` before it, no zeros at the front of a
/// number, and three numbers.
fn written(arguments: &[Value]) -> Result<String, ExecutionError> {
    let text = text(arguments, 0)?;
    if !matches!(arguments.get(1), Some(Value::Bool(true))) {
        return Ok(text.to_owned());
    }
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let trimmed = numbers.split('.').map(|number| match number.trim_start_matches('0') {
        "" if !number.is_empty() => "0",
        trimmed => trimmed,
    });
    let mut numbers: Vec<&str> = trimmed.collect();
    while numbers.len() < 3 {
        numbers.push("0");
    }
    Ok(format!("{}{rest}", numbers.join(".")))
}

fn version(arguments: &[Value]) -> Result<Value, ExecutionError> {
    let text = written(arguments)?;
    read(&text).ok_or_else(|| failure(format!("`{text}` is no semantic version such as 1.2.3")))
}

fn is_version(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(Value::Bool(read(&written(arguments)?).is_some()))
}

fn argument(arguments: &[Value]) -> Result<&semver::Version, ExecutionError> {
    match arguments.first() {
        Some(Value::Opaque(opaque)) => opaque.downcast_ref::<Version>().map(|version| &version.0),
        _ => None,
    }
    .ok_or_else(|| failure("no such overload"))
}

fn number(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn major(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(number(argument(arguments)?.major))
}

fn minor(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(number(argument(arguments)?.minor))
}

fn patch(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(number(argument(arguments)?.patch))
}
