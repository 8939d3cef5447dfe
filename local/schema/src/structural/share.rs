//! Equal schemas are one: the template of a pod comes back in every kind that makes pods, and is most of each
//! definition.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use crate::model::{Schema, SchemaRef};
use crate::pattern::Pattern;

/// So many schemas are known before those that nobody uses any more are looked for.
const FIRST_SWEEP: usize = 4_096;

/// The schemas in use. It holds none of them, so that they go with the definitions that have them.
struct Known {
    by_hash: HashMap<u64, Vec<Weak<Schema>>>,
    count: usize,
    next_sweep: usize,
}

static KNOWN: LazyLock<Mutex<Known>> =
    LazyLock::new(|| Mutex::new(Known { by_hash: HashMap::new(), count: 0, next_sweep: FIRST_SWEEP }));

/// The schema, or an equal one that is there already. What lies below it must have come through here before.
pub(super) fn shared(schema: Schema) -> Arc<Schema> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).shared(schema)
}

impl Known {
    fn shared(&mut self, schema: Schema) -> Arc<Schema> {
        let alike = self.by_hash.entry(outline(&schema)).or_default();
        if let Some(same) = alike.iter().filter_map(Weak::upgrade).find(|known| **known == schema) {
            return same;
        }
        let schema = Arc::new(schema);
        alike.push(Arc::downgrade(&schema));
        self.count += 1;
        if self.count >= self.next_sweep {
            self.sweep();
        }
        schema
    }

    fn sweep(&mut self) {
        self.by_hash.retain(|_, alike| {
            alike.retain(|known| known.strong_count() > 0);
            !alike.is_empty()
        });
        self.count = self.by_hash.values().map(Vec::len).sum();
        self.next_sweep = (self.count * 2).max(FIRST_SWEEP);
    }
}

/// A hash of what tells most schemas apart. Those below count by their place in memory: equal ones have the same.
fn outline(schema: &Schema) -> u64 {
    let mut hasher = DefaultHasher::new();
    let below = |reference: &SchemaRef, hasher: &mut DefaultHasher| match reference {
        SchemaRef::Inline(schema) => Arc::as_ptr(schema).hash(hasher),
        SchemaRef::Definition(name) => name.hash(hasher),
    };
    std::mem::discriminant(&schema.kind).hash(&mut hasher);
    for (name, property) in &schema.properties {
        name.hash(&mut hasher);
        below(property, &mut hasher);
    }
    for reference in schema.additional.iter().chain(&schema.items) {
        below(reference, &mut hasher);
    }
    schema.description.hash(&mut hasher);
    schema.format.hash(&mut hasher);
    schema.required.hash(&mut hasher);
    schema.constraints.pattern.as_ref().map(Pattern::as_str).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Type;
    use crate::structural::schema::read;

    fn described(text: &str) -> Schema {
        Schema { kind: Type::String, description: Some(text.to_owned()), ..Schema::default() }
    }

    #[test]
    fn equal_schemas_are_one_in_all_definitions() {
        let template = json!({"type": "object", "properties": {
            "image": {"type": "string", "pattern": "^[a-z]+$"},
            "ports": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        }});
        let mut other = template.clone();
        other["properties"]["ports"]["items"]["minimum"] = json!(2);
        let of = |template| {
            let root = json!({"type": "object", "properties": {"template": template}});
            let mut errors = Vec::new();
            let root = read(&root, "here", &mut errors);
            assert_eq!(errors, []);
            let SchemaRef::Inline(template) = &root.properties["template"] else { panic!("not in place") };
            template.clone()
        };
        let (first, second, third) = (of(template.clone()), of(template), of(other));
        assert!(Arc::ptr_eq(&first, &second));
        assert_ne!(first, third);
        assert_eq!(first.properties["image"], third.properties["image"]);
    }

    #[test]
    fn schemas_that_nobody_uses_are_forgotten() {
        let mut known = Known { by_hash: HashMap::new(), count: 0, next_sweep: FIRST_SWEEP };
        let kept = known.shared(described("kept"));
        for number in 0..FIRST_SWEEP {
            known.shared(described(&number.to_string()));
        }
        assert!(known.count < FIRST_SWEEP, "{}", known.count);
        assert!(Arc::ptr_eq(&kept, &known.shared(described("kept"))));
    }
}
