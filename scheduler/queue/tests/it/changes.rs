//! Gangs that change while they run, gangs that come back, and queues that change under all of them.

use muster_scheduler_core::{Slots, Space};
use muster_scheduler_queue::explain::Reason;
use muster_scheduler_queue::job::{Form, Gate, Job, JobId};
use muster_scheduler_queue::join::{Joining, Purpose};
use muster_scheduler_queue::planner::{Plan, Planner, Start};
use muster_scheduler_queue::policy::{Policy, Preemption};
use muster_scheduler_queue::time::Time;
use muster_scheduler_queue::tree::{FlavorResource, QueueSpec, QueueTree, Quota};
use proptest::prelude::*;

use crate::cluster::{cluster, cohort, form, gpu, job};
use crate::drive::{Arrival, Drive};

fn planner(policy: &str, tree: &QueueTree) -> Planner {
    Planner::new(Policy::named(policy).unwrap(), tree.clone())
}

fn decide(planner: &mut Planner, space: &mut Space, now: i64) -> Plan {
    let plan = planner.cycle(Time(now), space);
    planner.commit(&plan, space, Time(now)).unwrap();
    plan
}

fn join(
    planner: &Planner,
    space: &Space,
    id: u64,
    form: &Form,
    purpose: Purpose,
    now: i64,
) -> Result<Start, Reason> {
    match planner.join(JobId(id), std::slice::from_ref(form), purpose, Time(now), space).unwrap() {
        Joining::Start(start) => Ok(start),
        Joining::Wait(reason) => Err(reason),
    }
}

/// What a job has and what joins it, as one.
fn together(planner: &Planner, id: u64, joining: &Start, tree: &QueueTree) -> (Form, Slots) {
    let running = planner.running().find(|running| running.job.id == JobId(id)).unwrap();
    let (mut form, mut slots) = (running.hold.form.clone(), running.hold.slots.clone());
    form.demand.groups[0].count += joining.hold.form.pods();
    form.charge = tree.charge([(&gpu(), form.gpus())]);
    slots.0.extend(joining.hold.slots.0.iter().cloned());
    (form, slots)
}

#[test]
fn pods_that_join_count_and_do_not_pass_quota_by() {
    let mut space = cluster(4, 8, 2);
    let quota = Quota { nominal: 24_000, borrowing_limit: Some(0), lending_limit: None };
    let tree = QueueTree::build(vec![QueueSpec::new("a").with_quota(gpu(), quota)]).unwrap();
    let queue = tree.queue("a").unwrap();
    let mut planner = planner("easy", &tree);
    let (one, two) = (form(&mut space, &tree, 1, 8), form(&mut space, &tree, 2, 8));
    planner.submit(Job { limit: Some(100), ..job(0, 0, queue, one.clone()) }).unwrap();
    decide(&mut planner, &mut space, 0);
    let all_or_fewer = [form(&mut space, &tree, 3, 8), two.clone()];
    let joining = planner.join(JobId(0), &all_or_fewer, Purpose::Growth, Time(1), &space).unwrap();
    let Joining::Start(joining) = joining else { panic!("{joining:?}") };
    assert_eq!((joining.form, joining.hold.slots.0.len()), (1, 2), "quota allows two more");
    space.take_slots(&joining.hold.form.demand, &joining.hold.slots);
    let (form, slots) = together(&planner, 0, &joining, &tree);
    planner.rehold(JobId(0), form.clone(), slots.clone(), Time(1)).unwrap();
    assert_eq!(planner.tree().used(queue, 0), 24_000);
    for purpose in [Purpose::Repair, Purpose::Growth] {
        let refused = join(&planner, &space, 0, &one, purpose, 2).unwrap_err();
        assert!(matches!(refused, Reason::Quota(shortage) if shortage.free == 0), "{refused:?}");
    }
    // What waits is promised all that the job has, and gets it at its end.
    planner.submit(Job { limit: Some(50), ..job(1, 2, queue, two) }).unwrap();
    assert_eq!(decide(&mut planner, &mut space, 2).reserve[0].from, Time(100));
    // It shrinks to one pod: quota and room of the others are free at once.
    let left = Slots(slots.0[..1].to_vec());
    let gone = Slots(slots.0[1..].to_vec());
    space.give_back_slots(&form.demand, &gone);
    planner.rehold(JobId(0), one, left, Time(3)).unwrap();
    assert_eq!(planner.tree().used(queue, 0), 8000);
    assert_eq!(decide(&mut planner, &mut space, 3).start.len(), 1);
}

#[test]
fn who_grows_waits_behind_promises_and_who_is_repaired_does_not() {
    let mut space = cluster(4, 8, 2);
    let tree = QueueTree::unlimited("all");
    let queue = tree.queue("all").unwrap();
    let mut planner = planner("easy", &tree);
    let (one, three) = (form(&mut space, &tree, 1, 8), form(&mut space, &tree, 3, 8));
    for (id, limit) in [(0, 1000), (1, 100)] {
        planner.submit(Job { limit: Some(limit), ..job(id, 0, queue, one.clone()) }).unwrap();
    }
    planner.submit(Job { limit: Some(50), ..job(2, 0, queue, three) }).unwrap();
    decide(&mut planner, &mut space, 0);
    let grows = |id, purpose| join(&planner, &space, id, &one, purpose, 2);
    assert_eq!(grows(0, Purpose::Growth), Err(Reason::Promised { to: JobId(2), from: Time(100) }));
    assert!(grows(0, Purpose::Repair).is_ok());
    assert!(grows(1, Purpose::Growth).is_ok(), "it is done when the gang starts");
    let three_more = form(&mut space, &tree, 3, 8);
    let refused = join(&planner, &space, 0, &three_more, Purpose::Repair, 2).unwrap_err();
    assert_eq!(refused, Reason::Room { group: 0, needed: 3, fits: 2 });
}

#[test]
fn who_comes_back_as_other_pods_keeps_its_place_and_its_evictions() {
    let mut space = cluster(1, 8, 1);
    let tree = QueueTree::unlimited("all");
    let queue = tree.queue("all").unwrap();
    let rules = Preemption { min_runtime: 0, not_within: 0, most_evictions: 1, ..Preemption::default() };
    let policy = Policy { preemption: Some(rules), ..Policy::named("easy").unwrap() };
    let mut planner = Planner::new(policy, tree.clone());
    let (whole, half) = (form(&mut space, &tree, 1, 8), form(&mut space, &tree, 2, 4));
    let urgent = |id, at| Job { priority: 1, limit: Some(10), ..job(id, at, queue, whole.clone()) };
    let evicted = |planner: &mut Planner, space: &mut Space, now| {
        let victims: Vec<JobId> =
            planner.cycle(Time(now), space).preempt.into_iter().flat_map(|preempt| preempt.victims).collect();
        for id in &victims {
            let hold = planner.running().find(|one| one.job.id == *id).unwrap().hold.clone();
            space.give_back_slots(&hold.form.demand, &hold.slots);
            planner.evicted(*id, Time(now)).unwrap();
            planner.set_gate(*id, Gate::Members { present: 0, needed: 1 }).unwrap();
        }
        victims
    };
    planner.submit(job(0, 0, queue, whole.clone())).unwrap();
    decide(&mut planner, &mut space, 0);
    planner.submit(urgent(1, 10)).unwrap();
    assert_eq!(evicted(&mut planner, &mut space, 10), [JobId(0)]);
    decide(&mut planner, &mut space, 10);
    // Its pods are made anew, of another shape, and only one by one.
    let back = |gate| Job { gate, ..job(0, 15, queue, half.clone()) };
    planner.amend(back(Gate::Members { present: 1, needed: 2 })).unwrap();
    assert!(decide(&mut planner, &mut space, 15).start.is_empty());
    planner.amend(back(Gate::Open)).unwrap();
    planner.submit(job(2, 11, queue, whole.clone())).unwrap();
    assert_eq!(planner.order(Time(15), &space), [JobId(0), JobId(2)]);
    let hold = planner.running().next().unwrap().hold.clone();
    space.give_back_slots(&hold.form.demand, &hold.slots);
    planner.ended(JobId(1), Time(20)).unwrap();
    let start = decide(&mut planner, &mut space, 20).start.remove(0);
    assert_eq!((start.job, start.hold.form.pods()), (JobId(0), 2));
    planner.submit(urgent(3, 30)).unwrap();
    assert!(evicted(&mut planner, &mut space, 30).is_empty(), "once was enough");
    // A start that came to nothing is no eviction.
    space.give_back_slots(&start.hold.form.demand, &start.hold.slots);
    planner.put_back(JobId(0), Time(31)).unwrap();
    assert_eq!(planner.waiting(JobId(0)).unwrap().submitted, Time(0));
}

#[test]
fn hope_comes_back_with_room_that_no_job_had() {
    let mut space = cluster(2, 8, 2);
    let tree = QueueTree::unlimited("all");
    let queue = tree.queue("all").unwrap();
    let mut planner = planner("easy", &tree);
    let (one, both) = (form(&mut space, &tree, 1, 8), form(&mut space, &tree, 2, 8));
    planner.submit(Job { limit: Some(100), ..job(0, 0, queue, one.clone()) }).unwrap();
    decide(&mut planner, &mut space, 0);
    let foreign = space.find(&one.demand).unwrap();
    space.take_slots(&one.demand, &foreign);
    planner.submit(Job { limit: Some(50), ..job(1, 1, queue, both) }).unwrap();
    for now in [1, 2] {
        assert_eq!(planner.cycle(Time(now), &space).reserve, []);
    }
    space.give_back_slots(&one.demand, &foreign);
    assert_eq!(planner.cycle(Time(3), &space).reserve[0].from, Time(100));
}

#[test]
fn queues_that_are_gone_leave_their_jobs_in_the_refuge() {
    let mut space = cluster(2, 8, 2);
    let tree = cohort(&["a", "b"], 8);
    let mut planner = planner("easy", &tree);
    let whole = form(&mut space, &tree, 1, 8);
    for id in 0..3 {
        let queue = tree.queue(if id == 1 { "b" } else { "a" }).unwrap();
        planner.submit(Job { limit: Some(100), ..job(id, id as i64, queue, whole.clone()) }).unwrap();
        decide(&mut planner, &mut space, id as i64);
    }
    let other = cohort(&["b", "c"], 16);
    assert!(planner.set_tree(other.clone(), "nowhere", Time(5)).is_err());
    assert_eq!(planner.set_tree(other.clone(), "c", Time(5)).unwrap(), [JobId(2)]);
    let used = |name: &str| planner.tree().used(other.queue(name).unwrap(), 0);
    assert_eq!((used("b"), used("c")), (8000, 8000));
    let gate = &planner.waiting(JobId(2)).unwrap().gate;
    assert_eq!(*gate, Gate::Closed("queue a does not exist".to_owned()));
}

/// The queues of `cohort` with other quota, of which `processors` come before GPUs in the order of resources.
fn with_processors(names: &[&str], gpus: i64, processors: i64) -> QueueTree {
    let quota = |units: i64| Quota { nominal: units * 1000, ..Quota::default() };
    let cpu = FlavorResource::new("", "cpu");
    let mut specs = vec![QueueSpec::new("new"), QueueSpec::new("cohort").below("new")];
    specs.extend(names.iter().map(|name| {
        let queue = QueueSpec::new(*name).below("cohort").with_quota(gpu(), quota(gpus));
        queue.with_quota(cpu.clone(), quota(processors))
    }));
    QueueTree::build(specs).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn other_queues_count_everything_anew_and_the_same_again_change_nothing(
        load in prop::collection::vec((1..6u32, 1..80i64, 0..20i64, 0..2usize), 1..30),
        at in 0..30usize,
        processors in 1..30i64,
    ) {
        let mut space = cluster(6, 8, 3);
        let tree = cohort(&["a", "b"], 24);
        let cpu = FlavorResource::new("", "cpu");
        let mut submitted = 0;
        let arrivals: Vec<Arrival> = load.iter().enumerate().map(|(id, (pods, runs, pause, queue))| {
            submitted += pause;
            let mut form = form(&mut space, &tree, *pods, 8);
            form.charge = tree.charge([(&gpu(), form.gpus()), (&cpu, form.gpus() / 2)]);
            let queue = tree.queue(["a", "b"][*queue]).unwrap();
            Arrival { job: Job { limit: Some(*runs), ..job(id as u64, submitted, queue, form) }, runs: *runs }
        }).collect();
        let mut then = None;
        let mut cycles = 0;
        Drive::new(planner("muster", &tree), space).run(arrivals, |planner, space, now, _| {
            cycles += 1;
            if cycles <= at + 1 {
                then = Some((planner.clone(), space.clone(), now));
            }
        });
        let (before, space, now) = then.unwrap();
        let other = with_processors(&["b", "a"], 32, processors);
        let mut changed = before.clone();
        prop_assert_eq!(changed.set_tree(other.clone(), "a", now).unwrap(), []);
        let mut counted = other.clone();
        for running in changed.running() {
            let gpus = running.hold.form.gpus();
            let queue = other.queue(before.tree().name(
                before.running().find(|one| one.job.id == running.job.id).unwrap().job.queue)).unwrap();
            counted.add(queue, &other.charge([(&gpu(), gpus), (&cpu, gpus / 2)]));
        }
        for queue in other.queues() {
            for resource in 0..2 {
                prop_assert_eq!(changed.tree().used(queue, resource), counted.used(queue, resource));
            }
        }
        for start in changed.clone().cycle(now, &space).start {
            prop_assert!(counted.admits(start.hold.queue, &start.hold.form.charge), "over quota");
            counted.add(start.hold.queue, &start.hold.form.charge);
        }
        changed.set_tree(tree.clone(), "a", now).unwrap();
        let mut same = before.clone();
        same.nodes_changed();
        prop_assert_eq!(changed.cycle(now, &space), same.cycle(now, &space));
        for queue in tree.queues() {
            let later = now + 1_000_000;
            let shares = [&changed, &before].map(|one| one.fair_share().dominant_share(&tree, queue, later));
            prop_assert!((shares[0] - shares[1]).abs() < 1e-9, "{shares:?}");
        }
    }
}
