//! Kubernetes object schemas: built-in and custom types, strict decoding, protobuf, patches,
//! server-side apply and CEL. Pure: data in, data out.

pub mod model;

pub use model::{Constraints, ListKind, Rule, Schema, SchemaRef, Type};
