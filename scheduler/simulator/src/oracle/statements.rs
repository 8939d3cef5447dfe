//! Reasons and counterfactuals against the count.

use muster_scheduler_queue::explain::{Explanation, Reason, WhatIf};
use muster_scheduler_queue::job::JobId;

use super::naive::Naive;
use super::world::World;

impl World<'_> {
    /// Whether a job of these pods can start now in some place such that every promise can still be kept when it
    /// is due, each on its own.
    fn can_start(&self, id: u64, pods: u32, queue: usize, in_rack: bool) -> bool {
        let asked = self.asked(id);
        if !self.naive.quota_allows(queue, i64::from(pods * asked.gpus)) {
            return false;
        }
        let others = self.planner.promises().filter(|promise| promise.job != JobId(id));
        let promises: Vec<(u64, i64)> = others.map(|promise| (promise.job.0, promise.latest.0)).collect();
        self.naive.placements(pods, asked.gpus, in_rack).iter().any(|nodes| {
            promises.iter().all(|(other, from)| {
                let mut then = self.after(*from);
                if self.now + asked.runs > *from {
                    then.change(nodes, queue, 1);
                }
                let promised = self.asked(*other);
                then.quota_allows(promised.queue, promised.all_gpus())
                    && then.has_room(promised.pods, promised.gpus, promised.in_rack)
            })
        })
    }

    /// What is not true of the reason.
    pub(super) fn faults_of_reason(&self, id: u64, explained: &Explanation) -> Vec<String> {
        let (asked, naive) = (self.asked(id), &self.naive);
        let empty = Naive::empty(self.scenario.nodes, &self.scenario.queues);
        let within_quota = naive.quota_allows(asked.queue, asked.all_gpus());
        let has_room = |naive: &Naive| naive.has_room(asked.pods, asked.gpus, asked.in_rack);
        let mut faults = Vec::new();
        let mut claim = |holds: bool, what: &str| {
            if !holds {
                faults.push(what.to_owned());
            }
        };
        if !matches!(explained.reason, Reason::Quota(_) | Reason::NeverQuota(_)) {
            claim(within_quota, "its queue has too little quota");
        }
        match &explained.reason {
            Reason::Quota(shortage) => {
                claim(!within_quota, "its queue has enough quota");
                claim(empty.quota_allows(asked.queue, asked.all_gpus()), "its queue never has enough quota");
                let left = (shortage.free + shortage.borrowable) / 1000;
                claim(left <= 0 || naive.quota_allows(asked.queue, left), "less quota is left");
                claim(!naive.quota_allows(asked.queue, left + 1), "more quota is left");
            }
            Reason::NeverQuota(_) => {
                claim(!empty.quota_allows(asked.queue, asked.all_gpus()), "quota would do when nothing ran");
            }
            Reason::NeverFits => claim(!has_room(&empty), "it fits when nothing runs"),
            Reason::Room { needed, fits, .. } => {
                claim(*needed == asked.pods, "it needs another number of places");
                claim(*fits == naive.fits(asked.gpus), "another number of its pods fits");
                claim(fits < needed, "all fit");
            }
            Reason::Scattered => {
                claim(naive.fits(asked.gpus) >= asked.pods, "there is not enough room anywhere");
                claim(!has_room(naive), "there is room together");
            }
            Reason::Nearer(nearer) => {
                claim(self.scenario.policy == "muster", "the policy does not wait for that");
                claim(has_room(naive), "there is no room at all");
                claim(
                    naive.free.iter().all(|free| free / asked.gpus < asked.pods),
                    "one node has room for all",
                );
                let divided = nearer.domains > nearer.instead_of;
                claim(!divided || !naive.has_room(asked.pods, asked.gpus, true), "one rack has room for all");
                claim(nearer.until.0 > self.now, "it has waited for long enough");
            }
            Reason::Promised { to, from } => {
                claim(has_room(naive), "there is no room at all");
                claim(self.now + asked.runs > from.0, "it would be done in time");
                let promised = self.planner.promises().any(|one| one.job == *to && one.latest == *from);
                claim(promised, "nothing of the kind is promised");
            }
            Reason::Behind(_) => {
                claim(self.scenario.policy == "strict-fifo", "the policy lets it pass");
                claim(has_room(naive), "there is no room at all");
            }
            Reason::Starts
            | Reason::Gate(_)
            | Reason::Members { .. }
            | Reason::SetAside
            | Reason::Leaving => claim(false, "that is not the case"),
        }
        faults
    }

    /// Which counterfactuals are not true, or could be better.
    pub(super) fn faults_of_counterfactuals(&self, id: u64, explained: &Explanation) -> Vec<String> {
        let asked = self.asked(id);
        let promised = self.planner.promises().any(|promise| promise.job != JobId(id));
        // Strict order keeps it back for another reason, and whoever waited for long may be promised the room by
        // `muster` in the very decision that would start it.
        let says_all = !promised && !matches!(self.scenario.policy, "strict-fifo" | "muster");
        let mut faults = Vec::new();
        for what_if in &explained.what_if {
            let holds = match what_if {
                WhatIf::Pods { pods, instead_of } => {
                    let could_be_more = says_all && pods + 1 < asked.pods;
                    if could_be_more && self.can_start(id, pods + 1, asked.queue, asked.in_rack) {
                        faults.push(format!("it could start with more than {pods} pods"));
                    }
                    *instead_of == asked.pods && self.can_start(id, *pods, asked.queue, asked.in_rack)
                }
                WhatIf::Level { level, .. } => {
                    asked.in_rack && *level == 0 && self.can_start(id, asked.pods, asked.queue, false)
                }
                WhatIf::Queue(other) => self
                    .leaves
                    .iter()
                    .position(|leaf| leaf == other)
                    .is_some_and(|other| self.can_start(id, asked.pods, other, asked.in_rack)),
                WhatIf::Ends { job, at } => {
                    let ends = self.running.get(&job.0).map(|(_, ends)| *ends);
                    explained.expected.as_ref().is_some_and(|expected| expected.at == *at)
                        && ends.is_none_or(|ends| ends == at.0)
                }
                WhatIf::AnyDistance => {
                    matches!(explained.reason, Reason::Nearer(_))
                        && self.can_start(id, asked.pods, asked.queue, asked.in_rack)
                }
                WhatIf::AnyArrangement => false,
            };
            if !holds {
                let promises: Vec<_> =
                    self.planner.promises().map(|one| (one.job.0, one.from.0, one.latest.0)).collect();
                faults.push(format!("{what_if:?} is not true at {}; promised is {promises:?}", self.now));
            }
        }
        faults
    }
}
