//! Who the ranks of one host are among all ranks of a group.

/// The numbers of this host's ranks in the whole group, and the hosts of all ranks.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    /// For each rank of this host, its rank in the group, ascending.
    pub(crate) members: Vec<usize>,
    /// How the host of each rank of the group calls itself.
    pub(crate) hosts: Vec<String>,
}

impl Membership {
    /// Of a group that lies on one host.
    pub(crate) fn of_one_host(hosts: Vec<String>) -> Self {
        Self { members: (0..hosts.len()).collect(), hosts }
    }
}
