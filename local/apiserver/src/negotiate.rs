//! Which representation a client accepts.

use http::HeaderMap;

use crate::status::{ApiError, ApiResult};

/// The encoding of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Encoding {
    /// `application/json`
    #[default]
    Json,
    /// `application/yaml`
    Yaml,
}

impl Encoding {
    /// The content type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// The form of the objects in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Form {
    /// The objects themselves.
    #[default]
    Object,
    /// `meta.k8s.io` Table of that version.
    Table(&'static str),
    /// Metadata only.
    Partial,
}

/// What the client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Accepted {
    /// Bytes.
    pub encoding: Encoding,
    /// Objects.
    pub form: Form,
}

/// One clause of an `Accept` header.
struct Clause<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parameters =
            parts.filter_map(|part| part.split_once('=')).map(|(key, value)| (key.trim(), value.trim()));
        Self { media, parameters: parameters.collect() }
    }

    fn parameter(&self, key: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }
}

fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let values = headers.get_all(http::header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(Clause::parse)
        .collect()
}

/// Chooses the first clause the server can answer; JSON when nothing is asked for.
pub(crate) fn accepted(headers: &HeaderMap) -> ApiResult<Accepted> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(Accepted::default());
    }
    for clause in &clauses {
        let encoding = match clause.media {
            "application/json" | "*/*" | "application/*" => Encoding::Json,
            "application/yaml" => Encoding::Yaml,
            _ => continue,
        };
        let form = match (clause.parameter("as"), clause.parameter("g"), clause.parameter("v")) {
            (None, _, _) => Form::Object,
            (Some("Table"), Some("meta.k8s.io"), Some("v1")) => Form::Table("v1"),
            (Some("Table"), Some("meta.k8s.io"), Some("v1beta1")) => Form::Table("v1beta1"),
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io"), _) => {
                Form::Partial
            }
            _ => continue,
        };
        return Ok(Accepted { encoding, form });
    }
    Err(ApiError::not_acceptable())
}

/// Which discovery document the client wants: aggregated in that version, or none for the plain one.
pub(crate) fn aggregated_discovery(headers: &HeaderMap) -> Option<&'static str> {
    for clause in clauses(headers) {
        if clause.media != "application/json" {
            continue;
        }
        match (clause.parameter("g"), clause.parameter("v"), clause.parameter("as")) {
            (Some("apidiscovery.k8s.io"), Some("v2"), Some("APIGroupDiscoveryList")) => return Some("v2"),
            (Some("apidiscovery.k8s.io"), Some("v2beta1"), Some("APIGroupDiscoveryList")) => {
                return Some("v2beta1");
            }
            (None, _, None) => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::ACCEPT, accept.parse().expect("header"));
        headers
    }

    #[test]
    fn typed_clients_fall_back_to_json() {
        let found = accepted(&with("application/vnd.kubernetes.protobuf,application/json")).expect("json");
        assert_eq!(found, Accepted::default());
        assert_eq!(accepted(&with("text/html")).map_err(|error| error.code), Err(406));
    }

    #[test]
    fn tables_and_metadata_are_recognised() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(accepted(&with(table)).expect("table").form, Form::Table("v1"));
        let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(accepted(&with(partial)).expect("partial").form, Form::Partial);
    }
}
