//! Configuration, secrets, volumes and their classes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AGE, NAME, Printed, age, name, text_column, wide_column};
use crate::json::{at, entries, flag, has, list, text};

pub(super) const KINDS: &[Printed] = &[
    Printed {
        group: "",
        kind: "ConfigMap",
        columns: &[NAME, text_column("Data", "How many entries there are."), AGE],
        row: |object, now| {
            let size = entries(object, "data").count() + entries(object, "binaryData").count();
            vec![name(object), json!(size), age(object, now)]
        },
    },
    Printed {
        group: "",
        kind: "Secret",
        columns: &[
            NAME,
            text_column("Type", "What the secret is for."),
            text_column("Data", "How many entries there are."),
            AGE,
        ],
        row: |object, now| {
            vec![
                name(object),
                json!(text(object, "type")),
                json!(entries(object, "data").count()),
                age(object, now),
            ]
        },
    },
    Printed {
        group: "",
        kind: "PersistentVolumeClaim",
        columns: &[
            NAME,
            text_column("Status", "Whether the claim has a volume."),
            text_column("Volume", "The claim's volume."),
            text_column("Capacity", "The volume's size."),
            text_column("Access Modes", "How the volume may be mounted."),
            text_column("StorageClass", "The class asked for."),
            text_column("VolumeAttributesClass", "The class of attributes asked for."),
            AGE,
            wide_column("VolumeMode", "Whether it is a file system or a raw device."),
        ],
        row: claim,
    },
    Printed {
        group: "",
        kind: "PersistentVolume",
        columns: &[
            NAME,
            text_column("Capacity", "The volume's size."),
            text_column("Access Modes", "How the volume may be mounted."),
            text_column("Reclaim Policy", "What happens to the volume once released."),
            text_column("Status", "Whether the volume is taken."),
            text_column("Claim", "The claim that has the volume."),
            text_column("StorageClass", "The volume's class."),
            text_column("VolumeAttributesClass", "The volume's class of attributes."),
            text_column("Reason", "Why the volume is in this state."),
            AGE,
            wide_column("VolumeMode", "Whether it is a file system or a raw device."),
        ],
        row: volume,
    },
    Printed {
        group: "storage.k8s.io",
        kind: "StorageClass",
        columns: &[
            NAME,
            text_column("Provisioner", "Who makes volumes of the class."),
            text_column("ReclaimPolicy", "What happens to released volumes."),
            text_column("VolumeBindingMode", "When volumes are made and bound."),
            text_column("AllowVolumeExpansion", "Whether volumes can grow."),
            AGE,
        ],
        row: class,
    },
];

/// `ReadWriteOnce` as `RWO` and so on, in a fixed order.
fn access_modes(holder: &Value) -> String {
    let modes: Vec<&str> = list(holder, "accessModes").iter().filter_map(Value::as_str).collect();
    [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ]
    .into_iter()
    .filter(|(mode, _)| modes.contains(mode))
    .map(|(_, short)| short)
    .collect::<Vec<_>>()
    .join(",")
}

fn phase(object: &Value) -> Value {
    let deleted = has(at(object, &["metadata"]), "deletionTimestamp");
    json!(if deleted { "Terminating" } else { text(at(object, &["status"]), "phase") })
}

fn or_unset(value: &str) -> &str {
    if value.is_empty() { "<unset>" } else { value }
}

fn claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (at(object, &["spec"]), at(object, &["status"]));
    let bound = !text(spec, "volumeName").is_empty();
    let capacity = if bound { text(at(status, &["capacity"]), "storage") } else { "" };
    let modes = if bound { access_modes(status) } else { String::new() };
    vec![
        name(object),
        phase(object),
        json!(text(spec, "volumeName")),
        json!(capacity),
        json!(modes),
        json!(text(spec, "storageClassName")),
        json!(or_unset(text(spec, "volumeAttributesClassName"))),
        age(object, now),
        json!(or_unset(text(spec, "volumeMode"))),
    ]
}

fn volume(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (at(object, &["spec"]), at(object, &["status"]));
    let claim = at(spec, &["claimRef"]);
    let claim = if claim.is_object() {
        format!("{}/{}", text(claim, "namespace"), text(claim, "name"))
    } else {
        String::new()
    };
    vec![
        name(object),
        json!(text(at(spec, &["capacity"]), "storage")),
        json!(access_modes(spec)),
        json!(text(spec, "persistentVolumeReclaimPolicy")),
        phase(object),
        json!(claim),
        json!(text(spec, "storageClassName")),
        json!(or_unset(text(spec, "volumeAttributesClassName"))),
        json!(text(status, "reason")),
        age(object, now),
        json!(or_unset(text(spec, "volumeMode"))),
    ]
}

fn class(object: &Value, now: Timestamp) -> Vec<Value> {
    let metadata = at(object, &["metadata"]);
    let default =
        text(at(metadata, &["annotations"]), "storageclass.kubernetes.io/is-default-class") == "true";
    let name = if default { json!(format!("{} (default)", text(metadata, "name"))) } else { name(object) };
    vec![
        name,
        json!(text(object, "provisioner")),
        json!(text(object, "reclaimPolicy")),
        json!(text(object, "volumeBindingMode")),
        json!(flag(object, "allowVolumeExpansion")),
        age(object, now),
    ]
}
