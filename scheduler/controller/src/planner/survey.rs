//! A picture of the planner at one moment, for those who show the cluster. What takes long to work out is worked out
//! when somebody asks, and once.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use muster_scheduler_api::QueueSpec;
use muster_scheduler_queue::outlook::Outlook;
use muster_scheduler_topology::{LevelIndex, Position, Topology};
use schemars::JsonSchema;
use serde::Serialize;

use super::pods::GangKey;
use super::{GangReport, Phase, Planner};

/// GPUs of a node or domain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GpuCount {
    /// All of them.
    pub all: u32,
    /// Those that nobody has a part of.
    pub free: u32,
}

/// A node as the scheduler sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Whether pods may be put on it.
    pub schedulable: bool,
    /// Its GPUs.
    pub gpus: GpuCount,
    /// By level of the topology, the path of the domain that it is in.
    pub domains: BTreeMap<String, String>,
}

/// A domain of the topology above the nodes.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DomainReport {
    /// Its level.
    pub level: String,
    /// Names from below the whole cluster down to it, with slashes.
    pub path: String,
    /// The path of the domain that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// How many nodes it has.
    pub nodes: u32,
    /// Their GPUs.
    pub gpus: GpuCount,
    /// The link upwards in GB/s per direction, oversubscription taken off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplink_gigabytes_per_second: Option<f64>,
}

/// Where the nodes are.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologyReport {
    /// Levels, the largest domains first and hosts last.
    pub levels: Vec<String>,
    /// Domains above the nodes, level by level.
    pub domains: Vec<DomainReport>,
    /// Why what others wrote down about where nodes are is not followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// How a queue stands.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueReport {
    /// Its name.
    pub name: String,
    /// As it is declared; absent when gangs name it and it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<QueueSpec>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Gangs that wait.
    pub waiting: usize,
    /// Gangs that run.
    pub running: usize,
    /// What is used of it, by resource that has quota.
    pub usage: BTreeMap<String, String>,
    /// How much of that is beyond its own.
    pub borrowed: BTreeMap<String, String>,
    /// How well it is due by its fair share, in thousandths: 0 has used the most, 1000 the least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<i64>,
}

/// Which gangs are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) namespace: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) phase: Option<Phase>,
}

/// The planner at one moment.
#[derive(Debug)]
pub(crate) struct Survey {
    planner: Planner,
    taken: Timestamp,
    /// The look into the future that answers for all gangs, once somebody asks.
    outlook: Option<Outlook>,
    reports: BTreeMap<GangKey, Option<GangReport>>,
}

impl Survey {
    /// `planner` as it was at the moment `taken`.
    pub(crate) fn new(planner: Planner, taken: Timestamp) -> Self {
        Self { planner, taken, outlook: None, reports: BTreeMap::new() }
    }

    /// The planner, to suppose things on a copy.
    pub(crate) fn planner(&self) -> &Planner {
        &self.planner
    }

    /// The gangs of a selection, in the order of their names.
    pub(crate) fn gangs(&self, selection: &Selection) -> Vec<GangKey> {
        let Selection { namespace, queue, phase } = selection;
        let selected = self.planner.gangs.iter().filter(|(key, state)| {
            let its = if state.stage.is_in_line() { Phase::Waiting } else { Phase::Running };
            namespace.as_ref().is_none_or(|wanted| *wanted == key.namespace)
                && queue.as_ref().is_none_or(|wanted| wanted == state.asked.queue())
                && phase.is_none_or(|wanted| wanted == its)
        });
        selected.map(|(key, _)| key.clone()).collect()
    }

    /// What is to be said of a gang; nothing when it is not known.
    pub(crate) fn report(&mut self, key: &GangKey) -> Option<GangReport> {
        if let Some(known) = self.reports.get(key) {
            return known.clone();
        }
        let Self { planner, taken, outlook, .. } = self;
        let outlook = outlook.get_or_insert_with(|| {
            planner.catch_up(*taken);
            planner.outlook(*taken)
        });
        let report = planner.report_by(outlook, &key.namespace, &key.name, *taken);
        self.reports.insert(key.clone(), report.clone());
        report
    }

    /// The queues that are declared, and those that gangs name.
    pub(crate) fn queues(&mut self) -> Vec<QueueReport> {
        let mut statuses = self.planner.queue_statuses(self.taken);
        let reports = self.planner.figures().queues.into_iter().map(|(name, figures)| {
            let status = statuses.remove(&name);
            let spec = self.planner.queues.declared(&name).cloned();
            let in_force = self.planner.line.tree().queue(&name).is_some();
            let wrong = self.planner.queues.error(&name).is_some() || (spec.is_none() && !in_force);
            let (usage, borrowed, due) = match status {
                Some(status) => (status.usage, status.borrowed, Some(status.due)),
                None => Default::default(),
            };
            let amounts = |amounts: BTreeMap<_, _>| {
                let written = |(resource, amount): (String, Quantity)| (resource, amount.0);
                amounts.into_iter().map(written).collect()
            };
            QueueReport {
                problem: wrong.then(|| self.planner.queues.what_is_wrong_with(&name)),
                spec,
                waiting: figures.waiting,
                running: figures.running,
                usage: amounts(usage),
                borrowed: amounts(borrowed),
                due,
                name,
            }
        });
        reports.collect()
    }

    /// The nodes, in the order of their names.
    pub(crate) fn nodes(&mut self) -> Vec<NodeReport> {
        let map = self.planner.map();
        let topology = map.topology();
        let space = self.planner.ledger.space();
        let nodes = map.nodes().enumerate().filter_map(|(position, id)| {
            let node = space.node(id)?;
            let gpus = GpuCount { all: node.gpu_slots, free: space.room(id).devices.whole() };
            let domains = inner_levels(topology).map(|level| {
                let domain = topology.domain_at(level, Position(position as u32));
                (topology.levels()[level.index()].name.clone(), topology.path(domain))
            });
            let (name, schedulable) = (node.name.clone(), node.schedulable);
            Some(NodeReport { name, schedulable, gpus, domains: domains.collect() })
        });
        let mut nodes: Vec<NodeReport> = nodes.collect();
        nodes.sort_by(|left, right| left.name.cmp(&right.name));
        nodes
    }

    /// Where the nodes are.
    pub(crate) fn topology(&mut self) -> TopologyReport {
        let gpus = self.planner.gpus();
        let (map, fault) = (self.planner.map(), self.planner.places_fault());
        let topology = map.topology();
        let domains = inner_levels(topology).flat_map(|level| {
            let name = &topology.levels()[level.index()].name;
            topology.domains(level).map(|domain| {
                let positions = topology.positions(domain);
                let within = &gpus[positions.start as usize..positions.end as usize];
                let sum = |one: fn(&(u32, u32)) -> u32| within.iter().map(one).sum();
                let above = topology.parent(domain).filter(|parent| topology.parent(*parent).is_some());
                let uplink = topology.uplink(domain).bandwidth;
                DomainReport {
                    level: name.clone(),
                    path: topology.path(domain),
                    parent: above.map(|parent| topology.path(parent)),
                    nodes: positions.end - positions.start,
                    gpus: GpuCount { all: sum(|(_, all)| *all), free: sum(|(free, _)| *free) },
                    uplink_gigabytes_per_second: uplink.is_finite().then_some(uplink),
                }
            })
        });
        let levels = topology.levels().iter().map(|level| level.name.clone()).collect();
        TopologyReport { levels, domains: domains.collect(), fault }
    }
}

/// Levels between the whole cluster and its hosts.
fn inner_levels(topology: &Topology) -> impl Iterator<Item = LevelIndex> + use<> {
    let host = topology.host_level();
    topology.level_indices().filter(move |level| level.index() > 0 && *level != host)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{in_queue, node, pod, queue};
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_000, 0);

    fn survey() -> Survey {
        let mut planner = Planner::new(["muster".to_owned()]);
        planner.queue_seen(&queue("research", 8, None));
        for (name, rack) in [("n0", "r0"), ("n1", "r1")] {
            let mut node = node(name, 4);
            node.metadata
                .labels
                .get_or_insert_default()
                .insert("muster.dev/rack".to_owned(), rack.to_owned());
            planner.node_seen(&node);
        }
        for index in 0..3 {
            planner.pod_seen(&in_queue(pod("runs", index, 3, Some("n0")), "research"));
        }
        for index in 0..6 {
            planner.pod_seen(&in_queue(pod("wide", index, 6, None), "research"));
        }
        planner.pod_seen(&in_queue(pod("lost", 0, 1, None), "nobody"));
        planner.decide(NOW);
        Survey::new(planner, NOW)
    }

    fn named(survey: &Survey, selection: Selection) -> Vec<String> {
        survey.gangs(&selection).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn gangs_are_selected_by_namespace_queue_and_phase() {
        let survey = survey();
        assert_eq!(named(&survey, Selection::default()), ["a/lost", "a/runs", "a/wide"]);
        let waiting = Selection { phase: Some(Phase::Waiting), ..Selection::default() };
        assert_eq!(named(&survey, waiting), ["a/lost", "a/wide"]);
        let queue = Selection { queue: Some("research".to_owned()), ..Selection::default() };
        assert_eq!(named(&survey, queue), ["a/runs", "a/wide"]);
        let elsewhere = Selection { namespace: Some("b".to_owned()), ..Selection::default() };
        assert_eq!(named(&survey, elsewhere), [] as [&str; 0]);
    }

    #[test]
    fn a_report_is_the_planners_own() {
        let mut survey = survey();
        let key = GangKey { namespace: "a".to_owned(), name: "wide".to_owned() };
        let mut planner = survey.planner().clone();
        planner.catch_up(NOW);
        let report = survey.report(&key);
        assert_eq!(report, planner.report("a", "wide", NOW));
        assert!(report.is_some_and(|report| report.reason.is_some()));
        assert_eq!(survey.report(&GangKey { name: "nobody".to_owned(), ..key }), None);
    }

    #[test]
    fn nodes_domains_and_queues_add_up() {
        let mut survey = survey();
        insta::assert_json_snapshot!("nodes", survey.nodes());
        insta::assert_json_snapshot!("topology", survey.topology());
        insta::assert_json_snapshot!("queues", survey.queues());
    }
}
