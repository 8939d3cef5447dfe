//! What a group can be asked to do with tensors.

use std::borrow::Cow;

use muster_collectives::{Communicator, DataType, Element, Error, Reduction, bf16, f16};

use crate::tensor::Tensor;

/// A call of all ranks of a group, or a message. Ranks are those of the group; counts are in elements of torch.
#[derive(Debug)]
pub enum Request {
    /// Wait for every rank.
    Barrier,
    /// Reduce onto every rank.
    AllReduce {
        /// What each rank contributes, and then the result.
        data: Tensor,
        /// How values are combined.
        reduction: Reduction,
    },
    /// Reduce onto one rank; the others keep what they have.
    Reduce {
        /// What each rank contributes, and then the result.
        data: Tensor,
        /// How values are combined.
        reduction: Reduction,
        /// The rank that gets the result.
        root: usize,
    },
    /// Reduce, and leave each rank its part of the result.
    ReduceScatter {
        /// The parts for all ranks, one after the other.
        send: Tensor,
        /// This rank's part of the result.
        receive: Tensor,
        /// The elements of each rank's part, where they are not all alike.
        counts: Option<Vec<usize>>,
        /// How values are combined.
        reduction: Reduction,
    },
    /// Copy from one rank to all.
    Broadcast {
        /// What is copied.
        data: Tensor,
        /// The rank that has it.
        root: usize,
    },
    /// Concatenate the contributions of all ranks on every rank.
    AllGather {
        /// This rank's contribution.
        send: Tensor,
        /// Those of all ranks, one after the other.
        receive: Tensor,
        /// The elements of each rank's contribution, where they are not all alike.
        counts: Option<Vec<usize>>,
    },
    /// Concatenate the contributions of all ranks on one.
    Gather {
        /// This rank's contribution.
        send: Tensor,
        /// Those of all ranks; empty on other ranks than the root.
        receive: Tensor,
        /// The rank that gets them.
        root: usize,
    },
    /// Give each rank its part of one rank's data.
    Scatter {
        /// The parts for all ranks; empty on other ranks than the root.
        send: Tensor,
        /// This rank's part.
        receive: Tensor,
        /// The rank that has them.
        root: usize,
    },
    /// Give each rank a part of every rank's data.
    AllToAll {
        /// The parts for all ranks, one after the other.
        send: Tensor,
        /// The parts of all ranks, one after the other.
        receive: Tensor,
        /// The elements that go to each rank and that come from it, where they are not all alike.
        counts: Option<(Vec<usize>, Vec<usize>)>,
    },
    /// Pass a message to a rank.
    Send {
        /// The message.
        data: Tensor,
        /// The rank.
        to: usize,
    },
    /// Take a message from a rank.
    Receive {
        /// Where the message goes.
        data: Tensor,
        /// The rank.
        from: usize,
    },
    /// One after the other, as one.
    Several(Vec<Request>),
}

/// Calls `$function::<T>` with the type that `$data_type` names.
macro_rules! typed {
    ($data_type:expr, $function:ident($($argument:expr),*)) => {
        match $data_type {
            DataType::F32 => $function::<f32>($($argument),*),
            DataType::F64 => $function::<f64>($($argument),*),
            DataType::F16 => $function::<f16>($($argument),*),
            DataType::BF16 => $function::<bf16>($($argument),*),
            DataType::I32 => $function::<i32>($($argument),*),
            DataType::I64 => $function::<i64>($($argument),*),
            DataType::I8 => $function::<i8>($($argument),*),
            DataType::U8 => $function::<u8>($($argument),*),
        }
    };
}

impl Request {
    /// Does it. Blocks within the deadline of the communicator.
    pub fn carry_out(self, communicator: &mut Communicator) -> Result<(), Error> {
        match self {
            Self::Barrier => communicator.barrier(),
            Self::Several(requests) => {
                requests.into_iter().try_for_each(|request| request.carry_out(communicator))
            }
            request => {
                let data_type = request.data_type()?;
                typed!(data_type, carry_out_typed(request, communicator))
            }
        }
    }

    /// The type of its tensors, which must be one and the same.
    fn data_type(&self) -> Result<DataType, Error> {
        match self {
            Self::AllReduce { data, .. }
            | Self::Reduce { data, .. }
            | Self::Broadcast { data, .. }
            | Self::Send { data, .. }
            | Self::Receive { data, .. } => Ok(data.data_type()),
            Self::ReduceScatter { send, receive, .. }
            | Self::AllGather { send, receive, .. }
            | Self::Gather { send, receive, .. }
            | Self::Scatter { send, receive, .. }
            | Self::AllToAll { send, receive, .. } => {
                let (sent, received) = (send.data_type(), receive.data_type());
                if sent == received {
                    return Ok(sent);
                }
                let (sent, received) = (sent.name(), received.name());
                Err(Error::InvalidArgument(format!(
                    "a tensor of {sent} elements cannot be received as {received}"
                )))
            }
            Self::Barrier | Self::Several(_) => Ok(DataType::U8),
        }
    }
}

fn carry_out_typed<T: Element>(request: Request, communicator: &mut Communicator) -> Result<(), Error> {
    match request {
        Request::Barrier | Request::Several(_) => request.carry_out(communicator),
        Request::AllReduce { mut data, reduction } => {
            communicator.all_reduce_staged(data.elements_mut::<T>(), reduction)
        }
        Request::Reduce { mut data, reduction, root } => {
            communicator.reduce(data.elements_mut::<T>(), reduction, root)
        }
        Request::Broadcast { mut data, root } => communicator.broadcast(data.elements_mut::<T>(), root),
        Request::Send { data, to } => communicator.send(data.elements::<T>(), to),
        Request::Receive { mut data, from } => communicator.receive(data.elements_mut::<T>(), from),
        Request::ReduceScatter { send, mut receive, counts, reduction } => {
            let sent = apart::<T>(&send, &receive);
            let received = receive.elements_mut::<T>();
            match counts {
                None => communicator.reduce_scatter(&sent, received, reduction),
                Some(counts) => {
                    communicator.reduce_scatter_v(&sent, received, &send.scaled(&counts), reduction)
                }
            }
        }
        Request::AllGather { send, mut receive, counts } => {
            let sent = apart::<T>(&send, &receive);
            let received = receive.elements_mut::<T>();
            match counts {
                None => communicator.all_gather(&sent, received),
                Some(counts) => communicator.all_gather_v(&sent, received, &send.scaled(&counts)),
            }
        }
        Request::Gather { send, mut receive, root } => {
            let sent = apart::<T>(&send, &receive);
            communicator.gather(&sent, receive.elements_mut::<T>(), root)
        }
        Request::Scatter { send, mut receive, root } => {
            let sent = apart::<T>(&send, &receive);
            communicator.scatter(&sent, receive.elements_mut::<T>(), root)
        }
        Request::AllToAll { send, mut receive, counts } => {
            let sent = apart::<T>(&send, &receive);
            let received = receive.elements_mut::<T>();
            match counts {
                None => communicator.all_to_all(&sent, received),
                Some((to, from)) => {
                    communicator.all_to_all_v(&sent, &send.scaled(&to), received, &send.scaled(&from))
                }
            }
        }
    }
}

/// What is sent, copied if it lies where something is received: torch allows a part of the whole to be sent in place.
fn apart<'a, T: Element>(send: &'a Tensor, receive: &Tensor) -> Cow<'a, [T]> {
    if send.overlaps(receive) { send.elements::<T>().to_vec().into() } else { send.elements::<T>().into() }
}
