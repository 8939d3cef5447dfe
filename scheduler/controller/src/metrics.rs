//! What the binder counts and measures, by the `metrics` crate; whoever runs it installs a recorder.

use std::collections::BTreeSet;
use std::time::Duration;

use ::metrics::{counter, gauge, histogram};

use crate::planner::{Decision, Decisions, Eviction, Figures};

/// One decision was made.
pub(crate) fn decided(took: Duration, decisions: &Decisions) {
    histogram!("muster_scheduler_decision_seconds").record(took);
    for step in &decisions.steps {
        histogram!("muster_scheduler_observed_step_seconds", "queue" => step.queue.clone())
            .record(step.observed);
    }
    for decision in &decisions.now {
        match decision {
            Decision::Bind(binding) => {
                if let Some(waited) = binding.waited {
                    let queue = binding.queue.clone();
                    histogram!("muster_scheduler_queue_wait_seconds", "queue" => queue)
                        .record(waited.as_secs_f64());
                }
                if let Some(predicted) = binding.predicted {
                    let queue = binding.queue.clone();
                    histogram!("muster_scheduler_predicted_communication_seconds", "queue" => queue)
                        .record(predicted);
                }
            }
            Decision::Evict { why: Eviction::Preempted, .. } => {
                counter!("muster_scheduler_evicted_gangs_total").increment(1);
            }
            Decision::Evict { .. }
            | Decision::Discard { .. }
            | Decision::Explain { .. }
            | Decision::GiveBack { .. } => {}
        }
    }
}

/// It was worked out why gangs wait.
pub(crate) fn explained(took: Duration) {
    histogram!("muster_scheduler_explanation_seconds").record(took);
}

/// A pod was bound.
pub(crate) fn bound() {
    counter!("muster_scheduler_bindings_total", "result" => "bound").increment(1);
}

/// A pod was let go to where its own scheduler binds it.
pub(crate) fn opened() {
    counter!("muster_scheduler_bindings_total", "result" => "opened").increment(1);
}

/// A pod could not be bound.
pub(crate) fn refused() {
    counter!("muster_scheduler_bindings_total", "result" => "refused").increment(1);
}

/// Figures that go up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// Queues that were shown; one that is gone has nothing.
    queues: BTreeSet<String>,
}

impl Gauges {
    pub(crate) fn show(&mut self, figures: &Figures) {
        self.queues.extend(figures.queues.keys().cloned());
        for queue in &self.queues {
            let counts = figures.queues.get(queue).copied().unwrap_or_default();
            for (state, count) in [("waiting", counts.waiting), ("running", counts.running)] {
                gauge!("muster_scheduler_gangs", "queue" => queue.clone(), "state" => state)
                    .set(count as f64);
            }
            let ratio = if counts.observed > 0.0 { counts.predicted / counts.observed } else { 0.0 };
            gauge!("muster_scheduler_communication_share_of_step", "queue" => queue.clone()).set(ratio);
        }
        self.queues.retain(|queue| figures.queues.contains_key(queue));
        gauge!("muster_scheduler_gpus").set(figures.gpus);
        gauge!("muster_scheduler_gpus_taken").set(figures.gpus_taken);
        gauge!("muster_scheduler_gpus_stranded").set(figures.gpus_stranded);
        let share = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
        gauge!("muster_scheduler_utilisation").set(share(figures.gpus_taken, figures.gpus));
        gauge!("muster_scheduler_fragmentation").set(share(figures.gpus_stranded, figures.gpus));
    }
}

/// Says what the figures mean, where a recorder is installed.
pub(crate) fn describe() {
    use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_histogram!(
        "muster_scheduler_decision_seconds",
        Unit::Seconds,
        "Time of one decision over all that waits"
    );
    describe_histogram!(
        "muster_scheduler_queue_wait_seconds",
        Unit::Seconds,
        "Time that gangs stood in line before they started"
    );
    describe_histogram!(
        "muster_scheduler_explanation_seconds",
        Unit::Seconds,
        "Time it took to work out why gangs wait, beside the decisions"
    );
    describe_histogram!(
        "muster_scheduler_predicted_communication_seconds",
        Unit::Seconds,
        "Time of a step that gangs were predicted to communicate when they were placed, by queue"
    );
    describe_histogram!(
        "muster_scheduler_observed_step_seconds",
        Unit::Seconds,
        "Time of a step as gangs have measured it, by queue"
    );
    describe_gauge!(
        "muster_scheduler_communication_share_of_step",
        "Predicted time of communication by observed time of a step, of the running gangs of a queue that measure it"
    );
    describe_counter!(
        "muster_scheduler_bindings_total",
        "Pods that were bound, let go through their gates, or refused by the API server"
    );
    describe_counter!("muster_scheduler_evicted_gangs_total", "Gangs that had to make room");
    describe_gauge!("muster_scheduler_gangs", "Gangs by queue that wait or run");
    describe_gauge!("muster_scheduler_gpus", "GPUs of nodes that pods may be put on");
    describe_gauge!("muster_scheduler_gpus_taken", "GPUs that pods have");
    describe_gauge!(
        "muster_scheduler_gpus_stranded",
        "Free GPUs that the next pod cannot use, in expectation over the pods that wait and run"
    );
    describe_gauge!("muster_scheduler_utilisation", "Share of the GPUs that pods have, from 0 to 1");
    describe_gauge!(
        "muster_scheduler_fragmentation",
        "Share of the GPUs that are free and stranded, from 0 to 1"
    );
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use muster_scheduler_core::Placement;

    use super::*;
    use crate::planner::{Binding, QueueFigures, Step};

    fn exported(record: impl FnOnce()) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        ::metrics::with_local_recorder(&recorder, record);
        recorder.handle().render()
    }

    #[test]
    fn predictions_stand_beside_what_jobs_have_measured_by_queue() {
        let started = Decision::Bind(Binding {
            namespace: "team".to_owned(),
            gang: "g".to_owned(),
            queue: "research".to_owned(),
            waited: None,
            predicted: Some(0.5),
            durable: true,
            replaces: None,
            owner: None,
            settled: Vec::new(),
            placement: Placement(Vec::new()),
            gates: std::collections::BTreeMap::new(),
            unheeded: std::collections::BTreeMap::new(),
            claims: std::collections::BTreeMap::new(),
        });
        let step = Step { queue: "research".to_owned(), observed: 2.0, predicted: Some(0.5) };
        let decisions = Decisions { now: vec![started], steps: vec![step], ..Decisions::default() };
        let queue = QueueFigures { running: 1, predicted: 0.5, observed: 2.0, ..QueueFigures::default() };
        let mut figures = Figures { queues: [("research".to_owned(), queue)].into(), ..Figures::default() };
        let mut gauges = Gauges::default();
        let text = exported(|| {
            decided(Duration::ZERO, &decisions);
            gauges.show(&figures);
        });
        for line in [
            "muster_scheduler_predicted_communication_seconds_sum{queue=\"research\"} 0.5",
            "muster_scheduler_observed_step_seconds_sum{queue=\"research\"} 2",
            "muster_scheduler_communication_share_of_step{queue=\"research\"} 0.25",
        ] {
            assert!(text.lines().any(|exported| exported == line), "{line} is not in\n{text}");
        }
        figures.queues.clear();
        let gone = "muster_scheduler_communication_share_of_step{queue=\"research\"} 0";
        assert!(exported(|| gauges.show(&figures)).contains(gone));
        assert!(!exported(|| gauges.show(&figures)).contains("research"), "shown once more, and not again");
    }
}
