//! The two faces of an autoscaler: `autoscaling/v1` knows one metric, the use of processors, and keeps all others, the
//! conditions and the behaviour as JSON in annotations.

use serde_json::{Map, Value, json};

use crate::defaults;
use crate::json::{Fields, at, list, object, object_if, text};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Where a field lies in a metric of `v2`, and its name in one of `v1`.
type Pair = (&'static [&'static str], &'static str);
/// The fields of the source of a metric.
type Source = (&'static str, &'static [Pair]);

const SPEC: [Source; 5] = [
    (
        "resource",
        &[
            (&["name"], "name"),
            (&["target", "averageUtilization"], "targetAverageUtilization"),
            (&["target", "averageValue"], "targetAverageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            (&["name"], "name"),
            (&["container"], "container"),
            (&["target", "averageUtilization"], "targetAverageUtilization"),
            (&["target", "averageValue"], "targetAverageValue"),
        ],
    ),
    (
        "pods",
        &[
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "selector"),
            (&["target", "averageValue"], "targetAverageValue"),
        ],
    ),
    (
        "object",
        &[
            (&["describedObject"], "target"),
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "selector"),
            (&["target", "value"], "targetValue"),
            (&["target", "averageValue"], "averageValue"),
        ],
    ),
    (
        "external",
        &[
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "metricSelector"),
            (&["target", "value"], "targetValue"),
            (&["target", "averageValue"], "targetAverageValue"),
        ],
    ),
];

const STATUS: [Source; 5] = [
    (
        "resource",
        &[
            (&["name"], "name"),
            (&["current", "averageUtilization"], "currentAverageUtilization"),
            (&["current", "averageValue"], "currentAverageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            (&["name"], "name"),
            (&["container"], "container"),
            (&["current", "averageUtilization"], "currentAverageUtilization"),
            (&["current", "averageValue"], "currentAverageValue"),
        ],
    ),
    (
        "pods",
        &[
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "selector"),
            (&["current", "averageValue"], "currentAverageValue"),
        ],
    ),
    (
        "object",
        &[
            (&["describedObject"], "target"),
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "selector"),
            (&["current", "value"], "currentValue"),
            (&["current", "averageValue"], "averageValue"),
        ],
    ),
    (
        "external",
        &[
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "metricSelector"),
            (&["current", "value"], "currentValue"),
            (&["current", "averageValue"], "currentAverageValue"),
        ],
    ),
];

/// Turns an autoscaler of `v2` into one of `v1`.
pub(super) fn to_v1(autoscaler: &mut Value) {
    let Some(fields) = autoscaler.as_object_mut() else { return };
    let mut notes = Vec::new();
    if let Some(spec) = object_if(fields, "spec") {
        let (cpu, others) = split(spec.remove("metrics"), &["target", "averageUtilization"]);
        if let Some(percent) = cpu {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), percent);
        }
        notes.push((METRICS, renamed(&others, &SPEC, metric_to_v1)));
        notes.push((BEHAVIOR, spec.remove("behavior").map(|behavior| capitalised(behavior, true))));
    }
    if let Some(status) = object_if(fields, "status") {
        let current = status.remove("currentMetrics");
        let (cpu, _) = split(current.clone(), &["current", "averageUtilization"]);
        if let Some(percent) = cpu {
            status.insert("currentCPUUtilizationPercentage".to_owned(), percent);
        }
        // All of them: unlike the goals, what is measured of the processors has an average value beside the share.
        let all = current.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
        notes.push((CURRENT_METRICS, renamed(&all, &STATUS, metric_to_v1)));
        notes.push((CONDITIONS, status.remove("conditions")));
        status.entry("currentReplicas").or_insert(json!(0));
    }
    let notes =
        notes.into_iter().filter_map(|(key, value)| Some((key, value.filter(|value| !value.is_null())?)));
    let notes: Vec<(&str, Value)> = notes.collect();
    if !notes.is_empty()
        && let Some(annotations) = annotations(fields)
    {
        annotations.extend(notes.into_iter().map(|(key, value)| (key.to_owned(), value.to_string().into())));
    }
}

/// Turns an autoscaler of `v1` into one of `v2`. Annotations that cannot be read are dropped, as Kubernetes does.
pub(super) fn to_v2(autoscaler: &mut Value) {
    let Some(fields) = autoscaler.as_object_mut() else { return };
    let mut take = |key: &str| -> Option<Value> {
        let metadata = object_if(fields, "metadata")?;
        let annotations = object_if(metadata, "annotations")?;
        let text = annotations.remove(key)?;
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
        serde_json::from_str(text.as_str()?).ok()
    };
    let (metrics, current) = (take(METRICS), take(CURRENT_METRICS));
    let (conditions, behavior) = (take(CONDITIONS), take(BEHAVIOR));
    if let Some(spec) = object_if(fields, "spec") {
        let mut metrics = read(metrics, &SPEC);
        for metric in &mut metrics {
            name_target(metric);
        }
        if let Some(percent) = spec.remove("targetCPUUtilizationPercentage") {
            let target = json!({ "type": "Utilization", "averageUtilization": percent });
            metrics.push(json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } }));
        }
        if !metrics.is_empty() {
            spec.insert("metrics".to_owned(), metrics.into());
        }
        if let Some(behavior) = behavior.filter(Value::is_object) {
            spec.insert("behavior".to_owned(), capitalised(behavior, false));
        }
    }
    if let Some(status) = object_if(fields, "status") {
        let percent = status.remove("currentCPUUtilizationPercentage");
        let mut current = read(current, &STATUS);
        if let (Some(percent), true) = (percent, current.is_empty()) {
            let current_use = json!({ "averageUtilization": percent });
            current
                .push(json!({ "type": "Resource", "resource": { "name": "cpu", "current": current_use } }));
        }
        if !current.is_empty() {
            status.insert("currentMetrics".to_owned(), current.into());
        }
        if let Some(conditions) = conditions.filter(Value::is_array) {
            status.insert("conditions".to_owned(), conditions);
        }
    }
    defaults::apply("autoscaling/v2", "HorizontalPodAutoscaler", autoscaler);
}

fn annotations(fields: &mut Fields) -> Option<&mut Fields> {
    object(object(fields, "metadata")?, "annotations")
}

/// The share of the processors' requests, and all metrics that are none.
fn split(metrics: Option<Value>, share: &[&str]) -> (Option<Value>, Vec<Value>) {
    let mut found = None;
    let Some(Value::Array(metrics)) = metrics else { return (None, Vec::new()) };
    let others = metrics.into_iter().filter(|metric| {
        let resource = at(metric, &["resource"]);
        let percent = at(resource, share);
        if text(metric, "type") != "Resource"
            || text(resource, "name") != "cpu"
            || percent.is_null()
            || found.is_some()
        {
            return true;
        }
        found = Some(percent.clone());
        false
    });
    let others = others.collect();
    (found, others)
}

fn renamed(metrics: &[Value], sources: &[Source], rename: fn(&Value, &[Source]) -> Value) -> Option<Value> {
    let renamed: Vec<Value> = metrics.iter().map(|metric| rename(metric, sources)).collect();
    (!renamed.is_empty()).then(|| renamed.into())
}

fn read(metrics: Option<Value>, sources: &[Source]) -> Vec<Value> {
    let metrics = json!({ "metrics": metrics });
    list(&metrics, "metrics").iter().map(|metric| metric_to_v2(metric, sources)).collect()
}

fn metric_to_v1(metric: &Value, sources: &[Source]) -> Value {
    let mut renamed = json!({ "type": text(metric, "type") });
    for (source, pairs) in sources.iter().filter(|(source, _)| metric.get(source).is_some()) {
        let values = pairs.iter().map(|(path, key)| (*key, at(&metric[*source], path)));
        let set = values.filter(|(_, value)| !value.is_null());
        renamed[*source] =
            set.map(|(key, value)| (key.to_owned(), value.clone())).collect::<Map<_, _>>().into();
    }
    renamed
}

fn metric_to_v2(metric: &Value, sources: &[Source]) -> Value {
    let mut renamed = json!({ "type": text(metric, "type") });
    for (source, pairs) in
        sources.iter().filter(|(source, _)| metric.get(source).is_some_and(Value::is_object))
    {
        renamed[*source] = json!({});
        for (path, key) in *pairs {
            let value = &metric[*source][*key];
            if !value.is_null() {
                let place = path.iter().fold(&mut renamed[*source], |place, key| &mut place[*key]);
                *place = value.clone();
            }
        }
    }
    renamed
}

/// `v1` does not say what kind of goal there is.
fn name_target(metric: &mut Value) {
    let Some(fields) = metric.as_object_mut() else { return };
    for (source, _) in &SPEC {
        let Some(target) = object_if(fields, source).and_then(|source| object(source, "target")) else {
            continue;
        };
        let kind = if target.contains_key("averageUtilization") {
            "Utilization"
        } else if target.contains_key("averageValue") {
            "AverageValue"
        } else {
            "Value"
        };
        target.insert("type".to_owned(), kind.into());
    }
}

/// The annotation of the behaviour holds Kubernetes' inner form, whose names begin with capitals.
fn capitalised(value: Value, up: bool) -> Value {
    let rename = |key: String| {
        let mut letters = key.chars();
        let first = letters
            .next()
            .map(|first| if up { first.to_ascii_uppercase() } else { first.to_ascii_lowercase() });
        first.into_iter().chain(letters).collect::<String>()
    };
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| (rename(key), capitalised(value, up)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.into_iter().map(|item| capitalised(item, up)).collect::<Vec<_>>().into(),
        other => other,
    }
}

#[cfg(test)]
mod tests;
