//! The certificates of the extender and of the kube-scheduler that asks it, from an authority of their own.
//!
//! The authority is kept in a Secret that no pod mounts, so that certificates can be renewed without telling
//! anybody of a new one.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};

use super::EXTENDER;
use crate::error::Error;

/// How long certificates hold, in days: the authority's, and the others'.
const DAYS: (i64, i64) = (3650, 365);
/// Those that hold for less than this many days are made anew.
const RENEWED_BEFORE: i64 = 60;
/// Until when the certificate of a Secret holds.
pub(crate) const NOT_AFTER: &str = "muster.dev/not-after";

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Names of the Secrets: the authority's, the extender's, kube-scheduler's.
pub(crate) fn secret_names() -> [String; 3] {
    ["ca", "tls", "client"].map(|part| format!("{EXTENDER}-{part}"))
}

/// Whether the certificate of a Secret holds for long enough.
pub(crate) fn holds(secret: &Value, now: Timestamp) -> bool {
    let until = secret["metadata"]["annotations"][NOT_AFTER].as_str().and_then(|text| text.parse().ok());
    until.is_some_and(|until: Timestamp| {
        until.duration_since(now) > SignedDuration::from_hours(24 * RENEWED_BEFORE)
    })
}

/// The pair in a Secret as the API server has it.
pub(crate) fn read(secret: &Value) -> Option<Pair> {
    let text = |key: &str| {
        let encoded: k8s_openapi::ByteString = serde_json::from_value(secret["data"][key].clone()).ok()?;
        String::from_utf8(encoded.0).ok()
    };
    Some(Pair { certificate: text("tls.crt")?, key: text("tls.key")? })
}

/// An authority.
pub(crate) fn authority(now: Timestamp) -> Result<Pair, Error> {
    let key = KeyPair::generate().map_err(broken)?;
    let certificate = authority_params(now).self_signed(&key).map_err(broken)?.pem();
    Ok(Pair { certificate, key: key.serialize_pem() })
}

/// The Secrets of the extender and of kube-scheduler, with certificates of this authority.
pub(crate) fn secrets(namespace: &str, authority: &Pair, now: Timestamp) -> Result<[Value; 3], Error> {
    let server = [
        format!("{EXTENDER}.{namespace}.svc"),
        format!("{EXTENDER}.{namespace}.svc.cluster.local"),
        format!("{EXTENDER}.{namespace}"),
    ];
    let server = signed(authority, &server, ExtendedKeyUsagePurpose::ServerAuth, now)?;
    let client = signed(authority, &["kube-scheduler".to_owned()], ExtendedKeyUsagePurpose::ClientAuth, now)?;
    let [of_authority, of_server, of_client] = secret_names();
    let until = |days: i64| (now + SignedDuration::from_hours(24 * days)).to_string();
    let secret = |name: &str, pair: &Pair, days: i64| {
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": name, "namespace": namespace, "annotations": {NOT_AFTER: until(days)}},
            "stringData": {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": authority.certificate},
        })
    };
    Ok([
        secret(&of_authority, authority, DAYS.0),
        secret(&of_server, &server, DAYS.1),
        secret(&of_client, &client, DAYS.1),
    ])
}

fn authority_params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, EXTENDER);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    limit(&mut params, now, DAYS.0);
    params
}

fn signed(
    authority: &Pair,
    names: &[String],
    purpose: ExtendedKeyUsagePurpose,
    now: Timestamp,
) -> Result<Pair, Error> {
    let authority_key = KeyPair::from_pem(&authority.key).map_err(broken)?;
    let issuer_params = authority_params(now);
    let issuer = Issuer::from_params(&issuer_params, &authority_key);
    let key = KeyPair::generate().map_err(broken)?;
    let mut params = CertificateParams::new(names.to_vec()).map_err(broken)?;
    params.distinguished_name.push(DnType::CommonName, names[0].as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    limit(&mut params, now, DAYS.1);
    Ok(Pair { certificate: params.signed_by(&key, &issuer).map_err(broken)?.pem(), key: key.serialize_pem() })
}

/// From yesterday, for clocks that are slow.
fn limit(params: &mut CertificateParams, now: Timestamp, days: i64) {
    let today = now.to_zoned(TimeZone::UTC).date();
    let day = |date: jiff::civil::Date| {
        rcgen::date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = day(today.saturating_sub(jiff::Span::new().days(1)));
    params.not_after = day(today.saturating_add(jiff::Span::new().days(days)));
}

fn broken(error: rcgen::Error) -> Error {
    Error::from_source("cannot make the extender's certificates", &error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_kept_until_they_run_out() {
        let now: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let authority = authority(now).unwrap();
        let [_, server, client] = secrets("gangs", &authority, now).unwrap();
        for secret in [&server, &client] {
            assert!(holds(secret, now));
            assert!(!holds(secret, now + SignedDuration::from_hours(24 * (DAYS.1 - RENEWED_BEFORE))));
            assert_eq!(secret["stringData"]["ca.crt"], authority.certificate);
        }
        assert_ne!(server["stringData"]["tls.crt"], client["stringData"]["tls.crt"]);
        assert!(!holds(&json!({}), now));
    }
}
