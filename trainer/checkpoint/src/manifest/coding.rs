//! The manifest as JSON that ends with the checksum of what comes before it.

use serde::Deserialize;

use super::{Content, Error, Manifest};
use crate::checksum::Checksum;

/// The format and its version.
pub(super) const FORMAT: &str = "muster-checkpoint-1";
/// The longest manifest that is read: that of some 20 TiB in chunks of 4 MiB.
pub(crate) const LONGEST: u64 = 512 << 20;

const SEAL: (&str, &str) = (r#","checksum":""#, "\"}\n");
const DIGITS: usize = 64;

#[derive(Deserialize)]
struct Version {
    format: String,
}

impl Manifest {
    /// The manifest as bytes that [`decode`](Self::decode) takes, or why there are none.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut text = serde_json::to_vec(self.content())?;
        seal(&mut text);
        // Training state may be too deep for a reader; better to know now than when it is needed.
        if Self::decode(&text)? != *self {
            return Err(Error::Damaged);
        }
        Ok(text)
    }

    /// Reads a manifest, which may be any bytes.
    pub(crate) fn decode(text: &[u8]) -> Result<Self, Error> {
        if text.len() as u64 > LONGEST {
            return Err(Error::TooLong { bytes: text.len() as u64 });
        }
        if !is_sealed(text) {
            return Err(Error::Damaged);
        }
        let Version { format } = serde_json::from_slice(text)?;
        if format != FORMAT {
            return Err(Error::Format { found: format, expected: FORMAT });
        }
        let content: Content = serde_json::from_slice(text)?;
        Ok(Self::new(content)?)
    }
}

/// Adds the checksum as the last entry of a JSON object.
fn seal(text: &mut Vec<u8>) {
    text.pop();
    let checksum = Checksum::of(text);
    text.extend_from_slice(format!("{}{checksum}{}", SEAL.0, SEAL.1).as_bytes());
}

fn is_sealed(text: &[u8]) -> bool {
    let unsealed =
        text.len().checked_sub(SEAL.0.len() + DIGITS + SEAL.1.len()).map(|end| text.split_at(end)).and_then(
            |(body, seal)| {
                let digits = seal.strip_prefix(SEAL.0.as_bytes())?.strip_suffix(SEAL.1.as_bytes())?;
                Some((body, Checksum::parse(str::from_utf8(digits).ok()?)?))
            },
        );
    unsealed.is_some_and(|(body, checksum)| Checksum::of(body) == checksum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::checksum::{ChunkSize, Summer};
    use crate::manifest::{Place, PlaceError, Saved};
    use crate::receipt::SavedShard;
    use crate::tensor::{DataType, Tensor};

    fn content() -> Content {
        let shard = |file: &str| {
            let mut summer = Summer::new(ChunkSize::new(1024).unwrap());
            summer.add(&[1; 1024]);
            summer.add(&[2; 100]);
            let (checksum, chunks) = summer.finish();
            let chunk_bytes = ChunkSize::new(1024).unwrap();
            SavedShard { file: file.into(), bytes: 1124, checksum, chunk_bytes, chunks }
        };
        let tensor = Tensor::new("a", DataType::F32, [10, 2]).unwrap();
        let place = |start, end, shard| Place { start, end, shard, offset: 1000 };
        Content {
            format: FORMAT.into(),
            step: 7,
            world_size: 2,
            state: json!({"sampler": {"epoch": 1, "at": 0.1}, "rng": [u64::MAX, i64::MIN]}),
            tensors: vec![Saved { tensor, pieces: vec![place(0, 5, 1), place(5, 20, 0)] }],
            shards: vec![shard("one"), shard("two")],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let manifest = Manifest::new(content()).unwrap();
        let text = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(&text).unwrap(), manifest);
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((&json["step"], &json["checksum"].as_str().unwrap().len()), (&json!(7), &64));
    }

    #[test]
    fn state_that_could_not_be_read_again_is_refused() {
        let mut content = content();
        content.state = (0..200).fold(json!(0), |inner, _| json!([inner]));
        let message = Manifest::new(content).unwrap().encode().unwrap_err().to_string();
        assert!(message.contains("recursion limit"), "{message}");
    }

    #[test]
    fn contradictions_are_named() {
        let refused = |change: &dyn Fn(&mut Content)| {
            let mut content = content();
            change(&mut content);
            Manifest::new(content).unwrap_err()
        };
        let tensor = || "a".to_owned();
        let gap = |start, end| PlaceError::Gap { tensor: tensor(), start, end };
        assert_eq!(refused(&|content| _ = content.tensors[0].pieces.pop()), gap(5, 20));
        assert_eq!(refused(&|content| _ = content.tensors[0].pieces.remove(0)), gap(0, 5));
        assert_eq!(
            refused(&|content| content.tensors[0].pieces[0].end = 6),
            PlaceError::Twice { tensor: tensor(), start: 5, end: 6 }
        );
        let nowhere = PlaceError::Nowhere { tensor: tensor(), start: 0, end: 5 };
        assert_eq!(refused(&|content| content.tensors[0].pieces[0].shard = 2), nowhere);
        assert_eq!(refused(&|content| content.tensors[0].pieces[0].offset = 1120), nowhere);
        assert_eq!(refused(&|content| content.tensors[0].pieces[0].offset = u64::MAX), nowhere);
        assert_eq!(
            refused(&|content| content.tensors.push(content.tensors[0].clone())),
            PlaceError::TensorTwice(tensor())
        );
        for name in ["../two", "one"] {
            assert_eq!(
                refused(&|content| content.shards[1].file = name.into()),
                PlaceError::File(name.into())
            );
        }
        let checksums = PlaceError::Checksums { file: "one".into(), bytes: 1124 };
        assert_eq!(refused(&|content| content.shards[0].chunks.swap(0, 1)), checksums);
        assert_eq!(refused(&|content| _ = content.shards[0].chunks.pop()), checksums);
    }

    #[test]
    fn other_versions_are_named() {
        let mut text = br#"{"format":"muster-checkpoint-9"}"#.to_vec();
        seal(&mut text);
        let message = Manifest::decode(&text).unwrap_err().to_string();
        assert!(message.contains("\"muster-checkpoint-9\""), "{message}");
    }

    proptest! {
        #[test]
        fn any_change_is_noticed(at: prop::sample::Index, bit in 0_u8..8, keep: prop::sample::Index) {
            let text = Manifest::new(content()).unwrap().encode().unwrap();
            let mut changed = text.clone();
            changed[at.index(text.len())] ^= 1 << bit;
            // A letter of a checksum may be in either case.
            if !changed.eq_ignore_ascii_case(&text) {
                prop_assert!(Manifest::decode(&changed).is_err());
            }
            prop_assert!(Manifest::decode(&text[..keep.index(text.len())]).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Manifest::decode(&bytes).is_err());
        }

        /// Past the checksum: forged numbers are refused or fit together, and nothing panics.
        #[test]
        fn forged_numbers_are_refused_or_fit(
            numbers in proptest::collection::vec(prop_oneof![any::<u64>(), 0_u64..3000], 8),
        ) {
            let mut json = serde_json::to_value(content()).unwrap();
            let places = [
                "/step", "/world_size", "/tensors/0/tensor/shape/0", "/tensors/0/pieces/0/start",
                "/tensors/0/pieces/1/end", "/tensors/0/pieces/1/offset", "/shards/0/bytes", "/shards/1/chunk_bytes",
            ];
            for (place, number) in places.iter().zip(&numbers) {
                if number % 3 > 0 {
                    *json.pointer_mut(place).unwrap() = json!(number);
                }
            }
            let mut text = serde_json::to_vec(&json).unwrap();
            seal(&mut text);
            if let Ok(manifest) = Manifest::decode(&text) {
                let content = manifest.content();
                let covered: u64 = content.tensors[0].pieces.iter().map(|piece| piece.end - piece.start).sum();
                prop_assert_eq!(covered, content.tensors[0].tensor.elements());
            }
        }
    }
}
