//! A pass over the units, forward and back.

use super::{BatchOutcome, Engine, Error};
use crate::model::{Feed, Input};
use crate::observe::{Detail, Track};
use crate::tensor::{self, Library};

/// What a unit leaves behind for its gradients.
struct Kept<L: Library> {
    /// What entered it, as a leaf; the first unit takes the samples.
    entered: Option<L::Tensor>,
    /// Its parameters and what it gave, unless that is computed anew.
    computed: Option<Computed<L>>,
}

struct Computed<L: Library> {
    parameters: Vec<L::Tensor>,
    output: L::Tensor,
}

/// Adds the gradients of a batch.
pub(super) fn accumulate<L: Library>(
    engine: &mut Engine<L>,
    input: Input<'_>,
    labels: &[u32],
    is_last: bool,
) -> Result<BatchOutcome, Error> {
    let recompute = engine.recomputes();
    let count = engine.units.len();
    engine.gradients.begin_batch();
    let library = engine.library.clone();
    let mut kept: Vec<Kept<L>> = Vec::with_capacity(count);
    let mut x = None;
    for index in 0..count {
        let entered = x.take().map(|x| library.cut(&x)).transpose()?;
        let computed = run(engine, index, input, entered.as_ref(), following(index, count))?;
        x = Some(computed.output.clone());
        // The gradients of the last unit are next.
        let keep = !recompute || index + 1 == count;
        kept.push(Kept { entered, computed: keep.then_some(computed) });
    }
    let scores = x.ok_or_else(|| Error::Options("a model without blocks gives no scores".into()))?;
    let recorder = engine.recorder().clone();
    let scoring = recorder.span(Track::Compute, "loss", Detail::None);
    let (loss, outcome) = score(&library, &scores, labels)?;
    drop(scoring);

    let mut seed = None;
    for (index, Kept { entered, computed }) in kept.into_iter().enumerate().rev() {
        let computed = match computed {
            Some(computed) => computed,
            None => run(engine, index, input, entered.as_ref(), index.checked_sub(1))?,
        };
        let _backward = recorder.span(Track::Compute, "backward", Detail::Unit(index));
        if recompute && index + 1 == count && index > 0 {
            engine.parameters.prefetch(&engine.group, &engine.units, index - 1)?;
        }
        let output = if index + 1 == count { &loss } else { &computed.output };
        let leaves: Vec<&L::Tensor> = computed.parameters.iter().chain(entered.as_ref()).collect();
        let mut gradients = library.gradients(output, seed.as_ref(), &leaves)?;
        seed = if entered.is_some() { gradients.pop().flatten() } else { None };
        let unit = &engine.units[index];
        // A library can drop gradients without a word where an operation lacks its backward, so each is demanded.
        let missing = |name: &str| tensor::Error::NoGradient(name.to_owned());
        if index > 0 && seed.is_none() {
            return Err(missing(&format!("what enters block {}", unit.blocks.start)).into());
        }
        let named = unit.parameters.iter().zip(&gradients);
        if let Some(((parameter, _), _)) = named.into_iter().find(|(_, gradient)| gradient.is_none()) {
            return Err(missing(&parameter.name).into());
        }
        let read = |number: usize, target: &mut [f32]| match &gradients[number] {
            Some(gradient) => Ok(library.read(gradient, target)?),
            None => Err(missing("of an unknown place").into()),
        };
        engine.gradients.hand_over(&mut engine.group, &engine.units, index, is_last, read)?;
    }
    Ok(outcome)
}

/// Computes the loss of a batch, and nothing else.
pub(super) fn evaluate<L: Library>(
    engine: &mut Engine<L>,
    input: Input<'_>,
    labels: &[u32],
) -> Result<BatchOutcome, Error> {
    let library = engine.library.clone();
    let mut x: Option<L::Tensor> = None;
    let count = engine.units.len();
    for index in 0..count {
        let entered = x.take().map(|x| library.cut(&x)).transpose()?;
        x = Some(run(engine, index, input, entered.as_ref(), following(index, count))?.output);
    }
    let scores = x.ok_or_else(|| Error::Options("a model without blocks gives no scores".into()))?;
    Ok(score(&library, &scores, labels)?.1)
}

/// The loss of scores, to be followed back, and what it and they come to.
fn score<L: Library>(
    library: &L,
    scores: &L::Tensor,
    labels: &[u32],
) -> Result<(L::Tensor, BatchOutcome), tensor::Error> {
    let loss = library.cross_entropy(scores, labels)?;
    let mut value = [0.0];
    library.read(&loss, &mut value)?;
    Ok((loss, BatchOutcome { loss: value[0], correct: library.correct(scores, labels)? }))
}

fn following(index: usize, count: usize) -> Option<usize> {
    Some(index + 1).filter(|next| *next < count)
}

/// Computes one unit, while the parameters of the `next` are gathered.
fn run<L: Library>(
    engine: &mut Engine<L>,
    index: usize,
    input: Input<'_>,
    entered: Option<&L::Tensor>,
    next: Option<usize>,
) -> Result<Computed<L>, Error> {
    let Engine { library, model, group, units, parameters, .. } = engine;
    let _forward = group.recorder().span(Track::Compute, "forward", Detail::Unit(index));
    let unit = &units[index];
    let leaves = parameters.with_whole(group, units, index, |values| {
        let leaf = |(parameter, place): &(crate::model::Parameter, std::ops::Range<usize>)| {
            library.leaf(&values[place.clone()], &parameter.shape)
        };
        unit.parameters.iter().map(leaf).collect::<Result<Vec<L::Tensor>, tensor::Error>>()
    })??;
    if let Some(next) = next {
        parameters.prefetch(group, units, next)?;
    }
    let mut x = entered.cloned();
    let mut rest = &leaves[..];
    for (block, count) in model.blocks()[unit.blocks.clone()].iter().zip(&unit.per_block) {
        let (own, others) = rest.split_at(*count);
        rest = others;
        let feed = match &x {
            Some(x) => Feed::Tensor(x),
            None => Feed::Input(input),
        };
        x = Some(block.forward(library, own, feed)?);
    }
    let output = x.ok_or_else(|| Error::Options("a unit without blocks gives nothing".into()))?;
    Ok(Computed { parameters: leaves, output })
}
