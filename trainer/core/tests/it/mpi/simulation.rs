//! An MPI job's whole life under a controller that sees late, and dies between any two effects.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_trainer_api::{JobStatus, label};
use muster_trainer_core::{Companion, CompanionAction, Effect};
use serde_json::json;

use super::world::{View, World, exited, manifest, version};
use crate::lives::live;
use crate::simulation::Dice;
use crate::world::{Refusal, phase};

const WORKERS: usize = 3;

struct Simulation {
    dice: Dice,
    world: World,
    history: Vec<View>,
    /// What the controller's caches show: the job, everything else.
    seen: [usize; 2],
    /// The version of the job that the controller wrote last; it does not plan for older ones.
    written: u64,
    /// What its caches must show before it plans again: it has created them.
    created: BTreeSet<String>,
    failures_left: usize,
    /// Generations in which a worker was hurt, and whether only its own code did it.
    hurt: BTreeMap<u64, bool>,
    backoff_limit: u32,
    log: Vec<String>,
}

fn generation(metadata: &ObjectMeta) -> u64 {
    metadata.labels.as_ref().unwrap()[label::GANG_GENERATION].parse().unwrap()
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let backoff_limit = dice.roll(4) as u32;
        let mut job = manifest(WORKERS as i32);
        job["spec"]["runPolicy"] = json!({"backoffLimit": backoff_limit, "cleanPodPolicy": "Running"});
        let mut world = World::new(job);
        world.grace = 30;
        let history = vec![world.view()];
        let failures_left = dice.roll(5);
        Self {
            dice,
            world,
            history,
            seen: [0, 0],
            written: 0,
            created: BTreeSet::new(),
            failures_left,
            hurt: BTreeMap::new(),
            backoff_limit,
            log: Vec::new(),
        }
    }

    fn count(&self, key: &str) -> u64 {
        self.world.annotation(key).map_or(0, |text| text.parse().unwrap())
    }

    fn generation(&self) -> u64 {
        self.count("muster.dev/gang-generation")
    }

    fn is_finished(&self) -> bool {
        self.world.job.as_ref().unwrap().status.as_ref().is_some_and(JobStatus::is_finished)
    }

    fn reconcile(&mut self, calm: bool) {
        let latest = self.history.len() - 1;
        for seen in &mut self.seen {
            *seen += if calm { latest - *seen } else { self.dice.roll(latest - *seen + 1) };
        }
        let view = View { job: self.history[self.seen[0]].job.clone(), ..self.history[self.seen[1]].clone() };
        let mut planned_for = version(&view.job.metadata);
        self.created.retain(|name| !view.shows(name));
        if planned_for < self.written || !self.created.is_empty() && !calm {
            return;
        }
        for mut stage in view.plan(self.world.now, &self.world.options).stages() {
            let mut refused = false;
            while !stage.is_empty() {
                let effect = stage.swap_remove(self.dice.roll(stage.len()));
                if !calm && self.dice.one_in(12) {
                    self.log.push("the controller dies".to_owned());
                    self.seen = [self.history.len() - 1; 2];
                    (self.written, self.created) = (0, BTreeSet::new());
                    return;
                }
                refused |= !self.take(&effect, &mut planned_for);
            }
            if refused {
                return;
            }
        }
    }

    /// Carries out one effect; whether the plan may go on.
    fn take(&mut self, effect: &Effect, planned_for: &mut u64) -> bool {
        self.check(effect);
        let result = self.world.apply(effect, planned_for);
        self.log.push(format!("{} -> {result:?}", name(effect)));
        self.history.push(self.world.view());
        match effect {
            Effect::Annotate(_) | Effect::WriteStatus(_) => {
                if result.is_ok() {
                    self.written = *planned_for;
                }
                return result.is_ok();
            }
            Effect::CreatePod(pod) if result.is_ok() => self.created.extend(pod.metadata.name.clone()),
            Effect::Companion(CompanionAction::Ensure(Companion::Job(job))) if result.is_ok() => {
                self.created.extend(job.metadata.name.clone());
            }
            _ => {}
        }
        matches!(result, Ok(()) | Err(Refusal::AlreadyExists | Refusal::NotFound))
    }

    /// What may never be tried with success.
    fn check(&self, effect: &Effect) {
        let metadata = match effect {
            Effect::CreatePod(pod) if !self.world.pods.contains_key(pod.metadata.name.as_ref().unwrap()) => {
                &pod.metadata
            }
            Effect::Companion(CompanionAction::Ensure(Companion::Job(job)))
                if self.world.launchers.is_empty() =>
            {
                &job.metadata
            }
            Effect::WriteStatus(status) if self.is_finished() => {
                let stored = self.world.job.as_ref().unwrap().status.as_ref().unwrap();
                assert_eq!(stored, status, "an ended job changes");
                return;
            }
            _ => return,
        };
        let log = || self.log.join("\n");
        assert!(!self.is_finished(), "something new for an ended job\n{}", log());
        let new = generation(metadata);
        assert!(new >= self.generation(), "something of a retired generation\n{}", log());
        let workers =
            self.world.pods.values().filter(|pod| !pod.metadata.name.as_ref().unwrap().contains("launcher"));
        let launchers = self.world.launchers.values().map(|launcher| &launcher.metadata);
        let others: BTreeSet<_> = workers.map(|pod| &pod.metadata).chain(launchers).map(generation).collect();
        assert!(others.iter().all(|other| *other == new), "two generations at once\n{}", log());
    }

    /// Something happens to the pods.
    fn live(&mut self, calm: bool) {
        let now = self.world.now;
        self.world.pods.retain(|_, pod| {
            pod.metadata.deletion_timestamp.as_ref().is_none_or(|deadline| deadline.0 > now)
        });
        self.world.control_launchers();
        let launcher_pods =
            self.world.launcher_pods().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let active = launcher_pods.filter(|pod| matches!(phase(pod), "Pending" | "Running")).count();
        assert!(active <= 1, "two launchers\n{}", self.log.join("\n"));
        let names: Vec<_> = self.world.pods.keys().cloned().collect();
        if let Some(name) = (!names.is_empty()).then(|| names[self.dice.roll(names.len())].clone()) {
            if name.contains("launcher") { self.live_launcher(&name) } else { self.live_worker(&name, calm) }
        }
        self.history.push(self.world.view());
    }

    fn live_worker(&mut self, name: &str, calm: bool) {
        let pod = &self.world.pods[name];
        let of = generation(&pod.metadata);
        let is_deleting = pod.metadata.deletion_timestamp.is_some();
        match phase(pod) {
            "Pending" => self.world.run(name),
            "Running" if !calm && self.failures_left > 0 && of == self.generation() && !is_deleting => {
                if !self.dice.one_in(4) {
                    return;
                }
                if !self.hurt.contains_key(&of) {
                    self.failures_left -= 1;
                }
                let by_code = self.dice.one_in(2);
                *self.hurt.entry(of).or_insert(true) &= by_code;
                self.log.push(format!("{name} is hurt"));
                if by_code {
                    self.world.set_pod_status(name, exited(1));
                } else {
                    self.world.pods.remove(name);
                }
            }
            _ => {}
        }
    }

    fn live_launcher(&mut self, name: &str) {
        let pod = &self.world.pods[name];
        let workers = self.world.pods.iter().filter(|(name, _)| !name.contains("launcher"));
        let running =
            workers.filter(|(_, pod)| phase(pod) == "Running" && pod.metadata.deletion_timestamp.is_none());
        let all_run = running.count() == WORKERS;
        match phase(pod) {
            "Pending" if all_run => self.world.run(name),
            "Running" if !all_run && self.dice.one_in(2) => self.world.set_pod_status(name, exited(1)),
            "Running" if all_run && self.failures_left == 0 => self.world.set_pod_status(name, exited(0)),
            _ => {}
        }
    }

    fn run(&mut self) {
        for step in 0..5_000 {
            let calm = step > 400;
            match self.dice.roll(5) {
                0 | 1 => self.reconcile(calm),
                2 => self.world.advance(self.dice.roll(20) as i64),
                _ => self.live(calm),
            }
            assert!(
                self.count("muster.dev/restart-count") <= u64::from(self.backoff_limit),
                "over the budget"
            );
            if self.is_finished() {
                break;
            }
            if calm {
                self.failures_left = 0;
            }
        }
        let log = self.log.join("\n");
        assert!(self.is_finished(), "the job never ends\n{log}");
        for generation in 0..self.generation() {
            assert!(
                self.hurt.contains_key(&generation),
                "generation {generation} was restarted for nothing\n{log}"
            );
        }
        self.clean_up();
    }

    fn clean_up(&mut self) {
        for _ in 0..20 {
            self.world.advance(100);
            self.reconcile(true);
            self.live(true);
        }
        let left: Vec<_> = self.world.pods.values().map(phase).collect();
        assert!(left.iter().all(|phase| matches!(*phase, "Failed" | "Succeeded")), "{left:?}");
    }
}

fn name(effect: &Effect) -> String {
    match effect {
        Effect::Annotate(annotations) => format!("annotate {annotations:?}"),
        Effect::WriteStatus(status) => {
            format!("status {:?}", status.conditions.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>())
        }
        Effect::CreatePod(pod) => {
            format!(
                "create {} of generation {}",
                pod.metadata.name.clone().unwrap(),
                generation(&pod.metadata)
            )
        }
        Effect::DeletePod(deletion) => format!("delete {} {}", deletion.name, deletion.uid),
        Effect::CreateService(_) => "service".to_owned(),
        Effect::Companion(CompanionAction::Ensure(companion)) => format!("ensure {}", companion.kind()),
        Effect::Companion(CompanionAction::Update(companion)) => format!("update {}", companion.kind()),
        other => format!("{other:?}"),
    }
}

#[test]
fn three_hundred_lives() {
    let (mut restarts, mut ended_well) = (0, 0);
    let seeds = live(300, |seed| {
        let mut simulation = Simulation::new(seed);
        simulation.run();
        restarts += simulation.generation();
        ended_well += u64::from(simulation.world.conditions().contains(&"Succeeded=True".to_owned()));
    });
    assert!(restarts > seeds / 3, "the simulation exercises restarts: {restarts}");
    assert!(ended_well > seeds / 3 && ended_well < seeds, "both ends are met: {ended_well}");
}
