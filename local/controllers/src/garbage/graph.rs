//! Who owns whom, and what follows from it. Pure: knows nothing of the API server.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::monitor::Subject;

/// Uids of gone objects that are remembered; they never come back, forgetting them only costs a question.
const REMEMBERED: usize = 16_384;

/// Everything known of owners and dependents.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    subjects: HashMap<String, Arc<Subject>>,
    dependents: HashMap<String, BTreeSet<String>>,
    gone: HashSet<String>,
}

/// How a deletion goes on to the dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// The object goes at once, its dependents after it.
    Background,
    /// The object goes after its dependents.
    Foreground,
    /// The dependents stay.
    Orphan,
}

/// What to do about one object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decision {
    /// Nothing.
    Leave,
    /// These owners are unknown: ask whether they exist, then decide again.
    Verify(Vec<OwnerReference>),
    /// The object lives on without these owners, named by uid.
    DropOwners(Vec<String>),
    /// Nobody owns the object any more.
    Delete(Propagation),
    /// The object's dependents are to lose it as owner, then it may go.
    Orphan,
    /// Look at these dependents, which hold up the object's deletion.
    Await(Vec<String>),
    /// Nothing holds up the object's deletion any more.
    Finish,
}

impl Graph {
    /// Notes an object's state; returns the uids to look at.
    pub(crate) fn see(&mut self, subject: &Arc<Subject>) -> Vec<String> {
        let uid = &subject.uid;
        let mut affected = Vec::new();
        let old = self.subjects.insert(uid.clone(), subject.clone());
        let mut owners_changed = !subject.owners.is_empty();
        if let Some(old) = &old {
            owners_changed = old.owners != subject.owners;
            if owners_changed {
                self.unlink(old);
                // An owner may have waited for this dependent.
                affected.extend(old.owners.iter().map(|owner| owner.uid.clone()));
            }
        }
        if owners_changed {
            for owner in &subject.owners {
                self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            }
        }
        let newly_deleting = subject.deleting && old.as_ref().is_none_or(|old| !old.deleting);
        if owners_changed
            || newly_deleting
            || subject.awaits_dependents()
            || (subject.deleting && subject.orphan)
        {
            affected.push(uid.clone());
        }
        if newly_deleting && subject.foreground {
            affected.extend(self.dependents.get(uid).into_iter().flatten().cloned());
        }
        affected
    }

    /// Notes that an object is gone; returns the uids to look at.
    pub(crate) fn forget(&mut self, uid: &str) -> Vec<String> {
        if self.gone.len() >= REMEMBERED {
            self.gone.clear();
        }
        self.gone.insert(uid.to_owned());
        let mut affected: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        if let Some(old) = self.subjects.remove(uid) {
            self.unlink(&old);
            affected.extend(old.owners.iter().map(|owner| owner.uid.clone()));
        }
        affected
    }

    /// Notes that no object has this uid.
    pub(crate) fn note_gone(&mut self, uid: &str) {
        if !self.subjects.contains_key(uid) {
            self.gone.insert(uid.to_owned());
        }
    }

    fn unlink(&mut self, subject: &Subject) {
        for owner in &subject.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(&subject.uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    pub(crate) fn subject(&self, uid: &str) -> Option<&Arc<Subject>> {
        self.subjects.get(uid)
    }

    fn dependents_of<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Arc<Subject>> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|dependent| self.subjects.get(dependent))
    }

    /// What to do about an object; `alive` are owners that were asked for and exist although no watch has shown them.
    pub(crate) fn decide(&self, uid: &str, alive: &HashSet<String>) -> Decision {
        let Some(subject) = self.subjects.get(uid) else { return Decision::Leave };
        if subject.deleting && subject.orphan {
            return Decision::Orphan;
        }
        if subject.awaits_dependents() {
            let blocking: Vec<&Arc<Subject>> =
                self.dependents_of(uid).filter(|dependent| dependent.blocks(uid)).collect();
            if blocking.is_empty() {
                return Decision::Finish;
            }
            let idle = blocking.iter().filter(|dependent| !dependent.deleting);
            return Decision::Await(idle.map(|dependent| dependent.uid.clone()).collect());
        }
        if subject.deleting || subject.owners.is_empty() {
            return Decision::Leave;
        }
        self.judge_owners(subject, alive)
    }

    fn judge_owners(&self, subject: &Subject, alive: &HashSet<String>) -> Decision {
        let (mut solid, mut dangling, mut waiting, mut unknown) =
            (0_usize, Vec::new(), Vec::new(), Vec::new());
        for owner in &subject.owners {
            match self.subjects.get(&owner.uid) {
                Some(found) if !reachable(found, subject) => dangling.push(owner.uid.clone()),
                Some(found) if found.awaits_dependents() => waiting.push(owner.uid.clone()),
                Some(_) => solid += 1,
                None if self.gone.contains(&owner.uid) => dangling.push(owner.uid.clone()),
                None if alive.contains(&owner.uid) => solid += 1,
                None => unknown.push(owner.clone()),
            }
        }
        if !unknown.is_empty() {
            return Decision::Verify(unknown);
        }
        if solid > 0 {
            dangling.append(&mut waiting);
            return if dangling.is_empty() { Decision::Leave } else { Decision::DropOwners(dangling) };
        }
        let has_dependents = self.dependents_of(&subject.uid).next().is_some();
        let propagation = match () {
            () if !waiting.is_empty() && has_dependents => Propagation::Foreground,
            () if subject.orphan => Propagation::Orphan,
            () if subject.foreground => Propagation::Foreground,
            () => Propagation::Background,
        };
        Decision::Delete(propagation)
    }
}

/// Owners are objects of the same namespace or of the cluster.
fn reachable(owner: &Subject, dependent: &Subject) -> bool {
    !owner.kind.namespaced || owner.key.namespace == dependent.key.namespace
}

#[cfg(test)]
mod tests {
    use kube::core::{ApiResource, GroupVersionKind};

    use super::*;
    use crate::catalogue::Kind;
    use crate::informer::Key;

    fn subject(uid: &str, owners: &[&str]) -> Subject {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "ConfigMap"));
        let kind = Kind { resource, namespaced: true, watchable: true };
        let owner = |uid: &&str| OwnerReference {
            uid: (*uid).into(),
            name: (*uid).into(),
            block_owner_deletion: Some(true),
            ..OwnerReference::default()
        };
        Subject {
            kind: Arc::new(kind),
            key: Key::new("default", uid),
            uid: uid.into(),
            owners: owners.iter().map(owner).collect(),
            deleting: false,
            foreground: false,
            orphan: false,
        }
    }

    fn graph(subjects: &[Subject]) -> Graph {
        let mut graph = Graph::default();
        for subject in subjects {
            graph.see(&Arc::new(subject.clone()));
        }
        graph
    }

    fn decide(graph: &Graph, uid: &str) -> Decision {
        graph.decide(uid, &HashSet::new())
    }

    #[test]
    fn dependents_of_a_gone_owner_are_deleted() {
        let mut graph = graph(&[subject("o", &[]), subject("d", &["o"])]);
        assert_eq!(decide(&graph, "d"), Decision::Leave);
        assert_eq!(graph.forget("o"), ["d"]);
        assert_eq!(decide(&graph, "d"), Decision::Delete(Propagation::Background));
    }

    #[test]
    fn an_unknown_owner_is_verified_before_anything_is_deleted() {
        let mut graph = graph(&[subject("d", &["o"])]);
        assert!(matches!(decide(&graph, "d"), Decision::Verify(owners) if owners[0].uid == "o"));
        assert_eq!(graph.decide("d", &HashSet::from(["o".to_owned()])), Decision::Leave);
        graph.note_gone("o");
        assert_eq!(decide(&graph, "d"), Decision::Delete(Propagation::Background));
    }

    #[test]
    fn a_second_owner_keeps_the_object_and_the_gone_one_is_dropped() {
        let mut graph = graph(&[subject("a", &[]), subject("b", &[]), subject("d", &["a", "b"])]);
        graph.forget("a");
        assert_eq!(decide(&graph, "d"), Decision::DropOwners(vec!["a".into()]));
    }

    #[test]
    fn a_foreground_deletion_waits_for_blocking_dependents() {
        let mut owner = subject("o", &[]);
        let mut graph = graph(&[owner.clone(), subject("d", &["o"])]);
        owner.deleting = true;
        owner.foreground = true;
        let affected = graph.see(&Arc::new(owner));
        assert!(affected.contains(&"o".to_owned()) && affected.contains(&"d".to_owned()));
        assert_eq!(decide(&graph, "o"), Decision::Await(vec!["d".into()]));
        assert_eq!(decide(&graph, "d"), Decision::Delete(Propagation::Background));
        assert_eq!(graph.forget("d"), ["o"]);
        assert_eq!(decide(&graph, "o"), Decision::Finish);
    }

    #[test]
    fn a_foreground_deletion_goes_down_level_by_level() {
        let mut owner = subject("o", &[]);
        owner.deleting = true;
        owner.foreground = true;
        let graph = graph(&[owner, subject("d", &["o"]), subject("e", &["d"])]);
        assert_eq!(decide(&graph, "d"), Decision::Delete(Propagation::Foreground));
    }

    #[test]
    fn orphaning_comes_before_everything_else() {
        let mut owner = subject("o", &[]);
        owner.deleting = true;
        owner.orphan = true;
        let graph = graph(&[owner, subject("d", &["o"])]);
        assert_eq!(decide(&graph, "o"), Decision::Orphan);
        assert_eq!(decide(&graph, "d"), Decision::Leave);
    }

    #[test]
    fn an_owner_of_another_namespace_does_not_count() {
        let mut owner = subject("o", &[]);
        owner.key.namespace = "elsewhere".into();
        let graph = graph(&[owner, subject("d", &["o"])]);
        assert_eq!(decide(&graph, "d"), Decision::Delete(Propagation::Background));
    }
}
