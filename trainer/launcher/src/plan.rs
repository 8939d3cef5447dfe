//! What will be started, decided before anything is.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::path::Path;

use rustix::thread::{CpuSet, sched_getaffinity};

use crate::arguments::{Arguments, Pin};
use crate::elastic::Settings;
use crate::error::Error;
use crate::pinning::{self, CoreSet};
use crate::world::{Resources, World};
use crate::{program, sysfs};

/// Which place this node has in its job.
#[derive(Debug)]
pub(crate) enum Place {
    /// It is known.
    Fixed(World),
    /// A rendezvous gives it.
    Elastic(Settings),
}

/// The workers of this node.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) place: Place,
    /// An entry a worker; no processors means any.
    pub(crate) cores: Vec<CoreSet>,
    /// How often all workers may start again.
    pub(crate) restarts: u32,
    pub(crate) command: Vec<OsString>,
    /// What the user should know of it.
    pub(crate) remarks: Vec<String>,
}

impl Place {
    /// Workers of each node.
    fn workers(&self) -> NonZeroUsize {
        match self {
            Self::Fixed(world) => world.workers,
            Self::Elastic(settings) => settings.workers,
        }
    }

    /// Nodes whose workers start again only with their pods.
    fn fixed_nodes(&self) -> usize {
        match self {
            Self::Fixed(world) => world.nodes,
            Self::Elastic(_) => 1,
        }
    }
}

impl Plan {
    /// Reads options, variables and the machine, and finds the program.
    pub(crate) fn make(arguments: &Arguments) -> Result<Self, Error> {
        let variable = |name: &str| std::env::var(name).ok();
        let allowed = allowed_processors();
        let machine = sysfs::read(Path::new("/"), &allowed);
        let gpus = machine.visible_gpus(variable("CUDA_VISIBLE_DEVICES").as_deref());
        // Both affinity and the quota of the control group bound it.
        let processors = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let resources = Resources { processors, gpus: gpus.len() };
        let elastic = Settings::read(&arguments.place, variable, resources)?;
        let mut place = match elastic {
            Some(settings) => Place::Elastic(settings),
            None => Place::Fixed(World::read(&arguments.place, variable, resources)?),
        };
        let mut remarks = Vec::new();
        let restarts = restarts(arguments, variable, &place, &mut remarks)?;

        let command = &arguments.command[0];
        let path = std::env::var_os("PATH").unwrap_or_default();
        program::find(command, &path)?;

        if let Place::Fixed(world) = &mut place
            && world.master_port == 0
        {
            world.master_port = free_port(&world.master_address)?;
        }
        let workers = place.workers().get();
        let share = (processors.get() / workers).max(1);
        let near: Vec<_> = (0..workers).map(|rank| gpus.get(rank).copied().flatten()).collect();
        let dealt = match arguments.pin {
            Pin::Auto => pinning::deal(&machine.cpus, &near),
            Pin::None => None,
        };
        let cores = dealt.unwrap_or_else(|| vec![CoreSet { cpus: Vec::new(), cores: share }; workers]);
        // With a quota below its cores, a worker that used them all would be throttled.
        let bounded = |set: CoreSet| CoreSet { cores: set.cores.min(share), ..set };
        let cores = cores.into_iter().map(bounded).collect();
        Ok(Self { place, cores, restarts, command: arguments.command.clone(), remarks })
    }
}

fn allowed_processors() -> BTreeSet<usize> {
    match sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect(),
        Err(_) => BTreeSet::new(),
    }
}

fn restarts(
    arguments: &Arguments,
    variable: impl Fn(&str) -> Option<String>,
    place: &Place,
    remarks: &mut Vec<String>,
) -> Result<u32, Error> {
    let given = arguments.max_restarts;
    let nodes = place.fixed_nodes();
    if nodes > 1 && given.is_some_and(|restarts| restarts > 0) {
        return Err(Error::RestartsOfOneNode { nodes });
    }
    let name = "PET_MAX_RESTARTS";
    let restarts = match (given, variable(name).filter(|value| !value.is_empty())) {
        (Some(given), _) => given,
        (None, None) => 0,
        (None, Some(value)) => value.trim().parse().map_err(|_| crate::world::Error::Invalid {
            name,
            value: value.clone(),
            expected: "a number".to_owned(),
        })?,
    };
    if nodes > 1 && restarts > 0 {
        remarks.push(format!(
            "{name} is {restarts}, which is left to the job's controller: workers of several nodes start again together"
        ));
        return Ok(0);
    }
    Ok(restarts)
}

/// A port of this address that nobody listens at.
pub(crate) fn free_port(address: &str) -> Result<u16, Error> {
    let listener = TcpListener::bind((address, 0)).and_then(|listener| listener.local_addr());
    let place = listener.map_err(|source| Error::Port { address: address.to_owned(), source })?;
    Ok(place.port())
}

/// The name of this machine, as pods know it.
pub(crate) fn host() -> String {
    let named = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let kernel =
        || fs_err::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    named.or_else(kernel).unwrap_or_else(|| "this host".to_owned())
}

/// Whether a variable is inherited that the workers should keep.
pub(crate) fn inherited(name: &str) -> Option<String> {
    std::env::var_os(name).as_deref().map(OsStr::to_string_lossy).map(std::borrow::Cow::into_owned)
}
