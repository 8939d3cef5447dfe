//! How the files of checkpoints are named, and which files are ours.

use crate::store::intended;

/// The manifest in a checkpoint's folder.
const MANIFEST: &str = "manifest.json";
/// What stands before the step in the name of a folder.
const FOLDER: &str = "step-";

/// The folder of a step. Names sort as steps do.
pub(crate) fn folder(step: u64) -> String {
    format!("{FOLDER}{step:020}")
}

pub(crate) fn manifest(step: u64) -> String {
    format!("{}/{MANIFEST}", folder(step))
}

pub(crate) fn in_folder(step: u64, file: &str) -> String {
    format!("{}/{file}", folder(step))
}

/// A shard's file. `attempt` sets apart what is saved for a step twice, so that a commit never changes a file that the
/// one before it names.
pub(crate) fn shard(rank: usize, world_size: usize, attempt: u64) -> String {
    format!("shard-{rank:05}-of-{world_size:05}-{attempt:016x}.safetensors")
}

/// What a file in the store is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum File<'a> {
    /// The manifest of a step.
    Manifest(u64),
    /// A shard of a step, by its name in the folder.
    Shard(u64, &'a str),
    /// What a crash left of either.
    Unfinished(u64),
}

impl<'a> File<'a> {
    /// `None` for files that are not ours, which nobody touches.
    pub(crate) fn parse(name: &'a str) -> Option<Self> {
        let (folder_name, file) = name.split_once('/')?;
        let step = folder_name.strip_prefix(FOLDER)?.parse().ok()?;
        if folder(step) != folder_name {
            return None;
        }
        let is_shard = |file: &str| file.starts_with("shard-") && file.ends_with(".safetensors");
        match file {
            MANIFEST => Some(Self::Manifest(step)),
            file if is_plain(file) && is_shard(file) => Some(Self::Shard(step, file)),
            file => {
                let intended = intended(file)?;
                (intended == MANIFEST || is_shard(intended)).then_some(Self::Unfinished(step))
            }
        }
    }

    pub(crate) fn step(self) -> u64 {
        match self {
            Self::Manifest(step) | Self::Shard(step, _) | Self::Unfinished(step) => step,
        }
    }
}

/// Whether a name is that of a file in the folder itself: what others wrote down must not lead elsewhere.
pub(crate) fn is_plain(file: &str) -> bool {
    !file.is_empty() && !file.starts_with('.') && !file.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_files_are_known_and_others_are_not() {
        let shard = shard(3, 16, 0xab);
        assert_eq!(File::parse(&manifest(7)), Some(File::Manifest(7)));
        assert_eq!(File::parse(&in_folder(7, &shard)), Some(File::Shard(7, &shard)));
        assert_eq!(
            File::parse(&in_folder(u64::MAX, &format!(".{shard}.tmp"))),
            Some(File::Unfinished(u64::MAX))
        );
        for name in ["notes.txt", "step-7/manifest.json", "step-x/a", &in_folder(7, "notes"), "a/b/c"] {
            assert_eq!(File::parse(name), None, "{name}");
        }
        assert!(folder(9) < folder(10));
    }

    #[test]
    fn names_do_not_lead_elsewhere() {
        assert!(is_plain("shard-0.safetensors"));
        for name in ["", ".", "..", "../a", "a/b", "/a", "a\\b"] {
            assert!(!is_plain(name), "{name}");
        }
    }
}
