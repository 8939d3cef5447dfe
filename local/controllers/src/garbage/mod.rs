//! Garbage collection: objects go with their owners, before them (`foregroundDeletion`), or stay (`orphan`).

mod graph;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use graph::{Decision, Graph, Propagation};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Client;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::catalogue::{Catalogue, Kind};
use crate::error::{Error, Result, gone_is_fine};
use crate::monitor::{FOREGROUND, Monitor, ORPHAN, Sighting, Subject};
use crate::queue::Queue;
use crate::worker::Reconcile;

/// The garbage collector.
pub(crate) struct Garbage {
    client: Client,
    catalogue: Arc<Catalogue>,
    graph: Mutex<Graph>,
    queue: Queue<String>,
}

impl Garbage {
    pub(crate) fn new(client: Client, catalogue: Arc<Catalogue>, monitor: &Monitor) -> Arc<Self> {
        let garbage = Arc::new(Self { client, catalogue, graph: Mutex::default(), queue: Queue::new() });
        let own = garbage.clone();
        monitor.on_sighting(move |sighting| {
            let affected = match sighting {
                Sighting::Seen(subject) => own.graph.lock().see(subject),
                Sighting::Gone(subject) => own.graph.lock().forget(&subject.uid),
            };
            for uid in affected {
                own.queue.add(uid);
            }
        });
        garbage
    }

    /// Asks the API server for owners that no watch has shown; returns those that exist.
    async fn verify(&self, subject: &Subject, owners: &[OwnerReference]) -> Result<HashSet<String>> {
        let mut alive = HashSet::new();
        for owner in owners {
            let kind = self.catalogue.find(&owner.api_version, &owner.kind).await?;
            let found = kind.api(&self.client, &subject.key.namespace).get_metadata_opt(&owner.name).await?;
            if found.is_some_and(|found| found.metadata.uid.as_deref() == Some(owner.uid.as_str())) {
                alive.insert(owner.uid.clone());
            } else {
                self.graph.lock().note_gone(&owner.uid);
            }
        }
        Ok(alive)
    }

    async fn delete(&self, subject: &Subject, propagation: Propagation) -> Result<()> {
        let policy = match propagation {
            Propagation::Background => PropagationPolicy::Background,
            Propagation::Foreground => PropagationPolicy::Foreground,
            Propagation::Orphan => PropagationPolicy::Orphan,
        };
        // The owners may have changed since; the revision makes sure that what was judged is what goes.
        let Some(live) = self.live(subject).await? else { return Ok(()) };
        if live.owner_references.as_deref().unwrap_or_default() != subject.owners {
            return Ok(());
        }
        let parameters = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions {
                uid: Some(subject.uid.clone()),
                resource_version: live.resource_version,
            }),
            ..DeleteParams::default()
        };
        let api = subject.kind.api(&self.client, &subject.key.namespace);
        gone_is_fine(api.delete(&subject.key.name, &parameters).await)?;
        tracing::debug!(kind = subject.kind.resource.kind, object = %subject.key, "deleted after its owners");
        Ok(())
    }

    /// The object's metadata as it is now, none when it is another object by now.
    async fn live(&self, subject: &Subject) -> Result<Option<ObjectMeta>> {
        let api = subject.kind.api(&self.client, &subject.key.namespace);
        let found = api.get_metadata_opt(&subject.key.name).await?;
        let meta = found.map(|found| found.metadata);
        Ok(meta.filter(|meta| meta.uid.as_deref() == Some(subject.uid.as_str())))
    }

    async fn drop_owners(&self, kind: &Kind, meta: &ObjectMeta, owners: &[String]) -> Result<()> {
        let all = meta.owner_references.as_deref().unwrap_or_default();
        let rest: Vec<&OwnerReference> = all.iter().filter(|owner| !owners.contains(&owner.uid)).collect();
        if rest.len() == all.len() {
            return Ok(());
        }
        let rest = if rest.is_empty() { Value::Null } else { json!(rest) };
        self.patch(kind, meta, "ownerReferences", rest).await
    }

    async fn drop_finalizer(&self, subject: &Subject, finalizer: &str) -> Result<()> {
        let Some(meta) = self.live(subject).await? else { return Ok(()) };
        let all = meta.finalizers.as_deref().unwrap_or_default();
        let rest: Vec<&String> = all.iter().filter(|own| *own != finalizer).collect();
        if rest.len() == all.len() {
            return Ok(());
        }
        let rest = if rest.is_empty() { Value::Null } else { json!(rest) };
        self.patch(&subject.kind, &meta, "finalizers", rest).await
    }

    async fn patch(&self, kind: &Kind, meta: &ObjectMeta, field: &str, value: Value) -> Result<()> {
        let name = meta.name.as_deref().unwrap_or_default();
        let api = kind.api(&self.client, meta.namespace.as_deref().unwrap_or_default());
        let patch = json!({ "metadata": {
            "uid": meta.uid, "resourceVersion": meta.resource_version, field: value,
        }});
        let parameters = PatchParams { field_manager: Some(crate::MANAGER.into()), ..PatchParams::default() };
        gone_is_fine(api.patch_metadata(name, &parameters, &Patch::Merge(patch)).await)?;
        Ok(())
    }

    /// Takes the owner out of every object that names it, then lets it go. The objects are listed afresh: one whose
    /// creation no watch has shown yet would otherwise be collected.
    async fn orphan(&self, owner: &Subject) -> Result<()> {
        let gone = [owner.uid.clone()];
        for kind in self.catalogue.refresh().await?.iter() {
            if owner.kind.namespaced && !kind.namespaced {
                continue;
            }
            let api = if owner.kind.namespaced {
                kind.api(&self.client, &owner.key.namespace)
            } else {
                kube::Api::all_with(self.client.clone(), &kind.resource)
            };
            for object in api.list_metadata(&ListParams::default()).await? {
                let names = |reference: &OwnerReference| reference.uid == owner.uid;
                if object.metadata.owner_references.iter().flatten().any(names) {
                    self.drop_owners(kind, &object.metadata, &gone).await?;
                }
            }
        }
        self.drop_finalizer(owner, ORPHAN).await
    }
}

impl Reconcile for Garbage {
    type Key = String;

    const NAME: &'static str = "garbage-collector";

    fn queue(&self) -> &Queue<String> {
        &self.queue
    }

    async fn reconcile(&self, uid: &String) -> Result<Option<Duration>> {
        let mut alive = HashSet::new();
        loop {
            let (subject, decision) = {
                let graph = self.graph.lock();
                let Some(subject) = graph.subject(uid).cloned() else { return Ok(None) };
                (subject, graph.decide(uid, &alive))
            };
            match decision {
                Decision::Leave => {}
                Decision::Verify(owners) => {
                    alive.extend(self.verify(&subject, &owners).await?);
                    continue;
                }
                Decision::DropOwners(owners) => {
                    if let Some(meta) = self.live(&subject).await? {
                        self.drop_owners(&subject.kind, &meta, &owners).await?;
                    }
                }
                Decision::Delete(propagation) => self.delete(&subject, propagation).await?,
                Decision::Orphan => self.orphan(&subject).await?,
                Decision::Await(dependents) => dependents.into_iter().for_each(|uid| self.queue.add(uid)),
                Decision::Finish => self.drop_finalizer(&subject, FOREGROUND).await?,
            }
            // The owner may go before its kind is watched: then nothing but another look notices.
            let unseen = |owner: &&OwnerReference| {
                alive.contains(&owner.uid) && self.graph.lock().subject(&owner.uid).is_none()
            };
            return match subject.owners.iter().find(unseen) {
                Some(owner) => Err(Error::OwnerUnseen { owner: format!("{}/{}", owner.kind, owner.name) }),
                None => Ok(None),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, PostParams};
    use kube::core::ApiResource;
    use muster_machinery::CancellationToken;

    use super::*;

    async fn map(api: &Api<ConfigMap>, name: &str, owners: Value) -> ObjectMeta {
        let map = json!({ "metadata": { "name": name, "ownerReferences": owners } });
        let map = serde_json::from_value(map).expect("a map");
        api.create(&PostParams::default(), &map).await.expect("created").metadata
    }

    #[tokio::test]
    async fn an_owner_that_no_watch_shows_is_asked_for_again_until_one_does_or_it_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = muster_apiserver::Options::new(folder.path().join("server"));
        options.in_memory = true;
        let server = options.build().await.expect("a server");
        let client = server.handle().client();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(server.run(shutdown.clone()));
        let catalogue = Arc::new(Catalogue::new(client.clone()));
        let monitor = Monitor::new(client.clone(), catalogue.clone());
        let garbage = Garbage::new(client.clone(), catalogue, &monitor);
        let kind = Arc::new(Kind {
            resource: ApiResource::erase::<ConfigMap>(&()),
            namespaced: true,
            watchable: true,
        });
        let maps: Api<ConfigMap> = Api::namespaced(client, "default");

        for seen in [true, false] {
            let owner = map(&maps, "owner", json!([])).await;
            let reference =
                json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid }]);
            let child = Arc::new(Subject::new(&kind, &map(&maps, "child", reference).await));
            garbage.graph.lock().see(&child);
            let unseen =
                garbage.reconcile(&child.uid).await.expect_err("nobody would tell of the owner's end");
            assert_eq!(unseen.to_string(), "owner ConfigMap/owner exists, but no watch has shown it yet");
            if seen {
                garbage.graph.lock().see(&Arc::new(Subject::new(&kind, &owner)));
                assert_eq!(garbage.reconcile(&child.uid).await.expect("in order"), None);
                maps.delete("child", &DeleteParams::default()).await.expect("deleted");
                maps.delete("owner", &DeleteParams::default()).await.expect("deleted");
            } else {
                maps.delete("owner", &DeleteParams::default()).await.expect("deleted");
                garbage.reconcile(&child.uid).await.expect("collected");
                assert_eq!(maps.get_opt("child").await.expect("an answer"), None);
            }
        }
        shutdown.cancel();
        served.await.expect("a task that ends").expect("served");
    }
}
