//! How the queues and the cluster stand, for statuses and metrics.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time as ApiTime};
use muster_scheduler_api::QueueStatus;
use muster_scheduler_core::GpuDemand;
use muster_scheduler_core::devices::WHOLE;
use muster_scheduler_queue::time::Time;

use super::Planner;

/// How many gangs of a queue wait and run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct QueueFigures {
    /// That wait.
    pub waiting: usize,
    /// That run.
    pub running: usize,
    /// Seconds of a step that those which measure theirs are predicted to communicate, together.
    pub predicted: f64,
    /// Seconds of a step that the same have measured, together.
    pub observed: f64,
}

/// How the cluster stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// By queue, those that are declared and those that gangs name.
    pub queues: BTreeMap<String, QueueFigures>,
    /// GPUs of nodes that pods may be put on.
    pub gpus: f64,
    /// Those of them that are taken.
    pub gpus_taken: f64,
    /// Those of the free ones that the next pod cannot use, in expectation over the pods that wait and run: what is
    /// left of their nodes is too small for it.
    pub gpus_stranded: f64,
}

impl Planner {
    /// How the cluster stands.
    pub fn figures(&mut self) -> Figures {
        let mut figures = Figures::default();
        for name in self.queues.names() {
            figures.queues.entry(name.to_owned()).or_default();
        }
        for (key, state) in &self.gangs {
            let queue = figures.queues.entry(state.asked.queue().to_owned()).or_default();
            if state.stage.is_in_line() {
                queue.waiting += 1;
            } else {
                queue.running += 1;
                let predicted = self.ledger.predicted(&key.into());
                if let Some((predicted, observed)) = predicted.zip(self.measured_step(key)) {
                    queue.predicted += predicted;
                    queue.observed += observed;
                }
            }
        }
        let mut wants: BTreeMap<GpuDemand, f64> = BTreeMap::new();
        for (_, pod) in self.pods.iter() {
            *wants.entry(pod.member.gpu_demand()).or_default() += 1.0;
        }
        wants.remove(&GpuDemand::None);
        let all: f64 = wants.values().sum();
        let space = self.ledger.space();
        for (id, _) in space.nodes().filter(|(_, node)| node.schedulable) {
            let left = space.room(id).devices.left();
            let free = left.iter().map(|left| f64::from(*left)).sum::<f64>() / f64::from(WHOLE);
            figures.gpus += left.len() as f64;
            figures.gpus_taken += left.len() as f64 - free;
            let stranded = wants.iter().map(|(want, pods)| stranded(*want, left) * pods / all);
            figures.gpus_stranded += stranded.sum::<f64>();
        }
        figures
    }

    /// What is to be said of every declared queue.
    pub fn queue_statuses(&mut self, now: Timestamp) -> BTreeMap<String, QueueStatus> {
        let figures = self.figures().queues;
        let tree = self.line.tree();
        let due = self.line.fair_share().factors(tree, Time(now.as_millisecond()));
        let statuses = self.queues.names().map(|name| {
            let counts = figures.get(name).copied().unwrap_or_default();
            let mut status = QueueStatus {
                waiting: counts.waiting as i64,
                running: counts.running as i64,
                conditions: vec![self.is_ready(name, now)],
                ..QueueStatus::default()
            };
            if let Some(queue) = tree.queue(name) {
                status.due = due.get(queue.index()).map_or(0, |due| (due * 1000.0).round() as i64);
                for (index, resource) in (0_u16..).zip(tree.resources()) {
                    let note = |amounts: &mut BTreeMap<String, Quantity>, amount: i64| {
                        if amount > 0 {
                            amounts.insert(resource.resource.clone(), quantity(amount));
                        }
                    };
                    note(&mut status.usage, tree.used(queue, index));
                    note(&mut status.borrowed, tree.borrowed(queue, index));
                }
            }
            (name.to_owned(), status)
        });
        statuses.collect()
    }

    fn is_ready(&self, queue: &str, now: Timestamp) -> Condition {
        let (status, reason, message) = match self.queues.error(queue) {
            None => ("True", "Accepted", "its place in the tree and its quota are sound".to_owned()),
            Some(error) if self.line.tree().queue(queue).is_some() => {
                ("False", "Invalid", format!("{error}; it stays as it was before"))
            }
            Some(error) => ("False", "Invalid", format!("{error}; its gangs wait")),
        };
        Condition {
            type_: "Ready".to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: None,
            last_transition_time: ApiTime(now),
        }
    }
}

/// How many of a node's free GPUs a pod cannot use: all when it does not fit, else what it can take no more of.
fn stranded(want: GpuDemand, left: &[u16]) -> f64 {
    let thousandths = |least: u16| {
        let small = left.iter().filter(|left| **left < least);
        small.map(|left| f64::from(*left)).sum::<f64>() / f64::from(WHOLE)
    };
    match want {
        GpuDemand::None => 0.0,
        GpuDemand::Whole(count) => {
            let whole = left.iter().filter(|left| **left == WHOLE).count();
            thousandths(if whole < count as usize { u16::MAX } else { WHOLE })
        }
        GpuDemand::Share(share) => thousandths(share),
    }
}

/// Thousandths as Kubernetes writes amounts.
fn quantity(thousandths: i64) -> Quantity {
    Quantity(if thousandths % 1000 == 0 {
        (thousandths / 1000).to_string()
    } else {
        format!("{thousandths}m")
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{in_queue, node, pod, queue};
    use super::*;

    #[test]
    fn a_queue_says_what_it_uses_and_borrows_and_who_waits() {
        let mut planner = Planner::new(["muster".to_owned()]);
        planner.node_seen(&node("n0", 8));
        let mut lender = queue("lender", 4, None);
        lender.spec.parent = Some("all".into());
        let mut borrower = queue("borrower", 1, Some(2));
        borrower.spec.parent = Some("all".into());
        for queue in [&queue("all", 0, None), &lender, &borrower] {
            planner.queue_seen(queue);
        }
        for index in 0..3 {
            planner.pod_seen(&in_queue(pod("runs", index, 3, None), "borrower"));
        }
        for index in 0..2 {
            planner.pod_seen(&in_queue(pod("waits", index, 2, None), "borrower"));
        }
        planner.decide(Timestamp::UNIX_EPOCH);
        let status = &planner.queue_statuses(Timestamp::UNIX_EPOCH)["borrower"];
        assert_eq!((status.running, status.waiting), (1, 1));
        let gpus = |amounts: &BTreeMap<String, Quantity>| amounts["nvidia.com/gpu"].0.clone();
        assert_eq!((gpus(&status.usage), gpus(&status.borrowed)), ("3".to_owned(), "2".to_owned()));
        assert_eq!((status.conditions[0].status.as_str(), status.due < 1000), ("True", true));
        borrower.spec.parent = Some("nobody".into());
        planner.queue_seen(&borrower);
        planner.decide(Timestamp::UNIX_EPOCH);
        let status = &planner.queue_statuses(Timestamp::UNIX_EPOCH)["borrower"];
        let ready = &status.conditions[0];
        assert!(ready.message.contains("nobody does not exist"), "{ready:?}");
        assert!(ready.message.ends_with("it stays as it was before"), "{ready:?}");
        assert_eq!(status.running, 1);
    }

    #[test]
    fn free_gpus_that_are_of_no_use_to_those_who_wait_are_stranded() {
        let mut planner = Planner::new(["muster".to_owned()]);
        planner.node_seen(&node("n0", 4));
        planner.node_seen(&node("n1", 2));
        let mut wide = pod("wide", 0, 1, None);
        let limits = &mut wide.spec.as_mut().unwrap().containers[0].resources.as_mut().unwrap().limits;
        limits.as_mut().unwrap().insert("nvidia.com/gpu".into(), Quantity("4".into()));
        planner.pod_seen(&wide);
        let before = planner.figures();
        assert_eq!((before.gpus, before.gpus_taken, before.gpus_stranded), (6.0, 0.0, 2.0));
        planner.decide(Timestamp::UNIX_EPOCH);
        let after = planner.figures();
        assert_eq!((after.gpus_taken, after.gpus_stranded), (4.0, 2.0));
    }
}
