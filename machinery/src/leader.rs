//! Leader election on a `coordination.k8s.io/v1` Lease, as client-go does it: the holder renews, others
//! take over once the lease has run out by their own clock.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How a group of replicas elects its leader.
#[derive(Debug, Clone)]
pub struct Election {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub lease: String,
    /// This replica's name; must differ between replicas.
    pub identity: String,
    /// How long a lease holds without renewal.
    pub lease_duration: Duration,
    /// How long the holder goes on without a successful renewal; shorter than `lease_duration`.
    pub renew_deadline: Duration,
    /// How often to try.
    pub retry_period: Duration,
}

impl Election {
    /// client-go's timing: a lease of 15 s, a renew deadline of 10 s, a try every 2 s.
    pub fn new(namespace: impl Into<String>, lease: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            lease: lease.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }

    /// Waits until this replica leads, or `shutdown`; then returns a token that is cancelled when the
    /// leadership is lost or `shutdown` comes. `None` when `shutdown` came first.
    pub async fn lead(self, client: kube::Client, shutdown: &CancellationToken) -> Option<CancellationToken> {
        let api: Api<Lease> = Api::namespaced(client, &self.namespace);
        let mut observed = Observed::default();
        loop {
            match self.attempt(&api, &mut observed).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, lease = self.lease, "cannot take the lease yet"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = sleep(self.retry_period) => {}
            }
        }
        tracing::info!(lease = self.lease, identity = self.identity, "leading");
        let leading = shutdown.child_token();
        let until = leading.clone();
        tokio::spawn(async move { self.renew(api, observed, until).await });
        Some(leading)
    }

    async fn renew(self, api: Api<Lease>, mut observed: Observed, leading: CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = leading.cancelled() => {
                    // Let the next replica start at once instead of after the lease has run out.
                    let _released = timeout(self.retry_period, self.release(&api)).await;
                    return;
                }
                () = sleep(self.retry_period) => {}
            }
            match timeout(self.renew_deadline, self.attempt(&api, &mut observed)).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => {
                    tracing::warn!(lease = self.lease, "another replica took the lease");
                    leading.cancel();
                    return;
                }
                Ok(Err(_)) | Err(_) if renewed.elapsed() < self.renew_deadline => {}
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!(lease = self.lease, "the lease could not be renewed in time");
                    leading.cancel();
                    return;
                }
            }
        }
    }

    /// One try to create, renew or take over the lease; whether this replica holds it now.
    async fn attempt(&self, api: &Api<Lease>, observed: &mut Observed) -> Result<bool, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = api.get_opt(&self.lease).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.lease.clone()), ..ObjectMeta::default() },
                spec: Some(self.held_since(&now, &now, 0)),
            };
            return match api.create(&PostParams::default(), &lease).await {
                Ok(_) => Ok(true),
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
                Err(error) => Err(error),
            };
        };
        let spec = lease.spec.take().unwrap_or_default();
        let mine = spec.holder_identity.as_deref() == Some(self.identity.as_str());
        let free = spec.holder_identity.as_deref().is_none_or(str::is_empty);
        observed.note(&spec);
        if !mine && !free && !observed.run_out(&spec) {
            return Ok(false);
        }
        let transitions = spec.lease_transitions.unwrap_or(0) + i32::from(!mine);
        let acquired =
            if mine { spec.acquire_time.clone().unwrap_or_else(|| now.clone()) } else { now.clone() };
        lease.spec = Some(self.held_since(&acquired, &now, transitions));
        match api.replace(&self.lease, &PostParams::default(), &lease).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn release(&self, api: &Api<Lease>) -> Result<(), kube::Error> {
        let mut lease = api.get(&self.lease).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(self.identity.as_str()) {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            api.replace(&self.lease, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }

    fn held_since(&self, acquired: &MicroTime, renewed: &MicroTime, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.lease_duration.as_secs()).ok(),
            acquire_time: Some(acquired.clone()),
            renew_time: Some(renewed.clone()),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// When this replica last saw the lease change, by its own clock: clocks of machines differ.
#[derive(Debug, Default)]
struct Observed {
    renewal: Option<MicroTime>,
    at: Option<Instant>,
}

impl Observed {
    fn note(&mut self, spec: &LeaseSpec) {
        if self.at.is_none() || self.renewal != spec.renew_time {
            self.renewal.clone_from(&spec.renew_time);
            self.at = Some(Instant::now());
        }
    }

    fn run_out(&self, spec: &LeaseSpec) -> bool {
        let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
        self.at.is_some_and(|at| at.elapsed() >= Duration::from_secs(seconds))
    }
}
