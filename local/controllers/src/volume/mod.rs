//! Volumes: a claim gets a folder on this machine, a volume follows its claim.

mod plan;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fs_err as fs;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt as _};
use plan::{Binding, IS_DEFAULT, PROTECTION, PROVISIONER, STANDARD};
use serde_json::{Value, json};

use crate::error::{Error, Result, existing_is_fine, gone_is_fine};
use crate::events::post_params;
use crate::informer::{Informer, Key};
use crate::informers::Informers;
use crate::queue::Queue;
use crate::worker::Reconcile;

/// Pause before a claim asks again for a folder that a volume on its way out still holds.
const HELD: Duration = Duration::from_secs(1);

/// The volume controller. Claims are queued by namespace and name, volumes with an empty namespace.
pub(crate) struct Volumes {
    client: Client,
    root: PathBuf,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    cache: Arc<Informer<PersistentVolume>>,
    classes: Arc<Informer<StorageClass>>,
    pods: Arc<Informer<Pod>>,
    queue: Queue<Key>,
}

impl Volumes {
    pub(crate) fn new(client: Client, informers: &Informers, root: PathBuf) -> Arc<Self> {
        let controller = Arc::new(Self {
            client,
            root,
            claims: informers.claims.clone(),
            cache: informers.volumes.clone(),
            classes: informers.classes.clone(),
            pods: informers.pods.clone(),
            queue: Queue::new(),
        });
        let own = controller.clone();
        informers.claims.on_change(move |change| {
            let Some(claim) = change.latest() else { return };
            own.queue.add(Key::of(&**claim));
            let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
            if let Some(volume) = volume.filter(|volume| !volume.is_empty()) {
                own.queue.add(Key::new("", volume));
            }
        });
        let own = controller.clone();
        informers.volumes.on_change(move |change| {
            let Some(volume) = change.latest() else { return };
            own.queue.add(Key::of(&**volume));
            match volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) {
                Some(claim) => own.queue.add(Key::new(
                    claim.namespace.clone().unwrap_or_default(),
                    claim.name.clone().unwrap_or_default(),
                )),
                None => own.ask_unbound(),
            }
        });
        let own = controller.clone();
        informers.classes.on_change(move |_| own.ask_unbound());
        let own = controller.clone();
        informers.pods.on_change(move |change| {
            let Some(pod) = change.latest() else { return };
            if change.new.is_some_and(|pod| !crate::pods::is_finished(pod)) {
                return;
            }
            let sources = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
            for source in sources.filter_map(|volume| volume.persistent_volume_claim.as_ref()) {
                own.queue.add(Key::new(pod.namespace().unwrap_or_default(), source.claim_name.clone()));
            }
        });
        controller
    }

    fn ask_unbound(&self) {
        for claim in self.claims.all() {
            if phase(&claim) != "Bound" {
                self.queue.add(Key::of(&*claim));
            }
        }
    }

    /// Makes sure that there is a default class.
    pub(crate) async fn furnish(&self) -> Result<()> {
        let class = StorageClass {
            metadata: ObjectMeta {
                name: Some(STANDARD.into()),
                annotations: Some([(IS_DEFAULT.to_owned(), "true".to_owned())].into()),
                ..ObjectMeta::default()
            },
            provisioner: PROVISIONER.into(),
            reclaim_policy: Some("Delete".into()),
            volume_binding_mode: Some("Immediate".into()),
            ..StorageClass::default()
        };
        let api: Api<StorageClass> = Api::all(self.client.clone());
        existing_is_fine(api.create(&post_params(), &class).await)?;
        Ok(())
    }

    async fn claim(&self, claim: &PersistentVolumeClaim) -> Result<Option<Duration>> {
        if claim.metadata.deletion_timestamp.is_some() {
            self.let_go(claim).await?;
            return Ok(None);
        }
        if phase(claim) == "Bound" {
            return Ok(None);
        }
        if !claim.finalizers().iter().any(|own| own == PROTECTION) {
            let mut finalizers = claim.finalizers().to_vec();
            finalizers.push(PROTECTION.into());
            self.set_finalizers(claim, json!(finalizers)).await?;
            return Ok(None);
        }
        match plan::choose(claim, &self.cache.all(), &self.classes.all()) {
            Binding::Existing(name) => self.bind(claim, &name).await,
            Binding::Provision(class) => self.provision(claim, &class).await,
            Binding::Wait => Ok(None),
        }
    }

    async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
    ) -> Result<Option<Duration>> {
        let namespace = claim.namespace().unwrap_or_default();
        let Some(folder) = plan::folder(&self.root, &namespace, &claim.name_any()) else {
            return Ok(None);
        };
        let wanted = plan::provision(claim, class, &folder);
        let path = |volume: &PersistentVolume| Some(volume.spec.as_ref()?.host_path.as_ref()?.path.clone());
        let holds = |other: &Arc<PersistentVolume>| {
            path(other) == path(&wanted) && other.metadata.name != wanted.metadata.name
        };
        if self.cache.all().iter().any(holds) {
            return Ok(Some(HELD));
        }
        fs::create_dir_all(&folder).map_err(|source| Error::Folder { folder: folder.clone(), source })?;
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        if let Some(written) = existing_is_fine(api.create(&post_params(), &wanted).await)? {
            self.cache.shows(&written).await?;
        }
        self.bind(claim, &wanted.name_any()).await
    }

    async fn bind(&self, claim: &PersistentVolumeClaim, name: &str) -> Result<Option<Duration>> {
        let Some(volume) = self.cache.get(&Key::new("", name)) else { return Ok(None) };
        let Some(spec) = &volume.spec else { return Ok(None) };
        if spec.claim_ref.as_ref().is_some_and(|reference| !plan::refers_to(reference, claim)) {
            return Ok(None);
        }
        let parameters = patch_params();
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        if spec.claim_ref.as_ref().and_then(|reference| reference.uid.as_deref())
            != claim.metadata.uid.as_deref()
        {
            let patch = json!({
                "metadata": { "resourceVersion": volume.resource_version() },
                "spec": { "claimRef": plan::reference(claim) },
            });
            api.patch(name, &parameters, &Patch::Merge(patch)).await?;
        }
        set_phase(&api, name, "Bound").await?;
        let claims: Api<PersistentVolumeClaim> =
            Api::namespaced(self.client.clone(), &claim.namespace().unwrap_or_default());
        let patch = json!({
            "metadata": { "uid": claim.uid(), "annotations": {
                "pv.kubernetes.io/bind-completed": "yes",
                "pv.kubernetes.io/bound-by-controller": "yes",
            }},
            "spec": { "volumeName": name },
        });
        claims.patch(&claim.name_any(), &parameters, &Patch::Merge(patch)).await?;
        let status = json!({ "metadata": { "uid": claim.uid() }, "status": {
            "phase": "Bound", "accessModes": spec.access_modes, "capacity": spec.capacity,
        }});
        claims.patch_status(&claim.name_any(), &parameters, &Patch::Merge(status)).await?;
        Ok(None)
    }

    /// Lets a deleted claim go once no pod uses it.
    async fn let_go(&self, claim: &PersistentVolumeClaim) -> Result<()> {
        let name = claim.name_any();
        let pods = self.pods.in_namespace(&claim.namespace().unwrap_or_default());
        let protected = claim.finalizers().iter().any(|own| own == PROTECTION);
        if !protected || pods.iter().any(|pod| plan::is_used_by(&name, pod)) {
            return Ok(());
        }
        let rest: Vec<&String> = claim.finalizers().iter().filter(|own| *own != PROTECTION).collect();
        self.set_finalizers(claim, if rest.is_empty() { Value::Null } else { json!(rest) }).await
    }

    async fn set_finalizers(&self, claim: &PersistentVolumeClaim, finalizers: Value) -> Result<()> {
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.client.clone(), &claim.namespace().unwrap_or_default());
        let patch = json!({ "metadata": {
            "uid": claim.uid(), "resourceVersion": claim.resource_version(), "finalizers": finalizers,
        }});
        gone_is_fine(api.patch(&claim.name_any(), &patch_params(), &Patch::Merge(patch)).await)?;
        Ok(())
    }

    async fn volume(&self, volume: &PersistentVolume) -> Result<()> {
        let Some(spec) = volume.spec.as_ref().filter(|_| volume.metadata.deletion_timestamp.is_none()) else {
            return Ok(());
        };
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
        let Some(reference) = spec.claim_ref.as_ref().filter(|reference| reference.uid.is_some()) else {
            if phase != "Available" {
                set_phase(&api, &volume.name_any(), "Available").await?;
            }
            return Ok(());
        };
        let claims: Api<PersistentVolumeClaim> =
            Api::namespaced(self.client.clone(), reference.namespace.as_deref().unwrap_or_default());
        let claim = claims.get_metadata_opt(reference.name.as_deref().unwrap_or_default()).await?;
        if claim.is_some_and(|claim| claim.metadata.uid == reference.uid) {
            return Ok(());
        }
        if spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete")
            && let Some(folder) = plan::folder_to_remove(volume, &self.root)
        {
            remove(folder).await?;
            let parameters = DeleteParams {
                preconditions: Some(Preconditions { uid: volume.uid(), resource_version: None }),
                ..DeleteParams::default()
            };
            gone_is_fine(api.delete(&volume.name_any(), &parameters).await)?;
        } else if phase != "Released" {
            set_phase(&api, &volume.name_any(), "Released").await?;
        }
        Ok(())
    }
}

/// Removes a folder with all it holds, aside from the threads that serve others.
async fn remove(folder: PathBuf) -> Result<()> {
    let own = folder.clone();
    let removed = tokio::task::spawn_blocking(move || fs::remove_dir_all(own)).await;
    match removed.unwrap_or_else(|broken| Err(std::io::Error::other(broken))) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::Folder { folder, source }),
        _ => Ok(()),
    }
}

fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(crate::MANAGER.into()), ..PatchParams::default() }
}

async fn set_phase(api: &Api<PersistentVolume>, name: &str, phase: &str) -> Result<()> {
    let patch = json!({ "status": { "phase": phase } });
    gone_is_fine(api.patch_status(name, &patch_params(), &Patch::Merge(patch)).await)?;
    Ok(())
}

impl Reconcile for Volumes {
    type Key = Key;

    const NAME: &'static str = "persistentvolume-controller";

    fn queue(&self) -> &Queue<Key> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>> {
        if !key.namespace.is_empty() {
            let Some(claim) = self.claims.get(key) else { return Ok(None) };
            return self.claim(&claim).await;
        }
        if let Some(volume) = self.cache.get(key) {
            self.volume(&volume).await?;
        }
        Ok(None)
    }
}
