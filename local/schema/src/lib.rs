//! Kubernetes object schemas: built-in and custom types, strict decoding, protobuf, patches,
//! server-side apply and CEL. Pure: data in, data out.

pub mod apply;
pub mod catalogue;
pub mod cel;
pub mod decode;
pub mod field;
pub mod model;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod strategic;
pub mod structural;

pub use model::{Constraints, ListKind, Rule, Schema, SchemaRef, Type};
