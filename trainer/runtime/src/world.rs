//! Which rank this process is, from the environment that a PyTorchJob sets, or that `mpirun` does.

use std::path::PathBuf;
use std::time::Duration;

use muster_collectives::{CallOff, Communicator, NetworkOptions, Options, TlsFiles, Token};
use muster_rendezvous::{Bounds, Placement};

use crate::attendance::Rendezvous;

/// A file with the authorities that certify the ranks.
const CA_FILE: &str = "MUSTER_GROUP_CA_FILE";
/// A file with this rank's certificate.
const CERTIFICATE_FILE: &str = "MUSTER_GROUP_CERT_FILE";
/// A file with its key.
const KEY_FILE: &str = "MUSTER_GROUP_KEY_FILE";

/// The environment does not describe a rank this trainer can be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A variable is missing that the others call for.
    #[error(
        "{name} is not set, but there are {world_size} ranks; the controller sets it in the pods of a job, and Open \
         MPI's mpirun passes it on with `-x {name}`"
    )]
    Missing {
        /// The variable.
        name: &'static str,
        /// The number of ranks.
        world_size: usize,
    },
    /// Some of the files for TLS are named, but not all.
    #[error(
        "{missing} is not set, but {given} is; connections between hosts are under TLS with all of {CA_FILE}, \
         {CERTIFICATE_FILE} and {KEY_FILE}, or without it with none"
    )]
    IncompleteTls {
        /// The variable that is missing.
        missing: &'static str,
        /// One that is set.
        given: &'static str,
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
    /// Its place among the ranks of its pod.
    pub(crate) local_rank: usize,
    /// Where the ranks meet.
    pub(crate) meeting: Meeting,
    /// Name of the group, from the address of the master.
    pub(crate) group: String,
    pub(crate) host: String,
    /// A file with the secret that ranks on several hosts prove to each other that they know.
    pub(crate) token_file: Option<PathBuf>,
    /// Files with the certificates that put connections between hosts under TLS.
    pub(crate) tls: Option<TlsFiles>,
    /// Counts the groups of an elastic training: ranks of different ones do not mix.
    pub(crate) epoch: u64,
    /// Where an elastic training says who takes part; `rank` and `size` are then only what they were meant to be, until
    /// this process is [placed](Self::placed).
    pub(crate) rendezvous: Option<Rendezvous>,
}

/// The variables in which whoever started this process says which rank it is.
struct Names {
    rank: &'static str,
    size: &'static str,
    local_rank: &'static str,
}

impl Names {
    /// torchrun's, which a controller sets too.
    const TORCHRUN: Self = Self { rank: "RANK", size: "WORLD_SIZE", local_rank: "LOCAL_RANK" };
    /// Those of `mpirun`: Open MPI's, then Hydra's, which MPICH and Intel MPI have.
    const MPI: [Self; 2] = [
        Self {
            rank: "OMPI_COMM_WORLD_RANK",
            size: "OMPI_COMM_WORLD_SIZE",
            local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
        },
        Self { rank: "PMI_RANK", size: "PMI_SIZE", local_rank: "MPI_LOCALRANKID" },
    ];

    /// torchrun's win: it may itself be started by `mpirun`.
    fn of_launcher(is_set: impl Fn(&str) -> bool) -> Self {
        if is_set(Self::TORCHRUN.rank) || is_set(Self::TORCHRUN.size) {
            return Self::TORCHRUN;
        }
        Self::MPI.into_iter().find(|names| is_set(names.size)).unwrap_or(Self::TORCHRUN)
    }
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
        if let Some(addresses) = variable("MUSTER_RENDEZVOUS") {
            return Self::elastic(addresses, host, variable, number);
        }
        let names = Names::of_launcher(|name| variable(name).is_some());
        let size = number(names.size)?.unwrap_or(1);
        let local_rank = number(names.local_rank)?.unwrap_or(0);
        if size == 0 {
            let expected = "at least 1".into();
            return Err(Error::Invalid { name: names.size, value: "0".into(), expected });
        }
        if size == 1 {
            return Ok(Self {
                rank: 0,
                size,
                local_rank,
                meeting: Meeting::Alone,
                group: "alone".into(),
                host,
                token_file: None,
                tls: None,
                epoch: 0,
                rendezvous: None,
            });
        }
        let missing = |name| Error::Missing { name, world_size: size };
        let rank = number(names.rank)?.ok_or_else(|| missing(names.rank))?;
        if rank >= size {
            let expected = format!("below {}, which is {size}", names.size);
            return Err(Error::Invalid { name: names.rank, value: rank.to_string(), expected });
        }
        let address = variable("MASTER_ADDR").ok_or_else(|| missing("MASTER_ADDR"))?;
        let port = variable("MASTER_PORT").ok_or_else(|| missing("MASTER_PORT"))?;
        let directory = variable("MUSTER_PEERS_DIR").map(|directory| Meeting::Directory(directory.into()));
        let meeting = directory.unwrap_or_else(|| Meeting::Address(format!("{address}:{port}")));
        let token_file = variable("MUSTER_GROUP_TOKEN_FILE").map(PathBuf::from);
        let group = group_name(&address, &port);
        let tls = tls_files(variable)?;
        Ok(Self { rank, size, local_rank, meeting, group, host, token_file, tls, epoch: 0, rendezvous: None })
    }

    /// A member of an elastic training, whose place the rendezvous gives, which is at one of `addresses`.
    fn elastic(
        addresses: String,
        host: String,
        variable: impl Fn(&str) -> Option<String>,
        number: impl Fn(&'static str) -> Result<Option<usize>, Error>,
    ) -> Result<Self, Error> {
        let first = |names: [&'static str; 2]| -> Result<Option<usize>, Error> {
            Ok(number(names[0])?.or(number(names[1])?))
        };
        let expected = first(["MUSTER_REPLICAS", "WORLD_SIZE"])?.unwrap_or(1).max(1);
        let rank = first(["MUSTER_REPLICA_INDEX", "RANK"])?.unwrap_or(0);
        let name = if variable("MUSTER_RANKS").is_some() { "MUSTER_RANKS" } else { "PET_NNODES" };
        let (fewest, most) = match variable(name) {
            Some(nodes) => {
                let (fewest, most) = nodes.split_once(':').unwrap_or((&nodes, &nodes));
                let pair = fewest.trim().parse().ok().zip(most.trim().parse().ok());
                let sound = pair.filter(|(fewest, most)| (1..=*most).contains(fewest));
                sound.ok_or_else(|| Error::Invalid {
                    name,
                    value: nodes.clone(),
                    expected: "the fewest and the most ranks, such as 2:4".into(),
                })?
            }
            None => (expected, expected),
        };
        let bounds = Bounds { fewest, expected: expected.clamp(fewest, most), most };
        let directory = variable("MUSTER_PEERS_DIR").map(|directory| Meeting::Directory(directory.into()));
        let port = variable("MASTER_PORT").unwrap_or_else(|| "23456".into());
        let group = variable("PET_RDZV_ID").or_else(|| variable("MASTER_ADDR"));
        let port_number = port.parse().map_err(|_| Error::Invalid {
            name: "MASTER_PORT",
            value: port.clone(),
            expected: "a port".into(),
        })?;
        let rendezvous = Rendezvous {
            addresses: addresses.split(',').map(|address| address.trim().to_owned()).collect(),
            authority: variable("MUSTER_RENDEZVOUS_CA"),
            token_file: variable("MUSTER_RENDEZVOUS_TOKEN_FILE").map(PathBuf::from),
            bounds,
            port: port_number,
        };
        Ok(Self {
            rank,
            size: bounds.expected,
            local_rank: number("LOCAL_RANK")?.unwrap_or(0),
            // Rank 0 says where it listens.
            meeting: directory.unwrap_or_else(|| Meeting::Address(String::new())),
            group: group_name(&group.unwrap_or_else(|| "training".into()), "elastic"),
            host,
            token_file: variable("MUSTER_GROUP_TOKEN_FILE").map(PathBuf::from),
            tls: tls_files(variable)?,
            epoch: 0,
            rendezvous: Some(rendezvous),
        })
    }

    /// This process in a place that the rendezvous has given it.
    pub(crate) fn placed(&self, placement: Placement) -> Self {
        let Placement { epoch, rank, world_size, leader, .. } = placement;
        let meeting = match &self.meeting {
            Meeting::Address(_) => Meeting::Address(leader),
            other => other.clone(),
        };
        let meeting = if world_size == 1 { Meeting::Alone } else { meeting };
        Self { rank, size: world_size, meeting, epoch, ..self.clone() }
    }

    /// How many ranks the training may have at most.
    pub(crate) fn most(&self) -> usize {
        self.rendezvous.as_ref().map_or(self.size, |rendezvous| rendezvous.bounds.most)
    }
}

/// All three files, or none.
fn tls_files(variable: impl Fn(&str) -> Option<String>) -> Result<Option<TlsFiles>, Error> {
    let names = [CA_FILE, CERTIFICATE_FILE, KEY_FILE];
    let files = names.map(|name| variable(name).map(PathBuf::from));
    let given = names.iter().zip(&files).find_map(|(name, file)| file.as_ref().map(|_| *name));
    let missing = names.iter().zip(&files).find_map(|(name, file)| file.is_none().then_some(*name));
    match (given, missing, files) {
        (_, _, [Some(authority), Some(certificate), Some(key)]) => {
            Ok(Some(TlsFiles { authority, certificate, key }))
        }
        (Some(given), Some(missing), _) => Err(Error::IncompleteTls { missing, given }),
        _ => Ok(None),
    }
}

impl World {
    /// Brings the ranks together. `deadline` is how long a call may wait for others, `join_deadline` how long they may take to
    /// come; `arena_bytes` is the room for buffers; `call_off` gives the group up while it forms.
    pub(crate) fn join(
        &self,
        deadline: Duration,
        join_deadline: Duration,
        arena_bytes: usize,
        call_off: Option<CallOff>,
    ) -> Result<Communicator, crate::Error> {
        let (directory, network) = match &self.meeting {
            Meeting::Directory(directory) => (directory.clone(), None),
            // Ranks in one container share its temporary directory, and so memory.
            Meeting::Address(address) => (std::env::temp_dir(), Some(self.network(address)?)),
            Meeting::Alone => (PathBuf::from("."), None),
        };
        let group =
            if self.epoch == 0 { self.group.clone() } else { format!("{}-{}", self.group, self.epoch) };
        let mut options = Options::new(directory, group, self.rank, self.size);
        options.generation = self.epoch;
        options.network = network;
        options.host.clone_from(&self.host);
        options.deadline = deadline;
        options.join_deadline = join_deadline;
        options.arena_bytes = arena_bytes;
        options.call_off = call_off;
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
        options.tls.clone_from(&self.tls);
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
    fn a_rank_under_mpirun_of_open_mpi_and_of_mpich() {
        let open_mpi = [
            ("OMPI_COMM_WORLD_RANK", "3"),
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
            ("MASTER_ADDR", "pi-worker-0.pi.team.svc"),
            ("MASTER_PORT", "23456"),
        ];
        let place = |variables: &[(&str, &str)]| {
            let world = world(variables).unwrap();
            (world.rank, world.size, world.local_rank)
        };
        assert_eq!(place(&open_mpi), (3, 4, 1));
        let mut torchrun_below = open_mpi.to_vec();
        torchrun_below.extend([("RANK", "7"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "0")]);
        assert_eq!(place(&torchrun_below), (7, 8, 0));
        let hydra =
            [("PMI_RANK", "1"), ("PMI_SIZE", "2"), ("MPI_LOCALRANKID", "0"), open_mpi[3], open_mpi[4]];
        assert_eq!(place(&hydra), (1, 2, 0));
        assert_eq!(place(&[("PMI_RANK", "0"), ("PMI_SIZE", "1")]), (0, 1, 0));
        let told = world(&open_mpi[..3]).unwrap_err().to_string();
        assert!(told.ends_with("mpirun passes it on with `-x MASTER_ADDR`"), "{told}");
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
    fn certificates_come_from_three_files_or_none() {
        let files =
            [(CA_FILE, "/tls/ca.crt"), (CERTIFICATE_FILE, "/tls/tls.crt"), (KEY_FILE, "/tls/tls.key")];
        let complete = world(&[&WORKER[..], &files].concat()).unwrap();
        let expected = TlsFiles {
            authority: "/tls/ca.crt".into(),
            certificate: "/tls/tls.crt".into(),
            key: "/tls/tls.key".into(),
        };
        assert_eq!(complete.network("a:1").unwrap().tls, Some(expected));
        assert_eq!(world(&WORKER).unwrap().network("a:1").unwrap().tls, None);
        for (at, (missing, _)) in files.into_iter().enumerate() {
            let mut some = files.to_vec();
            some.remove(at);
            let given = some[0].0;
            let error = world(&[&WORKER[..], &some].concat()).unwrap_err();
            assert_eq!(error, Error::IncompleteTls { missing, given });
            assert!(
                error.to_string().starts_with(&format!("{missing} is not set, but {given} is")),
                "{error}"
            );
        }
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
    fn a_member_of_an_elastic_training() {
        let variables = [
            ("MUSTER_RENDEZVOUS", "https://rendezvous:9443"),
            ("MUSTER_REPLICAS", "3"),
            ("MUSTER_REPLICA_INDEX", "1"),
            ("PET_NNODES", "2:6"),
            ("MUSTER_RENDEZVOUS_TOKEN_FILE", "/token"),
        ];
        let world = world(&variables).unwrap();
        let rendezvous = world.rendezvous.as_ref().unwrap();
        assert_eq!(rendezvous.bounds, Bounds { fewest: 2, expected: 3, most: 6 });
        assert_eq!((world.rank, world.most()), (1, 6));
        let placement = |world_size| Placement {
            epoch: 4,
            rank: 0,
            world_size,
            leader: "10.0.0.7:23456".into(),
            restarts: 0,
        };
        let placed = world.placed(placement(5));
        assert_eq!((placed.rank, placed.size, placed.epoch), (0, 5, 4));
        assert_eq!(placed.meeting, Meeting::Address("10.0.0.7:23456".into()));
        assert_eq!(world.placed(placement(1)).meeting, Meeting::Alone);
    }

    #[test]
    fn the_bounds_of_an_elastic_training_make_sense() {
        for wrong in ["4:2", "0:2", "many"] {
            let refused = world(&[("MUSTER_RENDEZVOUS", "http://r:1"), ("PET_NNODES", wrong)]).unwrap_err();
            assert!(refused.to_string().contains("the fewest and the most ranks"), "{refused}");
        }
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
