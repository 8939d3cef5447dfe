//! Statuses of queues and advance reservations: written when they have changed, and not often.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use muster_scheduler_api::{AdvanceReservation, AdvanceReservationStatus, Queue, QueueStatus};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::attempt::attempt;
use crate::planner::Planner;

/// Statuses are looked at no more often than this.
pub(crate) const PERIOD: Duration = Duration::from_secs(3);

/// What the objects say, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Statuses {
    queues: BTreeMap<String, (Option<QueueStatus>, Option<i64>)>,
    reservations: BTreeMap<String, Option<AdvanceReservationStatus>>,
}

/// A status that differs from what its object says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Queue(String, QueueStatus),
    Reservation(String, AdvanceReservationStatus),
}

impl Statuses {
    pub(crate) fn queue_seen(&mut self, queue: &Queue) {
        self.queues.insert(queue.name_any(), (queue.status.clone(), queue.metadata.generation));
    }

    pub(crate) fn queue_gone(&mut self, name: &str) {
        self.queues.remove(name);
    }

    pub(crate) fn reservation_seen(&mut self, reservation: &AdvanceReservation) {
        self.reservations.insert(reservation.name_any(), reservation.status.clone());
    }

    pub(crate) fn reservation_gone(&mut self, name: &str) {
        self.reservations.remove(name);
    }

    /// What is to be written; it counts as written from now on.
    pub(crate) fn changes(&mut self, planner: &mut Planner, now: Timestamp) -> Vec<Change> {
        let mut changes = Vec::new();
        if !self.queues.is_empty() {
            for (name, mut status) in planner.queue_statuses(now) {
                let Some((known, generation)) = self.queues.get_mut(&name) else { continue };
                for condition in &mut status.conditions {
                    condition.observed_generation = *generation;
                    let mut before = known.iter().flat_map(|known| &known.conditions);
                    let same = before
                        .find(|other| other.type_ == condition.type_ && other.status == condition.status);
                    if let Some(same) = same {
                        condition.last_transition_time = same.last_transition_time.clone();
                    }
                }
                if known.as_ref() != Some(&status) {
                    *known = Some(status.clone());
                    changes.push(Change::Queue(name, status));
                }
            }
        }
        for (name, status) in planner.reservation_statuses(now) {
            let Some(known) = self.reservations.get_mut(&name) else { continue };
            if known.as_ref() != Some(&status) {
                *known = Some(status.clone());
                changes.push(Change::Reservation(name, status));
            }
        }
        changes
    }
}

impl Change {
    /// Writes it. What cannot be written is written with the next change.
    pub(crate) async fn write(self, client: &Client) {
        match self {
            Self::Queue(name, status) => write::<Queue, _>(client, &name, &status).await,
            Self::Reservation(name, status) => write::<AdvanceReservation, _>(client, &name, &status).await,
        }
    }
}

/// Replaces a status: what it does not say any more goes.
async fn write<K, S>(client: &Client, name: &str, status: &S)
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
    S: Serialize,
{
    let api: Api<K> = Api::all(client.clone());
    let patch = json!([{"op": "add", "path": "/status", "value": status}]);
    let Ok(patch) = serde_json::from_value(patch) else { return };
    let patch: Patch<()> = Patch::Json(patch);
    if let Err(error) = attempt(api.patch_status(name, &PatchParams::default(), &patch)).await {
        tracing::debug!(%error, name, "cannot write a status");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_written_once_and_keeps_the_time_of_its_condition() {
        let mut planner = Planner::new(["muster".to_owned()]);
        let mut statuses = Statuses::default();
        let queue: Queue = serde_json::from_value(json!({"apiVersion": "muster.dev/v1alpha1",
            "kind": "Queue", "metadata": {"name": "team", "generation": 2}, "spec": {}}))
        .unwrap();
        planner.queue_seen(&queue);
        statuses.queue_seen(&queue);
        let at = |second| Timestamp::from_second(second).unwrap();
        planner.decide(at(1000));
        let changes = statuses.changes(&mut planner, at(1000));
        let [Change::Queue(name, status)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((name.as_str(), status.conditions[0].observed_generation), ("team", Some(2)));
        assert_eq!(statuses.changes(&mut planner, at(2000)), []);
        // Somebody else's write is not left to stand.
        statuses.queue_seen(&Queue { status: Some(QueueStatus::default()), ..queue.clone() });
        assert_eq!(statuses.changes(&mut planner, at(3000)).len(), 1);
        planner.queue_gone("team");
        statuses.queue_gone("team");
        planner.decide(at(4000));
        assert_eq!(statuses.changes(&mut planner, at(4000)), []);
    }
}
