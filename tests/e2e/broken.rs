//! Reviews that an API server does not send: the webhook answers each, and goes on.

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::Api;
use serde_json::{Value, json};
use testbed::install::PORT;
use testbed::process::Signal;

use super::direct::Direct;
use super::door::{Door, app};

#[tokio::test(flavor = "multi_thread")]
async fn broken_reviews_are_answered() -> Result<()> {
    let mut door = Door::open().await?;
    let hooks = Api::<ValidatingWebhookConfiguration>::all(door.client.clone());
    let hooks = hooks.get("harbinger").await?.webhooks.unwrap_or_default();
    let bundle = hooks.first().and_then(|hook| hook.client_config.ca_bundle.clone());
    let direct = Direct::new(format!("{}:{PORT}", door.chart.ip), &bundle.context("no bundle")?.0)?;
    let review = |version: &str, uid: &str| {
        json!({
            "apiVersion": version, "kind": "AdmissionReview",
            "request": {
                "uid": uid, "operation": "CREATE", "namespace": door.prod,
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "object": app(&json!({}), &json!({})),
            },
        })
    };
    let v1 = "admission.k8s.io/v1";
    let huge = vec![b' '; (8 << 20) + 1];
    let beta = review("admission.k8s.io/v1beta1", "u1").to_string();
    let mut typed = review(v1, "u2");
    typed["request"]["namespace"] = 7.into();
    let mut no_pod = review(v1, "u3");
    no_pod["request"]["object"] = json!({"spec": {"containers": 7}});
    let json_type = "application/json";
    let cases: [(&str, &str, Vec<u8>, StatusCode, &str); 8] = [
        ("too large", json_type, huge, StatusCode::PAYLOAD_TOO_LARGE, "larger than 8388608 bytes"),
        (
            "malformed",
            json_type,
            b"{\"kind\":".to_vec(),
            StatusCode::BAD_REQUEST,
            "not an AdmissionReview",
        ),
        ("empty", json_type, Vec::new(), StatusCode::BAD_REQUEST, "not an AdmissionReview"),
        (
            "unknown version",
            json_type,
            beta.into(),
            StatusCode::BAD_REQUEST,
            "send AdmissionReview of admission.k8s.io/v1",
        ),
        (
            "no request",
            json_type,
            json!({"apiVersion": v1, "kind": "AdmissionReview"}).to_string().into(),
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
        (
            "wrong field",
            json_type,
            typed.to_string().into(),
            StatusCode::OK,
            "requests not checked",
        ),
        (
            "no pod",
            json_type,
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
    let (code, text) =
        direct.post("/validate/pods", json_type, review(v1, "u4").to_string()).await?;
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
    // An API server that goes away leaves the webhook judging by what it knows.
    door.plane.stop("kube-apiserver", Signal::KILL).await?;
    let (code, text) =
        direct.post("/validate/pods", json_type, review(v1, "u5").to_string()).await?;
    ensure!(code == StatusCode::OK && text.contains("\"allowed\":false"), "{code} {text}");
    door.chart.ready("webhook").await
}
