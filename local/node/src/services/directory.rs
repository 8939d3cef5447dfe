//! The services of the cluster and their ready endpoints.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Namespace and name of the service that stands for the API server.
const API: (&str, &str) = ("default", "kubernetes");
/// Where the API server is in every cluster of this kind.
const API_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const API_PORT: u16 = 443;

/// Namespace and name.
pub(crate) type Key = (String, String);

/// What carries the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// As names of variables and records have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some(_) => None,
        }
    }
}

/// A port of a service, or of the endpoints behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    /// The name joins a service's port with those of its endpoints; empty for a single port.
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) number: u16,
}

/// How a service is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    /// At an address of its own.
    Cluster(Ipv4Addr),
    /// At the addresses of its endpoints.
    Headless,
    /// It is another name.
    External(String),
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) access: Access,
    pub(crate) ports: Vec<Port>,
    /// A client stays with one endpoint.
    pub(crate) sticky: bool,
}

impl Service {
    /// Reads the object; `None` if it says nothing that pods can use.
    pub(crate) fn read(object: &core::Service) -> Option<Self> {
        let spec = object.spec.as_ref()?;
        let access = match (spec.type_.as_deref(), spec.cluster_ip.as_deref()) {
            (Some("ExternalName"), _) => Access::External(spec.external_name.clone()?.to_lowercase()),
            (_, Some("None")) => Access::Headless,
            (_, address) => Access::Cluster(address?.parse().ok()?),
        };
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: Protocol::parse(port.protocol.as_deref())?,
                number: u16::try_from(port.port).ok()?,
            })
        });
        let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
        Some(Self { access, ports: ports.collect(), sticky })
    }
}

/// One address behind a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    /// Where.
    pub(crate) address: IpAddr,
    /// The pod's own name within the service.
    pub(crate) hostname: Option<String>,
}

/// Ready endpoints with the same ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) ports: Vec<Port>,
    pub(crate) endpoints: Vec<Endpoint>,
}

impl Slice {
    /// Reads the object: the name of its service, and what it says.
    pub(crate) fn read(object: &EndpointSlice) -> Option<(String, Self)> {
        let service = object.labels().get(SERVICE_NAME)?.clone();
        let ports = object.ports.iter().flatten().filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: Protocol::parse(port.protocol.as_deref())?,
                number: u16::try_from(port.port?).ok()?,
            })
        });
        let ready = object.endpoints.iter().flatten().filter(|endpoint| {
            endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
        });
        let endpoints = ready.flat_map(|endpoint| {
            let addresses = endpoint.addresses.iter().filter_map(|address| address.parse().ok());
            addresses.map(|address| Endpoint { address, hostname: endpoint.hostname.clone() })
        });
        Some((service, Self { ports: ports.collect(), endpoints: endpoints.collect() }))
    }
}

/// Where the node listens for pods that dial a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Frontend {
    pub(crate) address: SocketAddrV4,
    pub(crate) protocol: Protocol,
}

/// What is behind a [`Frontend`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) service: Key,
    pub(crate) port: Port,
    pub(crate) sticky: bool,
}

/// From where services are looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum View {
    /// A pod's own network: cluster addresses are reached as they are.
    #[default]
    Network,
    /// The machine's network: `127.96.x.y` stands for `10.96.x.y`.
    Loopback,
}

/// All services and endpoints.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    view: View,
    api: Option<SocketAddr>,
    /// Addresses of the machine itself that pods may reach.
    offered: Vec<SocketAddr>,
    services: BTreeMap<Key, Service>,
    /// Slices by service, then by their own name.
    slices: BTreeMap<Key, BTreeMap<String, Slice>>,
    /// The service of every slice, by the slice's own key.
    owners: BTreeMap<Key, String>,
}

impl Directory {
    /// A directory that knows the API server alone.
    pub(crate) fn new(view: View, api: Option<SocketAddr>) -> Self {
        Self { view, api, ..Self::default() }
    }

    /// Lets pods reach these addresses of the machine itself, where a Service leads to them.
    pub(crate) fn offering(self, offered: Vec<SocketAddr>) -> Self {
        Self { offered, ..self }
    }

    /// Replaces one service.
    pub(crate) fn set_service(&mut self, key: Key, service: Option<Service>) {
        match service {
            Some(service) => self.services.insert(key, service),
            None => self.services.remove(&key),
        };
    }

    /// Replaces all services.
    pub(crate) fn replace_services(&mut self, services: BTreeMap<Key, Service>) {
        self.services = services;
    }

    /// Replaces one slice, given with the name of its service.
    pub(crate) fn set_slice(&mut self, key: Key, slice: Option<(String, Slice)>) {
        if let Some(owner) = self.owners.remove(&key) {
            let owner = (key.0.clone(), owner);
            if let Some(slices) = self.slices.get_mut(&owner) {
                slices.remove(&key.1);
                if slices.is_empty() {
                    self.slices.remove(&owner);
                }
            }
        }
        if let Some((service, slice)) = slice {
            self.owners.insert(key.clone(), service.clone());
            self.slices.entry((key.0, service)).or_default().insert(key.1, slice);
        }
    }

    /// Replaces all slices.
    pub(crate) fn replace_slices(&mut self, slices: BTreeMap<Key, (String, Slice)>) {
        self.owners.clear();
        self.slices.clear();
        for (key, slice) in slices {
            self.set_slice(key, Some(slice));
        }
    }

    /// The service, if it exists. Endpoints without a service count as one without an address.
    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<Service> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(service) = self.services.get(&key) {
            return Some(service.clone());
        }
        if (namespace, name) == API && self.api.is_some() {
            return Some(api_service());
        }
        let slices = self.slices.get(&key)?;
        let mut ports: Vec<Port> = Vec::new();
        for port in slices.values().flat_map(|slice| &slice.ports) {
            if !ports.contains(port) {
                ports.push(port.clone());
            }
        }
        Some(Service { access: Access::Headless, ports, sticky: false })
    }

    /// Whether anything of the namespace is known.
    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        let in_namespace = |key: &Key| key.0 == namespace;
        self.services.keys().any(in_namespace)
            || self.slices.keys().any(in_namespace)
            || (namespace == API.0 && self.api.is_some())
    }

    /// Services with an address: those of the namespace and the API server.
    pub(crate) fn addressed<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = (String, Ipv4Addr, Vec<Port>)> + 'a {
        let is_api = |key: &Key| self.api.is_some() && (key.0.as_str(), key.1.as_str()) == API;
        let own = self.services.iter().filter(move |(key, _)| key.0 == namespace && !is_api(key));
        let own = own.filter_map(|((_, name), service)| match service.access {
            Access::Cluster(address) => Some((name.clone(), self.visible(address), service.ports.clone())),
            _ => None,
        });
        own.chain(self.api_entry())
    }

    /// The API server as pods dial it.
    pub(crate) fn api_entry(&self) -> Option<(String, Ipv4Addr, Vec<Port>)> {
        let api = self.api?;
        let (address, number) = match (self.view, api) {
            (View::Loopback, SocketAddr::V4(api)) => (*api.ip(), api.port()),
            _ => (API_ADDRESS, API_PORT),
        };
        let port = Port { name: "https".to_owned(), protocol: Protocol::Tcp, number };
        Some((API.1.to_owned(), address, vec![port]))
    }

    /// The ready endpoints of a service, each once.
    pub(crate) fn endpoints(&self, namespace: &str, name: &str) -> Vec<&Endpoint> {
        let slices = self.slices.get(&(namespace.to_owned(), name.to_owned()));
        let mut list: Vec<_> =
            slices.into_iter().flat_map(BTreeMap::values).flat_map(|slice| &slice.endpoints).collect();
        list.sort();
        list.dedup();
        list
    }

    /// Every service with endpoints.
    pub(crate) fn with_endpoints(&self) -> impl Iterator<Item = (&Key, Vec<&Endpoint>)> {
        self.slices
            .keys()
            .map(|key| (key, self.endpoints(&key.0, &key.1)))
            .filter(|(_, list)| !list.is_empty())
    }

    /// The service at a cluster address, as namespace and name.
    pub(crate) fn at_address(&self, address: Ipv4Addr) -> Option<Key> {
        let found = self.services.iter().find(|(_, service)| service.access == Access::Cluster(address));
        let api =
            || (address == API_ADDRESS && self.api.is_some()).then(|| (API.0.to_owned(), API.1.to_owned()));
        found.map(|(key, _)| key.clone()).or_else(api)
    }

    /// What listens where, as far as somebody is behind it.
    pub(crate) fn frontends(&self) -> BTreeMap<Frontend, Backend> {
        let mut all = BTreeMap::new();
        let api = (API.0.to_owned(), API.1.to_owned());
        let builtin = (!self.services.contains_key(&api)).then(|| (api.clone(), api_service()));
        let listed = self.services.iter().map(|(key, service)| (key.clone(), service.clone()));
        for (key, service) in listed.chain(builtin) {
            let Access::Cluster(address) = service.access else { continue };
            for port in service.ports {
                let address = SocketAddrV4::new(self.visible(address), port.number);
                let backend = Backend { service: key.clone(), port, sticky: service.sticky };
                if !self.targets(&backend).is_empty() {
                    all.insert(Frontend { address, protocol: backend.port.protocol }, backend);
                }
            }
        }
        all
    }

    /// Where connections may be carried to.
    pub(crate) fn targets(&self, backend: &Backend) -> Vec<SocketAddr> {
        if (backend.service.0.as_str(), backend.service.1.as_str()) == API {
            return self.api.into_iter().collect();
        }
        let mut targets = Vec::new();
        for slice in self.slices.get(&backend.service).into_iter().flat_map(BTreeMap::values) {
            let same =
                |port: &&Port| port.name == backend.port.name && port.protocol == backend.port.protocol;
            let Some(port) = slice.ports.iter().find(same) else { continue };
            let addresses =
                slice.endpoints.iter().map(|endpoint| SocketAddr::new(endpoint.address, port.number));
            targets.extend(addresses.filter(|address| self.may_be_dialled(*address)));
        }
        targets.sort_unstable();
        targets.dedup();
        targets
    }

    /// What only the machine itself can reach stays out of reach of pods, unless it is offered to them.
    fn may_be_dialled(&self, address: SocketAddr) -> bool {
        match (self.view, address.ip()) {
            _ if self.offered.contains(&address) => true,
            (View::Loopback, IpAddr::V4(address)) if address.is_loopback() => address.octets()[1] == 77,
            (_, IpAddr::V4(address)) => {
                !address.is_loopback() && !address.is_unspecified() && !address.is_link_local()
            }
            (_, IpAddr::V6(_)) => false,
        }
    }

    fn visible(&self, address: Ipv4Addr) -> Ipv4Addr {
        let [_, b, c, d] = address.octets();
        match self.view {
            View::Network => address,
            View::Loopback => Ipv4Addr::new(127, b, c, d),
        }
    }
}

fn api_service() -> Service {
    let port = Port { name: "https".to_owned(), protocol: Protocol::Tcp, number: API_PORT };
    Service { access: Access::Cluster(API_ADDRESS), ports: vec![port], sticky: false }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn key(namespace: &str, name: &str) -> Key {
        (namespace.to_owned(), name.to_owned())
    }

    /// `web` with an address and named ports, `db` headless with host names, `far` elsewhere.
    pub(crate) fn directory() -> Directory {
        let mut directory = Directory::new(View::Network, Some(SocketAddr::from(([127, 0, 0, 1], 6443))));
        let services = [
            json!({"metadata": {"namespace": "team", "name": "web"}, "spec": {"clusterIP": "10.96.7.8",
                   "ports": [{"name": "http", "port": 80}, {"name": "dns-udp", "port": 53, "protocol": "UDP"}]}}),
            json!({"metadata": {"namespace": "team", "name": "db"}, "spec": {"clusterIP": "None",
                   "ports": [{"name": "sql", "port": 5432}]}}),
            json!({"metadata": {"namespace": "team", "name": "far"}, "spec": {"type": "ExternalName",
                   "externalName": "Example.com"}}),
        ];
        for service in services {
            let service: core::Service = serde_json::from_value(service).unwrap();
            directory.set_service(key("team", &service.name_any()), Service::read(&service));
        }
        let slices = [
            json!({"metadata": {"namespace": "team", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
                   "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}, {"name": "dns-udp", "port": 5353, "protocol": "UDP"}],
                   "endpoints": [{"addresses": ["10.244.0.5"]}, {"addresses": ["10.244.0.6"], "conditions": {"ready": true}},
                                 {"addresses": ["10.244.0.7"], "conditions": {"ready": false}}, {"addresses": ["127.0.0.1"]}]}),
            json!({"metadata": {"namespace": "team", "name": "db-1", "labels": {"kubernetes.io/service-name": "db"}},
                   "addressType": "IPv4", "ports": [{"name": "sql", "port": 5432}],
                   "endpoints": [{"addresses": ["10.244.0.8"], "hostname": "db-0"}, {"addresses": ["10.244.0.9"]}]}),
        ];
        for slice in slices {
            let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
            directory.set_slice(key("team", &slice.name_any()), Slice::read(&slice));
        }
        directory
    }

    fn targets(directory: &Directory, port: u16, protocol: Protocol) -> Vec<String> {
        let frontends = directory.frontends();
        let backend = frontends.iter().find(|(frontend, _)| {
            frontend.address == SocketAddrV4::new(Ipv4Addr::new(10, 96, 7, 8), port)
                && frontend.protocol == protocol
        });
        backend.map_or_else(Vec::new, |(_, backend)| {
            directory.targets(backend).iter().map(ToString::to_string).collect()
        })
    }

    #[test]
    fn ports_are_joined_by_name_and_only_ready_pods_are_dialled() {
        let mut directory = directory();
        assert_eq!(targets(&directory, 80, Protocol::Tcp), ["10.244.0.5:8080", "10.244.0.6:8080"]);
        assert_eq!(targets(&directory, 53, Protocol::Udp), ["10.244.0.5:5353", "10.244.0.6:5353"]);
        directory.set_slice(key("team", "web-1"), None);
        assert!(targets(&directory, 80, Protocol::Tcp).is_empty(), "nobody listens for nobody");
        let api = directory.frontends().into_iter().next().unwrap();
        assert_eq!(api.0.address.to_string(), "10.96.0.1:443");
        assert_eq!(directory.targets(&api.1), ["127.0.0.1:6443".parse().unwrap()]);
    }

    #[test]
    fn of_the_machine_itself_only_what_is_offered_is_reached() {
        let leads_to_the_machine = |directory: Directory| {
            let mut directory = directory;
            directory.replace_services(self::directory().services);
            let slice = Slice {
                ports: vec![Port { name: "http".to_owned(), protocol: Protocol::Tcp, number: 9445 }],
                endpoints: vec![Endpoint { address: [127, 0, 0, 1].into(), hostname: None }],
            };
            directory.replace_slices([(key("team", "web-1"), ("web".to_owned(), slice))].into());
            targets(&directory, 80, Protocol::Tcp)
        };
        let offered = |port| Directory::default().offering(vec![SocketAddr::from(([127, 0, 0, 1], port))]);
        assert_eq!(leads_to_the_machine(offered(9445)), ["127.0.0.1:9445"]);
        assert!(leads_to_the_machine(offered(9446)).is_empty());
        assert!(leads_to_the_machine(Directory::default()).is_empty());
    }

    #[test]
    fn a_slice_that_changes_hands_leaves_its_first_service() {
        let mut directory = directory();
        let slice = Slice {
            endpoints: vec![Endpoint { address: [1, 2, 3, 4].into(), hostname: None }],
            ports: vec![],
        };
        directory.set_slice(key("team", "db-1"), Some(("other".to_owned(), slice)));
        assert!(directory.endpoints("team", "db").is_empty());
        assert_eq!(directory.endpoints("team", "other").len(), 1);
        assert_eq!(directory.service("team", "other").unwrap().access, Access::Headless);
    }

    #[test]
    fn on_the_machines_network_loopback_stands_for_the_cluster() {
        let mut light = Directory::new(View::Loopback, Some(SocketAddr::from(([127, 0, 0, 1], 6443))));
        light.replace_services(directory().services);
        let endpoint = |address: [u8; 4]| Endpoint { address: address.into(), hostname: None };
        let slice = Slice {
            ports: vec![Port { name: "http".to_owned(), protocol: Protocol::Tcp, number: 8080 }],
            endpoints: vec![endpoint([127, 77, 0, 3]), endpoint([127, 0, 0, 1])],
        };
        light.replace_slices([(key("team", "web-1"), ("web".to_owned(), slice))].into());
        let frontends = light.frontends();
        let (frontend, backend) = frontends.iter().find(|(_, backend)| backend.service.1 == "web").unwrap();
        assert_eq!(frontend.address.to_string(), "127.96.7.8:80");
        assert_eq!(light.targets(backend), ["127.77.0.3:8080".parse().unwrap()]);
        assert_eq!(light.api_entry().unwrap().1, Ipv4Addr::LOCALHOST);
    }
}
