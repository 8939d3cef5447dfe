//! Where parameters lie: units of whole blocks, each one flat vector that the ranks can cut into equal parts.

use std::ops::Range;

use crate::model::Parameter;

/// Parts begin at multiples of so many elements, so that no two ranks write to one cache line.
const ALIGNMENT: usize = 16;

/// Consecutive blocks whose parameters travel together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unit {
    /// Its blocks.
    pub(crate) blocks: Range<usize>,
    /// Its parameters, each with its place in the flat vector, block by block.
    pub(crate) parameters: Vec<(Parameter, Range<usize>)>,
    /// Number of parameters of each of its blocks.
    pub(crate) per_block: Vec<usize>,
    /// Index of its first parameter among those of the model.
    pub(crate) first: usize,
    /// Elements of its parameters.
    pub(crate) count: usize,
    /// The same, filled up so that all ranks get equal parts.
    pub(crate) padded: usize,
}

impl Unit {
    /// What its blocks are called: by what the names of their parameters have in common.
    pub(crate) fn name(&self) -> String {
        let mut parameters = self.parameters.iter().map(|(parameter, _)| parameter.name.as_str());
        let blocks = self.blocks.clone().zip(&self.per_block).map(|(block, count)| {
            let names: Vec<&str> = parameters.by_ref().take(*count).collect();
            block_name(block, &names)
        });
        let names: Vec<String> = blocks.collect();
        match &names[..] {
            [first, .., last] => format!("{first} to {last}"),
            _ => names.concat(),
        }
    }

    /// The part of one of `ranks` ranks; the last ones may lie beyond `count`.
    pub(crate) fn part(&self, rank: usize, ranks: usize) -> Range<usize> {
        let size = self.padded / ranks;
        rank * size..(rank + 1) * size
    }

    /// Pieces of `range`, each within one parameter, with whether weight decay applies.
    pub(crate) fn pieces(&self, range: &Range<usize>) -> impl Iterator<Item = (Range<usize>, bool)> {
        self.parameters.iter().filter_map(|(parameter, place)| {
            let piece = place.start.max(range.start)..place.end.min(range.end);
            (!piece.is_empty()).then_some((piece, parameter.decays))
        })
    }
}

fn block_name(block: usize, parameters: &[&str]) -> String {
    let Some((first, others)) = parameters.split_first() else { return format!("block {block}") };
    let parts: Vec<&str> = first.split('.').collect();
    let common = others.iter().fold(parts.len() - 1, |common, name| {
        name.split('.').zip(&parts[..common]).take_while(|(part, other)| part == *other).count()
    });
    parts[..common.max(1)].join(".")
}

/// Groups the blocks, given by their parameters, to units of at least `smallest` elements, for `ranks` ranks. What is
/// left at the end joins the last unit.
pub(crate) fn units(blocks: &[Vec<Parameter>], smallest: usize, ranks: usize) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let mut first = 0;
    for (block, parameters) in blocks.iter().enumerate() {
        match units.last_mut() {
            Some(unit) if unit.count < smallest => unit.blocks.end = block + 1,
            _ => units.push(Unit {
                blocks: block..block + 1,
                parameters: Vec::new(),
                per_block: Vec::new(),
                first,
                count: 0,
                padded: 0,
            }),
        }
        if let Some(unit) = units.last_mut() {
            for parameter in parameters {
                let end = unit.count + parameter.count();
                unit.parameters.push((parameter.clone(), unit.count..end));
                unit.count = end;
            }
            unit.per_block.push(parameters.len());
            unit.padded = unit.count.max(1).next_multiple_of(ranks * ALIGNMENT);
        }
        first += parameters.len();
    }
    units
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Initial;

    #[test]
    fn a_unit_is_called_by_what_its_parameters_have_in_common() {
        let vector = |name: &&str| Parameter::vector(*name, 4, Initial::Zeros);
        let names: [&[&str]; 5] = [
            &["tokens.weight", "positions.weight"],
            &["blocks.0.attention.weight", "blocks.0.attention.bias"],
            &["blocks.1.attention.weight", "blocks.1.norm.bias"],
            &["head"],
            &[],
        ];
        let blocks = names.map(|names| names.iter().map(vector).collect::<Vec<Parameter>>());
        let named = |smallest| units(&blocks, smallest, 1).iter().map(Unit::name).collect::<Vec<String>>();
        assert_eq!(named(1), ["tokens", "blocks.0.attention", "blocks.1", "head", "block 4"]);
        assert_eq!(named(1000), ["tokens to block 4"]);
    }

    proptest! {
        #[test]
        fn every_element_has_one_place_and_one_owner(
            sizes in proptest::collection::vec(proptest::collection::vec(1_usize..40, 0..4), 1..8),
            smallest in 0_usize..100,
            ranks in 1_usize..9,
        ) {
            let blocks: Vec<Vec<Parameter>> = sizes
                .iter()
                .enumerate()
                .map(|(block, sizes)| {
                    let vector = |(index, size): (usize, &usize)| {
                        Parameter::vector(format!("{block}.{index}"), *size, Initial::Zeros)
                    };
                    sizes.iter().enumerate().map(vector).collect()
                })
                .collect();
            let units = units(&blocks, smallest, ranks);
            let all: Vec<usize> = units.iter().flat_map(|unit| unit.blocks.clone()).collect();
            prop_assert_eq!(all, (0..blocks.len()).collect::<Vec<usize>>());
            let names: Vec<&String> =
                units.iter().flat_map(|unit| unit.parameters.iter().map(|(parameter, _)| &parameter.name)).collect();
            let declared: Vec<&String> = blocks.iter().flatten().map(|parameter| &parameter.name).collect();
            prop_assert_eq!(names, declared);
            for unit in &units {
                prop_assert!(unit.padded >= unit.count && unit.padded % (ranks * ALIGNMENT) == 0);
                let covered: usize = (0..ranks)
                    .flat_map(|rank| unit.pieces(&unit.part(rank, ranks)).collect::<Vec<_>>())
                    .map(|(piece, _)| piece.len())
                    .sum();
                prop_assert_eq!(covered, unit.count);
                prop_assert_eq!(unit.part(ranks - 1, ranks).end, unit.padded);
                prop_assert_eq!(unit.per_block.iter().sum::<usize>(), unit.parameters.len());
            }
            let but_last = &units[..units.len() - 1];
            prop_assert!(but_last.iter().all(|unit| unit.count >= smallest));
        }
    }
}
