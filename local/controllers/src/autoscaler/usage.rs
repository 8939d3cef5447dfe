//! What pods use, as `metrics.k8s.io` tells it. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use muster_admission::quantity::Quantity;
use serde::Deserialize;

/// Where measurements are served, and of what.
pub(super) const METRICS_PATH: &str = "/apis/metrics.k8s.io/v1beta1";
const DEFAULT_WINDOW: SignedDuration = SignedDuration::from_secs(30);

/// The measurements of a namespace's pods.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct PodMetricsList {
    #[serde(default)]
    items: Vec<PodMetrics>,
}

#[derive(Debug, Clone, Deserialize)]
struct PodMetrics {
    metadata: Named,
    timestamp: Option<Timestamp>,
    window: Option<String>,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Debug, Clone, Deserialize)]
struct Named {
    name: String,
}

#[derive(Debug, Clone, Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, String>,
}

/// What one pod, or one container of it, uses of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// Thousandths of the resource's unit.
    pub(super) milli: i64,
    /// When the measurement ended.
    pub(super) at: Timestamp,
    /// How long it took.
    pub(super) window: SignedDuration,
}

/// Of which part of pods a metric speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// All containers together.
    Pod,
    /// The container of that name.
    Container(&'a str),
}

impl Part<'_> {
    /// Whether a container belongs to it.
    pub(super) fn has(self, container: &str) -> bool {
        match self {
            Self::Pod => true,
            Self::Container(name) => name == container,
        }
    }
}

/// Measurements that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum UsageError {
    /// Nothing was measured of the pods.
    #[error("no metrics returned from resource metrics API")]
    Empty,
    /// A pod was measured without the container.
    #[error("container {container} not present in metrics for pod {namespace}/{pod}")]
    NoContainer { container: String, namespace: String, pod: String },
}

impl PodMetricsList {
    /// What the named pods use; those of which it is not known are left out.
    pub(super) fn samples(
        &self,
        namespace: &str,
        pods: &[&str],
        resource: &str,
        part: Part<'_>,
        now: Timestamp,
    ) -> Result<BTreeMap<String, Sample>, UsageError> {
        let measured: Vec<&PodMetrics> =
            self.items.iter().filter(|item| pods.contains(&item.metadata.name.as_str())).collect();
        if measured.is_empty() {
            return Err(UsageError::Empty);
        }
        let mut samples = BTreeMap::new();
        for item in measured {
            let mut chosen = item.containers.iter().filter(|container| part.has(&container.name)).peekable();
            if let (Part::Container(container), None) = (part, chosen.peek()) {
                let (namespace, pod) = (namespace.to_owned(), item.metadata.name.clone());
                return Err(UsageError::NoContainer { container: container.to_owned(), namespace, pod });
            }
            let used = chosen.map(|container| container.usage.get(resource)?.parse::<Quantity>().ok());
            let Some(milli) = used.map(|used| used.map(Quantity::milli_value)).sum::<Option<i64>>() else {
                continue;
            };
            let window = item.window.as_deref().and_then(|text| text.parse().ok());
            let sample =
                Sample { milli, at: item.timestamp.unwrap_or(now), window: window.unwrap_or(DEFAULT_WINDOW) };
            samples.insert(item.metadata.name.clone(), sample);
        }
        Ok(samples)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list() -> PodMetricsList {
        let item = |name: &str, containers: serde_json::Value| {
            json!({
                "metadata": { "name": name }, "timestamp": "2026-01-01T00:00:00Z", "window": "500ms",
                "containers": containers,
            })
        };
        let list = json!({ "items": [
            item("a", json!([
                { "name": "main", "usage": { "cpu": "250000001n", "memory": "10Ki" } },
                { "name": "side", "usage": { "cpu": "1" } },
            ])),
            item("b", json!([{ "name": "main", "usage": { "memory": "1Ki" } }])),
        ]});
        serde_json::from_value(list).expect("a list")
    }

    #[test]
    fn containers_are_added_and_what_is_not_measured_is_left_out() {
        let now = Timestamp::UNIX_EPOCH;
        let of = |pods: &[&str], resource: &str, part: Part<'_>| {
            let samples = list().samples("space", pods, resource, part, now)?;
            Ok(samples.into_iter().map(|(pod, sample)| (pod, sample.milli)).collect::<Vec<_>>())
        };
        assert_eq!(of(&["a", "b"], "cpu", Part::Pod), Ok(vec![("a".into(), 1251)]));
        assert_eq!(of(&["a", "b"], "cpu", Part::Container("main")), Ok(vec![("a".into(), 251)]));
        assert_eq!(of(&["b"], "memory", Part::Pod), Ok(vec![("b".into(), 1024 * 1000)]));
        assert_eq!(of(&["c"], "cpu", Part::Pod), Err(UsageError::Empty));
        let none = of(&["a", "b"], "cpu", Part::Container("side")).expect_err("b has none");
        assert_eq!(none.to_string(), "container side not present in metrics for pod space/b");
        let sample = list().samples("space", &["a"], "cpu", Part::Pod, now).expect("samples")["a"];
        assert_eq!(
            (sample.window, sample.at.to_string()),
            (SignedDuration::from_millis(500), "2026-01-01T00:00:00Z".to_owned())
        );
    }
}
