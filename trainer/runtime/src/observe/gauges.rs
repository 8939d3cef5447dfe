//! What Prometheus is told of a rank.

use std::net::SocketAddr;

use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder};

use crate::report::{Evaluation, Progress};

/// Metrics and what they mean. Those that are not known yet are absent.
const METRICS: [(&str, &str); 12] = [
    (STEP, "Steps taken."),
    (PLANNED, "Steps that the training will take."),
    (EPOCH, "Pass over the training data, from 1."),
    (LOSS, "Loss of the last step, averaged over the ranks."),
    (ACCURACY, "Share of the labels of the last step that were predicted rightly."),
    (RATE, "Learning rate of the last step."),
    (NORM, "Norm of the gradients before they are clipped, with --clip-norm."),
    (THROUGHPUT, "Samples that all ranks learn from in a second."),
    (COMMUNICATION, "Time that this rank has waited for collectives which its computation did not hide."),
    (TEST_LOSS, "Loss on the held-out samples."),
    (TEST_ACCURACY, "Accuracy on the held-out samples."),
    (CHECKPOINT, "Step of the newest checkpoint; rank 0 knows it."),
];
const STEP: &str = "muster_train_step";
const PLANNED: &str = "muster_train_planned_steps";
const EPOCH: &str = "muster_train_epoch";
const LOSS: &str = "muster_train_loss";
const ACCURACY: &str = "muster_train_accuracy";
const RATE: &str = "muster_train_learning_rate";
const NORM: &str = "muster_train_gradient_norm";
const THROUGHPUT: &str = "muster_train_samples_per_second";
const COMMUNICATION: &str = "muster_train_exposed_communication_seconds";
const TEST_LOSS: &str = "muster_train_test_loss";
const TEST_ACCURACY: &str = "muster_train_test_accuracy";
const CHECKPOINT: &str = "muster_train_checkpoint_step";

/// Serves the metrics of this process over HTTP until it ends, by a thread of their own: at `address`, or at one of the
/// `more` ports that follow where other ranks have taken it. The address that it became.
///
/// Once a process; `rank` is the one that it was started as.
pub(crate) fn serve(address: SocketAddr, more: usize, rank: usize) -> Result<SocketAddr, BuildError> {
    let last = address.port().saturating_add(u16::try_from(more).unwrap_or(u16::MAX));
    for port in address.port()..=last {
        let address = SocketAddr::new(address.ip(), port);
        let builder = PrometheusBuilder::new().add_global_label("rank", rank.to_string());
        match builder.with_http_listener(address).install() {
            Err(BuildError::FailedToCreateHTTPListener(_)) if port < last => {}
            Err(error) => return Err(error),
            Ok(()) => {
                for (name, meaning) in METRICS {
                    describe_gauge!(name, meaning);
                }
                return Ok(address);
            }
        }
    }
    Err(BuildError::FailedToCreateHTTPListener("there is no port".to_owned()))
}

/// After a step.
pub(crate) fn progress(progress: &Progress) {
    gauge!(STEP).set(progress.step as f64);
    gauge!(PLANNED).set(progress.steps_total as f64);
    gauge!(EPOCH).set(progress.epoch);
    gauge!(LOSS).set(progress.loss);
    gauge!(ACCURACY).set(progress.train_accuracy);
    gauge!(RATE).set(progress.learning_rate);
    gauge!(THROUGHPUT).set(progress.samples_per_second);
    gauge!(COMMUNICATION).set(progress.communication.as_secs_f64());
    if let Some(norm) = progress.gradient_norm {
        gauge!(NORM).set(norm);
    }
}

/// After an evaluation.
pub(crate) fn evaluation(evaluation: &Evaluation) {
    gauge!(TEST_LOSS).set(evaluation.loss);
    gauge!(TEST_ACCURACY).set(evaluation.accuracy);
}

/// After a checkpoint.
pub(crate) fn checkpoint(step: u64) {
    gauge!(CHECKPOINT).set(step as f64);
}
