//! Addresses and ports of services.

use std::collections::HashSet;

use muster_admission::prepare;
use muster_store::Query;
use rand::RngExt as _;
use serde_json::Value;

use crate::meta::{at, text};
use crate::objects::Scope;

/// Ports that a service may take on every node.
const NODE_PORTS: std::ops::Range<u16> = 30_000..32_768;
/// How often a random address or port is drawn before the choice is left to the next write.
const DRAWS: usize = 1_000;

/// Gives a service the addresses and ports that it asks for.
pub(crate) fn assign(scope: &Scope<'_>, service: &mut Value) {
    let ports = prepare::needs_node_ports(service);
    if !prepare::needs_cluster_ip(service) && ports.is_empty() {
        return;
    }
    let (mut addresses, mut taken) = (HashSet::new(), HashSet::new());
    for entry in scope.app.store.list(&Query::new("core/services")).entries {
        let other = entry.object();
        addresses.insert(text(&other, &["spec", "clusterIP"]).to_owned());
        for port in at(&other, &["spec", "ports"]).as_array().into_iter().flatten() {
            taken.extend(port["nodePort"].as_u64());
        }
    }
    let mut random = rand::rng();
    if prepare::needs_cluster_ip(service) {
        // 10.96.0.0/16 without its first addresses, which the API and the name service have.
        let draw = || format!("10.96.{}.{}", random.random_range(1..255_u8), random.random_range(1..255_u8));
        let free = std::iter::repeat_with(draw).take(DRAWS).find(|address| !addresses.contains(address));
        if let Some(address) = free {
            prepare::assign_cluster_ip(service, &address);
        }
    }
    for index in ports {
        let draw = || u64::from(random.random_range(NODE_PORTS));
        let free = std::iter::repeat_with(draw).take(DRAWS).find(|port| !taken.contains(port));
        if let (Some(free), Some(port)) = (free, service.pointer_mut(&format!("/spec/ports/{index}"))) {
            taken.insert(free);
            port["nodePort"] = free.into();
        }
    }
}
