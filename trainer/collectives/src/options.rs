//! What a rank must know to find its group.

use std::path::PathBuf;
use std::time::Duration;

use crate::control::MAXIMUM_RANKS;
use crate::error::Error;

/// The group to form, and this process's place in it.
#[derive(Clone, Debug)]
pub struct Options {
    /// A directory that every rank of the host sees and may write to; the socket lives there while the group
    /// forms.
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
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let invalid = |message: String| Err(Error::InvalidArgument(message));
        if !(1..=MAXIMUM_RANKS).contains(&self.world_size) {
            return invalid(format!(
                "a group on one host has 1 to {MAXIMUM_RANKS} ranks, not {}",
                self.world_size
            ));
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
        Ok(())
    }
}

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
    }
}
