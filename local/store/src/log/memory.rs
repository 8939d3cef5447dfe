use std::collections::BTreeMap;

use super::{Log, LogError, Record, RecordKind};

/// A log that lasts as long as the process. The store itself holds everything it needs to serve, so this one
/// keeps nothing unless it was made to be reopened.
#[derive(Debug, Default)]
pub struct MemoryLog {
    records: Option<BTreeMap<u64, Record>>,
    compacted: u64,
}

impl MemoryLog {
    /// A log that forgets every record at once: for a store that is never reopened.
    pub fn new() -> Self {
        Self::default()
    }

    /// A log that keeps its records, so that what was appended can be loaded again.
    pub fn retaining() -> Self {
        Self { records: Some(BTreeMap::new()), compacted: 0 }
    }
}

impl Log for MemoryLog {
    fn load(&mut self, visit: &mut dyn FnMut(Record) -> Result<(), LogError>) -> Result<u64, LogError> {
        for record in self.records.iter().flat_map(BTreeMap::values) {
            visit(record.clone())?;
        }
        Ok(self.compacted)
    }

    fn append(&mut self, records: &[Record]) -> Result<(), LogError> {
        if let Some(kept) = &mut self.records {
            kept.extend(records.iter().map(|record| (record.revision, record.clone())));
        }
        Ok(())
    }

    fn truncate(&mut self, above: u64) -> Result<(), LogError> {
        if let Some(kept) = &mut self.records {
            kept.split_off(&(above + 1));
        }
        Ok(())
    }

    fn compact(&mut self, through: u64) -> Result<(), LogError> {
        if let Some(kept) = &mut self.records {
            let newly = kept.range(self.compacted + 1..=through);
            let dropped: Vec<u64> = newly
                .flat_map(|(revision, record)| {
                    let deletion = (record.kind == RecordKind::Delete).then_some(*revision);
                    record.previous_revision.into_iter().chain(deletion)
                })
                .collect();
            for revision in dropped {
                kept.remove(&revision);
            }
        }
        self.compacted = self.compacted.max(through);
        Ok(())
    }

    fn close(&mut self) -> Result<(), LogError> {
        Ok(())
    }
}
