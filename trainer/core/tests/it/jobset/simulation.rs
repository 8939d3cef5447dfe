//! A set's whole life under a controller that sees late, and dies between any two effects.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::Job;
use muster_trainer_core::jobset::Effect;
use serde_json::json;

use super::world::{Refusal, View, World, manifest, version};
use crate::lives::live;
use crate::simulation::Dice;

/// A controller with caches that lag behind the cluster, each by its own way.
struct Controller {
    set_seen: usize,
    jobs_seen: usize,
    /// The version of the set that it wrote last; it does not plan for older ones.
    set_written: u64,
}

struct Simulation {
    dice: Dice,
    world: World,
    history: Vec<View>,
    controller: Controller,
    /// Attempts that may still be made to fail.
    failures_left: usize,
    /// Attempts in which something was made to fail.
    hurt: BTreeSet<i32>,
    max_restarts: i32,
    log: Vec<String>,
}

fn attempt(job: &Job) -> i32 {
    job.metadata.labels.as_ref().unwrap()["jobset.sigs.k8s.io/restart-attempt"].parse().unwrap()
}

fn has_ended(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|status| status.conditions.is_some())
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let max_restarts = dice.roll(4) as i32;
        let mut manifest = manifest(&[("data", 1), ("node", 1 + dice.roll(3) as i32)]);
        let strategy = if dice.one_in(2) { "Recreate" } else { "BlockingRecreate" };
        manifest["spec"]["failurePolicy"] = json!({"maxRestarts": max_restarts, "restartStrategy": strategy});
        if dice.one_in(2) {
            let wanted = if dice.one_in(2) { "Ready" } else { "Complete" };
            manifest["spec"]["replicatedJobs"][1]["dependsOn"] = json!([{"name": "data", "status": wanted}]);
        }
        let mut world = World::new(manifest);
        world.grace = 30;
        let history = vec![world.view()];
        let failures_left = dice.roll(5);
        Self {
            dice,
            world,
            history,
            controller: Controller { set_seen: 0, jobs_seen: 0, set_written: 0 },
            failures_left,
            hurt: BTreeSet::new(),
            max_restarts,
            log: Vec::new(),
        }
    }

    /// The caches move on, each somewhat, never back.
    fn see(&mut self, lag: bool) -> View {
        let latest = self.history.len() - 1;
        for seen in [&mut self.controller.set_seen, &mut self.controller.jobs_seen] {
            *seen += if lag { self.dice.roll(latest - *seen + 1) } else { latest - *seen };
        }
        View {
            set: self.history[self.controller.set_seen].set.clone(),
            ..self.history[self.controller.jobs_seen].clone()
        }
    }

    fn reconcile(&mut self, calm: bool) {
        let view = self.see(!calm);
        let Some(mut planned_for) = view.set.as_ref().map(version) else { return };
        if planned_for < self.controller.set_written {
            return;
        }
        for mut stage in view.plan(self.world.now).stages() {
            let mut goes_on = true;
            while !stage.is_empty() {
                let effect = stage.swap_remove(self.dice.roll(stage.len()));
                if !calm && self.dice.one_in(12) {
                    self.log.push("the controller dies".to_owned());
                    let latest = self.history.len() - 1;
                    self.controller = Controller { set_seen: latest, jobs_seen: latest, set_written: 0 };
                    return;
                }
                goes_on &= self.take(&effect, &mut planned_for);
            }
            if !goes_on {
                return;
            }
        }
    }

    fn take(&mut self, effect: &Effect, planned_for: &mut u64) -> bool {
        if let Effect::CreateJob(job) = effect
            && !self.world.jobs.contains_key(job.metadata.name.as_ref().unwrap())
        {
            let status = self.world.status();
            let log = self.log.join("\n");
            assert_eq!(attempt(job), status.restarts, "a Job of another attempt\n{log}");
            assert!(!status.is_finished(), "a Job for an ended set\n{log}");
        }
        let result = self.world.apply(effect, planned_for);
        self.log.push(format!("{} -> {result:?}", name(effect)));
        self.history.push(self.world.view());
        if matches!(effect, Effect::WriteStatus(_)) {
            if result.is_ok() {
                self.controller.set_written = *planned_for;
            }
            return result.is_ok();
        }
        matches!(result, Ok(()) | Err(Refusal::AlreadyExists | Refusal::NotFound | Refusal::Conflict))
    }

    /// Something happens to a Job.
    fn live(&mut self, calm: bool) {
        let now = self.world.now;
        self.world.jobs.retain(|_, job| {
            job.metadata.deletion_timestamp.as_ref().is_none_or(|deadline| deadline.0 > now)
        });
        let names: Vec<_> = self.world.jobs.keys().cloned().collect();
        if names.is_empty() {
            return self.history.push(self.world.view());
        }
        let name = &names[self.dice.roll(names.len())];
        let job = &self.world.jobs[name];
        let (attempt, ended) = (attempt(job), has_ended(job));
        let is_current = attempt == self.world.status().restarts;
        let runs = job.status.as_ref().is_some_and(|status| status.ready == Some(2));
        if ended || job.metadata.deletion_timestamp.is_some() {
        } else if !runs {
            self.world.ready(name);
        } else if !calm
            && is_current
            && self.dice.one_in(3)
            && (self.failures_left > 0 || self.hurt.contains(&attempt))
        {
            // The first failure of an attempt; its peers fail for want of it.
            if self.hurt.insert(attempt) {
                self.failures_left -= 1;
            }
            self.log.push(format!("{name} fails"));
            self.world.fail(name);
        } else if !self.hurt.contains(&attempt) && self.failures_left == 0 {
            self.world.complete(name);
        }
        self.history.push(self.world.view());
    }

    fn run(&mut self) {
        for step in 0..4_000 {
            let calm = step > 300;
            if calm {
                self.failures_left = 0;
            }
            match self.dice.roll(5) {
                0 | 1 => self.reconcile(calm),
                2 => self.world.advance(self.dice.roll(20) as i64),
                _ => self.live(calm),
            }
            assert!(self.world.status().restarts_count_towards_max <= self.max_restarts, "over the budget");
            if self.world.status().is_finished() {
                break;
            }
        }
        let log = self.log.join("\n");
        let status = self.world.status();
        assert!(status.is_finished(), "the set never ends\n{log}");
        let restarted: BTreeSet<i32> = (0..status.restarts).collect();
        assert!(restarted.is_subset(&self.hurt), "an attempt was restarted for nothing\n{log}");
        assert_eq!(status.is("Failed"), self.hurt.len() as i32 > self.max_restarts, "{log}");
        for _ in 0..20 {
            self.world.advance(100);
            self.reconcile(true);
            self.live(true);
        }
        assert!(self.world.jobs.values().all(has_ended), "an ended set still runs\n{log}");
        assert_eq!(self.world.status().restarts, status.restarts, "an ended set restarts\n{log}");
    }
}

fn name(effect: &Effect) -> String {
    match effect {
        Effect::WriteStatus(status) => format!("status with {} restarts", status.restarts),
        Effect::CreateJob(job) => {
            format!("create {} of attempt {}", job.metadata.name.clone().unwrap(), attempt(job))
        }
        Effect::DeleteJob(deletion) => format!("delete {} {}", deletion.name, deletion.uid),
        Effect::CreateService(_) => "service".to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_thousand_lives() {
    let mut restarts = 0;
    let seeds = live(1_000, |seed| {
        let mut simulation = Simulation::new(seed);
        simulation.run();
        restarts += simulation.world.status().restarts as u64;
    });
    assert!(restarts > seeds / 3, "the simulation exercises restarts: {restarts}");
}
