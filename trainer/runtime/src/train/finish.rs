//! The end of a training: the same parameters on all ranks, their accuracy, and the model on disk.

use std::io::Write;
use std::time::Instant;

use super::Outcome;
use super::steps::Trainer;
use crate::checksum::checksum;
use crate::data::Dataset;
use crate::error::Error;
use crate::model_file::{self, Description};
use crate::report::Report;
use crate::tensor::Library;

impl<L: Library> Trainer<'_, L> {
    /// Ends the training that `began` then. A rank may be lost meanwhile; then all that are left come here again.
    pub(super) fn finish<W: Write>(
        &mut self,
        began: Instant,
        report: &mut Report<W>,
    ) -> Result<Outcome, Error> {
        let elapsed = began.elapsed();
        self.keep_last(report)?;
        let failed = Error::of_rank(self.engine.rank());
        let communication = self.engine.exposed_communication();
        let keeps = self.engine.rank() == 0 && self.arguments.output.is_some();
        let (mut words, mut tensors) = (Vec::new(), Vec::new());
        let visited = self.engine.visit_parameters(|parameter, values| {
            words.push(checksum(values.iter().map(|value| u64::from(value.to_bits()))));
            if keeps {
                tensors.push((parameter.name.clone(), parameter.shape.clone(), values.to_vec()));
            }
        });
        visited.map_err(failed)?;
        let checksums = self.engine.gather(checksum(words.into_iter())).map_err(failed)?;
        if let Some(rank) = checksums.iter().position(|other| *other != checksums[0]) {
            return Err(Error::ParametersDiffer { rank });
        }
        let evaluation = if self.test.is_empty() { None } else { Some(self.evaluate()?) };
        let (steps, test_accuracy) = (self.engine.steps(), evaluation.map(|evaluation| evaluation.accuracy));
        let mut model = None;
        if self.engine.rank() == 0 {
            if let Some(folder) = &self.arguments.output {
                let (classes, scaling) = match &self.data {
                    Dataset::Table(table) => (&table.classes[..], table.scaling()),
                    Dataset::Tokens(_) => (&[][..], None),
                };
                let description =
                    Description { model: self.described.to_json(), scaling, classes, steps, test_accuracy };
                model = Some(model_file::write(folder, &tensors, &description)?);
            }
            report.result(steps, evaluation.as_ref(), elapsed, communication, model.as_deref())?;
        }
        // Nobody has succeeded before the model is written.
        self.engine.gather(steps).map_err(failed)?;
        Ok(Outcome { steps, test_accuracy, elapsed, communication, model })
    }
}
