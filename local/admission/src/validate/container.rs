//! Containers: names, images, ports, environment, mounts, probes.

use serde_json::Value;

use super::{non_negative, one_of, port, required, resources};
use crate::field::{Errors, FieldError, Path};
use crate::json::{at, has, integer, list, text};
use crate::names;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

/// Checks the regular containers of a pod.
pub(super) fn containers(spec: &Value, volumes: &[&str], parent: &Path<'_>, errors: &mut Errors) {
    let path = parent.field("containers");
    let containers = list(spec, "containers");
    if containers.is_empty() {
        errors.push(FieldError::required(&path, ""));
        return;
    }
    let mut names: Vec<&str> = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        common(container, volumes, &path, errors);
        unique_name(container, &mut names, &path, errors);
        probes(container, &path, errors);
    }
    host_ports(containers, &path, errors);
}

/// Checks the containers that run before the regular ones.
pub(super) fn init_containers(spec: &Value, volumes: &[&str], parent: &Path<'_>, errors: &mut Errors) {
    let path = parent.field("initContainers");
    let mut names: Vec<&str> =
        list(spec, "containers").iter().map(|container| text(container, "name")).collect();
    for (index, container) in list(spec, "initContainers").iter().enumerate() {
        let path = path.index(index);
        common(container, volumes, &path, errors);
        unique_name(container, &mut names, &path, errors);
        let restart = text(container, "restartPolicy");
        if restart == "Always" {
            probes(container, &path, errors);
            continue;
        }
        if !matches!(restart, "" | "Never" | "OnFailure") {
            let supported = ["Always", "Never", "OnFailure"];
            errors.push(FieldError::not_supported(&path.field("restartPolicy"), restart, &supported));
        }
        for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if has(container, key) {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.push(FieldError::forbidden(&path.field(key), detail));
            }
        }
    }
}

fn unique_name<'a>(container: &'a Value, names: &mut Vec<&'a str>, path: &Path<'_>, errors: &mut Errors) {
    let name = text(container, "name");
    if names.contains(&name) {
        errors.push(FieldError::duplicate(&path.field("name"), name));
    } else if !name.is_empty() {
        names.push(name);
    }
}

fn common(container: &Value, volumes: &[&str], path: &Path<'_>, errors: &mut Errors) {
    if required(container, "name", path, errors) {
        let name = text(container, "name");
        errors.invalid_each(&path.field("name"), name, names::dns1123_label(name));
    }
    if required(container, "image", path, errors) {
        let image = text(container, "image");
        if image.trim() != image {
            let detail = "must not have leading or trailing whitespace";
            errors.push(FieldError::invalid(&path.field("image"), image, detail));
        }
    }
    one_of(container, "terminationMessagePolicy", &["FallbackToLogsOnError", "File"], path, errors);
    ports(container, path, errors);
    environment(container, path, errors);
    mounts(container, volumes, path, errors);
    one_of(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], path, errors);
    resources::requirements(at(container, &["resources"]), &path.field("resources"), errors);
}

fn ports(container: &Value, parent: &Path<'_>, errors: &mut Errors) {
    let path = parent.field("ports");
    let mut names_seen: Vec<&str> = Vec::new();
    for (index, port) in list(container, "ports").iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            let messages = names::port_name(name);
            if !messages.is_empty() {
                errors.invalid_each(&path.field("name"), name, messages);
            } else if names_seen.contains(&name) {
                errors.push(FieldError::duplicate(&path.field("name"), name));
            } else {
                names_seen.push(name);
            }
        }
        match integer(port, "containerPort").unwrap_or_default() {
            0 => errors.push(FieldError::required(&path.field("containerPort"), "")),
            number => port_number(number, &path.field("containerPort"), errors),
        }
        if let Some(number) = integer(port, "hostPort").filter(|number| *number != 0) {
            port_number(number, &path.field("hostPort"), errors);
        }
        one_of(port, "protocol", &PROTOCOLS, &path, errors);
    }
}

fn port_number(number: i64, path: &Path<'_>, errors: &mut Errors) {
    for message in names::port_number(number) {
        errors.push(FieldError::invalid(path, number, message));
    }
}

/// No two containers of a pod may take the same port of the host.
fn host_ports(containers: &[Value], parent: &Path<'_>, errors: &mut Errors) {
    let mut taken: Vec<String> = Vec::new();
    for (container_index, container) in containers.iter().enumerate() {
        let path = parent.index(container_index);
        let path = path.field("ports");
        for (index, port) in list(container, "ports").iter().enumerate() {
            let Some(number) = integer(port, "hostPort").filter(|number| *number != 0) else { continue };
            let claim = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
            if taken.contains(&claim) {
                errors.push(FieldError::duplicate(&path.index(index).field("hostPort"), claim));
            } else {
                taken.push(claim);
            }
        }
    }
}

fn environment(container: &Value, parent: &Path<'_>, errors: &mut Errors) {
    let path = parent.field("env");
    for (index, variable) in list(container, "env").iter().enumerate() {
        let path = path.index(index);
        if required(variable, "name", &path, errors) {
            let name = text(variable, "name");
            errors.invalid_each(&path.field("name"), name, names::environment_variable(name));
        }
        if has(variable, "valueFrom") {
            value_source(variable, &path, errors);
        }
    }
    let path = parent.field("envFrom");
    for (index, source) in list(container, "envFrom").iter().enumerate() {
        let path = path.index(index);
        let given: Vec<&str> =
            ["configMapRef", "secretRef"].into_iter().filter(|key| has(source, key)).collect();
        for key in &given {
            required(at(source, &[key]), "name", &path.field(key), errors);
        }
        match given.len() {
            0 => errors.push(FieldError::invalid(
                &path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            1 => {}
            _ => errors.push(FieldError::invalid(
                &path,
                "",
                "may not have more than one field specified at a time",
            )),
        }
    }
}

fn value_source(variable: &Value, parent: &Path<'_>, errors: &mut Errors) {
    let path = parent.field("valueFrom");
    let source = at(variable, &["valueFrom"]);
    let mut count = 0;
    for (key, needed) in [
        ("fieldRef", &["fieldPath"][..]),
        ("resourceFieldRef", &["resource"]),
        ("configMapKeyRef", &["name", "key"]),
        ("secretKeyRef", &["name", "key"]),
        ("fileKeyRef", &["volumeName", "path", "key"]),
    ] {
        if has(source, key) {
            count += 1;
            for needed in needed {
                required(at(source, &[key]), needed, &path.field(key), errors);
            }
        }
    }
    if count == 0 {
        let detail =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
        errors.push(FieldError::invalid(&path, "", detail));
    } else if !text(variable, "value").is_empty() {
        errors.push(FieldError::invalid(&path, "", "may not be specified when `value` is not empty"));
    } else if count > 1 {
        errors.push(FieldError::invalid(&path, "", "may not have more than one field specified at a time"));
    }
}

fn mounts(container: &Value, volumes: &[&str], parent: &Path<'_>, errors: &mut Errors) {
    let path = parent.field("volumeMounts");
    let mut mounted: Vec<&str> = Vec::new();
    for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = path.index(index);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        required(mount, "name", &path, errors);
        if !volumes.contains(&name) {
            errors.push(FieldError::not_found(&path.field("name"), name));
        }
        required(mount, "mountPath", &path, errors);
        if mounted.contains(&target) {
            errors.push(FieldError::invalid(&path.field("mountPath"), target, "must be unique"));
        }
        mounted.push(target);
        for key in ["subPath", "subPathExpr"] {
            let inside = text(mount, key);
            if inside.starts_with('/') {
                errors.push(FieldError::invalid(&path.field(key), inside, "must be a relative path"));
            }
            if inside.split('/').any(|part| part == "..") {
                errors.push(FieldError::invalid(&path.field(key), inside, "must not contain '..'"));
            }
        }
        if !text(mount, "subPath").is_empty() && !text(mount, "subPathExpr").is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(&path.field("subPathExpr"), text(mount, "subPathExpr"), detail));
        }
    }
}

fn probes(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(lifecycle) = container.get("lifecycle") {
        let path = path.field("lifecycle");
        for key in ["postStart", "preStop"] {
            if has(lifecycle, key) {
                handler(
                    &lifecycle[key],
                    &["exec", "httpGet", "tcpSocket", "sleep"],
                    &path.field(key),
                    errors,
                );
            }
        }
    }
    for key in PROBES {
        if !has(container, key) {
            continue;
        }
        let (probe, path) = (&container[key], path.field(key));
        handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], &path, errors);
        for field in
            ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            non_negative(probe, field, &path, errors);
        }
        let successes = integer(probe, "successThreshold").unwrap_or(1);
        if key != "readinessProbe" && successes != 1 {
            errors.push(FieldError::invalid(&path.field("successThreshold"), successes, "must be 1"));
        }
    }
}

fn handler(handler: &Value, known: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let mut count = 0;
    for key in known.iter().filter(|key| has(handler, key)) {
        count += 1;
        let (action, path) = (&handler[*key], path.field(key));
        if count > 1 {
            errors.push(FieldError::forbidden(&path, "may not specify more than 1 handler type"));
            continue;
        }
        match *key {
            "exec" if list(action, "command").is_empty() => {
                errors.push(FieldError::required(&path.field("command"), ""));
            }
            "httpGet" => {
                required(action, "path", &path, errors);
                port(at(action, &["port"]), &path.field("port"), errors);
                let scheme = text(action, "scheme");
                if !matches!(scheme, "HTTP" | "HTTPS") {
                    errors.push(FieldError::not_supported(&path.field("scheme"), scheme, &["HTTP", "HTTPS"]));
                }
            }
            "tcpSocket" | "grpc" => port(at(action, &["port"]), &path.field("port"), errors),
            _ => {}
        }
    }
    if count == 0 {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
}
