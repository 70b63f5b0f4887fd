//! The webhook while the API server is away, and when it is back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::Api;
use serde_json::{Value, json};
use testbed::install::PORT;
use testbed::poll;
use testbed::process::Signal;

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

#[tokio::test(flavor = "multi_thread")]
async fn judgement_goes_on_while_the_api_server_is_away() -> Result<()> {
    let mut door = Door::open().await?;
    let hooks = Api::<ValidatingWebhookConfiguration>::all(door.client.clone());
    let hooks = hooks.get("harbinger").await?.webhooks.unwrap_or_default();
    let bundle = hooks.first().and_then(|hook| hook.client_config.ca_bundle.clone());
    let direct = Direct::new(format!("{}:{PORT}", door.chart.ip), &bundle.context("no bundle")?.0)?;
    let bare = app(&json!({}), &json!({}));
    let review = |uid: String| {
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": uid, "operation": "CREATE", "namespace": door.prod,
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "object": bare,
            },
        })
    };

    door.plane.stop("kube-apiserver", Signal::KILL).await?;
    for number in 0..REVIEWS {
        let body = review(number.to_string()).to_string();
        let (code, text) = direct.post("/validate/pods", "application/json", body).await?;
        let answer: Value = serde_json::from_str(&text)?;
        ensure!(code == StatusCode::OK && answer["response"]["allowed"] == false, "{code} {text}");
        tokio::time::sleep(PAUSE).await;
    }
    door.chart.ready("webhook").await?;

    door.plane.with("kube-apiserver", testbed::process::Process::start_again).await?;
    door.plane.wait_ready().await?;
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
