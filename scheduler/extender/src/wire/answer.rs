//! What is answered, byte for byte in the form that Go writes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use super::request::Offered;

/// Which of the offered nodes remain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passed<'a> {
    /// All of them.
    All,
    /// One of them, or none when it is not among them.
    Only(&'a str),
    /// None.
    Nothing,
}

/// Why nodes are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused<'a> {
    /// Not at all, or nobody needs to be told.
    Silent,
    /// Evicting others may help.
    ForNow(&'a str),
    /// Evicting others cannot help.
    Unresolvable(&'a str),
}

/// The answer to a filter call.
#[derive(Debug, Clone)]
pub struct FilterAnswer<'a> {
    /// What was offered.
    pub offered: &'a Offered<'a>,
    /// What remains.
    pub passed: Passed<'a>,
    /// Why the others do not.
    pub refused: Refused<'a>,
    /// Offered nodes that are not known, with the reason to give for them.
    pub unknown: Vec<&'a str>,
}

const UNKNOWN: &str = "not a node that Muster knows of (yet)";

impl FilterAnswer<'_> {
    /// The body.
    pub fn body(&self) -> Vec<u8> {
        let passes = |name: &str| match self.passed {
            Passed::All => !self.unknown.contains(&name),
            Passed::Only(node) => node == name,
            Passed::Nothing => false,
        };
        let mut body = Vec::with_capacity(256);
        match self.offered {
            Offered::Names(names) => {
                body.extend_from_slice(br#"{"Nodes":null,"NodeNames":"#);
                write(&mut body, &Sequence(|| names.iter().filter(|name| passes(name))));
            }
            Offered::Nodes(nodes) => {
                body.extend_from_slice(br#"{"Nodes":{"metadata":{},"items":["#);
                let mut separator = "";
                for (_, node) in nodes.iter().filter(|(name, _)| passes(name)) {
                    body.extend_from_slice(separator.as_bytes());
                    body.extend_from_slice(node.as_bytes());
                    separator = ",";
                }
                body.extend_from_slice(br#"]},"NodeNames":null"#);
            }
        }
        let refused = || self.offered.names().filter(|name| !passes(name) && !self.unknown.contains(name));
        let unknown = || self.unknown.iter().map(|name| (*name, UNKNOWN));
        body.extend_from_slice(br#","FailedNodes":"#);
        match self.refused {
            Refused::ForNow(reason) => write(&mut body, &Members(|| refused().map(|name| (name, reason)))),
            Refused::Silent | Refused::Unresolvable(_) => body.extend_from_slice(b"{}"),
        }
        body.extend_from_slice(br#","FailedAndUnresolvableNodes":"#);
        match self.refused {
            Refused::Unresolvable(reason) => {
                write(&mut body, &Members(|| refused().map(|name| (name, reason)).chain(unknown())));
            }
            Refused::Silent | Refused::ForNow(_) => write(&mut body, &Members(unknown)),
        }
        body.extend_from_slice(br#","Error":""}"#);
        body
    }
}

/// Serialises an iterator as an array.
struct Sequence<F>(F);

impl<F: Fn() -> I, I: Iterator<Item: Serialize>> Serialize for Sequence<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// Serialises an iterator of pairs as an object.
struct Members<F>(F);

impl<F: Fn() -> I, I: Iterator<Item = (K, V)>, K: Serialize, V: Serialize> Serialize for Members<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map((self.0)())
    }
}

fn write(body: &mut Vec<u8>, value: &impl Serialize) {
    // Writing strings and maps of strings into memory cannot fail.
    let _ = serde_json::to_writer(body, value);
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    let mut body = Vec::new();
    write(&mut body, value);
    body
}

/// The answer to a filter call that failed as a whole: kube-scheduler tries the pod again after a while.
pub fn filter_error(message: &str) -> Vec<u8> {
    let mut body =
        br#"{"Nodes":null,"NodeNames":null,"FailedNodes":{},"FailedAndUnresolvableNodes":{},"Error":"#
            .to_vec();
    write(&mut body, &message);
    body.push(b'}');
    body
}

/// The best score that an extender may give.
pub const MAX_SCORE: i64 = 10;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct HostPriority<'a> {
    host: &'a str,
    score: i64,
}

/// The answer to a prioritize call: the best score for `preferred`, nothing for the others.
pub fn priorities(offered: &Offered<'_>, preferred: Option<&str>) -> Vec<u8> {
    let score = |host| if Some(host) == preferred { MAX_SCORE } else { 0 };
    bytes(&Sequence(|| offered.names().map(|host| HostPriority { host, score: score(host) })))
}

/// The answer to a bind call; an empty error is success.
pub fn bound(error: &str) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer<'a> {
        error: &'a str,
    }
    bytes(&Answer { error })
}

/// Pods that would go from one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Victims {
    /// The pods.
    pub pods: Vec<Victim>,
    /// How many disruption budgets that breaks.
    #[serde(rename = "NumPDBViolations")]
    pub budget_violations: i64,
}

/// A pod that would go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Victim {
    /// Its uid.
    #[serde(rename = "UID")]
    pub uid: String,
}

/// The answer to a preempt call: which candidates remain, with their victims; always by uid.
pub fn victims(by_node: &BTreeMap<String, Victims>) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer<'a> {
        node_name_to_meta_victims: &'a BTreeMap<String, Victims>,
    }
    bytes(&Answer { node_name_to_meta_victims: by_node })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: Vec<u8>) -> String {
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn filter_answers_come_in_the_form_of_the_question() {
        let names = Offered::Names(vec!["a".into(), "b".into(), "c".into()]);
        let mut answer = FilterAnswer {
            offered: &names,
            passed: Passed::Only("b"),
            refused: Refused::Silent,
            unknown: vec!["c"],
        };
        assert_eq!(
            text(answer.body()),
            r#"{"Nodes":null,"NodeNames":["b"],"FailedNodes":{},"FailedAndUnresolvableNodes":{"c":"not a node that Muster knows of (yet)"},"Error":""}"#
        );
        answer.passed = Passed::Nothing;
        answer.refused = Refused::ForNow("no \"room\"");
        answer.unknown.clear();
        assert_eq!(
            text(answer.body()),
            r#"{"Nodes":null,"NodeNames":[],"FailedNodes":{"a":"no \"room\"","b":"no \"room\"","c":"no \"room\""},"FailedAndUnresolvableNodes":{},"Error":""}"#
        );
        let nodes = Offered::Nodes(vec![("a".into(), r#"{"x":1}"#), ("b".into(), r#"{"x":2}"#)]);
        let answer = FilterAnswer {
            offered: &nodes,
            passed: Passed::All,
            refused: Refused::Silent,
            unknown: Vec::new(),
        };
        assert_eq!(
            text(answer.body()),
            r#"{"Nodes":{"metadata":{},"items":[{"x":1},{"x":2}]},"NodeNames":null,"FailedNodes":{},"FailedAndUnresolvableNodes":{},"Error":""}"#
        );
    }

    #[test]
    fn the_other_answers_use_gos_names() {
        let names = Offered::Names(vec!["a".into(), "b".into()]);
        assert_eq!(
            text(priorities(&names, Some("b"))),
            r#"[{"Host":"a","Score":0},{"Host":"b","Score":10}]"#
        );
        assert_eq!(text(bound("")), r#"{"Error":""}"#);
        let victims_of_a = Victims { pods: vec![Victim { uid: "u".into() }], budget_violations: 0 };
        assert_eq!(
            text(victims(&BTreeMap::from([("a".to_owned(), victims_of_a)]))),
            r#"{"NodeNameToMetaVictims":{"a":{"Pods":[{"UID":"u"}],"NumPDBViolations":0}}}"#
        );
        assert!(text(filter_error("x \"y\"")).ends_with(r#""Error":"x \"y\""}"#));
    }
}
