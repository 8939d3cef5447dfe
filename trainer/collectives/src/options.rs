//! What a rank must know to find its group.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::call_off::CallOff;
use crate::control::MAXIMUM_RANKS;
use crate::error::Error;

/// How the ranks of a group find each other where they are not all on one host.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// Where rank 0 listens, as `host:port`: `MASTER_ADDR` and `MASTER_PORT` of a `PyTorchJob`. Names are looked up
    /// until the deadline for joining, since a pod's name may appear late.
    pub address: String,
    /// What the ranks prove to each other that they know.
    pub token: Token,
    /// With what the ranks put their connections under TLS; all of them must have it, or none.
    pub tls: Option<TlsFiles>,
    /// How long nothing may be heard of a rank on another host until it is given up; a rank that works or waits is
    /// heard four times as often.
    pub silence: Duration,
}

impl NetworkOptions {
    /// Rank 0 listens at `address`; no token, no TLS, and 1.9 seconds of silence, so that every rank knows within two.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            token: Token::default(),
            tls: None,
            silence: Duration::from_millis(1900),
        }
    }
}

/// Files in PEM with which the ranks of a group put all connections between hosts under TLS 1.3 and know each other by
/// certificate. They are read whenever a group forms, so renewed ones serve the next group.
///
/// Whoever has a certificate of the authority may join, wherever it is: addresses and names are not compared, since pods
/// have any. So the authority should be the group's own, or the group have a [`Token`] besides. Where a certificate
/// limits its use, it must allow both `serverAuth` and `clientAuth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates of the authorities that the certificates of the other ranks come from.
    pub authority: PathBuf,
    /// The certificate of this rank, and those between it and the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A secret that all ranks of a group share. Both sides of a new connection prove that they know it, and it does not
/// travel itself. It does not protect what is sent afterwards: where others can read or change the traffic between
/// hosts, the ranks need [`TlsFiles`], or the network must be encrypted below. Without one (the default) anybody may join who knows the group's name.
#[derive(Clone, Default)]
pub struct Token(Vec<u8>);

impl Token {
    /// The secret itself, of any length.
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self(secret.into())
    }

    pub(crate) fn secret(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_empty() { "Token(none)" } else { "Token(secret)" })
    }
}

/// The group to form, and this process's place in it.
#[derive(Clone, Debug)]
pub struct Options {
    /// A directory that every rank of the host sees and may write to; the socket lives there while the group
    /// forms. With [`Self::network`], ranks that see the same directory of the same machine form a host, and reach
    /// each other through shared memory.
    pub directory: PathBuf,
    /// Name of the group, unique in the directory: letters, digits, `-`, `_` and `.`.
    pub group: String,
    /// Counts the restarts of the group, where it is known: ranks of different generations do not mix.
    pub generation: u64,
    /// This process's rank, from 0.
    pub rank: usize,
    /// Number of ranks.
    pub world_size: usize,
    /// How this host is called in the errors of the other ranks.
    pub host: String,
    /// How long all ranks may take to come together.
    pub join_deadline: Duration,
    /// How long one collective may wait for the other ranks.
    pub deadline: Duration,
    /// Room for registered buffers, in bytes; used memory grows with the buffers, not with this number.
    pub arena_bytes: usize,
    /// How to reach ranks on other hosts; none where all ranks are on this one.
    pub network: Option<NetworkOptions>,
    /// Gives the group up while it forms, where somebody watches over its ranks.
    pub call_off: Option<CallOff>,
}

impl Options {
    /// Options with the usual deadlines (5 minutes to join, 1 minute a collective) and a 256 MiB arena.
    pub fn new(
        directory: impl Into<PathBuf>,
        group: impl Into<String>,
        rank: usize,
        world_size: usize,
    ) -> Self {
        Self {
            directory: directory.into(),
            group: group.into(),
            generation: 0,
            rank,
            world_size,
            host: "this host".into(),
            join_deadline: Duration::from_mins(5),
            deadline: Duration::from_mins(1),
            arena_bytes: 256 << 20,
            network: None,
            call_off: None,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let invalid = |message: String| Err(Error::InvalidArgument(message));
        if !(1..=MAXIMUM_RANKS).contains(&self.world_size) {
            return invalid(format!("a group has 1 to {MAXIMUM_RANKS} ranks, not {}", self.world_size));
        }
        if self.rank >= self.world_size {
            return invalid(format!("rank {} does not exist in a group of {}", self.rank, self.world_size));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.group.is_empty() || self.group.len() > 200 || !self.group.chars().all(plain) {
            return invalid(format!("the group name {:?} is not a plain file name", self.group));
        }
        if self.arena_bytes > 1 << 46 {
            return invalid(format!("an arena of {} bytes exceeds the address space", self.arena_bytes));
        }
        if let Some(NetworkOptions { address, silence, .. }) = &self.network {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none_or(|port| port == 0) {
                return invalid(format!("the address {address:?} of rank 0 is not a host and a port"));
            }
            if *silence < SHORTEST_SILENCE {
                return invalid(format!("a silence of {silence:?} is shorter than {SHORTEST_SILENCE:?}"));
            }
        }
        Ok(())
    }
}

/// Shorter silences would be broken by an ordinary delay of the scheduler.
const SHORTEST_SILENCE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_options_name_what_is_wrong() {
        let message = |options: Options| options.validate().unwrap_err().to_string();
        assert!(message(Options::new("/tmp", "g", 4, 4)).contains("rank 4 does not exist in a group of 4"));
        assert!(message(Options::new("/tmp", "g", 0, 0)).contains("1 to 256"));
        assert!(message(Options::new("/tmp", "../g", 0, 1)).contains("plain file name"));
        assert!(Options::new("/tmp", "digits-master-0-23456", 3, 4).validate().is_ok());
        let network = |address: &str| {
            let network = Some(NetworkOptions::new(address));
            Options { network, ..Options::new("/tmp", "g", 0, 2) }
        };
        assert!(message(network("digits-master-0")).contains("is not a host and a port"));
        assert!(message(network("digits-master-0:0")).contains("is not a host and a port"));
        assert!(network("[::1]:23456").validate().is_ok());
        let mut impatient = network("digits-master-0:23456");
        impatient.network.as_mut().unwrap().silence = Duration::ZERO;
        assert!(message(impatient).contains("shorter than 100ms"));
        assert_eq!(format!("{:?}", Token::new("hunter2")), "Token(secret)");
    }
}
