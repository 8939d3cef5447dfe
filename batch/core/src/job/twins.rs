//! Variables that are told under Slurm's name and under our own.
//!
//! An API server reads, checks, compares and stores each variable of a pod several times in the pod's life, and an array
//! has many pods: what Slurm calls the same as we do is there once, and the script gives it its other name.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::EnvVar;

const OWN: &str = "MUSTER_";
const SLURM: &str = "SLURM_";
/// Tells `start.sh` the names, without their prefix.
const TWINS: &str = "MUSTER_TWINS";

/// Leaves out each variable of Slurm's whose twin of ours is there with the same value, and adds their names.
pub(super) fn fold(mut variables: Vec<EnvVar>) -> Vec<EnvVar> {
    let is_twin = |slurm: &EnvVar, own: &EnvVar| {
        let name = slurm.name.strip_prefix(SLURM);
        name.is_some()
            && name == own.name.strip_prefix(OWN)
            && (&slurm.value, &slurm.value_from) == (&own.value, &own.value_from)
    };
    let has_twin = |variable: &&EnvVar| variables.iter().any(|own| is_twin(variable, own));
    let folded: BTreeSet<String> =
        variables.iter().filter(has_twin).map(|variable| variable.name.clone()).collect();
    variables.retain(|variable| !folded.contains(&variable.name));
    let names: Vec<&str> = folded.iter().filter_map(|name| name.strip_prefix(SLURM)).collect();
    variables.push(EnvVar { name: TWINS.to_owned(), value: Some(names.join(" ")), ..EnvVar::default() });
    variables
}
