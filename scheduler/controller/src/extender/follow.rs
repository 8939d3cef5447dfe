//! Follows nodes, pods and reservations, and tells the extender what it must know.

use std::collections::{BTreeMap, BTreeSet};

use futures::channel::mpsc;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use muster_machinery::CancellationToken;
use muster_scheduler_api::GangReservation;
use muster_scheduler_core::{Ledger, PodKey};
use muster_scheduler_extender::core::{GangKey, SeenReservation};
use muster_scheduler_extender::server::{Handle, Observed};
use muster_scheduler_topology::Topology;
use muster_scheduler_topology::import::TopologySources;
use tokio::task::JoinSet;

use super::relist::{Change, Relist};
use super::requests::{MANAGED_BY, MANAGED_BY_LABEL, Requests};
use crate::groups;
use crate::objects::{self, PodFacts};
use crate::places;
use crate::planner::{GroupEvent, Groups};

/// Events that are told at once.
const BATCH: usize = 128;

/// What a watch says; moved once, so the size of a pod does no harm.
#[expect(clippy::large_enum_variant, reason = "a box a pod costs more than the move")]
enum Heard {
    Node(Event<Node>),
    Pod(Event<Pod>),
    Reservation(Event<GangReservation>),
    Group(GroupEvent),
    Places(TopologySources),
}

/// Watches until the caller has heard enough; `synced` is cancelled when everything has been listed.
pub(super) async fn follow(
    client: &Client,
    handle: &Handle<Ledger>,
    requests: &Requests,
    profiles: BTreeSet<String>,
    tree: Option<Topology>,
    synced: &CancellationToken,
) {
    let nodes = watch(Api::<Node>::all(client.clone()), "nodes").map(Heard::Node);
    let pods = watch(Api::<Pod>::all(client.clone()), "pods").map(Heard::Pod);
    let reservations =
        watch(Api::<GangReservation>::all(client.clone()), "gangreservations").map(Heard::Reservation);
    let (news, groups) = mpsc::unbounded();
    let groups = groups.map(Heard::Group);
    let (tell_places, described) = mpsc::unbounded();
    let described = described.map(Heard::Places);
    let streams = [nodes.boxed(), pods.boxed(), reservations.boxed(), groups.boxed(), described.boxed()];
    let all = futures::stream::select_all(streams);
    let mut watches = JoinSet::new();
    watches.spawn({
        let client = client.clone();
        async move { places::follow(&client, tree, |sources| tell_places.unbounded_send(sources).is_ok()).await }
    });
    let mut all = all.ready_chunks(BATCH);
    let mut picture = Picture { profiles, ..Picture::default() };
    while let Some(heard) = all.next().await {
        let mut told = Vec::new();
        for one in heard {
            picture.hear(one, &mut told);
        }
        for kind in picture.groups.take_wanted() {
            let news = news.clone();
            let tell = move |event| news.unbounded_send(event).is_ok();
            watches.spawn(groups::watch(client.clone(), kind, tell));
        }
        let complete = !synced.is_cancelled() && picture.complete();
        if complete {
            told.push(Observed::Synced);
        }
        handle.observe(told);
        if complete {
            synced.cancel();
            for (gang, resource_version) in picture.orphans() {
                tracing::info!(%gang, "removing the reservation of a gang that has no pods any more");
                requests.clone().remove(gang, resource_version).await;
            }
        }
    }
}

/// A watch that reconnects by itself with back-off; what breaks it is told once.
fn watch<K>(api: Api<K>, what: &'static str) -> impl Stream<Item = Event<K>> + Send
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut told = None;
    watcher(api, watcher::Config::default()).backoff(muster_machinery::watch::backoff()).filter_map(
        move |event| {
            let event = match event {
                Ok(event) => {
                    told = None;
                    Some(event)
                }
                Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) => {
                    if told.as_ref() != Some(&status.message) {
                        tracing::warn!(
                            error = status.message,
                            "cannot list {what}; nothing is answered meanwhile"
                        );
                        told = Some(status.message.clone());
                    }
                    None
                }
                Err(error) => {
                    tracing::debug!(%error, what, "the watch broke; resuming");
                    None
                }
            };
            std::future::ready(event)
        },
    )
}

/// What has been seen, as far as later events need it.
#[derive(Default)]
struct Picture {
    profiles: BTreeSet<String>,
    nodes: Relist,
    pods: Relist,
    reservations: Relist,
    groups: Groups,
    places: bool,
    /// Pods whose gangs objects of other systems describe.
    described: BTreeMap<PodKey, PodFacts>,
    /// Before everything was listed: versions of the reservations that an extender wrote.
    written: BTreeMap<GangKey, String>,
    /// Before everything was listed: gangs that have pods.
    peopled: BTreeSet<GangKey>,
}

impl Picture {
    fn complete(&self) -> bool {
        self.nodes.complete && self.pods.complete && self.reservations.complete && self.places
    }

    fn hear(&mut self, heard: Heard, told: &mut Vec<Observed>) {
        match heard {
            Heard::Node(event) => {
                for change in self.nodes.hear(event) {
                    told.push(match change {
                        Change::Seen(node) => Observed::Node(Box::new(objects::node(&node))),
                        Change::Gone { name, .. } => Observed::NodeGone(name),
                    });
                }
            }
            Heard::Pod(event) => {
                for change in self.pods.hear(event) {
                    told.push(self.pod(change));
                }
            }
            Heard::Places(sources) => {
                self.places = true;
                told.push(Observed::Places(Box::new(sources)));
            }
            Heard::Group(event) => {
                let Some(concerned) = self.groups.hear(event) else { return };
                let described = self.described.values().filter(|facts| {
                    facts.membership.described_by.as_ref().is_some_and(|by| concerned.includes(&by.group))
                });
                let seen =
                    described.map(|facts| super::objects::pod(facts.clone(), &self.profiles, &self.groups));
                told.extend(seen.map(|seen| Observed::Pod(Box::new(seen))));
            }
            Heard::Reservation(event) => {
                for change in self.reservations.hear(event) {
                    told.push(self.reservation(change));
                }
            }
        }
    }

    fn pod(&mut self, change: Change<Pod>) -> Observed {
        match change {
            Change::Seen(pod) => {
                let facts = PodFacts::read(&pod);
                match &facts.membership.described_by {
                    Some(part) if super::objects::is_ours(&facts, &self.profiles) => {
                        self.groups.want(part.group.kind);
                        self.described.insert(facts.key.clone(), facts.clone());
                    }
                    _ => {
                        self.described.remove(&facts.key);
                    }
                }
                let seen = super::objects::pod(facts, &self.profiles, &self.groups);
                if let Some(gang) = seen.gang.as_ref().filter(|_| !self.complete()) {
                    self.peopled.insert(GangKey::new(&gang.namespace, &gang.name));
                }
                Observed::Pod(Box::new(seen))
            }
            Change::Gone { namespace, name, uid } => {
                let key = PodKey::new(namespace, name);
                self.described.remove(&key);
                Observed::PodGone(key, uid)
            }
        }
    }

    fn reservation(&mut self, change: Change<GangReservation>) -> Observed {
        match change {
            Change::Seen(object) => {
                let seen = SeenReservation::from(&object);
                let ours = object.labels().get(MANAGED_BY_LABEL).is_some_and(|by| by == MANAGED_BY);
                if ours && !self.complete() {
                    self.written.insert(seen.gang.clone(), seen.resource_version.clone());
                }
                Observed::Reservation(seen)
            }
            Change::Gone { namespace, name, .. } => {
                let gang = GangKey::new(namespace, name);
                self.written.remove(&gang);
                Observed::ReservationGone(gang)
            }
        }
    }

    /// Reservations of gangs whose last pod went while nobody watched.
    fn orphans(&mut self) -> BTreeMap<GangKey, String> {
        let peopled = std::mem::take(&mut self.peopled);
        let mut written = std::mem::take(&mut self.written);
        written.retain(|gang, _| !peopled.contains(gang));
        written
    }
}
