//! How two ranks make sure of each other on a new connection: who it is, that both know the group's token, and what
//! the connection is for. All that comes off the wire here is bounded and checked.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use crate::codec::{Reader, put_long_text, put_text};
use crate::control::MAXIMUM_RANKS;
use crate::options::Token;

const MAGIC: [u8; 8] = *b"MUSTERNT";
const VERSION: u32 = 3;
pub(super) const HOST_BYTES: u8 = 64;
const IDENTITY_BYTES: u8 = 128;
const GROUP_BYTES: u8 = 200;
const REASON_BYTES: u8 = 200;
/// Most bytes in which rank 0 says why it gives up.
const LONGEST_VERDICT: u16 = 900;

/// Bytes of a challenge.
pub(super) const CHALLENGE_BYTES: usize = 8 + 4 + 2 + 1 + size_of::<Nonce>();
/// Most bytes of a hello or an answer.
pub(super) const LONGEST_MESSAGE: usize = 1024;
/// Most bytes of a roster.
pub(super) const LONGEST_ROSTER: usize = 8 + 4 + MAXIMUM_RANKS * (16 + 2 + 4 + 2 + 255 + 255);

/// A number that was never used before.
pub(super) type Nonce = [u8; 32];

pub(super) fn nonce() -> io::Result<Nonce> {
    let mut nonce = Nonce::default();
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(nonce)
}

/// What the side that listens says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    /// Whether it has certificates, so that all that follows is under TLS.
    pub(super) is_certified: bool,
    pub(super) nonce: Nonce,
}

impl Challenge {
    pub(super) fn encode(&self) -> Vec<u8> {
        let byte_order = 1_u16.to_ne_bytes();
        let certified = [u8::from(self.is_certified)];
        [&MAGIC[..], &VERSION.to_le_bytes(), &byte_order, &certified, &self.nonce].concat()
    }

    /// The challenge in some bytes, or what is wrong with it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader(bytes);
        if reader.take() != Some(MAGIC) {
            return Err("the peer does not speak this protocol".into());
        }
        let version = reader.u32();
        if version != Some(VERSION) {
            let version = version.unwrap_or(0);
            return Err(format!("the peer speaks version {version} of the protocol, not {VERSION}"));
        }
        if reader.take() != Some(1_u16.to_ne_bytes()) {
            return Err("the peer's processor orders bytes in another way".into());
        }
        let mut read = || Some(Self { is_certified: reader.u8()? != 0, nonce: reader.take()? });
        read().ok_or_else(|| "a challenge is cut short".into())
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To join the group.
    Join,
    /// To hear of each other.
    Control,
    /// For the data of collectives.
    Collectives,
    /// For messages.
    Messages,
}

impl Purpose {
    /// The connections between two ranks of a complete group.
    pub(super) const OF_MEMBERS: [Self; 3] = [Self::Control, Self::Collectives, Self::Messages];

    fn from_code(code: u8) -> Option<Self> {
        [Self::Join, Self::Control, Self::Collectives, Self::Messages]
            .into_iter()
            .find(|purpose| *purpose as u8 == code)
    }
}

/// What the side that connects says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) purpose: Purpose,
    pub(super) rank: usize,
    pub(super) process: u32,
    pub(super) world_size: usize,
    pub(super) generation: u64,
    /// Chosen by rank 0; zero of a rank that joins.
    pub(super) session: u64,
    /// Where the rank listens itself.
    pub(super) port: u16,
    pub(super) group: String,
    pub(super) host: String,
    pub(super) identity: String,
    pub(super) nonce: Nonce,
}

impl Hello {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.purpose as u8];
        bytes.extend((self.rank as u32).to_le_bytes());
        bytes.extend(self.process.to_le_bytes());
        bytes.extend((self.world_size as u32).to_le_bytes());
        bytes.extend(self.generation.to_le_bytes());
        bytes.extend(self.session.to_le_bytes());
        bytes.extend(self.port.to_le_bytes());
        put_text(&mut bytes, &self.group, GROUP_BYTES);
        put_text(&mut bytes, &self.host, HOST_BYTES);
        put_text(&mut bytes, &self.identity, IDENTITY_BYTES);
        bytes.extend(self.nonce);
        bytes
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            purpose: Purpose::from_code(reader.u8()?)?,
            rank: reader.u32()? as usize,
            process: reader.u32()?,
            world_size: reader.u32()? as usize,
            generation: reader.u64()?,
            session: reader.u64()?,
            port: reader.u16()?,
            group: reader.text()?,
            host: reader.text()?,
            identity: reader.text()?,
            nonce: reader.take()?,
        })
    }

    /// The hello with the proof that its writer knows the token, behind its length.
    pub(super) fn seal(&self, token: &Token, challenge: &Nonce) -> Vec<u8> {
        let body = self.encode();
        let proof = hmac::sign(&key(token), &[&challenge[..], &body].concat());
        framed(&[&body, proof.as_ref()])
    }

    /// Reads what [`Self::seal`] wrote, without its length.
    pub(super) fn open(bytes: &[u8], token: &Token, challenge: &Nonce) -> Result<Self, String> {
        let cut = || "a greeting is cut short or of another kind".to_owned();
        let mut reader = Reader(bytes);
        let hello = Self::decode(&mut reader).ok_or_else(cut)?;
        let body = &bytes[..bytes.len() - reader.0.len()];
        hmac::verify(&key(token), &[&challenge[..], body].concat(), reader.0)
            .map_err(|_| "it does not know the group's token".to_owned())?;
        Ok(hello)
    }
}

/// What the side that listens answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Welcome,
    /// It does not fit; `again` if it may try once more.
    Refused {
        again: bool,
        reason: String,
    },
    /// Rank 0 gives the group up.
    GaveUp {
        reason: String,
    },
}

impl Answer {
    /// The answer with the proof that its writer knows the token, behind its length.
    pub(super) fn seal(&self, token: &Token, nonce: &Nonce) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Self::Welcome => body.push(0),
            Self::Refused { again, reason } => {
                body.push(1 + u8::from(*again));
                put_text(&mut body, reason, REASON_BYTES);
            }
            Self::GaveUp { reason } => {
                body.push(3);
                put_long_text(&mut body, reason, LONGEST_VERDICT);
            }
        }
        let proof = hmac::sign(&key(token), &[&nonce[..], b"answer", &body].concat());
        framed(&[proof.as_ref(), &body])
    }

    /// Reads what [`Self::seal`] wrote, without its length.
    pub(super) fn open(bytes: &[u8], token: &Token, nonce: &Nonce) -> Result<Self, String> {
        let cut = || "an answer is cut short".to_owned();
        let (proof, body) = bytes.split_at_checked(32).ok_or_else(cut)?;
        let mut reader = Reader(body);
        let kind = reader.u8().ok_or_else(cut)?;
        let is_proved = hmac::verify(&key(token), &[&nonce[..], b"answer", body].concat(), proof).is_ok();
        match kind {
            0 if is_proved => Ok(Self::Welcome),
            3 if is_proved => Ok(Self::GaveUp { reason: reader.long_text().ok_or_else(cut)? }),
            0 | 3 => Err("it does not know the group's token".into()),
            // Also from one with another token, since that may be the reason.
            kind => Ok(Self::Refused { again: kind == 2, reason: reader.text().ok_or_else(cut)? }),
        }
    }
}

fn key(token: &Token) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, token.secret())
}

fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>() as u16;
    let mut bytes = length.to_le_bytes().to_vec();
    for part in parts {
        bytes.extend(*part);
    }
    bytes
}

/// One rank of a complete group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    /// How its host calls itself.
    pub(super) host: String,
    /// Its process, as its host numbers it.
    pub(super) process: u32,
    /// What tells its host from others.
    pub(super) identity: String,
    /// Where it listens; none of rank 0, which everybody has reached already.
    pub(super) address: Option<SocketAddr>,
}

/// A complete group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Roster {
    pub(super) session: u64,
    /// In rank order.
    pub(super) seats: Vec<Seat>,
}

impl Roster {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.session.to_le_bytes().to_vec();
        bytes.extend((self.seats.len() as u32).to_le_bytes());
        for seat in &self.seats {
            let (ip, port) = seat.address.map_or((Ipv6Addr::UNSPECIFIED, 0), |address| {
                let ip = match address.ip() {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                (ip, address.port())
            });
            bytes.extend(ip.octets());
            bytes.extend(port.to_le_bytes());
            bytes.extend(seat.process.to_le_bytes());
            put_text(&mut bytes, &seat.host, HOST_BYTES);
            put_text(&mut bytes, &seat.identity, IDENTITY_BYTES);
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let session = reader.u64()?;
        let count = reader.u32()? as usize;
        if count > MAXIMUM_RANKS {
            return None;
        }
        let mut seat = || {
            let ip = Ipv6Addr::from(reader.take::<16>()?);
            let port = reader.u16()?;
            let process = reader.u32()?;
            let address = (!ip.is_unspecified()).then(|| SocketAddr::new(ip.to_canonical(), port));
            Some(Seat { host: reader.text()?, process, identity: reader.text()?, address })
        };
        let seats = (0..count).map(|_| seat()).collect::<Option<Vec<_>>>()?;
        Some(Self { session, seats })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> Hello {
        Hello {
            purpose: Purpose::Messages,
            rank: 3,
            process: 4711,
            world_size: 4,
            generation: 2,
            session: 99,
            port: 40_000,
            group: "digits-master-0-23456".into(),
            host: "digits-worker-2".into(),
            identity: "boot:8:1".into(),
            nonce: [7; 32],
        }
    }

    #[test]
    fn a_greeting_is_believed_only_with_the_token_and_for_its_challenge() {
        let (token, other) = (Token::new("secret"), Token::default());
        let sealed = hello().seal(&token, &[1; 32]);
        assert_eq!(usize::from(u16::from_le_bytes([sealed[0], sealed[1]])), sealed.len() - 2);
        let sealed = &sealed[2..];
        assert_eq!(Hello::open(sealed, &token, &[1; 32]), Ok(hello()));
        assert!(Hello::open(sealed, &token, &[2; 32]).unwrap_err().contains("token"));
        assert!(Hello::open(sealed, &other, &[1; 32]).unwrap_err().contains("token"));
        let mut changed = sealed.to_vec();
        changed[1] = 2;
        assert!(Hello::open(&changed, &token, &[1; 32]).unwrap_err().contains("token"));
        assert!(Hello::open(&sealed[..40], &token, &[1; 32]).unwrap_err().contains("cut short"));
    }

    #[test]
    fn only_one_who_knows_the_token_can_welcome_but_anybody_can_refuse() {
        let (token, other) = (Token::new("secret"), Token::new("another"));
        let refused = Answer::Refused { again: true, reason: "rank 1 is taken".into() };
        let gave_up = Answer::GaveUp { reason: "rank 2 of 4 did not join".repeat(30) };
        assert!(gave_up.seal(&token, &[1; 32]).len() <= 2 + LONGEST_MESSAGE);
        assert!(Answer::open(&gave_up.seal(&other, &[1; 32])[2..], &token, &[1; 32]).is_err());
        for answer in [Answer::Welcome, refused.clone(), gave_up] {
            assert_eq!(Answer::open(&answer.seal(&token, &[1; 32])[2..], &token, &[1; 32]), Ok(answer));
        }
        assert!(Answer::open(&Answer::Welcome.seal(&other, &[1; 32])[2..], &token, &[1; 32]).is_err());
        assert_eq!(Answer::open(&refused.seal(&other, &[1; 32])[2..], &token, &[1; 32]), Ok(refused));
    }

    #[test]
    fn strangers_other_versions_and_other_processors_are_told_apart() {
        let challenge = Challenge { is_certified: true, nonce: [5; 32] };
        let bytes = challenge.encode();
        assert_eq!(bytes.len(), CHALLENGE_BYTES);
        assert_eq!(Challenge::decode(&bytes), Ok(challenge));
        let changed = |at: usize| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 9;
            Challenge::decode(&bytes).unwrap_err()
        };
        assert!(changed(0).contains("does not speak"));
        assert!(changed(8).contains("version 10"));
        assert!(changed(12).contains("orders bytes"));
        assert!(Challenge::decode(&bytes[..20]).unwrap_err().contains("cut short"));
    }

    #[test]
    fn a_roster_round_trips() {
        let seat = |address: Option<&str>| Seat {
            host: "host".into(),
            process: 4711,
            identity: "boot:1:2".into(),
            address: address.map(|address| address.parse().unwrap()),
        };
        let roster = Roster {
            session: 5,
            seats: vec![seat(None), seat(Some("10.0.0.7:4000")), seat(Some("[fd00::1]:4001"))],
        };
        assert_eq!(Roster::decode(&roster.encode()), Some(roster.clone()));
        assert_eq!(Roster::decode(&roster.encode()[..30]), None);
        let full = Roster { session: 5, seats: vec![seat(None); MAXIMUM_RANKS] };
        assert!(full.encode().len() <= LONGEST_ROSTER);
    }

    proptest! {
        #[test]
        fn no_bytes_break_a_decoder(bytes in prop::collection::vec(any::<u8>(), 0..LONGEST_MESSAGE)) {
            let token = Token::new("secret");
            prop_assert!(Hello::open(&bytes, &token, &[0; 32]).is_err());
            prop_assert!(!matches!(Answer::open(&bytes, &token, &[0; 32]), Ok(Answer::Welcome)));
            prop_assert!(Challenge::decode(&bytes).is_err());
            if let Some(roster) = Roster::decode(&bytes) {
                prop_assert!(roster.seats.len() <= MAXIMUM_RANKS);
            }
        }

        #[test]
        fn no_cut_or_flipped_greeting_is_believed(cut in 0..200_usize, bit in 0..8_u8) {
            let token = Token::new("secret");
            let sealed = hello().seal(&token, &[1; 32])[2..].to_vec();
            let at = cut % sealed.len();
            prop_assert!(Hello::open(&sealed[..at], &token, &[1; 32]).is_err());
            let mut flipped = sealed;
            flipped[at] ^= 1 << bit;
            prop_assert!(Hello::open(&flipped, &token, &[1; 32]).is_err());
        }
    }
}
