//! Who asks: bearer tokens, impersonation, anonymous.

use std::collections::BTreeMap;

use http::HeaderMap;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::app::App;
use crate::status::{ApiError, ApiResult};

/// An authenticated user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct User {
    /// User name.
    pub name: String,
    /// Uid, empty when there is none.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Extra attributes.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The administrator.
    pub(crate) fn admin() -> Self {
        let groups = vec!["system:masters".into(), "system:authenticated".into()];
        Self { name: "admin".into(), uid: "admin".into(), groups, ..Self::default() }
    }

    /// A part of the server itself.
    pub(crate) fn system() -> Self {
        let groups = vec!["system:masters".into(), "system:authenticated".into()];
        Self { name: "system:apiserver".into(), groups, ..Self::default() }
    }

    fn anonymous() -> Self {
        let groups = vec!["system:unauthenticated".into()];
        Self { name: "system:anonymous".into(), groups, ..Self::default() }
    }

    /// Whether every request is allowed.
    pub(crate) fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == "system:masters")
    }

    /// The `userInfo` object of reviews.
    pub(crate) fn to_value(&self) -> Value {
        let mut info = json!({ "username": self.name, "groups": self.groups });
        if let Some(fields) = info.as_object_mut() {
            if !self.uid.is_empty() {
                fields.insert("uid".into(), self.uid.clone().into());
            }
            if !self.extra.is_empty() {
                fields.insert("extra".into(), json!(self.extra));
            }
        }
        info
    }
}

/// The bearer token of a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// Finds out who sent a request.
pub(crate) fn authenticate(app: &App, headers: &HeaderMap) -> ApiResult<User> {
    if !headers.contains_key(http::header::AUTHORIZATION) {
        return Ok(User::anonymous());
    }
    let token = bearer(headers).ok_or_else(ApiError::unauthorized)?;
    authenticate_token(app, token).ok_or_else(ApiError::unauthorized)
}

/// The user of a token.
pub(crate) fn authenticate_token(app: &App, token: &str) -> Option<User> {
    let admin = &app.credentials.admin_token;
    // Compared by digest, so that the time taken tells nothing about the token.
    let same = digest(&SHA256, token.as_bytes()).as_ref() == digest(&SHA256, admin.as_bytes()).as_ref();
    same.then(User::admin)
}
