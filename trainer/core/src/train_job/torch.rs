//! What torchrun is told.

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements};
use muster_trainer_api::train_job::names::{NODE, TRAINER_PORT};

use super::render::{Draft, container, is_trainer, open_port};
use super::{elastic, env, torchtune};
use crate::quantity;

/// Variables that the policy sets, and `trainer.env` may not.
pub(super) const RESERVED: [&str; 5] =
    ["PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"];

/// How many processes run on each node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Processes {
    /// One for each GPU, which torchrun counts.
    Auto,
    /// So many.
    Count(i64),
}

impl std::fmt::Display for Processes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Count(count) => write!(formatter, "{count}"),
        }
    }
}

pub(super) fn complete(draft: &mut Draft<'_>) {
    let processes = processes(draft);
    let nodes = match draft.fewest_nodes {
        Some(fewest) => format!("{fewest}:{}", draft.nodes),
        None => draft.nodes.to_string(),
    };
    let mut variables = vec![
        env::value("PET_NNODES", nodes),
        env::value("PET_NPROC_PER_NODE", processes.to_string()),
        env::pod_index("PET_NODE_RANK"),
    ];
    if draft.fewest_nodes.is_some() {
        // Nodes that come and go have no ranks of their own.
        variables.pop();
        variables.extend(elastic::rendezvous(draft));
    } else if torchtune::is_command(&draft.trainer().command) {
        // torchtune hands its own arguments to torchrun.
        let meeting = format!("{}:{TRAINER_PORT}", draft.meeting());
        torchtune::complete(draft, processes, &meeting);
    } else {
        variables.push(env::value("PET_MASTER_ADDR", draft.meeting()));
        variables.push(env::value("PET_MASTER_PORT", TRAINER_PORT.to_string()));
    }
    for node in draft.trainers() {
        env::set(&mut node.env, &variables);
        open_port(node);
    }
    elastic::complete(draft);
    inject(draft, &variables);
}

/// Other containers that the runtime names get the variables, too.
fn inject(draft: &mut Draft<'_>, variables: &[EnvVar]) {
    let injection = draft.policy.torch.clone().unwrap_or_default().env_injection.unwrap_or_default();
    for target in injection.targets {
        for group in draft.spec.replicated_jobs.iter_mut().filter(|group| group.name == target.job_name) {
            for name in &target.container_names {
                if is_trainer(group) && name == NODE {
                    continue;
                }
                if let Some(container) = container(group, name) {
                    env::set(&mut container.env, variables);
                }
            }
        }
    }
}

fn processes(draft: &mut Draft<'_>) -> Processes {
    if let Some(count) = draft.trainer().num_proc_per_node {
        return Processes::Count(count.into());
    }
    let resources = draft.resources();
    if gpus(&resources) > 0 {
        return Processes::Auto;
    }
    // torchrun would count the processors of the machine, which the pod may not use.
    let amount = |wanted: &Option<std::collections::BTreeMap<_, _>>| {
        wanted.as_ref().and_then(|wanted| quantity::whole_units(wanted.get("cpu")?))
    };
    let processors = amount(&resources.limits).or_else(|| amount(&resources.requests)).unwrap_or(1);
    Processes::Count(processors.max(1))
}

/// How many GPUs these resources name.
pub(super) fn gpus(resources: &ResourceRequirements) -> i64 {
    let wanted = resources.limits.iter().chain(&resources.requests);
    let is_gpu = |name: &str| {
        let name = name.to_lowercase();
        name.contains("gpu") || name.contains("/mig-")
    };
    let counts = wanted.map(|wanted| {
        let gpus = wanted.iter().filter(|(name, _)| is_gpu(name));
        gpus.filter_map(|(_, quantity)| quantity::whole_units(quantity)).sum()
    });
    counts.max().unwrap_or(0)
}
