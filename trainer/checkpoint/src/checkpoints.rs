//! All checkpoints of a training run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use crate::load::{self, Checkpoint};
use crate::manifest::{self, AssembleError, LONGEST, Manifest, assemble};
use crate::names::{self, File};
use crate::receipt::ShardReceipt;
use crate::retention::Retention;
use crate::save::{self, Place, Saver, SaverOptions};
use crate::store::{self, Entry, Store};

/// Why a checkpoint could not be committed, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The receipts are not those of a whole checkpoint.
    #[error("the checkpoint cannot be committed: {0}")]
    Assemble(#[from] AssembleError),
    /// A shard's file is not there as its receipt says, so that nothing was committed.
    #[error("step {step} cannot be committed: {file} of rank {rank} is missing or not {bytes} bytes long")]
    ShardGone {
        /// The step.
        step: u64,
        /// The rank.
        rank: usize,
        /// The file.
        file: String,
        /// Its length by the receipt.
        bytes: u64,
    },
    /// The manifest of a step cannot be used, or not be written.
    #[error("step {step}: {source}")]
    Manifest {
        /// The step.
        step: u64,
        /// Why.
        source: manifest::Error,
    },
}

/// Why one checkpoint is not intact.
#[derive(Debug, thiserror::Error)]
pub enum NotIntact {
    /// Its manifest cannot be used.
    #[error(transparent)]
    Manifest(Error),
    /// One of its shards cannot be used.
    #[error(transparent)]
    Shard(load::Error),
}

/// The newest checkpoint that is whole, and why newer ones are not.
#[derive(Debug)]
pub struct Intact {
    /// `None` when there is none.
    pub checkpoint: Option<Checkpoint>,
    /// Newer ones, with their steps, newest first.
    pub damaged: Vec<(u64, NotIntact)>,
}

/// The checkpoints that lie in one store. A checkpoint exists when its manifest does.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    store: Arc<dyn Store>,
}

impl Checkpoints {
    /// Those at `url`: a path, `file:///path`, `s3://bucket/prefix`; see [`store::open`].
    pub fn open(url: &str) -> Result<Self, Error> {
        Ok(Self { store: store::open(url)? })
    }

    /// Those in a store that is open already.
    pub fn in_store(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Starts the thread that saves the shards of one rank.
    pub fn saver(&self, place: Place, options: SaverOptions) -> Result<Saver, save::Error> {
        Saver::start(Arc::clone(&self.store), place, options)
    }

    /// Commits a step: rank 0 calls it with the receipts of all ranks, in any order, and the training state.
    ///
    /// When it fails nothing is committed, unless the store failed in the very last moment; it may be called again with
    /// the same receipts. A step that was committed before is replaced at once as a whole.
    pub fn commit(&self, receipts: &[ShardReceipt], state: Value) -> Result<Checkpoint, Error> {
        let manifest = assemble(state, receipts)?;
        let step = manifest.content().step;
        self.check_files(step, receipts)?;
        let text = manifest.encode().map_err(|source| Error::Manifest { step, source })?;
        store::write_whole(&*self.store, &names::manifest(step), &text)?;
        Ok(Checkpoint::new(Arc::clone(&self.store), manifest))
    }

    /// The steps of all committed checkpoints, newest first.
    pub fn steps(&self) -> Result<Vec<u64>, Error> {
        let entries = self.store.list("")?;
        let committed = entries.iter().filter_map(|entry| match File::parse(&entry.name) {
            Some(File::Manifest(step)) => Some(step),
            _ => None,
        });
        let mut steps: Vec<u64> = committed.collect();
        steps.sort_unstable_by(|left, right| right.cmp(left));
        Ok(steps)
    }

    /// Opens the checkpoint of a step: reads its manifest, and no shard yet.
    pub fn checkpoint(&self, step: u64) -> Result<Checkpoint, Error> {
        Ok(Checkpoint::new(Arc::clone(&self.store), self.manifest(step)?))
    }

    /// Opens the newest checkpoint, if there is one.
    pub fn latest(&self) -> Result<Option<Checkpoint>, Error> {
        self.steps()?.first().map(|step| self.checkpoint(*step)).transpose()
    }

    /// Opens the newest checkpoint of which every byte is as it was saved. Reads whole checkpoints: one rank calls it,
    /// and tells the others the step.
    pub fn latest_intact(&self) -> Result<Intact, Error> {
        let mut damaged = Vec::new();
        for step in self.steps()? {
            let checkpoint = match self.checkpoint(step) {
                Ok(checkpoint) => checkpoint,
                Err(error) => {
                    damaged.push((step, NotIntact::Manifest(error)));
                    continue;
                }
            };
            match checkpoint.verify() {
                Ok(()) => return Ok(Intact { checkpoint: Some(checkpoint), damaged }),
                Err(error) => damaged.push((step, NotIntact::Shard(error))),
            }
        }
        Ok(Intact { checkpoint: None, damaged })
    }

    /// Removes what crashes left: shards that no manifest names, and unfinished files. Gives their names.
    ///
    /// One rank calls it before any rank begins to save. Files that are not of this crate stay, and so does everything
    /// of a step whose manifest cannot be read.
    pub fn clean(&self) -> Result<Vec<String>, Error> {
        let entries = self.store.list("")?;
        let ours: Vec<(File<'_>, &str)> = entries
            .iter()
            .filter_map(|entry| Some((File::parse(&entry.name)?, entry.name.as_str())))
            .collect();
        let mut committed: BTreeMap<u64, Option<HashSet<String>>> = BTreeMap::new();
        for (file, _) in &ours {
            if let File::Manifest(step) = file {
                let named = match self.manifest(*step) {
                    Ok(manifest) => {
                        Some(manifest.content().shards.iter().map(|shard| shard.file.clone()).collect())
                    }
                    Err(Error::Manifest { .. }) => None,
                    Err(error) => return Err(error),
                };
                committed.insert(*step, named);
            }
        }
        let mut removed = Vec::new();
        for (file, name) in ours {
            let is_garbage = match (file, committed.get(&file.step())) {
                (File::Manifest(_), _) | (_, Some(None)) => false,
                (File::Shard(_, shard), Some(Some(named))) => !named.contains(shard),
                (File::Unfinished(_), _) | (File::Shard(..), None) => true,
            };
            if is_garbage {
                self.store.remove(name)?;
                removed.push(name.to_owned());
            }
        }
        Ok(removed)
    }

    /// Removes the checkpoints that `retention` does not keep, oldest first; gives their steps.
    pub fn retain(&self, retention: &Retention) -> Result<Vec<u64>, Error> {
        let steps = retention.removes(&self.steps()?);
        for step in &steps {
            self.remove(*step)?;
        }
        Ok(steps)
    }

    /// Removes a checkpoint: first its manifest, so that it never exists in part.
    pub fn remove(&self, step: u64) -> Result<(), Error> {
        let entries = self.store.list(&names::folder(step))?;
        self.store.remove(&names::manifest(step))?;
        for entry in &entries {
            if matches!(File::parse(&entry.name), Some(File::Shard(..) | File::Unfinished(_))) {
                self.store.remove(&entry.name)?;
            }
        }
        Ok(())
    }

    /// Whether all files are there: those of a rank that was taken for dead may have been cleaned up.
    fn check_files(&self, step: u64, receipts: &[ShardReceipt]) -> Result<(), Error> {
        let entries = self.store.list(&names::folder(step))?;
        let listed: HashMap<&str, u64> =
            entries.iter().map(|Entry { name, bytes }| (name.as_str(), *bytes)).collect();
        for receipt in receipts {
            let name = names::in_folder(step, receipt.file());
            let bytes = match listed.get(name.as_str()) {
                Some(bytes) => Some(*bytes),
                // A listing over a network may be older than the file.
                None => match self.store.size(&name) {
                    Err(store::Error::NotFound { .. }) => None,
                    bytes => Some(bytes?),
                },
            };
            if bytes != Some(receipt.bytes()) {
                let (rank, file, bytes) = (receipt.rank(), receipt.file().to_owned(), receipt.bytes());
                return Err(Error::ShardGone { step, rank, file, bytes });
            }
        }
        Ok(())
    }

    fn manifest(&self, step: u64) -> Result<Manifest, Error> {
        let refused = |source| Error::Manifest { step, source };
        let text = store::read_whole(&*self.store, &names::manifest(step), LONGEST)?
            .map_err(|bytes| refused(manifest::Error::TooLong { bytes }))?;
        let manifest = Manifest::decode(&text).map_err(refused)?;
        if manifest.content().step != step {
            return Err(refused(manifest::Error::Step { found: manifest.content().step }));
        }
        Ok(manifest)
    }
}
