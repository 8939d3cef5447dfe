//! Answers about the names of the cluster.

use std::net::{IpAddr, Ipv4Addr};

use super::DOMAIN;
use super::directory::{Access, Directory, Endpoint, Port, Service};
use super::message::{Answer, Code, Data, Record, kind};

/// What to do with a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This is the answer.
    Answer(Answer),
    /// The name stands for another one, which other servers know.
    Alias(String),
    /// Other servers know.
    Elsewhere,
}

/// Finds out about a name in lower case without the last dot.
pub(crate) fn look_up(directory: &Directory, name: &str, asked: u16) -> Verdict {
    if let Some(reversed) = name.strip_suffix(".in-addr.arpa") {
        return reverse(directory, name, reversed);
    }
    let Some(inner) = name.strip_suffix(DOMAIN) else { return Verdict::Elsewhere };
    let Some(inner) = inner.strip_suffix('.').or_else(|| inner.is_empty().then_some("")) else {
        return Verdict::Elsewhere;
    };
    let labels: Vec<&str> = inner.split('.').filter(|label| !label.is_empty()).collect();
    let found = match labels.as_slice() {
        [] | ["svc" | "pod"] => Some(Found::default()),
        [namespace, "svc" | "pod"] => directory.has_namespace(namespace).then(Found::default),
        [service, namespace, "svc"] => {
            let Some(found) = directory.service(namespace, service) else { return missing() };
            if let Access::External(target) = found.access {
                return match look_up(directory, &target, asked) {
                    Verdict::Elsewhere => Verdict::Alias(target),
                    Verdict::Answer(mut answer) => {
                        answer.records.insert(0, record(name, Data::Alias(target)));
                        Verdict::Answer(answer)
                    }
                    Verdict::Alias(_) => missing(),
                };
            }
            Some(of_service(directory, &found, namespace, service, name))
        }
        [host, service, namespace, "svc"] => of_host(directory, host, service, namespace, name),
        [port, protocol, service, namespace, "svc"] => {
            of_port(directory, port, protocol, service, namespace, name)
        }
        [dashed, _, "pod"] => dashed_address(dashed).map(|address| Found::one(name, address.into())),
        _ => None,
    };
    let Some(found) = found else { return missing() };
    let fits = |data: &Data| {
        let own = match data {
            Data::Address(_) => kind::A,
            Data::LongAddress(_) => kind::AAAA,
            _ => kind::SRV,
        };
        asked == own || asked == kind::ANY
    };
    let records: Vec<Record> = found.records.into_iter().filter(|record| fits(&record.data)).collect();
    let authority = if records.is_empty() { vec![record(DOMAIN, Data::Authority)] } else { Vec::new() };
    Verdict::Answer(Answer { code: Code::Success, records, authority, further: found.further })
}

#[derive(Default)]
struct Found {
    records: Vec<Record>,
    further: Vec<Record>,
}

impl Found {
    fn one(name: &str, address: IpAddr) -> Self {
        Self { records: vec![record(name, address_data(address))], further: Vec::new() }
    }
}

fn record(name: &str, data: Data) -> Record {
    Record { name: name.to_owned(), data }
}

fn address_data(address: IpAddr) -> Data {
    match address {
        IpAddr::V4(address) => Data::Address(address),
        IpAddr::V6(address) => Data::LongAddress(address),
    }
}

fn missing() -> Verdict {
    let authority = vec![record(DOMAIN, Data::Authority)];
    Verdict::Answer(Answer { authority, ..Answer::empty(Code::NoSuchName) })
}

fn of_service(
    directory: &Directory,
    service: &Service,
    namespace: &str,
    service_name: &str,
    name: &str,
) -> Found {
    if let Access::Cluster(address) = service.access {
        return Found::one(name, address.into());
    }
    let endpoints = directory.endpoints(namespace, service_name);
    let records = endpoints.iter().map(|endpoint| record(name, address_data(endpoint.address)));
    Found { records: records.collect(), further: Vec::new() }
}

fn of_host(directory: &Directory, host: &str, service: &str, namespace: &str, name: &str) -> Option<Found> {
    let endpoints = directory.endpoints(namespace, service);
    let mut fitting = endpoints.into_iter().filter(|endpoint| host_of(endpoint) == host).peekable();
    fitting.peek()?;
    let records = fitting.map(|endpoint| record(name, address_data(endpoint.address)));
    Some(Found { records: records.collect(), further: Vec::new() })
}

fn of_port(
    directory: &Directory,
    port: &str,
    protocol: &str,
    service_name: &str,
    namespace: &str,
    name: &str,
) -> Option<Found> {
    let (port, protocol) = (port.strip_prefix('_')?, protocol.strip_prefix('_')?);
    let service = directory.service(namespace, service_name)?;
    let fits = |other: &&Port| other.name == port && other.protocol.name() == protocol;
    let number = service.ports.iter().find(fits)?.number;
    let long = format!("{service_name}.{namespace}.svc.{DOMAIN}");
    let mut found = Found::default();
    let mut add = |target: String, address: IpAddr| {
        found.records.push(record(name, Data::Service { port: number, target: target.clone() }));
        found.further.push(record(&target, address_data(address)));
    };
    match service.access {
        Access::Cluster(address) => add(long, address.into()),
        _ => {
            for endpoint in directory.endpoints(namespace, service_name) {
                add(format!("{}.{long}", host_of(endpoint)), endpoint.address);
            }
        }
    }
    Some(found)
}

/// The name of an endpoint within its service.
fn host_of(endpoint: &Endpoint) -> String {
    endpoint.hostname.clone().unwrap_or_else(|| endpoint.address.to_string().replace(['.', ':'], "-"))
}

fn dashed_address(text: &str) -> Option<Ipv4Addr> {
    text.replace('-', ".").parse().ok()
}

/// `reversed` is the address back to front.
fn reverse(directory: &Directory, name: &str, reversed: &str) -> Verdict {
    let text: Vec<&str> = reversed.split('.').rev().collect();
    let Ok(address) = text.join(".").parse::<Ipv4Addr>() else { return Verdict::Elsewhere };
    let service = directory.at_address(address).map(|(namespace, service)| format!("{service}.{namespace}"));
    let endpoint = || {
        directory.with_endpoints().find_map(|((namespace, service), endpoints)| {
            let found = endpoints.into_iter().find(|endpoint| endpoint.address == IpAddr::V4(address))?;
            Some(format!("{}.{service}.{namespace}", host_of(found)))
        })
    };
    let Some(target) = service.or_else(endpoint) else {
        let ours = matches!(address.octets(), [10, 96 | 244, ..]);
        return if ours { missing() } else { Verdict::Elsewhere };
    };
    let records = vec![record(name, Data::Pointer(format!("{target}.svc.{DOMAIN}")))];
    Verdict::Answer(Answer { records, ..Answer::empty(Code::Success) })
}

#[cfg(test)]
mod tests {
    use super::super::directory::tests::directory;
    use super::*;

    fn shown(name: &str, asked: u16) -> String {
        match look_up(&directory(), name, asked) {
            Verdict::Elsewhere => "elsewhere".to_owned(),
            Verdict::Alias(target) => format!("alias {target}"),
            Verdict::Answer(answer) if answer.code == Code::NoSuchName => "no such name".to_owned(),
            Verdict::Answer(answer) => {
                let text = |record: &Record| match &record.data {
                    Data::Address(address) => address.to_string(),
                    Data::Pointer(name) | Data::Alias(name) => name.clone(),
                    Data::Service { port, target } => format!("{target}:{port}"),
                    other => format!("{other:?}"),
                };
                answer.records.iter().map(text).collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn every_kind_of_name_is_found() {
        for (name, asked, expected) in [
            ("web.team.svc.cluster.local", kind::A, "10.96.7.8"),
            ("web.team.svc.cluster.local", kind::AAAA, ""),
            ("kubernetes.default.svc.cluster.local", kind::A, "10.96.0.1"),
            ("db.team.svc.cluster.local", kind::A, "10.244.0.8 10.244.0.9"),
            ("db-0.db.team.svc.cluster.local", kind::A, "10.244.0.8"),
            ("10-244-0-9.db.team.svc.cluster.local", kind::A, "10.244.0.9"),
            ("db-1.db.team.svc.cluster.local", kind::A, "no such name"),
            ("_http._tcp.web.team.svc.cluster.local", kind::SRV, "web.team.svc.cluster.local:80"),
            (
                "_sql._tcp.db.team.svc.cluster.local",
                kind::SRV,
                "db-0.db.team.svc.cluster.local:5432 10-244-0-9.db.team.svc.cluster.local:5432",
            ),
            ("_sql._udp.db.team.svc.cluster.local", kind::SRV, "no such name"),
            ("far.team.svc.cluster.local", kind::A, "alias example.com"),
            ("10-244-3-4.team.pod.cluster.local", kind::A, "10.244.3.4"),
            ("team.svc.cluster.local", kind::A, ""),
            ("nobody.svc.cluster.local", kind::A, "no such name"),
            ("gone.team.svc.cluster.local", kind::A, "no such name"),
            ("cluster.local", kind::A, ""),
            ("notcluster.local", kind::A, "elsewhere"),
            ("example.com", kind::A, "elsewhere"),
            ("8.7.96.10.in-addr.arpa", kind::PTR, "web.team.svc.cluster.local"),
            ("8.0.244.10.in-addr.arpa", kind::PTR, "db-0.db.team.svc.cluster.local"),
            ("99.0.244.10.in-addr.arpa", kind::PTR, "no such name"),
            ("1.1.168.192.in-addr.arpa", kind::PTR, "elsewhere"),
        ] {
            assert_eq!(shown(name, asked), expected, "{name}");
        }
    }

    #[test]
    fn a_missing_name_says_who_is_responsible() {
        let Verdict::Answer(answer) = look_up(&directory(), "x.y.svc.cluster.local", kind::A) else {
            unreachable!()
        };
        assert_eq!(answer.authority[0].data, Data::Authority);
    }
}
