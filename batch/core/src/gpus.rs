//! GPUs as Slurm's options ask for them: `--gres`, `--gpus`, `--gpus-per-node`, `--gpus-per-task`.

use std::collections::BTreeSet;
use std::str::FromStr;

use crate::Layout;

/// Most GPUs that an option may name.
const MOST: u32 = 100_000;

/// A number of GPUs, of a type if one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpus {
    /// The type, such as `a100`.
    pub type_: Option<String>,
    /// How many.
    pub count: u32,
}

/// What `--gres` names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gres {
    /// GPUs on each node.
    pub gpus: Option<Gpus>,
    /// What else there is, which no node is known to have.
    pub others: Vec<String>,
}

/// What a person asks for, by whichever options.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish<'a> {
    /// On each node, by `--gpus-per-node`.
    pub per_node: Option<&'a Gpus>,
    /// On each node, by `--gres`.
    pub gres: Option<&'a Gpus>,
    /// In all, by `--gpus`.
    pub total: Option<&'a Gpus>,
    /// For each process, by `--gpus-per-task`.
    pub per_task: Option<&'a Gpus>,
}

/// Why a wish for GPUs cannot be read or granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// Not a number.
    #[error("`{0}` is not a number of GPUs; write NUMBER or TYPE:NUMBER, such as 2 or a100:2")]
    Count(String),
    /// Two types.
    #[error("`{0}` names GPUs twice; a job has GPUs of one type")]
    Twice(String),
    /// They cannot be shared out.
    #[error("--gpus {total} cannot be shared out evenly over {nodes} nodes")]
    Uneven {
        /// GPUs in all.
        total: u32,
        /// Nodes.
        nodes: u32,
    },
    /// Two options.
    #[error("{first} and {second} disagree: they mean {} and {} GPUs on each node", .counts.0, .counts.1)]
    Disagree {
        /// An option.
        first: &'static str,
        /// Another.
        second: &'static str,
        /// What they mean.
        counts: (u32, u32),
    },
    /// Two types in two options.
    #[error("GPUs of two types are asked for, {0} and {1}; a job has GPUs of one type")]
    Types(String, String),
}

impl FromStr for Gpus {
    type Err = GpuError;

    fn from_str(text: &str) -> Result<Self, GpuError> {
        let wrong = || GpuError::Count(text.to_owned());
        let (type_, count) = match text.split_once(':') {
            Some((type_, count)) => (Some(type_), count),
            None => (None, text),
        };
        let count = count.parse().ok().filter(|count| *count <= MOST).ok_or_else(wrong)?;
        let type_ =
            type_.map(|type_| Some(type_.to_owned()).filter(|type_| is_label(type_)).ok_or_else(wrong));
        Ok(Self { type_: type_.transpose()?, count })
    }
}

/// Whether a type can be the value of a node's label.
fn is_label(text: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric();
    (1..=63).contains(&text.len())
        && text.chars().all(|letter| plain(letter) || ['-', '_', '.'].contains(&letter))
        && text.starts_with(plain)
        && text.ends_with(plain)
}

impl FromStr for Gres {
    type Err = GpuError;

    fn from_str(text: &str) -> Result<Self, GpuError> {
        let mut gres = Self::default();
        for part in text.split(',').filter(|part| !part.eq_ignore_ascii_case("none") && !part.is_empty()) {
            let name = part.strip_prefix("gres:").or_else(|| part.strip_prefix("gres/")).unwrap_or(part);
            let (name, rest) = name.split_once(':').map_or((name, None), |(name, rest)| (name, Some(rest)));
            if name != "gpu" {
                gres.others.push(part.to_owned());
                continue;
            }
            let gpus = match rest {
                None => Gpus { type_: None, count: 1 },
                // A type alone means one of them.
                Some(rest) if !rest.contains(':') && rest.parse::<u32>().is_err() && is_label(rest) => {
                    Gpus { type_: Some(rest.to_owned()), count: 1 }
                }
                Some(rest) => rest.parse()?,
            };
            if gres.gpus.replace(gpus).is_some() {
                return Err(GpuError::Twice(text.to_owned()));
            }
        }
        Ok(gres)
    }
}

impl Wish<'_> {
    /// The GPUs on each node; zero of no type if none are asked for.
    ///
    /// # Errors
    /// GPUs that cannot be shared out, and options that contradict each other.
    pub fn on_each(&self, layout: Layout) -> Result<Gpus, GpuError> {
        let total = match self.total.map(|total| total.count) {
            Some(total) if !total.is_multiple_of(layout.nodes()) => {
                return Err(GpuError::Uneven { total, nodes: layout.nodes() });
            }
            total => total.map(|total| total / layout.nodes()),
        };
        let of_tasks = self.per_task.map(|each| each.count.saturating_mul(layout.most()));
        let counts = [
            ("--gpus-per-node", self.per_node.map(|gpus| gpus.count)),
            ("--gres", self.gres.map(|gpus| gpus.count)),
            ("--gpus", total),
            ("--gpus-per-task", of_tasks),
        ];
        let mut said = counts.into_iter().filter_map(|(option, count)| Some((option, count?)));
        let Some((first, count)) = said.next() else { return Ok(Gpus { type_: None, count: 0 }) };
        if let Some((second, other)) = said.find(|(_, other)| *other != count) {
            return Err(GpuError::Disagree { first, second, counts: (count, other) });
        }
        let all = [self.per_node, self.gres, self.total, self.per_task];
        let mut types = all.into_iter().flatten().filter_map(|gpus| gpus.type_.clone());
        let type_ = types.next();
        match (&type_, types.find(|other| Some(other) != type_.as_ref())) {
            (Some(one), Some(other)) => Err(GpuError::Types(one.clone(), other)),
            _ => Ok(Gpus { type_, count }),
        }
    }
}

/// The models of GPUs that a type means, among those that nodes have: the one that is called so, or all with the type as a
/// part of their name, as `a100` of `NVIDIA-A100-SXM4-80GB`; none if no node has such.
pub fn models<'a>(type_: &str, known: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let known: BTreeSet<&str> = known.collect();
    let same = |other: &&&str| other.eq_ignore_ascii_case(type_);
    let part = |other: &&&str| other.split(['-', '_', '.']).any(|part| part.eq_ignore_ascii_case(type_));
    match known.iter().find(same) {
        Some(model) => BTreeSet::from([(*model).to_owned()]),
        None => known.iter().filter(part).map(|model| (*model).to_owned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(text: &str) -> Gpus {
        text.parse().unwrap()
    }

    #[test]
    fn gpus_are_read_as_slurm_does() {
        let typed = |type_: &str, count| Gpus { type_: Some(type_.to_owned()), count };
        assert_eq!(gpus("2"), Gpus { type_: None, count: 2 });
        assert_eq!(gpus("a100:2"), typed("a100", 2));
        for wrong in ["", "two", "a100:", ":2", "a 100:2", "a100:b:2", "-1", "1000000"] {
            assert!(wrong.parse::<Gpus>().is_err(), "{wrong}");
        }
        for (text, gpus) in [
            ("gpu", Gpus { type_: None, count: 1 }),
            ("gpu:2", Gpus { type_: None, count: 2 }),
            ("gpu:a100", typed("a100", 1)),
            ("gpu:a100:2", typed("a100", 2)),
            ("gres:gpu:3", Gpus { type_: None, count: 3 }),
        ] {
            assert_eq!(text.parse(), Ok(Gres { gpus: Some(gpus), others: Vec::new() }), "{text}");
        }
        let more: Gres = "shard:2,gpu:1".parse().unwrap();
        assert_eq!(more.others, ["shard:2"]);
        assert_eq!("none".parse(), Ok(Gres::default()));
        assert!("gpu:a100:1,gpu:v100:1".parse::<Gres>().is_err());
    }

    #[test]
    fn whichever_way_they_are_asked_for_each_node_gets_as_many() {
        let layout = Layout::new(Some(2), None, Some(4)).unwrap();
        let (two, four, eight, one) = (gpus("2"), gpus("a100:4"), gpus("8"), gpus("1"));
        let nothing = Wish::default();
        let on_each = |wish: Wish<'_>| wish.on_each(layout).map(|gpus| gpus.count);
        assert_eq!(on_each(nothing), Ok(0));
        assert_eq!(on_each(Wish { total: Some(&eight), ..nothing }), Ok(4));
        assert_eq!(on_each(Wish { per_task: Some(&one), ..nothing }), Ok(4));
        let all =
            Wish { total: Some(&eight), per_task: Some(&one), gres: Some(&four), per_node: Some(&four) };
        assert_eq!(all.on_each(layout), Ok(four.clone()));
        assert!(on_each(Wish { total: Some(&one), ..nothing }).is_err());
        let error = on_each(Wish { per_node: Some(&two), gres: Some(&four), ..nothing }).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--gpus-per-node and --gres disagree: they mean 2 and 4 GPUs on each node"
        );
        let other = gpus("v100:4");
        let error = on_each(Wish { per_node: Some(&four), gres: Some(&other), ..nothing }).unwrap_err();
        assert_eq!(error, GpuError::Types("a100".to_owned(), "v100".to_owned()));
    }

    #[test]
    fn a_type_is_a_model_or_a_part_of_its_name() {
        let known = ["NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-PCIE-40GB", "Tesla-V100", "a10"];
        let found = |type_: &str| models(type_, known.into_iter()).into_iter().collect::<Vec<_>>();
        assert_eq!(found("a100"), ["NVIDIA-A100-PCIE-40GB", "NVIDIA-A100-SXM4-80GB"]);
        assert_eq!(found("A10"), ["a10"]);
        assert_eq!(found("tesla-v100"), ["Tesla-V100"]);
        assert!(found("h100").is_empty());
    }
}
