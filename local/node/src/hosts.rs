//! The hosts file of a pod: who the pod itself is, and for a pod on the machine's network, which has no name server of
//! ours, how pods find each other. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::services::directory::Directory;

fn service_lines(directory: &Directory, home: &str, out: &mut String) {
    for ((namespace, service), endpoints) in directory.with_endpoints() {
        for endpoint in endpoints {
            let mut names = qualified(service, namespace, home);
            if let Some(hostname) = &endpoint.hostname {
                names.extend(qualified(&format!("{hostname}.{service}"), namespace, home));
            }
            let _ = writeln!(out, "{}\t{}", endpoint.address, names.join(" "));
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
    /// Whether the file names services.
    pub(crate) lists_services: bool,
}

/// The whole file.
pub(crate) fn render(identity: &Identity, directory: &Directory) -> String {
    let mut out = String::from(
        "# Kept current by the node: changes made here are lost.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n",
    );
    let Identity { namespace, hostname, subdomain, address, aliases, lists_services } = identity;
    let full = subdomain.as_ref().map_or_else(String::new, |subdomain| {
        format!("{hostname}.{subdomain}.{namespace}.svc.cluster.local\t")
    });
    let _ = writeln!(out, "{address}\t{full}{hostname}");
    for (address, names) in aliases {
        let _ = writeln!(out, "{address}\t{}", names.join("\t"));
    }
    if *lists_services {
        service_lines(directory, namespace, &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::directory::{Endpoint, Slice};

    fn identity() -> Identity {
        Identity {
            namespace: "team".into(),
            hostname: "job-worker-0".into(),
            subdomain: Some("job".into()),
            address: [10, 244, 0, 7].into(),
            aliases: vec![("1.2.3.4".into(), vec!["db".into()])],
            lists_services: true,
        }
    }

    fn directory() -> Directory {
        let mut directory = Directory::default();
        let master = Endpoint { address: [10, 244, 0, 2].into(), hostname: Some("zero".into()) };
        let mut set = |namespace: &str, service: &str, endpoint| {
            let slice = Slice { ports: Vec::new(), endpoints: vec![endpoint] };
            directory
                .set_slice((namespace.to_owned(), format!("{service}-x")), Some((service.to_owned(), slice)));
        };
        set("team", "job-master-0", master.clone());
        set("other", "db", Endpoint { hostname: None, ..master });
        directory
    }

    #[test]
    fn services_of_the_own_namespace_have_short_names() {
        let text = render(&identity(), &directory());
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
    }

    #[test]
    fn a_pod_with_a_name_server_has_its_own_names_alone() {
        let text = render(&Identity { lists_services: false, ..identity() }, &directory());
        assert!(text.ends_with("\tjob-worker-0\n1.2.3.4\tdb\n"), "{text}");
    }
}
