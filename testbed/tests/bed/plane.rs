//! The control plane by itself.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;
use testbed::plane::{Plane, PlaneOptions};
use testbed::poll;
use testbed::process::Signal;

#[tokio::test]
async fn plane_runs_pods_restarts_and_leaves_nothing() {
    let started = Instant::now();
    let plane = Plane::start(PlaneOptions::default()).await.unwrap();
    println!("plane ready after {:?}", started.elapsed());

    let namespace = plane.namespace("web").await.unwrap();
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": "fake-0", "annotations": { "kwok.x-k8s.io/node": "fake" } },
        "status": {
            "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "50" },
            "capacity": { "cpu": "4", "memory": "8Gi", "pods": "50" },
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    }))
    .unwrap();
    Api::<Node>::all(plane.client()).create(&PostParams::default(), &node).await.unwrap();
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": 3,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "web", "image": "web" }] },
            },
        },
    }))
    .unwrap();
    let deployments = Api::<Deployment>::namespaced(plane.client(), &namespace);
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
    let pods = Api::<Pod>::namespaced(plane.client(), &namespace);
    poll::until("three running pods", Duration::from_secs(20), || async {
        let running = pods.list(&ListParams::default().fields("status.phase=Running")).await?;
        ensure!(running.items.len() == 3, "{} run", running.items.len());
        Ok(())
    })
    .await
    .unwrap();
    // The fake kubelet renews the lease, without which the node would be lost after 50 s.
    poll::until("lease", Duration::from_secs(20), || async {
        plane.kubectl(&["get", "lease", "fake-0", "-n", "kube-node-lease"], "").await
    })
    .await
    .unwrap();

    let weak = plane.service_account_kubeconfig(&namespace, "default").await.unwrap();
    let denied = plane.kubectl(&["--kubeconfig", weak.to_str().unwrap(), "get", "nodes"], "").await;
    assert!(denied.unwrap_err().to_string().contains("forbidden"));

    plane.restart_apiserver(Signal::KILL).await.unwrap();
    pods.list(&ListParams::default()).await.unwrap();
    assert!(plane.with("kube-apiserver", |part| part.rss_bytes()).await.unwrap() > 50 << 20);

    let pids = plane.pids().await;
    assert_eq!(pids.len(), 5);
    let dir = plane.dir().to_owned();
    drop(plane);
    for (name, pid) in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{name} is left");
    }
    assert!(!dir.exists());
}

#[tokio::test]
async fn cert_manager_issues_a_certificate() {
    let options = PlaneOptions { cert_manager: true, ..PlaneOptions::default() };
    let plane = Plane::start(options).await.unwrap();
    let namespace = plane.namespace("certs").await.unwrap();
    let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "cert-manager.io/v1", "kind": "Issuer",
            "metadata": { "name": "self" }, "spec": { "selfSigned": {} },
        },
        {
            "apiVersion": "cert-manager.io/v1", "kind": "Certificate",
            "metadata": { "name": "leaf" },
            "spec": {
                "secretName": "leaf", "dnsNames": ["hook.svc"], "issuerRef": { "name": "self" },
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {
                "name": "hook",
                "annotations": { "cert-manager.io/inject-ca-from": format!("{namespace}/leaf") },
            },
            "webhooks": [{
                "name": "hook.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": { "service": { "name": "hook", "namespace": namespace } },
            }],
        },
    ] });
    plane.kubectl(&["apply", "-n", &namespace, "-f", "-"], &objects.to_string()).await.unwrap();
    poll::until("secret", Duration::from_secs(20), || async {
        let args = ["get", "secret", "leaf", "-n", &namespace, "-o", "jsonpath={.data.tls\\.crt}"];
        let certificate = plane.kubectl(&args, "").await?;
        (!certificate.is_empty()).then_some(()).context("no certificate yet")
    })
    .await
    .unwrap();
    poll::until("authority in the registration", Duration::from_secs(20), || async {
        let path = "jsonpath={.webhooks[0].clientConfig.caBundle}";
        let args = ["get", "validatingwebhookconfiguration", "hook", "-o", path];
        let bundle = plane.kubectl(&args, "").await?;
        (!bundle.is_empty()).then_some(()).context("no caBundle yet")
    })
    .await
    .unwrap();
}
