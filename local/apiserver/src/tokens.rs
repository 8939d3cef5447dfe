//! Tokens of service accounts: issued on request, signed by the server, good for a while.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use muster_store::ObjectKey;
use ring::hmac;
use serde_json::{Value, json};

use crate::app::{App, Call};
use crate::auth::User;
use crate::body;
use crate::meta::{at, format_time, meta, new_uid, now, object_at, text};
use crate::read;
use crate::respond::{self, Reply};
use crate::status::{About, ApiError, ApiResult, Cause};

const ISSUER: &str = "https://kubernetes.default.svc";
const SHORTEST_SECONDS: i64 = 600;
const LONGEST_SECONDS: i64 = 1 << 32;

fn key(app: &App) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &app.credentials.signing_key)
}

fn sign(app: &App, claims: &Value) -> String {
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let tag = hmac::sign(&key(app), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

/// The user of a valid token whose account (and pod) still exist, and the token's audiences.
pub(crate) fn verify(app: &App, token: &str) -> Option<(User, Vec<String>)> {
    let (signed, tag) = token.rsplit_once('.')?;
    let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
    hmac::verify(&key(app), signed.as_bytes(), &tag).ok()?;
    let claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split_once('.')?.1).ok()?).ok()?;
    let now = Timestamp::now().as_second();
    if claims["exp"].as_i64()? <= now || claims["nbf"].as_i64()? > now {
        return None;
    }
    let own = &claims["kubernetes.io"];
    let namespace = own["namespace"].as_str()?;
    let (name, uid) = (text(own, &["serviceaccount", "name"]), text(own, &["serviceaccount", "uid"]));
    let exists = |resource: &str, name: &str, uid: &str| {
        let found = app.store.get(&ObjectKey::new(resource, namespace, name));
        found.is_some_and(|entry| meta(&entry.object(), "uid") == uid)
    };
    if !exists("core/serviceaccounts", name, uid) {
        return None;
    }
    let mut user = User {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        uid: uid.to_owned(),
        groups: vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".into(),
        ],
        ..User::default()
    };
    if let Some(pod) = own.get("pod") {
        let (name, uid) = (text(pod, &["name"]), text(pod, &["uid"]));
        if !exists("core/pods", name, uid) {
            return None;
        }
        user.extra.insert("authentication.kubernetes.io/pod-name".into(), vec![name.to_owned()]);
        user.extra.insert("authentication.kubernetes.io/pod-uid".into(), vec![uid.to_owned()]);
    }
    let audiences =
        claims["aud"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    Some((user, audiences.collect()))
}

/// `POST serviceaccounts/NAME/token`.
pub(crate) fn request(call: &Call) -> ApiResult<Reply> {
    let (mut request, _) = body::object(call, "TokenRequest", "authentication.k8s.io/v1")?;
    let account = read::find(call)?.object();
    let name = meta(&account, "name");
    let seconds = at(&request, &["spec", "expirationSeconds"]).as_i64().unwrap_or(3_600);
    let about = About { group: "authentication.k8s.io", what: "TokenRequest", name };
    let refuse = |cause: Cause| Err(ApiError::invalid(about, &[cause]));
    if seconds < SHORTEST_SECONDS {
        return refuse(Cause::invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration less than 10 minutes",
        ));
    }
    if seconds > LONGEST_SECONDS {
        return refuse(Cause::invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        ));
    }
    let audiences = match at(&request, &["spec", "audiences"]).as_array() {
        Some(list) if !list.is_empty() => Value::Array(list.clone()),
        _ => json!([ISSUER]),
    };
    let issued = Timestamp::now();
    let namespace = call.namespace();
    let mut own = json!({
        "namespace": namespace, "serviceaccount": { "name": name, "uid": meta(&account, "uid") },
    });
    let bound = at(&request, &["spec", "boundObjectRef"]).clone();
    if bound["kind"] == "Pod" {
        own["pod"] = bound_pod(call, &bound)?;
    }
    let expires = issued.as_second() + seconds;
    let claims = json!({
        "aud": audiences, "exp": expires, "iat": issued.as_second(), "nbf": issued.as_second(), "iss": ISSUER,
        "jti": new_uid(), "kubernetes.io": own, "sub": format!("system:serviceaccount:{namespace}:{name}"),
    });
    let expiration = Timestamp::from_second(expires).map_err(ApiError::internal_error)?;
    request["kind"] = "TokenRequest".into();
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    let metadata = object_at(&mut request, "metadata");
    for (field, value) in [("name", name), ("namespace", namespace), ("uid", meta(&account, "uid"))] {
        metadata.insert(field.into(), value.into());
    }
    metadata.insert("creationTimestamp".into(), now().into());
    request["spec"] =
        json!({ "audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound });
    request["status"] =
        json!({ "token": sign(&call.app, &claims), "expirationTimestamp": format_time(expiration) });
    Ok(respond::value(201, call.accepted.encoding, &request))
}

/// The pod that a token is bound to: it lives as long as the pod.
fn bound_pod(call: &Call, bound: &Value) -> ApiResult<Value> {
    let name = text(bound, &["name"]);
    let about = About { group: "", what: "pods", name };
    let found = call.app.store.get(&ObjectKey::new("core/pods", call.namespace(), name));
    let pod = found.ok_or_else(|| ApiError::not_found(about))?.object();
    let (uid, wanted) = (meta(&pod, "uid"), text(bound, &["uid"]));
    if !wanted.is_empty() && wanted != uid {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record ({uid})"
        );
        return Err(ApiError::conflict(about, why));
    }
    Ok(json!({ "name": name, "uid": uid }))
}
