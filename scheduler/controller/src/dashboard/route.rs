//! What there is to ask for: paths, methods and parameters, in one table that also describes itself.

use std::collections::BTreeMap;

use http::Method;
use percent_encoding::percent_decode_str;

use super::problem::Problem;

/// What an answer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Gangs,
    Gang,
    Queues,
    Nodes,
    Topology,
    WhatIf,
    Description,
}

/// A parameter of a query.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
}

/// Something to ask for.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) subject: Subject,
    /// Segments in braces stand for any text.
    pub(super) path: &'static str,
    pub(super) about: &'static str,
    pub(super) parameters: &'static [Parameter],
}

const NAMESPACE: Parameter = Parameter {
    name: "namespace",
    about: "only those of this namespace; it takes the right to list its pods, without it those of all namespaces",
};

/// Everything that there is.
pub(super) const ROUTES: &[Route] = &[
    Route {
        subject: Subject::Gangs,
        path: "/v1/gangs",
        about: "Gangs that wait or run, by namespace and name: why each waits, its place in line, when it is \
                expected to start, and what would let it start",
        parameters: &[
            NAMESPACE,
            Parameter { name: "queue", about: "only those of this queue" },
            Parameter { name: "phase", about: "only those that are Waiting or Running" },
            Parameter { name: "limit", about: "at most so many, from 1 to 500 (default 250)" },
            Parameter { name: "continue", about: "what the page before gave: from there on" },
        ],
    },
    Route {
        subject: Subject::Gang,
        path: "/v1/gangs/{namespace}/{name}",
        about: "One gang, or a pod without one by the pod's name, as `muster explain -o json` prints it",
        parameters: &[],
    },
    Route {
        subject: Subject::Queues,
        path: "/v1/queues",
        about: "Queues with what is used and borrowed, and how many gangs wait and run",
        parameters: &[],
    },
    Route {
        subject: Subject::Nodes,
        path: "/v1/nodes",
        about: "Nodes with free and all GPUs, and their domains",
        parameters: &[],
    },
    Route {
        subject: Subject::Topology,
        path: "/v1/topology",
        about: "Levels and domains over the nodes, with free and all GPUs",
        parameters: &[],
    },
    Route {
        subject: Subject::WhatIf,
        path: "/v1/whatif",
        about: "When and where the jobs of a manifest (YAML or JSON) would start, or without a manifest, who would \
                start with more nodes; as `muster whatif -o json` prints it. Nothing is created, but the API server \
                is asked with dry runs, which takes the caller's right to create the objects",
        parameters: &[
            Parameter { name: "namespace", about: "of objects that name none (default: default)" },
            Parameter { name: "addNodes", about: "so many more nodes, from 1 to 10000" },
            Parameter { name: "like", about: "the node that those would be like" },
        ],
    },
    Route {
        subject: Subject::Description,
        path: "/openapi.json",
        about: "This description",
        parameters: &[],
    },
];

/// What was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) route: &'static Route,
    /// What stood for the segments in braces.
    segments: BTreeMap<&'static str, String>,
    query: BTreeMap<&'static str, String>,
}

impl Route {
    /// The method that it understands; who may GET may HEAD.
    pub(super) fn is_post(&self) -> bool {
        self.subject == Subject::WhatIf
    }

    fn allowed(&self) -> &'static str {
        if self.is_post() { "POST" } else { "GET, HEAD" }
    }

    /// The segments in braces, where the path is one of this route.
    fn segments(&self, path: &str) -> Option<BTreeMap<&'static str, String>> {
        let (mut template, mut actual) = (self.path.split('/'), path.split('/'));
        let mut found = BTreeMap::new();
        loop {
            match (template.next(), actual.next()) {
                (None, None) => return Some(found),
                (Some(wanted), Some(segment)) => {
                    match wanted.strip_prefix('{').and_then(|wanted| wanted.strip_suffix('}')) {
                        Some(_) if segment.is_empty() => return None,
                        Some(name) => {
                            found.insert(name, percent_decode_str(segment).decode_utf8().ok()?.into_owned());
                        }
                        None if wanted == segment => {}
                        None => return None,
                    }
                }
                _ => return None,
            }
        }
    }

    fn query(&self, query: &str) -> Result<BTreeMap<&'static str, String>, Problem> {
        let mut found = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| {
                let text = text.replace('+', " ");
                let decoded = percent_decode_str(&text).decode_utf8().map(std::borrow::Cow::into_owned);
                decoded.map_err(|_| Problem::Parameter(format!("the query holds {pair}, which is not UTF-8")))
            };
            let (name, value) = (decode(name)?, decode(value)?);
            let known = self.parameters.iter().find(|parameter| parameter.name == name).ok_or_else(|| {
                let names: Vec<&str> = self.parameters.iter().map(|parameter| parameter.name).collect();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                Problem::Parameter(format!("{} has no parameter {name}; known: {names}", self.path))
            })?;
            if found.insert(known.name, value).is_some() {
                return Err(Problem::Parameter(format!("the parameter {name} is given twice")));
            }
        }
        Ok(found)
    }
}

impl Asked {
    /// What a request asks for.
    pub(super) fn read(method: &Method, path: &str, query: &str) -> Result<Self, Problem> {
        let found = ROUTES.iter().find_map(|route| Some((route, route.segments(path)?)));
        let (route, segments) = found.ok_or_else(|| Problem::NoSuchPage(path.to_owned()))?;
        let understood = if route.is_post() {
            method == Method::POST
        } else {
            method == Method::GET || method == Method::HEAD
        };
        if !understood {
            let (method, path, allowed) = (method.to_string(), path.to_owned(), route.allowed());
            return Err(Problem::Method { method, path, allowed });
        }
        Ok(Self { route, segments, query: route.query(query)? })
    }

    /// A segment of the path.
    pub(super) fn segment(&self, name: &str) -> String {
        self.segments.get(name).cloned().unwrap_or_default()
    }

    /// A parameter of the query, unless it is empty.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A number of the query.
    pub(super) fn number(&self, name: &str, from: usize, to: usize) -> Result<Option<usize>, Problem> {
        let Some(text) = self.parameter(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (from..=to).contains(number));
        let wrong = || Problem::Parameter(format!("{name} must be a number from {from} to {to}, not {text}"));
        number.map(Some).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &Method, target: &str) -> Result<Asked, Problem> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Asked::read(method, path, query)
    }

    #[test]
    fn paths_and_parameters_are_decoded() {
        let asked = read(&Method::GET, "/v1/gangs/a/pod%20web").unwrap();
        assert_eq!((asked.route.subject, asked.segment("namespace")), (Subject::Gang, "a".to_owned()));
        assert_eq!(asked.segment("name"), "pod web");
        let asked = read(&Method::HEAD, "/v1/gangs?queue=a%2Fb&phase=&continue=x+y&limit=7").unwrap();
        assert_eq!((asked.route.subject, asked.parameter("queue")), (Subject::Gangs, Some("a/b")));
        assert_eq!((asked.parameter("phase"), asked.parameter("continue")), (None, Some("x y")));
        assert_eq!(asked.number("limit", 1, 500).unwrap(), Some(7));
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        let wrong = |method: &Method, target: &str| match read(method, target) {
            Ok(asked) => asked.number("limit", 1, 500).unwrap_err().to_string(),
            Err(problem) => problem.to_string(),
        };
        let wrong: Vec<String> = [
            (Method::GET, "/v1/gang"),
            (Method::GET, "/v1/gangs/"),
            (Method::GET, "/v1/gangs/a"),
            (Method::GET, "/v1/gangs/a/%FF"),
            (Method::OPTIONS, "/v1/gangs"),
            (Method::GET, "/v1/whatif"),
            (Method::GET, "/v1/gangs?namespaces=a"),
            (Method::GET, "/v1/nodes?limit=3"),
            (Method::GET, "/v1/gangs?queue=a&queue=b"),
            (Method::GET, "/v1/gangs?queue=%FF"),
            (Method::GET, "/v1/gangs?limit=0"),
            (Method::GET, "/v1/gangs?limit=many"),
        ]
        .iter()
        .map(|(method, target)| wrong(method, target))
        .collect();
        insta::assert_snapshot!(wrong.join("\n"));
    }
}
