use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalogue::Kind;

/// The custom resource definitions, by name, which is `PLURAL.GROUP`.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    present: BTreeSet<String>,
    gone: BTreeSet<String>,
}

impl Definitions {
    /// Notes that a definition is there or gone.
    pub(crate) fn note(&mut self, name: &str, is_there: bool) {
        let (to, from) =
            if is_there { (&mut self.present, &mut self.gone) } else { (&mut self.gone, &mut self.present) };
        from.remove(name);
        to.insert(name.to_owned());
    }

    /// Whether every definition is served and none that is gone. Those that are gone for good are forgotten.
    pub(crate) fn agree_with(&mut self, kinds: &[Arc<Kind>]) -> bool {
        let served: BTreeSet<String> =
            kinds.iter().map(|kind| format!("{}.{}", kind.resource.plural, kind.resource.group)).collect();
        self.gone.retain(|name| served.contains(name));
        self.gone.is_empty() && self.present.is_subset(&served)
    }
}

#[cfg(test)]
mod tests {
    use kube::core::{ApiResource, GroupVersionKind};

    use super::*;

    #[test]
    fn discovery_is_behind_until_it_shows_every_definition_and_no_other() {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("test.dev", "v1", "Thing"));
        let kind = Kind { resource, namespaced: true, watchable: true };
        let served = [Arc::new(kind)];
        let mut definitions = Definitions::default();
        definitions.note("things.test.dev", true);
        assert!(!definitions.agree_with(&[]));
        assert!(definitions.agree_with(&served));
        definitions.note("things.test.dev", false);
        assert!(!definitions.agree_with(&served));
        assert!(definitions.agree_with(&[]));
    }
}
