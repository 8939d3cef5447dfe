//! Parsed forms that are worth their memory: those of the objects written last.

use std::sync::Arc;

use hashlink::LinkedHashMap;
use serde_json::Value;

use crate::key::ObjectKey;

/// An object of more than this share of the budget is parsed anew whenever it is wanted: a large one is written once
/// and read seldom, as definitions of kinds are, and would drive out many small ones.
const LARGEST_SHARE: usize = 16;

/// Holds the parsed form of each object's newest version, for as many objects as the budget has room for; those that
/// were written first go first.
#[derive(Debug)]
pub(crate) struct ParsedObjects {
    /// Bytes of JSON whose parsed form may be held, which is several times larger.
    budget: usize,
    held: usize,
    /// The size of the JSON and the object, in the order of their writes.
    objects: LinkedHashMap<ObjectKey, (usize, Arc<Value>)>,
}

impl ParsedObjects {
    /// Holds nothing yet.
    pub(crate) fn new(budget: usize) -> Self {
        Self { budget, held: 0, objects: LinkedHashMap::new() }
    }

    /// Takes the newest version of an object, whose JSON has `size` bytes.
    pub(crate) fn insert(&mut self, key: &ObjectKey, size: usize, object: Arc<Value>) {
        self.remove(key);
        if size > self.budget / LARGEST_SHARE {
            return;
        }
        self.objects.insert(key.clone(), (size, object));
        self.held += size;
        while self.held > self.budget
            && let Some((_, (size, _))) = self.objects.pop_front()
        {
            self.held -= size;
        }
    }

    /// Lets an object go.
    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        if let Some((size, _)) = self.objects.remove(key) {
            self.held -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_versions_of_the_objects_written_last_are_held() {
        let mut parsed = ParsedObjects::new(100);
        let key = |name: &str| ObjectKey::new("core/pods", "a", name);
        let mut insert = |name: &str, size| {
            let object = Arc::new(Value::from(size));
            parsed.insert(&key(name), size, object.clone());
            let names: Vec<&str> = parsed.objects.keys().map(|key| &*key.name).collect();
            assert_eq!(parsed.held, parsed.objects.values().map(|(size, _)| size).sum::<usize>());
            (Arc::strong_count(&object) == 2, names.join(" "))
        };
        assert_eq!(insert("large", 7), (false, String::new()));
        for number in 0..19 {
            assert!(insert(&number.to_string(), 5).0);
        }
        assert_eq!(insert("0", 5), (true, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 0".into()));
        assert_eq!(insert("19", 5).1, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 0 19");
        assert_eq!(insert("20", 6).1, "3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 0 19 20");
        // One that has grown too large does not leave its old version behind.
        assert_eq!(insert("3", 7), (false, "4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 0 19 20".into()));
    }
}
