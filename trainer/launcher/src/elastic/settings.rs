//! How an elastic job meets, from options and from the variables of a pod. Pure.
//!
//! Where Muster's trainer runs the job, its pods are told of a rendezvous beside the controller, which outlives them all.
//! Elsewhere the place of torchrun's is taken: the node that the endpoint names holds the rendezvous.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use muster_rendezvous::Bounds;

use crate::arguments::PlaceArguments;
use crate::variables::Variables;
use crate::world::{self, Error, Resources, split_endpoint};

/// torchrun's defaults.
const DEFAULT_PORT: u16 = 29400;
const JOIN_TIMEOUT: Duration = Duration::from_mins(10);
const LAST_CALL: Duration = Duration::from_secs(30);
/// How long those are awaited that the job has, which is less of a guess.
const LAST_CALL_FOR_KNOWN: Duration = Duration::from_secs(10);

/// What an agent knows before it takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Workers of each node.
    pub(crate) workers: NonZeroUsize,
    /// How many nodes may take part.
    pub(crate) bounds: Bounds,
    pub(crate) rendezvous: Rendezvous,
    /// Where rank 0 listens if it is here; 0 for any that is free.
    pub(crate) master_port: u16,
    /// In which there must be enough nodes.
    pub(crate) join_timeout: Duration,
    /// In which more may come.
    pub(crate) last_call: Duration,
}

/// Where the nodes meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rendezvous {
    /// At a service that knows by a token which job this is.
    Service {
        addresses: Vec<String>,
        /// Certificate authority, PEM.
        authority: Option<String>,
        token_file: Option<PathBuf>,
    },
    /// At one of them.
    Node {
        host: String,
        port: u16,
        /// The job's name there.
        job: String,
        /// Whether this is the one, if that is said.
        is_here: Option<bool>,
    },
}

impl Rendezvous {
    /// Where it is called.
    pub(crate) fn addresses(&self) -> Vec<String> {
        match self {
            Self::Service { addresses, .. } => addresses.clone(),
            Self::Node { host, port, .. } => vec![format!("http://{host}:{port}")],
        }
    }
}

impl Settings {
    /// Those of a job whose nodes a rendezvous brings together; none if every node knows which one it is.
    pub(crate) fn read(
        options: &PlaceArguments,
        variable: impl Fn(&str) -> Option<String>,
        resources: Resources,
    ) -> Result<Option<Self>, Error> {
        let variables = Variables(&variable);
        let text = |given: &Option<String>, name: &'static str, option: &'static str| match given {
            Some(given) => Some((option, given.clone())),
            None => variables.text(name).map(|value| (name, value)),
        };
        let nodes = text(&options.nnodes, "PET_NNODES", "--nnodes");
        let Some(rendezvous) = rendezvous(options, &variables, nodes.as_ref())? else { return Ok(None) };
        let replicas = variables.parsed::<usize>("MUSTER_REPLICAS", "a number")?;
        let ranks = variables.text("MUSTER_RANKS").filter(|_| options.nnodes.is_none());
        let nodes = ranks.map(|ranks| ("MUSTER_RANKS", ranks)).or(nodes);
        let (fewest, most) = match &nodes {
            Some((name, value)) => range(name, value)?,
            None => (1, 1),
        };
        let bounds = Bounds { fewest, expected: replicas.unwrap_or(most).clamp(fewest, most), most };
        let settings = match text(&options.rdzv_conf, "PET_RDZV_CONF", "--rdzv-conf") {
            Some((name, value)) => Configuration::read(name, &value)?,
            None => Configuration::default(),
        };
        let rendezvous = match rendezvous {
            Rendezvous::Node { host, port, job, .. } => {
                Rendezvous::Node { host, port, job, is_here: settings.is_host }
            }
            service @ Rendezvous::Service { .. } => service,
        };
        let usual = if replicas.is_some() { LAST_CALL_FOR_KNOWN } else { LAST_CALL };
        Ok(Some(Self {
            workers: world::workers(options, &variables, resources)?,
            bounds,
            rendezvous,
            master_port: options.master_port.unwrap_or(0),
            join_timeout: settings.join_timeout.unwrap_or(JOIN_TIMEOUT),
            last_call: settings.last_call.unwrap_or(usual),
        }))
    }
}

/// Where the nodes meet, if it takes a meeting to know who they are.
fn rendezvous(
    options: &PlaceArguments,
    variables: &Variables<'_>,
    nodes: Option<&(&'static str, String)>,
) -> Result<Option<Rendezvous>, Error> {
    let changes =
        nodes.is_some_and(|(_, text)| text.split_once(':').is_some_and(|(fewest, most)| fewest != most));
    // With one node there is nothing to agree on.
    let is_alone = nodes.is_none_or(|(_, text)| matches!(text.trim(), "1" | "1:1"));
    let knows_rank = options.node_rank.is_some()
        || ["PET_NODE_RANK", "RANK"].into_iter().any(|name| variables.text(name).is_some());
    if options.node_rank.is_some() && !changes {
        return Ok(None);
    }
    if let (Some(addresses), None) = (variables.text("MUSTER_RENDEZVOUS"), &options.rdzv_endpoint) {
        return Ok(Some(Rendezvous::Service {
            addresses: addresses.split(',').map(|address| address.trim().to_owned()).collect(),
            authority: variables.text("MUSTER_RENDEZVOUS_CA"),
            token_file: variables.text("MUSTER_RENDEZVOUS_TOKEN_FILE").map(PathBuf::from),
        }));
    }
    let is_wanted = changes || options.rdzv_endpoint.is_some() || !(knows_rank || is_alone);
    let (name, endpoint) = match (&options.rdzv_endpoint, variables.text("PET_RDZV_ENDPOINT")) {
        (Some(endpoint), _) => ("--rdzv-endpoint", endpoint.clone()),
        (None, Some(endpoint)) => ("PET_RDZV_ENDPOINT", endpoint),
        // Without one, whoever reads the number of nodes says what is missing.
        (None, None) => return Ok(None),
    };
    if !is_wanted {
        return Ok(None);
    }
    if let Some(value) = variables.text("PET_RDZV_BACKEND").filter(|value| value != "c10d") {
        let expected = "c10d, which is the one that nodes hold themselves".to_owned();
        return Err(Error::Invalid { name: "PET_RDZV_BACKEND", value, expected });
    }
    let (host, port) = split_endpoint(&endpoint);
    let port = match port.map(str::parse) {
        None => DEFAULT_PORT,
        Some(Ok(port)) if port != 0 => port,
        Some(_) => {
            let expected = "a host and a port that all nodes know".to_owned();
            return Err(Error::Invalid { name, value: endpoint, expected });
        }
    };
    let id = options.rdzv_id.clone().or_else(|| variables.text("PET_RDZV_ID"));
    let job = id.unwrap_or_else(|| "none".to_owned());
    Ok(Some(Rendezvous::Node { host: host.to_owned(), port, job, is_here: None }))
}

/// Reads `N` or `FEWEST:MOST`.
fn range(name: &'static str, text: &str) -> Result<(usize, usize), Error> {
    let (fewest, most) = text.split_once(':').unwrap_or((text, text));
    let pair = fewest.trim().parse().ok().zip(most.trim().parse().ok());
    pair.filter(|(fewest, most)| (1..=*most).contains(fewest)).ok_or_else(|| Error::Invalid {
        name,
        value: text.to_owned(),
        expected: "a number from 1, or the fewest and the most, such as 2:4".to_owned(),
    })
}

/// What of torchrun's settings counts here. Those of its store and of its signs of life are left to the connection.
#[derive(Debug, Default)]
struct Configuration {
    join_timeout: Option<Duration>,
    last_call: Option<Duration>,
    is_host: Option<bool>,
}

impl Configuration {
    /// Reads `key=value,key=value`.
    fn read(name: &'static str, text: &str) -> Result<Self, Error> {
        let invalid =
            |expected: &str| Error::Invalid { name, value: text.to_owned(), expected: expected.to_owned() };
        let mut read = Self::default();
        for setting in text.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
            let (key, value) =
                setting.split_once('=').ok_or_else(|| invalid("settings such as join_timeout=600"))?;
            let value = value.trim();
            let seconds = || {
                let seconds =
                    value.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                seconds.ok_or_else(|| invalid("settings whose timeouts are seconds"))
            };
            match key.trim() {
                "join_timeout" => read.join_timeout = Some(seconds()?),
                "last_call_timeout" => read.last_call = Some(seconds()?),
                "is_host" => {
                    read.is_host = Some(match value.to_ascii_lowercase().as_str() {
                        "1" | "true" | "t" | "yes" | "y" => true,
                        "0" | "false" | "f" | "no" | "n" => false,
                        _ => return Err(invalid("settings whose is_host is true or false")),
                    });
                }
                _ => {}
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESOURCES: Resources = Resources { processors: NonZeroUsize::MIN, gpus: 0 };

    fn read(options: PlaceArguments, variables: &[(&str, &str)]) -> Result<Option<Settings>, Error> {
        let variable = |name: &str| {
            variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned())
        };
        Settings::read(&options, variable, RESOURCES)
    }

    fn from(variables: &[(&str, &str)]) -> Result<Option<Settings>, Error> {
        read(PlaceArguments::default(), variables)
    }

    /// A worker of an elastic PyTorchJob of another operator.
    const WORKER: [(&str, &str); 4] = [
        ("PET_NNODES", "2:4"),
        ("PET_RDZV_BACKEND", "c10d"),
        ("PET_RDZV_ENDPOINT", "job-worker-0:23456"),
        ("PET_NPROC_PER_NODE", "2"),
    ];

    #[test]
    fn a_pod_of_an_elastic_job_meets_at_its_endpoint() {
        let settings = from(&WORKER).unwrap().unwrap();
        assert_eq!(settings.bounds, Bounds { fewest: 2, expected: 4, most: 4 });
        assert_eq!(settings.rendezvous.addresses(), ["http://job-worker-0:23456"]);
        assert_eq!((settings.workers.get(), settings.master_port), (2, 0));
        assert_eq!((settings.join_timeout, settings.last_call), (JOIN_TIMEOUT, LAST_CALL));
        let conf = ("PET_RDZV_CONF", "join_timeout=60, last_call_timeout=1.5,is_host=0,read_timeout=5");
        let settings = from(&[&WORKER[..], &[conf, ("PET_RDZV_ID", "seven")]].concat()).unwrap().unwrap();
        assert_eq!(settings.join_timeout, Duration::from_mins(1));
        assert_eq!(settings.last_call, Duration::from_millis(1500));
        let expected = Rendezvous::Node {
            host: "job-worker-0".into(),
            port: 23456,
            job: "seven".into(),
            is_here: Some(false),
        };
        assert_eq!(settings.rendezvous, expected);
    }

    #[test]
    fn a_pod_of_an_elastic_job_of_musters_trainer_meets_at_its_service() {
        let own = [
            ("MUSTER_RENDEZVOUS", "https://10.0.0.1:9445, https://muster:9445"),
            ("MUSTER_RENDEZVOUS_CA", "pem"),
            ("MUSTER_RENDEZVOUS_TOKEN_FILE", "/token"),
            ("MUSTER_RANKS", "3:5"),
            ("MUSTER_REPLICAS", "4"),
        ];
        let settings = from(&[&WORKER[..], &own].concat()).unwrap().unwrap();
        let expected = Rendezvous::Service {
            addresses: vec!["https://10.0.0.1:9445".into(), "https://muster:9445".into()],
            authority: Some("pem".into()),
            token_file: Some("/token".into()),
        };
        assert_eq!(settings.rendezvous, expected);
        assert_eq!(settings.bounds, Bounds { fewest: 3, expected: 4, most: 5 });
        assert_eq!(settings.last_call, LAST_CALL_FOR_KNOWN);
    }

    #[test]
    fn who_knows_its_rank_needs_no_rendezvous() {
        let fixed = [("PET_NNODES", "2:2"), WORKER[1], WORKER[2]];
        assert!(from(&fixed).unwrap().is_some());
        assert_eq!(from(&[&fixed[..], &[("RANK", "1")]].concat()).unwrap(), None);
        assert_eq!(from(&[("PET_NNODES", "1:1"), WORKER[2]]).unwrap(), None);
        let options = PlaceArguments { node_rank: Some(1), ..Default::default() };
        assert_eq!(read(options, &fixed).unwrap(), None);
        assert_eq!(from(&[]).unwrap(), None);
        let options = PlaceArguments { rdzv_endpoint: Some("here".into()), ..Default::default() };
        let alone = read(options, &[]).unwrap().unwrap();
        assert_eq!(alone.bounds, Bounds { fewest: 1, expected: 1, most: 1 });
        assert_eq!(alone.rendezvous.addresses(), ["http://here:29400"]);
    }

    #[test]
    fn errors_name_the_variable() {
        let error = |name: &'static str, value: &'static str| {
            let kept = WORKER.into_iter().filter(|(other, _)| *other != name);
            from(&kept.chain([(name, value)]).collect::<Vec<_>>()).unwrap_err().to_string()
        };
        assert!(error("PET_NNODES", "4:2").starts_with("PET_NNODES is \"4:2\", not a number from 1, or the"));
        assert!(error("PET_NNODES", "0:2").starts_with("PET_NNODES is \"0:2\""));
        assert!(error("PET_RDZV_BACKEND", "etcd").starts_with("PET_RDZV_BACKEND is \"etcd\", not c10d"));
        assert!(
            error("PET_RDZV_ENDPOINT", "here:0").starts_with("PET_RDZV_ENDPOINT is \"here:0\", not a host")
        );
        assert!(error("PET_RDZV_CONF", "join_timeout=-1").contains("timeouts are seconds"));
        assert!(error("PET_RDZV_CONF", "join_timeout").contains("such as join_timeout=600"));
    }
}
