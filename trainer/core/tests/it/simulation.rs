//! A job's whole life under a controller that sees late, and dies between any two effects.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use muster_trainer_api::label;
use muster_trainer_core::Effect;
use serde_json::{Value, json};

use crate::lives::live;
use crate::world::{Refusal, Replicas, View, World, manifest_of, phase, version};

/// SplitMix64: one seed, one history.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }

    pub(crate) fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }
}

/// A controller with caches that lag behind the cluster, each by its own way.
struct Controller {
    job_seen: usize,
    objects_seen: usize,
    /// The version of the job that it wrote last; it does not plan for older ones.
    job_written: u64,
}

/// A field of a spec and its value.
type Field = Option<(&'static str, &'static str)>;

/// Kinds, their replicas besides workers, and fields of their own.
const SHAPES: [(&str, Replicas, Field); 10] = [
    ("PyTorchJob", &[("Master", 1)], None),
    ("PyTorchJob", &[], None),
    ("TFJob", &[("Chief", 1), ("PS", 2)], None),
    ("TFJob", &[("Master", 1), ("Evaluator", 1)], None),
    ("TFJob", &[("PS", 1)], None),
    ("TFJob", &[("PS", 1)], Some(("successPolicy", "AllWorkers"))),
    ("XGBoostJob", &[("Master", 1)], None),
    ("JAXJob", &[], None),
    ("PaddleJob", &[("Master", 2)], None),
    ("PaddleJob", &[], None),
];

/// A job of any kind; mostly one that starts again after a failure, else as its kind does by default.
fn job(dice: &mut Dice) -> Value {
    let (kind, others, field) = SHAPES[dice.roll(SHAPES.len())];
    let mut job = manifest_of(kind, &[others, &[("Worker", 1 + dice.roll(4) as i32)]].concat());
    if let Some((field, value)) = field {
        job["spec"][field] = json!(value);
    }
    if !dice.one_in(8) {
        let policy = ["OnFailure", "Always"][dice.roll(2)];
        for replicas in job["spec"].as_object_mut().unwrap().values_mut() {
            for (_, replica) in replicas.as_object_mut().into_iter().flatten() {
                replica["restartPolicy"] = json!(policy);
            }
        }
    }
    job
}

struct Simulation {
    dice: Dice,
    world: World,
    history: Vec<View>,
    controller: Controller,
    /// Failures still to come.
    failures_left: usize,
    /// Generations in which something was made to fail, and whether only the job's own code did.
    hurt: BTreeMap<u64, bool>,
    backoff_limit: u32,
    log: Vec<String>,
}

fn generation(pod: &Pod) -> u64 {
    pod.metadata.labels.as_ref().unwrap()[label::GANG_GENERATION].parse().unwrap()
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let backoff_limit = dice.roll(4) as u32;
        let mut job = job(&mut dice);
        job["spec"]["runPolicy"] = json!({"backoffLimit": backoff_limit, "cleanPodPolicy": "Running"});
        let mut world = World::new(job);
        world.grace = 30;
        let history = vec![world.view()];
        let failures_left = dice.roll(5);
        Self {
            dice,
            world,
            history,
            controller: Controller { job_seen: 0, objects_seen: 0, job_written: 0 },
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
        self.world.job.as_ref().unwrap().status.is_finished()
    }

    fn record(&mut self) {
        self.history.push(self.world.view());
    }

    /// The caches move on, each somewhat, never back.
    fn see(&mut self, lag: bool) -> View {
        let latest = self.history.len() - 1;
        for seen in [&mut self.controller.job_seen, &mut self.controller.objects_seen] {
            *seen += if lag { self.dice.roll(latest - *seen + 1) } else { latest - *seen };
        }
        View {
            job: self.history[self.controller.job_seen].job.clone(),
            ..self.history[self.controller.objects_seen].clone()
        }
    }

    fn reconcile(&mut self, calm: bool) {
        let view = self.see(!calm);
        let mut planned_for = version(&view.job);
        if planned_for < self.controller.job_written {
            return;
        }
        let plan = view.plan(self.world.now, &self.world.options);
        for mut stage in plan.stages() {
            let mut refused = false;
            while !stage.is_empty() {
                let effect = stage.swap_remove(self.dice.roll(stage.len()));
                if !calm && self.dice.one_in(12) {
                    self.log.push("the controller dies".to_owned());
                    let latest = self.history.len() - 1;
                    self.controller = Controller { job_seen: latest, objects_seen: latest, job_written: 0 };
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
        self.record();
        if matches!(effect, Effect::Annotate(_) | Effect::WriteStatus(_)) {
            if result.is_ok() {
                self.controller.job_written = *planned_for;
            }
            return result.is_ok();
        }
        matches!(result, Ok(()) | Err(Refusal::AlreadyExists | Refusal::NotFound | Refusal::Conflict))
    }

    /// What may never be tried with success.
    fn check(&self, effect: &Effect) {
        match effect {
            Effect::CreatePod(pod) if !self.world.pods.contains_key(pod.metadata.name.as_ref().unwrap()) => {
                let new = generation(pod);
                assert!(new >= self.generation(), "a pod of a retired generation\n{}", self.log.join("\n"));
                assert!(!self.is_finished(), "a pod for an ended job");
                let others: BTreeSet<_> = self.world.pods.values().map(generation).collect();
                assert!(others.iter().all(|other| *other == new), "two generations at once");
            }
            Effect::WriteStatus(status) if self.is_finished() => {
                let stored = &self.world.job.as_ref().unwrap().status;
                assert_eq!(stored, status, "an ended job changes");
            }
            _ => {}
        }
    }

    /// Something happens to the pods.
    fn live(&mut self, calm: bool) {
        let now = self.world.now;
        self.world.pods.retain(|_, pod| {
            pod.metadata.deletion_timestamp.as_ref().is_none_or(|deadline| deadline.0 > now)
        });
        let names: Vec<_> = self.world.pods.keys().cloned().collect();
        if names.is_empty() {
            return self.record();
        }
        let name = &names[self.dice.roll(names.len())];
        let pod = &self.world.pods[name];
        let (is_deleting, is_current) =
            (pod.metadata.deletion_timestamp.is_some(), generation(pod) == self.generation());
        match phase(pod) {
            "Pending" => self.world.run(name),
            "Running"
                if !calm && self.failures_left > 0 && is_current && !is_deleting && self.dice.one_in(3) =>
            {
                if !self.hurt.contains_key(&self.generation()) {
                    self.failures_left -= 1;
                }
                let generation = self.generation();
                let by_code = self.dice.one_in(2);
                *self.hurt.entry(generation).or_insert(true) &= by_code;
                self.log.push(format!("{name} is hurt"));
                match (by_code, self.dice.one_in(2)) {
                    (true, _) => self.world.exit(name, 1),
                    (false, true) => drop(self.world.pods.remove(name)),
                    (false, false) => {
                        self.world.set_pod_status(name, json!({"phase": "Failed", "reason": "Evicted"}));
                    }
                }
            }
            // The others fail for want of their peer.
            "Running" if self.hurt.contains_key(&generation(pod)) && self.dice.one_in(2) => {
                self.world.exit(name, 1);
            }
            "Running"
                if !self.hurt.contains_key(&generation(pod)) && self.failures_left == 0 && self.all_run() =>
            {
                self.world.exit(name, 0);
            }
            _ => {}
        }
        self.record();
    }

    fn all_run(&self) -> bool {
        let wanted = self.world.job.as_ref().unwrap().total() as usize;
        let mut pods = self.world.pods.values();
        self.world.pods.len() == wanted && pods.all(|pod| matches!(phase(pod), "Running" | "Succeeded"))
    }

    fn run(&mut self) {
        for step in 0..4_000 {
            let calm = step > 300;
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
        assert!(self.is_finished(), "the job never ends\n{}", self.log.join("\n"));
        let restarts =
            self.count("muster.dev/restart-count") + self.count("muster.dev/infrastructure-restart-count");
        let log = self.log.join("\n");
        assert_eq!(restarts, self.generation(), "one generation for each restart\n{log}");
        for generation in 0..self.generation() {
            assert!(
                self.hurt.contains_key(&generation),
                "generation {generation} was restarted for nothing\n{log}"
            );
        }
        let by_code = (0..self.generation()).filter(|generation| self.hurt[generation]).count() as u64;
        assert!(
            self.count("muster.dev/restart-count") >= by_code,
            "a failure of the code was not counted\n{log}"
        );
        self.clean_up();
    }

    fn clean_up(&mut self) {
        self.world.advance(1_000);
        for _ in 0..20 {
            self.reconcile(true);
            self.live(true);
            self.world.advance(100);
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
            format!("create {} of generation {}", pod.metadata.name.clone().unwrap(), generation(pod))
        }
        Effect::DeletePod(deletion) => format!("delete {} {}", deletion.name, deletion.uid),
        Effect::CreateService(_) | Effect::DeleteService(_) => "service".to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_thousand_lives() {
    let mut restarts = 0;
    let seeds = live(1_000, |seed| {
        let mut simulation = Simulation::new(seed);
        simulation.run();
        restarts += simulation.generation();
    });
    assert!(restarts > seeds / 3, "the simulation exercises restarts: {restarts}");
}
