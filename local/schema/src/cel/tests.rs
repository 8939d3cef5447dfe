use serde_json::json;

use super::program::{Program, Verdict};
use super::*;

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
