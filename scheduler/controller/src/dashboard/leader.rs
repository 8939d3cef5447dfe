//! Who leads, for those who ask a replica that does not.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::Api;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(2);
/// Longest wait for the API server.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads the Lease by which replicas elect their leader.
pub(super) struct Leader {
    /// The Lease by namespace and name; none where there is one replica.
    lease: Option<(String, String)>,
    client: Client,
    known: Mutex<Option<(Instant, Option<String>)>>,
}

impl Leader {
    pub(super) fn new(client: Client, lease: Option<(String, String)>) -> Self {
        Self { lease, client, known: Mutex::default() }
    }

    /// The name of the replica that leads, if that can be found out quickly.
    pub(super) async fn name(&self) -> Option<String> {
        let (namespace, lease) = self.lease.as_ref()?;
        let mut known = self.known.lock().await;
        if let Some((at, name)) = known.as_ref()
            && at.elapsed() < FRESH
        {
            return name.clone();
        }
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        let found = timeout(PATIENCE, leases.get_opt(lease)).await.ok().and_then(Result::ok).flatten();
        let holder = found.and_then(|lease| lease.spec?.holder_identity).filter(|holder| !holder.is_empty());
        *known = Some((Instant::now(), holder.clone()));
        holder
    }
}
