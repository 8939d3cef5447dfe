use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Nodes of so many cores, each of so many threads, numbered as Linux does: first one thread of every core.
fn machine(cores: &[usize], threads: usize) -> Vec<Cpu> {
    let total: usize = cores.iter().sum();
    let nodes: Vec<usize> =
        cores.iter().enumerate().flat_map(|(node, count)| std::iter::repeat_n(node, *count)).collect();
    let cpu = |thread: usize, core: usize| Cpu { node: nodes[core], core, id: thread * total + core };
    (0..threads).flat_map(|thread| (0..total).map(move |core| cpu(thread, core))).collect()
}

fn cpus(dealt: Option<Vec<CoreSet>>) -> Vec<Vec<usize>> {
    dealt.unwrap().into_iter().map(|set| set.cpus).collect()
}

#[test]
fn whole_cores_come_before_their_threads() {
    let two_cores = machine(&[2], 2);
    assert_eq!(cpus(deal(&two_cores, &[None; 1])), [[0, 1, 2, 3]]);
    assert_eq!(cpus(deal(&two_cores, &[None; 2])), [[0, 2], [1, 3]]);
    assert_eq!(cpus(deal(&two_cores, &[None; 4])), [[0], [2], [1], [3]]);
    assert_eq!(deal(&two_cores, &[None; 5]), None, "nobody has a processor of his own");
    assert_eq!(deal(&two_cores, &[]), None);
}

#[test]
fn workers_keep_to_a_node_while_it_costs_little() {
    let two_nodes = machine(&[4, 4], 1);
    assert_eq!(cpus(deal(&two_nodes, &[None; 2])), [[0, 1, 2, 3], [4, 5, 6, 7]]);
    assert_eq!(cpus(deal(&two_nodes, &[None; 3])), [vec![0, 1], vec![2, 3], vec![4, 5, 6, 7]]);
    // One alone would lose half of the machine.
    assert_eq!(cpus(deal(&two_nodes, &[None; 1])), [[0, 1, 2, 3, 4, 5, 6, 7]]);
    // The few cores of another node are not worth it.
    assert_eq!(cpus(deal(&machine(&[7, 1], 1), &[None; 1])), [[0, 1, 2, 3, 4, 5, 6]]);
}

#[test]
fn workers_are_where_their_gpus_are() {
    let two_nodes = machine(&[4, 4], 1);
    assert_eq!(cpus(deal(&two_nodes, &[Some(1), Some(0)])), [[4, 5, 6, 7], [0, 1, 2, 3]]);
    assert_eq!(cpus(deal(&two_nodes, &[Some(1), Some(1)])), [[4, 5], [6, 7]]);
    assert_eq!(cpus(deal(&two_nodes, &[Some(1), None])), [[4, 5, 6, 7], [0, 1, 2, 3]]);
    // No processor of that node is allowed.
    assert_eq!(cpus(deal(&two_nodes, &[Some(7), Some(7)])), [[0, 1, 2, 3], [4, 5, 6, 7]]);
    // More workers than the node has cores.
    let crowd = deal(&two_nodes, &[Some(1); 5]).unwrap();
    assert!(crowd.iter().all(|set| !set.cpus.is_empty()));
}

fn machines() -> impl Strategy<Value = Vec<Cpu>> {
    let whole = (prop::collection::vec(1_usize..9, 1..5), 1_usize..3)
        .prop_map(|(cores, threads)| machine(&cores, threads));
    // Any part of it may be what a pod is allowed.
    whole.prop_flat_map(|cpus| {
        let most = cpus.len();
        prop::sample::subsequence(cpus, 1..=most)
    })
}

/// Fewest and most cores.
fn bounds<'a>(sets: impl Iterator<Item = &'a CoreSet>) -> (usize, usize) {
    sets.fold((usize::MAX, 0), |(fewest, most), set| (fewest.min(set.cores), most.max(set.cores)))
}

proptest! {
    #[test]
    fn cores_are_dealt_by_the_rules(
        allowed in machines(),
        near in prop::collection::vec(prop::option::of(0_usize..5), 1..12),
        with_gpus: bool,
    ) {
        let near: Vec<_> = near.into_iter().map(|node| node.filter(|_| with_gpus)).collect();
        let Some(sets) = deal(&allowed, &near) else {
            prop_assert!(allowed.len() < near.len(), "everybody could have had a processor");
            return Ok(());
        };
        prop_assert_eq!(sets.len(), near.len());
        let node_of = |id: usize| allowed.iter().find(|cpu| cpu.id == id).map(|cpu| cpu.node);
        let core_of = |id: usize| allowed.iter().find(|cpu| cpu.id == id).map(|cpu| cpu.core);
        let nodes_of = |set: &CoreSet| set.cpus.iter().map(|id| node_of(*id)).collect::<BTreeSet<_>>();

        // Inside what is allowed, each processor once, nobody without.
        let mut seen = BTreeSet::new();
        for set in &sets {
            prop_assert!(!set.cpus.is_empty() && set.cores > 0);
            prop_assert!(set.cpus.is_sorted());
            for id in &set.cpus {
                prop_assert!(node_of(*id).is_some(), "processor {} is not allowed", id);
                prop_assert!(seen.insert(*id), "processor {} is dealt twice", id);
            }
        }

        // Nobody shares a core while there are enough.
        let cores: BTreeSet<_> = allowed.iter().map(|cpu| cpu.core).collect();
        let whole = cores.len() >= near.len();
        if whole {
            let of_sets = sets.iter().map(|set| set.cpus.iter().map(|id| core_of(*id)).collect::<BTreeSet<_>>());
            prop_assert!(of_sets.clone().zip(&sets).all(|(own, set)| own.len() == set.cores));
            let distinct: BTreeSet<_> = of_sets.clone().flatten().collect();
            prop_assert_eq!(of_sets.map(|own| own.len()).sum::<usize>(), distinct.len());
        }

        let straddling = sets.iter().any(|set| nodes_of(set).len() > 1);
        let mut sizes: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for cpu in &allowed {
            sizes.entry(cpu.node).or_default().insert(if whole { cpu.core } else { cpu.id });
        }
        let sizes: BTreeMap<usize, usize> = sizes.into_iter().map(|(node, units)| (node, units.len())).collect();
        let wishes: Vec<_> = near.iter().map(|node| node.filter(|node| sizes.contains_key(node))).collect();
        if straddling {
            // Then all are equal, and it was not possible otherwise for three quarters of an even share.
            let (fewest, most) = bounds(sets.iter());
            prop_assert!(most - fewest <= 1, "{} and {}", fewest, most);
            if wishes.iter().all(Option::is_none) {
                let bearable = (sizes.values().sum::<usize>() / near.len() * 3).div_ceil(4).max(1);
                let places: usize = sizes.values().map(|size| size / bearable).sum();
                prop_assert!(places < near.len(), "{} would have fitted into nodes", bearable);
            }
        } else {
            for node in sizes.keys() {
                let own: Vec<_> = sets.iter().filter(|set| nodes_of(set).contains(&Some(*node))).collect();
                if !own.is_empty() {
                    let (fewest, most) = bounds(own.into_iter());
                    prop_assert!(most - fewest <= 1, "node {}: {} and {}", node, fewest, most);
                }
            }
            // Near the GPU, if there is room for all who wish that.
            let roomy = |node: usize| wishes.iter().filter(|wish| **wish == Some(node)).count() <= sizes[&node];
            if wishes.iter().flatten().all(|node| roomy(*node)) && sizes.len() > 1 {
                for (set, wish) in sets.iter().zip(&wishes) {
                    if let Some(node) = wish {
                        prop_assert!(nodes_of(set).contains(&Some(*node)));
                    }
                }
            }
        }
    }
}
