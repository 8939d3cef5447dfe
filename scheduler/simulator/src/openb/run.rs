//! One run: the pods of a seed under one policy.

use std::time::{Duration, Instant};

use muster_scheduler_core::fragmentation::{Choice, Fleet, Free, Want};
use serde::Serialize;

use crate::openb::baselines::Scorer;
use crate::openb::{Baseline, Pod, Trace};

/// GPUs handed out by the time that pods have asked for so much.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Allocation {
    /// GPUs asked for so far, in per cent of those there are.
    pub asked: f64,
    /// GPUs handed out, in per cent of those there are.
    pub given: f64,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// At each per cent asked for.
    pub curve: Vec<Allocation>,
    /// Pods that arrived.
    pub pods: usize,
    /// Pods without a place.
    pub dropped: usize,
    /// Time spent on decisions. The only figure that differs from run to run.
    pub deciding: Duration,
}

impl Run {
    /// GPUs handed out when pods had asked for `asked` per cent, in per cent.
    pub fn given_at(&self, asked: f64) -> f64 {
        let before = self.curve.partition_point(|point| point.asked <= asked + 1e-9);
        before.checked_sub(1).map_or(0.0, |index| self.curve[index].given)
    }
}

enum Chooser {
    Paper(Box<Scorer>),
    Ours(Box<Fleet>),
}

impl Chooser {
    fn choose(&mut self, want: &Want) -> Option<Choice> {
        match self {
            Self::Paper(scorer) => {
                let choice = scorer.choose(want)?;
                scorer.rooms[choice.node].take(choice.device, want);
                Some(choice)
            }
            Self::Ours(fleet) => {
                fleet.observe(want);
                let choice = fleet.best(want, |_| true)?;
                fleet.take(choice, want);
                Some(choice)
            }
        }
    }
}

/// Lets `arrivals` come one by one. A policy of `None` is ours: the values of core's [`Fleet`], learned from the
/// pods that came so far and nothing else.
pub fn run(trace: &Trace, arrivals: &[&Pod], policy: Option<Baseline>, seed: u64) -> Run {
    let mut chooser = if let Some(policy) = policy {
        Chooser::Paper(Box::new(Scorer::new(policy, trace, seed)))
    } else {
        let mut fleet = Fleet::default();
        for (node, machine) in trace.machines.iter().enumerate() {
            let devices = vec![1000; machine.devices];
            fleet.set(node, &Free { class: machine.model, host: machine.host, devices: &devices });
        }
        Chooser::Ours(Box::new(fleet))
    };
    let per_cent = |thousandths: u64| thousandths as f64 * 100.0 / trace.capacity().max(1) as f64;
    let (mut asked, mut given, mut dropped) = (0, 0, 0);
    let mut curve: Vec<Allocation> = vec![Allocation { asked: 0.0, given: 0.0 }];
    let begin = Instant::now();
    for pod in arrivals {
        let thousandths = u64::from(pod.want.gpu.thousandths());
        asked += thousandths;
        match chooser.choose(&pod.want) {
            Some(_) => given += thousandths,
            None => dropped += 1,
        }
        if curve.last().is_none_or(|last| per_cent(asked) >= last.asked.floor() + 1.0) {
            curve.push(Allocation { asked: per_cent(asked), given: per_cent(given) });
        }
    }
    let deciding = begin.elapsed();
    curve.push(Allocation { asked: per_cent(asked), given: per_cent(given) });
    Run { curve, pods: arrivals.len(), dropped, deciding }
}
