//! Who asks: bearer tokens, impersonation, anonymous.

use std::collections::BTreeMap;

use http::HeaderMap;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::app::App;
use crate::rbac::{self, Attributes};
use crate::status::{About, ApiError, ApiResult};
use crate::tokens;

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
    let (user, _) = authenticate_token(app, token).ok_or_else(ApiError::unauthorized)?;
    impersonated(app, user, headers)
}

/// The user and the audiences of a token; the administrator's is good for every audience.
pub(crate) fn authenticate_token(app: &App, token: &str) -> Option<(User, Vec<String>)> {
    let admin = &app.credentials.admin_token;
    // Compared by digest, so that the time taken tells nothing about the token.
    let same = digest(&SHA256, token.as_bytes()).as_ref() == digest(&SHA256, admin.as_bytes()).as_ref();
    if same { Some((User::admin(), Vec::new())) } else { tokens::verify(app, token) }
}

/// The user that a request speaks for, when it names one and may.
fn impersonated(app: &App, user: User, headers: &HeaderMap) -> ApiResult<User> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let all = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let (name, mut groups) = (text("impersonate-user"), all("impersonate-group"));
    let Some(name) = name else {
        if groups.is_empty() {
            return Ok(user);
        }
        return Err(ApiError::internal("requested [Group] without impersonating a user"));
    };
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let mut wanted = vec![match account {
        Some((namespace, name)) => ("serviceaccounts", namespace.to_owned(), name.to_owned()),
        None => ("users", String::new(), name.clone()),
    }];
    wanted.extend(groups.iter().map(|group| ("groups", String::new(), group.clone())));
    for (resource, namespace, object) in wanted {
        let attributes = Attributes {
            verb: "impersonate".into(),
            resource: resource.into(),
            name: object.clone(),
            namespace,
            ..Attributes::default()
        };
        if !rbac::allowed(app, &user, &attributes) {
            let about = About { group: "", what: resource, name: &object };
            let why = format!(
                "User \"{}\" cannot impersonate resource \"{resource}\" in API group \"\" at the cluster scope",
                user.name
            );
            return Err(ApiError::forbidden(about, why));
        }
    }
    if groups.is_empty()
        && let Some((namespace, _)) = account
    {
        groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    let group = if name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    if !groups.iter().any(|own| own == group) {
        groups.push(group.into());
    }
    Ok(User { name, uid: text("impersonate-uid").unwrap_or_default(), groups, ..User::default() })
}
