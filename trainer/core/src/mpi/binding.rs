//! To which processors Open MPI binds its processes.
//!
//! Left to itself, `mpirun` has each host bind its first process to the first core, its second to the second. Pods of a
//! node that share its processors are hosts of their own to it, so that the first process of each ends up on the same
//! core, with the others idle.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::framework::WORKER;
use super::job::{Implementation, MpiJob};
use crate::quantity::whole_units;

/// What says so to Open MPI 4 and, by its launcher PRRTE, to Open MPI 5.
const POLICIES: [&str; 2] = ["OMPI_MCA_hwloc_base_binding_policy", "PRTE_MCA_hwloc_default_binding_policy"];

impl MpiJob {
    /// Variables of the launcher, with the value of each: none where workers have processors for themselves, on which
    /// binding helps.
    pub(super) fn binding(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let is_open_mpi = self.implementation == Implementation::OpenMpi;
        let worker = self.job.replica(WORKER).and_then(|worker| {
            let containers = &worker.template.spec.as_ref()?.containers;
            containers.get(self.main_container(&worker.template))
        });
        let shares = is_open_mpi && !worker.is_some_and(may_have_own_processors);
        POLICIES.into_iter().filter(move |_| shares).map(|name| (name, "none"))
    }
}

/// Whether a node may reserve processors for the container, as kubelet's static policy does: for those whose limits are
/// what they request, and whole processors.
fn may_have_own_processors(container: &Container) -> bool {
    let Some(resources) = &container.resources else { return false };
    let of = |list: &Option<BTreeMap<String, Quantity>>, name: &str| list.as_ref()?.get(name).cloned();
    let is_guaranteed = |name: &str| {
        let limit = of(&resources.limits, name);
        limit.is_some() && of(&resources.requests, name).is_none_or(|request| Some(request) == limit)
    };
    let is_whole = |limit: Quantity| {
        let rounded = whole_units(&limit);
        rounded.is_some_and(|rounded| limit == Quantity(rounded.to_string()))
    };
    is_guaranteed("cpu") && is_guaranteed("memory") && of(&resources.limits, "cpu").is_some_and(is_whole)
}
