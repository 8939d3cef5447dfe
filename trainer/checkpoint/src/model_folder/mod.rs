//! Models as Hugging Face lays them out: `model.safetensors`, or several files and `model.safetensors.index.json`.

mod index;
mod write;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

pub use self::index::Error as IndexError;
pub use self::write::{Error as WriteError, ModelOptions, write_model};
use crate::header::{self, Placed};
use crate::names;
use crate::store::{self, Store};
use crate::tensor::{self, Tensor};

/// The only file of a model in one.
const SINGLE: &str = "model.safetensors";
/// Which tensor lies in which file of a model in several.
const INDEX: &str = "model.safetensors.index.json";

/// Bytes that are read at a time.
const READ_AT_ONCE: usize = 16 << 20;

/// Why a model cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// There is no model.
    #[error("there is neither {SINGLE} nor {INDEX}")]
    NoModel,
    /// The index cannot be used.
    #[error("{INDEX} cannot be used: {0}")]
    Index(#[from] index::Error),
    /// A file cannot be used.
    #[error("{file} cannot be used: {source}")]
    File {
        /// The file.
        file: String,
        /// Why.
        source: header::Error,
    },
    /// A tensor is not in the file that the index names.
    #[error("{file} has no tensor {tensor}, which {INDEX} says it has")]
    NotInFile {
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
    },
    /// There is no such tensor.
    #[error("the model has no tensor {0}")]
    NoTensor(String),
    /// The range is not in the tensor, or the bytes to fill are not as many.
    #[error(transparent)]
    Request(#[from] tensor::Error),
}

#[derive(Debug)]
struct Located {
    tensor: Tensor,
    file: Arc<str>,
    offset: u64,
}

/// A model whose files are described by their headers; values are read when they are asked for. The format has no
/// checksums.
#[derive(Debug)]
pub struct ModelFolder {
    store: Arc<dyn Store>,
    tensors: Vec<Located>,
    by_name: HashMap<String, usize>,
}

impl ModelFolder {
    /// The model at `url`, as [`store::open`] takes it.
    pub fn open(url: &str) -> Result<Self, Error> {
        Self::in_store(store::open(url)?)
    }

    /// The model at the root of a store.
    pub fn in_store(store: Arc<dyn Store>) -> Result<Self, Error> {
        let mut tensors = Vec::new();
        match read_header(&*store, SINGLE) {
            Ok(placed) => tensors.extend(placed.into_iter().map(|placed| locate(placed, &SINGLE.into()))),
            Err(Error::Store(store::Error::NotFound { .. })) => {
                for (file, names) in read_index(&*store)? {
                    let placed = read_header(&*store, &file)?;
                    let mut by_name: HashMap<String, Placed> =
                        placed.into_iter().map(|placed| (placed.tensor.name().to_owned(), placed)).collect();
                    let file: Arc<str> = file.into();
                    for tensor in names {
                        let Some(placed) = by_name.remove(&tensor) else {
                            return Err(Error::NotInFile { tensor, file: file.to_string() });
                        };
                        tensors.push(locate(placed, &file));
                    }
                }
            }
            Err(error) => return Err(error),
        }
        let by_name = tensors.iter().enumerate();
        let by_name = by_name.map(|(index, located)| (located.tensor.name().to_owned(), index)).collect();
        Ok(Self { store, tensors, by_name })
    }

    /// All tensors, file by file.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.iter().map(|located| &located.tensor)
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.find(name).ok().map(|located| &located.tensor)
    }

    /// Reads elements `range` of a tensor's flat form, and nothing else, into `bytes`.
    pub fn read_into(&self, tensor: &str, range: Range<u64>, bytes: &mut [u8]) -> Result<(), Error> {
        let Located { tensor, file, offset } = self.find(tensor)?;
        tensor.check(&range, bytes.len())?;
        let mut offset = offset + range.start * tensor.data_type().size();
        // In parts, each of which an object store answers well within its deadline.
        for part in bytes.chunks_mut(READ_AT_ONCE) {
            self.store.read(file, offset, part)?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    /// Elements `range` of a tensor's flat form.
    pub fn read(&self, tensor: &str, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let about = &self.find(tensor)?.tensor;
        let count = range.end.saturating_sub(range.start).min(about.elements());
        let mut bytes = vec![0; (count * about.data_type().size()) as usize];
        self.read_into(tensor, range, &mut bytes)?;
        Ok(bytes)
    }

    fn find(&self, tensor: &str) -> Result<&Located, Error> {
        let index = self.by_name.get(tensor).ok_or_else(|| Error::NoTensor(tensor.to_owned()))?;
        Ok(&self.tensors[*index])
    }
}

fn locate(placed: Placed, file: &Arc<str>) -> Located {
    Located { tensor: placed.tensor, file: Arc::clone(file), offset: placed.bytes.start }
}

fn read_header(store: &dyn Store, file: &str) -> Result<Vec<Placed>, Error> {
    let refused = |source| Error::File { file: file.to_owned(), source };
    let bytes = store.size(file)?;
    let mut first = vec![0; bytes.min(header::LENGTH) as usize];
    store.read(file, 0, &mut first)?;
    let mut header = vec![0; header::length(&first, bytes).map_err(refused)? as usize];
    store.read(file, header::LENGTH, &mut header)?;
    header::decode(&header, bytes).map_err(refused)
}

fn read_index(store: &dyn Store) -> Result<index::Files, Error> {
    let text = match store::read_whole(store, INDEX, index::LONGEST) {
        Err(store::Error::NotFound { .. }) => return Err(Error::NoModel),
        text => text?.map_err(index::Error::TooLong)?,
    };
    let files = index::decode(&text)?;
    match files.keys().find(|file| !names::is_plain(file)) {
        Some(file) => Err(index::Error::Elsewhere(file.clone()).into()),
        None => Ok(files),
    }
}
