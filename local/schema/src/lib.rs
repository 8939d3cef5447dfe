//! Kubernetes object schemas: built-in and custom types, strict decoding, protobuf, patches,
//! server-side apply and CEL. Pure: data in, data out.
//!
//! One type, [`Schema`], describes built-in kinds and custom resources alike.
//!
//! | module | for |
//! |---|---|
//! | [`catalogue`] | the built-in kinds of Kubernetes 1.36 by name and by kind |
//! | [`decode`] | request bodies in JSON and YAML: duplicate and unknown fields, wrong types, pruning |
//! | [`protobuf`] | request bodies in protobuf, as kubectl sends them |
//! | [`strategic`] and [`patch`] | strategic merge, merge and JSON patches |
//! | [`apply`] | server-side apply and managed fields |
//! | [`structural`] and [`cel`] | schemas of custom resources and their rules |
//! | [`openapi`] | the documents below `/openapi/v3` |

pub mod apply;
pub mod catalogue;
pub mod cel;
pub mod decode;
pub mod field;
pub mod model;
pub mod openapi;
pub mod patch;
mod pattern;
pub mod protobuf;
pub mod strategic;
pub mod structural;

pub use model::{Constraints, ListKind, Rule, Schema, SchemaRef, Type};
pub use pattern::Pattern;
