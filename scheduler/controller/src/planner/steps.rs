//! What gangs that run send over the network, and how long their steps take.

use muster_scheduler_core::{GangName, PodKey, Talk};

use super::Planner;
use super::decision::Step;
use super::pods::{GangKey, PodView};

impl From<&GangKey> for GangName {
    fn from(key: &GangKey) -> Self {
        Self { namespace: key.namespace.clone(), name: key.name.clone() }
    }
}

impl From<GangName> for GangKey {
    fn from(name: GangName) -> Self {
        Self { namespace: name.namespace, name: name.name }
    }
}

impl Planner {
    /// Counts what a gang that runs sends over uplinks that it shares with others.
    pub(super) fn listen_to(&mut self, key: &GangKey) {
        let talk = self.talk(key);
        if talk.places.len() < 2 && talk.all_reduce.is_none() {
            self.ledger.is_silent(&key.into());
        } else {
            self.ledger.talks(key.into(), talk);
        }
    }

    fn talk(&self, key: &GangKey) -> Talk {
        let mut placed: Vec<(&PodKey, &PodView)> =
            self.pods.of(key).filter(|(_, view)| view.state.has_place()).collect();
        placed.sort_by_key(|(pod, view)| (view.member.rank, *pod));
        let mut talk = Talk { step: self.measured_step(key), ..Talk::default() };
        for (pod, view) in placed {
            talk.shape = talk.shape.or(view.shape);
            talk.all_reduce = talk.all_reduce.max(view.all_reduce);
            talk.places.extend(self.ledger.place_of(pod));
        }
        talk
    }

    /// Seconds of a step of a gang, of its slowest pod that says so.
    pub(super) fn measured_step(&self, key: &GangKey) -> Option<f64> {
        let placed = self.pods.of(key).filter(|(_, view)| view.state.has_place());
        placed.filter_map(|(_, view)| view.step).reduce(f64::max)
    }

    /// Steps of gangs that have said something new of them.
    pub(super) fn measured_steps(&mut self) -> Vec<Step> {
        let reported = std::mem::take(&mut self.reported);
        let step = |key: GangKey| {
            let queue = self.gangs.get(&key)?.asked.queue().to_owned();
            let observed = self.measured_step(&key)?;
            Some(Step { queue, observed, predicted: self.ledger.predicted(&(&key).into()) })
        };
        reported.into_iter().filter_map(step).collect()
    }
}
