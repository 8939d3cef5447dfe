//! Leads callers of a Service to the replica that answers.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

/// How often the slice is put right again, should somebody have changed it.
const EVERY: Duration = Duration::from_mins(1);
/// Pause after something that the API server refused.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A Service without a selector, whose one endpoint is the replica that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service, and of its EndpointSlice.
    pub service: String,
    /// The address at which this replica is reached.
    pub address: IpAddr,
}

impl Endpoint {
    fn slice(&self, manager: &str, ports: &[(&str, u16)]) -> Value {
        let port = |(name, port): &(&str, u16)| json!({"name": name, "port": port, "protocol": "TCP"});
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": self.service, "labels": {
                "kubernetes.io/service-name": self.service,
                "endpointslice.kubernetes.io/managed-by": manager,
            }},
            "addressType": if self.address.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": [{"addresses": [self.address], "conditions": {"ready": true}}],
            "ports": ports.iter().map(port).collect::<Vec<_>>(),
        })
    }

    /// Keeps the Service pointed at these ports of this replica, by the names that the Service has for them, as field
    /// manager `manager`; does not end by itself.
    pub async fn keep(&self, client: &Client, manager: &str, ports: &[(&str, u16)]) {
        let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &self.namespace);
        let parameters = PatchParams::apply(manager).force();
        let mut told = None;
        loop {
            let pause = match api
                .patch(&self.service, &parameters, &Patch::Apply(self.slice(manager, ports)))
                .await
            {
                Ok(_) => EVERY,
                Err(error) => {
                    let error = error.to_string();
                    if told.as_ref() != Some(&error) {
                        tracing::warn!(
                            error,
                            service = self.service,
                            "cannot lead callers of the Service here"
                        );
                        told = Some(error);
                    }
                    AFTER_FAILURE
                }
            };
            tokio::time::sleep(pause).await;
        }
    }
}
