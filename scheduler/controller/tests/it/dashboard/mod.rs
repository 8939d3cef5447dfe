//! The dashboard's answers, with tokens of service accounts that the API server itself gives and judges.

mod bounds;
mod http;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, DeleteParams, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use muster_machinery::CancellationToken;
use muster_scheduler_api::Queue;
use muster_scheduler_controller::dashboard::{Limits, Options, Refusal, Suppose, Supposition};
use muster_scheduler_controller::picture::{self, Supposed};
use muster_scheduler_controller::planner::Planner;
use muster_scheduler_controller::service;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::interval;

use self::http::Answer;
use crate::{Cluster, DEADLINE, node_of, until};

/// Takes one pod as JSON; one in the namespace `slow` only when it is let.
#[derive(Clone)]
struct OnePod {
    asked: Arc<Semaphore>,
    let_go: Arc<Semaphore>,
}

impl OnePod {
    fn new() -> Self {
        Self { asked: Arc::new(Semaphore::new(0)), let_go: Arc::new(Semaphore::new(0)) }
    }
}

impl Suppose for OnePod {
    fn suppose(
        &self,
        supposition: Supposition,
        mut planner: Planner,
        caller: Client,
    ) -> BoxFuture<'static, Result<Supposed, Refusal>> {
        let this = self.clone();
        async move {
            if supposition.namespace == "slow" {
                this.asked.add_permits(1);
                this.let_go.acquire().await.unwrap().forget();
            }
            let refused = |message: String| Refusal { answered: None, message, hint: None };
            let text = supposition.manifest.unwrap_or_default();
            let pod: Pod = serde_json::from_str(&text).map_err(|error| refused(error.to_string()))?;
            // Whoever asks must be allowed to create it.
            let dry = PostParams { dry_run: true, ..PostParams::default() };
            let pods: Api<Pod> = Api::namespaced(caller, &supposition.namespace);
            let pod = pods.create(&dry, &pod).await.map_err(|error| match error {
                kube::Error::Api(status) => {
                    Refusal { answered: Some(status.code), ..refused(status.message.clone()) }
                }
                other => refused(other.to_string()),
            })?;
            planner.pod_seen(&pod);
            let gang = planner.gang_name(&supposition.namespace, pod.metadata.name.as_deref().unwrap());
            let gangs = gang.map(|gang| BTreeSet::from([(supposition.namespace, gang)]));
            Ok(Supposed { planner, gangs })
        }
        .boxed()
    }
}

/// A dashboard of a cluster.
struct Dashboard {
    address: SocketAddr,
    suppose: OnePod,
    admin: String,
    handle: muster_scheduler_controller::dashboard::Handle,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Dashboard {
    async fn start(cluster: &Cluster, change: impl FnOnce(Options) -> Options) -> Self {
        let kubeconfig = Kubeconfig::read_from(&cluster.kubeconfig).unwrap();
        let mut config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.auth_info = AuthInfo::default();
        let anonymous = Client::try_from(config).unwrap();
        let suppose = OnePod::new();
        let options = Options::new(cluster.client.clone(), anonymous, Arc::new(suppose.clone()));
        let (service, handle) = change(options).build().await.unwrap();
        let address = service.url().rsplit_once('/').unwrap().1.parse().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(service.run(stop.clone()));
        let text = std::fs::read_to_string(&cluster.kubeconfig).unwrap();
        let admin = text.lines().find_map(|line| line.trim().strip_prefix("token: ")).unwrap().to_owned();
        Self { address, suppose, admin, handle, stop, task }
    }

    /// The binder, which shows itself to the dashboard.
    fn scheduler(&self, cluster: &Cluster) -> (CancellationToken, JoinHandle<()>) {
        let options = service::Options::only_scheduler(cluster.client.clone());
        let service = service::Options { dashboard: Some(self.handle.clone()), ..options }.build();
        let stop = CancellationToken::new();
        let token = stop.clone();
        (stop, tokio::spawn(async move { service.run(token).await }))
    }

    async fn send(&self, method: &str, target: &str, token: Option<&str>, more: &str, body: &str) -> Answer {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = http::head(method, target, token, &format!("{length}{more}"));
        http::answer(http::open(self.address, &format!("{head}{body}")).await).await
    }

    async fn get(&self, target: &str, token: &str) -> Answer {
        self.send("GET", target, Some(token), "", "").await
    }

    async fn what_if(&self, namespace: &str, token: &str, body: &str) -> Answer {
        self.send("POST", &format!("/v1/whatif?namespace={namespace}"), Some(token), "", body).await
    }

    /// Asks as the administrator until the answer is as wanted.
    async fn get_until(&self, target: &str, wanted: impl Fn(&Value) -> bool) -> Answer {
        let mut last = None;
        let asking = async {
            let mut every = interval(std::time::Duration::from_millis(50));
            loop {
                every.tick().await;
                let answer = self.get(target, &self.admin).await;
                if answer.status == 200 && wanted(&answer.json()) {
                    return answer;
                }
                last = Some(answer);
            }
        };
        let answered = tokio::time::timeout(DEADLINE, asking).await.ok();
        answered.unwrap_or_else(|| panic!("{target}: {last:?}"))
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }
}

async fn create<K>(api: Api<K>, object: Value)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

/// A token of a new service account, which may create and list pods in its namespace and nothing more.
async fn account(client: &Client, namespace: &str, name: &str) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    create(accounts.clone(), json!({"metadata": {"name": name}})).await;
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "create"]}]);
    create(
        Api::<Role>::namespaced(client.clone(), namespace),
        json!({"metadata": {"name": name}, "rules": rules}),
    )
    .await;
    let binding = json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    });
    create(Api::<RoleBinding>::namespaced(client.clone(), namespace), binding).await;
    let (parameters, request) = (PostParams::default(), TokenRequest::default());
    let created = accounts.create_token_request(name, &parameters, &request).await;
    created.unwrap().status.unwrap().token.unwrap()
}

fn member(gang: &str, index: u32, of: u32, more: Value) -> Value {
    let mut annotations = json!({"muster.dev/gang": gang, "muster.dev/gang-min-available": of.to_string(),
        "muster.dev/rank": index.to_string()});
    annotations.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{gang}-{index}"), "annotations": annotations, "labels": {"muster.dev/queue": "research"}},
        "spec": {"schedulerName": "muster", "containers": [
            {"name": "c", "image": "host", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]},
    })
}

/// Two nodes in two racks; in `default` a gang that runs for an hour and one that waits for it.
async fn busy_cluster() -> Cluster {
    let cluster = Cluster::start(&[("node-0", 2), ("node-1", 2)]).await;
    let nodes = Api::<k8s_openapi::api::core::v1::Node>::all(cluster.client.clone());
    for (node, rack) in [("node-0", "rack-a"), ("node-1", "rack-b")] {
        let labels = json!({"metadata": {"labels": {"muster.dev/rack": rack}}});
        let patch = kube::api::Patch::Merge(&labels);
        nodes.patch(node, &kube::api::PatchParams::default(), &patch).await.unwrap();
    }
    create(Api::<Namespace>::all(cluster.client.clone()), json!({"metadata": {"name": "other"}})).await;
    let quotas = json!([{"resource": "nvidia.com/gpu", "nominal": "8"}]);
    let queue = json!({"metadata": {"name": "research"}, "spec": {"quotas": quotas}});
    create(Api::<Queue>::all(cluster.client.clone()), queue).await;
    cluster
}

async fn submit(cluster: &Cluster, namespace: &str, gang: &str, pods: u32, more: Value) {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    for index in 0..pods {
        create(api.clone(), member(gang, index, pods, more.clone())).await;
    }
}

#[tokio::test]
async fn what_is_shown_is_what_the_planner_says_and_what_explain_prints() {
    let cluster = busy_cluster().await;
    let dashboard = Dashboard::start(&cluster, |options| options).await;
    let (stop, scheduler) = dashboard.scheduler(&cluster);
    submit(&cluster, "default", "first", 3, json!({"muster.dev/time-limit": "1h"})).await;
    for index in 0..3 {
        until(&cluster.pods(), &format!("first-{index}"), |pod| node_of(pod).is_some()).await;
    }
    submit(&cluster, "default", "second", 2, json!({})).await;
    let waits = |report: &Value| report["reason"].is_string() && report["pods"] == 2;
    dashboard.get_until("/v1/gangs/default/second", waits).await;
    // Another scheduler takes over: what it knows is what everybody can read from the cluster.
    stop.cancel();
    scheduler.await.unwrap();
    let (stop, scheduler) = dashboard.scheduler(&cluster);
    let shown = dashboard.get_until("/v1/gangs/default/second", waits).await;
    let mut planner = picture::read(&cluster.client).await.unwrap();
    planner.catch_up(Timestamp::now());
    let explained = planner.report("default", "second", Timestamp::now());
    assert_eq!(shown.json(), serde_json::to_value(&explained).unwrap());
    let mut answers = Vec::new();
    for target in [
        "/v1/gangs?namespace=default",
        "/v1/gangs?phase=running&limit=1",
        "/v1/gangs?limit=1",
        "/v1/gangs?limit=1&continue=default/first",
        "/v1/gangs?queue=nobody",
        "/v1/gangs/default/second",
        "/v1/queues",
        "/v1/nodes",
        "/v1/topology",
    ] {
        let answer = dashboard.get(target, &dashboard.admin).await;
        answers.push(format!("GET {target}\n{} {:#}\n", answer.status, answer.json()));
    }
    let body = member("new", 0, 1, json!({})).to_string();
    let answer = dashboard.what_if("default", &dashboard.admin, &body).await;
    answers.push(format!("POST /v1/whatif\n{} {:#}\n", answer.status, answer.json()));
    insta::with_settings!({filters => vec![(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "<time>")]}, {
        insta::assert_snapshot!(answers.join("\n"));
    });
    let first = dashboard.get("/v1/nodes", &dashboard.admin).await;
    let tag = format!("If-None-Match: {}\r\n", first.header("etag").unwrap());
    let again = dashboard.send("GET", "/v1/nodes", Some(&dashboard.admin), &tag, "").await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    assert!(first.header("access-control-allow-origin").is_none() && first.header("last-modified").is_some());
    let head = dashboard.send("HEAD", "/v1/nodes", Some(&dashboard.admin), "", "").await;
    assert_eq!((head.status, head.body.as_str(), head.header("etag")), (200, "", first.header("etag")));
    stop.cancel();
    scheduler.await.unwrap();
    dashboard.stop().await;
    cluster.stop().await;
}

#[tokio::test]
async fn whoever_may_list_the_pods_of_a_namespace_reads_its_gangs_and_no_others() {
    let cluster = busy_cluster().await;
    let rights = std::time::Duration::from_millis(200);
    let dashboard = Dashboard::start(&cluster, |options| Options {
        limits: Limits { rights, ..Limits::default() },
        ..options
    })
    .await;
    let (stop, scheduler) = dashboard.scheduler(&cluster);
    submit(&cluster, "other", "theirs", 4, json!({"muster.dev/time-limit": "1h"})).await;
    let runs = |report: &Value| report["places"].as_array().is_some_and(|places| places.len() == 2);
    dashboard.get_until("/v1/gangs/other/theirs", runs).await;
    submit(&cluster, "default", "ours", 1, json!({})).await;
    let waits = |report: &Value| report["reason"].is_string();
    let all = dashboard.get_until("/v1/gangs/default/ours", waits).await;
    assert_eq!(all.json()["alternatives"][0]["gang"], "other/theirs");
    let token = account(&cluster.client, "default", "reader").await;
    let mut own = dashboard.get("/v1/gangs?namespace=default", &token).await.json();
    let own = own["gangs"][0].take();
    assert_eq!((&own["gang"], &own["reason"]), (&json!("ours"), &all.json()["reason"]));
    assert_eq!(own["alternatives"][0]["gang"], "another gang");
    assert_eq!(dashboard.get("/v1/gangs/default/ours", &token).await.json(), own);
    assert_eq!(dashboard.get("/openapi.json", &token).await.json()["openapi"], "3.1.0");
    let body = member("new", 0, 1, json!({})).to_string();
    let supposed = dashboard.what_if("default", &token, &body).await.json();
    assert_eq!(
        (&supposed["gangs"][0]["gang"], &supposed["gangs"][0]["placeInLine"]),
        (&json!("new"), &json!(2))
    );
    let mut refused = Vec::new();
    for target in [
        "/v1/gangs",
        "/v1/gangs?namespace=other",
        "/v1/gangs/other/theirs",
        "/v1/gangs/other/nobody",
        "/v1/queues",
        "/v1/nodes",
        "/v1/topology",
    ] {
        let (status, detail) = dashboard.get(target, &token).await.problem();
        refused.push(format!("GET {target}: {status} {detail}"));
    }
    let (status, detail) = dashboard.what_if("other", &token, &body).await.problem();
    refused.push(format!("POST /v1/whatif?namespace=other: {status} {detail}"));
    let more = "/v1/whatif?addNodes=2&like=node-0";
    let (status, detail) = dashboard.send("POST", more, Some(&token), "", "").await.problem();
    refused.push(format!("POST {more}: {status} {detail}"));
    for (name, token) in [("no token", None), ("a wrong token", Some("wrong"))] {
        let answer = dashboard.send("GET", "/v1/gangs?namespace=default", token, "", "").await;
        let (status, detail) = answer.problem();
        refused.push(format!("{name}: {status} {detail} ({})", answer.header("www-authenticate").unwrap()));
    }
    insta::assert_snapshot!(refused.join("\n"));
    // A right that is taken away ends with the moment for which it was known.
    let bindings: Api<RoleBinding> = Api::namespaced(cluster.client.clone(), "default");
    bindings.delete("reader", &DeleteParams::default()).await.unwrap();
    let lost = async {
        while dashboard.get("/v1/gangs/default/ours", &token).await.status != 403 {
            tokio::time::sleep(rights / 4).await;
        }
    };
    tokio::time::timeout(DEADLINE, lost).await.unwrap();
    stop.cancel();
    scheduler.await.unwrap();
    dashboard.stop().await;
    cluster.stop().await;
}
