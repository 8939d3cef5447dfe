//! Services.

use serde_json::{Value, json};

use super::{meta, one_of, port, required};
use crate::field::{Errors, FieldError, Path};
use crate::json::{at, integer, list, text};
use crate::names;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

/// Checks a service.
pub(super) fn state(service: &Value, errors: &mut Errors) {
    let (spec, path) = (at(service, &["spec"]), Path::root("spec"));
    let (kind, headless) = (text(spec, "type"), text(spec, "clusterIP") == "None");
    let ports = list(spec, "ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid("spec.clusterIPs[0]", "None", detail));
        }
        "ExternalName" => {
            if !text(spec, "clusterIP").is_empty() {
                errors.push(FieldError::forbidden(
                    "spec.clusterIPs",
                    "may not be set for ExternalName services",
                ));
            }
            let name = text(spec, "externalName");
            let name = name.strip_suffix('.').unwrap_or(name);
            if required(spec, "externalName", &path, errors) {
                errors.invalid_each(&path.field("externalName"), name, names::dns1123_subdomain(name));
            }
        }
        _ => {}
    }
    each_port(ports, &path, errors);
    meta::labels(spec, "selector", &path, errors);
    one_of(spec, "sessionAffinity", &["ClientIP", "None"], &path, errors);
    one_of(spec, "type", &TYPES, &path, errors);
    duplicates(ports, &path, errors);
}

fn each_port(ports: &[Value], parent: &Path<'_>, errors: &mut Errors) {
    let path = parent.field("ports");
    let mut seen: Vec<&str> = Vec::new();
    for (index, service_port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(service_port, "name");
        if !name.is_empty() {
            errors.invalid_each(&path.field("name"), name, names::dns1123_label(name));
            if seen.contains(&name) {
                errors.push(FieldError::duplicate(&path.field("name"), name));
            } else {
                seen.push(name);
            }
        } else if ports.len() > 1 {
            errors.push(FieldError::required(&path.field("name"), ""));
        }
        let number = integer(service_port, "port").unwrap_or_default();
        for message in names::port_number(number) {
            errors.push(FieldError::invalid(&path.field("port"), number, message));
        }
        one_of(service_port, "protocol", &["SCTP", "TCP", "UDP"], &path, errors);
        port(at(service_port, &["targetPort"]), &path.field("targetPort"), errors);
        let protocol = text(service_port, "appProtocol");
        if !protocol.is_empty() {
            errors.invalid_each(&path.field("appProtocol"), protocol, names::qualified_name(protocol));
        }
    }
}

fn duplicates(ports: &[Value], parent: &Path<'_>, errors: &mut Errors) {
    let path = parent.field("ports");
    let mut seen: Vec<(&str, i64)> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let key = (text(port, "protocol"), integer(port, "port").unwrap_or_default());
        if seen.contains(&key) {
            errors.push(FieldError::duplicate(&path.index(index), json!({"port": key.1, "protocol": key.0})));
        }
        seen.push(key);
    }
}

/// Checks a change: a service keeps its address.
pub(super) fn change(old: &Value, new: &Value, errors: &mut Errors) {
    let (before, after) = (at(old, &["spec"]), at(new, &["spec"]));
    let (from, to) = (text(before, "clusterIP"), text(after, "clusterIP"));
    if from.is_empty()
        || from == to
        || [before, after].iter().any(|spec| text(spec, "type") == "ExternalName")
    {
        return;
    }
    let detail = if to.is_empty() { "primary clusterIP can not be unset" } else { "may not change once set" };
    errors.push(FieldError::invalid("spec.clusterIPs[0]", json!([to]), detail));
}
