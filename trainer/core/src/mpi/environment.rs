//! The variables by which each MPI implementation finds its hosts and starts processes on them.

use k8s_openapi::api::core::v1::EnvVar;

use super::agent::{self, AgentSource};
use super::configuration::FOLDER;
use super::framework::KIND;
use super::job::{Implementation, MpiJob, RemoteShell};
use super::labels::Role;
use crate::plan::Options;

/// What SSH is told: to be patient, and that nobody has seen these hosts before. Its keys are the job's own.
pub(crate) const SSH_OPTIONS: &str = "-o ConnectionAttempts=10 -o StrictHostKeyChecking=no \
                           -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR";

fn variable(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.into()), value_from: None }
}

impl MpiJob {
    /// The variables of the main container of a pod.
    pub(super) fn environment(&self, role: Role, options: &Options) -> Vec<EnvVar> {
        let mut variables = vec![variable("K_MPI_JOB_ROLE", role.name())];
        if role != Role::Launcher {
            return variables;
        }
        let hostfile = format!("{FOLDER}/hostfile");
        let slots = self.slots_per_worker.to_string();
        let agent = options.mpi.agent.as_ref().filter(|_| self.remote_shell == RemoteShell::Agent);
        let agent = agent.map(AgentSource::program);
        let mut add = |name: &str, value: &str| variables.push(variable(name, value));
        match self.implementation {
            Implementation::OpenMpi => {
                add("OMPI_MCA_orte_keep_fqdn_hostnames", "true");
                add("OMPI_MCA_orte_default_hostfile", &hostfile);
                add("OMPI_MCA_orte_set_default_slots", &slots);
                // Open MPI 5 hands its work to PRRTE, which reads none of these. It shortens the names of hosts,
                // which the pods' search domain completes.
                add("PRTE_MCA_prte_default_hostfile", &hostfile);
                add("PRTE_MCA_prte_set_default_slots", &slots);
                if let Some(agent) = &agent {
                    add("OMPI_MCA_plm_rsh_agent", agent);
                    add("PRTE_MCA_plm_ssh_agent", agent);
                } else {
                    add("OMPI_MCA_plm_rsh_args", SSH_OPTIONS);
                    add("PRTE_MCA_plm_ssh_args", SSH_OPTIONS);
                }
            }
            Implementation::Intel => {
                add("I_MPI_HYDRA_HOST_FILE", &hostfile);
                add("I_MPI_PERHOST", &slots);
                if let Some(agent) = &agent {
                    add("I_MPI_HYDRA_BOOTSTRAP", "ssh");
                    add("I_MPI_HYDRA_BOOTSTRAP_EXEC", agent);
                } else {
                    add("I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS", SSH_OPTIONS);
                }
            }
            Implementation::Mpich => {
                add("HYDRA_HOST_FILE", &hostfile);
                if let Some(agent) = &agent {
                    add("HYDRA_LAUNCHER", "ssh");
                    add("HYDRA_LAUNCHER_EXEC", agent);
                } else {
                    // The MPI operator's name for it; Hydra has renamed it since.
                    add("HYDRA_LAUNCH_EXTRA_ARGS", SSH_OPTIONS);
                    add("HYDRA_LAUNCHER_EXTRA_ARGS", SSH_OPTIONS);
                }
            }
        }
        if agent.is_some() {
            add(agent::NAMESPACE, self.job.namespace());
            add(agent::CONTAINER, &self.worker_container());
        }
        if !self.launcher_is_worker {
            add("NVIDIA_VISIBLE_DEVICES", "");
            add("NVIDIA_DRIVER_CAPABILITIES", "");
        }
        variables
    }
}

impl MpiJob {
    /// Adds these variables to a container's; ours win over the template's, and a name occurs once. Where the
    /// template does not say, programs that are not of MPI (torch, Muster's own trainer) learn where rank 0 is, and
    /// Open MPI binds no processes to processors that workers share.
    pub(super) fn extend_environment(&self, variables: &mut Vec<EnvVar>, role: Role, options: &Options) {
        let ours = self.environment(role, options);
        variables.retain(|variable| ours.iter().all(|our| our.name != variable.name));
        variables.extend(ours);
        let leads = self.launcher_is_worker || self.workers() == 0;
        let first = if leads { self.launcher_name() } else { self.worker_name(0) };
        let address = self.host(&first, options.cluster_domain.as_deref());
        let mut unless_said = vec![("MASTER_ADDR", address), ("MASTER_PORT", KIND.port.to_string())];
        if role == Role::Launcher {
            unless_said.extend(self.binding().map(|(name, value)| (name, value.to_owned())));
        }
        for (name, value) in unless_said {
            if variables.iter().all(|variable| variable.name != name) {
                variables.push(variable(name, value));
            }
        }
    }
}
