//! `harbinger doctor` on a real control plane: an installation that is well, and then is not.

use anyhow::{Context, Result, ensure};
use harbinger::certs;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::install::{self, Chart, NAMESPACE};
use testbed::plane::{Plane, PlaneOptions};
use testbed::poll;

use super::world::DEADLINE;

const PROGRAM: &str = env!("CARGO_BIN_EXE_harbinger");

/// Findings that are not fine, as `severity check`, and the whole output.
async fn doctor(plane: &Plane) -> Result<(Vec<String>, Value)> {
    let output = tokio::process::Command::new(PROGRAM)
        .args(["doctor", "-o", "json"])
        .env("KUBECONFIG", plane.kubeconfig())
        .output()
        .await?;
    let findings: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let list = findings.as_array().context("no list")?;
    let mut bad: Vec<String> = list
        .iter()
        .filter(|finding| finding["severity"] != "Fine")
        .map(|finding| format!("{} {}", word(finding, "severity"), word(finding, "check")))
        .collect();
    bad.dedup();
    let sick = bad.iter().any(|line| line.starts_with("Error"));
    ensure!(output.status.code() == Some(if sick { 4 } else { 0 }), "{:?}", output.status);
    Ok((bad, findings))
}

/// Waits until exactly this is wrong.
async fn finds(plane: &Plane, expected: &[&str]) -> Result<Value> {
    poll::until(&format!("{expected:?}"), DEADLINE, async || {
        let (bad, findings) = doctor(plane).await?;
        ensure!(bad == expected, "{findings:#}");
        Ok(findings)
    })
    .await
}

/// Changes an object of the cluster or of our namespace.
async fn change(plane: &Plane, what: &str, patch: &Value) -> Result<()> {
    let patch = patch.to_string();
    let args = ["patch", what, "-n", NAMESPACE, "--type=json", "-p", &patch];
    plane.kubectl(&args, "").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn outages_are_seen_before_they_come() -> Result<()> {
    let plane = Plane::start(PlaneOptions::default()).await?;
    install::system_node(&plane).await?;
    let chart = Chart::install(&plane, PROGRAM, &["certificates.mode=selfManaged"], &[]).await?;
    let mut webhook = chart.run(&plane, "webhook", Vec::new()).await?;
    plane.kubectl(&["apply", "-f", "-"], DNS).await?;
    finds(&plane, &[]).await.with_context(|| webhook.log_tail(20))?;

    // A scope that holds DNS and ourselves, with pods refused where we do not answer.
    let hook = "mutatingwebhookconfiguration/zz-harbinger";
    let scope = "/webhooks/0/namespaceSelector";
    let before = plane
        .kubectl(&["get", hook, "-o", "jsonpath={.webhooks[0].namespaceSelector}"], "")
        .await?;
    let wide = json!([
        {"op": "replace", "path": scope, "value": {}},
        {"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"},
    ]);
    change(&plane, hook, &wide).await?;
    let found = finds(&plane, &["Error scope"]).await?.to_string();
    for part in ["kube-system/coredns (DNS)", "harbinger-system/harbinger (our own)"] {
        ensure!(found.contains(part), "{part} is not in {found}");
    }
    let before: Value = serde_json::from_str(&before)?;
    let narrow = json!([
        {"op": "replace", "path": scope, "value": before},
        {"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"},
    ]);
    change(&plane, hook, &narrow).await?;
    finds(&plane, &[]).await?;

    // The registration dials a port that the Service does not have.
    let port = "/webhooks/0/clientConfig/service/port";
    change(&plane, hook, &json!([{"op": "replace", "path": port, "value": 9999}])).await?;
    finds(&plane, &["Error port"]).await?;
    change(&plane, hook, &json!([{"op": "replace", "path": port, "value": install::PORT}])).await?;

    // Full: no pod more, and an upgrade needs one.
    let quota = ["create", "quota", "full", "--hard=pods=2", "-n", NAMESPACE];
    plane.kubectl(&quota, "").await?;
    finds(&plane, &["Warning quota"]).await?;
    plane.kubectl(&["delete", "quota", "full", "-n", NAMESPACE], "").await?;
    finds(&plane, &[]).await?;

    // The process is gone; the rest looks as before. This is what only asking shows.
    webhook.kill()?;
    finds(&plane, &["Error answer"]).await?;

    // A certificate that ends tomorrow, of an authority that nobody trusts.
    let now = jiff::Timestamp::now();
    let mut request = certs::Request::new("harbinger", NAMESPACE, now);
    request.serving_lifetime = Duration::from_hours(24);
    let made = certs::issue(&request)?;
    let secrets = Api::<Secret>::namespaced(plane.client(), NAMESPACE);
    let patch = json!({"stringData": {"tls.crt": made.certificate, "tls.key": made.key}});
    secrets.patch("harbinger-webhook-tls", &PatchParams::default(), &Patch::Merge(patch)).await?;
    finds(&plane, &["Error authority", "Error answer", "Warning expiry"]).await?;

    chart.uninstall(&plane).await?;
    finds(&plane, &["Error registrations"]).await?;
    Ok(())
}

const DNS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  replicas: 0
  selector: {matchLabels: {k8s-app: kube-dns}}
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec: {containers: [{name: coredns, image: coredns, resources: {requests: {cpu: 100m, memory: 70Mi}}}]}
";
