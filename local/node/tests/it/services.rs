//! Services as pods see them: variables, addresses, names, and the API server itself.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use muster_node::Isolation;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, UdpSocket};

use crate::cluster::{Cluster, is_root};

/// The machine's address as pods reach it.
async fn gateway(cluster: &Cluster) -> IpAddr {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let node = nodes.get("node-0").await.unwrap();
    node.status.unwrap().addresses.unwrap()[0].address.parse().unwrap()
}

/// Answers every connection with one line; returns the port.
async fn greeter(at: IpAddr, line: &'static str) -> u16 {
    let listener = TcpListener::bind(SocketAddr::new(at, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(line.as_bytes()).await;
        }
    });
    port
}

/// Sends every datagram back; returns the port.
async fn echo(at: IpAddr) -> u16 {
    let socket = UdpSocket::bind(SocketAddr::new(at, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    });
    port
}

fn slice(name: &str, service: &str, ports: Value, endpoints: Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    })
}

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_reached_by_variable_address_and_name() {
    if !is_root("a_service_is_reached_by_variable_address_and_name") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    let machine = gateway(&cluster).await;
    let (one, two, back) =
        (greeter(machine, "one\n").await, greeter(machine, "two\n").await, echo(machine).await);
    let ports = json!([{"name": "http", "port": 80, "targetPort": "web"},
                       {"name": "talk", "port": 53, "protocol": "UDP"}]);
    cluster.create_object::<Service>(service("web", json!({"ports": ports}))).await;
    let ready = json!([{"addresses": [machine]}]);
    let ports = json!([{"name": "http", "port": one}, {"name": "talk", "port": back, "protocol": "UDP"}]);
    cluster.create_object::<EndpointSlice>(slice("web-1", "web", ports, ready.clone())).await;
    let ports = json!([{"name": "http", "port": two}]);
    cluster.create_object::<EndpointSlice>(slice("web-2", "web", ports, ready)).await;
    let script = r#"
        say() { bash -c 'exec 3<>/dev/tcp/$0/$1 && head -1 <&3' "$@"; }
        until say web 80 2> /dev/null | grep -q two; do sleep 0.02; done
        getent hosts web web.default web.default.svc web.default.svc.cluster.local | cut -d' ' -f1 | uniq
        for turn in 1 2 3 4; do say web 80; done | sort | uniq -c
        bash -c 'exec 3<>/dev/udp/web/53; echo ping >&3; head -1 <&3'
        getent hosts "$(getent hosts web | cut -d' ' -f1)" | awk '{print $2}'
        getent hosts kubernetes.default.svc | cut -d' ' -f1
        bash -c 'exec 3<>/dev/tcp/10.96.0.1/443'; echo "api $?"
    "#;
    cluster.create("client", script, json!({})).await;
    cluster.wait_phase("client", "Succeeded").await;
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), "default");
    let address = services.get("web").await.unwrap().spec.unwrap().cluster_ip.unwrap();
    let log = cluster.log("client", "").await;
    let words: Vec<&str> = log.split_whitespace().collect();
    let expected = [
        address.as_str(),
        "2",
        "one",
        "2",
        "two",
        "ping",
        "web.default.svc.cluster.local",
        "10.96.0.1",
        "api",
        "0",
    ];
    assert_eq!(words, expected, "{log}");
    // The variables are those of the services at the start: this pod starts after the service.
    cluster.create("reader", "env", json!({})).await;
    let links = json!({"enableServiceLinks": false});
    cluster.create("plain", "env", links).await;
    for name in ["reader", "plain"] {
        cluster.wait_phase(name, "Succeeded").await;
        let env = cluster.log(name, "").await;
        let has = |line: &str| env.lines().any(|other| other == line);
        assert!(has("KUBERNETES_SERVICE_HOST=10.96.0.1") && has("KUBERNETES_SERVICE_PORT=443"), "{env}");
        assert_eq!(has(&format!("WEB_SERVICE_HOST={address}")), name == "reader", "{env}");
        assert_eq!(has(&format!("WEB_PORT_80_TCP=tcp://{address}:80")), name == "reader", "{env}");
    }
    // Without endpoints nobody listens.
    let slices: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), "default");
    for name in ["web-1", "web-2"] {
        slices.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let script = "while bash -c 'exec 3<>/dev/tcp/web/80'; do sleep 0.02; done";
    cluster.create("late", script, json!({})).await;
    cluster.wait_phase("late", "Succeeded").await;
    assert!(cluster.log("late", "").await.contains("Connection refused"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_follow_the_endpoints_while_the_pod_runs() {
    if !is_root("names_follow_the_endpoints_while_the_pod_runs") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    let headless = json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]});
    cluster.create_object::<Service>(service("db", headless)).await;
    let script = r"
        until getent hosts db-0.db > /tmp/found; do sleep 0.02; done; cut -d' ' -f1 /tmp/found
        until getent ahostsv4 db.default.svc | grep -q 10.244.255.2; do sleep 0.02; done; echo grown
        while getent hosts db-0.db > /dev/null; do sleep 0.02; done; echo gone
        grep -c 'ndots:5' /etc/resolv.conf
        begin=$(date +%s%N); getent hosts nobody; echo $(( ($(date +%s%N) - begin) / 1000000000 ))
    ";
    cluster.create("seeker", script, json!({})).await;
    cluster.wait_phase("seeker", "Running").await;
    let endpoints = |list: &[(&str, Option<&str>)]| {
        let all = list.iter().map(|(address, name)| json!({"addresses": [address], "hostname": name}));
        all.collect::<Value>()
    };
    let ports = json!([{"name": "sql", "port": 5432}]);
    let first = endpoints(&[("10.244.255.1", Some("db-0"))]);
    cluster.create_object::<EndpointSlice>(slice("db-x", "db", ports, first)).await;
    assert_eq!(cluster.log("seeker", "follow=true&limitBytes=13").await, "10.244.255.1\n");
    let slices: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), "default");
    let change = async |list: &[(&str, Option<&str>)]| {
        let patch = Patch::Merge(json!({"endpoints": endpoints(list)}));
        slices.patch("db-x", &PatchParams::default(), &patch).await.unwrap();
    };
    change(&[("10.244.255.1", Some("db-0")), ("10.244.255.2", Some("db-1"))]).await;
    assert_eq!(cluster.log("seeker", "follow=true&limitBytes=19").await, "10.244.255.1\ngrown\n");
    change(&[("10.244.255.2", Some("db-1"))]).await;
    cluster.wait_phase("seeker", "Succeeded").await;
    assert_eq!(cluster.log("seeker", "").await, "10.244.255.1\ngrown\ngone\n1\n0\n");
    cluster.stop().await;
}

/// Not a test of its own: what a pod of the next test runs.
#[tokio::test]
async fn a_client_within_a_pod() {
    if std::env::var_os("MUSTER_WITHIN_A_POD").is_none() {
        return;
    }
    let config = match std::env::var_os("KUBECONFIG") {
        Some(_) => kube::Config::infer().await.unwrap(),
        None => kube::Config::incluster().unwrap(),
    };
    let client = kube::Client::try_from(config).unwrap();
    let review = k8s_openapi::api::authentication::v1::SelfSubjectReview::default();
    let review = Api::all(client.clone()).create(&kube::api::PostParams::default(), &review).await.unwrap();
    println!("I am {}", review.status.unwrap().user_info.unwrap().username.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_within_a_pod_finds_the_api_server() {
    let mut modes = vec![Isolation::Light];
    if is_root("a_client_within_a_pod_finds_the_api_server with full isolation") {
        modes.push(Isolation::Full);
    }
    for isolation in modes {
        let cluster = Cluster::start(isolation).await;
        let program = std::env::current_exe().unwrap();
        let script =
            format!("exec {} --exact services::a_client_within_a_pod --nocapture", program.display());
        let env = json!([{"name": "MUSTER_WITHIN_A_POD", "value": "1"}]);
        cluster.create("rust", &script, json!({"containers": [{"env": env}]})).await;
        cluster.wait_phase("rust", "Succeeded").await;
        let log = cluster.log("rust", "").await;
        assert!(log.contains("I am system:serviceaccount:default:default\n"), "{isolation:?}: {log}");
        match std::env::var("MUSTER_PYTHON") {
            Err(_) => eprintln!("skipped: the Python client within a pod needs MUSTER_PYTHON"),
            Ok(python) => {
                let load = if isolation == Isolation::Full { "load_incluster_config" } else { "load_config" };
                let script = format!(
                    "exec {python} -c 'from kubernetes import client, config; config.{load}(); \
                     print(client.AuthenticationV1Api().create_self_subject_review(client.V1SelfSubjectReview())\
                     .status.user_info.username)'"
                );
                cluster.create("python", &script, json!({})).await;
                cluster.wait_phase("python", "Succeeded").await;
                let log = cluster.log("python", "").await;
                assert_eq!(log, "system:serviceaccount:default:default\n", "{isolation:?}");
            }
        }
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn light_pods_reach_services_at_loopback_addresses() {
    let cluster = Cluster::start(Isolation::Light).await;
    let port = greeter(IpAddr::from([127, 77, 250, 1]), "light\n").await;
    cluster.create_object::<Service>(service("web", json!({"ports": [{"port": 8080}]}))).await;
    let ready = json!([{"addresses": ["127.77.250.1"]}]);
    cluster.create_object::<EndpointSlice>(slice("web-1", "web", json!([{"port": port}]), ready)).await;
    // A container that starts before the node has heard of the service lacks the variable; the next one has it.
    let script = "[ -n \"$WEB_SERVICE_HOST\" ] || exit 1; \
                  until bash -c 'exec 3<>/dev/tcp/$WEB_SERVICE_HOST/$WEB_SERVICE_PORT && head -1 <&3' 2>/dev/null; \
                  do sleep 0.02; done; echo $WEB_SERVICE_HOST";
    cluster.create("client", script, json!({"restartPolicy": "OnFailure"})).await;
    cluster.wait_phase("client", "Succeeded").await;
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), "default");
    let address = services.get("web").await.unwrap().spec.unwrap().cluster_ip.unwrap();
    let expected = format!("light\n{}\n", address.replacen("10.", "127.", 1));
    assert_eq!(cluster.log("client", "").await, expected);
    cluster.stop().await;
}
