//! A job's whole life under a controller that sees late, and dies between any two effects.

use muster_trainer_core::train_job::Effect;
use serde_json::json;

use super::world::{View, World, job, runtime};
use crate::lives::live;
use crate::simulation::Dice;

struct Simulation {
    dice: Dice,
    world: World,
    history: Vec<View>,
    /// What the controller's caches show: of the job, and of its surroundings.
    seen: [usize; 2],
    /// The version of the job that the controller wrote last; it does not plan for older ones.
    written: u64,
    log: Vec<String>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let mut spec = json!({"suspend": dice.one_in(3), "trainer": {"numNodes": 2}});
        if dice.one_in(3) {
            spec["activeDeadlineSeconds"] = json!(200 + dice.roll(2_000));
        }
        let mut runtime = runtime(json!({"torch": {}}));
        if dice.one_in(2) {
            runtime["spec"]["template"]["spec"]["ttlSecondsAfterFinished"] = json!(dice.roll(100));
        }
        let world = World::new(job(spec), runtime);
        let history = vec![world.view.clone()];
        Self { dice, world, history, seen: [0, 0], written: 0, log: Vec::new() }
    }

    fn see(&mut self, lag: bool) -> View {
        let latest = self.history.len() - 1;
        for seen in &mut self.seen {
            *seen += if lag { self.dice.roll(latest - *seen + 1) } else { latest - *seen };
        }
        let [job, others] = self.seen;
        View { job: self.history[job].job.clone(), ..self.history[others].clone() }
    }

    fn reconcile(&mut self, calm: bool) {
        let view = self.see(!calm);
        let mut planned_for: u64 = view.job.metadata.resource_version.as_ref().unwrap().parse().unwrap();
        if planned_for < self.written {
            return;
        }
        for effect in view.plan(self.world.now).stages().into_iter().flatten() {
            if !calm && self.dice.one_in(12) {
                self.log.push("the controller dies".to_owned());
                self.seen = [self.history.len() - 1; 2];
                self.written = 0;
                return;
            }
            self.check(&effect);
            let result = self.world.apply(&effect, &mut planned_for);
            self.log.push(format!("{} -> {result:?}", name(&effect)));
            self.history.push(self.world.view.clone());
            if result.is_err() {
                return;
            }
            if matches!(effect, Effect::WriteStatus(_) | Effect::Annotate(_)) {
                self.written = planned_for;
            }
        }
    }

    fn check(&self, effect: &Effect) {
        let log = self.log.join("\n");
        let is_finished = self.world.status().is_finished();
        match effect {
            Effect::CreateJobSet(_) => {
                assert!(!is_finished || self.world.view.jobset.is_some(), "a JobSet for an ended job\n{log}");
            }
            Effect::WriteStatus(status) if is_finished => {
                assert_eq!(status.conditions, self.world.status().conditions, "an ended job changes\n{log}");
            }
            Effect::DeleteJobSet(_) => assert!(is_finished, "the JobSet of a job that has not ended\n{log}"),
            _ => {}
        }
    }

    /// The user and the JobSet controller act.
    fn live(&mut self, calm: bool) {
        let is_suspended = self.world.view.job.spec.suspend == Some(true);
        let runs = self.world.view.jobset.as_ref().is_some_and(|set| set.spec.suspend == Some(false));
        let ended = self.world.view.jobset.as_ref().is_some_and(|set| set.status.is_some());
        match self.dice.roll(6) {
            0 if !calm || is_suspended => self.world.change(|job| job.spec.suspend = Some(!is_suspended)),
            1 if runs && !ended && (calm || self.dice.one_in(8)) => {
                let type_ = if self.dice.one_in(2) { "Completed" } else { "Failed" };
                self.world.end(type_, "SomeReason");
                self.log.push(format!("the JobSet is {type_}"));
            }
            2 => {
                let image = format!("image-{}", self.dice.roll(3));
                let zone = format!("zone-{}", self.dice.roll(3));
                self.world.edit_runtime(&image, &zone);
            }
            _ => self.world.advance(self.dice.roll(20) as i64),
        }
        self.history.push(self.world.view.clone());
    }

    fn run(&mut self) {
        let mut after_the_end = 0;
        for step in 0..1_000 {
            let calm = step > 150;
            if self.dice.one_in(2) {
                self.reconcile(calm);
            } else {
                self.live(calm);
            }
            after_the_end += usize::from(self.world.status().is_finished());
            if after_the_end > 60 {
                break;
            }
        }
        let log = self.log.join("\n");
        assert!(self.world.status().is_finished(), "the job never ends\n{log}");
        assert!(self.world.jobsets <= 1, "{} JobSets for one job\n{log}", self.world.jobsets);
    }
}

fn name(effect: &Effect) -> String {
    match effect {
        Effect::WriteStatus(status) => {
            let held = status.conditions.iter().filter(|condition| condition.status == "True");
            format!("status {:?}", held.map(|condition| condition.reason.as_str()).collect::<Vec<_>>())
        }
        Effect::CreateJobSet(set) => format!("create suspended {:?}", set.spec.suspend),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_thousand_lives() {
    let mut ends = std::collections::BTreeSet::new();
    let seeds = live(1_000, |seed| {
        let mut simulation = Simulation::new(seed);
        simulation.run();
        let status = simulation.world.status();
        ends.extend(status.conditions.into_iter().map(|condition| (condition.type_, condition.reason)));
    });
    let exercised = ends.iter().filter(|(type_, _)| type_ != "Suspended").count();
    assert!(seeds < 1_000 || exercised == 3, "the simulation exercises every end: {ends:?}");
}
