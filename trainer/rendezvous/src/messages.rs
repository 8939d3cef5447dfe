//! The messages on the wire, and what they mean here.

use std::time::Duration;

use crate::group::{self, Arrival, Bounds, Order, Seat};

#[expect(unreachable_pub, clippy::pedantic, reason = "generated from rendezvous.proto, which documents it")]
mod generated {
    tonic::include_proto!("muster.rendezvous.v1");
}

pub(crate) use generated::*;

/// Longest name of a member, a group or an address, in bytes.
const LONGEST_NAME: usize = 256;
/// Longest report of a failure that is passed on, in bytes.
const LONGEST_REPORT: usize = 4096;
/// Largest number of members that may be asked for.
const MOST_MEMBERS: usize = 1 << 16;

impl Introduction {
    /// What it says, if it makes sense; else the field that does not.
    pub(crate) fn understood(&self) -> Result<Arrival, String> {
        for (field, value) in [
            ("member", &self.member),
            ("group", &self.group),
            ("host", &self.host),
            ("address", &self.address),
        ] {
            if value.len() > LONGEST_NAME {
                return Err(format!("{field} is longer than {LONGEST_NAME} bytes"));
            }
        }
        if self.member.is_empty() {
            return Err("member is empty".into());
        }
        let bounds = Bounds {
            fewest: self.fewest as usize,
            expected: self.expected as usize,
            most: self.most as usize,
        };
        if !bounds.are_in_order() || bounds.most > MOST_MEMBERS {
            return Err(format!(
                "fewest {}, expected {} and most {} members must be at least 1, in this order, and at most {MOST_MEMBERS}",
                bounds.fewest, bounds.expected, bounds.most
            ));
        }
        if self.epoch > u64::MAX / 2 || self.rank as usize >= MOST_MEMBERS {
            return Err(format!("there is no rank {} of epoch {}", self.rank, self.epoch));
        }
        Ok(Arrival {
            member: self.member.clone(),
            host: self.host.clone(),
            address: self.address.clone(),
            bounds,
            seat: (self.epoch > 0).then_some(Seat { epoch: self.epoch, rank: self.rank as usize }),
            works: self.works,
            last_call: self.last_call_milliseconds.map(|time| Duration::from_millis(time.into())),
            restarts: self.restarts,
        })
    }
}

/// As much of a report as is passed on.
pub(crate) fn shortened(mut report: String) -> String {
    report.truncate(report.floor_char_boundary(LONGEST_REPORT));
    report
}

/// An address that may be passed on; else none.
pub(crate) fn sound_address(address: String) -> String {
    if address.len() <= LONGEST_NAME { address } else { String::new() }
}

impl From<from_member::Message> for FromMember {
    fn from(message: from_member::Message) -> Self {
        Self { message: Some(message) }
    }
}

impl From<Order> for ToMember {
    fn from(order: Order) -> Self {
        let message = match order {
            Order::Place { epoch, rank, world_size, leader, restarts } => {
                to_member::Message::Placement(Placement {
                    epoch,
                    rank: rank as u32,
                    world_size: world_size as u32,
                    leader,
                    restarts,
                })
            }
            Order::Change { epoch } => to_member::Message::Change(Change { epoch }),
            Order::Over { failure } => {
                to_member::Message::Over(Over { failure: failure.unwrap_or_default() })
            }
            Order::Reserve => to_member::Message::Reserve(Reserve {}),
            Order::Departure(group::Departure { epoch, rank, host, has_left }) => {
                to_member::Message::Departure(Departure { epoch, rank: rank as u32, host, has_left })
            }
        };
        Self { message: Some(message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let sound = Introduction {
            member: "digits-worker-0".into(),
            fewest: 1,
            expected: 2,
            most: 4,
            epoch: 3,
            rank: 1,
            works: true,
            ..Introduction::default()
        };
        assert_eq!(sound.understood().unwrap().seat, Some(Seat { epoch: 3, rank: 1 }));
        let refused = |change: fn(&mut Introduction)| {
            let mut introduction = sound.clone();
            change(&mut introduction);
            introduction.understood().unwrap_err()
        };
        assert_eq!(refused(|said| said.member.clear()), "member is empty");
        assert!(refused(|said| said.host = "x".repeat(257)).starts_with("host is longer"));
        assert!(refused(|said| said.fewest = 0).starts_with("fewest 0, expected 2 and most 4"));
        assert!(refused(|said| said.expected = 5).starts_with("fewest 1, expected 5 and most 4"));
        assert!(refused(|said| said.most = u32::MAX).contains("at most 65536"));
        assert!(refused(|said| said.epoch = u64::MAX).contains("no rank 1 of epoch"));
    }
}
