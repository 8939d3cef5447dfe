//! Many small schedules in virtual time, each with its own faults: kills at every step, lost nodes, lost
//! watches, lost, repeated and reordered calls. The same seed gives the same schedule.

pub mod cluster;
pub mod kube_scheduler;
mod random;
mod run;
pub mod subject;

pub use random::Random;
pub use run::{Disturbance, Outcome};
pub use subject::{BinderSubject, ExtenderSubject, Subject};

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

/// Runs `count` schedules of a process that schedules by itself, from `seed` on.
pub fn run_binder_schedules(count: u64, seed: u64) -> Report {
    run_schedules_of::<BinderSubject>(count, seed, false)
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
    use super::cluster::{Change, SimPod};
    use super::subject::{Action, ApiOutcome, ApiRequest, Call};
    use super::*;
    use crate::core::{Time, WriteOutcome};

    #[test]
    fn no_schedule_breaks_a_promise() {
        let report = run_schedules(600, 1);
        assert_eq!(report.violations, Vec::<String>::new());
        assert!(report.kills > 300 && report.bindings > 2_000 && report.explained > 100, "{report:?}");
    }

    #[test]
    fn nor_does_a_schedule_without_kube_scheduler() {
        let report = run_binder_schedules(600, 1);
        assert_eq!(report.violations, Vec::<String>::new());
        assert!(report.kills > 300 && report.bindings > 2_000 && report.explained > 100, "{report:?}");
    }

    /// A process that takes reservations for written as soon as it has asked for them.
    struct Hasty(ExtenderSubject);

    /// A process that does not read reservations back.
    struct Forgetful(ExtenderSubject);

    macro_rules! delegate {
        ($process:ident, $observe:expr, $actions:expr) => {
            impl Subject for $process {
                fn start() -> Self {
                    Self(ExtenderSubject::start())
                }
                fn observe(&mut self, now: Time, change: &Change) {
                    let observe: fn(&mut ExtenderSubject, Time, &Change) = $observe;
                    observe(&mut self.0, now, change);
                }
                fn synced(&mut self, now: Time) {
                    self.0.synced(now);
                }
                fn call(&mut self, now: Time, ticket: u64, call: Call) {
                    self.0.call(now, ticket, call);
                }
                fn outcome(&mut self, now: Time, request: u64, outcome: ApiOutcome) {
                    self.0.outcome(now, request, outcome);
                }
                fn work(&mut self, now: Time, work: u64) {
                    self.0.work(now, work);
                }
                fn tick(&mut self, now: Time) {
                    self.0.tick(now);
                }
                fn actions(&mut self) -> Vec<Action> {
                    let actions: fn(&mut ExtenderSubject) -> Vec<Action> = $actions;
                    actions(&mut self.0)
                }
                fn holds(&self, uid: &str) -> Option<String> {
                    self.0.holds(uid)
                }
                fn explained(&self, pod: &SimPod) -> Option<String> {
                    self.0.explained(pod)
                }
            }
        };
    }

    delegate!(Hasty, ExtenderSubject::observe, |process| {
        let mut actions = process.actions();
        for action in actions.clone() {
            if let Action::Request(id, ApiRequest::Write(_)) = action {
                let written = WriteOutcome::Written("0".to_owned());
                process.outcome(Time(0), id, ApiOutcome::Write(written));
                actions.extend(process.actions());
            }
        }
        actions
    });

    delegate!(
        Forgetful,
        |process, now, change| if !matches!(change, Change::Reservation(_)) {
            process.observe(now, change);
        },
        ExtenderSubject::actions
    );

    #[test]
    fn broken_processes_are_found_out() {
        let hasty = run_schedules_of::<Hasty>(40, 1, true).violations;
        assert!(hasty.iter().any(|violation| violation.contains("places written")), "{hasty:?}");
        let forgetful = run_schedules_of::<Forgetful>(200, 1, true).violations;
        assert!(forgetful.iter().any(|violation| violation.contains("lost by the restart")), "{forgetful:?}");
    }

    #[test]
    fn a_seed_repeats_itself() {
        let run = || replay::<ExtenderSubject>(7, Disturbance::Everything, true);
        assert_eq!(run(), run());
    }
}
