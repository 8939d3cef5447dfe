//! What XGBoost is told.

use muster_trainer_api::train_job::names::TRAINER_PORT;

use super::env;
use super::render::{Draft, open_port};
use super::torch::gpus;

/// Variables that the policy sets, and `trainer.env` may not.
pub(super) const RESERVED: [&str; 4] =
    ["DMLC_TRACKER_URI", "DMLC_TRACKER_PORT", "DMLC_TASK_ID", "DMLC_NUM_WORKER"];

/// A worker for each GPU of each node, or one for each node.
pub(super) fn complete(draft: &mut Draft<'_>) {
    let of_node = draft.trainer().num_proc_per_node.map(i64::from);
    let resources = draft.resources();
    let of_node = of_node.unwrap_or_else(|| gpus(&resources).max(1));
    let workers = i64::from(draft.nodes) * of_node;
    let variables = [
        env::value("DMLC_TRACKER_URI", draft.meeting()),
        env::value("DMLC_TRACKER_PORT", TRAINER_PORT.to_string()),
        env::pod_index("DMLC_TASK_ID"),
        env::value("DMLC_NUM_WORKER", workers.to_string()),
    ];
    for node in draft.trainers() {
        env::set(&mut node.env, &variables);
        open_port(node);
    }
}
