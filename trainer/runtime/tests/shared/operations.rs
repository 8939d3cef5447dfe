//! The operations of a tensor library: their gradients are the slopes of what they compute.

use muster_trainer_runtime::tensor::{Error, Library};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestCaseResult, TestRunner};

/// An operation on leaves of given shapes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Reshape,
    Add,
    AddToEach,
    Linear,
    LinearWithoutBias,
    Relu,
    Gelu,
    LayerNorm,
    Attention,
    CausalAttention,
    Embedding,
    Convolution,
    MaxPool,
    Patches,
    MeanOverTime,
    CrossEntropy,
}

impl Operation {
    pub(crate) const ALL: [Self; 16] = [
        Self::Reshape,
        Self::Add,
        Self::AddToEach,
        Self::Linear,
        Self::LinearWithoutBias,
        Self::Relu,
        Self::Gelu,
        Self::LayerNorm,
        Self::Attention,
        Self::CausalAttention,
        Self::Embedding,
        Self::Convolution,
        Self::MaxPool,
        Self::Patches,
        Self::MeanOverTime,
        Self::CrossEntropy,
    ];

    /// The shapes of its leaves.
    pub(crate) fn shapes(self) -> &'static [&'static [usize]] {
        match self {
            Self::Reshape | Self::Relu | Self::Gelu | Self::MeanOverTime => &[&[2, 3, 4]],
            Self::Add => &[&[2, 3, 4], &[2, 3, 4]],
            Self::AddToEach => &[&[2, 3, 4], &[3, 4]],
            Self::Linear => &[&[2, 3, 4], &[5, 4], &[5]],
            Self::LinearWithoutBias => &[&[3, 4], &[5, 4]],
            Self::LayerNorm => &[&[2, 3, 8], &[8], &[8]],
            Self::Attention | Self::CausalAttention => &[&[2, 3, 4], &[2, 3, 4], &[2, 3, 4]],
            Self::Embedding => &[&[5, 3]],
            Self::Convolution => &[&[2, 2, 4, 3], &[3, 2, 3, 3], &[3]],
            Self::MaxPool => &[&[2, 2, 5, 4]],
            Self::Patches => &[&[2, 3, 4, 6]],
            Self::CrossEntropy => &[&[2, 3, 5]],
        }
    }

    pub(crate) fn run<L: Library>(self, library: &L, leaves: &[L::Tensor]) -> Result<L::Tensor, Error> {
        let x = &leaves[0];
        match self {
            Self::Reshape => library.reshape(x, &[4, 6]),
            Self::Add => library.add(x, &leaves[1]),
            Self::AddToEach => library.add_to_each(x, &leaves[1]),
            Self::Linear => library.linear(x, &leaves[1], Some(&leaves[2])),
            Self::LinearWithoutBias => library.linear(x, &leaves[1], None),
            Self::Relu => library.relu(x),
            Self::Gelu => library.gelu(x),
            Self::LayerNorm => library.layer_norm(x, &leaves[1], &leaves[2]),
            Self::Attention => library.attention(x, &leaves[1], &leaves[2], 2, false),
            Self::CausalAttention => library.attention(x, &leaves[1], &leaves[2], 2, true),
            Self::Embedding => library.embedding(x, &[4, 0, 4, 1, 2, 0], [2, 3]),
            Self::Convolution => library.convolution(x, &leaves[1], &leaves[2]),
            Self::MaxPool => library.max_pool(x, 2),
            Self::Patches => library.patches(x, 2),
            Self::MeanOverTime => library.mean_over_time(x),
            Self::CrossEntropy => library.cross_entropy(x, &[0, 4, 2, 2, 1, 0]),
        }
    }

    /// How far a value may be moved to see its slope: no element may pass another, or zero, on the way.
    const NUDGE: f32 = 1e-2;

    /// Values for its leaves, from random ones: spread where the operation has kinks.
    pub(crate) fn values(self, random: &[f32]) -> Vec<Vec<f32>> {
        let mut random = random.iter().copied().cycle();
        let mut take = |count: usize| random.by_ref().take(count).collect::<Vec<f32>>();
        let mut values: Vec<Vec<f32>> =
            self.shapes().iter().map(|shape| take(shape.iter().product())).collect();
        match self {
            Self::Relu => values[0].iter_mut().for_each(|x| *x += (5.0 * Self::NUDGE).copysign(*x)),
            Self::MaxPool => {
                let mut places: Vec<usize> = (0..values[0].len()).collect();
                places.sort_unstable_by(|left, right| values[0][*left].total_cmp(&values[0][*right]));
                for (order, place) in places.into_iter().enumerate() {
                    values[0][place] = order as f32 * 5.0 * Self::NUDGE;
                }
            }
            _ => {}
        }
        values
    }
}

/// What an operation gives: its result, and its gradients, for a seed taken from `random`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Given {
    pub(crate) shape: Vec<usize>,
    pub(crate) result: Vec<f32>,
    pub(crate) seed: Vec<f32>,
    pub(crate) gradients: Vec<Vec<f32>>,
}

fn read<L: Library>(library: &L, tensor: &L::Tensor) -> Result<Vec<f32>, Error> {
    let mut values = vec![0.0; library.shape(tensor).iter().product()];
    library.read(tensor, &mut values)?;
    Ok(values)
}

fn leaves<L: Library>(
    library: &L,
    operation: Operation,
    values: &[Vec<f32>],
) -> Result<Vec<L::Tensor>, Error> {
    operation.shapes().iter().zip(values).map(|(shape, values)| library.leaf(values, shape)).collect()
}

pub(crate) fn given<L: Library>(
    library: &L,
    operation: Operation,
    values: &[Vec<f32>],
    random: &[f32],
) -> Result<Given, Error> {
    let leaves = leaves(library, operation, values)?;
    let output = operation.run(library, &leaves)?;
    let shape = library.shape(&output);
    let result = read(library, &output)?;
    let seed: Vec<f32> = random.iter().rev().copied().cycle().take(result.len()).collect();
    let weights = library.constant(&seed, &shape)?;
    let gradients = library.gradients(&output, Some(&weights), &leaves.iter().collect::<Vec<_>>())?;
    let read = |gradient: Option<L::Tensor>| {
        read(library, &gradient.ok_or_else(|| Error::NoGradient(format!("{operation:?}")))?)
    };
    Ok(Given { shape, result, seed, gradients: gradients.into_iter().map(read).collect::<Result<_, _>>()? })
}

/// Calls `check` with an operation, values for its leaves and random numbers, many times.
pub(crate) fn for_many(check: impl Fn(Operation, &[Vec<f32>], &[f32]) -> TestCaseResult) {
    for operation in Operation::ALL {
        let mut runner = TestRunner::new(Config { cases: 8, failure_persistence: None, ..Config::default() });
        let random = proptest::collection::vec(-2.0_f32..2.0, 97);
        runner
            .run(&random, |random| check(operation, &operation.values(&random), &random))
            .unwrap_or_else(|error| panic!("{operation:?}: {error}"));
    }
}

/// Gradients are the slopes of the weighted sum of the results, in every direction.
pub(crate) fn have_their_gradients<L: Library>(library: &L) {
    let fail = |error: Error| TestCaseError::fail(error.to_string());
    for_many(|operation, values, random| {
        let given = given(library, operation, values, random).map_err(fail)?;
        let sum = |values: &[Vec<f32>]| -> Result<f64, Error> {
            let output = operation.run(library, &leaves(library, operation, values)?)?;
            let terms = read(library, &output)?.into_iter().zip(&given.seed);
            Ok(terms.map(|(value, weight)| f64::from(value) * f64::from(*weight)).sum())
        };
        for (leaf, gradient) in given.gradients.iter().enumerate() {
            for (place, gradient) in gradient.iter().enumerate() {
                let moved = |nudge: f32| {
                    let mut values = values.to_vec();
                    values[leaf][place] += nudge;
                    sum(&values).map_err(fail)
                };
                let nudge = Operation::NUDGE;
                let slope = ((moved(nudge)? - moved(-nudge)?) / (2.0 * f64::from(nudge))) as f32;
                prop_assert!(
                    (slope - gradient).abs() < 2e-2 * (1.0 + slope.abs()),
                    "leaf {leaf} at {place}: slope {slope}, gradient {gradient}"
                );
            }
        }
        Ok(())
    });
}

/// Shapes, labels and indices that do not fit are errors.
pub(crate) fn refuse_what_does_not_fit<L: Library>(library: &L) {
    let of = |shape: &[usize]| library.leaf(&vec![0.5; shape.iter().product()], shape).unwrap();
    let (x, row, table) = (of(&[2, 3, 4]), of(&[5]), of(&[5, 4]));
    let image = of(&[1, 2, 4, 4]);
    let refused: Vec<(&str, bool)> = vec![
        ("constant", library.constant(&[0.0; 5], &[2, 3]).is_err()),
        ("leaf", library.leaf(&[0.0; 7], &[2, 3]).is_err()),
        ("read fewer", library.read(&x, &mut [0.0; 23]).is_err()),
        ("read more", library.read(&x, &mut [0.0; 25]).is_err()),
        ("reshape", library.reshape(&x, &[5, 5]).is_err()),
        ("add", library.add(&x, &of(&[3, 4])).is_err()),
        ("add_to_each", library.add_to_each(&x, &row).is_err()),
        ("linear", library.linear(&x, &of(&[5, 3]), None).is_err()),
        ("linear bias", library.linear(&x, &table, Some(&of(&[4]))).is_err()),
        ("layer_norm", library.layer_norm(&x, &row, &row).is_err()),
        ("attention", library.attention(&x, &x, &of(&[2, 2, 4]), 2, false).is_err()),
        ("causal attention", library.attention(&x, &of(&[2, 2, 4]), &of(&[2, 2, 4]), 2, true).is_err()),
        ("fewer values", library.attention(&x, &x, &of(&[2, 2, 4]), 2, true).is_err()),
        ("heads", library.attention(&x, &x, &x, 3, false).is_err()),
        ("embedding", library.embedding(&table, &[5], [1, 1]).is_err()),
        ("embedding shape", library.embedding(&table, &[1, 2], [1, 3]).is_err()),
        ("convolution", library.convolution(&image, &of(&[3, 1, 3, 3]), &of(&[3])).is_err()),
        ("patches", library.patches(&image, 3).is_err()),
        ("labels", library.cross_entropy(&x, &[0; 5]).is_err()),
        ("no labels", library.cross_entropy(&x, &[]).is_err()),
        ("classes", library.correct(&x, &[0, 0, 0, 0, 0, 4]).is_err()),
        ("seed", library.gradients(&x, Some(&row), &[&x]).is_err()),
    ];
    for (operation, is_refused) in refused {
        assert!(is_refused, "{operation} took what does not fit");
    }
}

/// A leaf that does not take part has no gradient, nor has what lies before a cut; of equal scores the first counts.
pub(crate) fn give_gradients_at_leaves_alone<L: Library>(library: &L) {
    let leaf = |values: &[f32]| library.leaf(values, &[values.len()]).unwrap();
    let (x, other) = (leaf(&[1.0, -2.0]), leaf(&[3.0]));
    let double = library.add(&x, &x).unwrap();
    let cut = library.cut(&double).unwrap();
    let output = library.add(&cut, &cut).unwrap();
    let seed = library.constant(&[1.0, 10.0], &[2]).unwrap();
    let gradients = library.gradients(&output, Some(&seed), &[&x, &other, &cut]).unwrap();
    assert!(gradients[0].is_none() && gradients[1].is_none());
    let at_cut = gradients[2].as_ref().unwrap();
    assert_eq!(read(library, at_cut).unwrap(), [2.0, 20.0]);
    let gradients = library.gradients(&double, Some(at_cut), &[&x]).unwrap();
    assert_eq!(read(library, gradients[0].as_ref().unwrap()).unwrap(), [4.0, 40.0]);
    let constant = library.constant(&[1.0], &[1]).unwrap();
    assert!(library.gradients(&constant, None, &[&x]).unwrap()[0].is_none());

    let scores = library.constant(&[1.0, 1.0, 0.0, 0.0, 2.0, 2.0], &[2, 3]).unwrap();
    let correct = |labels: &[u32]| library.correct(&scores, labels).unwrap();
    assert_eq!([correct(&[0, 1]), correct(&[1, 1]), correct(&[1, 2])], [2, 1, 0]);
}
