//! Resource quotas.

use serde_json::Value;

use crate::app::App;
use crate::objects::Scope;
use crate::registry::Resource;
use crate::status::ApiResult;

/// What a write has taken from the quotas of its namespace.
#[derive(Debug, Default)]
pub(crate) struct Charge;

impl Charge {
    /// Gives the charge back when the write failed.
    pub(crate) async fn settle(self, _app: &App, _written: bool) {}
}

/// Charges a write.
pub(crate) async fn admit(_scope: &Scope<'_>, _old: Option<&Value>, _new: &Value) -> ApiResult<Charge> {
    Ok(Charge)
}

/// Gives back what an object that is gone had taken.
pub(crate) async fn release(_app: &App, _resource: &Resource, _object: &Value) {}
