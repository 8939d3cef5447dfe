//! The messages of the rendezvous: fixed-size packets on a sequenced-packet socket, with descriptors attached.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::codec::{Reader, put_long_text, truncated};

const MAGIC: u64 = u64::from_le_bytes(*b"MUSTERCG");
const VERSION: u32 = 1;
const HOST_BYTES: usize = 64;
const REASON_BYTES: usize = 192;
/// Most bytes in which rank 0 says why it gives up.
const LONGEST_VERDICT: u16 = 900;
const LONGEST_MESSAGE: usize = 1024;
const CUT_SHORT: &str = "a message of the rendezvous is cut short";
const MEMBER_BYTES: usize = 8 + 4 * 4 + 3 * 8 + 1 + HOST_BYTES;

/// What one rank tells about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) rank: u32,
    pub(crate) world_size: u32,
    pub(crate) process: u32,
    pub(crate) generation: u64,
    pub(crate) arena_bytes: u64,
    /// Chosen by rank 0; zero in a greeting.
    pub(crate) session: u64,
    pub(crate) host: String,
}

/// An answer of rank 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// One member of the complete group; its segment and lifeline are attached (rank 0's carries the control
    /// segment as well).
    Member(Member),
    /// The newcomer does not fit; `again` if it may try once more.
    Refused { again: bool, reason: String },
    /// Rank 0 gives the group up.
    GaveUp { reason: String },
}

impl Member {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MEMBER_BYTES);
        bytes.extend(MAGIC.to_le_bytes());
        for word in [VERSION, self.world_size, self.rank, self.process] {
            bytes.extend(word.to_le_bytes());
        }
        for word in [self.generation, self.arena_bytes, self.session] {
            bytes.extend(word.to_le_bytes());
        }
        let host = truncated(&self.host, HOST_BYTES);
        bytes.push(host.len() as u8);
        bytes.extend(host.as_bytes());
        bytes.resize(MEMBER_BYTES, 0);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader(bytes);
        if reader.u64() != Some(MAGIC) {
            return Err("the peer does not speak this protocol".into());
        }
        let version = reader.u32();
        if version != Some(VERSION) {
            return Err(format!(
                "the peer speaks version {} of the protocol, not {VERSION}",
                version.unwrap_or(0)
            ));
        }
        let mut read = || {
            Some(Self {
                world_size: reader.u32()?,
                rank: reader.u32()?,
                process: reader.u32()?,
                generation: reader.u64()?,
                arena_bytes: reader.u64()?,
                session: reader.u64()?,
                host: reader.text()?,
            })
        };
        read().ok_or_else(|| CUT_SHORT.into())
    }
}

impl Answer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Member(member) => [&[0], member.encode().as_slice()].concat(),
            Self::Refused { again, reason } => {
                let reason = truncated(reason, REASON_BYTES);
                [&[1 + u8::from(*again), reason.len() as u8], reason.as_bytes()].concat()
            }
            Self::GaveUp { reason } => {
                let mut bytes = vec![3];
                put_long_text(&mut bytes, reason, LONGEST_VERDICT);
                bytes
            }
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (kind, rest) = bytes.split_first().ok_or("rank 0 hung up")?;
        match kind {
            0 => Member::decode(rest).map(Self::Member),
            3 => {
                let reason = Reader(rest).long_text().ok_or(CUT_SHORT)?;
                Ok(Self::GaveUp { reason })
            }
            kind => {
                let reason = Reader(rest).text().ok_or(CUT_SHORT)?;
                Ok(Self::Refused { again: *kind == 2, reason })
            }
        }
    }
}

/// Sends one packet with descriptors attached.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(io::Error::other("a message of the rendezvous was cut short"))
    }
}

/// Receives one packet without waiting; an empty one means that the peer hung up.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; LONGEST_MESSAGE];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    bytes.truncate(received.bytes);
    Ok((bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        Member {
            rank: 3,
            world_size: 4,
            process: 4711,
            generation: 2,
            arena_bytes: 1 << 20,
            session: 99,
            host: "digits-worker-2".into(),
        }
    }

    #[test]
    fn messages_round_trip() {
        assert_eq!(Member::decode(&member().encode()), Ok(member()));
        for answer in [
            Answer::Member(member()),
            Answer::Refused { again: true, reason: "rank 1 is taken".into() },
            Answer::GaveUp { reason: "rank 2 of 4 did not join".repeat(30) },
            Answer::Refused { again: false, reason: "é".repeat(150) },
        ] {
            let decoded = Answer::decode(&answer.encode()).unwrap();
            match (&answer, &decoded) {
                (Answer::Refused { again, reason }, Answer::Refused { again: a, reason: r }) => {
                    assert_eq!(again, a);
                    assert!(reason.starts_with(r.as_str()) && !r.is_empty());
                }
                _ => assert_eq!(answer, decoded),
            }
        }
    }

    #[test]
    fn strangers_and_other_versions_are_told_apart() {
        assert!(Member::decode(b"GET / HTTP/1.1").unwrap_err().contains("does not speak"));
        let mut bytes = member().encode();
        bytes[8] = 9;
        assert!(Member::decode(&bytes).unwrap_err().contains("version 9"));
        assert!(Member::decode(&member().encode()[..40]).unwrap_err().contains("cut short"));
    }
}
