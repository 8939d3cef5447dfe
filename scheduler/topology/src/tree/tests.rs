//! The laws of the tree.

use proptest::prelude::*;

use super::*;
use crate::link::{Capacity, Fabric};

fn levels(inner: &[&str]) -> Vec<Level> {
    Level::between_cluster_and_host(inner.iter().map(|name| Level::new(*name, &[])))
}

fn build(inner: &[&str], nodes: &[NodeEntry<'_>]) -> Topology {
    Topology::build(levels(inner), nodes, SharedNames::Distinct).unwrap()
}

#[test]
fn a_tree_of_spines_and_racks() {
    let nodes = [
        NodeEntry::new("n10", &[Some("s1"), Some("r10")]),
        NodeEntry::new("n2", &[Some("s1"), Some("r2")]),
        NodeEntry::new("n1", &[Some("s2"), Some("r11")]),
        NodeEntry::new("n3", &[Some("s1"), Some("r2")]),
    ];
    let topology = build(&["spine", "rack"], &nodes);
    let order: Vec<&str> = (0..4).map(|position| topology.node_name(Position(position))).collect();
    assert_eq!(order, ["n2", "n3", "n10", "n1"]);
    let racks: Vec<String> = topology.domains(LevelIndex(2)).map(|rack| topology.path(rack)).collect();
    assert_eq!(racks, ["s1/r2", "s1/r10", "s2/r11"]);
    assert_eq!(
        topology.common_ancestor([Position(0), Position(2)]),
        topology.domain_at(LevelIndex(1), Position(1))
    );
    assert_eq!(topology.common_ancestor([Position(1)]), topology.host(Position(1)));
    assert_eq!(topology.common_ancestor([]), DomainId::ROOT);
    assert_eq!(topology.position_named("n10"), Some(Position(2)));
    assert_eq!(topology.position_named("n"), None);
    assert!(topology.irregularities().is_empty());
}

#[test]
fn no_nodes_make_an_empty_tree() {
    let topology = build(&["rack"], &[]);
    assert_eq!(topology.domain_count(), 1);
    assert_eq!(topology.children(DomainId::ROOT).len(), 0);
    assert_eq!(topology.domains(topology.host_level()).len(), 0);
    assert_eq!(topology.positions(DomainId::ROOT), 0..0);
    assert_eq!(topology.level_of(DomainId::ROOT), LevelIndex::ROOT);
}

#[test]
fn a_node_without_a_label_stands_alone_and_what_it_shares_stays_together() {
    let nodes = [
        NodeEntry::new("a", &[Some("s1"), None]),
        NodeEntry::new("b", &[Some("s1"), Some("")]),
        NodeEntry::new("c", &[None, Some("r1")]),
        NodeEntry::new("d", &[None, Some("r1")]),
        NodeEntry::new("e", &[None, None]),
        NodeEntry::new("f", &[Some("s1"), Some("r0")]),
    ];
    let topology = build(&["spine", "rack"], &nodes);
    let paths: Vec<String> = topology.domains(LevelIndex(2)).map(|rack| topology.path(rack)).collect();
    assert_eq!(
        paths,
        ["s1/r0", "s1/a (no rack)", "s1/b (no rack)", "rack r1 (no spine)/r1", "e (no spine)/e (no rack)"]
    );
    let expected = |level: &str, nodes, example: &str| Irregularity::Missing {
        level: level.to_owned(),
        nodes,
        example: example.to_owned(),
    };
    assert_eq!(topology.irregularities(), [expected("spine", 3, "c"), expected("rack", 3, "a")]);
}

#[test]
fn one_rack_under_two_spines_is_two_racks_or_an_error() {
    let nodes =
        [NodeEntry::new("a", &[Some("s1"), Some("r1")]), NodeEntry::new("b", &[Some("s2"), Some("r1")])];
    let topology = build(&["spine", "rack"], &nodes);
    assert_eq!(topology.domains(LevelIndex(2)).len(), 2);
    let [Irregularity::Shared { name, parents, .. }] = topology.irregularities() else {
        panic!("one finding")
    };
    assert_eq!((name.as_str(), parents), ("r1", &["s1".to_owned(), "s2".to_owned()]));
    let refused = Topology::build(levels(&["spine", "rack"]), &nodes, SharedNames::Refused).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "rack \"r1\" lies both under \"s1\" and under \"s2\": correct the labels, or allow the same name in several places"
    );
}

#[test]
fn bad_input_is_refused_with_its_place() {
    let build = |levels, nodes: &[NodeEntry<'_>]| {
        Topology::build(levels, nodes, SharedNames::Distinct).unwrap_err().to_string()
    };
    let node = NodeEntry::new("a", &[]);
    assert!(build(vec![Level::new("only", &[])], &[]).contains("1 levels given"));
    assert!(build(levels(&["host"]), &[]).contains("level 2 is called \"host\""));
    assert!(
        build(levels(&[]), &[node.clone(), node.clone()]).contains("nodes 0 and 1 are both called \"a\"")
    );
    assert!(
        build(levels(&["rack"]), std::slice::from_ref(&node)).contains("names 0 domains, but there are 1")
    );
    assert!(build(levels(&[]), &[NodeEntry::new("", &[])]).contains("node 0 has no name"));
    let broken = NodeEntry { network: Some(f64::NAN), ..node };
    assert!(build(levels(&[]), &[broken]).contains("network bandwidth of node \"a\""));
    let uplink = UplinkRule::oversubscribed(0.0);
    let odd = Level::between_cluster_and_host([Level::new("rack", &[]).with_uplink(uplink)]);
    assert!(build(odd, &[]).contains("oversubscription of level \"rack\""));
}

#[test]
fn uplinks_follow_the_levels_rules() {
    let node = |name, rack| NodeEntry { gpus: 8, ..NodeEntry::new(name, &[Some("s"), Some(rack)]) };
    let nodes = [node("a", "r1"), node("b", "r1"), node("c", "r2")];
    let inner = [
        Level::new("spine", &[]).with_uplink(UplinkRule {
            capacity: Capacity::Fixed(30.0),
            latency: 2.0,
            fabric: Fabric::Network,
        }),
        Level::new("rack", &[]).with_uplink(UplinkRule::oversubscribed(4.0)),
    ];
    let topology =
        Topology::build(Level::between_cluster_and_host(inner), &nodes, SharedNames::Distinct).unwrap();
    let uplinks: Vec<f64> = (1..topology.domain_count() as u32)
        .map(|domain| topology.uplink(DomainId(domain)).bandwidth)
        .collect();
    // A rack of one known node is not throttled: its uplink carries at least what one node sends.
    assert_eq!(uplinks, [30.0, 200.0, 400.0, 400.0, 400.0, 400.0]);
    assert!((topology.uplink(DomainId(1)).oversubscription - 20.0).abs() < 1e-9);
    assert!(topology.uplink(DomainId::ROOT).bandwidth.is_infinite());
}

#[test]
fn state_is_carried_over_by_names() {
    let node = |name, rack| NodeEntry::new(name, &[Some(rack)]);
    let old = build(&["rack"], &[node("a", "r1"), node("b", "r2"), node("c", "r2")]);
    let new = build(&["rack"], &[node("c", "r2"), node("d", "r0")]);
    let rack =
        |topology: &Topology, node| topology.domain_at(LevelIndex(1), topology.position_named(node).unwrap());
    assert_eq!(new.same_domain(&old, rack(&old, "b")), Some(rack(&new, "c")));
    assert_eq!(new.same_domain(&old, rack(&old, "a")), None);
    assert_eq!(new.same_domain(&old, DomainId::ROOT), Some(DomainId::ROOT));
}

#[test]
fn five_thousand_nodes_are_laid_out_quickly() {
    let names: Vec<[String; 4]> = (0..5000)
        .map(|node| [node, node / 16, node / 128, node / 1024].map(|number| format!("name-{number}")))
        .collect();
    let nodes: Vec<NodeEntry<'_>> = names
        .iter()
        .map(|[host, rack, block, spine]| NodeEntry::new(host, &[Some(spine), Some(block), Some(rack)]))
        .collect();
    let build = || build(&["spine", "block", "rack"], &nodes);
    let quickest = (0..5)
        .map(|_| {
            let start = std::time::Instant::now();
            std::hint::black_box(build());
            start.elapsed()
        })
        .min()
        .unwrap();
    println!("5,000 nodes on 5 levels: {quickest:?}");
    assert!(quickest.as_millis() < 200, "{quickest:?}");
    assert_eq!(build().domain_count(), 1 + 5 + 40 + 313 + 5000);
}

prop_compose! {
    /// Nodes with few names on a few levels, some unknown.
    fn any_nodes()(inner in 0_usize..4)(
        inner in Just(inner),
        paths in prop::collection::vec(prop::collection::vec(prop::option::weighted(0.8, 0_u8..3), inner), 0..24),
    ) -> (usize, Vec<(String, Vec<Option<String>>)>) {
        let name = |(index, path): (usize, Vec<Option<u8>>)| {
            (format!("n{index}"), path.iter().map(|part| part.map(|part| format!("d{part}"))).collect())
        };
        (inner, paths.into_iter().enumerate().map(name).collect())
    }
}

proptest! {
    #[test]
    fn every_domain_is_a_contiguous_range((inner, nodes) in any_nodes()) {
        let names: Vec<String> = (0..inner).map(|level| format!("l{level}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let entries: Vec<NodeEntry<'_>> = nodes
            .iter()
            .map(|(name, path)| NodeEntry::new(name, &path.iter().map(Option::as_deref).collect::<Vec<_>>()))
            .collect();
        let topology = build(&names, &entries);

        prop_assert_eq!(topology.node_count(), nodes.len());
        for (index, (name, _)) in nodes.iter().enumerate() {
            let position = topology.position_of(index);
            prop_assert_eq!(topology.node_at(position), index);
            prop_assert_eq!(topology.node_name(position), name.as_str());
        }
        for level in topology.level_indices() {
            let mut next = 0;
            for domain in topology.domains(level) {
                prop_assert_eq!(topology.level_of(domain), level);
                let span = topology.positions(domain);
                prop_assert_eq!(span.start, next, "no gap and no overlap");
                next = span.end;
                for position in span.clone() {
                    prop_assert_eq!(topology.domain_at(level, Position(position)), domain);
                }
                let mut inside = span.start;
                for child in topology.children(domain) {
                    prop_assert_eq!(topology.parent(child), Some(domain));
                    prop_assert_eq!(topology.positions(child).start, inside);
                    inside = topology.positions(child).end;
                }
                prop_assert!(level == topology.host_level() || inside == span.end);
                prop_assert!(topology.uplink(domain).bandwidth > 0.0);
                prop_assert_eq!(topology.same_domain(&topology, domain), Some(domain));
            }
            prop_assert_eq!(next as usize, nodes.len());
        }
        // Nodes share a domain exactly when they name the same one all the way down to it.
        for (a, first) in nodes.iter().enumerate() {
            for (b, second) in nodes.iter().enumerate() {
                let level = topology.level_of(
                    topology.common_ancestor([topology.position_of(a), topology.position_of(b)]),
                );
                let known = first.1.iter().zip(&second.1).take_while(|(x, y)| x == y && x.is_some()).count();
                prop_assert!(level.index() >= known.min(inner));
            }
        }
        let mut shuffled = entries.clone();
        shuffled.reverse();
        let again = build(&names, &shuffled);
        for position in (0..nodes.len() as u32).map(Position) {
            prop_assert_eq!(again.node_name(position), topology.node_name(position));
        }
    }
}
