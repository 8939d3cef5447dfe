//! The hosts file of a pod: how pods find each other by name. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

/// One address behind a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    /// Where.
    pub(crate) address: IpAddr,
    /// The pod's own name within the service.
    pub(crate) hostname: Option<String>,
}

/// The ready endpoints of every service: namespace, service, endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Services {
    by_namespace: BTreeMap<String, BTreeMap<String, Vec<Endpoint>>>,
}

impl Services {
    /// Replaces the endpoints of one service; without endpoints it has no name.
    pub(crate) fn set(&mut self, namespace: &str, service: &str, mut endpoints: Vec<Endpoint>) {
        endpoints.sort();
        endpoints.dedup();
        let services = self.by_namespace.entry(namespace.to_owned()).or_default();
        if endpoints.is_empty() {
            services.remove(service);
        } else {
            services.insert(service.to_owned(), endpoints);
        }
        if services.is_empty() {
            self.by_namespace.remove(namespace);
        }
    }

    fn lines(&self, home: &str, out: &mut String) {
        for (namespace, services) in &self.by_namespace {
            for (service, endpoints) in services {
                for endpoint in endpoints {
                    let mut names = qualified(service, namespace, home);
                    if let Some(hostname) = &endpoint.hostname {
                        names.extend(qualified(&format!("{hostname}.{service}"), namespace, home));
                    }
                    let _ = writeln!(out, "{}\t{}", endpoint.address, names.join(" "));
                }
            }
        }
    }
}

/// The forms under which a name is looked up; the bare one only inside its own namespace.
fn qualified(name: &str, namespace: &str, home: &str) -> Vec<String> {
    let mut names = Vec::new();
    if namespace == home {
        names.push(name.to_owned());
    }
    let long = format!("{name}.{namespace}");
    names.extend([format!("{long}.svc"), format!("{long}.svc.cluster.local")]);
    names.insert(names.len() - 2, long);
    names
}

/// Who the pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The pod's namespace.
    pub(crate) namespace: String,
    /// Its host name.
    pub(crate) hostname: String,
    /// `spec.subdomain`.
    pub(crate) subdomain: Option<String>,
    /// Its address.
    pub(crate) address: IpAddr,
    /// `spec.hostAliases`: address and names.
    pub(crate) aliases: Vec<(String, Vec<String>)>,
}

/// The whole file.
pub(crate) fn render(identity: &Identity, services: &Services) -> String {
    let mut out = String::from(
        "# Kept current by the node: changes made here are lost.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n",
    );
    let Identity { namespace, hostname, subdomain, address, aliases } = identity;
    let full = subdomain.as_ref().map_or_else(String::new, |subdomain| {
        format!("{hostname}.{subdomain}.{namespace}.svc.cluster.local\t")
    });
    let _ = writeln!(out, "{address}\t{full}{hostname}");
    for (address, names) in aliases {
        let _ = writeln!(out, "{address}\t{}", names.join("\t"));
    }
    services.lines(namespace, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            namespace: "team".into(),
            hostname: "job-worker-0".into(),
            subdomain: Some("job".into()),
            address: [10, 244, 0, 7].into(),
            aliases: vec![("1.2.3.4".into(), vec!["db".into()])],
        }
    }

    #[test]
    fn services_of_the_own_namespace_have_short_names() {
        let mut services = Services::default();
        let master = Endpoint { address: [10, 244, 0, 2].into(), hostname: Some("zero".into()) };
        services.set("team", "job-master-0", vec![master.clone()]);
        services.set("other", "db", vec![Endpoint { hostname: None, ..master }]);
        let text = render(&identity(), &services);
        assert!(
            text.contains(
                "\n10.244.0.7\tjob-worker-0.job.team.svc.cluster.local\tjob-worker-0\n1.2.3.4\tdb\n"
            )
        );
        assert!(text.contains(
            "\n10.244.0.2\tjob-master-0 job-master-0.team job-master-0.team.svc job-master-0.team.svc.cluster.local \
             zero.job-master-0 zero.job-master-0.team "
        ));
        assert!(text.contains("\n10.244.0.2\tdb.other db.other.svc db.other.svc.cluster.local\n"));
        services.set("team", "job-master-0", vec![]);
        services.set("other", "db", vec![]);
        assert_eq!(services, Services::default());
    }
}
