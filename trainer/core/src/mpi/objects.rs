//! What the pods of an MPI job have in common, and the Service by which they find each other.

use k8s_openapi::api::core::v1::{PodDNSConfig, PodTemplateSpec, Service, ServiceSpec};

use super::job::{Dialect, MpiJob};
use super::labels::Role;
use crate::plan::Options;

impl MpiJob {
    /// The headless service that gives the pods their names.
    pub(super) fn service(&self) -> Service {
        Service {
            metadata: self.metadata(self.job.name().to_owned(), self.labels()),
            spec: Some(ServiceSpec {
                cluster_ip: Some("None".to_owned()),
                selector: Some(self.labels()),
                // Pods are found before they are ready: the launcher is not until its workers have talked to it.
                publish_not_ready_addresses: Some(true),
                ..ServiceSpec::default()
            }),
            status: None,
        }
    }

    /// A template with what every pod of the role gets, beside its restart policy and command; and the place of
    /// the container that runs the program.
    pub(super) fn prepared(
        &self,
        template: &PodTemplateSpec,
        role: Role,
        hostname: String,
        options: &Options,
    ) -> (PodTemplateSpec, usize) {
        let main = self.main_container(template);
        let mut template = template.clone();
        let metadata = template.metadata.get_or_insert_default();
        metadata.labels.get_or_insert_default().extend(self.role_labels(role));
        let spec = template.spec.get_or_insert_default();
        spec.hostname = Some(hostname);
        spec.subdomain = Some(self.job.name().to_owned());
        if self.dialect == Dialect::V2 && options.gang_scheduler.scheduler_name().is_some() {
            // The MPI operator's custom: whoever places the gang places all of it.
            spec.scheduler_name = None;
        }
        if spec.host_network == Some(true) {
            spec.dns_policy = Some("ClusterFirstWithHostNet".to_owned());
        }
        let search = self.search_domain(options.cluster_domain.as_deref());
        let searches =
            spec.dns_config.get_or_insert_with(PodDNSConfig::default).searches.get_or_insert_default();
        if !searches.contains(&search) {
            searches.push(search);
        }
        self.mount_keys(spec, main);
        if let Some(container) = spec.containers.get_mut(main) {
            self.extend_environment(container.env.get_or_insert_default(), role, options);
        }
        (template, main)
    }
}
