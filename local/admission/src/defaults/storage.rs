//! Secrets, volumes and their classes.

use super::pod::{requirements, resource_list};
use crate::json::{Fields, missing, object, object_if, zero};

pub(super) fn secret(secret: &mut Fields) {
    zero(secret, "type", "Opaque");
}

pub(super) fn claim(claim: &mut Fields) {
    if let Some(spec) = object(claim, "spec") {
        claim_spec(spec);
    }
    if let Some(status) = object(claim, "status") {
        zero(status, "phase", "Pending");
    }
}

pub(super) fn claim_spec(spec: &mut Fields) {
    if let Some(resources) = object(spec, "resources") {
        requirements(resources);
    }
    missing(spec, "volumeMode", "Filesystem");
}

pub(super) fn volume(volume: &mut Fields) {
    if let Some(spec) = object(volume, "spec") {
        if let Some(capacity) = object_if(spec, "capacity") {
            resource_list(capacity);
        }
        zero(spec, "persistentVolumeReclaimPolicy", "Retain");
        missing(spec, "volumeMode", "Filesystem");
        if let Some(path) = object_if(spec, "hostPath") {
            missing(path, "type", "");
        }
    }
    if let Some(status) = object(volume, "status") {
        zero(status, "phase", "Pending");
    }
}

pub(super) fn class(class: &mut Fields) {
    missing(class, "reclaimPolicy", "Delete");
    missing(class, "volumeBindingMode", "Immediate");
}
