//! Reservations between the API server's form and the state machine's.

use muster_scheduler_api::{GangReservation, GangReservationSpec, ReservedMember};

use crate::core::{GangKey, ReservedPlace, SeenReservation, WriteReservation};

impl From<&GangReservation> for SeenReservation {
    fn from(object: &GangReservation) -> Self {
        let members = object.spec.members.iter().map(|member| ReservedPlace {
            pod: member.pod.clone(),
            uid: member.uid.clone(),
            node: member.node.clone(),
            gpu_indices: member.gpu_indices.clone(),
        });
        Self {
            gang: GangKey::new(object.metadata.namespace.clone().unwrap_or_default(), &object.spec.gang),
            epoch: object.spec.epoch,
            members: members.collect(),
            resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
        }
    }
}

impl From<&WriteReservation> for GangReservation {
    /// The whole object; its owner is left to whoever knows it.
    fn from(write: &WriteReservation) -> Self {
        let members = write.members.iter().map(|place| ReservedMember {
            pod: place.pod.clone(),
            uid: place.uid.clone(),
            node: place.node.clone(),
            gpu_indices: place.gpu_indices.clone(),
            claims: Vec::new(),
        });
        let spec = GangReservationSpec {
            gang: write.gang.name.clone(),
            epoch: write.epoch,
            members: members.collect(),
        };
        let mut object = Self::new(&write.gang.name, spec);
        object.metadata.namespace = Some(write.gang.namespace.clone());
        object.metadata.resource_version.clone_from(&write.replaces);
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let place = ReservedPlace {
            pod: "g-0".to_owned(),
            uid: "u".to_owned(),
            node: "n".to_owned(),
            gpu_indices: vec![1, 2],
        };
        let write = WriteReservation {
            gang: GangKey::new("d", "g"),
            epoch: 3,
            members: vec![place],
            replaces: Some("7".to_owned()),
        };
        let seen = SeenReservation::from(&GangReservation::from(&write));
        assert_eq!((seen.gang, seen.epoch, seen.members), (write.gang, write.epoch, write.members));
        assert_eq!(seen.resource_version, "7");
    }
}
