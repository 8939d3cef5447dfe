//! A disk for tests: it fails or dies at any operation, and loses what was not synced when its power goes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::Files;
use super::files::OpenFile;

/// What happens at an operation that changes the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails, half done if it can be; all that come later succeed.
    Fails(usize),
    /// It is the last that is tried, and is half done if it can be; everything later fails, reads too.
    Dies(usize),
}

#[derive(Debug, Clone)]
enum Node {
    Folder,
    File(usize),
}

#[derive(Debug, Clone, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    /// By path.
    now: BTreeMap<PathBuf, Node>,
    synced: BTreeMap<PathBuf, Node>,
    contents: Vec<Content>,
    operations: usize,
    fault: Option<Fault>,
    is_dead: bool,
}

/// Copies share one disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimulatedDisk(Arc<Mutex<State>>);

impl SimulatedDisk {
    pub(crate) fn with_fault(fault: Fault) -> Self {
        let disk = Self::default();
        disk.set_fault(fault);
        disk
    }

    /// Operations are counted from the disk's first.
    pub(crate) fn set_fault(&self, fault: Fault) {
        self.0.lock().fault = Some(fault);
    }

    /// How many operations were tried that change the disk.
    pub(crate) fn operations(&self) -> usize {
        self.0.lock().operations
    }

    /// Whether the operation of the fault was reached.
    pub(crate) fn was_hit(&self) -> bool {
        let state = self.0.lock();
        matches!(state.fault, Some(Fault::Fails(at) | Fault::Dies(at)) if at < state.operations)
    }

    /// Starts the machine again without faults. What the killed processes had written is there.
    pub(crate) fn restart(&self) {
        let mut state = self.0.lock();
        (state.fault, state.is_dead) = (None, false);
    }

    /// Starts again after the power was gone: of what was not synced, chance decides what is there.
    pub(crate) fn restart_after_power_loss(&self, seed: u64) {
        self.restart();
        let mut random = StdRng::seed_from_u64(seed);
        let state = &mut *self.0.lock();
        let paths: Vec<PathBuf> = state.now.keys().chain(state.synced.keys()).cloned().collect();
        let mut left = BTreeMap::new();
        for path in paths {
            let (now, synced) = (state.now.get(&path), state.synced.get(&path));
            if let Some(node) = if random.random() { now } else { synced } {
                left.insert(path, node.clone());
            }
        }
        // What lies in a folder that is gone is gone.
        let folders: Vec<PathBuf> = left.keys().cloned().collect();
        left.retain(|path, _| {
            path.ancestors().skip(1).all(|above| is_top(above) || folders.contains(&above.into()))
        });
        for content in &mut state.contents {
            if content.now != content.synced {
                let kept = random.random_range(0..=content.now.len());
                content.now.truncate(kept);
                if random.random() {
                    content.now.clone_from(&content.synced);
                }
            }
            content.synced.clone_from(&content.now);
        }
        (state.now, state.synced) = (left.clone(), left);
    }

    /// Counts an operation; `half` is what is done of it when it is cut short.
    fn operate<T>(
        &self,
        half: impl FnOnce(&mut State),
        whole: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let state = &mut *self.0.lock();
        if state.is_dead {
            return Err(dead());
        }
        let number = state.operations;
        state.operations += 1;
        match state.fault {
            Some(Fault::Fails(at)) if at == number => {
                half(state);
                Err(io::Error::new(io::ErrorKind::StorageFull, "injected"))
            }
            Some(Fault::Dies(at)) if at == number => {
                half(state);
                state.is_dead = true;
                Err(dead())
            }
            _ => whole(state),
        }
    }

    fn look<T>(&self, look: impl FnOnce(&State) -> io::Result<T>) -> io::Result<T> {
        let state = self.0.lock();
        if state.is_dead { Err(dead()) } else { look(&state) }
    }
}

fn dead() -> io::Error {
    io::Error::other("the process is dead")
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn is_top(path: &Path) -> bool {
    path == Path::new("/") || path == Path::new("")
}

impl State {
    fn file(&self, path: &Path) -> io::Result<&Content> {
        match self.now.get(path) {
            Some(Node::File(index)) => Ok(&self.contents[*index]),
            _ => Err(missing()),
        }
    }

    fn in_folder<'a>(
        nodes: &'a BTreeMap<PathBuf, Node>,
        folder: &'a Path,
    ) -> impl Iterator<Item = (&'a PathBuf, &'a Node)> {
        nodes.iter().filter(move |(path, _)| path.parent() == Some(folder))
    }
}

impl Files for SimulatedDisk {
    type Open = OpenSimulated;

    fn create_folders(&self, path: &Path) -> io::Result<()> {
        self.operate(
            |_| {},
            |state| {
                for folder in path.ancestors().filter(|folder| !is_top(folder)) {
                    state.now.entry(folder.to_owned()).or_insert(Node::Folder);
                }
                Ok(())
            },
        )
    }

    fn create(&self, path: &Path) -> io::Result<OpenSimulated> {
        self.operate(
            |_| {},
            |state| {
                if !path.parent().is_some_and(|folder| state.now.contains_key(folder)) {
                    return Err(missing());
                }
                let index = state.contents.len();
                state.contents.push(Content::default());
                state.now.insert(path.to_owned(), Node::File(index));
                Ok(OpenSimulated { disk: self.clone(), index })
            },
        )
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(
            |_| {},
            |state| {
                let node = state.now.remove(from).ok_or_else(missing)?;
                state.now.insert(to.to_owned(), node);
                Ok(())
            },
        )
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate(|_| {}, |state| state.now.remove(path).map(drop).ok_or_else(missing))
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.operate(
            |_| {},
            |state| {
                if State::in_folder(&state.now, path).next().is_some() {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                state.now.remove(path).map(drop).ok_or_else(missing)
            },
        )
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.operate(
            |_| {},
            |state| {
                if !is_top(path) && !state.now.contains_key(path) {
                    return Err(missing());
                }
                state.synced.retain(|other, _| other.parent() != Some(path));
                let now: Vec<_> = State::in_folder(&state.now, path)
                    .map(|(path, node)| (path.clone(), node.clone()))
                    .collect();
                state.synced.extend(now);
                Ok(())
            },
        )
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(String, Option<u64>)>> {
        self.look(|state| {
            if !state.now.contains_key(path) {
                return Err(missing());
            }
            let found = State::in_folder(&state.now, path).map(|(path, node)| {
                let bytes = match node {
                    Node::Folder => None,
                    Node::File(index) => Some(state.contents[*index].now.len() as u64),
                };
                (path.file_name().unwrap().to_str().unwrap().to_owned(), bytes)
            });
            Ok(found.collect())
        })
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        self.look(|state| Ok(state.file(path)?.now.len() as u64))
    }

    fn read(&self, path: &Path, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.look(|state| {
            let bytes = state.file(path)?.now.get(offset as usize..offset as usize + into.len());
            into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }
}

/// A file of the disk that is open.
#[derive(Debug)]
pub(crate) struct OpenSimulated {
    disk: SimulatedDisk,
    index: usize,
}

impl OpenFile for OpenSimulated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.disk.operate(
            |state| state.contents[self.index].now.extend_from_slice(&bytes[..bytes.len() / 2]),
            |state| {
                state.contents[self.index].now.extend_from_slice(bytes);
                Ok(())
            },
        )
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.operate(
            |_| {},
            |state| {
                let content = &mut state.contents[self.index];
                content.synced.clone_from(&content.now);
                Ok(())
            },
        )
    }
}
