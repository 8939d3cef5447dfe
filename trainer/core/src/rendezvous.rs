//! How the pods of an elastic job find the rendezvous, which tells ranks that come and go who takes part.

use k8s_openapi::api::core::v1::{EnvVar, PodSpec};

use crate::job::{Job, Replica};
use crate::pod_token::{self, TOKEN};

/// For whom the tokens are by which pods say who they are.
pub const AUDIENCE: &str = "muster-rendezvous";

const VOLUME: &str = "muster-rendezvous";
const FOLDER: &str = "/var/run/secrets/muster.dev/rendezvous";

/// Where the rendezvous is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendezvous {
    /// Its addresses, such as `https://muster-rendezvous.muster-system.svc:9445`; the first that answers is taken.
    pub addresses: Vec<String>,
    /// Its certificate authority, PEM.
    pub authority: Option<String>,
}

impl Rendezvous {
    /// The variables of every container; `bounds` are the fewest and the most pods.
    pub(crate) fn environment(
        &self,
        job: &Job,
        replica: &Replica,
        index: i32,
        bounds: (i32, i32),
    ) -> Vec<EnvVar> {
        let variable = |name: &str, value: String| EnvVar {
            name: name.to_owned(),
            value: Some(value),
            value_from: None,
        };
        let mut variables = vec![
            variable("MUSTER_RENDEZVOUS", self.addresses.join(",")),
            variable("MUSTER_RENDEZVOUS_TOKEN_FILE", format!("{FOLDER}/{TOKEN}")),
            variable("MUSTER_RANKS", format!("{}:{}", bounds.0, bounds.1)),
            variable("MUSTER_REPLICAS", job.total().to_string()),
            variable("MUSTER_REPLICA_INDEX", job.framework.rank(job, replica, index).to_string()),
        ];
        variables.extend(self.authority.clone().map(|pem| variable("MUSTER_RENDEZVOUS_CA", pem)));
        variables
    }

    /// The token of the pod, where all its containers find it.
    pub(crate) fn mount_token(spec: &mut PodSpec) {
        pod_token::put_volume(spec, VOLUME, vec![pod_token::projection(AUDIENCE.to_owned())]);
        for container in &mut spec.containers {
            pod_token::mount(container, VOLUME, FOLDER);
        }
    }
}
