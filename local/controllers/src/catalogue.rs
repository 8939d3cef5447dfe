//! The kinds that the API server serves, read from discovery.

use std::sync::Arc;

use kube::core::{ApiResource, DynamicObject};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, Client};
use parking_lot::RwLock;

use crate::error::{Error, Result};

/// One kind whose objects can be listed and deleted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    /// How the API names it.
    pub resource: ApiResource,
    /// Whether its objects lie in namespaces.
    pub namespaced: bool,
    /// Whether its objects can be watched.
    pub watchable: bool,
}

impl Kind {
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural
    }

    /// The API of the kind, in a namespace unless it has none.
    pub(crate) fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        if self.namespaced {
            Api::namespaced_with(client.clone(), namespace, &self.resource)
        } else {
            Api::all_with(client.clone(), &self.resource)
        }
    }
}

/// The kinds known now.
pub(crate) struct Catalogue {
    client: Client,
    kinds: RwLock<Arc<[Arc<Kind>]>>,
}

impl Catalogue {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, kinds: RwLock::new(Arc::from([])) }
    }

    /// The kinds known now.
    pub(crate) fn kinds(&self) -> Arc<[Arc<Kind>]> {
        self.kinds.read().clone()
    }

    /// Asks the API server again.
    pub(crate) async fn refresh(&self) -> Result<Arc<[Arc<Kind>]>> {
        let discovery = Discovery::new(self.client.clone()).run_aggregated().await?;
        let mut kinds: Vec<Arc<Kind>> = Vec::new();
        for group in discovery.groups_alphabetical() {
            // events.k8s.io is a second view of the core events.
            if group.name() == "events.k8s.io" {
                continue;
            }
            for (resource, capabilities) in group.recommended_resources() {
                let can = |verb| capabilities.supports_operation(verb);
                if can(verbs::LIST) && can(verbs::DELETE) {
                    kinds.push(Arc::new(Kind {
                        namespaced: capabilities.scope == Scope::Namespaced,
                        watchable: can(verbs::WATCH),
                        resource,
                    }));
                }
            }
        }
        let kinds: Arc<[Arc<Kind>]> = kinds.into();
        *self.kinds.write() = kinds.clone();
        Ok(kinds)
    }

    fn known(&self, group: &str, kind: &str) -> Option<Arc<Kind>> {
        let kinds = self.kinds();
        kinds.iter().find(|known| known.resource.group == group && known.resource.kind == kind).cloned()
    }

    /// The kind that a reference names; asks the API server again when it is not known.
    pub(crate) async fn find(&self, api_version: &str, kind: &str) -> Result<Arc<Kind>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        if let Some(known) = self.known(group, kind) {
            return Ok(known);
        }
        self.refresh().await?;
        self.known(group, kind)
            .ok_or_else(|| Error::UnknownKind { api_version: api_version.into(), kind: kind.into() })
    }
}
