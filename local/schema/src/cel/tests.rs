use serde_json::json;

use super::program::{Program, Verdict};
use super::*;
use crate::model::{SchemaRef, Type};
use crate::structural::{self, shared_tests};

fn holds(source: &str) -> bool {
    let program = Program::compile(source).unwrap_or_else(|problem| panic!("{source}: {problem}"));
    match program.check(&cel::Value::Null, None, false) {
        Verdict::Holds => true,
        Verdict::Fails => false,
        Verdict::NoOverload => panic!("{source}: no such overload"),
        Verdict::Error(problem) => panic!("{source}: {problem}"),
    }
}

#[test]
fn kubernetes_functions() {
    for source in [
        "[1, 2, 3].isSorted()",
        "![2, 1].isSorted()",
        "[1, 2, 3].sum() == 6",
        "[3, 1, 2].min() == 1 && [3, 1, 2].max() == 3",
        "['a', 'b', 'a'].indexOf('a') == 0 && ['a', 'b', 'a'].lastIndexOf('a') == 2 && [1].indexOf(9) == -1",
        "'abc 123'.find('[0-9]+') == '123' && '1 2'.findAll('[0-9]') == ['1', '2']",
        "'a,b'.split(',').join('-') == 'a-b' && 'ABC'.lowerAscii() == 'abc' && ' x '.trim() == 'x'",
        "'abc'.charAt(1) == 'b' && 'abcabc'.lastIndexOf('b') == 4 && 'abc'.substring(1) == 'bc'",
        "'aXb'.replace('X', '-') == 'a-b' && 'abc'.upperAscii() == 'ABC'",
        "isURL('https://example.com:80/x?y=1') && !isURL('../x')",
        "url('https://example.com:80/x?y=1').getHostname() == 'example.com'",
        "url('https://example.com:80/x?y=1').getPort() == '80'",
        "url('https://example.com:80/x?y=1').getQuery()['y'][0] == '1'",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && isQuantity('100m') && !isQuantity('x')",
        "quantity('50k').add(20).asInteger() == 50020 && quantity('1.5').isInteger() == false",
        "quantity('200M').compareTo(quantity('0.2G')) == 0 && quantity('-1').sign() == -1",
        "semver('1.10.0').isGreaterThan(semver('1.9.0')) && isSemver('1.2.3-beta') && !isSemver('1.2')",
        "semver('v01.2', true) == semver('1.2.0') && semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3",
        "isIP('::1') && ip('127.0.0.1').isLoopback() && ip('10.0.0.1').family() == 4",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')",
        "{'a': 1}.?b.orValue(2) == 2 && optional.none().hasValue() == false",
        "[1, 2].all(x, x > 0) && [1, 2].exists_one(x, x == 1) && [1, 2].map(x, x * 2) == [2, 4]",
    ] {
        assert!(holds(source), "{source}");
    }
}

fn schema(rules: Vec<Rule>) -> Schema {
    let mut schema = Schema::default();
    schema.constraints.rules = rules;
    schema
}

fn rule(source: &str) -> Rule {
    Rule { rule: source.to_owned(), ..Rule::default() }
}

fn errors(rule: Rule, value: serde_json::Value, old: Option<&serde_json::Value>) -> Vec<String> {
    let schema = schema(vec![rule]);
    let rules = Rules::compile(&schema, "schema").unwrap();
    rules.validate(&schema, &value, old).iter().map(ToString::to_string).collect()
}

#[test]
fn failures_are_named() {
    assert_eq!(
        errors(rule("self.x > 1"), json!({"x": 1}), None),
        ["<nil>: Invalid value: failed rule: self.x > 1"]
    );
    assert_eq!(
        errors(rule("self.y > 1"), json!({"x": 1}), None),
        ["<nil>: Invalid value: no such key: y evaluating rule: self.y > 1"]
    );
    let mut spoken = rule("self.x > 1");
    spoken.message_expression = Some("'x is ' + string(self.x)".to_owned());
    assert_eq!(errors(spoken, json!({"x": 1}), None), ["<nil>: Invalid value: x is 1"]);
}

#[test]
fn optional_old_self_runs_on_creation() {
    let mut source = rule("!oldSelf.hasValue() || oldSelf.value() == self");
    source.optional_old_self = true;
    assert!(errors(source.clone(), json!(1), None).is_empty());
    assert_eq!(errors(source, json!(2), Some(&json!(1))).len(), 1);
}

#[test]
fn expensive_rules_are_stopped() {
    let source = rule("self.all(a, self.all(b, self.all(c, a + b + c >= 0)))");
    let errors = errors(source, json!(vec![1; 2000]), None);
    assert!(errors[0].contains("actual cost limit exceeded"), "{errors:?}");
}

#[test]
fn times_and_durations() {
    for source in [
        "duration('1h30m') > duration('60m') && duration('1.5s') + duration('500ms') == duration('2s')",
        "timestamp('2026-11-20T23:00:00Z') + duration('2h') == timestamp('2026-11-21T01:00:00Z')",
        "timestamp('2026-11-21T00:00:00Z') - timestamp('2026-11-20T00:00:00Z') == duration('24h')",
        "timestamp('2026-11-20T23:00:00Z').getFullYear() == 2026 && duration('90m').getMinutes() == 90",
        "timestamp('2026-11-20T23:00:00Z').getHours('Europe/Berlin') == 0",
        "string(duration('90s')) == '90s'",
    ] {
        assert!(holds(source), "{source}");
    }
}

#[test]
fn texts_with_a_format_of_time_are_times() {
    let check = |format: &str, source: &str, value: &str| {
        let schema =
            Schema { kind: Type::String, format: Some(format.to_owned()), ..schema(vec![rule(source)]) };
        let rules = Rules::compile(&schema, "schema").unwrap();
        rules.validate(&schema, &json!(value), None).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for (format, source, value) in [
        ("duration", "self <= duration('1h') && self.getSeconds() == 3600", "60m"),
        ("duration", "self == duration('48h')", "2 days"),
        (
            "date-time",
            "self > timestamp('2026-11-20T00:00:00Z') && self.getHours() == 22",
            "2026-11-20T23:00:00.5+01:00",
        ),
        ("date", "self.getDate() == 20 && self == timestamp('2026-11-20T00:00:00Z')", "2026-11-20"),
        ("byte", "size(self) == 3", "YWJj"),
    ] {
        assert_eq!(check(format, source, value), Vec::<String>::new(), "{source}");
    }
    assert_eq!(check("duration", "self < duration('1h')", "2h").len(), 1);
}

/// A value that fits the schema: every property, or the required ones alone.
fn sample(schema: &Schema, all: bool) -> serde_json::Value {
    let below = |reference: &SchemaRef| sample(convert::inline(reference).unwrap(), all);
    if let Some(first) = schema.constraints.enumeration.first() {
        return first.clone();
    }
    match schema.kind {
        Type::Array => schema.items.iter().map(below).collect(),
        Type::Boolean => json!(true),
        Type::Integer | Type::Number => json!(1),
        Type::String | Type::Any => match schema.format.as_deref() {
            Some("date-time") => json!("2026-11-20T23:53:56Z"),
            Some("duration") => json!("1h"),
            _ => json!("1"),
        },
        Type::Object => {
            let named = schema.properties.iter().filter(|(name, _)| all || schema.required.contains(name));
            let mut fields: serde_json::Map<_, _> =
                named.map(|(name, reference)| (name.clone(), below(reference))).collect();
            if let Some(additional) = schema.additional.as_ref().filter(|_| all) {
                fields.insert("key".to_owned(), below(additional));
            }
            serde_json::Value::Object(fields)
        }
    }
}

fn evaluate_all(node: &Node, schema: &Schema, root: bool, evaluated: &mut usize) {
    for rule in &node.rules {
        let values = [true, false].map(|all| {
            let mut value = sample(schema, all);
            if root {
                value["metadata"] = json!({ "name": "a" });
            }
            convert::to_cel(schema, &value, root)
        });
        for (value, old, complete) in [(&values[0], &values[1], true), (&values[1], &values[0], false)] {
            match rule.program.check(value, Some(old), rule.source.optional_old_self) {
                Verdict::Holds | Verdict::Fails => *evaluated += 1,
                // A rule that forgets to ask whether an optional field is there fails without it, here as elsewhere.
                Verdict::Error(problem) if !complete && problem.starts_with("no such key") => {}
                Verdict::NoOverload => panic!("no such overload: {}", rule.source.rule),
                Verdict::Error(problem) => panic!("{problem}: {}", rule.source.rule),
            }
        }
    }
    for (name, below) in &node.properties {
        evaluate_all(below, convert::inline(&schema.properties[name]).unwrap(), false, evaluated);
    }
    for (below, reference) in [(&node.additional, &schema.additional), (&node.items, &schema.items)] {
        if let (Some(below), Some(reference)) = (below, reference) {
            evaluate_all(below, convert::inline(reference).unwrap(), false, evaluated);
        }
    }
}

/// Every rule of the definitions that the reference folder holds gives a verdict on values of its schema.
#[test]
fn rules_of_real_definitions_are_evaluated() {
    let Some(shared) = std::env::var_os("MUSTER_SHARED").map(std::path::PathBuf::from) else {
        eprintln!("skipped: MUSTER_SHARED is not set, so there are no definitions to read");
        return;
    };
    let mut evaluated = 0;
    for (_, mut definition) in shared_tests::definitions(shared.join("upstream/crds")) {
        structural::apply_definition_defaults(&mut definition);
        let resource = structural::CustomResource::parse(&definition).unwrap();
        for version in &resource.versions {
            let rules = Rules::compile(&version.schema, "schema").unwrap();
            evaluate_all(&rules.root, &version.schema, true, &mut evaluated);
        }
    }
    assert!(evaluated > 150, "only {evaluated} evaluations");
}
