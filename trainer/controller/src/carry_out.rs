//! Carrying a plan out, request by request.

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use muster_trainer_core::{
    Effect, Event, EventType, Kind, ObjectAction, Options, Plan, PodAnnotation, PodDeletion,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::expectations::Expectations;
use crate::reconcile::{Error, is_not_found, is_refused};
use crate::report;

mod companions;

/// What the requests of one plan share.
pub(crate) struct Executor<'a> {
    pub(crate) client: &'a Client,
    pub(crate) jobs: Api<DynamicObject>,
    pub(crate) kind: &'static Kind,
    /// The job as the plan was made for it, then as it was last written.
    pub(crate) job: DynamicObject,
    pub(crate) options: &'a Options,
    pub(crate) expectations: &'a Expectations,
    pub(crate) events: Vec<Event>,
}

impl Executor<'_> {
    fn namespace(&self) -> String {
        self.job.namespace().unwrap_or_else(|| "default".to_owned())
    }

    fn uid(&self) -> String {
        self.job.uid().unwrap_or_default()
    }

    /// Takes every step of the plan, in order, up to the first that is refused.
    pub(crate) async fn carry_out(&mut self, mut plan: Plan) -> Result<(), Error> {
        let (events, counters) = (std::mem::take(&mut plan.events), std::mem::take(&mut plan.counters));
        let mut told = Some(events);
        let is_told_by_status = plan.status.is_some();
        for stage in plan.stages() {
            let writes_status = matches!(stage.first(), Some(Effect::WriteStatus(_)));
            self.take_stage(stage).await?;
            if writes_status {
                self.events.extend(told.take().unwrap_or_default());
                report::count(self.kind, &self.namespace(), &counters);
            }
        }
        if !is_told_by_status {
            self.events.extend(told.unwrap_or_default());
        }
        Ok(())
    }

    async fn take_stage(&mut self, stage: Vec<Effect>) -> Result<(), Error> {
        let mut others = Vec::new();
        for effect in stage {
            match effect {
                Effect::Annotate(_) | Effect::WriteStatus(_) | Effect::DeleteJob => {
                    self.write_job(effect).await?;
                }
                other => others.push(other),
            }
        }
        let results = join_all(others.into_iter().map(|effect| self.act(effect))).await;
        let mut outcome = Ok(());
        for (events, result) in results {
            self.events.extend(events);
            outcome = outcome.and(result);
        }
        outcome
    }

    async fn write_job(&mut self, effect: Effect) -> Result<(), Error> {
        let name = self.job.name_any();
        let version = self.job.resource_version();
        let written = match effect {
            Effect::Annotate(annotations) => {
                let patch = json!({"metadata": {"resourceVersion": version, "annotations": annotations}});
                self.jobs.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?
            }
            Effect::WriteStatus(status) => {
                self.job.data["status"] = serde_json::to_value(status)?;
                self.jobs.replace_status(&name, &PostParams::default(), &self.job).await?
            }
            _ => {
                let preconditions = Preconditions { uid: self.job.uid(), ..Preconditions::default() };
                let parameters = DeleteParams::background().preconditions(preconditions);
                return settled(self.jobs.delete(&name, &parameters).await.map(drop)).map_err(Error::from);
            }
        };
        self.expectations.job_written(&self.uid(), written.resource_version());
        self.job = written;
        Ok(())
    }

    async fn act(&self, effect: Effect) -> (Option<Event>, Result<(), Error>) {
        let namespace = self.namespace();
        match effect {
            Effect::CreatePod(pod) => {
                self.create(&Api::<Pod>::namespaced(self.client.clone(), &namespace), pod).await
            }
            Effect::CreateService(service) => {
                self.create(&Api::<Service>::namespaced(self.client.clone(), &namespace), service).await
            }
            Effect::AnnotatePod(annotation) => self.annotate_pod(annotation).await,
            Effect::DeletePod(deletion) => self.delete_pod(deletion).await,
            Effect::Companion(action) => self.act_on_companion(action).await,
            Effect::DeleteService(name) => {
                let services = Api::<Service>::namespaced(self.client.clone(), &namespace);
                let result = settled(services.delete(&name, &DeleteParams::background()).await.map(drop));
                (Some(outcome(&result, "Delete", "Service", &name)), result.map_err(Error::from))
            }
            Effect::Autoscaler(action) => {
                let api = Api::<HorizontalPodAutoscaler>::namespaced(self.client.clone(), &namespace);
                self.act_on(&api, action, "HorizontalPodAutoscaler").await
            }
            Effect::PodGroup(action) => {
                let Some(resource) = crate::reconcile::pod_group_resource(self.options) else {
                    return (None, Ok(()));
                };
                let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &namespace, &resource);
                match typed(action) {
                    Ok(action) => self.act_on(&api, action, "PodGroup").await,
                    Err(error) => (None, Err(error.into())),
                }
            }
            // These write the job, which takes this executor for itself: `write_job`.
            Effect::Annotate(_) | Effect::WriteStatus(_) | Effect::DeleteJob => (None, Ok(())),
        }
    }

    async fn create<K>(&self, api: &Api<K>, object: K) -> (Option<Event>, Result<(), Error>)
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    {
        let (kind, name, uid) = (K::kind(&()), object.name_any(), self.uid());
        let key = format!("{kind}/{name}");
        self.expectations.creating(&uid, &key, Timestamp::now());
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => {
                let counted = match &*kind {
                    "Pod" => Some(CREATED_PODS),
                    "Service" => Some(CREATED_SERVICES),
                    _ => None,
                };
                if let Some(counted) = counted {
                    report::count_one(counted, self.kind, &self.namespace());
                }
                (
                    Some(report::deed(
                        true,
                        "Create",
                        &kind,
                        format!("created {} {name}", kind.to_lowercase()),
                    )),
                    Ok(()),
                )
            }
            Err(error) => {
                self.expectations.not_created(&uid, &key);
                self.explain_refusal(api, &name, error).await
            }
        }
    }

    /// An object of the name is there: it is ours and the cache is late, or another's, which must be told.
    async fn explain_refusal<K>(
        &self,
        api: &Api<K>,
        name: &str,
        error: kube::Error,
    ) -> (Option<Event>, Result<(), Error>)
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let kind = K::kind(&());
        let message = format!("cannot create {} {name}: {error}", kind.to_lowercase());
        let refused = report::deed(false, "Create", &kind, message);
        if !matches!(&error, kube::Error::Api(status) if status.is_already_exists()) {
            return (Some(refused), Err(error.into()));
        }
        match api.get_metadata_opt(name).await {
            Ok(Some(other)) if is_owned_by(&other, &self.uid()) => (None, Ok(())),
            Ok(Some(_)) => {
                let message = format!(
                    "cannot create {} {name}: one of that name exists and belongs to another; delete it or rename the job",
                    kind.to_lowercase()
                );
                (
                    Some(report::deed(false, "Create", &kind, message)),
                    Err(Error::NameTaken { kind: kind.into(), name: name.to_owned() }),
                )
            }
            Ok(None) => (None, Err(error.into())),
            Err(error) => (None, Err(error.into())),
        }
    }

    async fn annotate_pod(&self, annotation: PodAnnotation) -> (Option<Event>, Result<(), Error>) {
        let PodAnnotation { name, uid, annotations } = annotation;
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace());
        let patch = json!({"metadata": {"uid": uid, "annotations": annotations}});
        let written = pods.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        match settled(written.map(drop)) {
            // Another pod of the name has another uid, which nobody can change.
            Err(kube::Error::Api(status)) if status.code == 422 => (None, Ok(())),
            result => (None, result.map_err(Error::from)),
        }
    }

    async fn delete_pod(&self, deletion: PodDeletion) -> (Option<Event>, Result<(), Error>) {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace());
        let preconditions = Preconditions { uid: Some(deletion.uid), ..Preconditions::default() };
        let mut parameters = DeleteParams::background().preconditions(preconditions);
        if deletion.force {
            parameters.grace_period_seconds = Some(0);
        }
        let result = settled(pods.delete(&deletion.name, &parameters).await.map(drop));
        (Some(outcome(&result, "Delete", "Pod", &deletion.name)), result.map_err(Error::from))
    }

    async fn act_on<K>(
        &self,
        api: &Api<K>,
        action: ObjectAction<K>,
        kind: &str,
    ) -> (Option<Event>, Result<(), Error>)
    where
        K: Resource + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    {
        let name = self.job.name_any();
        let (verb, result) = match action {
            ObjectAction::Keep => return (None, Ok(())),
            ObjectAction::Create(object) => {
                ("Create", api.create(&PostParams::default(), &object).await.map(drop))
            }
            ObjectAction::Update(object) => {
                ("Update", api.replace(&name, &PostParams::default(), &object).await.map(drop))
            }
            ObjectAction::Delete => {
                ("Delete", settled(api.delete(&name, &DeleteParams::background()).await.map(drop)))
            }
        };
        (Some(outcome(&result, verb, kind, &name)), result.map_err(Error::from))
    }
}

const CREATED_PODS: &str = "training_operator_created_pods_total";
const CREATED_SERVICES: &str = "training_operator_created_services_total";

/// A deletion of what is gone, or has been replaced by another, is done.
fn settled(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(error) if is_not_found(&error) || is_refused(&error) => Ok(()),
        other => other,
    }
}

fn outcome(result: &kube::Result<()>, verb: &str, kind: &str, name: &str) -> Event {
    let done = format!("{}d {} {name}", verb.to_lowercase(), kind.to_lowercase());
    match result {
        Ok(()) => report::deed(true, verb, kind, done),
        Err(error) => {
            let message = format!("cannot {} {} {name}: {error}", verb.to_lowercase(), kind.to_lowercase());
            Event { type_: EventType::Warning, ..report::deed(false, verb, kind, message) }
        }
    }
}

fn is_owned_by(object: &impl Resource, uid: &str) -> bool {
    object.owner_references().iter().any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

fn typed(action: ObjectAction<Value>) -> serde_json::Result<ObjectAction<DynamicObject>> {
    Ok(match action {
        ObjectAction::Keep => ObjectAction::Keep,
        ObjectAction::Delete => ObjectAction::Delete,
        ObjectAction::Create(object) => ObjectAction::Create(serde_json::from_value(object)?),
        ObjectAction::Update(object) => ObjectAction::Update(serde_json::from_value(object)?),
    })
}
