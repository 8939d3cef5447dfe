//! What running jobs send over the links that they share.

use crate::tree::{DomainId, Topology};

/// What one job sends over each uplink that it shares with others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobTraffic {
    /// MB/s per direction, so that what is added can be taken off again exactly.
    uplinks: Vec<(DomainId, u64)>,
}

impl JobTraffic {
    /// GB/s per uplink; what is not above zero is left out.
    pub fn new(uplinks: impl IntoIterator<Item = (DomainId, f64)>) -> Self {
        let whole = |(domain, rate): (DomainId, f64)| (domain, (rate * 1000.0).ceil() as u64);
        Self { uplinks: uplinks.into_iter().map(whole).filter(|(_, rate)| *rate > 0).collect() }
    }

    /// GB/s per direction and uplink.
    pub fn uplinks(&self) -> impl Iterator<Item = (DomainId, f64)> {
        self.uplinks.iter().map(|(domain, rate)| (*domain, *rate as f64 / 1000.0))
    }
}

/// The traffic of all running jobs on the uplinks of a topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// Per domain: MB/s, and how many jobs.
    uplinks: Vec<(u64, u32)>,
}

impl Load {
    /// No job at all.
    pub fn idle(topology: &Topology) -> Self {
        Self { uplinks: vec![(0, 0); topology.domain_count()] }
    }

    /// A job starts.
    pub fn add(&mut self, job: &JobTraffic) {
        for (domain, rate) in &job.uplinks {
            if let Some((traffic, jobs)) = self.uplinks.get_mut(domain.index()) {
                *traffic = traffic.saturating_add(*rate);
                *jobs += 1;
            }
        }
    }

    /// A job that was added ends.
    pub fn remove(&mut self, job: &JobTraffic) {
        for (domain, rate) in &job.uplinks {
            if let Some((traffic, jobs)) = self.uplinks.get_mut(domain.index()) {
                *traffic = traffic.saturating_sub(*rate);
                *jobs = jobs.saturating_sub(1);
            }
        }
    }

    /// GB/s per direction over the uplink of a domain.
    pub fn traffic(&self, domain: DomainId) -> f64 {
        self.uplinks.get(domain.index()).map_or(0.0, |(traffic, _)| *traffic as f64 / 1000.0)
    }

    /// What one more job gets of an uplink: what the others leave, and never less than an equal share.
    pub(super) fn left(&self, domain: DomainId, whole: f64) -> f64 {
        let jobs = self.uplinks.get(domain.index()).map_or(0, |(_, jobs)| *jobs);
        (whole - self.traffic(domain)).max(whole / (f64::from(jobs) + 1.0))
    }
}
