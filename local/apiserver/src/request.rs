//! From a URL to what is asked: the resource path, the verb and the query.

use percent_encoding::percent_decode_str;

use crate::status::{ApiError, ApiResult, Cause};

/// Where a path points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/{group}`
    Group(String),
    /// `/api/v1` or `/apis/{group}/{version}`
    GroupVersion(String, String),
    /// Objects.
    Resource(ResourcePath),
    /// Anything else, such as `/healthz`.
    Other(String),
}

/// The object or collection that a path names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ResourcePath {
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace, when the path names one.
    pub namespace: Option<String>,
    /// Plural name of the resource.
    pub resource: String,
    /// Object name; none for a collection.
    pub name: Option<String>,
    /// Subresource, such as `status`.
    pub subresource: Option<String>,
    /// The rest of the path below a subresource (for proxies).
    pub rest: Vec<String>,
    /// The deprecated `/watch/` prefix was used.
    pub watch_prefix: bool,
}

/// Takes a path apart; percent escapes are decoded per segment.
pub(crate) fn parse_path(path: &str) -> Route {
    let segments: Vec<String> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let mut rest = segments.into_iter();
    let (group, version) = match rest.next().as_deref() {
        Some("api") => match rest.next() {
            None => return Route::CoreVersions,
            Some(version) => (String::new(), version),
        },
        Some("apis") => match (rest.next(), rest.next()) {
            (None, _) => return Route::Groups,
            (Some(group), None) => return Route::Group(group),
            (Some(group), Some(version)) => (group, version),
        },
        _ => return Route::Other(path.to_owned()),
    };
    let mut rest: Vec<String> = rest.collect();
    let watch_prefix = rest.first().is_some_and(|segment| segment == "watch") && rest.len() > 1;
    if watch_prefix {
        rest.remove(0);
    }
    let mut found = ResourcePath { group, version, watch_prefix, ..ResourcePath::default() };
    // `namespaces/x` and its own subresources are the namespace itself, longer paths lie inside of it.
    let own = |segment: &str| matches!(segment, "status" | "finalize");
    if rest.first().is_some_and(|segment| segment == "namespaces")
        && found.group.is_empty()
        && (rest.len() < 3 || (rest.len() == 3 && own(&rest[2])))
    {
        found.namespace = rest.get(1).cloned();
    } else if rest.first().is_some_and(|segment| segment == "namespaces") && rest.len() >= 3 {
        found.namespace = Some(rest.remove(1));
        rest.remove(0);
    }
    let mut rest = rest.into_iter();
    let Some(resource) = rest.next() else { return Route::GroupVersion(found.group, found.version) };
    found.resource = resource;
    found.name = rest.next();
    found.subresource = rest.next();
    found.rest = rest.collect();
    Route::Resource(found)
}

/// The decoded query; a key may occur more than once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes a raw query; empty pairs are skipped.
    pub(crate) fn parse(raw: &str) -> Self {
        let decode =
            |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        });
        Self(pairs.collect())
    }

    /// The first value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Like [`Query::get`], but an empty value counts as absent.
    pub(crate) fn filled(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| !value.is_empty())
    }

    /// Every value of a key.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Whether a boolean parameter is set (`?watch`, `watch=1`, `watch=true`).
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !matches!(value, "0" | "false" | "False" | "FALSE" | "f" | "F"))
    }

    fn boolean(&self, key: &str) -> Option<bool> {
        self.get(key).map(|_| self.flag(key))
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> ApiResult<Option<T>> {
        let Some(text) = self.filled(key) else { return Ok(None) };
        let why = || ApiError::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"));
        text.parse().map(Some).map_err(|_| why())
    }
}

/// How strictly unknown and duplicate fields are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and warn: the default.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// Options of writes.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriteOptions {
    /// Nothing may be stored.
    pub dry_run: bool,
    /// Who owns the fields written; none when the client named nobody.
    pub field_manager: Option<String>,
    /// What happens with unknown fields.
    pub field_validation: FieldValidation,
    /// Server-side apply takes over the fields of others.
    pub force: Option<bool>,
}

impl WriteOptions {
    /// Reads the options of a write; `kind` is the options kind named in refusals.
    pub(crate) fn parse(query: &Query, kind: &str) -> ApiResult<Self> {
        let dry_run: Vec<&str> = query.all("dryRun").filter(|value| !value.is_empty()).collect();
        if dry_run.iter().any(|value| *value != "All") {
            let shown = serde_json::to_string(&dry_run).unwrap_or_default();
            return Err(ApiError::invalid_options(kind, &[Cause::not_supported("dryRun", shown, &["All"])]));
        }
        let field_validation = match query.filled("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let supported = ["Ignore", "Strict", "Warn", ""];
                let cause = Cause::not_supported("fieldValidation", format!("\"{other}\""), &supported);
                return Err(ApiError::invalid_options(kind, &[cause]));
            }
        };
        let field_manager = query.filled("fieldManager").map(str::to_owned);
        if field_manager.as_ref().is_some_and(|manager| manager.len() > 128) {
            let cause = Cause {
                reason: "FieldValueTooLong",
                message: "Too long: may not be more than 128 bytes".into(),
                field: "fieldManager".into(),
            };
            return Err(ApiError::invalid_options(kind, &[cause]));
        }
        Ok(Self {
            dry_run: !dry_run.is_empty(),
            field_manager,
            field_validation,
            force: query.boolean("force"),
        })
    }
}

/// `resourceVersionMatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    /// This revision, precisely.
    Exact,
    /// This revision or a newer one.
    NotOlderThan,
}

/// Options of lists and watches.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListOptions {
    /// Raw label selector.
    pub label_selector: String,
    /// Raw field selector.
    pub field_selector: String,
    /// Revision asked for: none when absent.
    pub resource_version: Option<u64>,
    /// How the revision is meant.
    pub version_match: Option<VersionMatch>,
    /// Most items of one page; 0 for all.
    pub limit: usize,
    /// Where the page before ended.
    pub continue_token: Option<String>,
    /// Watch instead of list.
    pub watch: bool,
    /// Bookmarks are welcome.
    pub bookmarks: bool,
    /// Start the watch with what exists.
    pub send_initial_events: Option<bool>,
    /// When the server ends the watch.
    pub timeout_seconds: Option<u64>,
}

impl ListOptions {
    /// Reads and checks the options; the rules and texts are those of Kubernetes.
    pub(crate) fn parse(query: &Query, watch_prefix: bool) -> ApiResult<Self> {
        let resource_version = match query.filled("resourceVersion") {
            None => None,
            Some(text) => Some(text.parse::<u64>().map_err(|_| {
                ApiError::bad_request(format!(
                    "invalid resource version: resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: \
                     parsing \"{text}\": invalid syntax"
                ))
            })?),
        };
        let limit: i64 = query.number("limit")?.unwrap_or(0);
        let mut options = Self {
            label_selector: query.get("labelSelector").unwrap_or_default().to_owned(),
            field_selector: query.get("fieldSelector").unwrap_or_default().to_owned(),
            resource_version,
            version_match: None,
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token: query.filled("continue").map(str::to_owned),
            watch: query.flag("watch") || watch_prefix,
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.boolean("sendInitialEvents"),
            timeout_seconds: query.number("timeoutSeconds")?,
        };
        let raw_match = query.filled("resourceVersionMatch");
        let refuse = |field: &str, why: &str| {
            Err(ApiError::invalid_options("ListOptions", &[Cause::forbidden(field, why)]))
        };
        options.version_match = match raw_match {
            None => None,
            Some("Exact") => Some(VersionMatch::Exact),
            Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
            Some(other) => {
                let shown = format!("\"{other}\"");
                let supported = ["Exact", "NotOlderThan", ""];
                let cause = Cause::not_supported("resourceVersionMatch", shown, &supported);
                return Err(ApiError::invalid_options("ListOptions", &[cause]));
            }
        };
        let field = "resourceVersionMatch";
        if options.watch {
            if options.send_initial_events.is_some()
                && options.version_match != Some(VersionMatch::NotOlderThan)
            {
                return refuse(
                    field,
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                );
            }
            if options.version_match.is_some() && options.send_initial_events.is_none() {
                return refuse(
                    field,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
            return Ok(options);
        }
        if options.send_initial_events.is_some() {
            return refuse("sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
        if let Some(version_match) = options.version_match {
            if options.continue_token.is_some() {
                return refuse(field, "resourceVersionMatch is forbidden when continue is provided");
            }
            let Some(version) = options.resource_version else {
                return refuse(field, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            };
            if version_match == VersionMatch::Exact && version == 0 {
                return refuse(
                    field,
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                );
            }
        }
        if options.continue_token.is_some() && options.resource_version.is_some_and(|version| version > 0) {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(path: &str) -> ResourcePath {
        match parse_path(path) {
            Route::Resource(found) => found,
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn paths_are_taken_apart() {
        let pod = resource("/api/v1/namespaces/a/pods/x/log");
        assert_eq!((pod.namespace.as_deref(), pod.resource.as_str()), (Some("a"), "pods"));
        assert_eq!((pod.name.as_deref(), pod.subresource.as_deref()), (Some("x"), Some("log")));
        let namespace = resource("/api/v1/namespaces/a/status");
        assert_eq!((namespace.resource.as_str(), namespace.name.as_deref()), ("namespaces", Some("a")));
        assert_eq!(namespace.subresource.as_deref(), Some("status"));
        let watch = resource("/api/v1/watch/namespaces/a/pods");
        assert!(watch.watch_prefix && watch.resource == "pods");
        assert_eq!(parse_path("/version/"), Route::Other("/version/".into()));
        assert_eq!(parse_path("/apis/apps/v1/"), Route::GroupVersion("apps".into(), "v1".into()));
        assert_eq!(
            resource("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode").name.as_deref(),
            Some("system:node")
        );
    }

    #[test]
    fn queries_tolerate_empty_pairs_and_bare_flags() {
        let query = Query::parse("&limit=5&watch&labelSelector=a%20in+(b)");
        assert_eq!(query.get("limit"), Some("5"));
        assert!(query.flag("watch"));
        assert_eq!(query.get("labelSelector"), Some("a in (b)"));
    }

    #[test]
    fn version_match_needs_a_version() {
        let error =
            ListOptions::parse(&Query::parse("resourceVersionMatch=NotOlderThan"), false).unwrap_err();
        assert_eq!(error.code, 422);
        assert!(error.message.ends_with("is forbidden unless resourceVersion is provided"));
    }
}
