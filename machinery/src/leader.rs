//! Leader election on a `coordination.k8s.io/v1` Lease, as client-go does it: the holder renews, others
//! take over once the lease has run out by their own clock.
//!
//! A leader that cannot renew in time stops before others may start: its work is dropped, and the client that
//! the work was given refuses every further request. That holds for a process that was frozen, too.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
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
    /// How the lease is kept.
    pub timing: Timing,
}

/// How long a lease holds and how it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a lease holds without renewal; whole seconds.
    pub lease_duration: Duration,
    /// How long the holder goes on without a successful renewal; shorter than `lease_duration`.
    pub renew_deadline: Duration,
    /// How often to try; shorter than `renew_deadline`.
    pub retry_period: Duration,
}

impl Default for Timing {
    /// client-go's timing: a lease of 15 s, a renew deadline of 10 s, a try every 2 s.
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Why a timing does not keep two leaders apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// A Lease counts whole seconds, and at least one.
    #[error("the lease duration must be whole seconds, at least 1")]
    LeaseDuration,
    /// The old leader would go on while the new one starts.
    #[error("the renew deadline must be shorter than the lease duration")]
    RenewDeadline,
    /// One lost request would cost the leadership.
    #[error("the retry period must be above 0 and shorter than the renew deadline")]
    RetryPeriod,
}

impl Timing {
    /// The same, if it keeps two leaders apart.
    ///
    /// # Errors
    /// Which of the three times is wrong.
    pub fn checked(self) -> Result<Self, TimingError> {
        if self.lease_duration.as_secs() == 0 || self.lease_duration.subsec_nanos() != 0 {
            return Err(TimingError::LeaseDuration);
        }
        if self.renew_deadline >= self.lease_duration {
            return Err(TimingError::RenewDeadline);
        }
        if self.retry_period.is_zero() || self.retry_period >= self.renew_deadline {
            return Err(TimingError::RetryPeriod);
        }
        Ok(self)
    }
}

/// What a leader works with.
#[derive(Clone)]
pub struct Leadership {
    /// Reaches the API only while this replica leads.
    pub client: Client,
    /// Cancelled at the shutdown; the work then ends by itself and the lease is handed on.
    pub shutdown: CancellationToken,
}

/// A request of a replica that no longer leads.
#[derive(Debug, thiserror::Error)]
#[error("the lease {0} is not held any more")]
struct NotLeading(String);

impl Election {
    /// client-go's timing.
    pub fn new(namespace: impl Into<String>, lease: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            lease: lease.into(),
            identity: identity.into(),
            timing: Timing::default(),
        }
    }

    /// Stands for election until `shutdown` and does the work whenever this replica leads.
    ///
    /// When the leadership is lost the work is dropped where it stands and the replica stands again. Work that
    /// ends by itself ends the whole: the lease is handed on and the outcome returned. `None` when the shutdown
    /// came while another led.
    pub async fn lead<F: Future>(
        &self,
        client: Client,
        shutdown: &CancellationToken,
        mut work: impl FnMut(Leadership) -> F,
    ) -> Option<F::Output> {
        let api: Api<Lease> = Api::namespaced(client.clone(), &self.namespace);
        let mut observed = Observed::default();
        loop {
            let renewed = shutdown.run_until_cancelled(self.acquire(&api, &mut observed)).await?;
            tracing::info!(lease = self.lease, identity = self.identity, "leading");
            let (renewals, last) = watch::channel(renewed);
            let leadership = Leadership { client: self.fenced(&client, last), shutdown: shutdown.clone() };
            tokio::select! {
                biased;
                () = self.renew(&api, &mut observed, renewals) => {}
                outcome = work(leadership) => {
                    // The next replica starts at once instead of after the lease has run out.
                    match timeout(self.timing.renew_deadline, self.release(&api)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!(%error, lease = self.lease, "cannot hand the lease on"),
                        Err(_) => tracing::debug!(lease = self.lease, "no time to hand the lease on"),
                    }
                    return Some(outcome);
                }
            }
        }
    }

    /// Tries until the lease is taken; when the try that took it began.
    async fn acquire(&self, api: &Api<Lease>, observed: &mut Observed) -> Instant {
        let mut told = None;
        loop {
            let began = Instant::now();
            let news = match timeout(self.timing.renew_deadline, self.attempt(api, observed)).await {
                Ok(Ok(None)) => return began,
                Ok(Ok(Some(holder))) => format!("{holder} leads; waiting"),
                Ok(Err(error)) => format!("cannot take the lease yet: {error}"),
                Err(_) => "cannot take the lease yet: the API server does not answer".to_owned(),
            };
            if told.as_ref() != Some(&news) {
                tracing::info!(lease = self.lease, namespace = self.namespace, "{news}");
                told = Some(news);
            }
            sleep(self.timing.retry_period).await;
        }
    }

    /// Keeps the lease; returns when it is lost.
    async fn renew(&self, api: &Api<Lease>, observed: &mut Observed, renewed: watch::Sender<Instant>) {
        loop {
            let deadline = *renewed.borrow() + self.timing.renew_deadline;
            let next = (Instant::now() + self.timing.retry_period).min(deadline);
            tokio::time::sleep_until(next).await;
            let began = Instant::now();
            match tokio::time::timeout_at(deadline, self.attempt(api, observed)).await {
                // Others count from when they see the renewal, which is after the try began.
                Ok(Ok(None)) => {
                    renewed.send_replace(began);
                }
                Ok(Ok(Some(holder))) => {
                    tracing::warn!(lease = self.lease, holder, "another replica took the lease");
                    return;
                }
                Ok(Err(_)) if Instant::now() < deadline => {}
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!(lease = self.lease, "the lease could not be renewed in time");
                    return;
                }
            }
        }
    }

    /// A client that reaches the API only while the lease was renewed in time.
    fn fenced(&self, client: &Client, renewed: watch::Receiver<Instant>) -> Client {
        let (inner, lease, limit) =
            (client.clone(), Arc::<str>::from(&*self.lease), self.timing.renew_deadline);
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let in_time = renewed.has_changed().is_ok() && renewed.borrow().elapsed() < limit;
            let (inner, lease) = (inner.clone(), lease.clone());
            async move {
                if !in_time {
                    return Err(kube::Error::Service(Box::new(NotLeading(lease.to_string()))));
                }
                inner.send(request).await
            }
        });
        Client::new(service, client.default_namespace())
    }

    /// One try to create, renew or take over the lease; who else holds it, if this replica does not now.
    async fn attempt(
        &self,
        api: &Api<Lease>,
        observed: &mut Observed,
    ) -> Result<Option<String>, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = api.get_opt(&self.lease).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.lease.clone()), ..ObjectMeta::default() },
                spec: Some(self.held_since(&now, &now, 0)),
            };
            return taken(api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let mine = spec.holder_identity.as_deref() == Some(self.identity.as_str());
        let holder = spec.holder_identity.clone().filter(|holder| !mine && !holder.is_empty());
        observed.note(&spec);
        if let Some(holder) = holder.filter(|_| !observed.run_out(&spec)) {
            return Ok(Some(holder));
        }
        let transitions = spec.lease_transitions.unwrap_or(0) + i32::from(!mine);
        let acquired =
            if mine { spec.acquire_time.clone().unwrap_or_else(|| now.clone()) } else { now.clone() };
        lease.spec = Some(self.held_since(&acquired, &now, transitions));
        taken(api.replace(&self.lease, &PostParams::default(), &lease).await)
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
            lease_duration_seconds: i32::try_from(self.timing.lease_duration.as_secs()).ok(),
            acquire_time: Some(acquired.clone()),
            renew_time: Some(renewed.clone()),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// Whether a write took the lease; another's write that came first did.
fn taken(written: kube::Result<Lease>) -> kube::Result<Option<String>> {
    match written {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Some("another replica".to_owned())),
        Err(error) => Err(error),
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use http::{Method, Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    const TIMING: Timing = Timing {
        lease_duration: Duration::from_secs(1),
        renew_deadline: Duration::from_millis(600),
        retry_period: Duration::from_millis(50),
    };
    const PATIENCE: Duration = Duration::from_secs(20);

    /// An API server that keeps one Lease, and that can be cut off.
    #[derive(Default)]
    struct Api {
        lease: Mutex<Option<Value>>,
        cut_off: AtomicBool,
    }

    impl Api {
        async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, std::io::Error> {
            if self.cut_off.load(Ordering::SeqCst) {
                return Err(std::io::Error::other("cut off"));
            }
            let method = request.method().clone();
            let body: Value = serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap())
                .unwrap_or_default();
            let mut lease = self.lease.lock().unwrap();
            let version = lease
                .as_ref()
                .map_or(0, |lease| lease["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap());
            let fits = body["metadata"]["resourceVersion"].as_str().map_or(0, |text| text.parse().unwrap())
                == version;
            let (code, answer) = match (method, lease.clone()) {
                (Method::GET, Some(lease)) => (200, lease),
                (Method::GET, None) => (404, json!({})),
                _ if !fits => (409, json!({})),
                _ => {
                    let mut body = body;
                    body["metadata"]["resourceVersion"] = json!((version + 1).to_string());
                    *lease = Some(body.clone());
                    (200, body)
                }
            };
            let answer = match code {
                200 => answer,
                code => {
                    let reason = if code == 404 { "NotFound" } else { "Conflict" };
                    json!({"kind": "Status", "status": "Failure", "message": "no", "reason": reason, "code": code})
                }
            };
            let response = Response::builder().status(StatusCode::from_u16(code).unwrap());
            Ok(response.body(Body::from(answer.to_string().into_bytes())).unwrap())
        }
    }

    fn replica(api: &Arc<Api>, name: &str) -> (Election, Client) {
        let api = api.clone();
        let service = tower::service_fn(move |request| {
            let api = api.clone();
            async move { api.answer(request).await }
        });
        let election = Election { timing: TIMING, ..Election::new("default", "roles", name) };
        (election, Client::new(service, "default"))
    }

    /// A replica that leads until it is told to stop; says when it starts, with its client.
    fn stand(
        (election, client): (Election, Client),
        shutdown: &CancellationToken,
    ) -> (tokio::sync::mpsc::UnboundedReceiver<Leadership>, tokio::task::JoinHandle<()>) {
        let (started, starts) = tokio::sync::mpsc::unbounded_channel();
        let shutdown = shutdown.clone();
        let task = tokio::spawn(async move {
            let work = |leadership: Leadership| {
                started.send(leadership.clone()).unwrap();
                async move { leadership.shutdown.cancelled().await }
            };
            election.lead(client, &shutdown, work).await;
        });
        (starts, task)
    }

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        timeout(PATIENCE, future).await.unwrap()
    }

    #[tokio::test]
    async fn one_leads_and_hands_the_lease_on_when_it_stops() {
        let api = Arc::new(Api::default());
        let (first_stop, second_stop) = (CancellationToken::new(), CancellationToken::new());
        let (mut first, first_task) = stand(replica(&api, "first"), &first_stop);
        soon(first.recv()).await.unwrap();
        let (mut second, second_task) = stand(replica(&api, "second"), &second_stop);
        sleep(TIMING.lease_duration * 2).await;
        assert!(second.try_recv().is_err(), "two lead");
        first_stop.cancel();
        soon(first_task).await.unwrap();
        soon(second.recv()).await.unwrap();
        assert_eq!(api.lease.lock().unwrap().as_ref().unwrap()["spec"]["leaseTransitions"], 1);
        second_stop.cancel();
        soon(second_task).await.unwrap();
    }

    #[tokio::test]
    async fn a_crashed_leader_is_followed_when_its_lease_has_run_out() {
        let api = Arc::new(Api::default());
        let stop = CancellationToken::new();
        let (mut first, task) = stand(replica(&api, "first"), &stop);
        soon(first.recv()).await.unwrap();
        task.abort();
        let crashed = Instant::now();
        let (mut second, task) = stand(replica(&api, "second"), &stop);
        soon(second.recv()).await.unwrap();
        assert!(crashed.elapsed() >= TIMING.lease_duration, "the lease was still held");
        stop.cancel();
        soon(task).await.unwrap();
    }

    #[tokio::test]
    async fn a_leader_that_cannot_renew_stops_asks_nothing_more_and_stands_again() {
        let api = Arc::new(Api::default());
        let stop = CancellationToken::new();
        let (mut first, task) = stand(replica(&api, "first"), &stop);
        let leadership = soon(first.recv()).await.unwrap();
        let leases = |client: &Client| kube::Api::<Lease>::namespaced(client.clone(), "default");
        soon(leases(&leadership.client).get("roles")).await.unwrap();
        api.cut_off.store(true, Ordering::SeqCst);
        sleep(TIMING.renew_deadline + TIMING.retry_period * 2).await;
        api.cut_off.store(false, Ordering::SeqCst);
        let refused = soon(leases(&leadership.client).get("roles")).await.unwrap_err();
        assert!(crate::hint::chain(&refused).contains("not held any more"), "{refused}");
        let again = soon(first.recv()).await.unwrap();
        soon(leases(&again.client).get("roles")).await.unwrap();
        stop.cancel();
        soon(task).await.unwrap();
    }

    #[test]
    fn a_timing_that_lets_two_lead_is_refused() {
        assert_eq!(Timing::default().checked(), Ok(Timing::default()));
        let slow = Timing { renew_deadline: Duration::from_secs(15), ..Timing::default() };
        assert_eq!(slow.checked(), Err(TimingError::RenewDeadline));
        let rare = Timing { retry_period: Duration::from_secs(10), ..Timing::default() };
        assert_eq!(rare.checked(), Err(TimingError::RetryPeriod));
        let none = Timing { lease_duration: Duration::from_millis(500), ..Timing::default() };
        assert_eq!(none.checked(), Err(TimingError::LeaseDuration));
    }
}
