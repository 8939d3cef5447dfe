//! Volcano's `HyperNode`: a tree written as members, by exact name, pattern or labels.

use std::collections::{BTreeMap, BTreeSet};

use regex::{Regex, RegexBuilder};
use serde_json::Value;
use thiserror::Error;

use super::field::{Field, FieldError};
use super::labels::Labels;
use crate::tree::{BuildError, Level, NodeEntry, SharedNames, Topology};

/// Levels between root and host that a tree has room for.
const MAX_TIERS: usize = 14;

/// Memory that a compiled pattern may take.
const PATTERN_BYTES: usize = 1 << 20;

/// Why hyper nodes make no tree.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum HyperNodeError {
    /// A field of an object is not what it should be.
    #[error("HyperNode {name:?}: {fault}")]
    Field {
        /// The object's name, or its number in the list while the name is unknown.
        name: String,
        /// The fault.
        fault: FieldError,
    },
    /// Two objects with one name.
    #[error("two HyperNodes are called {name:?}")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A member is a HyperNode that does not exist.
    #[error("HyperNode {name:?} has a member HyperNode {member:?} that does not exist")]
    UnknownMember {
        /// The object.
        name: String,
        /// The member.
        member: String,
    },
    /// A member's tier is not below its parent's, as it is in every cycle.
    #[error(
        "HyperNode {name:?} of tier {tier} has the member {member:?} of tier {member_tier}: members must be of a \
         lower tier, and none can contain itself"
    )]
    Tier {
        /// The parent.
        name: String,
        /// Its tier.
        tier: u64,
        /// The member.
        member: String,
        /// The member's tier.
        member_tier: u64,
    },
    /// A HyperNode or node belongs to two of the same tier, or its parents contradict each other.
    #[error("{member:?} is in the HyperNodes {first:?} and {second:?}, of which neither contains the other")]
    TwoParents {
        /// The member.
        member: String,
        /// One parent.
        first: String,
        /// The other.
        second: String,
    },
    /// More tiers than a tree has levels.
    #[error("{found} tiers are more than the {MAX_TIERS} that a topology holds")]
    TooManyTiers {
        /// How many.
        found: usize,
    },
    /// The tree over the nodes cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// Which members a selector takes.
#[derive(Debug)]
enum Selector {
    Exact(String),
    Pattern(Regex),
    Labels(Vec<Requirement>),
}

/// One condition on labels.
#[derive(Debug)]
struct Requirement {
    key: String,
    /// None where only the label's existence counts.
    values: Option<Vec<String>>,
    /// Whether the condition is the opposite.
    not: bool,
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        let found = labels
            .get(&self.key)
            .is_some_and(|value| self.values.as_ref().is_none_or(|values| values.contains(value)));
        found != self.not
    }
}

#[derive(Debug)]
struct HyperNode {
    name: String,
    tier: u64,
    tier_name: Option<String>,
    nodes: Vec<Selector>,
    hyper_nodes: Vec<Selector>,
}

/// The tree that `HyperNode` objects describe over nodes (names and labels). Nodes in no HyperNode stand alone.
///
/// Every tier is a level; tiers may be left out on the way down. Patterns match anywhere in a name, as Volcano's do.
pub fn topology(objects: &[Value], nodes: &[(&str, &Labels)]) -> Result<Topology, HyperNodeError> {
    let hyper_nodes = read(objects)?;
    let tiers: Vec<u64> =
        hyper_nodes.iter().map(|node| node.tier).collect::<BTreeSet<_>>().into_iter().rev().collect();
    if tiers.len() > MAX_TIERS {
        return Err(HyperNodeError::TooManyTiers { found: tiers.len() });
    }
    let parents = parents(&hyper_nodes)?;
    let none = Labels::new();
    let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, hyper_node) in hyper_nodes.iter().enumerate() {
        for selector in &hyper_node.nodes {
            if let Selector::Exact(name) = selector {
                members.entry(name).or_default().push(index);
                continue;
            }
            for (name, _) in nodes.iter().filter(|(name, labels)| selector.takes(name, labels)) {
                members.entry(name).or_default().push(index);
            }
        }
    }
    let mut paths = Vec::with_capacity(nodes.len());
    for (name, _) in nodes {
        let direct = members.get(name).map_or(&[][..], Vec::as_slice);
        paths.push(path(name, direct, &hyper_nodes, &parents, &tiers)?);
    }
    let entries: Vec<NodeEntry<'_>> = nodes
        .iter()
        .zip(&paths)
        .map(|((name, labels), path)| {
            let base =
                super::labels::entries(&[], &[(*name, if labels.is_empty() { &none } else { *labels })]);
            let gpus = base.first().map_or(0, |entry| entry.gpus);
            NodeEntry { gpus, ..NodeEntry::new(name, path) }
        })
        .collect();
    let levels = Level::between_cluster_and_host(tiers.iter().map(|tier| {
        let named =
            hyper_nodes.iter().find(|node| node.tier == *tier).and_then(|node| node.tier_name.clone());
        // Volcano's jobs name tiers by their numbers, whatever else they are called.
        let number = format!("tier-{tier}");
        let name = named.filter(|name| free_name(name, &hyper_nodes, *tier));
        Level::new(name.unwrap_or_else(|| number.clone()), &[&number])
    }));
    Ok(Topology::build(levels, &entries, SharedNames::Refused)?)
}

/// Whether a tier's name is not also that of another level.
fn free_name(name: &str, hyper_nodes: &[HyperNode], tier: u64) -> bool {
    let taken = hyper_nodes.iter().any(|node| node.tier != tier && node.tier_name.as_deref() == Some(name));
    !taken && !["cluster", "host"].contains(&name) && !name.starts_with("tier-")
}

impl Selector {
    fn takes(&self, name: &str, labels: &Labels) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Pattern(pattern) => pattern.is_match(name),
            Self::Labels(requirements) => requirements.iter().all(|requirement| requirement.holds(labels)),
        }
    }
}

/// The parent of each HyperNode.
fn parents(hyper_nodes: &[HyperNode]) -> Result<Vec<Option<usize>>, HyperNodeError> {
    let none = Labels::new();
    let mut parents: Vec<Option<usize>> = vec![None; hyper_nodes.len()];
    for (index, parent) in hyper_nodes.iter().enumerate() {
        for selector in &parent.hyper_nodes {
            let mut found = false;
            for (member, other) in hyper_nodes.iter().enumerate() {
                let exact = matches!(selector, Selector::Exact(_));
                if !selector.takes(&other.name, &none) || (!exact && other.tier >= parent.tier) {
                    continue;
                }
                found = true;
                if other.tier >= parent.tier {
                    return Err(HyperNodeError::Tier {
                        name: parent.name.clone(),
                        tier: parent.tier,
                        member: other.name.clone(),
                        member_tier: other.tier,
                    });
                }
                if let Some(first) = parents[member].filter(|first| *first != index) {
                    return Err(HyperNodeError::TwoParents {
                        member: other.name.clone(),
                        first: hyper_nodes[first].name.clone(),
                        second: parent.name.clone(),
                    });
                }
                parents[member] = Some(index);
            }
            if let Selector::Exact(member) = selector
                && !found
            {
                return Err(HyperNodeError::UnknownMember {
                    name: parent.name.clone(),
                    member: member.clone(),
                });
            }
        }
    }
    Ok(parents)
}

/// The HyperNodes of a node, one per tier from the highest down.
fn path<'a>(
    node: &str,
    direct: &[usize],
    hyper_nodes: &'a [HyperNode],
    parents: &[Option<usize>],
    tiers: &[u64],
) -> Result<Vec<Option<&'a str>>, HyperNodeError> {
    let mut path: Vec<Option<&str>> = vec![None; tiers.len()];
    for start in direct {
        let mut at = Some(*start);
        while let Some(index) = at {
            let hyper_node = &hyper_nodes[index];
            // Tiers fall, so their places are found by the reversed comparison.
            if let Ok(place) = tiers.binary_search_by(|tier| hyper_node.tier.cmp(tier)) {
                if let Some(first) = path[place].filter(|first| *first != hyper_node.name) {
                    return Err(HyperNodeError::TwoParents {
                        member: node.to_owned(),
                        first: first.to_owned(),
                        second: hyper_node.name.clone(),
                    });
                }
                path[place] = Some(&hyper_node.name);
            }
            at = parents[index];
        }
    }
    Ok(path)
}

fn read(objects: &[Value]) -> Result<Vec<HyperNode>, HyperNodeError> {
    let mut hyper_nodes = Vec::with_capacity(objects.len());
    let mut names = BTreeSet::new();
    for (index, object) in objects.iter().enumerate() {
        let root = Field::root(object);
        let name = root.get("metadata").get("name");
        let name = name.text().map_err(|fault| HyperNodeError::Field { name: format!("#{index}"), fault })?;
        if !names.insert(name) {
            return Err(HyperNodeError::Duplicate { name: name.to_owned() });
        }
        let fault = |fault| HyperNodeError::Field { name: name.to_owned(), fault };
        hyper_nodes.push(read_one(name, &root.get("spec")).map_err(fault)?);
    }
    Ok(hyper_nodes)
}

fn read_one(name: &str, spec: &Field<'_>) -> Result<HyperNode, FieldError> {
    let tier_name = spec.get("tierName");
    let tier_name = if tier_name.exists() { Some(tier_name.text()?.to_owned()) } else { None };
    let tier = spec.get("tier").number()?;
    let mut read =
        HyperNode { name: name.to_owned(), tier, tier_name, nodes: Vec::new(), hyper_nodes: Vec::new() };
    for member in spec.get("members").list()? {
        let kind = member.get("type");
        let selector = selector(&member.get("selector"))?;
        match kind.text()? {
            "Node" => read.nodes.push(selector),
            "HyperNode" if matches!(selector, Selector::Labels(_)) => {
                return Err(member.error("only nodes can be selected by labels"));
            }
            "HyperNode" => read.hyper_nodes.push(selector),
            _ => return Err(kind.error("must be Node or HyperNode")),
        }
    }
    Ok(read)
}

fn selector(field: &Field<'_>) -> Result<Selector, FieldError> {
    let (exact, pattern, labels) =
        (field.get("exactMatch"), field.get("regexMatch"), field.get("labelMatch"));
    match (exact.exists(), pattern.exists(), labels.exists()) {
        (true, false, false) => Ok(Selector::Exact(exact.get("name").text()?.to_owned())),
        (false, true, false) => {
            let pattern = pattern.get("pattern");
            let compiled = RegexBuilder::new(pattern.text()?).size_limit(PATTERN_BYTES).build();
            compiled
                .map(Selector::Pattern)
                .map_err(|_| pattern.error("is no regular expression, or too large"))
        }
        (false, false, true) => Ok(Selector::Labels(requirements(&labels)?)),
        _ => Err(field.error("must have exactly one of exactMatch, regexMatch and labelMatch")),
    }
}

fn requirements(labels: &Field<'_>) -> Result<Vec<Requirement>, FieldError> {
    let mut requirements = Vec::new();
    for (key, value) in labels.get("matchLabels").entries()? {
        let values = Some(vec![value.text()?.to_owned()]);
        requirements.push(Requirement { key: key.to_owned(), values, not: false });
    }
    for expression in labels.get("matchExpressions").list()? {
        let (operator, key) = (expression.get("operator"), expression.get("key").text()?.to_owned());
        let listed = || -> Result<_, FieldError> {
            let values = expression.get("values").list()?;
            values
                .iter()
                .map(|value| value.text().map(str::to_owned))
                .collect::<Result<Vec<_>, _>>()
                .map(Some)
        };
        let (values, not) = match operator.text()? {
            "In" => (listed()?, false),
            "NotIn" => (listed()?, true),
            "Exists" => (None, false),
            "DoesNotExist" => (None, true),
            _ => return Err(operator.error("must be In, NotIn, Exists or DoesNotExist")),
        };
        requirements.push(Requirement { key, values, not });
    }
    Ok(requirements)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::field::arbitrary;
    use super::*;
    use crate::tree::LevelIndex;

    fn hyper_node(name: &str, tier: u64, members: &[Value]) -> Value {
        json!({"kind": "HyperNode", "metadata": {"name": name}, "spec": {"tier": tier, "members": members}})
    }

    fn exact(kind: &str, name: &str) -> Value {
        json!({"type": kind, "selector": {"exactMatch": {"name": name}}})
    }

    fn pattern(kind: &str, pattern: &str) -> Value {
        json!({"type": kind, "selector": {"regexMatch": {"pattern": pattern}}})
    }

    fn example() -> Vec<Value> {
        let label = json!({"type": "Node", "selector": {"labelMatch": {
            "matchLabels": {"rack": "2"},
            "matchExpressions": [{"key": "broken", "operator": "DoesNotExist"}],
        }}});
        vec![
            hyper_node("s0", 1, &[pattern("Node", "^node-[0-1]$")]),
            hyper_node("s1", 1, &[exact("Node", "node-2")]),
            hyper_node("s2", 1, &[label]),
            hyper_node("s10", 3, &[exact("HyperNode", "s0"), pattern("HyperNode", "s[12]$")]),
            hyper_node("s11", 3, &[exact("Node", "node-5")]),
        ]
    }

    fn build(objects: &[Value]) -> Result<Topology, HyperNodeError> {
        let rack: Labels = [("rack".to_owned(), "2".to_owned())].into();
        let broken: Labels =
            [("rack".to_owned(), "2".to_owned()), ("broken".to_owned(), String::new())].into();
        let none = Labels::new();
        let labels = [&none, &none, &none, &rack, &broken, &none];
        let names: Vec<String> = (0..6).map(|node| format!("node-{node}")).collect();
        let nodes: Vec<(&str, &Labels)> = names.iter().map(String::as_str).zip(labels).collect();
        topology(objects, &nodes)
    }

    #[test]
    fn members_of_all_kinds_make_a_tree() {
        let topology = build(&example()).unwrap();
        let names: Vec<&str> = topology.levels().iter().map(|level| level.name.as_str()).collect();
        assert_eq!(names, ["cluster", "tier-3", "tier-1", "host"]);
        let path = |node| {
            let position = topology.position_named(node).unwrap();
            topology.path(topology.domain_at(LevelIndex(2), position))
        };
        assert_eq!(path("node-1"), "s10/s0");
        assert_eq!(path("node-2"), "s10/s1");
        assert_eq!(path("node-3"), "s10/s2");
        assert_eq!(path("node-4"), "node-4 (no tier-3)/node-4 (no tier-1)");
        assert_eq!(path("node-5"), "s11/node-5 (no tier-1)");
    }

    #[test]
    fn tiers_are_known_by_name_and_by_number() {
        let mut objects = example();
        objects[3]["spec"]["tierName"] = json!("block");
        let topology = build(&objects).unwrap();
        assert_eq!(topology.level_named("block"), Some(LevelIndex(1)));
        assert_eq!(topology.level_named("tier-3"), Some(LevelIndex(1)));
    }

    #[test]
    fn contradictions_are_errors() {
        let fault = |objects: &[Value]| build(objects).unwrap_err().to_string();
        assert_eq!(
            fault(&[
                hyper_node("a", 1, &[exact("HyperNode", "b")]),
                hyper_node("b", 1, &[exact("HyperNode", "a")])
            ]),
            "HyperNode \"a\" of tier 1 has the member \"b\" of tier 1: members must be of a lower tier, and none can \
             contain itself"
        );
        assert_eq!(
            fault(&[hyper_node("a", 1, &[exact("HyperNode", "x")])]),
            "HyperNode \"a\" has a member HyperNode \"x\" that does not exist"
        );
        let node = || exact("Node", "node-1");
        assert_eq!(
            fault(&[hyper_node("a", 1, &[node()]), hyper_node("b", 1, &[node()])]),
            "\"node-1\" is in the HyperNodes \"a\" and \"b\", of which neither contains the other"
        );
        let child = || exact("HyperNode", "c");
        assert_eq!(
            fault(&[hyper_node("a", 2, &[child()]), hyper_node("b", 2, &[child()]), hyper_node("c", 1, &[])]),
            "\"c\" is in the HyperNodes \"a\" and \"b\", of which neither contains the other"
        );
        assert_eq!(
            fault(&[hyper_node("a", 1, &[]), hyper_node("a", 2, &[])]),
            "two HyperNodes are called \"a\""
        );
        assert_eq!(
            fault(&[hyper_node("a", 1, &[pattern("Node", "(")])]),
            "HyperNode \"a\": spec.members[0].selector.regexMatch.pattern: is no regular expression, or too large"
        );
        assert_eq!(
            fault(&[hyper_node("a", 1, &[json!({"type": "Node"})])]),
            "HyperNode \"a\": spec.members[0].selector: must have exactly one of exactMatch, regexMatch and labelMatch"
        );
        assert_eq!(fault(&[json!({})]), "HyperNode \"#0\": metadata.name: must be set");
    }

    proptest! {
        #[test]
        fn damaged_objects_are_answered(
            which in 0_usize..5,
            steps in prop::collection::vec(0_usize..20, 1..8),
            with in arbitrary::value(&["name", "pattern", "type", "selector", "tier", "members", "key", "operator"]),
        ) {
            let mut objects = example();
            objects[which] = arbitrary::damaged(objects[which].clone(), &steps, with);
            if let Ok(topology) = build(&objects) {
                prop_assert_eq!(topology.node_count(), 6);
            }
        }
    }
}
