//! What a what-if supposes: the pods of a manifest's objects, and more nodes. A picture of the planner is told of them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::Api;
use muster_scheduler_controller::picture::{self, Supposed};
use muster_scheduler_controller::planner::{GroupEvent, Planner};

use crate::connect::Connection;
use crate::error::Error;
use crate::hypothetical;
use crate::kinds::Kinds;
use crate::manifest::Document;

/// What is supposed to be different.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Supposition<'a> {
    /// Objects that would come now.
    pub(crate) documents: &'a [Document],
    /// So many more nodes, and the node that they are like.
    pub(crate) more_nodes: Option<(u16, &'a str)>,
    /// Who schedules gangs of training jobs.
    pub(crate) gang_scheduler: &'a str,
}

impl Supposition<'_> {
    /// Tells the planner. It is about the gangs of the documents, or without any, about all who wait.
    ///
    /// # Errors
    /// What the server says against an object, that a pod exists already, or that nothing would be placed.
    pub(crate) async fn tell(self, connection: &Connection, mut planner: Planner) -> Result<Supposed, Error> {
        let Self { documents, more_nodes, gang_scheduler } = self;
        if let Some((count, like)) = more_nodes {
            add_nodes(connection, &mut planner, count, like).await?;
        }
        if documents.is_empty() {
            return Ok(Supposed { planner, gangs: None });
        }
        let kinds = Kinds::discover(&connection.client).await?;
        let (mut gangs, mut groups) = (BTreeSet::new(), Vec::new());
        for document in documents {
            groups.extend(hypothetical::group(connection, document)?);
            for pod in hypothetical::pods(connection, &kinds, document, gang_scheduler).await? {
                let name = pod.name_any();
                let namespace = pod.namespace().unwrap_or_default();
                if planner.knows(&namespace, &name) {
                    return Err(Error::new(format!(
                        "{}: pod {name} exists already",
                        document.place_of("metadata.name")
                    ))
                    .with_hint(
                        "`muster explain` says why it waits; what-if is for jobs that have not been submitted",
                    ));
                }
                picture::suppose(&connection.client, &mut planner, pod).await.map_err(|error| {
                    Error::from_source(&format!("cannot read the claim templates of pod {name}"), &error)
                })?;
                gangs.extend(planner.gang_name(&namespace, &name).map(|gang| (namespace, gang)));
            }
        }
        picture::read_groups(&connection.client, &mut planner).await;
        picture::read_devices(&connection.client, &mut planner).await;
        for group in groups {
            planner.group_changed(GroupEvent::Seen(Box::new(group)));
        }
        if gangs.is_empty() {
            return Err(Error::new("nothing in the manifest has pods that Muster would place")
                .with_hint("its pods need `schedulerName: muster` on a cluster with another scheduler"));
        }
        Ok(Supposed { planner, gangs: Some(gangs) })
    }
}

/// More nodes like one that exists.
async fn add_nodes(
    connection: &Connection,
    planner: &mut Planner,
    count: u16,
    like: &str,
) -> Result<(), Error> {
    let nodes = Api::<Node>::all(connection.client.clone());
    let model = nodes.get_opt(like).await?;
    let model = model.ok_or_else(|| {
        Error::new(format!("there is no node {like}")).with_hint("`muster get nodes` lists them")
    })?;
    for index in 0..count {
        let mut node = model.clone();
        let name = format!("{like}-like-{index}");
        let labels: &mut BTreeMap<String, String> = node.metadata.labels.get_or_insert_default();
        labels.insert("kubernetes.io/hostname".to_owned(), name.clone());
        node.metadata.name = Some(name);
        planner.node_seen(&node);
    }
    Ok(())
}
