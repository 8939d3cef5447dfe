//! The ranks as the engine sees them: calls in the background, and the time that waiting for them takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_collectives::{
    Background, Communicator, Element, Error as CollectiveError, Pending, Reduction, RegisteredBuffer,
};
use parking_lot::Mutex;

use super::Error;
use crate::observe::{Detail, Recorder, Track};

/// A group before its calls are made in the background: buffers are allocated now.
pub(super) struct Forming {
    rank: usize,
    world_size: usize,
    shards: Communicator,
    replicas: Option<Communicator>,
}

impl Forming {
    /// Groups of so many consecutive ranks hold shares of the same state.
    pub(super) fn new(mut communicator: Communicator, ranks: usize) -> Result<Self, Error> {
        let (rank, world_size) = (communicator.rank(), communicator.world_size());
        if ranks == world_size {
            return Ok(Self { rank, world_size, shards: communicator, replicas: None });
        }
        let left = || CollectiveError::InvalidArgument("a rank belongs to no shard".into());
        let shards = communicator.split(Some((rank / ranks) as u32), rank as i64)?.ok_or_else(left)?;
        let replicas = communicator.split(Some((rank % ranks) as u32), rank as i64)?.ok_or_else(left)?;
        Ok(Self { rank, world_size, shards, replicas: Some(replicas) })
    }

    pub(super) fn shard(&self) -> usize {
        self.shards.rank()
    }

    pub(super) fn shards(&self) -> usize {
        self.shards.world_size()
    }

    pub(super) fn allocate<T: Element>(&mut self, count: usize) -> Result<RegisteredBuffer<T>, Error> {
        Ok(self.shards.allocate(count)?)
    }

    pub(super) fn start(self) -> Result<Group, Error> {
        let Self { rank, world_size, shards, replicas } = self;
        Ok(Group {
            rank,
            world_size,
            shard: shards.rank(),
            shards: shards.world_size(),
            calls: Background::start(shards)?,
            replicas: replicas.map(|replicas| Arc::new(Mutex::new(replicas))),
            waited: Duration::ZERO,
            recorder: Recorder::default(),
        })
    }
}

/// A buffer that comes back whatever happened to it.
pub(super) type Returned<B> = Pending<(B, Result<(), CollectiveError>)>;

/// The ranks of a training.
pub(super) struct Group {
    rank: usize,
    world_size: usize,
    shard: usize,
    shards: usize,
    calls: Background,
    /// The ranks that hold the same share. Only the background thread calls on it, so the lock is never waited for.
    replicas: Option<Arc<Mutex<Communicator>>>,
    waited: Duration,
    recorder: Recorder,
}

impl Group {
    pub(super) fn rank(&self) -> usize {
        self.rank
    }

    pub(super) fn world_size(&self) -> usize {
        self.world_size
    }

    /// This rank's share.
    pub(super) fn shard(&self) -> usize {
        self.shard
    }

    /// Number of shares.
    pub(super) fn shards(&self) -> usize {
        self.shards
    }

    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    pub(super) fn record(&mut self, recorder: Recorder) {
        self.recorder = recorder;
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Makes a call in the background, and records it as `name` with what it moves.
    fn call<R: Send + 'static>(
        &self,
        name: &'static str,
        detail: Detail,
        work: impl FnOnce(&mut Communicator) -> Result<R, CollectiveError> + Send + 'static,
    ) -> Pending<R> {
        let recorder = self.recorder.clone();
        self.calls.submit(move |shards| {
            let _span = recorder.span(Track::Communication, name, detail);
            work(shards)
        })
    }

    /// Ends the calls in the background; the communicator, unless the thread broke.
    pub(super) fn disband(self) -> Option<Communicator> {
        self.calls.into_communicator()
    }

    /// Waits for a call, and counts the time.
    pub(super) fn wait<R>(&mut self, pending: Pending<R>) -> Result<R, Error> {
        let _span = self.recorder.span(Track::Compute, "wait for ranks", Detail::None);
        let began = Instant::now();
        let result = pending.wait();
        self.waited += began.elapsed();
        Ok(result?)
    }

    /// Waits for a buffer.
    pub(super) fn take_back<B>(&mut self, pending: Returned<B>) -> Result<B, Error> {
        let (buffer, result) = self.wait(pending)?;
        result?;
        Ok(buffer)
    }

    /// Starts to average a buffer over all ranks. Afterwards it holds the whole, or with `scatter` this rank's part of
    /// it, at its place.
    pub(super) fn reduce<T: Element>(
        &self,
        mut buffer: RegisteredBuffer<T>,
        scatter: bool,
    ) -> Returned<RegisteredBuffer<T>> {
        let replicas = self.replicas.clone();
        self.call("reduce gradients", Detail::Bytes(size_of_val(&buffer[..])), move |shards| {
            let mut work = || {
                let part = buffer.len() / shards.world_size();
                if scatter {
                    shards.reduce_scatter_registered(&mut buffer, Reduction::Average)?;
                } else {
                    shards.all_reduce(&mut buffer, Reduction::Average)?;
                }
                let range =
                    if scatter { shards.rank() * part..(shards.rank() + 1) * part } else { 0..buffer.len() };
                match &replicas {
                    Some(replicas) => {
                        replicas.lock().all_reduce_staged(&mut buffer[range], Reduction::Average)
                    }
                    None => Ok(()),
                }
            };
            let result = work();
            Ok((buffer, result))
        })
    }

    /// Starts to gather the parts of a buffer, one of each share.
    pub(super) fn gather_parts(&self, mut buffer: RegisteredBuffer<f32>) -> Returned<RegisteredBuffer<f32>> {
        self.call("gather parameters", Detail::Bytes(size_of_val(&buffer[..])), move |shards| {
            let result = shards.all_gather_registered(&mut buffer);
            Ok((buffer, result))
        })
    }

    /// Starts to make calls among the ranks that share.
    pub(super) fn submit<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Communicator) -> Result<R, CollectiveError> + Send + 'static,
    ) -> Pending<R> {
        self.call("exchange shares", Detail::None, work)
    }

    /// Starts to average a few values over all ranks.
    pub(super) fn average<const N: usize>(&self, mut values: [f32; N]) -> Pending<[f32; N]> {
        let replicas = self.replicas.clone();
        self.call("average metrics", Detail::Bytes(size_of_val(&values)), move |shards| {
            reduce_over_all(shards, replicas.as_deref(), &mut values, Reduction::Average)?;
            Ok(values)
        })
    }

    /// Adds a value over the shares of one whole.
    pub(super) fn sum_over_shards(&mut self, value: f64) -> Result<f64, Error> {
        let mut values = [value];
        let pending = self.call("sum over shards", Detail::Bytes(size_of_val(&values)), move |shards| {
            shards.all_reduce_staged(&mut values, Reduction::Sum)?;
            Ok(values[0])
        });
        self.wait(pending)
    }

    /// Adds a number over all ranks.
    pub(super) fn sum<T: Element>(&mut self, number: T) -> Result<T, Error> {
        let mut numbers = [number];
        let replicas = self.replicas.clone();
        let pending = self.call("sum", Detail::Bytes(size_of_val(&numbers)), move |shards| {
            reduce_over_all(shards, replicas.as_deref(), &mut numbers, Reduction::Sum)?;
            Ok(numbers[0])
        });
        self.wait(pending)
    }

    /// Gives all ranks the values of one. Only where all ranks share.
    pub(super) fn broadcast<T: Element>(
        &mut self,
        mut values: Vec<T>,
        source: usize,
    ) -> Result<Vec<T>, Error> {
        let pending = self.call("broadcast", Detail::Bytes(size_of_val(&values[..])), move |shards| {
            shards.broadcast(&mut values, source)?;
            Ok(values)
        });
        self.wait(pending)
    }

    /// What every rank passes, in rank order.
    pub(super) fn gather(&mut self, value: u64) -> Result<Vec<u64>, Error> {
        let replicas = self.replicas.clone();
        let pending = self.call("gather", Detail::Bytes(size_of::<u64>()), move |shards| {
            let values = gather_from_all(shards, replicas.as_deref(), &[value.cast_signed()])?;
            Ok(values.into_iter().map(i64::cast_unsigned).collect())
        });
        self.wait(pending)
    }

    /// The bytes that every rank passes, in rank order.
    pub(super) fn gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let lengths = self.gather(bytes.len() as u64)?;
        // All ranks pass as many, so that it does not matter which groups they are in.
        let longest = lengths.iter().max().copied().unwrap_or_default() as usize;
        if longest == 0 {
            return Ok(vec![Vec::new(); lengths.len()]);
        }
        let mut padded = bytes.to_vec();
        padded.resize(longest, 0);
        let replicas = self.replicas.clone();
        let pending = self.call("gather bytes", Detail::Bytes(longest), move |shards| {
            gather_from_all(shards, replicas.as_deref(), &padded)
        });
        let all = self.wait(pending)?;
        let pieces = all.chunks_exact(longest).zip(lengths);
        Ok(pieces.map(|(piece, length)| piece[..length as usize].to_vec()).collect())
    }
}

/// Reduces values over all ranks: first those that share, then those that hold the same share.
fn reduce_over_all<T: Element>(
    shards: &mut Communicator,
    replicas: Option<&Mutex<Communicator>>,
    values: &mut [T],
    reduction: Reduction,
) -> Result<(), CollectiveError> {
    shards.all_reduce_staged(values, reduction)?;
    replicas.map_or(Ok(()), |replicas| replicas.lock().all_reduce_staged(values, reduction))
}

/// The values of all ranks, in rank order.
fn gather_from_all<T: Element + Default>(
    shards: &mut Communicator,
    replicas: Option<&Mutex<Communicator>>,
    own: &[T],
) -> Result<Vec<T>, CollectiveError> {
    let mut all = vec![T::default(); own.len() * shards.world_size()];
    shards.all_gather(own, &mut all)?;
    let Some(replicas) = replicas else { return Ok(all) };
    let mut replicas = replicas.lock();
    let mut everything = vec![T::default(); all.len() * replicas.world_size()];
    replicas.all_gather(&all, &mut everything)?;
    Ok(everything)
}
