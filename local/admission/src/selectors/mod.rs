//! Label and field selectors, as the query parameters and the `selector` fields carry them.

mod fields;
mod labels;

pub use fields::{FieldSelector, FieldSelectorError, FieldTerm};
pub use labels::{LabelSelector, LabelSelectorError, Operator, Requirement};
