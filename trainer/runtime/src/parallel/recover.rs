//! Going on after ranks were lost: the same training in another group.

use std::time::Duration;

use muster_collectives::Communicator;

use super::layout::Unit;
use super::mirror::{self, History, Offer, Part, Plan};
use super::parameters::Parameters;
use super::state::Quantity;
use super::{Engine, Error, Sharding, declared, layout};
use crate::optimizer::Moments;
use crate::tensor::Library;

impl<L: Library> Engine<L> {
    /// Goes over to the group that `form` makes out of the one that has failed or is to change, which is there unless its
    /// thread broke: of the ranks that are left ([`Communicator::rebuild`]), or of all ranks once lost ones have been
    /// started again ([`Communicator::connect`]).
    ///
    /// This rank's state goes along; [`agree`](Self::agree) must follow, before anything else. If that fails because
    /// another rank is lost, this may be called again.
    ///
    /// # Errors
    /// What `form` says, and [`Error::Gone`] where state is in shares without copies.
    pub fn regroup<E: From<Error>>(
        self,
        form: impl FnOnce(Option<Communicator>) -> Result<Communicator, E>,
    ) -> Result<Self, E> {
        let Self {
            library,
            model,
            options,
            group,
            units,
            parameters,
            moments,
            mirror,
            history,
            step,
            waited,
            ..
        } = self;
        if options.sharding != Sharding::None && mirror.is_none() {
            return Err(Error::Gone.into());
        }
        let (rank, ranks, waited) = (group.rank(), group.world_size(), waited + group.waited());
        let recorder = group.recorder().clone();
        let communicator = form(group.disband())?;
        let mut engine = match parameters {
            Parameters::Replicated(values) => {
                let mut values = values.into_iter();
                let next = |unit: &Unit| refitted(values.next().unwrap_or_default(), unit);
                let mut engine = Self::form(library, model, communicator, options, next)?;
                for ((kept, moments), unit) in engine.moments.iter_mut().zip(moments).zip(&engine.units) {
                    let Moments { first, second } = moments;
                    *kept = Moments { first: refitted(first, unit), second: refitted(second, unit) };
                }
                engine.step = step;
                engine
            }
            // All of it is taken over from what the ranks bring along.
            _ => Self::form(library, model, communicator, options, |unit| vec![0.0; unit.padded])?,
        };
        engine.waited = waited;
        engine.record(recorder);
        // A group that never agreed has nothing newer.
        engine.history = history.or_else(|| {
            let (own, before) = mirror?.into_parts();
            // A rank that is new itself brings nothing.
            (!own.is_empty()).then_some(History { rank, ranks, units, own, before })
        });
        Ok(engine)
    }

    /// Brings this rank to the state of those that are further; `cursor` is what the caller knows of the place in its data.
    /// Ranks may be one step apart; what was computed of a step that failed is lost. A collective call of all ranks that are
    /// new or have been [regrouped](Self::regroup); gives the steps that the training has taken.
    ///
    /// # Errors
    /// [`Error::Gone`] if a rank was lost together with the one that had the copy of its share. After the loss of another
    /// rank this one still has all that it brought along.
    pub fn agree(&mut self, cursor: &mut [u64; 2]) -> Result<u64, Error> {
        if self.options.sharding != Sharding::None {
            let history = self.history.take();
            let adopted = self.adopt(history.as_ref(), cursor);
            if adopted.is_err() {
                self.history = history;
            }
            return adopted.map(|()| self.step);
        }
        let standings = [self.step, cursor[0], cursor[1]].map(|number| self.group.gather(number));
        let [steps, first, second] = standings;
        let (steps, first, second) = (steps?, first?, second?);
        let standing = |rank: usize| (steps[rank], first[rank], second[rank]);
        let source = (0..steps.len()).rev().max_by_key(|rank| standing(*rank)).unwrap_or_default();
        let furthest = steps[source];
        if steps.iter().any(|step| *step != furthest) {
            self.take_from(source)?;
        }
        self.step = furthest;
        *cursor = [first[source], second[source]];
        Ok(furthest)
    }

    /// Takes the whole state of another rank, or nothing of it.
    fn take_from(&mut self, source: usize) -> Result<(), Error> {
        let Parameters::Replicated(units) = &mut self.parameters else { return Ok(()) };
        let mut taken = Vec::with_capacity(units.len());
        for (values, Moments { first, second }) in units.iter().zip(&self.moments) {
            taken.push((
                self.group.broadcast(values.clone(), source)?,
                self.group.broadcast(first.clone(), source)?,
                self.group.broadcast(second.clone(), source)?,
            ));
        }
        for ((values, moments), (value, first, second)) in units.iter_mut().zip(&mut self.moments).zip(taken)
        {
            *values = value;
            *moments = Moments { first, second };
        }
        Ok(())
    }

    /// Waits until every rank is between the same two steps, with copies of shares passed on, and tells who of them
    /// `leaves` now: of ranks that pass on to each other, the last only, so that no share goes with its copy. A collective
    /// call of all ranks.
    pub fn leaving(&mut self, wants_to: bool) -> Result<Vec<bool>, Error> {
        let wanting = self.group.gather(u64::from(wants_to))?;
        let ranks = wanting.len();
        let shares = self.options.sharding != Sharding::None;
        let leaves = |rank: usize| wanting[rank] > 0 && !(shares && wanting[(rank + 1) % ranks] > 0);
        let all = wanting.iter().all(|wants_to| *wants_to > 0);
        Ok((0..ranks).map(|rank| all || leaves(rank)).collect())
    }

    /// Passes a copy of this rank's share to the next rank, where the options ask for it; `cursor` is the caller's place in
    /// its data. To be called by all ranks once the state is set up, and after every step.
    pub fn mirror(&mut self, cursor: [u64; 2]) -> Result<(), Error> {
        if self.mirror.is_none() {
            return Ok(());
        }
        let mut values = Vec::new();
        for index in 0..self.units.len() {
            let owned = self.owned(index);
            values.extend_from_slice(self.parameters.owned(&mut self.group, index, &owned)?);
            values.extend_from_slice(&self.moments[index].first);
            values.extend_from_slice(&self.moments[index].second);
        }
        let part = Part { step: self.step, cursor, values };
        let group = &self.group;
        if let Some(mirror) = &mut self.mirror {
            mirror.pass(part, |part| group.submit(move |shards| mirror::exchange(shards, &part)));
        }
        Ok(())
    }

    /// Takes over the newest state of which the ranks have all parts; nothing if none brings any.
    fn adopt(&mut self, history: Option<&History>, cursor: &mut [u64; 2]) -> Result<(), Error> {
        let broken =
            |error: serde_json::Error| Error::Options(format!("ranks do not understand each other: {error}"));
        let offer = history.map(History::offer).unwrap_or_default();
        let offers = self.group.gather_bytes(&serde_json::to_vec(&offer).map_err(broken)?)?;
        let offers: Result<Vec<Offer>, _> =
            offers.iter().map(|offer| serde_json::from_slice(offer)).collect();
        let offers = offers.map_err(broken)?;
        if offers.iter().all(|offer| *offer == Offer::default()) {
            return Ok(());
        }
        let Plan { step, cursor: place, holders } = mirror::plan(&offers).ok_or(Error::Gone)?;
        let parts = holders.len();
        let old = layout::units(&declared(&self.model), self.options.smallest_unit, parts);
        for (index, unit) in old.iter().enumerate() {
            let mut whole = vec![Vec::with_capacity(unit.padded); Quantity::ALL.len()];
            for (part, holder) in holders.iter().enumerate() {
                let held = history.and_then(|history| history.values(part, step, index));
                let size = unit.padded / parts;
                let values = held.map_or_else(|| vec![0.0; Quantity::ALL.len() * size], <[f32]>::to_vec);
                let values = self.group.broadcast(values, *holder)?;
                whole.iter_mut().zip(values.chunks_exact(size)).for_each(|(whole, part)| whole.extend(part));
            }
            self.take_over(index, whole)?;
        }
        self.step = step;
        *cursor = place;
        Ok(())
    }

    /// Sets a unit to whole vectors of its quantities, which may be filled up for another number of ranks.
    fn take_over(&mut self, index: usize, whole: Vec<Vec<f32>>) -> Result<(), Error> {
        let unit = &self.units[index];
        let part = unit.part(self.group.shard(), self.group.shards());
        for (quantity, values) in Quantity::ALL.into_iter().zip(whole) {
            let values = refitted(values, unit);
            match quantity {
                Quantity::Value => {
                    let target = self.parameters.held_mut(index)?;
                    let held = if target.len() == values.len() { &values[..] } else { &values[part.clone()] };
                    target.copy_from_slice(held);
                }
                Quantity::FirstMoment => self.moments[index].first.copy_from_slice(&values[part.clone()]),
                Quantity::SecondMoment => self.moments[index].second.copy_from_slice(&values[part.clone()]),
            }
        }
        Ok(())
    }

    /// Time that this rank has waited for collectives that its computation did not hide.
    pub fn exposed_communication(&self) -> Duration {
        self.waited + self.group.waited()
    }
}

/// The values of a unit, filled up as another number of ranks needs it.
fn refitted(mut values: Vec<f32>, unit: &Unit) -> Vec<f32> {
    values.truncate(unit.count);
    values.resize(unit.padded, 0.0);
    values
}
