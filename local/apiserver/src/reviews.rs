//! Requests that are answered at once and never stored: who am I, what may I, is this token good.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::app::Call;
use crate::auth::{self, User};
use crate::body;
use crate::meta::{at, now, object_at, text};
use crate::rbac::{self, Attributes};
use crate::respond::{self, Reply};
use crate::rules;
use crate::status::{ApiError, ApiResult};

/// `POST` of a review.
pub(crate) fn create(call: &Call) -> ApiResult<Reply> {
    let (mut object, _) = body::object(call, &call.resource.kind, &call.resource.api_version())?;
    rules::check_type(&call.resource, &mut object)?;
    object_at(&mut object, "metadata");
    match call.resource.plural.as_str() {
        "selfsubjectreviews" => {
            object_at(&mut object, "metadata").insert("creationTimestamp".into(), now().into());
            object["status"] = json!({ "userInfo": call.user.to_value() });
        }
        "selfsubjectaccessreviews" => object["status"] = access(call, &call.user, &object)?,
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            object["status"] = access(call, &subject(&object), &object)?;
        }
        "selfsubjectrulesreviews" => object["status"] = own_rules(call, &object),
        "tokenreviews" => object["status"] = token(call, &object),
        _ => return Err(ApiError::method_not_allowed()),
    }
    Ok(respond::value(201, call.accepted.encoding, &object))
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn subject(review: &Value) -> User {
    let extra = at(review, &["spec", "extra"]).as_object().into_iter().flatten();
    User {
        name: text(review, &["spec", "user"]).to_owned(),
        uid: text(review, &["spec", "uid"]).to_owned(),
        groups: texts(at(review, &["spec", "groups"])),
        extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect::<BTreeMap<_, _>>(),
    }
}

fn access(call: &Call, user: &User, review: &Value) -> ApiResult<Value> {
    let (object, path) =
        (at(review, &["spec", "resourceAttributes"]), at(review, &["spec", "nonResourceAttributes"]));
    let own = |key: &str| text(object, &[key]).to_owned();
    let attributes = match (object.is_object(), path.is_object()) {
        (true, false) => Attributes {
            verb: own("verb"),
            group: own("group"),
            resource: match text(object, &["subresource"]) {
                "" => own("resource"),
                subresource => format!("{}/{subresource}", own("resource")),
            },
            name: own("name"),
            namespace: own("namespace"),
            path: None,
        },
        (false, true) => Attributes {
            verb: text(path, &["verb"]).to_owned(),
            path: Some(text(path, &["path"]).to_owned()),
            ..Attributes::default()
        },
        _ => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            return Err(ApiError::bad_request(why));
        }
    };
    Ok(json!({ "allowed": rbac::allowed(&call.app, user, &attributes) }))
}

fn own_rules(call: &Call, review: &Value) -> Value {
    let everything = json!([
        { "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] },
        { "verbs": ["*"], "nonResourceURLs": ["*"] },
    ]);
    let rules = if call.user.is_master() {
        everything.as_array().cloned().unwrap_or_default()
    } else {
        rbac::rules(&call.app, &call.user, text(review, &["spec", "namespace"]))
    };
    let (paths, objects): (Vec<Value>, Vec<Value>) =
        rules.into_iter().partition(|rule| rule.get("nonResourceURLs").is_some());
    json!({ "resourceRules": objects, "nonResourceRules": paths, "incomplete": false })
}

fn token(call: &Call, review: &Value) -> Value {
    let wanted = texts(at(review, &["spec", "audiences"]));
    match auth::authenticate_token(&call.app, text(review, &["spec", "token"])) {
        Some((user, audiences)) => {
            let shared: Vec<&String> =
                wanted.iter().filter(|audience| audiences.contains(audience)).collect();
            if !wanted.is_empty() && !audiences.is_empty() && shared.is_empty() {
                return json!({ "user": {}, "error": "[invalid bearer token, token audiences do not match]" });
            }
            json!({ "authenticated": true, "user": user.to_value(), "audiences": if wanted.is_empty() { json!(audiences) } else { json!(shared) } })
        }
        None => json!({ "user": {}, "error": "[invalid bearer token, Token has been invalidated]" }),
    }
}
