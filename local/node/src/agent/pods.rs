//! The pods of the own nodes, each with a worker as long as there is something to do for it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::context::Context;
use super::record::Record;
use super::setup;
use super::worker::{Rest, Worker};

/// Namespace and name of a pod.
type Key = (String, String);

/// A pod that the API has, or has had.
struct Known {
    key: Key,
    care: Care,
}

/// Who cares for a pod.
enum Care {
    /// Its worker, which learns of changes here.
    Worker(watch::Sender<Option<Arc<Pod>>>),
    /// Nobody: it has ended, and until it is deleted nothing is left to be done.
    Nobody(Box<Record>),
}

/// All pods, by uid.
pub(super) struct Pods {
    context: Arc<Context>,
    known: HashMap<String, Known>,
    workers: JoinSet<(String, Rest)>,
    /// Pods of the disk that the API has not named yet.
    found: HashMap<String, Record>,
}

impl Pods {
    /// None yet, but for what an agent before this one has left on the disk.
    pub(super) fn new(context: Arc<Context>) -> Self {
        let found = Record::load_all(&context.pods_dir()).into_iter();
        let found = found.map(|(_, record)| (record.uid.clone(), record)).collect();
        Self { context, known: HashMap::new(), workers: JoinSet::new(), found }
    }

    /// A pod is there, or has changed.
    pub(super) fn apply(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        if let Some(known) = self.known.remove(&uid) {
            return self.change(uid, known, pod);
        }
        let key = key_of(&pod);
        let others = self.known.iter().filter(|(_, known)| known.key == key);
        let others: Vec<String> = others.map(|(uid, _)| uid.clone()).collect();
        for other in others {
            self.remove(&other);
        }
        let record = self.found.remove(&uid);
        self.work(uid, pod, record);
    }

    fn change(&mut self, uid: String, known: Known, pod: Pod) {
        match known.care {
            Care::Nobody(record) if pod.metadata.deletion_timestamp.is_some() => {
                return self.work(uid, pod, Some(*record));
            }
            // What has ended does not change any more.
            Care::Nobody(_) => {}
            Care::Worker(ref worker) => drop(worker.send_replace(Some(Arc::new(pod)))),
        }
        self.known.insert(uid, known);
    }

    /// A pod's object is gone.
    pub(super) fn remove(&mut self, uid: &str) {
        match self.known.remove(uid) {
            None => {}
            Some(Known { care: Care::Worker(worker), key }) => {
                worker.send_replace(None);
                self.known.insert(uid.to_owned(), Known { care: Care::Worker(worker), key });
            }
            Some(Known { care: Care::Nobody(record), .. }) => {
                let context = self.context.clone();
                self.workers.spawn(async move {
                    let uid = record.uid.clone();
                    setup::forget_pod(&context, *record).await;
                    (uid, Rest::Gone)
                });
            }
        }
    }

    /// The API has named all pods there are.
    pub(super) async fn keep_only(&mut self, listed: &HashSet<String>) {
        let gone: Vec<String> = self.known.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
        for uid in gone {
            self.remove(&uid);
        }
        // Pods of the disk that the API does not know: their objects went while no agent was there.
        let known = &self.known;
        let strangers = self.found.drain().filter(|(uid, _)| !known.contains_key(uid));
        futures::future::join_all(strangers.map(|(_, record)| {
            tracing::info!(pod = %record.name, "cleaning up after a pod whose object is gone");
            setup::forget_pod(&self.context, record)
        }))
        .await;
        setup::remove_strangers(&self.context, |uid| known.contains_key(uid));
    }

    /// Ends when a worker has come to rest and that is noted; never while none does. May be dropped and asked again.
    pub(super) async fn settle(&mut self) {
        match self.workers.join_next().await {
            None => std::future::pending().await,
            Some(ended) => self.note_rest(ended),
        }
    }

    fn note_rest(&mut self, ended: Result<(String, Rest), JoinError>) {
        let (uid, rest) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, "a pod's worker failed");
                return;
            }
        };
        let Rest::Ended(record, mut updates) = rest else {
            self.known.remove(&uid);
            return;
        };
        // What came while the worker was about to rest; nobody can tell once the sender is gone.
        let news = updates.has_changed().unwrap_or(false).then(|| updates.borrow_and_update().clone());
        if let Some(known) = self.known.get_mut(&uid) {
            known.care = Care::Nobody(record);
        }
        match news {
            None => {}
            Some(Some(pod)) => self.apply(Arc::unwrap_or_clone(pod)),
            Some(None) => self.remove(&uid),
        }
    }

    fn work(&mut self, uid: String, pod: Pod, record: Option<Record>) {
        let (key, pod) = (key_of(&pod), Arc::new(pod));
        let (sender, updates) = watch::channel(Some(pod.clone()));
        let Some(worker) = Worker::new(self.context.clone(), pod, updates, record) else { return };
        self.known.insert(uid.clone(), Known { key, care: Care::Worker(sender) });
        self.workers.spawn(async move { (uid, worker.run().await) });
    }
}

fn key_of(pod: &Pod) -> Key {
    let metadata = &pod.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}
