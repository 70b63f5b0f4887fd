//! Reviews that an API server does not send, and the time without one: the webhook answers each, and
//! goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::Api;
use serde_json::{Value, json};
use testbed::install::PORT;
use testbed::poll;
use testbed::process::{Process, Signal};

use super::direct::Direct;
use super::door::{Door, app};
use super::submit::dry_pod;
use super::world::DEADLINE;

/// Reviews that are judged without an API server, and the pause between two.
const REVIEWS: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);

const LET: &str = "
apiVersion: harbinger.sh/v1alpha1
kind: RequestPolicy
metadata: {name: let}
spec:
  priority: 1000
  rules: [{resource: cpu, action: 'Off'}, {resource: memory, action: 'Off'}]
";

const V1: &str = "admission.k8s.io/v1";
const JSON: &str = "application/json";

/// A review of a pod that is to be refused.
fn review(door: &Door, version: &str, uid: &str) -> Value {
    json!({
        "apiVersion": version, "kind": "AdmissionReview",
        "request": {
            "uid": uid, "operation": "CREATE", "namespace": door.prod,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": app(&json!({}), &json!({})),
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_are_answered_broken_or_without_an_api_server() -> Result<()> {
    let mut door = Door::open().await?;
    let hooks = Api::<ValidatingWebhookConfiguration>::all(door.client.clone());
    let hooks = hooks.get("harbinger").await?.webhooks.unwrap_or_default();
    let bundle = hooks.first().and_then(|hook| hook.client_config.ca_bundle.clone());
    let direct = Direct::new(format!("{}:{PORT}", door.chart.ip), &bundle.context("no bundle")?.0)?;
    broken(&mut door, &direct).await?;
    alone(&mut door, &direct).await
}

async fn broken(door: &mut Door, direct: &Direct) -> Result<()> {
    let huge = vec![b' '; (8 << 20) + 1];
    let beta = review(door, "admission.k8s.io/v1beta1", "u1").to_string();
    let mut typed = review(door, V1, "u2");
    typed["request"]["namespace"] = 7.into();
    let mut no_pod = review(door, V1, "u3");
    no_pod["request"]["object"] = json!({"spec": {"containers": 7}});
    let cases: [(&str, &str, Vec<u8>, StatusCode, &str); 8] = [
        ("too large", JSON, huge, StatusCode::PAYLOAD_TOO_LARGE, "larger than 8388608 bytes"),
        (
            "malformed",
            JSON,
            b"{\"kind\":".to_vec(),
            StatusCode::BAD_REQUEST,
            "not an AdmissionReview",
        ),
        ("empty", JSON, Vec::new(), StatusCode::BAD_REQUEST, "not an AdmissionReview"),
        (
            "unknown version",
            JSON,
            beta.into(),
            StatusCode::BAD_REQUEST,
            "send AdmissionReview of admission.k8s.io/v1",
        ),
        (
            "no request",
            JSON,
            json!({"apiVersion": V1, "kind": "AdmissionReview"}).to_string().into(),
            StatusCode::BAD_REQUEST,
            "no request",
        ),
        (
            "another type",
            "text/plain",
            b"{}".to_vec(),
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "application/json",
        ),
        ("wrong field", JSON, typed.to_string().into(), StatusCode::OK, "requests not checked"),
        (
            "no pod",
            JSON,
            no_pod.to_string().into(),
            StatusCode::OK,
            "requests not checked: unreadable Pod",
        ),
    ];
    for (name, content_type, body, status, part) in cases {
        let answer = direct.post("/validate/pods?timeout=2s", content_type, body).await;
        let (code, text) = answer.context(name)?;
        ensure!(code == status && text.contains(part), "{name}: {code} {text}");
        if code == StatusCode::OK {
            let answer: Value = serde_json::from_str(&text)?;
            ensure!(answer["response"]["allowed"] == true, "{name}: {text}");
        }
    }
    // A whole one after all that.
    let whole = review(door, V1, "u4").to_string();
    let (code, text) = direct.post("/validate/pods", JSON, whole).await?;
    let answer: Value = serde_json::from_str(&text)?;
    ensure!(code == StatusCode::OK && answer["response"]["allowed"] == false, "{code} {text}");
    ensure!(answer["response"]["uid"] == "u4", "{text}");
    for (outcome, count) in
        [("too_large", 1.0), ("malformed", 5.0), ("content_type", 1.0), ("unsupported", 1.0)]
    {
        let found =
            door.reviews(&["endpoint=\"validate\"", &format!("outcome=\"{outcome}\"")]).await?;
        ensure!((found - count).abs() < 0.5, "{outcome}: {found}");
    }
    door.webhook.ensure_running()?;
    let log = door.webhook.log_tail(usize::MAX);
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}

/// An API server that goes away leaves the webhook judging by what it knows.
async fn alone(door: &mut Door, direct: &Direct) -> Result<()> {
    door.plane.stop("kube-apiserver", Signal::KILL).await?;
    for number in 0..REVIEWS {
        let body = review(door, V1, &number.to_string()).to_string();
        let (code, text) = direct.post("/validate/pods", JSON, body).await?;
        let answer: Value = serde_json::from_str(&text)?;
        ensure!(code == StatusCode::OK && answer["response"]["allowed"] == false, "{code} {text}");
        tokio::time::sleep(PAUSE).await;
    }
    door.chart.ready("webhook").await?;

    door.plane.with("kube-apiserver", Process::start_again).await?;
    door.plane.wait_ready().await?;
    let bare = app(&json!({}), &json!({}));
    let refused = dry_pod(&door.client, &door.prod, &bare).await?;
    ensure!(refused.code == 422, "{refused:?}");
    // What changes from now on is heard of.
    door.plane.kubectl(&["apply", "-f", "-"], LET).await?;
    poll::until("the new policy", DEADLINE, async || {
        let answer = dry_pod(&door.client, &door.prod, &bare).await?;
        ensure!(answer.code == 201, "{answer:?}");
        Ok(())
    })
    .await
    .with_context(|| door.webhook.log_tail(20))?;
    door.webhook.ensure_running()
}
