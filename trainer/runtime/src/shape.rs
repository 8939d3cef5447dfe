//! The model that the options and the data describe.

use serde_json::{Value, json};

use crate::arguments::{Arguments, ModelKind, Shape};
use crate::data::{Dataset, Table};
use crate::error::Error;
use crate::model::{Cnn, Gpt, Mlp, Model, Vit};
use crate::tensor::Library;

/// A model that can be built on any tensor library.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Described {
    Mlp(Mlp),
    Cnn(Cnn),
    Vit(Vit),
    Gpt(Gpt),
}

impl Described {
    /// The model, or which options do not fit each other or the data.
    pub(crate) fn new(arguments: &Arguments, data: &Dataset) -> Result<Self, Error> {
        let Shape { hidden, channels, patch, width, depth, heads, context, .. } = arguments.shape.clone();
        let wrong = |message: String| Err(Error::Model { message });
        if matches!(arguments.model, ModelKind::Vit | ModelKind::Gpt) && !width.is_multiple_of(heads) {
            return wrong(format!("--heads {heads} does not divide --width {width}"));
        }
        match (arguments.model, data) {
            (ModelKind::Mlp, Dataset::Table(table)) => {
                let sizes =
                    std::iter::once(table.width()).chain(hidden).chain([table.classes.len()]).collect();
                Ok(Self::Mlp(Mlp { sizes }))
            }
            (ModelKind::Cnn, Dataset::Table(table)) => {
                let image = image(arguments, table)?;
                let stages = channels.len() as u32;
                if image[1..].iter().any(|side| side.checked_shr(stages).unwrap_or(0) == 0) {
                    let [_, height, width] = image;
                    return wrong(format!(
                        "{stages} stages of --channels leave nothing of {height} x {width} pixels"
                    ));
                }
                Ok(Self::Cnn(Cnn { image, channels, classes: table.classes.len() }))
            }
            (ModelKind::Vit, Dataset::Table(table)) => {
                let image = image(arguments, table)?;
                if image[1..].iter().any(|side| !side.is_multiple_of(patch)) {
                    let [_, height, width] = image;
                    return wrong(format!("--patch {patch} does not divide {height} x {width} pixels"));
                }
                Ok(Self::Vit(Vit { image, patch, width, depth, heads, classes: table.classes.len() }))
            }
            (ModelKind::Gpt, Dataset::Tokens(tokens)) => {
                Ok(Self::Gpt(Gpt { vocabulary: tokens.vocabulary(), context, width, depth, heads }))
            }
            (kind, _) => wrong(format!("{kind:?} does not take this kind of data")),
        }
    }

    /// The shape of one sample: of a table's row, or the length of a sequence.
    pub(crate) fn sample(&self) -> Vec<usize> {
        match self {
            Self::Mlp(mlp) => vec![mlp.sizes[0]],
            Self::Cnn(Cnn { image, .. }) | Self::Vit(Vit { image, .. }) => image.to_vec(),
            Self::Gpt(gpt) => vec![gpt.context],
        }
    }

    /// Labels of one sample.
    pub(crate) fn labels(&self) -> usize {
        match self {
            Self::Gpt(gpt) => gpt.context,
            Self::Mlp(_) | Self::Cnn(_) | Self::Vit(_) => 1,
        }
    }

    pub(crate) fn build<L: Library>(&self) -> Model<L> {
        match self {
            Self::Mlp(mlp) => mlp.build(),
            Self::Cnn(cnn) => cnn.build(),
            Self::Vit(vit) => vit.build(),
            Self::Gpt(gpt) => gpt.build(),
        }
    }

    /// What a program needs to know to build the model again.
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Mlp(Mlp { sizes }) => json!({ "kind": "mlp", "sizes": sizes }),
            Self::Cnn(Cnn { image, channels, classes }) => {
                json!({ "kind": "cnn", "image": image, "channels": channels, "classes": classes })
            }
            Self::Vit(Vit { image, patch, width, depth, heads, classes }) => json!({
                "kind": "vit", "image": image, "patch": patch, "width": width, "depth": depth, "heads": heads,
                "classes": classes,
            }),
            Self::Gpt(Gpt { vocabulary, context, width, depth, heads }) => json!({
                "kind": "gpt", "vocabulary": vocabulary, "context": context, "width": width, "depth": depth,
                "heads": heads,
            }),
        }
    }
}

fn image(arguments: &Arguments, table: &Table) -> Result<[usize; 3], Error> {
    let Some(image) = arguments.shape.image.or(table.shape) else {
        let message = "say with --image how the columns make an image, such as 1x8x8".to_owned();
        return Err(Error::Model { message });
    };
    if image.iter().product::<usize>() == table.width() {
        return Ok(image);
    }
    let [channels, height, width] = image;
    let message =
        format!("--image {channels}x{height}x{width} does not fit samples of {} values", table.width());
    Err(Error::Model { message })
}
