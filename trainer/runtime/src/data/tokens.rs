//! Sequences of tokens from text or tokenised shards, read from disk when they are needed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Error, ends_in, file_name, files};
use crate::checksum::checksum;

/// Tokens of plain text: its bytes.
const BYTES: usize = 256;

/// Bytes at either end of a shard that its checksum covers.
const SAMPLED: u64 = 64 << 10;

/// How a shard holds its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Each byte is one.
    Bytes,
    /// Little-endian 16-bit numbers, as many tokenisers write them.
    U16,
}

impl Form {
    fn size(self) -> u64 {
        match self {
            Self::Bytes => 1,
            Self::U16 => 2,
        }
    }
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
    tokens: u64,
    /// Index of its first sequence.
    first: usize,
}

/// Sequences of equal length that lie one behind the other in shards. Each carries its labels: the tokens that follow.
#[derive(Debug)]
pub(crate) struct Tokens {
    shards: Vec<Shard>,
    form: Form,
    length: usize,
    count: usize,
    vocabulary: usize,
}

impl Tokens {
    /// Opens a `.txt` file, whose bytes are the tokens, or a `.bin` file of 16-bit tokens below `vocabulary`; or all
    /// such files of a folder in the order of their names. Sequences have `length` tokens.
    pub(crate) fn open(path: &Path, length: usize, vocabulary: Option<usize>) -> Result<Self, Error> {
        let found = files(path, |name| ends_in(name, &["txt", "bin"]))?;
        let wrong =
            |path: &Path, problem: &str| Error::Format { path: path.to_owned(), problem: problem.to_owned() };
        let Some(first) = found.first() else {
            return Err(Error::Empty { path: path.to_owned(), what: "file ending in .txt or .bin" });
        };
        let form = if ends_in(&file_name(first), &["bin"]) { Form::U16 } else { Form::Bytes };
        let vocabulary = match (form, vocabulary) {
            (Form::Bytes, None) => BYTES,
            (Form::Bytes, Some(size)) if size < BYTES => {
                return Err(wrong(
                    first,
                    "text needs a vocabulary of at least 256 tokens: leave --vocabulary out",
                ));
            }
            (_, Some(size)) => size,
            (Form::U16, None) => return Err(wrong(first, "say with --vocabulary how many tokens there are")),
        };
        let mut shards = Vec::new();
        let mut count = 0;
        for path in found {
            if ends_in(&file_name(&path), &["bin"]) != (form == Form::U16) {
                return Err(wrong(&path, "text and tokenised shards cannot be mixed"));
            }
            let read = |source| Error::Read { path: path.clone(), source };
            let file = File::open(&path).map_err(read)?;
            let bytes = file.metadata().map_err(read)?.len();
            if !bytes.is_multiple_of(form.size()) {
                return Err(wrong(&path, "it ends in the middle of a 16-bit token"));
            }
            let tokens = bytes / form.size();
            let first = count;
            // The last token of a sequence needs a label.
            count += (tokens.saturating_sub(1) / length as u64) as usize;
            shards.push(Shard { path, file, tokens, first });
        }
        if count == 0 {
            return Err(Error::Empty { path: path.to_owned(), what: "sequence of the length asked for" });
        }
        Ok(Self { shards, form, length, count, vocabulary })
    }

    /// Number of sequences.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Number of different tokens.
    pub(crate) fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// A checksum of the shards' sizes and ends.
    pub(crate) fn checksum(&self) -> Result<u64, Error> {
        let mut words = vec![self.length as u64, self.vocabulary as u64];
        for shard in &self.shards {
            let bytes = shard.tokens * self.form.size();
            words.push(bytes);
            for start in [0, bytes.saturating_sub(SAMPLED)] {
                let piece = shard.read(start, bytes.min(SAMPLED) as usize)?;
                words.extend(piece.iter().map(|byte| u64::from(*byte)));
            }
        }
        Ok(checksum(words.into_iter()))
    }

    /// Reads sequences and their labels.
    pub(crate) fn gather(
        &self,
        samples: &[usize],
        tokens: &mut Vec<u32>,
        labels: &mut Vec<u32>,
    ) -> Result<(), Error> {
        tokens.clear();
        labels.clear();
        for sample in samples {
            let shard = &self.shards[self.shards.partition_point(|shard| shard.first <= *sample) - 1];
            let start = (sample - shard.first) as u64 * self.length as u64;
            let bytes =
                shard.read(start * self.form.size(), (self.length + 1) * self.form.size() as usize)?;
            let read: Vec<u32> = match self.form {
                Form::Bytes => bytes.into_iter().map(u32::from).collect(),
                Form::U16 => {
                    bytes.chunks_exact(2).map(|two| u32::from(u16::from_le_bytes([two[0], two[1]]))).collect()
                }
            };
            if let Some(token) = read.iter().find(|token| **token as usize >= self.vocabulary) {
                let problem = format!("token {token} is outside a vocabulary of {}", self.vocabulary);
                return Err(Error::Format { path: shard.path.clone(), problem });
            }
            tokens.extend_from_slice(&read[..self.length]);
            labels.extend_from_slice(&read[1..]);
        }
        Ok(())
    }
}

impl Shard {
    fn read(&self, start: u64, count: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; count];
        let read = self.file.read_exact_at(&mut bytes, start);
        read.map_err(|source| Error::Read { path: self.path.clone(), source })?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_lie_in_shards_and_are_followed_by_their_labels() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("b.txt"), "0123456789").unwrap();
        fs_err::write(folder.path().join("a.txt"), "abcdefg").unwrap();
        fs_err::write(folder.path().join("notes.md"), "no data").unwrap();
        let tokens = Tokens::open(folder.path(), 3, None).unwrap();
        assert_eq!((tokens.len(), tokens.vocabulary()), (2 + 3, 256));
        let (mut inputs, mut labels) = (Vec::new(), Vec::new());
        tokens.gather(&[1, 4], &mut inputs, &mut labels).unwrap();
        let text =
            |tokens: &[u32]| tokens.iter().map(|token| char::from_u32(*token).unwrap()).collect::<String>();
        assert_eq!((&*text(&inputs), &*text(&labels)), ("def678", "efg789"));
    }

    #[test]
    fn tokenised_shards_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.bin");
        let bytes: Vec<u8> = [1_u16, 500, 3, 4, 9].iter().flat_map(|token| token.to_le_bytes()).collect();
        fs_err::write(&path, &bytes).unwrap();
        let open = |vocabulary| Tokens::open(&path, 2, vocabulary);
        assert!(
            open(None).unwrap_err().to_string().ends_with("say with --vocabulary how many tokens there are")
        );
        let tokens = open(Some(501)).unwrap();
        let (mut inputs, mut labels) = (Vec::new(), Vec::new());
        tokens.gather(&[0, 1], &mut inputs, &mut labels).unwrap();
        assert_eq!((inputs, labels), (vec![1, 500, 3, 4], vec![500, 3, 4, 9]));
        let few = open(Some(500)).unwrap();
        let message = few.gather(&[0], &mut Vec::new(), &mut Vec::new()).unwrap_err().to_string();
        assert!(message.ends_with("token 500 is outside a vocabulary of 500"), "{message}");
        fs_err::write(&path, &bytes[..9]).unwrap();
        assert!(
            open(Some(501)).unwrap_err().to_string().ends_with("it ends in the middle of a 16-bit token")
        );
        fs_err::write(&path, &bytes[..4]).unwrap();
        assert!(
            open(Some(501)).unwrap_err().to_string().ends_with("holds no sequence of the length asked for")
        );
    }

    #[test]
    fn a_checksum_tells_shards_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.txt");
        let checksum = |text: &str| {
            fs_err::write(&path, text).unwrap();
            Tokens::open(&path, 2, None).unwrap().checksum().unwrap()
        };
        assert_eq!(checksum("abcdef"), checksum("abcdef"));
        assert_ne!(checksum("abcdef"), checksum("abcdeg"));
        assert_ne!(checksum("abcdef"), checksum("abcdeff"));
    }
}
