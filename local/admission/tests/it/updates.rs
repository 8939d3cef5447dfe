//! Changes that a server refuses, and what it keeps.

use muster_admission::selectors::{FieldSelector, LabelSelector};
use muster_admission::{convert, defaults, prepare, printing, validate};
use serde_json::{Value, json};

fn created(api_version: &str, kind: &str, mut object: Value) -> Value {
    object["metadata"]["namespace"] = json!("n");
    object["metadata"]["uid"] = json!("0-1-2");
    defaults::apply(api_version, kind, &mut object);
    prepare::create(api_version, kind, &mut object);
    assert_eq!(validate::create(api_version, kind, &object), []);
    object
}

fn refusals(api_version: &str, kind: &str, old: &Value, mut new: Value) -> Vec<String> {
    prepare::update(api_version, kind, old, &mut new, None);
    validate::update(api_version, kind, old, &new, None).iter().map(ToString::to_string).collect()
}

fn pod() -> Value {
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "c", "image": "busybox"}],
        "schedulingGates": [{"name": "example.com/wait"}]
    }});
    created("v1", "Pod", pod)
}

#[test]
fn a_pod_changes_only_its_images_gates_and_tolerations() {
    let old = pod();
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = json!("busybox:2");
    new["spec"]["schedulingGates"] = json!([]);
    new["spec"]["tolerations"] = json!([{"key": "k", "operator": "Exists"}]);
    assert_eq!(refusals("v1", "Pod", &old, new.clone()), Vec::<String>::new());
    prepare::update("v1", "Pod", &old, &mut new, None);
    assert_eq!(new["metadata"]["generation"], 2);

    let mut gated = new.clone();
    gated["spec"]["schedulingGates"] = json!([{"name": "x"}]);
    assert_eq!(
        refusals("v1", "Pod", &new, gated),
        [
            "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'x'"
        ]
    );
    let mut restarted = new.clone();
    restarted["spec"]["restartPolicy"] = json!("Never");
    let errors = refusals("v1", "Pod", &new, restarted);
    assert_eq!(
        errors[0].lines().next(),
        Some(
            "spec: Forbidden: pod updates may not change fields other than \
             `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
             `spec.tolerations` (only additions to existing tolerations),\
             `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
        )
    );
}

/// A pod with a gate, a node selector and one term of required node affinity.
fn steered() -> Value {
    let required = json!({"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["h100"]}]}]});
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "c", "image": "busybox"}],
        "nodeSelector": {"zone": "a"},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}},
        "schedulingGates": [{"name": "example.com/wait"}]
    }});
    created("v1", "Pod", pod)
}

fn terms(pod: &mut Value) -> &mut Value {
    &mut pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
}

#[test]
fn a_gated_pod_is_steered_to_fewer_nodes() {
    let old = steered();
    let mut new = old.clone();
    new["spec"]["nodeSelector"]["kubernetes.io/hostname"] = json!("n");
    terms(&mut new)[0]["matchFields"] = json!([{"key": "metadata.name", "operator": "In", "values": ["n"]}]);
    new["spec"]["schedulingGates"] = json!([]);
    assert_eq!(
        refusals("v1", "Pod", &old, new.clone()),
        Vec::<String>::new(),
        "with the gate opened at once"
    );

    let mut later = new.clone();
    later["spec"]["nodeSelector"]["more"] = json!("x");
    assert_eq!(refusals("v1", "Pod", &new, later).len(), 1, "not once the gate is open");

    let unsteered = pod();
    let mut anywhere = unsteered.clone();
    anywhere["spec"]["affinity"] = steered()["spec"]["affinity"].clone();
    assert_eq!(refusals("v1", "Pod", &unsteered, anywhere), Vec::<String>::new());
}

#[test]
fn a_gated_pod_is_not_steered_elsewhere() {
    let old = steered();
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut new = old.clone();
        change(&mut new);
        let errors = refusals("v1", "Pod", &old, new);
        errors[0].split(": ").map(str::to_owned).collect::<Vec<_>>()
    };
    let of_terms =
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let words = refused(&|pod| pod["spec"]["nodeSelector"] = json!({"zone": "b"}));
    assert_eq!(words[0], "spec.nodeSelector");
    assert_eq!(
        words.last().unwrap(),
        "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
    );
    let words = refused(&|pod| terms(pod).as_array_mut().unwrap().push(json!({})));
    assert_eq!(words[0], of_terms);
    let words = refused(&|pod| terms(pod)[0]["matchExpressions"][0]["values"] = json!(["a100"]));
    assert_eq!(words[0], format!("{of_terms}[0]"));
    assert_eq!(words.last().unwrap(), "only additions are allowed (no mutations or deletions)");
    let anti = json!({"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]});
    let words = refused(&|pod| pod["spec"]["affinity"]["podAntiAffinity"] = anti.clone());
    assert_eq!(words[0], "spec", "affinity to pods stays as it is");
}

#[test]
fn status_and_spec_are_written_apart() {
    let old = pod();
    let mut new = old.clone();
    new["status"]["phase"] = json!("Running");
    new["spec"]["restartPolicy"] = json!("Never");
    let mut by_status = new.clone();
    prepare::update("v1", "Pod", &old, &mut by_status, Some("status"));
    assert_eq!((&by_status["status"]["phase"], &by_status["spec"]), (&json!("Running"), &old["spec"]));
    assert_eq!(by_status["metadata"]["generation"], 1);
    prepare::update("v1", "Pod", &old, &mut new, None);
    assert_eq!(new["status"], old["status"]);
}

#[test]
fn an_object_that_is_being_deleted_takes_no_new_finalizers() {
    let old = json!({"metadata": {"name": "a", "namespace": "n", "deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": ["demo.example/one"]}});
    let mut new = old.clone();
    new["metadata"]["finalizers"] = json!(["demo.example/one", "demo.example/more"]);
    assert_eq!(
        refusals("v1", "ConfigMap", &old, new),
        [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
          finalizers []string{\"demo.example/more\"}"
        ]
    );
}

#[test]
fn selectors_and_completions_are_kept() {
    let template =
        json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}});
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": template}});
    let old = created("apps/v1", "Deployment", deployment);
    let mut new = old.clone();
    new["spec"]["selector"]["matchLabels"]["app"] = json!("e");
    assert_eq!(
        refusals("apps/v1", "Deployment", &old, new),
        [
            "spec.template.metadata.labels: Invalid value: {\"app\":\"d\"}: `selector` does not match template `labels`",
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"e\"}}: field is immutable"
        ]
    );

    let job = json!({"metadata": {"name": "j"}, "spec": {"completions": 2, "parallelism": 2,
        "completionMode": "Indexed",
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    let old = created("batch/v1", "Job", job);
    let mut new = old.clone();
    new["spec"]["completions"] = json!(5);
    assert_eq!(
        refusals("batch/v1", "Job", &old, new.clone()),
        ["spec.completions: Invalid value: 5: can only be modified in tandem with spec.parallelism"]
    );
    new["spec"]["parallelism"] = json!(5);
    assert_eq!(refusals("batch/v1", "Job", &old, new), Vec::<String>::new());
}

#[test]
fn label_selectors_select_and_explain() {
    let labels = json!({"a": "b", "n": "7"});
    for (text, expected) in [
        ("", true),
        ("a", true),
        ("!a", false),
        ("a=b,n", true),
        ("a==b", true),
        ("a!=b", false),
        ("x!=b", true),
        ("a in (b,c)", true),
        ("a notin (b, c)", false),
        ("x notin (b)", true),
        ("n>6,n<8", true),
        ("a in ()", true),
    ] {
        match text.parse::<LabelSelector>() {
            Ok(selector) => assert_eq!(selector.matches(&labels), expected, "{text}"),
            Err(error) => assert_eq!(
                error.to_string(),
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set \
                 can't be empty"
            ),
        }
    }
    for (text, expected) in [
        ("!!", "unable to parse requirement: found '!', expected: identifier"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a,", "found '', expected: identifier after ','"),
        (
            "n>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be \
             an integer",
        ),
    ] {
        assert_eq!(text.parse::<LabelSelector>().unwrap_err().to_string(), expected);
    }
}

#[test]
fn field_selectors_know_their_kind() {
    let selector = FieldSelector::parse("spec.nodeName=n1,metadata.name!=x").unwrap();
    assert_eq!(selector.check("v1", "Pod", None), Ok(()));
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}});
    assert!(selector.matches("v1", "Pod", &pod));
    let refused = |text, api_version, kind, selectable: Option<&[String]>| {
        FieldSelector::parse(text).unwrap().check(api_version, kind, selectable).unwrap_err().to_string()
    };
    assert_eq!(refused("spec.nope=1", "v1", "Pod", None), "field label not supported: spec.nope");
    assert_eq!(
        refused("spec.size=1", "demo.example/v1", "Widget", Some(&[])),
        "field label not supported: spec.size"
    );
    assert_eq!(
        refused("data.a=1", "v1", "ConfigMap", None),
        "\"data.a\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    );
    assert_eq!(
        FieldSelector::parse("nonsense").unwrap_err().to_string(),
        "invalid selector: 'nonsense'; can't understand 'nonsense'"
    );
}

#[test]
fn pods_print_one_word_for_their_state() {
    let now = "2026-01-01T01:00:00Z".parse().unwrap();
    let ended =
        json!({"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "2026-01-01T00:55:00Z"}});
    for (metadata, status, expected) in [
        (json!({}), json!({"phase": "Pending"}), json!(["0/1", "Pending", "0"])),
        (
            json!({}),
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
            json!(["0/1", "Init:0/1", "0"]),
        ),
        (
            json!({}),
            json!({"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": 2, "lastState": ended,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            json!(["0/1", "CrashLoopBackOff", "2 (5m ago)"]),
        ),
        (
            json!({}),
            json!({"phase": "Succeeded", "containerStatuses": [{"name": "c",
                "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
            json!(["0/1", "Completed", "0"]),
        ),
        (
            json!({"deletionTimestamp": "2026-01-01T00:59:00Z"}),
            json!({"phase": "Running", "containerStatuses": [{"name": "c", "ready": true, "state": {"running": {}}}]}),
            json!(["1/1", "Terminating", "0"]),
        ),
    ] {
        let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]});
        let pod = json!({"metadata": metadata, "spec": spec, "status": status});
        let row = printing::row("v1", "Pod", &pod, now);
        assert_eq!(json!(row[1..4]), expected);
    }
}

#[test]
fn custom_columns_follow_their_paths() {
    let declared = [
        json!({"name": "Size", "type": "integer", "jsonPath": ".spec.size"}),
        json!({"name": "Last", "type": "string", "jsonPath": ".status.conditions[-1:].type"}),
        json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}),
    ];
    let columns = printing::CustomColumns::compile(&declared).unwrap();
    let object =
        json!({"metadata": {"name": "w", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"size": 3}});
    let now = "2026-01-03T02:00:00Z".parse().unwrap();
    assert_eq!(json!(columns.row(&object, now)), json!(["w", 3, null, "2d2h"]));
    assert_eq!(columns.definitions().len(), 4);
}

#[test]
fn events_have_two_faces() {
    let mut event = json!({"kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": {"name": "e"},
        "regarding": {"kind": "Pod", "name": "p"}, "note": "n", "reportingController": "c"});
    let original = event.clone();
    convert::event("v1", &mut event);
    assert_eq!((&event["message"], &event["involvedObject"]["name"]), (&json!("n"), &json!("p")));
    convert::event("events.k8s.io/v1", &mut event);
    assert_eq!(event, original);
}
