//! The variables by which a container finds the services that existed when it started.

use super::directory::Directory;

/// The variables for a container of the namespace. Those of the API server are always there, those of other services
/// only with `links`.
pub(crate) fn variables(directory: &Directory, namespace: &str, links: bool) -> Vec<(String, String)> {
    let services: Vec<_> = if links {
        directory.addressed(namespace).collect()
    } else {
        directory.api_entry().into_iter().collect()
    };
    let mut all = Vec::new();
    for (name, address, ports) in services {
        let Some(first) = ports.first() else { continue };
        let name = variable_name(&name);
        all.push((format!("{name}_SERVICE_HOST"), address.to_string()));
        all.push((format!("{name}_SERVICE_PORT"), first.number.to_string()));
        for port in ports.iter().filter(|port| !port.name.is_empty()) {
            let port_name = variable_name(&port.name);
            all.push((format!("{name}_SERVICE_PORT_{port_name}"), port.number.to_string()));
        }
        for (place, port) in ports.iter().enumerate() {
            let (protocol, number) = (port.protocol.name(), port.number);
            let url = format!("{protocol}://{address}:{number}");
            if place == 0 {
                all.push((format!("{name}_PORT"), url.clone()));
            }
            let prefix = format!("{name}_PORT_{number}_{}", protocol.to_uppercase());
            all.push((format!("{prefix}_PROTO"), protocol.to_owned()));
            all.push((format!("{prefix}_PORT"), number.to_string()));
            all.push((format!("{prefix}_ADDR"), address.to_string()));
            all.push((prefix, url));
        }
    }
    all
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::super::directory::tests::directory;
    use super::*;

    #[test]
    fn services_with_an_address_have_variables() {
        let variables = variables(&directory(), "team", true);
        let text: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        for line in [
            "WEB_SERVICE_HOST=10.96.7.8",
            "WEB_SERVICE_PORT=80",
            "WEB_SERVICE_PORT_HTTP=80",
            "WEB_SERVICE_PORT_DNS_UDP=53",
            "WEB_PORT=tcp://10.96.7.8:80",
            "WEB_PORT_80_TCP=tcp://10.96.7.8:80",
            "WEB_PORT_80_TCP_PROTO=tcp",
            "WEB_PORT_80_TCP_PORT=80",
            "WEB_PORT_80_TCP_ADDR=10.96.7.8",
            "WEB_PORT_53_UDP=udp://10.96.7.8:53",
            "KUBERNETES_SERVICE_HOST=10.96.0.1",
            "KUBERNETES_SERVICE_PORT=443",
            "KUBERNETES_SERVICE_PORT_HTTPS=443",
            "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1",
        ] {
            assert!(text.iter().any(|other| other == line), "{line} is missing in {text:?}");
        }
        assert!(!text.iter().any(|line| line.starts_with("DB_") || line.starts_with("FAR_")));
    }

    #[test]
    fn without_links_and_in_other_namespaces_only_the_api_server_is_there() {
        for (namespace, links) in [("team", false), ("other", true)] {
            let variables = variables(&directory(), namespace, links);
            assert!(variables.iter().all(|(name, _)| name.starts_with("KUBERNETES_")), "{variables:?}");
            assert_eq!(variables.len(), 8);
        }
    }
}
