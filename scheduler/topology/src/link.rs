//! What connects a domain with the domain above it.

/// The kind of wire, which decides the latencies and protocols of a collective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fabric {
    /// NVLink between hosts, as inside an NVL72 rack.
    NvLink,
    /// InfiniBand or Ethernet through network cards and switches.
    Network,
}

/// The link from a domain to its parent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// GB/s (10⁹ bytes) per direction, all parallel wires together, oversubscription already taken off.
    pub bandwidth: f64,
    /// Microseconds one way, on top of what the network cards and software take.
    pub latency: f64,
    /// Bandwidth that enters the domain from below divided by what leaves it: 1 is a full fat tree.
    pub oversubscription: f64,
    /// The kind of wire.
    pub fabric: Fabric,
}

impl Link {
    /// The link of the root, which leads nowhere and limits nothing.
    pub(crate) const NOWHERE: Self =
        Self { bandwidth: f64::INFINITY, latency: 0.0, oversubscription: 1.0, fabric: Fabric::Network };
}

/// How wide the uplinks of a level's domains are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Capacity {
    /// What the network cards or uplinks below can send together, divided by this oversubscription.
    Oversubscribed(f64),
    /// So many GB/s per direction for every domain of the level.
    Fixed(f64),
    /// So many GB/s per direction for every GPU below.
    PerGpu(f64),
}

/// The rule that gives the domains of a level their uplinks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UplinkRule {
    /// How wide.
    pub capacity: Capacity,
    /// Microseconds one way.
    pub latency: f64,
    /// The kind of wire.
    pub fabric: Fabric,
}

impl UplinkRule {
    /// A network without oversubscription, half a microsecond per switch.
    pub const FULL: Self = Self::oversubscribed(1.0);

    /// A network whose uplinks carry 1/`ratio` of what comes from below.
    pub const fn oversubscribed(ratio: f64) -> Self {
        Self { capacity: Capacity::Oversubscribed(ratio), latency: 0.5, fabric: Fabric::Network }
    }

    /// NVLink with so many GB/s per GPU and direction.
    pub const fn nvlink(per_gpu: f64) -> Self {
        Self { capacity: Capacity::PerGpu(per_gpu), latency: 0.2, fabric: Fabric::NvLink }
    }

    /// The field that is not a sensible number, if there is one.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let (field, amount) = match self.capacity {
            Capacity::Oversubscribed(ratio) => ("oversubscription", ratio),
            Capacity::Fixed(bandwidth) => ("bandwidth", bandwidth),
            Capacity::PerGpu(bandwidth) => ("bandwidth per GPU", bandwidth),
        };
        if !(amount.is_finite() && amount > 0.0) {
            return Some(field);
        }
        (!(self.latency.is_finite() && self.latency >= 0.0)).then_some("latency")
    }
}
