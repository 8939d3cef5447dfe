//! Which gang a pod belongs to, and how near to each other its members must be.

use std::fmt;

use muster_scheduler_api::annotations;
use muster_scheduler_core::{Closeness, PodKey};

use super::wishes::{Problem, Wishes, levels, positive, slice};

/// A gang by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GangKey {
    /// Namespace.
    pub namespace: String,
    /// Name: that of the written plan too. A pod without a gang is one whose name no gang can have.
    pub name: String,
}

impl fmt::Display for GangKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// A pod's gang, as far as the pod says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The gang.
    pub gang: GangKey,
    /// Whether somebody named the gang; otherwise it is this pod alone.
    pub named: bool,
    /// How many pods must start together.
    pub min_available: usize,
    /// How near to each other they must or should be.
    pub closeness: Closeness,
    /// Places held for members whose node fails.
    pub spares: u32,
}

impl Membership {
    pub(super) fn read(pod: &PodKey, wishes: &mut Wishes<'_>) -> Self {
        let gang = wishes.name(annotations::GANG);
        let expected = "a whole number above 0";
        let least = wishes.read(annotations::GANG_MIN_AVAILABLE, expected, positive);
        let named = wishes.annotation(annotations::GANG).is_some();
        if least.is_some_and(|least| least > 1) && !named {
            let name = annotations::GANG_MIN_AVAILABLE;
            wishes.problems.push(Problem::Needs { name, needs: annotations::GANG });
        }
        // Names of pods cannot hold a space, so a lone pod never meets a gang of its name.
        let name = gang.unwrap_or_else(|| format!("pod {}", pod.name));
        Self {
            gang: GangKey { namespace: pod.namespace.clone(), name },
            named,
            min_available: least.unwrap_or(1) as usize,
            closeness: closeness(wishes),
            spares: wishes.read(annotations::SPARES, "a whole number", |text| text.parse().ok()).unwrap_or(0),
        }
    }
}

fn closeness(wishes: &mut Wishes<'_>) -> Closeness {
    Closeness {
        required: wishes.level(annotations::REQUIRED_LEVEL),
        preferred: wishes
            .read(annotations::PREFERRED_LEVELS, "node labels of levels, separated by commas", levels)
            .unwrap_or_default(),
        spread: wishes.level(annotations::SPREAD_LEVEL),
        slice: wishes.read(annotations::SLICE, "SIZE@LEVEL, such as 8@kubernetes.io/hostname", slice),
    }
}
