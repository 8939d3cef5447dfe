//! What is to be said of a gang, for people and programs: how far it has come, why it waits, when it is expected
//! to start, and what would let it start sooner.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use muster_scheduler_core::{Closeness, PodKey};
use muster_scheduler_queue::estimate::Basis;
use muster_scheduler_queue::explain::{Reason, WhatIf};
use muster_scheduler_queue::job::JobId;
use muster_scheduler_queue::outlook::Outlook;
use muster_scheduler_queue::time::{Milliseconds, Time};
use schemars::JsonSchema;
use serde::Serialize;

use super::pods::GangKey;
use super::telling;
use super::{Decisions, Planner};

/// What it takes a gang to go on elsewhere, beside the work that it repeats, in milliseconds.
const RESTART: Milliseconds = 60_000;

/// How far a gang has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub enum Phase {
    /// It stands in line.
    Waiting,
    /// It has its places.
    Running,
}

/// Pods of a gang on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePlaces {
    /// The node.
    pub node: String,
    /// The pods, each with its GPU slots where they are known.
    pub pods: BTreeMap<String, Vec<u32>>,
}

/// What the moment of an expected start rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub enum StartBasis {
    /// The jobs that must end first declare how long they run.
    Declared,
    /// Jobs like them have ended before.
    Learned,
}

/// When a gang is expected to start, were nothing else to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExpectedStart {
    /// The moment.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: Timestamp,
    /// What it rests on.
    pub basis: StartBasis,
}

/// A change that would let a gang start now, or what will. Each was planned with before it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "change", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Alternative {
    /// Fewer pods.
    Pods {
        /// So many.
        pods: u32,
        /// Of so many that must start together.
        instead_of: u32,
    },
    /// A wider domain for all pods, by the topology's names of levels.
    Level {
        /// All pods within one domain of this level, the whole cluster included.
        level: String,
        /// Instead of this one.
        instead_of: String,
    },
    /// No waiting for places nearer to each other than those that are free.
    AnyDistance,
    /// Neither spread nor slices.
    AnyArrangement,
    /// Another queue.
    Queue {
        /// This one.
        queue: String,
    },
    /// Other gangs continue elsewhere from their checkpoints.
    Moves {
        /// They, with their namespaces.
        gangs: Vec<String>,
        /// Work that is repeated, in GPU-seconds.
        repeated_gpu_seconds: i64,
    },
    /// Another gang's end, which is expected.
    Ends {
        /// The gang, with its namespace.
        gang: String,
        /// When, if that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>", extend("format" = "date-time"))]
        at: Option<Timestamp>,
    },
}

impl fmt::Display for Alternative {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods { pods, instead_of } => {
                write!(formatter, "starts now with {pods} of {instead_of} pods")
            }
            Self::Level { level, instead_of } => {
                write!(formatter, "starts now within one {level} instead of one {instead_of}")
            }
            Self::AnyDistance => formatter.write_str("starts now if it does not wait for nearer places"),
            Self::AnyArrangement => formatter.write_str("starts now without spreading or slices"),
            Self::Queue { queue } => write!(formatter, "starts now in queue {queue}"),
            Self::Moves { gangs, repeated_gpu_seconds: repeated } => {
                write!(
                    formatter,
                    "starts now if {} moved and went on from the last checkpoint",
                    gangs.join(", ")
                )?;
                write!(formatter, " ({:.1} GPU-hours repeated)", *repeated as f64 / 3600.0)
            }
            Self::Ends { gang, at: None } => write!(formatter, "starts when {gang} ends"),
            Self::Ends { gang, at: Some(at) } => {
                write!(formatter, "starts when {gang} ends, expected at {}", minute(*at))
            }
        }
    }
}

/// A moment to the minute: whoever reads it does not want to read it every second.
pub(super) fn minute(at: Timestamp) -> impl fmt::Display {
    at.strftime("%Y-%m-%d %H:%M UTC")
}

/// All that is to be said of one gang.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GangReport {
    /// Namespace.
    pub namespace: String,
    /// Name of the gang, or `pod NAME` for a pod without one.
    pub gang: String,
    /// Its queue.
    pub queue: String,
    /// Its priority.
    pub priority: i32,
    /// How far it has come.
    pub phase: Phase,
    /// Pods that exist and have not ended.
    pub pods: usize,
    /// Pods that must be placed at once.
    pub min_available: usize,
    /// Where its pods are, as far as they have places.
    pub places: Vec<NodePlaces>,
    /// Whether it would start at once.
    pub starts_now: bool,
    /// Why it does not start now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its place in line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place_in_line: Option<usize>,
    /// How many stand in line.
    pub line_length: usize,
    /// When it is expected to start, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_start: Option<ExpectedStart>,
    /// What would let it start.
    pub alternatives: Vec<Alternative>,
}

/// What would become of a gang that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prospect {
    /// The gang; its places are those that it would get at once.
    #[serde(flatten)]
    pub report: GangReport,
    /// Gangs that would be evicted for it, with their namespaces.
    pub evicts: Vec<String>,
}

impl Planner {
    /// Brings the line up to date with what was seen, without starting anybody.
    pub fn catch_up(&mut self, now: Timestamp) {
        self.settle(Time(now.as_millisecond()));
    }

    /// Namespace and name of every gang that waits or runs.
    pub fn gangs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.gangs.keys().map(|key| (key.namespace.as_str(), key.name.as_str()))
    }

    /// What is to be said of a gang after [`Planner::catch_up`]; nothing when it is not known.
    pub fn report(&mut self, namespace: &str, gang: &str, now: Timestamp) -> Option<GangReport> {
        let mut outlook = self.outlook(now);
        self.report_by(&mut outlook, namespace, gang, now)
    }

    pub(super) fn outlook(&mut self, now: Timestamp) -> Outlook {
        self.line.outlook(Time(now.as_millisecond()), self.ledger.space())
    }

    pub(super) fn report_by(
        &mut self,
        outlook: &mut Outlook,
        namespace: &str,
        gang: &str,
        now: Timestamp,
    ) -> Option<GangReport> {
        let key = GangKey { namespace: namespace.to_owned(), name: gang.to_owned() };
        let state = self.gangs.get(&key)?;
        let (job, waits, asked) = (state.job, state.stage.is_in_line(), state.asked.clone());
        let mut report = GangReport {
            namespace: key.namespace.clone(),
            gang: key.name.clone(),
            queue: asked.queue().to_owned(),
            priority: asked.priority(),
            phase: if waits { Phase::Waiting } else { Phase::Running },
            pods: self.pods.of(&key).count(),
            min_available: self.pods.gang(&key).min_available,
            places: self.places(&key),
            starts_now: false,
            reason: None,
            place_in_line: None,
            line_length: self.line.waiting_count(),
            expected_start: None,
            alternatives: Vec::new(),
        };
        if !waits {
            return Some(report);
        }
        let explanation = outlook.explain(job).ok()?;
        report.starts_now = explanation.reason == Reason::Starts;
        report.reason = (!report.starts_now)
            .then(|| telling::sentence(&self.line, self.ledger.space(), &asked.gang, &explanation.reason));
        report.place_in_line = Some(explanation.place);
        report.expected_start = explanation.expected.and_then(|expected| {
            let basis = match expected.basis {
                Basis::Declared => StartBasis::Declared,
                Basis::Learned => StartBasis::Learned,
                Basis::Supposed => return None,
            };
            Some(ExpectedStart { at: Timestamp::from_millisecond(expected.at.0).ok()?, basis })
        });
        let known = report.expected_start.map(|expected| expected.at);
        let closeness = &asked.gang.closeness;
        report.alternatives =
            explanation.what_if.iter().map(|what_if| self.alternative(what_if, closeness, known)).collect();
        report.alternatives.extend(self.moves(job, now));
        Some(report)
    }

    /// Moves of gangs able to continue from a checkpoint that would let a gang start now.
    fn moves(&mut self, job: JobId, now: Timestamp) -> Option<Alternative> {
        let space = self.ledger.space().clone();
        let proposal = self.line.consolidate(job, Time(now.as_millisecond()), &space, RESTART)?;
        if proposal.moves.is_empty() {
            return None;
        }
        let mut gangs: Vec<String> = proposal.moves.iter().map(|one| self.gang_of(one.job)).collect();
        gangs.sort();
        Some(Alternative::Moves { gangs, repeated_gpu_seconds: proposal.loss / 1_000_000 })
    }

    /// What would become of these gangs, by namespace and name, if everybody who can start did. It decides, so this
    /// planner must be a picture that nobody acts on, after [`Planner::catch_up`].
    pub fn prospects(&mut self, gangs: &BTreeSet<(String, String)>, now: Timestamp) -> Vec<Prospect> {
        let mut outlook = self.outlook(now);
        let reports: Vec<GangReport> = gangs
            .iter()
            .filter_map(|(namespace, gang)| self.report_by(&mut outlook, namespace, gang, now))
            .collect();
        let time = Time(now.as_millisecond());
        let plan = self.line.cycle(time, self.ledger.space());
        for start in &plan.start {
            self.start(start, time, &mut Decisions::default());
        }
        let waiting = reports.into_iter().filter(|report| report.phase == Phase::Waiting);
        waiting
            .map(|mut report| {
                let key = GangKey { namespace: report.namespace.clone(), name: report.gang.clone() };
                report.places = self.places(&key);
                let job = self.gangs.get(&key).map(|state| state.job);
                let preemptions = plan.preempt.iter().filter(|preempt| Some(preempt.job) == job);
                let victims = preemptions.flat_map(|preempt| &preempt.victims);
                let evicts = victims.map(|victim| self.gang_of(*victim)).collect();
                Prospect { report, evicts }
            })
            .collect()
    }

    /// Whether a pod is known that has not ended.
    pub fn knows(&self, namespace: &str, pod: &str) -> bool {
        let key = PodKey::new(namespace, pod);
        self.pods.get(&key).is_some() || self.ledger.assignment(&key).is_some()
    }

    /// The gang of a pod that it places: its name, or `pod NAME`.
    pub fn gang_name(&self, namespace: &str, pod: &str) -> Option<String> {
        Some(self.pods.get(&PodKey::new(namespace, pod))?.gang.name.clone())
    }

    fn places(&self, key: &GangKey) -> Vec<NodePlaces> {
        let mut nodes: BTreeMap<&str, BTreeMap<String, Vec<u32>>> = BTreeMap::new();
        for (pod, _) in self.pods.of(key) {
            if let Some(assignment) = self.ledger.assignment(pod) {
                let pods = nodes.entry(&assignment.node).or_default();
                pods.insert(pod.name.clone(), assignment.gpu_indices.clone());
            }
        }
        nodes.into_iter().map(|(node, pods)| NodePlaces { node: node.to_owned(), pods }).collect()
    }

    fn alternative(
        &mut self,
        what_if: &WhatIf,
        closeness: &Closeness,
        expected: Option<Timestamp>,
    ) -> Alternative {
        match what_if {
            WhatIf::Pods { pods, instead_of } => Alternative::Pods { pods: *pods, instead_of: *instead_of },
            WhatIf::Level { level, instead_of } => {
                let map = self.ledger.space().map();
                let name = |level: usize| {
                    let level = map.topology().levels().get(level);
                    level.map_or_else(|| "cluster".to_owned(), |level| level.name.clone())
                };
                let required = closeness.required.clone();
                Alternative::Level {
                    level: name(*level),
                    instead_of: required.unwrap_or_else(|| name(*instead_of)),
                }
            }
            WhatIf::AnyDistance => Alternative::AnyDistance,
            WhatIf::AnyArrangement => Alternative::AnyArrangement,
            WhatIf::Queue(queue) => Alternative::Queue { queue: self.line.tree().name(*queue).to_owned() },
            WhatIf::Ends { job, .. } => Alternative::Ends { gang: self.gang_of(*job), at: expected },
        }
    }

    /// For people.
    fn gang_of(&self, job: JobId) -> String {
        self.jobs.get(&job).map_or_else(|| "another gang".to_owned(), ToString::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{node, pod};
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_000, 0);

    /// Two nodes of four GPUs; a gang of six that declares to run for ten minutes more.
    fn planner() -> Planner {
        let mut planner = Planner::new(["muster".to_owned()]);
        planner.node_seen(&node("n0", 4));
        planner.node_seen(&node("n1", 4));
        for index in 0..6 {
            let mut running = pod("first", index, 6, Some(if index < 4 { "n0" } else { "n1" }));
            let annotations = running.metadata.annotations.get_or_insert_default();
            annotations.insert("muster.dev/time-limit".to_owned(), "10m".to_owned());
            running.metadata.creation_timestamp =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW));
            planner.pod_seen(&running);
        }
        planner
    }

    fn gang(planner: &mut Planner, name: &str, pods: u32) {
        for index in 0..pods {
            planner.pod_seen(&pod(name, index, pods, None));
        }
        planner.catch_up(NOW);
    }

    #[test]
    fn who_waits_is_told_why_until_when_and_what_would_help() {
        let mut planner = planner();
        gang(&mut planner, "second", 3);
        let report = planner.report("a", "second", NOW).unwrap();
        assert_eq!((report.phase, report.starts_now, report.place_in_line), (Phase::Waiting, false, Some(1)));
        assert!(
            report.reason.as_deref().is_some_and(|reason| reason.contains("nvidia.com/gpu")),
            "{report:?}"
        );
        let end = NOW + jiff::SignedDuration::from_mins(10);
        assert_eq!(
            report.expected_start,
            Some(ExpectedStart { at: end, basis: StartBasis::Declared }),
            "when the first ends"
        );
        assert_eq!(
            report.alternatives,
            [
                Alternative::Pods { pods: 2, instead_of: 3 },
                Alternative::Ends { gang: "a/first".to_owned(), at: Some(end) }
            ]
        );
    }

    #[test]
    fn who_asks_for_more_than_there_is_is_not_told_to_wait_for_it() {
        let mut planner = planner();
        gang(&mut planner, "huge", 9);
        let report = planner.report("a", "huge", NOW).unwrap();
        assert_eq!(report.reason.as_deref(), Some("it would not fit if all nodes were empty"));
        assert_eq!((report.expected_start, report.alternatives.len()), (None, 1), "{report:?}");
    }

    #[test]
    fn a_wider_level_is_named_as_people_know_it() {
        let mut planner = planner();
        planner.node_seen(&node("n2", 1));
        for index in 0..3 {
            let mut member = pod("near", index, 3, None);
            let annotations = member.metadata.annotations.get_or_insert_default();
            annotations.insert("muster.dev/required-topology".to_owned(), "host".to_owned());
            planner.pod_seen(&member);
        }
        planner.catch_up(NOW);
        let report = planner.report("a", "near", NOW).unwrap();
        let wider = Alternative::Level { level: "cluster".to_owned(), instead_of: "host".to_owned() };
        assert!(report.alternatives.contains(&wider), "{report:?}");
        assert_eq!(wider.to_string(), "starts now within one cluster instead of one host");
    }

    #[test]
    fn gangs_with_checkpoints_are_proposed_to_be_moved() {
        let mut planner = Planner::new(["muster".to_owned()]);
        planner.node_seen(&node("n0", 4));
        planner.node_seen(&node("n1", 4));
        for (gang, node) in [("left", "n0"), ("right", "n1")] {
            for index in 0..2 {
                let mut running = pod(gang, index, 2, Some(node));
                let annotations = running.metadata.annotations.get_or_insert_default();
                annotations.insert("muster.dev/checkpoint-every".to_owned(), "30m".to_owned());
                running.metadata.creation_timestamp =
                    Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW));
                planner.pod_seen(&running);
            }
        }
        for index in 0..4 {
            let mut member = pod("whole", index, 4, None);
            let annotations = member.metadata.annotations.get_or_insert_default();
            annotations.insert("muster.dev/required-topology".to_owned(), "host".to_owned());
            planner.pod_seen(&member);
        }
        planner.catch_up(NOW);
        let report = planner.report("a", "whole", NOW).unwrap();
        let moves = report.alternatives.iter().find(|one| matches!(one, Alternative::Moves { .. }));
        let Some(Alternative::Moves { gangs, repeated_gpu_seconds }) = moves else { panic!("{report:?}") };
        assert_eq!(
            (gangs.len(), *repeated_gpu_seconds),
            (1, 120),
            "one of the two, for a minute of two GPUs"
        );
    }

    #[test]
    fn a_prospect_names_the_places_and_starts_nothing_twice() {
        let mut planner = planner();
        gang(&mut planner, "small", 2);
        let wanted = BTreeSet::from([("a".to_owned(), "small".to_owned())]);
        let prospects = planner.prospects(&wanted, NOW);
        assert_eq!(prospects.len(), 1);
        assert!(prospects[0].report.starts_now && prospects[0].evicts.is_empty());
        let places: Vec<(&str, usize)> =
            prospects[0].report.places.iter().map(|place| (place.node.as_str(), place.pods.len())).collect();
        assert_eq!(places, [("n1", 2)]);
        assert_eq!(planner.report("a", "first", NOW).unwrap().phase, Phase::Running);
        assert_eq!(planner.report("a", "nobody", NOW), None);
    }
}
