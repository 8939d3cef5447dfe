use proptest::prelude::*;

use super::*;

fn gpu() -> FlavorResource {
    FlavorResource::new("h100", "nvidia.com/gpu")
}

fn quota(nominal: i64, borrowing: Option<i64>, lending: Option<i64>) -> Quota {
    Quota { nominal, borrowing_limit: borrowing, lending_limit: lending }
}

fn leaf(name: &str, parent: &str, quota: Quota) -> QueueSpec {
    QueueSpec::new(name).below(parent).with_quota(gpu(), quota)
}

fn error(specs: Vec<QueueSpec>) -> String {
    QueueTree::build(specs).unwrap_err().to_string()
}

#[test]
fn faults_are_named() {
    let bad = leaf("a", "nowhere", quota(1, None, None));
    assert_eq!(error(vec![bad]), "queue a: parent nowhere does not exist; declare it or leave the field out");
    let ring = vec![QueueSpec::new("a").below("b"), QueueSpec::new("b").below("a")];
    assert_eq!(
        error(ring),
        "queues form a cycle: a is below b is below a; one of them must have another parent or none"
    );
    let negative = QueueSpec::new("a").with_quota(gpu(), quota(-5, None, None));
    let said = "queue a: nominalQuota of nvidia.com/gpu of flavor h100 is -5, and must not be negative";
    assert_eq!(error(vec![negative]), said);
    let lends = QueueSpec::new("a").with_quota(gpu(), quota(5, None, Some(6)));
    assert!(error(vec![lends]).contains("above the 5 it has to lend"));
    assert!(error(vec![QueueSpec::new("a"), QueueSpec::new("a")]).contains("declared twice"));
    let weightless = QueueSpec { weight: 0.0, ..QueueSpec::new("a") };
    assert!(error(vec![weightless]).contains("weight must be a number above 0"));
}

#[test]
fn borrowing_is_bounded_by_what_others_lend_and_by_ones_own_limit() {
    let tree = QueueTree::build(vec![
        QueueSpec::new("cohort"),
        leaf("a", "cohort", quota(20, Some(100), None)),
        leaf("b", "cohort", quota(20, Some(5), Some(8))),
    ]);
    let mut tree = tree.unwrap();
    let (a, b) = (tree.queue("a").unwrap(), tree.queue("b").unwrap());
    assert_eq!((tree.available(a, 0), tree.available(b, 0)), (28, 25));
    let charge = tree.charge([(&gpu(), 28)]);
    let admission = tree.admit(a, &charge).unwrap();
    assert_eq!(admission.own, [(0, 20)]);
    assert_eq!(admission.borrowed[0].lenders, [(b, 8)]);
    tree.add(a, &charge);
    assert_eq!((tree.available(a, 0), tree.available(b, 0), tree.borrowed(a, 0)), (0, 12, 8));
    let shortage = tree.admit(b, &tree.charge([(&gpu(), 20)])).unwrap_err();
    assert_eq!((shortage.needs, shortage.free, shortage.borrowable, shortage.most), (20, 12, 0, 25));
    assert!(tree.may_reclaim(b, &tree.charge([(&gpu(), 20)]), a), "b wants its own back");
    assert!(!tree.may_reclaim(a, &charge, b), "b borrows nothing");
}

/// A random forest of up to three levels.
fn forest() -> impl Strategy<Value = Vec<QueueSpec>> {
    let one = (0..40i64, proptest::option::of(0..30i64), proptest::option::of(0..100u8), 0..8usize);
    proptest::collection::vec(one, 1..9).prop_map(|quotas| {
        let mut specs: Vec<QueueSpec> = Vec::new();
        for (index, (nominal, borrowing, lending, parent)) in quotas.into_iter().enumerate() {
            let lending = lending.map(|part| nominal * i64::from(part) / 100);
            let mut spec =
                QueueSpec::new(format!("q{index}")).with_quota(gpu(), quota(nominal, borrowing, lending));
            if index > 0 && parent < index + 1 {
                spec = spec.below(format!("q{}", parent.min(index - 1)));
            }
            specs.push(spec);
        }
        specs
    })
}

/// What each queue counts, computed from its jobs from scratch.
fn counted(tree: &QueueTree, queue: QueueId, jobs: &[(QueueId, i64)]) -> i64 {
    let own: i64 = jobs.iter().filter(|job| job.0 == queue).map(|job| job.1).sum();
    let below = tree.children(queue).iter().map(|child| {
        let kept = tree.cell(*child, 0).kept;
        (counted(tree, *child, jobs) - kept).max(0)
    });
    own + below.sum::<i64>()
}

proptest! {
    #[test]
    fn usage_is_conserved_and_nobody_overborrows(
        specs in forest(),
        steps in proptest::collection::vec((0..8usize, 1..25i64, any::<bool>()), 1..60),
    ) {
        let mut tree = QueueTree::build(specs).unwrap();
        let queues: Vec<QueueId> = tree.queues().collect();
        let mut jobs: Vec<(QueueId, i64)> = Vec::new();
        for (pick, amount, leaves) in steps {
            if leaves && !jobs.is_empty() {
                let (queue, amount) = jobs.swap_remove(pick % jobs.len());
                tree.remove(queue, &tree.charge([(&gpu(), amount)]));
            } else {
                let queue = queues[pick % queues.len()];
                let charge = tree.charge([(&gpu(), amount)]);
                let admitted = tree.admit(queue, &charge);
                prop_assert_eq!(admitted.is_ok(), tree.admits(queue, &charge));
                if let Ok(admission) = admitted {
                    let own: i64 = admission.own.iter().map(|part| part.1).sum();
                    let borrowed: i64 = admission.borrowed.iter().map(|loan| loan.amount).sum();
                    prop_assert_eq!(own + borrowed, amount);
                    tree.add(queue, &charge);
                    jobs.push((queue, amount));
                }
            }
            for queue in &queues {
                prop_assert_eq!(tree.used(*queue, 0), counted(&tree, *queue, &jobs));
                let cell = tree.cell(*queue, 0);
                if let Some(limit) = cell.borrowing_limit.filter(|_| tree.parent(*queue).is_some()) {
                    prop_assert!(tree.used(*queue, 0) <= cell.room + limit, "over the borrowing limit");
                }
                if tree.parent(*queue).is_none() {
                    prop_assert!(tree.used(*queue, 0) <= cell.room, "more used than there is");
                }
            }
        }
        for (queue, amount) in jobs {
            tree.remove(queue, &tree.charge([(&gpu(), amount)]));
        }
        prop_assert!(queues.iter().all(|queue| tree.used(*queue, 0) == 0));
    }

    /// Whoever is within its nominal quota gets it back once the borrowers that may be reclaimed from are gone.
    #[test]
    fn reclaim_restores_nominal(
        specs in forest(),
        picks in proptest::collection::vec((0..8usize, 1..25i64), 1..40),
        wants in 0..8usize,
    ) {
        let mut tree = QueueTree::build(specs).unwrap();
        let queues: Vec<QueueId> = tree.queues().collect();
        let mut jobs: Vec<(QueueId, i64)> = Vec::new();
        for (pick, amount) in picks {
            let queue = queues[pick % queues.len()];
            let charge = tree.charge([(&gpu(), amount)]);
            if tree.admits(queue, &charge) {
                tree.add(queue, &charge);
                jobs.push((queue, amount));
            }
        }
        let queue = queues[wants % queues.len()];
        let own = tree.spec(queue).quotas[&gpu()].nominal;
        let free = own - tree.used(queue, 0).min(own);
        let charge = tree.charge([(&gpu(), free)]);
        // Only queues whose every ancestor is within its room are owed something.
        let owed = tree.path(queue).all(|above| tree.children(above).is_empty() || tree.used(above, 0) <= tree.room(above, 0));
        while let Some(index) = jobs.iter().position(|job| {
            !tree.admits(queue, &charge) && tree.may_reclaim(queue, &charge, job.0)
        }) {
            let (victim, amount) = jobs.swap_remove(index);
            tree.remove(victim, &tree.charge([(&gpu(), amount)]));
        }
        let no_jobs_above = tree.path(queue).skip(1).all(|above| !jobs.iter().any(|job| job.0 == above));
        if owed && no_jobs_above && tree.children(queue).is_empty() {
            prop_assert!(tree.admits(queue, &charge), "{free} of its own are not available");
        }
    }
}
