//! What callers cannot take: memory, time, places of others.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, PostParams};
use kube::config::AuthInfo;
use kube::{Client, Config};
use muster_scheduler_controller::dashboard::{Limits, Options, StartError};
use muster_scheduler_controller::extender::CertificateFiles;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::{Dashboard, account, busy_cluster, create, http, member};

#[tokio::test]
async fn what_is_asked_wrongly_is_told_and_changes_nothing() {
    let cluster = busy_cluster().await;
    let dashboard = Dashboard::start(&cluster, |options| Options {
        limits: Limits { body: 2_000, ..Limits::default() },
        ..options
    })
    .await;
    let (stop, scheduler) = dashboard.scheduler(&cluster);
    dashboard.get_until("/v1/nodes", |answer| answer["nodes"].as_array().unwrap().len() == 2).await;
    let admin = dashboard.admin.as_str();
    let large = "x".repeat(2_001);
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n7d1\r\n{large}\r\n0\r\n");
    let mut told = Vec::new();
    for (method, target, more, body) in [
        ("GET", "/v1/gangs/default/nobody", "", ""),
        ("GET", "/v1/gangs/nowhere/pod%20nobody", "", ""),
        ("GET", "/", "", ""),
        ("GET", "/v1/gangs?phase=sleeping", "", ""),
        ("GET", "/v1/gangs?continue=first", "", ""),
        ("DELETE", "/v1/gangs", "", ""),
        ("OPTIONS", "/v1/gangs", "Origin: https://elsewhere.example\r\n", ""),
        ("GET", "/v1/whatif", "", ""),
        ("POST", "/v1/whatif", "", ""),
        ("POST", "/v1/whatif?addNodes=2", "", ""),
        ("POST", "/v1/whatif", "", "{\"kind\":"),
        ("POST", "/v1/whatif", "", large.as_str()),
        ("POST", "/v1/whatif", chunked.as_str(), ""),
    ] {
        let answer = dashboard.send(method, target, Some(admin), more, body).await;
        let (status, detail) = answer.problem();
        let allow = answer.header("allow").map(|allow| format!(" (Allow: {allow})")).unwrap_or_default();
        told.push(format!("{method} {target}: {status} {detail}{allow}"));
    }
    insta::assert_snapshot!(told.join("\n"));
    let none = dashboard.get("/v1/gangs", admin).await.json();
    assert_eq!(none, json!({"gangs": []}));
    stop.cancel();
    scheduler.await.unwrap();
    dashboard.stop().await;
    cluster.stop().await;
}

#[tokio::test]
async fn what_ifs_are_few_at_a_time_and_slow_senders_are_none_of_them() {
    let cluster = busy_cluster().await;
    let patience = Duration::from_secs(1);
    let dashboard = Dashboard::start(&cluster, |options| Options {
        limits: Limits { what_ifs: 1, patience, ..Limits::default() },
        ..options
    })
    .await;
    let (stop, scheduler) = dashboard.scheduler(&cluster);
    dashboard.get_until("/v1/gangs", |answer| answer["gangs"].is_array()).await;
    let admin = dashboard.admin.as_str();
    let body = member("new", 0, 1, json!({})).to_string();
    // Somebody sends half a body and waits.
    let head = http::head("POST", "/v1/whatif", Some(admin), "Content-Length: 100\r\n");
    let slow = http::open(dashboard.address, &format!("{head}half")).await;
    assert_eq!(dashboard.what_if("default", admin, &body).await.status, 200);
    // One is worked out, so another one is sent away, and everything else is answered.
    create(
        Api::<k8s_openapi::api::core::v1::Namespace>::all(cluster.client.clone()),
        json!({"metadata": {"name": "slow"}}),
    )
    .await;
    let (first, ()) = tokio::join!(dashboard.what_if("slow", admin, &body), async {
        dashboard.suppose.asked.acquire().await.unwrap().forget();
        let second = dashboard.what_if("default", admin, &body).await;
        assert_eq!(second.problem().0, 429);
        assert_eq!(second.header("retry-after"), Some("1"));
        assert_eq!(dashboard.get("/v1/nodes", admin).await.status, 200);
        dashboard.suppose.let_go.add_permits(1);
    });
    assert_eq!((first.status, &first.json()["gangs"][0]["namespace"]), (200, &json!("slow")));
    assert_eq!(dashboard.what_if("default", admin, &body).await.status, 200);
    assert_eq!(
        http::answer(slow).await.problem(),
        (408, "the body did not arrive within 1 seconds".to_owned())
    );
    stop.cancel();
    scheduler.await.unwrap();
    dashboard.stop().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_replica_that_does_not_lead_says_who_does_and_to_nobody_else() {
    let cluster = busy_cluster().await;
    let lease = json!({"metadata": {"name": "muster-scheduler"}, "spec": {"holderIdentity": "replica-b"}});
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "default");
    leases.create(&PostParams::default(), &serde_json::from_value(lease).unwrap()).await.unwrap();
    let dashboard = Dashboard::start(&cluster, |options| Options {
        lease: Some(("default".to_owned(), "muster-scheduler".to_owned())),
        ..options
    })
    .await;
    let answer = dashboard.get("/v1/gangs", &dashboard.admin).await;
    assert_eq!(answer.problem(), (503, "this replica does not lead; replica-b does".to_owned()));
    assert_eq!((answer.header("retry-after"), &answer.json()["leader"]), (Some("2"), &json!("replica-b")));
    let token = account(&cluster.client, "default", "reader").await;
    assert_eq!(dashboard.get("/v1/gangs", &token).await.status, 403);
    assert_eq!(dashboard.get("/v1/gangs", "wrong").await.status, 401);
    // It leads, and then it leads no more.
    let (stop, scheduler) = dashboard.scheduler(&cluster);
    dashboard.get_until("/v1/gangs", |answer| answer["gangs"].is_array()).await;
    stop.cancel();
    scheduler.await.unwrap();
    assert_eq!(dashboard.get("/v1/gangs", &dashboard.admin).await.status, 503);
    dashboard.stop().await;
    cluster.stop().await;
}

#[tokio::test]
async fn beyond_the_loopback_it_speaks_tls_or_not_at_all() {
    let cluster = busy_cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let files = CertificateFiles {
        certificate: folder.path().join("tls.crt"),
        key: folder.path().join("tls.key"),
        client_authority: None,
    };
    std::fs::write(&files.certificate, &certificate).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    let dashboard =
        Dashboard::start(&cluster, |options| Options { certificates: Some(files), ..options }).await;
    let (stop, scheduler) = dashboard.scheduler(&cluster);
    let mut config = Config::new(format!("https://{}", dashboard.address).parse().unwrap());
    config.root_cert = Some(vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap().to_vec()]);
    config.auth_info = AuthInfo { token: Some(dashboard.admin.clone().into()), ..AuthInfo::default() };
    let client = Client::try_from(config).unwrap();
    let request = ::http::Request::get("/openapi.json").body(Vec::new()).unwrap();
    let description: Value = client.request(request).await.unwrap();
    assert!(description["paths"]["/v1/gangs"]["get"].is_object());
    let open = Options::new(
        cluster.client.clone(),
        cluster.client.clone(),
        std::sync::Arc::new(super::OnePod::new()),
    );
    let refused = Options { listen: ([0, 0, 0, 0], 0).into(), ..open }.build().await.err();
    assert!(matches!(refused, Some(StartError::NeedsTls(_))));
    stop.cancel();
    scheduler.await.unwrap();
    dashboard.stop().await;
    cluster.stop().await;
}
