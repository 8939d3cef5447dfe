//! What the containers that fetch data and models are told.

use k8s_openapi::api::core::v1::{EnvFromSource, SecretEnvSource};
use muster_trainer_api::train_job::Source;
use muster_trainer_api::train_job::names::{DATASET_INITIALIZER, MODEL_INITIALIZER};

use super::env;
use super::render::{Draft, container, step};

pub(super) fn complete(draft: &mut Draft<'_>) {
    let Some(initializer) = draft.job.spec.initializer.clone() else { return };
    for (name, source) in [(DATASET_INITIALIZER, initializer.dataset), (MODEL_INITIALIZER, initializer.model)]
    {
        let Some(source) = source else { continue };
        for group in draft.spec.replicated_jobs.iter_mut().filter(|group| step(group) == Some(name)) {
            let Some(container) = container(group, name) else { continue };
            let Source { storage_uri, env, secret_ref } = source.clone();
            if let Some(uri) = storage_uri {
                env::set(&mut container.env, &[env::value("STORAGE_URI", uri)]);
            }
            env::set(&mut container.env, &env);
            if let Some(secret) = secret_ref {
                container.env_from.get_or_insert_default().push(EnvFromSource {
                    secret_ref: Some(SecretEnvSource { name: secret.name, optional: None }),
                    ..EnvFromSource::default()
                });
            }
        }
    }
}
