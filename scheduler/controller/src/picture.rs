//! A planner that knows a cluster as it is now, to be asked and not to be obeyed.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::{Api, ListParams};
use muster_scheduler_api::{
    AdvanceReservation, DEFAULT_SCHEDULER_NAME, GangReservation, Queue, SCHEDULER_NAME,
};
use serde::de::DeserializeOwned;

use crate::claims;
use crate::groups;
use crate::places;
use crate::planner::{Planner, Prospect};

/// Objects a request.
const PAGE: u32 = 1000;

/// Reads nodes, pods, queues, advance reservations and written plans of the whole cluster into a planner.
///
/// # Errors
/// What the API server answers; the reader must be allowed to list all of these.
pub async fn read(client: &Client) -> Result<Planner, kube::Error> {
    let mut planner = Planner::new(schedulers(client).await?);
    // A server without Muster's definitions has no such objects.
    for queue in none_if_unknown(list::<Queue>(client).await)? {
        planner.queue_seen(&queue);
    }
    planner.places_described(places::read(client).await?);
    for reservation in none_if_unknown(list::<AdvanceReservation>(client).await)? {
        planner.reservation_seen(&reservation);
    }
    for node in list::<Node>(client).await? {
        planner.node_seen(&node);
    }
    for pod in list::<Pod>(client).await? {
        planner.pod_seen(&pod);
    }
    read_groups(client, &mut planner).await;
    read_devices(client, &mut planner).await;
    planner.restore(&none_if_unknown(list::<GangReservation>(client).await)?);
    Ok(planner)
}

/// A picture in which something is supposed to be different, and whom it is about.
pub struct Supposed {
    /// The picture.
    pub planner: Planner,
    /// Gangs by namespace and name; all who wait when absent.
    pub gangs: Option<BTreeSet<(String, String)>>,
}

impl Supposed {
    /// Namespaces of the gangs that are named.
    pub fn namespaces(&self) -> BTreeSet<String> {
        let gangs = self.gangs.iter().flatten();
        gangs.map(|(namespace, _)| namespace.clone()).collect()
    }

    /// What would become of them.
    pub fn prospects(self, now: Timestamp) -> Vec<Prospect> {
        let Self { mut planner, gangs } = self;
        planner.catch_up(now);
        let everybody = |planner: &Planner| {
            planner.gangs().map(|(namespace, gang)| (namespace.to_owned(), gang.to_owned())).collect()
        };
        let gangs = gangs.unwrap_or_else(|| everybody(&planner));
        planner.prospects(&gangs, now)
    }
}

/// Reads objects of other systems that pods name and that have not been read yet.
pub async fn read_groups(client: &Client, planner: &mut Planner) {
    for kind in planner.group_kinds_to_watch() {
        for event in groups::list(client, kind).await {
            planner.group_changed(event);
        }
    }
}

/// Shows the planner a pod that is not there, with the claims that would be made for it from templates.
///
/// # Errors
/// What the API server answers when it is asked for the templates.
pub async fn suppose(client: &Client, planner: &mut Planner, mut pod: Pod) -> Result<(), kube::Error> {
    for claim in claims::suppose(client, &mut pod).await? {
        planner.devices_changed(claim);
    }
    planner.pod_seen(&pod);
    Ok(())
}

/// Reads devices and claims, once pods have some.
pub async fn read_devices(client: &Client, planner: &mut Planner) {
    if planner.begins_to_need_devices() {
        for event in claims::list(client).await {
            planner.devices_changed(event);
        }
    }
}

/// Whose pods Muster places: its own, and where no kube-scheduler has ever run, everybody's.
async fn schedulers(client: &Client) -> Result<Vec<String>, kube::Error> {
    let leases = Api::<Lease>::namespaced(client.clone(), "kube-system");
    let another = leases.get_opt("kube-scheduler").await?.is_some();
    let names = if another { &[SCHEDULER_NAME][..] } else { &[SCHEDULER_NAME, DEFAULT_SCHEDULER_NAME] };
    Ok(names.iter().map(|name| (*name).to_owned()).collect())
}

fn none_if_unknown<K>(listed: Result<Vec<K>, kube::Error>) -> Result<Vec<K>, kube::Error> {
    match listed {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        other => other,
    }
}

async fn list<K>(client: &Client) -> Result<Vec<K>, kube::Error>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api = Api::<K>::all(client.clone());
    let mut items = Vec::new();
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&parameters).await?;
        items.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(items),
        }
    }
}
