//! Kubernetes quantities (`100m`, `1.5Gi`) in CEL.

use std::cmp::Ordering;
use std::sync::Arc;

use cel::common::types::{DYN_TYPE, STRING_TYPE};
use cel::objects::Opaque;
use cel::{Env, ExecutionError, Value};

use super::functions::{failure, global, member, text};
use super::semver::Version;

/// A quantity in billionths, which is Kubernetes' own precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Quantity(i128);

const UNIT: i128 = 1_000_000_000;

impl Opaque for Quantity {
    fn runtime_type_name(&self) -> &'static str {
        "kubernetes.Quantity"
    }
}

impl Quantity {
    fn parse(text: &str) -> Option<Self> {
        let end = text
            .find(|character: char| !matches!(character, '0'..='9' | '.' | '+' | '-'))
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let negative = number.starts_with('-');
        let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let numeric = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if digits.is_empty() || digits == "." || !numeric(whole) || !numeric(fraction) {
            return None;
        }
        let (factor, divisor) = scale(suffix)?;
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        let places = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let scaled = mantissa.checked_mul(UNIT)?.checked_mul(factor)?;
        let divisor = places.checked_mul(divisor)?;
        let value = scaled.checked_add(divisor - 1)? / divisor;
        Some(Self(if negative { -value } else { value }))
    }

    fn value(self) -> Value {
        Value::Opaque(Arc::new(self))
    }
}

/// The factor and divisor of a suffix.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| 1024_i128.checked_pow(power).map(|factor| (factor, 1));
    let decimal = |power: u32| 10_i128.checked_pow(power).map(|factor| (factor, 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let factor = 10_i128.checked_pow(power.unsigned_abs())?;
            Some(if power < 0 { (1, factor) } else { (factor, 1) })
        }
    }
}

pub(super) fn register(env: &mut Env) {
    global!(env, "quantity", [STRING_TYPE], quantity);
    global!(env, "isQuantity", [STRING_TYPE], is_quantity);
    member!(env, "isInteger", DYN_TYPE, [], is_integer);
    member!(env, "asInteger", DYN_TYPE, [], as_integer);
    member!(env, "asApproximateFloat", DYN_TYPE, [], as_approximate_float);
    member!(env, "sign", DYN_TYPE, [], sign);
    member!(env, "add", DYN_TYPE, [DYN_TYPE], add);
    member!(env, "sub", DYN_TYPE, [DYN_TYPE], sub);
    member!(env, "isGreaterThan", DYN_TYPE, [DYN_TYPE], is_greater);
    member!(env, "isLessThan", DYN_TYPE, [DYN_TYPE], is_less);
    member!(env, "compareTo", DYN_TYPE, [DYN_TYPE], compare);
}

fn argument(arguments: &[Value], position: usize) -> Result<Quantity, ExecutionError> {
    match arguments.get(position) {
        Some(Value::Opaque(opaque)) => opaque.downcast_ref().copied(),
        Some(Value::Int(whole)) => Some(Quantity(i128::from(*whole) * UNIT)),
        _ => None,
    }
    .ok_or_else(|| failure("no such overload"))
}

fn quantity(arguments: &[Value]) -> Result<Value, ExecutionError> {
    let parsed = Quantity::parse(text(arguments, 0)?);
    let problem = "quantities must match the regular expression \
                   '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    parsed.map(Quantity::value).ok_or_else(|| failure(problem))
}

fn is_quantity(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(Value::Bool(Quantity::parse(text(arguments, 0)?).is_some()))
}

fn is_integer(arguments: &[Value]) -> Result<Value, ExecutionError> {
    let value = argument(arguments, 0)?.0;
    Ok(Value::Bool(value % UNIT == 0 && i64::try_from(value / UNIT).is_ok()))
}

fn as_integer(arguments: &[Value]) -> Result<Value, ExecutionError> {
    let value = argument(arguments, 0)?.0;
    let whole = i64::try_from(value / UNIT).ok().filter(|_| value % UNIT == 0);
    whole.map(Value::Int).ok_or_else(|| failure("cannot convert value to integer"))
}

fn as_approximate_float(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(Value::Float(argument(arguments, 0)?.0 as f64 / UNIT as f64))
}

fn sign(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(Value::Int(argument(arguments, 0)?.0.signum() as i64))
}

fn combine(arguments: &[Value], operation: fn(i128, i128) -> Option<i128>) -> Result<Value, ExecutionError> {
    let (left, right) = (argument(arguments, 0)?, argument(arguments, 1)?);
    let result = operation(left.0, right.0).ok_or_else(|| failure("quantity overflow"))?;
    Ok(Quantity(result).value())
}

fn add(arguments: &[Value]) -> Result<Value, ExecutionError> {
    combine(arguments, i128::checked_add)
}

fn sub(arguments: &[Value]) -> Result<Value, ExecutionError> {
    combine(arguments, i128::checked_sub)
}

/// A quantity as a value.
pub(super) fn read(text: &str) -> Option<Value> {
    Quantity::parse(text).map(Quantity::value)
}

/// The order of two quantities, or of two versions, which have functions of the same names.
fn order(arguments: &[Value]) -> Result<Ordering, ExecutionError> {
    if let [Value::Opaque(left), Value::Opaque(right)] = arguments
        && let (Some(left), Some(right)) = (left.downcast_ref::<Version>(), right.downcast_ref::<Version>())
    {
        return Ok(left.order(right));
    }
    Ok(argument(arguments, 0)?.cmp(&argument(arguments, 1)?))
}

fn is_greater(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(Value::Bool(order(arguments)?.is_gt()))
}

fn is_less(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(Value::Bool(order(arguments)?.is_lt()))
}

fn compare(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(Value::Int(order(arguments)? as i64))
}
