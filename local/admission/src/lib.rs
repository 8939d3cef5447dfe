//! Defaults, preparation, validation, printed columns, selectors and quota of the built-in Kubernetes kinds, as pure
//! functions over `serde_json::Value`: no clock, no IO. Kinds that this crate does not know pass untouched, except that
//! their object metadata is validated.
//!
//! A write goes through [`decode::check`], [`defaults::apply`], [`prepare::create`] or [`prepare::update`], and
//! [`validate::create`] or [`validate::update`], in that order; what must look at other objects (service accounts,
//! priority classes, quotas, addresses) stays with the caller.

pub mod convert;
pub mod cron;
pub mod decode;
pub mod defaults;
pub mod field;
mod json;
pub mod names;
pub mod prepare;
pub mod printing;
pub mod qos;
pub mod quantity;
pub mod quota;
pub mod selectors;
pub mod validate;

/// The group of an `apiVersion`: "" for the core group.
pub fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}
