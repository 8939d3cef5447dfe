//! The service `kubernetes`, as kube-apiserver keeps it.

use muster_apiserver::Options;
use serde_json::{Value, json};

use crate::harness::{Server, ask};

const SERVICE: &str = "/api/v1/namespaces/default/services/kubernetes";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints/kubernetes";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";

async fn get(server: &Server, path: &str) -> Value {
    let (status, answer) = ask(&server.handle.client(), "GET", path, "", "").await;
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test]
async fn the_server_has_a_service_that_follows_it_over_restarts() {
    let folder = tempfile::tempdir().expect("folder");
    let mut uid = None;
    for _ in 0..2 {
        let server = Server::with(Options::new(folder.path())).await;
        let number = server.handle.address().port();
        let service = get(&server, SERVICE).await;
        let expected = json!({
            "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None", "type": "ClusterIP",
            "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": number }],
        });
        assert_eq!(service["spec"], expected);
        let labels = json!({ "component": "apiserver", "provider": "kubernetes" });
        assert_eq!(service["metadata"]["labels"], labels);
        assert_eq!(*uid.get_or_insert(service["metadata"]["uid"].clone()), service["metadata"]["uid"]);

        let port = json!({ "name": "https", "port": number, "protocol": "TCP" });
        let endpoints = get(&server, ENDPOINTS).await;
        assert_eq!(endpoints["subsets"], json!([{ "addresses": [{ "ip": "127.0.0.1" }], "ports": [port] }]));
        let slice = get(&server, SLICE).await;
        assert_eq!(slice["metadata"]["labels"], json!({ "kubernetes.io/service-name": "kubernetes" }));
        let ready = json!([{ "addresses": ["127.0.0.1"], "conditions": { "ready": true } }]);
        assert_eq!((&slice["endpoints"], &slice["ports"]), (&ready, &json!([port])));
        server.stop().await;
    }
}

#[tokio::test]
async fn no_other_service_has_the_servers_name() {
    let server = Server::start().await;
    let client = server.handle.client();
    let body = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "kubernetes" },
        "spec": { "ports": [{ "port": 80 }] },
    });
    let path = "/api/v1/namespaces/default/services";
    let (status, answer) = ask(&client, "POST", path, "application/json", body.to_string()).await;
    assert_eq!(status, 409, "{answer}");
    server.stop().await;
}
