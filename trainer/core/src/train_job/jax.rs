//! What JAX is told.

use muster_trainer_api::train_job::names::TRAINER_PORT;

use super::env;
use super::render::{Draft, open_port};

/// Variables that the policy sets, and `trainer.env` may not.
pub(super) const RESERVED: [&str; 3] = ["JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JAX_COORDINATOR_ADDRESS"];

pub(super) fn complete(draft: &mut Draft<'_>) {
    let variables = [
        env::value("JAX_NUM_PROCESSES", draft.nodes.to_string()),
        env::pod_index("JAX_PROCESS_ID"),
        env::value("JAX_COORDINATOR_ADDRESS", format!("{}:{TRAINER_PORT}", draft.meeting())),
    ];
    for node in draft.trainers() {
        env::set(&mut node.env, &variables);
        open_port(node);
    }
}
