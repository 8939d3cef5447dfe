//! Advance reservations as windows of the line's calendar.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;
use muster_scheduler_api::{
    AdvanceReservationPhase as Phase, AdvanceReservationSpec, AdvanceReservationStatus, WindowPurpose,
};
use muster_scheduler_core::space::{NodeId, Space};
use muster_scheduler_queue::calendar::{Calendar, Purpose, Window};
use muster_scheduler_queue::time::{Milliseconds, Time};

use super::Planner;

/// How far ahead the next beginning of a window is looked for.
const AHEAD: Milliseconds = 366 * 24 * 3_600_000;

/// The declared reservations.
#[derive(Debug, Clone, Default)]
pub(super) struct Windows {
    declared: BTreeMap<String, AdvanceReservationSpec>,
    /// Those that count, as the line knows them.
    in_force: BTreeMap<String, Window>,
    /// Why the others do not.
    wrong: BTreeMap<String, String>,
    /// Reservations, or the nodes that they are of, have changed.
    stale: bool,
}

impl Windows {
    pub(super) fn set(&mut self, name: String, spec: AdvanceReservationSpec) {
        self.stale |= self.declared.get(&name) != Some(&spec);
        self.declared.insert(name, spec);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.stale |= self.declared.remove(name).is_some();
    }

    pub(super) fn nodes_changed(&mut self) {
        self.stale |= !self.declared.is_empty();
    }
}

impl Planner {
    /// Brings the calendar up to date.
    pub(super) fn follow_windows(&mut self, time: Time) {
        if !std::mem::take(&mut self.windows.stale) {
            return;
        }
        let mut calendar = Calendar::default();
        let mut in_force = BTreeMap::new();
        self.windows.wrong.clear();
        for (name, spec) in &self.windows.declared {
            let found = window(name, spec, self.ledger.space());
            let added = found
                .and_then(|window| calendar.add(window.clone()).map_err(|e| e.to_string()).map(|()| window));
            match added {
                Ok(window) => {
                    in_force.insert(name.clone(), window);
                }
                Err(why) => {
                    self.windows.wrong.insert(name.clone(), why);
                }
            }
        }
        if in_force != self.windows.in_force {
            tracing::debug!(windows = in_force.len(), %time, "the calendar has changed");
            *self.line.calendar() = calendar;
            self.windows.in_force = in_force;
            self.gained = true;
        }
    }

    /// What has come of every advance reservation.
    pub fn reservation_statuses(&self, now: Timestamp) -> BTreeMap<String, AdvanceReservationStatus> {
        let time = Time(now.as_millisecond());
        let statuses = self.windows.declared.keys().map(|name| {
            let status = match self.windows.in_force.get(name) {
                Some(window) => status(window, time),
                None => AdvanceReservationStatus {
                    phase: Some(Phase::Rejected),
                    message: self.windows.wrong.get(name).cloned(),
                    ..AdvanceReservationStatus::default()
                },
            };
            (name.clone(), status)
        });
        statuses.collect()
    }
}

fn window(name: &str, spec: &AdvanceReservationSpec, space: &Space) -> Result<Window, String> {
    let wanted = |labels: &BTreeMap<String, String>, node: &str| {
        let named = spec.nodes.is_empty() || spec.nodes.iter().any(|name| name == node);
        named && spec.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    let nodes: BTreeSet<NodeId> =
        space.nodes().filter(|(_, node)| wanted(&node.labels, &node.name)).map(|(id, _)| id).collect();
    if spec.nodes.is_empty() && spec.node_selector.is_empty() {
        return Err("it names no nodes; add nodes or a nodeSelector".to_owned());
    }
    if nodes.is_empty() {
        return Err("no node is meant by its nodes and nodeSelector; it counts from when one is".to_owned());
    }
    let milliseconds = |seconds: i64| seconds.saturating_mul(1000);
    Ok(Window {
        name: name.to_owned(),
        begins: Time(spec.begins.0.as_millisecond()),
        lasts: milliseconds(spec.lasts_seconds),
        every: spec.every_seconds.map(milliseconds),
        until: spec.until.as_ref().map(|until| Time(until.0.as_millisecond())),
        nodes,
        purpose: match spec.purpose {
            WindowPurpose::Jobs => Purpose::Reserved(name.to_owned()),
            WindowPurpose::Maintenance => Purpose::Maintenance,
        },
    })
}

fn status(window: &Window, now: Time) -> AdvanceReservationStatus {
    let mut alone = Calendar::default();
    // It was accepted before.
    let _added = alone.add(window.clone());
    let until = now.max(window.begins) + AHEAD;
    let next = alone.occurrences(now, until).first().map(|open| (open.from, open.to));
    let at = |time: Time| Timestamp::from_millisecond(time.0).ok().map(ApiTime);
    AdvanceReservationStatus {
        phase: Some(match next {
            None => Phase::Ended,
            Some((from, _)) if from > now => Phase::Accepted,
            Some(_) => Phase::Active,
        }),
        message: None,
        nodes: window.nodes.len() as i64,
        from: next.and_then(|(from, _)| at(from)),
        to: next.and_then(|(_, to)| at(to)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{node, pod};
    use super::*;
    use crate::planner::Decision;
    use muster_scheduler_api::AdvanceReservation;
    use serde_json::{Value, json};

    fn reservation(name: &str, spec: Value) -> AdvanceReservation {
        serde_json::from_value(json!({"apiVersion": "muster.dev/v1alpha1", "kind": "AdvanceReservation",
            "metadata": {"name": name}, "spec": spec}))
        .unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn bound(planner: &mut Planner, second: i64) -> Vec<String> {
        let decisions = planner.decide(at(second)).now;
        let bound = decisions.into_iter().filter_map(|decision| match decision {
            Decision::Bind(binding) => Some(binding.gang),
            _ => None,
        });
        bound.collect()
    }

    #[test]
    fn reserved_nodes_are_for_those_who_name_the_reservation_while_it_lasts() {
        let mut planner = Planner::new(["muster".to_owned()]);
        planner.node_seen(&node("n0", 4));
        // 1970-01-01T00:16:40Z.
        let spec = json!({"begins": "1970-01-01T00:16:40Z", "lastsSeconds": 600, "nodes": ["n0"]});
        planner.reservation_seen(&reservation("course", spec));
        let limited = |mut pod: k8s_openapi::api::core::v1::Pod, reservation: Option<&str>| {
            let wishes = pod.metadata.annotations.get_or_insert_default();
            wishes.insert("muster.dev/time-limit".into(), "5m".into());
            wishes.extend(reservation.map(|name| ("muster.dev/reservation".to_owned(), name.to_owned())));
            pod
        };
        planner.pod_seen(&limited(pod("stranger", 0, 1, None), None));
        assert_eq!(bound(&mut planner, 900), [""; 0], "it would not be done in time");
        assert_eq!(planner.reservation_statuses(at(900))["course"].phase, Some(Phase::Accepted));
        planner.pod_seen(&limited(pod("member", 0, 1, None), Some("course")));
        assert_eq!(bound(&mut planner, 1001), ["member"]);
        let status = &planner.reservation_statuses(at(1001))["course"];
        assert_eq!((status.phase, status.nodes), (Some(Phase::Active), 1));
        assert_eq!(status.to.as_ref().unwrap().0, at(1600));
        assert_eq!(bound(&mut planner, 1600), ["stranger"]);
        assert_eq!(planner.reservation_statuses(at(1600))["course"].phase, Some(Phase::Ended));
    }

    #[test]
    fn a_reservation_that_cannot_be_is_told_why_and_counts_once_it_can() {
        let mut planner = Planner::new(["muster".to_owned()]);
        let begins = "1970-01-01T00:16:40Z";
        let overlapping = json!({"begins": begins, "lastsSeconds": 60, "everySeconds": 30, "nodes": ["n0"]});
        planner.reservation_seen(&reservation("overlapping", overlapping));
        let early =
            json!({"begins": begins, "lastsSeconds": 60, "nodeSelector": {"kubernetes.io/hostname": "n0"}});
        planner.reservation_seen(&reservation("early", early));
        planner.decide(at(0));
        let statuses = planner.reservation_statuses(at(0));
        let why = |name: &str| statuses[name].message.clone().unwrap();
        assert!(why("early").starts_with("no node is meant"), "{statuses:?}");
        planner.node_seen(&node("n0", 4));
        planner.decide(at(0));
        let statuses = planner.reservation_statuses(at(0));
        assert_eq!(statuses["early"].phase, Some(Phase::Accepted));
        assert!(statuses["overlapping"].message.as_ref().unwrap().contains("every must not be shorter"));
        planner.reservation_gone("overlapping");
        planner.decide(at(0));
        assert_eq!(planner.reservation_statuses(at(0)).len(), 1);
    }
}
