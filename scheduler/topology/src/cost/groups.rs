//! What the groups of a job cost that is divided in several dimensions.

use std::collections::BTreeMap;

use super::{Collective, CostError, CostModel, JobTraffic, Load, Slot};
use crate::ranks::{Dimension, GroupShape};
use crate::tree::DomainId;

/// The groups of one dimension, their collective and its bytes.
struct Talk {
    groups: Vec<Vec<Slot>>,
    collective: Collective,
    bytes: u64,
}

impl CostModel<'_> {
    /// Seconds of a step in which the groups of a shape communicate, when each rank averages so many bytes with its
    /// copies: of every dimension the slowest group, one dimension after the other. Tensor and data groups reduce;
    /// stages of a pipeline pass on, around a ring. The groups of a dimension talk at once and share the uplinks.
    ///
    /// # Errors
    /// [`CostError`] of a slot that does not exist.
    pub fn predict_groups(&self, bytes: u64, slots: &[Slot], shape: &GroupShape) -> Result<f64, CostError> {
        let mut seconds = 0.0;
        for talk in talks(bytes, slots, shape) {
            seconds += self.slowest(&talk)?;
        }
        Ok(seconds)
    }

    /// What the groups send over each uplink that they share with other jobs, on average over a step that lasts
    /// `step` seconds.
    ///
    /// # Errors
    /// [`CostError`] of a slot that does not exist.
    pub fn groups_traffic(
        &self,
        bytes: u64,
        slots: &[Slot],
        shape: &GroupShape,
        step: f64,
    ) -> Result<JobTraffic, CostError> {
        let mut rates: BTreeMap<DomainId, f64> = BTreeMap::new();
        for talk in talks(bytes, slots, shape) {
            for group in &talk.groups {
                let busy = self.predict(talk.collective, talk.bytes, group)?.seconds;
                let traffic = self.traffic(talk.collective, talk.bytes, group, busy / step.max(busy))?;
                for (domain, rate) in traffic.uplinks() {
                    *rates.entry(domain).or_default() += rate;
                }
            }
        }
        Ok(JobTraffic::new(rates))
    }

    /// Seconds of the slowest group beside the others.
    fn slowest(&self, talk: &Talk) -> Result<f64, CostError> {
        let each: Vec<JobTraffic> = if talk.groups.len() > 1 {
            let traffic = |group: &Vec<Slot>| self.traffic(talk.collective, talk.bytes, group, 1.0);
            talk.groups.iter().map(traffic).collect::<Result<_, _>>()?
        } else {
            Vec::new()
        };
        let shares_uplinks = each.iter().any(|traffic| traffic.uplinks().next().is_some());
        let mut load =
            shares_uplinks.then(|| self.load.cloned().unwrap_or_else(|| Load::idle(self.topology)));
        if let Some(load) = &mut load {
            for traffic in &each {
                load.add(traffic);
            }
        }
        let mut slowest = 0.0_f64;
        for (index, group) in talk.groups.iter().enumerate() {
            let seconds = match &mut load {
                Some(load) => {
                    load.remove(&each[index]);
                    let found = self.with_load(load).predict(talk.collective, talk.bytes, group)?.seconds;
                    load.add(&each[index]);
                    found
                }
                None => self.predict(talk.collective, talk.bytes, group)?.seconds,
            };
            slowest = slowest.max(seconds);
        }
        Ok(slowest)
    }
}

fn talks(bytes: u64, slots: &[Slot], shape: &GroupShape) -> impl Iterator<Item = Talk> {
    let divided = Dimension::ALL.into_iter().filter(|dimension| shape.size(*dimension) > 1);
    divided.map(move |dimension| {
        let members = |group: &mut dyn Iterator<Item = usize>| -> Vec<Slot> {
            group.filter_map(|rank| slots.get(rank).copied()).collect()
        };
        Talk {
            groups: shape.groups(dimension).map(|mut group| members(&mut group)).collect(),
            collective: match dimension {
                Dimension::Tensor | Dimension::Data => Collective::AllReduce,
                Dimension::Pipeline => Collective::AllGather,
            },
            bytes: shape.bytes(dimension, bytes),
        }
    })
}
