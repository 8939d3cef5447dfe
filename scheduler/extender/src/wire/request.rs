//! What kube-scheduler asks. Keys are Go's field names; as in Go they are matched without regard to case.

use std::borrow::Cow;

use super::scan::{ScanError, Scanner};

/// Why a request could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The body is not text.
    #[error("the body is not UTF-8: {0}")]
    NotText(#[from] std::str::Utf8Error),
    /// The body is not JSON, or not of the type.
    #[error("cannot read the body: {0}")]
    Json(#[from] ScanError),
    /// Something is missing without which there is no answer.
    #[error("the body has no {0}")]
    Missing(&'static str),
}

/// Which pod is asked about. Everything else about it comes from the API server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodIdentity<'a> {
    /// Namespace.
    pub namespace: Cow<'a, str>,
    /// Name.
    pub name: Cow<'a, str>,
    /// Uid.
    pub uid: Cow<'a, str>,
}

/// The nodes that are offered, in the form in which the answer must come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered<'a> {
    /// `nodeCacheCapable: true`: names.
    Names(Vec<Cow<'a, str>>),
    /// `nodeCacheCapable: false`: names, and the whole objects as they came.
    Nodes(Vec<(Cow<'a, str>, &'a str)>),
}

impl Offered<'_> {
    /// How many nodes.
    pub fn len(&self) -> usize {
        match self {
            Self::Names(names) => names.len(),
            Self::Nodes(nodes) => nodes.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let (names, nodes) = match self {
            Self::Names(names) => (&names[..], &[][..]),
            Self::Nodes(nodes) => (&[][..], &nodes[..]),
        };
        names.iter().map(AsRef::as_ref).chain(nodes.iter().map(|(name, _)| name.as_ref()))
    }

    /// Whether a node is among them.
    pub fn contains(&self, name: &str) -> bool {
        self.names().any(|offered| offered == name)
    }
}

/// A filter or prioritize call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRequest<'a> {
    /// The pod.
    pub pod: PodIdentity<'a>,
    /// The nodes that passed so far.
    pub offered: Offered<'a>,
}

/// A node on which the pod would fit if some pods were evicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The node.
    pub node: Cow<'a, str>,
    /// Uids of the pods that would go.
    pub victims: Vec<Cow<'a, str>>,
    /// How many disruption budgets that would break.
    pub budget_violations: i64,
}

/// A preempt call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreemptRequest<'a> {
    /// The pod that needs room.
    pub pod: PodIdentity<'a>,
    /// Where it could be made.
    pub candidates: Vec<Candidate<'a>>,
}

/// A bind call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindRequest<'a> {
    /// The pod.
    pub pod: PodIdentity<'a>,
    /// The node that was chosen.
    pub node: Cow<'a, str>,
}

fn is(key: &str, name: &str) -> bool {
    key.eq_ignore_ascii_case(name)
}

/// Reads the members of the one object in the body.
fn object<'a>(
    body: &'a [u8],
    member: impl FnMut(&mut Scanner<'a>, &str) -> Result<(), ScanError>,
) -> Result<(), RequestError> {
    let mut scanner = Scanner::new(std::str::from_utf8(body)?);
    scanner.members(member)?;
    Ok(scanner.end()?)
}

fn text<'a>(scanner: &mut Scanner<'a>) -> Result<Cow<'a, str>, ScanError> {
    if scanner.null() { Ok(Cow::Borrowed("")) } else { scanner.string() }
}

/// The metadata of an object whose other parts are only walked over.
fn metadata<'a>(scanner: &mut Scanner<'a>, strict: bool) -> Result<PodIdentity<'a>, ScanError> {
    let mut identity = PodIdentity::default();
    let pass = |scanner: &mut Scanner<'a>| if strict { scanner.valid() } else { scanner.raw() }.map(|_| ());
    scanner.members(|scanner, key| {
        if !is(key, "metadata") {
            return pass(scanner);
        }
        scanner.members(|scanner, key| {
            match key {
                _ if is(key, "name") => identity.name = text(scanner)?,
                _ if is(key, "namespace") => identity.namespace = text(scanner)?,
                _ if is(key, "uid") => identity.uid = text(scanner)?,
                _ => pass(scanner)?,
            }
            Ok(())
        })
    })?;
    Ok(identity)
}

fn named(pod: Option<PodIdentity<'_>>) -> Result<PodIdentity<'_>, RequestError> {
    let pod = pod.ok_or(RequestError::Missing("Pod"))?;
    if pod.name.is_empty() {
        return Err(RequestError::Missing("Pod.metadata.name"));
    }
    Ok(pod)
}

impl<'a> FilterRequest<'a> {
    /// Reads a filter or prioritize call.
    ///
    /// # Errors
    /// When the body is no such call.
    pub fn read(body: &'a [u8]) -> Result<Self, RequestError> {
        let (mut pod, mut names, mut nodes) = (None, None, None);
        object(body, |scanner, key| {
            if scanner.null() {
                return Ok(());
            }
            match key {
                _ if is(key, "Pod") => pod = Some(metadata(scanner, true)?),
                _ if is(key, "NodeNames") => {
                    let mut found = Vec::new();
                    scanner.elements(|scanner| {
                        found.push(scanner.string()?);
                        Ok(())
                    })?;
                    names = Some(found);
                }
                _ if is(key, "Nodes") => nodes = Some(node_list(scanner)?),
                _ => scanner.valid().map(|_| ())?,
            }
            Ok(())
        })?;
        let offered = names.map(Offered::Names).or(nodes.map(Offered::Nodes));
        Ok(Self { pod: named(pod)?, offered: offered.ok_or(RequestError::Missing("Nodes or NodeNames"))? })
    }
}

fn node_list<'a>(scanner: &mut Scanner<'a>) -> Result<Vec<(Cow<'a, str>, &'a str)>, ScanError> {
    let mut nodes = Vec::new();
    scanner.members(|scanner, key| {
        if !is(key, "items") {
            return scanner.valid().map(|_| ());
        }
        scanner.elements(|scanner| {
            let raw = scanner.raw()?;
            nodes.push((metadata_name(raw)?, raw));
            Ok(())
        })
    })?;
    Ok(nodes)
}

/// The name of a node; Go writes the metadata first and the name first in it, so little of the node is read.
fn metadata_name(raw: &str) -> Result<Cow<'_, str>, ScanError> {
    const USUAL: &str = r#"{"metadata":{"name":"#;
    if let Some(rest) = raw.strip_prefix(USUAL) {
        return Scanner::new(rest).string();
    }
    let name = metadata(&mut Scanner::new(raw), false)?.name;
    if name.is_empty() {
        return Err(ScanError::Value("a node has no metadata.name".to_owned()));
    }
    Ok(name)
}

impl<'a> PreemptRequest<'a> {
    /// Reads a preempt call.
    ///
    /// # Errors
    /// When the body is no such call.
    pub fn read(body: &'a [u8]) -> Result<Self, RequestError> {
        let (mut pod, mut by_uid, mut whole) = (None, Vec::new(), Vec::new());
        object(body, |scanner, key| {
            if scanner.null() {
                return Ok(());
            }
            match key {
                _ if is(key, "Pod") => pod = Some(metadata(scanner, true)?),
                _ if is(key, "NodeNameToMetaVictims") => {
                    by_uid = candidates(scanner, |scanner| {
                        let mut uid = Cow::Borrowed("");
                        scanner.members(|scanner, key| {
                            if is(key, "UID") {
                                uid = text(scanner)?;
                                return Ok(());
                            }
                            scanner.valid().map(|_| ())
                        })?;
                        Ok(uid)
                    })?;
                }
                _ if is(key, "NodeNameToVictims") => {
                    whole = candidates(scanner, |scanner| Ok(metadata(scanner, true)?.uid))?;
                }
                _ => scanner.valid().map(|_| ())?,
            }
            Ok(())
        })?;
        let candidates = if by_uid.is_empty() { whole } else { by_uid };
        Ok(Self { pod: named(pod)?, candidates })
    }
}

fn candidates<'a>(
    scanner: &mut Scanner<'a>,
    mut victim: impl FnMut(&mut Scanner<'a>) -> Result<Cow<'a, str>, ScanError>,
) -> Result<Vec<Candidate<'a>>, ScanError> {
    let mut candidates = Vec::new();
    scanner.members(|scanner, node| {
        let mut candidate =
            Candidate { node: Cow::Owned(node.to_owned()), victims: Vec::new(), budget_violations: 0 };
        scanner.members(|scanner, key| {
            match key {
                _ if is(key, "Pods") => scanner.elements(|scanner| {
                    candidate.victims.push(victim(scanner)?);
                    Ok(())
                })?,
                _ if is(key, "NumPDBViolations") => candidate.budget_violations = scanner.integer()?,
                _ => scanner.valid().map(|_| ())?,
            }
            Ok(())
        })?;
        candidates.push(candidate);
        Ok(())
    })?;
    Ok(candidates)
}

impl<'a> BindRequest<'a> {
    /// Reads a bind call.
    ///
    /// # Errors
    /// When the body is no such call.
    pub fn read(body: &'a [u8]) -> Result<Self, RequestError> {
        let (mut pod, mut node) = (PodIdentity::default(), Cow::Borrowed(""));
        object(body, |scanner, key| {
            match key {
                _ if is(key, "PodName") => pod.name = text(scanner)?,
                _ if is(key, "PodNamespace") => pod.namespace = text(scanner)?,
                _ if is(key, "PodUID") => pod.uid = text(scanner)?,
                _ if is(key, "Node") => node = text(scanner)?,
                _ => scanner.valid().map(|_| ())?,
            }
            Ok(())
        })?;
        for (value, field) in [(&pod.name, "PodName"), (&pod.uid, "PodUID"), (&node, "Node")] {
            if value.is_empty() {
                return Err(RequestError::Missing(field));
            }
        }
        Ok(Self { pod, node })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_match_in_any_case_and_unknown_ones_are_passed_over() {
        let body =
            br#"{"pod":{"metadata":{"name":"p","namespace":"n","uid":"u"}},"NODENAMES":["a","b"],"x":{"y":1}}"#;
        let request = FilterRequest::read(body).unwrap();
        assert_eq!(request.pod, PodIdentity { namespace: "n".into(), name: "p".into(), uid: "u".into() });
        assert_eq!(request.offered.names().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn whole_nodes_keep_their_text_whatever_the_order_of_their_fields() {
        let body = br#"{"Pod":{"metadata":{"name":"p"}},"NodeNames":null,"Nodes":{"metadata":{},"items":[
            {"metadata":{"name":"a","labels":{"x":"}"}},"spec":{}}, {"spec":{}, "metadata":{"labels":{}, "name":"b"}}]}}"#;
        let Offered::Nodes(nodes) = FilterRequest::read(body).unwrap().offered else { panic!("names") };
        assert_eq!(nodes[0], ("a".into(), r#"{"metadata":{"name":"a","labels":{"x":"}"}},"spec":{}}"#));
        assert_eq!(nodes[1].0, "b");
    }

    #[test]
    fn bad_bodies_say_what_is_wrong() {
        let said = |body: &str| FilterRequest::read(body.as_bytes()).unwrap_err().to_string();
        assert_eq!(said("{}"), "the body has no Pod");
        assert_eq!(said(r#"{"Pod":{"metadata":{}},"NodeNames":[]}"#), "the body has no Pod.metadata.name");
        assert_eq!(said(r#"{"Pod":{"metadata":{"name":"p"}}}"#), "the body has no Nodes or NodeNames");
        assert_eq!(said(r#"{"Pod": 1}"#), "cannot read the body: expected an object at byte 8");
        assert_eq!(said(r#"{"Pod":{"#), "cannot read the body: the text ends inside a value");
        assert!(said(r#"{"Pod":{"spec":{"a" 1}}}"#).contains("is no JSON"));
        assert!(said("{} x").contains("the end of the text"));
        assert_eq!(
            FilterRequest::read(b"\xff").unwrap_err().to_string(),
            "the body is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0"
        );
        assert_eq!(BindRequest::read(b"{}").unwrap_err(), RequestError::Missing("PodName"));
    }

    #[test]
    fn victims_come_by_uid_or_whole() {
        let by_uid = br#"{"Pod":{"metadata":{"name":"p"}},"NodeNameToVictims":null,
            "NodeNameToMetaVictims":{"n":{"Pods":[{"UID":"a"}],"NumPDBViolations":2}}}"#;
        let whole = br#"{"Pod":{"metadata":{"name":"p"}},"NodeNameToMetaVictims":null,
            "NodeNameToVictims":{"n":{"Pods":[{"metadata":{"uid":"a"},"spec":{}}],"NumPDBViolations":2}}}"#;
        let expected = [Candidate { node: "n".into(), victims: vec!["a".into()], budget_violations: 2 }];
        assert_eq!(PreemptRequest::read(by_uid).unwrap().candidates, expected);
        assert_eq!(PreemptRequest::read(whole).unwrap().candidates, expected);
    }
}
