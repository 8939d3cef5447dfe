//! The variables of a worker, as torchrun sets them. Pure.
//!
//! The list is that of torch's `LocalElasticAgent._start_workers` (torch/distributed/elastic/agent/server). Everything
//! else a worker inherits, `CUDA_VISIBLE_DEVICES` included: as under torchrun, a worker chooses its GPU by `LOCAL_RANK`.

use std::path::Path;

use crate::world::World;

/// torchrun's `--role`, which this launcher does not have.
const ROLE: &str = "default";

/// What a job says to whoever looks for its own place at a rendezvous; workers have theirs.
pub(crate) const NOT_FOR_WORKERS: [&str; 6] = [
    "MUSTER_RENDEZVOUS",
    "MUSTER_RENDEZVOUS_CA",
    "MUSTER_RENDEZVOUS_TOKEN_FILE",
    "MUSTER_RANKS",
    "MUSTER_REPLICAS",
    "MUSTER_REPLICA_INDEX",
];

/// How often the workers were started before, and how often they may be again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Restarts {
    pub(crate) count: u32,
    pub(crate) most: u32,
}

/// The variables of the worker `local_rank`, whose own cores are `cores`, as far as `inherited` does not say them.
pub(crate) fn variables(
    world: &World,
    local_rank: usize,
    restarts: Restarts,
    cores: usize,
    error_file: Option<&Path>,
    inherited: impl Fn(&str) -> Option<String>,
) -> Vec<(&'static str, String)> {
    let (rank, size) = (world.rank(local_rank).to_string(), world.size().to_string());
    let run = inherited("PET_RDZV_ID").filter(|id| !id.is_empty()).unwrap_or_else(|| "none".to_owned());
    let mut variables = vec![
        ("RANK", rank.clone()),
        ("LOCAL_RANK", local_rank.to_string()),
        ("WORLD_SIZE", size.clone()),
        ("LOCAL_WORLD_SIZE", world.workers.to_string()),
        ("GROUP_RANK", world.node_rank.to_string()),
        ("GROUP_WORLD_SIZE", world.nodes.to_string()),
        ("ROLE_NAME", ROLE.to_owned()),
        ("ROLE_RANK", rank),
        ("ROLE_WORLD_SIZE", size),
        ("MASTER_ADDR", world.master_address.clone()),
        ("MASTER_PORT", world.master_port.to_string()),
        ("TORCHELASTIC_RUN_ID", run),
        ("TORCHELASTIC_RESTART_COUNT", restarts.count.to_string()),
        ("TORCHELASTIC_MAX_RESTARTS", restarts.most.to_string()),
        // There is no agent that holds the store: rank 0 does.
        ("TORCHELASTIC_USE_AGENT_STORE", "False".to_owned()),
        // The launcher's own, if it has one, is for its own report.
        ("TORCHELASTIC_ERROR_FILE", error_file.map(|file| file.display().to_string()).unwrap_or_default()),
    ];
    let defaults =
        [("OMP_NUM_THREADS", cores.to_string()), ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1".to_owned())];
    variables.extend(defaults.into_iter().filter(|(name, _)| inherited(name).is_none()));
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> World {
        World {
            nodes: 3,
            node_rank: 2,
            workers: std::num::NonZeroUsize::new(4).unwrap(),
            master_address: "job-master-0".into(),
            master_port: 23456,
        }
    }

    fn value<'a>(variables: &'a [(&str, String)], name: &str) -> Option<&'a str> {
        variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn what_is_set_already_stays() {
        let restarts = Restarts { count: 1, most: 2 };
        let fresh = variables(&worker(), 1, restarts, 3, None, |_| None);
        assert_eq!(value(&fresh, "RANK"), Some("9"));
        assert_eq!(value(&fresh, "OMP_NUM_THREADS"), Some("3"));
        assert_eq!(value(&fresh, "TORCHELASTIC_RUN_ID"), Some("none"));
        let inherited = |name: &str| match name {
            "OMP_NUM_THREADS" => Some("16".to_owned()),
            "TORCH_NCCL_ASYNC_ERROR_HANDLING" => Some("3".to_owned()),
            "PET_RDZV_ID" => Some("run-7".to_owned()),
            _ => None,
        };
        let kept = variables(&worker(), 1, restarts, 3, None, inherited);
        assert_eq!(value(&kept, "OMP_NUM_THREADS"), None);
        assert_eq!(value(&kept, "TORCH_NCCL_ASYNC_ERROR_HANDLING"), None);
        assert_eq!(value(&kept, "TORCHELASTIC_RUN_ID"), Some("run-7"));
        assert_eq!(value(&kept, "CUDA_VISIBLE_DEVICES"), None);
    }
}
