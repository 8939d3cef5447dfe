//! The keys by which the pods of a job log into each other.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey};
use ssh_key::public::Ed25519PublicKey;
use ssh_key::{LineEnding, PrivateKey};

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The machine gives no random numbers.
    #[error("this machine gives no random numbers for SSH keys")]
    Randomness,
    /// The keys cannot be written in OpenSSH's form.
    #[error("SSH keys cannot be written: {0}")]
    Format(#[from] ssh_key::Error),
}

/// A Secret with new keys.
pub(crate) fn secret(metadata: ObjectMeta) -> Result<Secret, Error> {
    let seed = ring::rand::generate(&SystemRandom::new()).map_err(|_| Error::Randomness)?;
    let (private, public) = pair(&seed.expose())?;
    Ok(Secret {
        metadata,
        type_: Some("kubernetes.io/ssh-auth".to_owned()),
        data: Some(BTreeMap::from([
            ("ssh-privatekey".to_owned(), ByteString(private)),
            ("ssh-publickey".to_owned(), ByteString(public)),
        ])),
        ..Secret::default()
    })
}

/// The private and the public key that follow from a seed, in OpenSSH's form.
fn pair(seed: &[u8; 32]) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let ring_pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Error::Randomness)?;
    let public = Ed25519PublicKey::try_from(ring_pair.public_key().as_ref())?;
    let pair = Ed25519Keypair { public, private: Ed25519PrivateKey::from_bytes(seed) };
    let private = PrivateKey::from(pair);
    let mut public = private.public_key().to_openssh()?;
    public.push('\n');
    Ok((private.to_openssh(LineEnding::LF)?.as_bytes().to_vec(), public.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 1.
    const SEED: [u8; 32] = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44,
        0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
    ];
    const PUBLIC: [u8; 32] = [
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e,
        0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
    ];

    #[test]
    fn the_keys_are_those_of_the_seed_in_the_form_of_openssh() {
        let (private, public) = pair(&SEED).unwrap();
        let read = PrivateKey::from_openssh(&private).unwrap();
        assert_eq!(read.public_key().key_data().ed25519().unwrap().0, PUBLIC);
        let public = ssh_key::PublicKey::from_openssh(&String::from_utf8(public).unwrap()).unwrap();
        assert_eq!(&public, read.public_key());
    }

    #[test]
    fn each_secret_has_keys_of_its_own() {
        let data = || secret(ObjectMeta::default()).unwrap().data.unwrap();
        assert_ne!(data()["ssh-privatekey"], data()["ssh-privatekey"]);
    }
}
