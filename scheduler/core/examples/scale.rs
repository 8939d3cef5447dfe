//! Prints how long planning takes on 5,000 nodes.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people")]

use std::time::Instant;

use muster_scheduler_core::{Assignment, Gang, Ledger, Member, Node, PodKey, Resources};

fn node(index: usize) -> Node {
    let name = format!("node-{index:05}");
    Node {
        labels: [
            ("kubernetes.io/hostname".to_owned(), name.clone()),
            ("muster.dev/rack".to_owned(), format!("rack-{}", index / 32)),
            ("topology.kubernetes.io/zone".to_owned(), format!("zone-{}", index / 1024)),
        ]
        .into(),
        name,
        schedulable: true,
        allocatable: Resources::new()
            .with("nvidia.com/gpu", 8000)
            .with("cpu", 128_000)
            .with("memory", 1 << 50)
            .with("pods", 110_000),
        gpu_slots: 8,
        ..Node::default()
    }
}

fn gang(name: &str, members: u32, gpus: u32) -> Gang {
    let requests =
        Resources::new().with("nvidia.com/gpu", i64::from(gpus) * 1000).with("cpu", 500).with("pods", 1000);
    let member = |rank| Member {
        name: format!("{name}-{rank}"),
        uid: format!("{name}-{rank}"),
        requests: requests.clone(),
        gpus,
        rank,
        ..Member::default()
    };
    Gang {
        namespace: "d".into(),
        name: name.into(),
        min_available: members as usize,
        waiting: (0..members).map(member).collect(),
        ..Gang::default()
    }
}

fn cluster() -> Ledger {
    let mut ledger = Ledger::default();
    for index in 0..5000 {
        ledger.set_node(node(index));
    }
    ledger
}

fn main() {
    let start = Instant::now();
    let mut ledger = cluster();
    println!("5,000 nodes added: {:?}", start.elapsed());
    let start = Instant::now();
    ledger.place(&gang("first", 1, 1)).unwrap();
    println!("first place (map, counts): {:?}", start.elapsed());
    for gpus in [0, 1, 4, 8] {
        let mut ledger = cluster();
        ledger.place(&gang("first", 3, gpus)).unwrap();
        let mut thirds = Vec::new();
        let mut start = Instant::now();
        for index in 0..3000 {
            let placement = ledger
                .place(&gang(&format!("g{index}"), 3, gpus))
                .unwrap_or(muster_scheduler_core::Placement(Vec::new()));
            ledger.take(&placement).unwrap();
            if index % 1000 == 999 {
                thirds.push(start.elapsed() / 1000);
                start = Instant::now();
            }
        }
        println!("3-pod gangs of {gpus} GPUs, per gang by thousand: {thirds:?}");
    }
    for gpus in [0, 1, 4] {
        let mut ledger = cluster();
        let start = Instant::now();
        let placement = ledger.place(&gang("huge", 10_000, gpus)).unwrap();
        let placed = start.elapsed();
        ledger.take(&placement).unwrap();
        println!("10,000 pods of {gpus} GPUs: placed {placed:?}, taken {:?}", start.elapsed());
    }
    let start = Instant::now();
    let mut ledger = cluster();
    for pod in 0..140_000 {
        let assignment = Assignment {
            uid: format!("u{pod}"),
            node: format!("node-{:05}", pod % 5000),
            resources: Resources::new().with("cpu", 100).with("pods", 1000),
            ..Assignment::default()
        };
        ledger.record(PodKey::new("d", format!("p{pod}")), assignment);
    }
    ledger.place(&gang("first", 3, 1)).unwrap();
    println!("cold start with 140,000 pods: {:?}", start.elapsed());
    let start = Instant::now();
    let mut cordoned = node(77);
    cordoned.schedulable = false;
    ledger.set_node(cordoned);
    ledger.place(&gang("next", 3, 1)).unwrap();
    println!("a node changes: {:?}", start.elapsed());
    let start = Instant::now();
    ledger.remove_node("node-00099");
    ledger.place(&gang("next", 3, 1)).unwrap();
    println!("a node leaves: {:?}", start.elapsed());
    let start = Instant::now();
    let copy = ledger.space().clone();
    println!("a copy of the space: {:?} for {} nodes", start.elapsed(), copy.node_count());
}
