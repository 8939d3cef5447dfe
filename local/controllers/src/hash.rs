//! Hashes that become pieces of names. Pure.

use serde::Serialize;
use serde_json::json;

/// The hash of an object as a piece of a name: FNV-1a in an alphabet that spells no words. Kubernetes hashes another
/// text, so its names look alike but differ. `collisions` tells how often others already had the name.
pub(crate) fn name_hash(object: &impl Serialize, collisions: i32) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut text = serde_json::to_vec(&json!(object)).unwrap_or_default();
    if collisions > 0 {
        text.extend(collisions.to_le_bytes());
    }
    let number =
        text.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    number
        .to_string()
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_looks_like_a_piece_of_a_name_and_follows_the_object() {
        let template = |image: &str| json!({ "containers": [{ "name": "c", "image": image }] });
        let first = name_hash(&template("1"), 0);
        assert!(first.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
        assert_eq!(first, name_hash(&template("1"), 0));
        assert_ne!(first, name_hash(&template("2"), 0));
        assert_ne!(first, name_hash(&template("1"), 1));
    }
}
