//! Which rank this process is, from the environment that a PyTorchJob sets.

use std::path::PathBuf;
use std::time::Duration;

use muster_collectives::{Communicator, NetworkOptions, Options, Token};

/// The environment does not describe a rank this trainer can be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A variable is missing that the others call for.
    #[error("{name} is not set, but WORLD_SIZE is {world_size}; a PyTorchJob sets it")]
    Missing {
        /// The variable.
        name: &'static str,
        /// The number of ranks.
        world_size: usize,
    },
    /// A variable holds something else than expected.
    #[error("{name} is {value:?}, not {expected}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: String,
    },
}

/// Where ranks meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meeting {
    /// In a directory that the node offers to all of them, so that they share memory.
    Directory(PathBuf),
    /// At the master's address, since no directory says that they are on one machine.
    Address(String),
    /// Nowhere: there is one.
    Alone,
}

/// This process's place among the ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) rank: usize,
    pub(crate) size: usize,
    /// Where the ranks meet.
    pub(crate) meeting: Meeting,
    /// Name of the group, from the address of the master.
    pub(crate) group: String,
    pub(crate) host: String,
    /// A file with the secret that ranks on several hosts prove to each other that they know.
    pub(crate) token_file: Option<PathBuf>,
}

impl World {
    /// Reads the environment through `variable`.
    pub(crate) fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let number = |name: &'static str| -> Result<Option<usize>, Error> {
            let parse = |value: String| {
                value.trim().parse().map_err(|_| Error::Invalid { name, value, expected: "a number".into() })
            };
            variable(name).map(parse).transpose()
        };
        let host = variable("HOSTNAME").unwrap_or_else(|| "this host".into());
        let size = number("WORLD_SIZE")?.unwrap_or(1);
        if size == 0 {
            let expected = "at least 1".into();
            return Err(Error::Invalid { name: "WORLD_SIZE", value: "0".into(), expected });
        }
        if size == 1 {
            return Ok(Self {
                rank: 0,
                size,
                meeting: Meeting::Alone,
                group: "alone".into(),
                host,
                token_file: None,
            });
        }
        let missing = |name| Error::Missing { name, world_size: size };
        let rank = number("RANK")?.ok_or_else(|| missing("RANK"))?;
        if rank >= size {
            let expected = format!("below WORLD_SIZE, which is {size}");
            return Err(Error::Invalid { name: "RANK", value: rank.to_string(), expected });
        }
        let address = variable("MASTER_ADDR").ok_or_else(|| missing("MASTER_ADDR"))?;
        let port = variable("MASTER_PORT").ok_or_else(|| missing("MASTER_PORT"))?;
        let directory = variable("MUSTER_PEERS_DIR").map(|directory| Meeting::Directory(directory.into()));
        let meeting = directory.unwrap_or_else(|| Meeting::Address(format!("{address}:{port}")));
        let token_file = variable("MUSTER_GROUP_TOKEN_FILE").map(PathBuf::from);
        Ok(Self { rank, size, meeting, group: group_name(&address, &port), host, token_file })
    }
}

impl World {
    /// Brings the ranks together. `deadline` is how long a call may wait for others, `join_deadline` how long they may take to
    /// come; `arena_bytes` is the room for buffers.
    pub(crate) fn join(
        &self,
        deadline: Duration,
        join_deadline: Duration,
        arena_bytes: usize,
    ) -> Result<Communicator, crate::Error> {
        let (directory, network) = match &self.meeting {
            Meeting::Directory(directory) => (directory.clone(), None),
            // Ranks in one container share its temporary directory, and so memory.
            Meeting::Address(address) => (std::env::temp_dir(), Some(self.network(address)?)),
            Meeting::Alone => (PathBuf::from("."), None),
        };
        let mut options = Options::new(directory, self.group.clone(), self.rank, self.size);
        options.network = network;
        options.host.clone_from(&self.host);
        options.deadline = deadline;
        options.join_deadline = join_deadline;
        options.arena_bytes = arena_bytes;
        Communicator::connect(&options).map_err(|source| crate::Error::Collective { rank: self.rank, source })
    }
}

impl World {
    fn network(&self, address: &str) -> Result<NetworkOptions, crate::Error> {
        let mut options = NetworkOptions::new(address);
        if let Some(path) = &self.token_file {
            let secret = fs_err::read(path).map_err(|error| crate::Error::Setup {
                action: "read the token of the group, MUSTER_GROUP_TOKEN_FILE",
                message: error.to_string(),
            })?;
            options.token = Token::new(secret.trim_ascii());
        }
        Ok(options)
    }
}

/// A file name for the group: the master's address tells it from other groups in the same directory.
///
/// A master sees itself as `localhost` under some launchers and by its name under others; the controller of a
/// PyTorchJob gives all replicas the same name.
fn group_name(address: &str, port: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' };
    format!("{address}-{port}").chars().take(120).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(variables: &[(&str, &str)]) -> Result<World, Error> {
        World::from_environment(|name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        })
    }

    const WORKER: [(&str, &str); 6] = [
        ("RANK", "2"),
        ("WORLD_SIZE", "4"),
        ("MASTER_ADDR", "digits-master-0"),
        ("MASTER_PORT", "23456"),
        ("MUSTER_PEERS_DIR", "/run/muster/peers"),
        ("HOSTNAME", "digits-worker-1"),
    ];

    fn without(name: &str) -> Result<World, Error> {
        world(&WORKER.iter().filter(|(variable, _)| *variable != name).copied().collect::<Vec<_>>())
    }

    #[test]
    fn a_worker_of_a_pytorchjob() {
        let world = world(&WORKER).unwrap();
        assert_eq!((world.rank, world.size), (2, 4));
        assert_eq!(world.group, "digits-master-0-23456");
        assert_eq!(world.meeting, Meeting::Directory("/run/muster/peers".into()));
        assert_eq!(world.host, "digits-worker-1");
    }

    #[test]
    fn a_token_comes_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs_err::write(&path, "hunter2\n").unwrap();
        let file = path.to_string_lossy().into_owned();
        let mut variables = WORKER.to_vec();
        variables.push(("MUSTER_GROUP_TOKEN_FILE", &file));
        let world = world(&variables).unwrap();
        assert_eq!(format!("{:?}", world.network("a:1").unwrap().token), "Token(secret)");
        fs_err::remove_file(&path).unwrap();
        let message = world.network("a:1").unwrap_err().to_string();
        assert!(
            message.starts_with("cannot read the token of the group, MUSTER_GROUP_TOKEN_FILE: "),
            "{message}"
        );
    }

    #[test]
    fn an_empty_environment_is_a_rank_alone() {
        let world = world(&[]).unwrap();
        assert_eq!((world.rank, world.size, world.meeting), (0, 1, Meeting::Alone));
    }

    #[test]
    fn ranks_without_a_common_directory_meet_at_the_master() {
        let world = without("MUSTER_PEERS_DIR").unwrap();
        assert_eq!(world.meeting, Meeting::Address("digits-master-0:23456".into()));
    }

    #[test]
    fn errors_name_the_variable() {
        assert_eq!(without("RANK").unwrap_err(), Error::Missing { name: "RANK", world_size: 4 });
        let wrong = world(&[("WORLD_SIZE", "four")]).unwrap_err();
        assert_eq!(wrong.to_string(), "WORLD_SIZE is \"four\", not a number");
        let wrong = world(&[("WORLD_SIZE", "2"), ("RANK", "2")]).unwrap_err();
        assert_eq!(wrong.to_string(), "RANK is \"2\", not below WORLD_SIZE, which is 2");
    }
}
