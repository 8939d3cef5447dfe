//! Follows the metadata of every object of every kind, custom ones included.

mod definitions;
mod subject;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::Client;
use kube::api::{Api, DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use muster_machinery::CancellationToken;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use definitions::Definitions;
pub(crate) use subject::{FOREGROUND, ORPHAN, Subject};

use crate::catalogue::{Catalogue, Kind};
use crate::informer::{Informer, Key, Object};

/// Pause after discovery failed.
const RETRY: Duration = Duration::from_millis(500);
/// First pause before discovery is asked again for a definition that it does not show yet; it doubles.
const FIRST_RETRY: Duration = Duration::from_millis(4);
/// Longest pause before discovery is asked again, as in Kubernetes' garbage collector.
const RESYNC: Duration = Duration::from_secs(30);

/// What happened to an object.
#[derive(Debug)]
pub(crate) enum Sighting<'a> {
    /// It is there, new or changed.
    Seen(&'a Arc<Subject>),
    /// It is gone.
    Gone(&'a Arc<Subject>),
}

type Handler = Box<dyn Fn(&Sighting<'_>) + Send + Sync>;

/// Tells handlers of every object.
pub(crate) struct Monitor {
    client: Client,
    catalogue: Arc<Catalogue>,
    handlers: RwLock<Vec<Handler>>,
    /// Kinds that informers follow already.
    covered: RwLock<Vec<(String, String)>>,
    definitions: Mutex<Definitions>,
    definitions_changed: Notify,
}

impl Monitor {
    pub(crate) fn new(client: Client, catalogue: Arc<Catalogue>) -> Arc<Self> {
        Arc::new(Self {
            client,
            catalogue,
            handlers: RwLock::default(),
            covered: RwLock::default(),
            definitions: Mutex::default(),
            definitions_changed: Notify::new(),
        })
    }

    /// Calls `handler` for every object.
    pub(crate) fn on_sighting(&self, handler: impl Fn(&Sighting<'_>) + Send + Sync + 'static) {
        self.handlers.write().push(Box::new(handler));
    }

    /// Learns of a kind from its informer instead of a watch of its own.
    pub(crate) fn cover<K: Object>(self: &Arc<Self>, informer: &Informer<K>, namespaced: bool) {
        let resource = kube::core::ApiResource::erase::<K>(&());
        self.covered.write().push((resource.group.clone(), resource.plural.clone()));
        let kind = Arc::new(Kind { resource, namespaced, watchable: true });
        let monitor = self.clone();
        informer.on_change(move |change| match (change.old, change.new) {
            (_, Some(new)) => monitor.tell(&Sighting::Seen(&Arc::new(Subject::new(&kind, new.meta())))),
            (Some(old), None) => monitor.tell(&Sighting::Gone(&Arc::new(Subject::new(&kind, old.meta())))),
            (None, None) => {}
        });
    }

    fn tell(&self, sighting: &Sighting<'_>) {
        let (Sighting::Seen(subject) | Sighting::Gone(subject)) = sighting;
        if subject.kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
            self.definitions.lock().note(&subject.key.name, matches!(sighting, Sighting::Seen(_)));
            self.definitions_changed.notify_one();
        }
        for handler in self.handlers.read().iter() {
            handler(sighting);
        }
    }

    fn wants(&self, kind: &Kind) -> bool {
        let covered = self.covered.read();
        let named = |(group, plural): &(String, String)| kind.is(group, plural);
        kind.watchable && !kind.is("", "events") && !covered.iter().any(named)
    }

    /// Follows every kind until the shutdown, starting and ending watches as definitions come and go.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut running: HashMap<Arc<Kind>, CancellationToken> = HashMap::new();
        let mut watches = JoinSet::new();
        let mut next_retry = FIRST_RETRY;
        loop {
            let pause = match self.catalogue.refresh().await {
                Ok(kinds) => {
                    self.adjust(&kinds, &mut running, &mut watches, &shutdown);
                    // The event of a definition may come before discovery follows it; one whose names are taken is
                    // never served.
                    let settled = self.definitions.lock().agree_with(&kinds);
                    let pause = if settled { RESYNC } else { next_retry };
                    next_retry = (next_retry * 2).min(RESYNC);
                    pause
                }
                Err(error) => {
                    tracing::debug!(%error, "discovery failed, asking again");
                    RETRY
                }
            };
            while watches.try_join_next().is_some() {}
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.definitions_changed.notified() => next_retry = FIRST_RETRY,
                () = tokio::time::sleep(pause) => {}
            }
        }
        while watches.join_next().await.is_some() {}
    }

    /// Starts and ends watches so that there is one for every kind.
    fn adjust(
        self: &Arc<Self>,
        kinds: &[Arc<Kind>],
        running: &mut HashMap<Arc<Kind>, CancellationToken>,
        watches: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) {
        for (_, token) in running.extract_if(|kind, _| !kinds.contains(kind)) {
            token.cancel();
        }
        for kind in kinds.iter().filter(|kind| self.wants(kind)) {
            if !running.contains_key(kind) {
                let token = shutdown.child_token();
                watches.spawn(self.clone().follow(kind.clone(), token.clone()));
                running.insert(kind.clone(), token);
            }
        }
    }

    async fn follow(self: Arc<Self>, kind: Arc<Kind>, token: CancellationToken) {
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.client.clone(), &kind.resource);
        let events =
            watcher::watcher(api, watcher::Config::default()).backoff(muster_machinery::watch::backoff());
        let mut events = std::pin::pin!(events.take_until(token.cancelled_owned()));
        let mut known: HashMap<Key, Arc<Subject>> = HashMap::new();
        let mut listed: HashMap<Key, Arc<Subject>> = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => {
                    let subject = Arc::new(Subject::new(&kind, &object.metadata));
                    listed.insert(subject.key.clone(), subject.clone());
                    self.see(&mut known, subject);
                }
                Ok(Event::InitDone) => {
                    let gone = known.extract_if(|key, _| !listed.contains_key(key));
                    gone.for_each(|(_, subject)| self.tell(&Sighting::Gone(&subject)));
                    listed.clear();
                }
                Ok(Event::Apply(object)) => {
                    self.see(&mut known, Arc::new(Subject::new(&kind, &object.metadata)));
                }
                Ok(Event::Delete(object)) => {
                    let subject = Arc::new(Subject::new(&kind, &object.metadata));
                    known.remove(&subject.key);
                    self.tell(&Sighting::Gone(&subject));
                }
                Err(error) => {
                    tracing::debug!(kind = kind.resource.kind, %error, "watch broke, starting again");
                }
            }
        }
        // The kind is no longer served, and its objects with it.
        for subject in known.values() {
            self.tell(&Sighting::Gone(subject));
        }
    }

    fn see(&self, known: &mut HashMap<Key, Arc<Subject>>, subject: Arc<Subject>) {
        if let Some(old) = known.insert(subject.key.clone(), subject.clone())
            && old.uid != subject.uid
        {
            self.tell(&Sighting::Gone(&old));
        }
        self.tell(&Sighting::Seen(&subject));
    }
}
