//! What `muster install` puts into a cluster: the files of `deploy`, with a person's values in them.

pub(crate) mod certificates;
pub(crate) mod checks;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::commands::crds;
use crate::connect::{ClusterArguments, Connection};
use crate::error::{Error, USAGE};
use crate::manifest::{self, Document};

/// The files, which are the manifests with every value's default.
mod files {
    pub(super) const RBAC: (&str, &str) = ("deploy/rbac.yaml", include_str!("../../../deploy/rbac.yaml"));
    pub(super) const CONTROLLER: (&str, &str) =
        ("deploy/controller.yaml", include_str!("../../../deploy/controller.yaml"));
    pub(super) const EXTENDER: (&str, &str) =
        ("deploy/extender.yaml", include_str!("../../../deploy/extender.yaml"));
    pub(super) const SECOND_SCHEDULER: &str =
        include_str!("../../../deploy/kube-scheduler/second-scheduler.yaml");
    pub(super) const OWN_SCHEDULER: &str = include_str!("../../../deploy/kube-scheduler/own-scheduler.yaml");
}

/// The namespace in the files.
const NAMESPACE: &str = "muster-system";
/// The image in the files.
const IMAGE: &str = "muster.dev/muster:0.1.0";
/// Name of the extender's Service, Deployment and account, and what its Secrets' names begin with.
pub(crate) const EXTENDER: &str = "muster-extender";
/// Who created a namespace, and may delete it.
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "muster");

/// Who binds the pods of gangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// Muster's own scheduler binds pods with its `schedulerName`
    Binder,
    /// A kube-scheduler binds them and asks Muster where
    Extender,
}

/// What a person may change.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Values {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Image with the program
    #[arg(long, default_value = IMAGE, value_name = "IMAGE", value_parser = image)]
    image: String,
    /// Replicas of each Deployment, of which one leads
    #[arg(long, default_value_t = 2, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    replicas: u16,
    /// Who binds the pods of gangs
    #[arg(long, value_enum, default_value_t = Form::Binder)]
    pub(crate) form: Form,
    /// Pods with this schedulerName are planned
    #[arg(long, default_value = muster_scheduler_api::SCHEDULER_NAME, value_name = "NAME", value_parser = label)]
    scheduler_name: String,
    /// Serve the REST API for dashboards, on the loopback of each replica: `kubectl port-forward` reaches it
    #[arg(long)]
    dashboard: bool,
}

/// Where it is installed.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// Namespace of everything that has one
    #[arg(long, short, default_value = NAMESPACE, value_name = "NAME", value_parser = label)]
    pub(crate) namespace: String,
    /// Kubeconfig of the cluster [default: $KUBECONFIG, else the embedded cluster]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// State of the embedded cluster [default: ~/.local/share/muster]
    #[arg(long, env = "MUSTER_HOME", value_name = "FOLDER")]
    pub(crate) home: Option<PathBuf>,
}

impl Place {
    /// Connects to the cluster.
    pub(crate) async fn connect(&self) -> Result<Connection, Error> {
        refuse_shared(&self.namespace)?;
        let cluster = ClusterArguments {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            namespace: Some(self.namespace.clone()),
            home: self.home.clone(),
        };
        cluster.connect().await
    }
}

/// A DNS label.
fn label(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ends = text.starts_with('-') || text.ends_with('-');
    if text.is_empty() || text.len() > 63 || ends || !text.bytes().all(fits) {
        return Err("it must be lower-case letters, digits and `-`, at most 63".to_owned());
    }
    Ok(text.to_owned())
}

/// A reference to an image; where it is, is the nodes' business.
fn image(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    if text.is_empty() || !text.bytes().all(fits) {
        return Err("it is no reference to an image".to_owned());
    }
    Ok(text.to_owned())
}

impl Values {
    /// The files with nothing changed but the namespace: whatever an installation may consist of.
    pub(crate) fn everything_in(namespace: &str) -> Result<Vec<Document>, Error> {
        let values = |form| Self {
            place: Place { namespace: namespace.to_owned(), kubeconfig: None, context: None, home: None },
            image: IMAGE.to_owned(),
            replicas: 1,
            form,
            scheduler_name: muster_scheduler_api::SCHEDULER_NAME.to_owned(),
            dashboard: false,
        };
        let mut all = values(Form::Binder).manifests()?;
        for document in values(Form::Extender).manifests()? {
            let same = |other: &Document| (other.kind(), other.name()) == (document.kind(), document.name());
            if !all.iter().any(same) {
                all.push(document);
            }
        }
        Ok(all)
    }

    /// The objects beside the definitions, in the order in which they need each other.
    pub(crate) fn manifests(&self) -> Result<Vec<Document>, Error> {
        if self.dashboard && self.form == Form::Extender {
            return Err(Error::new("--dashboard shows what Muster's own scheduler plans, not the extender")
                .with_hint("leave one of --dashboard and --form extender out")
                .with_code(USAGE));
        }
        let mut documents = self.parse(files::RBAC)?;
        documents.extend(self.parse(files::CONTROLLER)?);
        if self.form == Form::Extender {
            // Only the extender plans, so nothing else may bind.
            documents.retain(|document| document.name() != "muster-scheduler");
            documents.extend(self.parse(files::EXTENDER)?);
        }
        for document in &mut documents {
            if document.kind() == "Deployment" {
                self.deployment(&mut document.object)?;
            }
        }
        if self.form == Form::Extender {
            documents.extend(self.parse(("deploy/kube-scheduler", &self.configurations()?))?);
        }
        Ok(documents)
    }

    fn parse(&self, (path, text): (&str, &str)) -> Result<Vec<Document>, Error> {
        let text = text.replace(NAMESPACE, &self.place.namespace).replace(IMAGE, &self.image);
        Ok(manifest::parse(Path::new(path), &text)?)
    }

    fn deployment(&self, object: &mut Value) -> Result<(), Error> {
        object["spec"]["replicas"] = json!(self.replicas);
        let command = object.pointer_mut("/spec/template/spec/containers/0/command");
        let words =
            command.and_then(Value::as_array_mut).ok_or_else(|| Error::new("a Deployment has no command"))?;
        let plans_for = "--extender-scheduler-names=";
        let of_extender =
            words.iter().position(|word| word.as_str().is_some_and(|word| word.starts_with(plans_for)));
        match (of_extender, self.form) {
            (Some(at), _) => words[at] = json!(format!("{plans_for}{}", self.scheduler_name)),
            (None, Form::Extender) => words.push(json!("--only=trainer")),
            (None, Form::Binder) => {
                if self.scheduler_name != muster_scheduler_api::SCHEDULER_NAME {
                    words.push(json!(format!("--scheduler-names={}", self.scheduler_name)));
                }
                if self.dashboard {
                    words.push(json!("--dashboard-listen=127.0.0.1:9403"));
                }
            }
        }
        // Jobs that name no scheduler get the one that plans gangs.
        if of_extender.is_none() && self.scheduler_name != muster_scheduler_api::SCHEDULER_NAME {
            words.push(json!(format!("--gang-scheduler-name={}", self.scheduler_name)));
        }
        Ok(())
    }

    /// What kube-scheduler is configured with, in both forms, as a ConfigMap to copy from.
    fn configurations(&self) -> Result<String, Error> {
        let profile = format!("schedulerName: {}", self.scheduler_name);
        let fill = |text: &str| {
            text.replace("schedulerName: muster", &profile).replace(NAMESPACE, &self.place.namespace)
        };
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "muster-kube-scheduler", "namespace": self.place.namespace},
            "data": {
                "own-scheduler.yaml": fill(files::OWN_SCHEDULER),
                "second-scheduler.yaml": fill(files::SECOND_SCHEDULER),
            },
        });
        Ok(serde_json::to_string(&map)?)
    }
}

/// The definitions of Muster's kinds.
pub(crate) fn definitions() -> Result<Vec<Document>, Error> {
    Ok(manifest::parse(Path::new("deploy/crds"), &crds::text()?)?)
}

/// Documents as one YAML stream.
pub(crate) fn stream(documents: &[Document]) -> Result<String, Error> {
    use crate::output::{self, Format};
    documents.iter().try_fold(String::new(), |stream, document| {
        Ok(format!("{stream}---\n{}", output::document(&document.object, Format::Yaml)?))
    })
}

/// A namespace that is not Muster's alone is neither changed nor deleted.
fn refuse_shared(namespace: &str) -> Result<(), Error> {
    if namespace == "default" || namespace.starts_with("kube-") {
        return Err(Error::new(format!("the namespace {namespace} is not for Muster alone")).with_code(USAGE));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(form: Form) -> Values {
        Values {
            place: Place { namespace: "gangs".to_owned(), kubeconfig: None, context: None, home: None },
            image: "registry.example/muster:2".to_owned(),
            replicas: 3,
            form,
            scheduler_name: "gangs".to_owned(),
            dashboard: false,
        }
    }

    fn command(documents: &[Document], name: &str) -> Vec<String> {
        let found = documents.iter().find(|one| one.kind() == "Deployment" && one.name() == name).unwrap();
        let container = &found.object["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(
            (&container["image"], &found.object["spec"]["replicas"]),
            (&json!("registry.example/muster:2"), &json!(3))
        );
        serde_json::from_value(container["command"].clone()).unwrap()
    }

    #[test]
    fn the_values_are_everywhere() {
        for form in [Form::Binder, Form::Extender] {
            let documents = values(form).manifests().unwrap();
            let text = stream(&documents).unwrap();
            assert!(!text.contains(NAMESPACE) && !text.contains(IMAGE), "{text}");
            assert!(text.contains("namespace: gangs"));
        }
    }

    #[test]
    fn a_dashboard_is_served_only_where_it_is_asked_for() {
        let asked = |form, dashboard| Values { dashboard, ..values(form) }.manifests();
        let flag = "--dashboard-listen=127.0.0.1:9403".to_owned();
        let serves = |dashboard| {
            command(&asked(Form::Binder, dashboard).unwrap(), "muster-controller").contains(&flag)
        };
        assert!(serves(true) && !serves(false));
        assert!(asked(Form::Extender, true).is_err());
    }

    #[test]
    fn only_one_of_the_two_plans_and_may_bind() {
        let binder = values(Form::Binder).manifests().unwrap();
        assert!(command(&binder, "muster-controller").contains(&"--scheduler-names=gangs".to_owned()));
        assert!(!binder.iter().any(|document| document.name() == EXTENDER));
        let extender = values(Form::Extender).manifests().unwrap();
        assert!(command(&extender, "muster-controller").contains(&"--only=trainer".to_owned()));
        assert!(command(&extender, EXTENDER).contains(&"--extender-scheduler-names=gangs".to_owned()));
        assert!(
            command(&extender, EXTENDER).contains(&"--extender-service=gangs/muster-extender".to_owned())
        );
        assert!(!extender.iter().any(|document| document.name() == "muster-scheduler"));
    }

    #[test]
    fn the_trainer_may_look_after_every_kind() {
        let documents = values(Form::Binder).manifests().unwrap();
        let role =
            |document: &&Document| document.kind() == "ClusterRole" && document.name() == "muster-trainer";
        let rules = documents.iter().find(role).unwrap().object["rules"].as_array().unwrap().clone();
        let granted: Vec<&Value> =
            rules.iter().flat_map(|rule| rule["resources"].as_array().unwrap()).collect();
        for training in muster_trainer_core::KINDS {
            for part in ["", "/status", "/finalizers"] {
                let resource = json!(format!("{}{part}", training.kind.plural));
                assert!(granted.contains(&&resource), "{resource}");
            }
        }
    }

    #[test]
    fn one_role_alone_lets_commands_run_and_gives_that_on() {
        let documents = values(Form::Binder).manifests().unwrap();
        let grants = |document: &Document, resource: &str| {
            let rules = document.object["rules"].as_array().into_iter().flatten();
            let mut granted = rules.flat_map(|rule| rule["resources"].as_array().into_iter().flatten());
            granted.any(|granted| granted == resource)
        };
        for resource in ["pods/exec", "roles", "rolebindings", "serviceaccounts"] {
            let roles = documents.iter().filter(|document| grants(document, resource));
            assert_eq!(roles.map(Document::name).collect::<Vec<_>>(), ["muster-mpi-agent"], "{resource}");
        }
        let verbs = stream(&documents).unwrap();
        assert!(!verbs.contains("escalate") && !verbs.contains("- bind\n") && !verbs.contains("impersonate"));
    }

    #[test]
    fn both_configurations_of_kube_scheduler_are_complete() {
        let documents = values(Form::Extender).manifests().unwrap();
        let map = documents.iter().find(|document| document.kind() == "ConfigMap").unwrap();
        for form in ["own-scheduler.yaml", "second-scheduler.yaml"] {
            let text = map.object["data"][form].as_str().unwrap();
            let configuration: Value = serde_saphyr::from_str(text).unwrap();
            assert_eq!(configuration["kind"], "KubeSchedulerConfiguration");
            let extender = &configuration["extenders"][0];
            assert_eq!(extender["urlPrefix"], "https://muster-extender.gangs.svc");
            for (verb, path) in [
                ("filterVerb", "filter"),
                ("prioritizeVerb", "prioritize"),
                ("preemptVerb", "preempt"),
                ("bindVerb", "bind"),
            ] {
                assert_eq!(extender[verb], path);
            }
            assert_eq!(
                (&extender["nodeCacheCapable"], &extender["ignorable"]),
                (&json!(true), &json!(false))
            );
            let profiles = configuration["profiles"].as_array().unwrap();
            assert_eq!(profiles.last().unwrap()["schedulerName"], "gangs");
        }
    }

    #[test]
    fn names_that_would_break_a_manifest_are_refused() {
        assert!(label("a-1").is_ok() && label("-a").is_err() && label("a\nb").is_err() && label("").is_err());
        assert!(
            image("r.example:5000/a/b@sha256:00").is_ok() && image("a b").is_err() && image("a\"").is_err()
        );
    }
}
