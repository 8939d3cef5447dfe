//! Sums of resource quantities.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Thousandths of a unit; enough for CPU, and whole for memory and devices.
fn milli(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.trim();
    let digits =
        text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor: i128 = match suffix {
        "n" => return Some(decimal(number)? / 1_000_000_000),
        "u" => return Some(decimal(number)? / 1_000_000),
        "m" => return Some(decimal(number)? / 1_000),
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        exponent => {
            let power: u32 = exponent.strip_prefix(['e', 'E'])?.parse().ok().filter(|power| *power <= 18)?;
            10_i128.pow(power)
        }
    };
    decimal(number)?.checked_mul(factor)
}

/// A decimal number in thousandths.
fn decimal(number: &str) -> Option<i128> {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut thousandths: i128 = 0;
    for position in 0..3 {
        let digit = fraction.as_bytes().get(position).map_or(0, |byte| i128::from(byte.wrapping_sub(b'0')));
        thousandths = thousandths * 10 + digit;
    }
    Some(sign * (whole.checked_mul(1_000)? + thousandths))
}

/// A quantity in whole units, rounded up.
pub(crate) fn whole_units(quantity: &Quantity) -> Option<i64> {
    i64::try_from((milli(quantity)? + 999).div_euclid(1_000)).ok()
}

fn text(milli: i128) -> Quantity {
    if milli % 1_000 == 0 { Quantity((milli / 1_000).to_string()) } else { Quantity(format!("{milli}m")) }
}

type Resources = BTreeMap<String, i128>;

fn of_container(container: &Container) -> Resources {
    let resources = container.resources.clone().unwrap_or_default();
    let mut wanted = resources.limits.unwrap_or_default();
    wanted.extend(resources.requests.unwrap_or_default());
    wanted.iter().filter_map(|(name, quantity)| Some((name.clone(), milli(quantity)?))).collect()
}

/// What a pod needs: the sum of its containers, or its largest init container if that is more.
fn of_pod(pod: &PodSpec) -> Resources {
    let mut sum = Resources::new();
    for container in &pod.containers {
        for (name, amount) in of_container(container) {
            *sum.entry(name).or_default() += amount;
        }
    }
    for container in pod.init_containers.iter().flatten() {
        for (name, amount) in of_container(container) {
            let needed = sum.entry(name).or_default();
            *needed = amount.max(*needed);
        }
    }
    sum
}

/// What the first `count` of these sets of like pods need together.
pub(crate) fn sum_of_pods<'a>(
    sets: impl Iterator<Item = (&'a PodSpec, i32)>,
    mut count: i32,
) -> BTreeMap<String, Quantity> {
    let mut sum = Resources::new();
    for (pod, replicas) in sets {
        let taken = replicas.min(count).max(0);
        count -= taken;
        for (name, amount) in of_pod(pod) {
            *sum.entry(name).or_default() += amount * i128::from(taken);
        }
    }
    sum.into_iter().filter(|(_, amount)| *amount != 0).map(|(name, amount)| (name, text(amount))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_suffix() {
        let cases = [
            ("1", 1_000),
            ("0.5", 500),
            (".25", 250),
            ("100m", 100),
            ("1500000u", 1_500),
            ("2500000000n", 2_500),
            ("1k", 1_000_000),
            ("2Ki", 2_048_000),
            ("1.5Gi", 1_610_612_736_000),
            ("1e3", 1_000_000),
            ("-1", -1_000),
        ];
        for (written, expected) in cases {
            assert_eq!(milli(&Quantity(written.to_owned())), Some(expected), "{written}");
        }
        for wrong in ["", "Gi", "1x", "1e99", "--1"] {
            assert_eq!(milli(&Quantity(wrong.to_owned())), None, "{wrong}");
        }
    }

    #[test]
    fn adds_the_first_pods_only() {
        let pod = |cpu: &str| PodSpec {
            containers: vec![Container {
                resources: Some(k8s_openapi::api::core::v1::ResourceRequirements {
                    limits: Some(BTreeMap::from([
                        ("cpu".to_owned(), Quantity("9".to_owned())),
                        ("nvidia.com/gpu".to_owned(), Quantity("1".to_owned())),
                    ])),
                    requests: Some(BTreeMap::from([("cpu".to_owned(), Quantity(cpu.to_owned()))])),
                    ..Default::default()
                }),
                ..Container::default()
            }],
            ..PodSpec::default()
        };
        let (master, worker) = (pod("500m"), pod("250m"));
        let sum = sum_of_pods([(&master, 1), (&worker, 3)].into_iter(), 3);
        assert_eq!(sum["cpu"].0, "1");
        assert_eq!(sum["nvidia.com/gpu"].0, "3");
    }
}
