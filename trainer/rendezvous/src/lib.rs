//! Who takes part in an elastic training, and as which rank.
//!
//! The ranks of an elastic training come and go. A small gRPC service, which outlives each of them since it runs beside
//! the controllers, gives them their places: an *epoch* is one group of ranks, and every member of it gets the same
//! number, the same size and a rank of its own. Members end an epoch themselves, at a step that all of them have
//! taken or when they lose one of them, and then wait for the next; nothing is ever decided about a member that works.
//! So the service holds no state that its members do not, but that a training is over: one that was started again learns it
//! from them.
//!
//! * [`Service`] serves any number of trainings; [`Admission`] tells which one a caller belongs to.
//! * [`Member`] is a rank's side: it asks for a place, and learns that others want to join, and while the group of an
//!   epoch forms that one of its ranks will not come.
//!
//! What the ranks do in an epoch is not known here: they form a group of `muster-collectives`, whose generation is the
//! epoch, so that ranks of different epochs cannot meet.

mod group;
mod member;
mod messages;
mod outcome;
mod own_address;
mod service;

pub use group::{Bounds, Departure};
pub use member::{Error as MemberError, Member, MemberOptions, News, Placement, Watch};
pub use own_address::own_address;
pub use service::{
    Admission, Bound, COMEBACK, Caller, Error as ServiceError, NotAdmitted, Service, ServiceOptions,
};
