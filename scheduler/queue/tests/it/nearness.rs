//! Gangs that wait for nearer places, and those that do not.

use muster_scheduler_core::Space;
use muster_scheduler_queue::explain::{Reason, WhatIf};
use muster_scheduler_queue::job::{Job, JobId};
use muster_scheduler_queue::planner::Planner;
use muster_scheduler_queue::policy::{Patience, Policy};
use muster_scheduler_queue::time::Time;
use muster_scheduler_queue::tree::QueueTree;

use crate::cluster::{cluster, form, job};

fn named(name: &str) -> Policy {
    Policy { preemption: None, ..Policy::named(name).unwrap() }
}

const HOUR: i64 = 3_600_000;

/// Two racks of eight nodes with eight GPUs each; in each, six nodes are taken until `first` and `second`.
struct World {
    space: Space,
    tree: QueueTree,
    planner: Planner,
}

impl World {
    fn new(policy: Policy, first: i64, second: i64) -> Self {
        let mut space = cluster(16, 8, 8);
        let tree = QueueTree::unlimited("all");
        let queue = tree.queue("all").unwrap();
        let mut planner = Planner::new(policy, tree.clone());
        for (id, node, ends) in [(0, 0, first), (1, 8, second)] {
            let mut taken = form(&mut space, &tree, 6, 8);
            taken.demand.near = vec![space.id(&format!("node-{node:04}")).unwrap()];
            planner.submit(Job { limit: Some(ends), ..job(id, 0, queue, taken) }).unwrap();
            let plan = planner.cycle(Time(0), &space);
            planner.commit(&plan, &mut space, Time(0)).unwrap();
        }
        Self { space, tree, planner }
    }

    /// A gang of three nodes, of which no rack has more than two; it says that it runs for an hour.
    fn gang(&mut self, nearness: Option<i64>) {
        let queue = self.tree.queue("all").unwrap();
        let three = form(&mut self.space, &self.tree, 3, 8);
        self.planner.submit(Job { limit: Some(HOUR), nearness, ..job(7, 1, queue, three) }).unwrap();
    }

    fn starts_at(&mut self, at: i64) -> bool {
        let plan = self.planner.cycle(Time(at), &self.space);
        plan.start.iter().any(|start| start.job == JobId(7))
    }
}

/// Nearness that counts for the division only, without other gangs that might matter.
fn patient() -> Policy {
    let nearness = Patience { divided_percent: 1000, slowed_percent: 0, most: 2 * HOUR };
    Policy { nearness: Some(nearness), ..named("muster") }
}

#[test]
fn a_gang_waits_for_a_domain_of_its_own_and_says_so() {
    let mut world = World::new(patient(), HOUR / 2, 10 * HOUR);
    world.gang(None);
    assert!(!world.starts_at(1));
    let explained = world.planner.explain(JobId(7), Time(1), &world.space).unwrap();
    let Reason::Nearer(nearer) = explained.reason else { panic!("{explained:?}") };
    assert_eq!((nearer.domains, nearer.instead_of), (2, 1));
    let told = muster_scheduler_queue::explain::Told(&world.planner, &explained.reason).to_string();
    assert_eq!(
        told,
        "it waits for nearer places: on those that are free it would be divided between 2 domains instead of 1"
    );
    assert!(explained.what_if.contains(&WhatIf::AnyDistance), "{explained:?}");
    assert_eq!(explained.expected.unwrap().at, Time(HOUR / 2), "a rack is free then");
    let first = world.planner.running().next().unwrap().hold.clone();
    world.space.give_back_slots(&first.form.demand, &first.slots);
    world.planner.ended(JobId(0), Time(HOUR / 2)).unwrap();
    let plan = world.planner.cycle(Time(HOUR / 2), &world.space);
    let start = plan.start.iter().find(|start| start.job == JobId(7)).unwrap();
    assert!(start.hold.slots.0.iter().all(|slot| slot.node.index() < 8), "{start:?}");
}

#[test]
fn patience_ends_by_itself() {
    let mut world = World::new(patient(), 10 * HOUR, 10 * HOUR);
    world.gang(None);
    assert!(!world.starts_at(1));
    let explained = world.planner.explain(JobId(7), Time(1), &world.space).unwrap();
    let Reason::Nearer(nearer) = explained.reason else { panic!("{explained:?}") };
    // By its run time it would be two hours and a half.
    assert_eq!(nearer.until, Time(1 + 2 * HOUR));
    assert_eq!(world.planner.next_boundary(Time(1)), Some(nearer.until));
    assert_eq!(explained.expected.unwrap().at, nearer.until);
    assert!(!world.starts_at(nearer.until.0 - 1));
    assert!(world.starts_at(nearer.until.0));
}

#[test]
fn a_job_may_wait_shorter_than_the_policy_says_and_not_at_all() {
    let mut world = World::new(patient(), 10 * HOUR, 10 * HOUR);
    world.gang(Some(60_000));
    assert!(!world.starts_at(1));
    assert!(world.starts_at(60_001));
    let mut world = World::new(patient(), 10 * HOUR, 10 * HOUR);
    world.gang(Some(0));
    assert!(world.starts_at(1));
    let mut world = World::new(named("easy"), 10 * HOUR, 10 * HOUR);
    world.gang(None);
    assert!(world.starts_at(1), "other policies do not wait");
}
