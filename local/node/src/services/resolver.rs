//! A pod's `resolv.conf`, and what the machine's own says.

use std::fmt::Write as _;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::PodSpec;

use super::DOMAIN;

/// The text for a pod whose name server is `server`. `machine` is the machine's own file.
pub(crate) fn render(spec: &PodSpec, namespace: &str, server: &str, machine: &str) -> String {
    let mut servers = Vec::new();
    let mut search = Vec::new();
    let mut options: Vec<(String, Option<String>)> = Vec::new();
    match spec.dns_policy.as_deref() {
        Some("None") => {}
        Some("Default") => {
            servers.extend(values(machine, "nameserver"));
            search.extend(values(machine, "search"));
            options.extend(values(machine, "options").into_iter().map(|option| split(&option)));
        }
        // The machine's own domains are left out: a name that is not there yet must fail at once.
        _ => {
            servers.push(server.to_owned());
            search.extend([format!("{namespace}.svc.{DOMAIN}"), format!("svc.{DOMAIN}"), DOMAIN.to_owned()]);
            options.push(("ndots".to_owned(), Some("5".to_owned())));
        }
    }
    if let Some(config) = &spec.dns_config {
        servers.extend(config.nameservers.iter().flatten().cloned());
        search.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let Some(name) = option.name.clone() else { continue };
            options.retain(|(other, _)| *other != name);
            options.push((name, option.value.clone()));
        }
    }
    let mut text = String::new();
    let mut unique = Vec::new();
    for server in servers {
        if !unique.contains(&server) {
            let _ = writeln!(text, "nameserver {server}");
            unique.push(server);
        }
    }
    let mut domains: Vec<String> = Vec::new();
    for domain in search {
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    if !domains.is_empty() {
        let _ = writeln!(text, "search {}", domains.join(" "));
    }
    if !options.is_empty() {
        let shown = options.iter().map(|(name, value)| match value {
            Some(value) => format!("{name}:{value}"),
            None => name.clone(),
        });
        let _ = writeln!(text, "options {}", shown.collect::<Vec<_>>().join(" "));
    }
    text
}

fn split(option: &str) -> (String, Option<String>) {
    match option.split_once(':') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (option.to_owned(), None),
    }
}

/// The words of the last line with this key; of all lines for name servers.
fn values(text: &str, key: &str) -> Vec<String> {
    let mut lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == key).then(|| words.map(str::to_owned).collect::<Vec<_>>())
    });
    if key == "nameserver" { lines.flatten().collect() } else { lines.next_back().unwrap_or_default() }
}

/// The machine's own name servers.
pub(crate) fn name_servers(machine: &str) -> Vec<IpAddr> {
    values(machine, "nameserver").iter().filter_map(|server| server.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MACHINE: &str =
        "# made\nnameserver 127.0.0.53\nnameserver 9.9.9.9\nsearch lan\noptions edns0 ndots:1\n";

    fn text(spec: serde_json::Value) -> String {
        let mut spec = spec;
        spec["containers"] = json!([]);
        render(&serde_json::from_value(spec).unwrap(), "team", "10.96.0.10", MACHINE)
    }

    #[test]
    fn every_policy_has_its_file() {
        let own = "nameserver 10.96.0.10\nsearch team.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";
        assert_eq!(text(json!({})), own);
        assert_eq!(text(json!({"dnsPolicy": "ClusterFirst"})), own);
        assert_eq!(
            text(json!({"dnsPolicy": "Default"})),
            "nameserver 127.0.0.53\nnameserver 9.9.9.9\nsearch lan\noptions edns0 ndots:1\n"
        );
        let config = json!({"nameservers": ["1.1.1.1"], "searches": ["x.y"], "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}]});
        assert_eq!(
            text(json!({"dnsPolicy": "None", "dnsConfig": config})),
            "nameserver 1.1.1.1\nsearch x.y\noptions ndots:2 rotate\n"
        );
        assert!(text(json!({"dnsConfig": config})).ends_with(" cluster.local x.y\noptions ndots:2 rotate\n"));
    }

    #[test]
    fn the_machines_name_servers_are_read() {
        assert_eq!(name_servers(MACHINE), [IpAddr::from([127, 0, 0, 53]), IpAddr::from([9, 9, 9, 9])]);
    }
}
