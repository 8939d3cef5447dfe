//! Checkpoints of a training: saved while it goes on, committed when all ranks have written, and taken up again.

use std::io::Write;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::time::Duration;

use muster_checkpoint::{
    Checkpoint, Checkpoints, DataType, Place, Request, Retention, Save, Saver, SaverOptions, Shard,
    ShardReceipt, Tensor,
};
use serde_json::{Value, json};

use crate::arguments::Checkpointing;
use crate::error::Error;
use crate::model::Parameter;
use crate::observe::{Detail, Track};
use crate::parallel::{Engine, Piece, Quantity};
use crate::report::Report;
use crate::sampler::Cursor;
use crate::tensor::Library;

/// How long the ranks may take to write the last checkpoint.
const PATIENCE: Duration = Duration::from_mins(10);

/// What a training keeps of itself.
pub(super) struct Keeper {
    checkpoints: Checkpoints,
    saver: Saver,
    every: u64,
    retention: Retention,
    /// The model, which a checkpoint must be of.
    model: Value,
    /// What is being written.
    running: Option<Running>,
    /// The step of what was begun last.
    begun: Option<u64>,
}

/// A checkpoint on its way.
struct Running {
    /// This rank's part, or why it could not be begun: the other ranks must learn of that.
    save: Result<Save, Error>,
    /// What belongs to it.
    state: Value,
}

/// An error of the checkpoints themselves.
fn failed(error: impl std::fmt::Display) -> Error {
    Error::Checkpoint { message: error.to_string() }
}

impl Keeper {
    /// None where the options ask for no checkpoints.
    pub(super) fn new(
        options: &Checkpointing,
        engine: &Engine<impl Library>,
        model: Value,
    ) -> Result<Option<Self>, Error> {
        let Some(place) = &options.checkpoint else { return Ok(None) };
        let checkpoints = Checkpoints::open(place).map_err(failed)?;
        let place = Place { rank: engine.rank(), world_size: engine.world_size() };
        let saver = checkpoints.saver(place, SaverOptions::default()).map_err(failed)?;
        let newest = NonZeroUsize::new(options.keep_checkpoints).unwrap_or(NonZeroUsize::MIN);
        let retention = Retention { newest, every: None };
        Ok(Some(Self {
            checkpoints,
            saver,
            every: options.checkpoint_every,
            retention,
            model,
            running: None,
            begun: None,
        }))
    }

    /// Takes the training up from its newest checkpoint that is whole, if there is one, after removing what a crash left
    /// behind. All ranks call it, and none has begun to train.
    pub(super) fn resume<W: Write>(
        &mut self,
        engine: &mut Engine<impl Library>,
        report: &mut Report<W>,
    ) -> Result<Option<Cursor>, Error> {
        let of_rank = Error::of_rank(engine.rank());
        // Rank 0 decides for all, so that none takes another one.
        let mut found = Vec::new();
        let mut problem = None;
        if engine.rank() == 0 {
            match self.newest(report) {
                Ok(step) => found.extend(step.map(u64::to_le_bytes).into_iter().flatten()),
                Err(error) => problem = Some(error),
            }
        }
        let told = engine.gather_bytes(&found).map_err(of_rank)?;
        if let Some(problem) = problem {
            return Err(problem);
        }
        let Some(step) = told[0].as_slice().try_into().ok().map(u64::from_le_bytes) else { return Ok(None) };
        let checkpoint = self.checkpoints.checkpoint(step).map_err(failed)?;
        // It need not be written again.
        self.begun = Some(step);
        self.load(engine, &checkpoint).map(Some)
    }

    fn newest<W: Write>(&self, report: &mut Report<W>) -> Result<Option<u64>, Error> {
        self.checkpoints.clean().map_err(failed)?;
        let intact = self.checkpoints.latest_intact().map_err(failed)?;
        for (step, damage) in &intact.damaged {
            report.damaged(*step, damage)?;
        }
        Ok(intact.checkpoint.map(|checkpoint| checkpoint.step()))
    }

    fn load(&self, engine: &mut Engine<impl Library>, checkpoint: &Checkpoint) -> Result<Cursor, Error> {
        let state = checkpoint.state();
        if state["model"] != self.model {
            let message = format!(
                "the checkpoint of step {} is of another model, {}, not of {}: choose another --checkpoint",
                checkpoint.step(),
                state["model"],
                self.model
            );
            return Err(Error::Checkpoint { message });
        }
        let cursor: [u64; 2] = serde_json::from_value(state["cursor"].clone()).map_err(failed)?;
        let of_rank = Error::of_rank(engine.rank());
        engine.restore(checkpoint.step(), of_rank, |parameter, quantity, range, target| {
            fill(checkpoint, parameter, quantity, range, target)
        })?;
        Ok(Cursor::from_words(cursor))
    }

    /// Begins to save after a step that is due, or after any when `at_once`.
    pub(super) fn begin(
        &mut self,
        engine: &mut Engine<impl Library>,
        cursor: Cursor,
        at_once: bool,
    ) -> Result<(), Error> {
        let step = engine.steps();
        let is_due = at_once || step.is_multiple_of(self.every);
        if self.running.is_some() || !is_due || self.begun == Some(step) {
            return Ok(());
        }
        let of_rank = Error::of_rank(engine.rank());
        let _copy = engine.recorder().span(Track::Compute, "copy checkpoint", Detail::Step(step));
        let pieces = engine.pieces().map_err(of_rank)?;
        let save = save(&mut self.saver, step, &pieces);
        let state = json!({ "model": self.model, "cursor": cursor.to_words() });
        self.running = Some(Running { save, state });
        self.begun = Some(step);
        Ok(())
    }

    /// Whether nothing of this rank is still being written.
    pub(super) fn is_written(&self) -> bool {
        match &self.running {
            Some(Running { save: Ok(save), .. }) => !matches!(save.poll(), Ok(None)),
            _ => true,
        }
    }

    /// Commits what has been written. All ranks call it, once it [is written](Self::is_written) on all; `wait` waits for it.
    /// Gives the step on rank 0.
    pub(super) fn commit(
        &mut self,
        engine: &mut Engine<impl Library>,
        wait: bool,
    ) -> Result<Option<u64>, Error> {
        let Some(Running { save, state }) = self.running.take() else { return Ok(None) };
        let patience = if wait { PATIENCE } else { Duration::ZERO };
        let receipt = save.and_then(|save| save.wait(patience).map_err(failed));
        // A rank that failed says so by saying nothing, and no rank commits.
        let written = receipt.as_ref().ok().and_then(|receipt| serde_json::to_vec(receipt).ok());
        let all = engine.gather_bytes(&written.unwrap_or_default()).map_err(Error::of_rank(engine.rank()))?;
        receipt?;
        if let Some(rank) = all.iter().position(Vec::is_empty) {
            let message = format!("rank {rank} could not write its part");
            return Err(Error::Checkpoint { message });
        }
        if engine.rank() != 0 {
            return Ok(None);
        }
        let receipts: Result<Vec<ShardReceipt>, _> =
            all.iter().map(|bytes| serde_json::from_slice(bytes)).collect();
        let checkpoint = self.checkpoints.commit(&receipts.map_err(failed)?, state).map_err(failed)?;
        self.checkpoints.retain(&self.retention).map_err(failed)?;
        Ok(Some(checkpoint.step()))
    }
}

/// Copies this rank's part and begins to write it.
fn save(saver: &mut Saver, step: u64, pieces: &[Piece<'_>]) -> Result<Save, Error> {
    let mut tensors = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let shape: Vec<u64> = piece.parameter.shape.iter().map(|size| *size as u64).collect();
        let name = piece.quantity.name(&piece.parameter.name);
        tensors.push(Tensor::new(&name, DataType::F32, shape).map_err(failed)?);
    }
    let mut shard = Shard::new();
    for (piece, tensor) in pieces.iter().zip(&tensors) {
        let range = piece.range.start as u64..piece.range.end as u64;
        shard.add(tensor, range, bytemuck::cast_slice(piece.values)).map_err(failed)?;
    }
    saver.begin(step, &shard).map_err(failed)
}

/// Reads elements of a parameter's quantity.
fn fill(
    checkpoint: &Checkpoint,
    parameter: &Parameter,
    quantity: Quantity,
    range: Range<usize>,
    target: &mut [f32],
) -> Result<(), Error> {
    let tensor = quantity.name(&parameter.name);
    let range = range.start as u64..range.end as u64;
    let bytes = bytemuck::cast_slice_mut(target);
    checkpoint.load(&mut [Request { tensor: &tensor, range, bytes }]).map_err(failed)
}
