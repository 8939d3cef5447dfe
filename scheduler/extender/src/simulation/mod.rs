//! Many small schedules in virtual time, each with its own faults: kills at every step, lost nodes, lost
//! watches, lost, repeated and reordered calls. The same seed gives the same schedule.

pub mod cluster;
pub mod kube_scheduler;
mod random;
mod run;
pub mod subject;

pub use random::Random;
pub use run::{Disturbance, Outcome};
pub use subject::{ExtenderSubject, Subject};

use run::Run;

/// What many schedules showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many schedules.
    pub schedules: u64,
    /// Events in all of them.
    pub steps: u64,
    /// Times that the process under test was killed.
    pub kills: u64,
    /// Bindings that landed.
    pub bindings: u64,
    /// Filter and prioritize calls.
    pub calls: u64,
    /// Pods that waited in the end, with a reason.
    pub explained: u64,
    /// Broken promises, each with what repeats it; the first hundred.
    pub violations: Vec<String>,
}

impl Report {
    fn add(&mut self, seed: u64, disturbance: Disturbance, outcome: Outcome) {
        self.schedules += 1;
        self.steps += outcome.steps;
        self.kills += outcome.kills;
        self.bindings += outcome.bindings;
        self.calls += outcome.calls;
        self.explained += outcome.explained;
        for violation in outcome.violations {
            if self.violations.len() < 100 {
                self.violations.push(format!("seed {seed}, {disturbance:?}: {violation}"));
            }
        }
    }
}

/// Runs `count` schedules of the extender from `seed` on.
pub fn run_schedules(count: u64, seed: u64) -> Report {
    run_schedules_of::<ExtenderSubject>(count, seed, true)
}

/// Runs `count` schedules of any process; `extender` says whether kube-scheduler calls it. Half of them are
/// disturbed in every way by chance, the others by one kill, after the first event, the second, and so on.
pub fn run_schedules_of<S: Subject>(count: u64, seed: u64, extender: bool) -> Report {
    let mut report = Report::default();
    let mut next = seed;
    let mut quiet: Option<(u64, u64, u64)> = None;
    while report.schedules < count {
        if report.schedules % 2 == 0 {
            next += 1;
            let (outcome, _) = Run::<S>::new(next, Disturbance::Everything, extender, false).finish();
            report.add(next, Disturbance::Everything, outcome);
            continue;
        }
        match quiet {
            Some((seed, step, last)) if step <= last => {
                let disturbance = Disturbance::KillAt(step);
                let (outcome, _) = Run::<S>::new(seed, disturbance, extender, false).finish();
                report.add(seed, disturbance, outcome);
                quiet = Some((seed, step + 1, last));
            }
            _ => {
                let (outcome, _) = Run::<S>::new(next, Disturbance::Nothing, extender, false).finish();
                quiet = Some((next, 1, outcome.steps));
                report.add(next, Disturbance::Nothing, outcome);
            }
        }
    }
    report
}

/// Repeats one schedule and tells what happened, event by event.
pub fn replay<S: Subject>(seed: u64, disturbance: Disturbance, extender: bool) -> (Outcome, Vec<String>) {
    Run::<S>::new(seed, disturbance, extender, true).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_schedule_breaks_a_promise() {
        let report = run_schedules(600, 1);
        assert_eq!(report.violations, [String::new(); 0]);
        assert!(report.kills > 300 && report.bindings > 2_000 && report.explained > 100, "{report:?}");
    }

    #[test]
    fn a_seed_repeats_itself() {
        let run = || replay::<ExtenderSubject>(7, Disturbance::Everything, true);
        assert_eq!(run(), run());
    }
}
