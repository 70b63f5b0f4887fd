//! The chart, installed by helm on the real control plane in each of its three ways to certificates,
//! with our processes in place of its containers under its own account.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use testbed::cloud::BootOptions;
use testbed::plane::Plane;
use testbed::poll;
use testbed::process::Process;

use super::audit::Audit;
use super::submit::{dry_pod, pod};
use super::world::{DEADLINE, account};
use testbed::install::{Chart, NAMESPACE, helm_args, system_node};

const PROGRAM: &str = env!("CARGO_BIN_EXE_harbinger");
const EXAMPLE: &str = include_str!("../../manifests/example.yaml");

#[tokio::test(flavor = "multi_thread")]
async fn with_cert_manager_pods_are_judged_and_get_nodes() -> Result<()> {
    let audit = Audit::new()?;
    let (plane, cloud) = futures::try_join!(Plane::start(audit.options(true)), account())?;
    system_node(&plane).await?;
    let started = Instant::now();
    // Waiting for the release shows that its pods are admitted into a restricted namespace.
    let chart = Chart::install(&plane, PROGRAM, &[], &["--wait", "--timeout=60s"]).await?;
    let installed = started.elapsed();
    let mut webhook = chart.run(&plane, "webhook", Vec::new()).await?;
    let mut provisioner = chart.run(&plane, "provisioner", cloud.env()).await?;
    let ready = started.elapsed();

    let options = BootOptions {
        removal: Some(Duration::from_secs(2)),
        ..BootOptions::after(Duration::from_secs(1), Duration::from_millis(500))
    };
    let boot = cloud.boot(plane.client(), options);
    let example = EXAMPLE
        .replace("CLUSTER_NAME", "c1")
        .replace("NODE_ROLE", &cloud.seed().role)
        .replace("consolidateAfter: 1m", "consolidateAfter: 2s");
    plane.kubectl(&["apply", "--validate=strict", "-f", "-"], &example).await?;
    let namespace = plane.namespace("shop").await?;
    judged(&plane.client(), &namespace).await?;
    let enforced = started.elapsed();

    let deployment = workload("web", 10);
    plane.kubectl(&["apply", "-n", &namespace, "-f", "-"], &deployment).await?;
    let asked = Instant::now();
    let args = ["rollout", "status", "-n", &namespace, "deployment/web", "--timeout=60s"];
    plane.kubectl(&args, "").await.with_context(|| {
        format!("{}\n{}\n{:?}", webhook.log_tail(10), provisioner.log_tail(40), boot.problems())
    })?;
    println!(
        "helm took {installed:?}; both processes were ready after {ready:?} and policies in force \
         after {enforced:?}; 10 pods ran {:?} after their Deployment was made",
        asked.elapsed()
    );
    let intents = chart
        .metric("webhook-metrics", "harbinger_admission_intents_total", &["result=\"queued\""])
        .await?;
    ensure!(intents >= 1.0, "the provisioner was told nothing");

    // Ending nodes needs rights of its own.
    plane.kubectl(&["delete", "-n", &namespace, "deployment/web"], "").await?;
    poll::until("nodes leave", DEADLINE, async || {
        let claims = plane.kubectl(&["get", "nodeclaims", "-o", "name"], "").await?;
        ensure!(claims.trim().is_empty(), "{claims}");
        Ok(())
    })
    .await
    .with_context(|| provisioner.log_tail(40))?;

    quiet(&mut webhook)?;
    quiet(&mut provisioner)?;
    audit.ensure_allowed()?;
    ensure!(boot.problems().is_empty(), "{:?}", boot.problems());
    drop((webhook, provisioner));
    chart.uninstall(&plane).await?;
    let registrations = ["get", "mutatingwebhookconfigurations,validatingwebhookconfigurations"];
    let left = plane.kubectl(&[&registrations[..], &["-o", "name"]].concat(), "").await?;
    ensure!(left.trim().is_empty(), "left: {left}");
    cloud.journal().ensure_sound()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_cert_manager_the_webhook_keeps_its_certificate_or_gets_one() -> Result<()> {
    let audit = Audit::new()?;
    let plane = Plane::start(audit.options(false)).await?;
    let client = plane.client();
    let namespace = plane.namespace("shop").await?;

    let chart = Chart::install(&plane, PROGRAM, &["certificates.mode=selfManaged"], &[]).await?;
    // Of two replicas that start together one makes the certificate.
    let mut other = chart.recipe(&plane, "webhook", Vec::new())?;
    other.name = "webhook-2".to_owned();
    other.log = plane.dir().join("webhook-2.log");
    for arg in &mut other.args {
        if let Some((flag, _)) = arg.split_once('=')
            && flag.ends_with("listen")
        {
            *arg = format!("{flag}=127.0.0.1:0");
        }
    }
    let mut other = Process::spawn(other)?;
    let mut webhook = chart.run(&plane, "webhook", Vec::new()).await?;
    plane.kubectl(&["apply", "-f", "-"], EXAMPLE).await?;
    judged(&client, &namespace).await.with_context(|| webhook.log_tail(40))?;
    let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
    let made = secrets.get("harbinger-webhook-tls").await?;
    let authority = made.data.as_ref().and_then(|data| data.get("ca.crt")).context("no ca.crt")?;
    bundles(&client, &authority.0).await?;
    poll::until("second replica", DEADLINE, async || {
        let log = other.log_tail(usize::MAX);
        ensure!(log.contains("webhook is listening"), "{log}");
        Ok(())
    })
    .await?;
    webhook.kill()?;
    webhook.start_again()?;
    chart.ready("webhook").await?;
    let kept = secrets.get("harbinger-webhook-tls").await?;
    ensure!(kept.data == made.data, "a restart made another certificate");
    judged(&client, &namespace).await.with_context(|| webhook.log_tail(40))?;
    // An upgrade leaves the authority where the webhook wrote it.
    let values = ["certificates.mode=selfManaged", "replicas=3"];
    let upgrade = helm_args("upgrade", &values);
    plane.helm(&upgrade.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    bundled(&client, &authority.0).await.context("after an upgrade")?;
    quiet(&mut webhook)?;
    quiet(&mut other)?;
    drop((webhook, other));
    chart.uninstall(&plane).await?;
    secrets.delete("harbinger-webhook-tls", &DeleteParams::default()).await?;

    // Bring your own: what `harbinger certs` makes.
    let folder = plane.dir().join("certs");
    let out = folder.to_str().context("not UTF-8")?;
    let made = std::process::Command::new(PROGRAM).args(["certs", "--out", out]).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let path = |name: &str| format!("{out}/{name}");
    let (cert, key) = (format!("--cert={}", path("tls.crt")), format!("--key={}", path("tls.key")));
    let secret = ["create", "secret", "tls", "harbinger-webhook-tls", "-n", NAMESPACE, &cert, &key];
    plane.kubectl(&secret, "").await?;
    let authority = std::fs::read(path("ca.crt"))?;
    let bundle = format!("certificates.caBundle={}", base64(&authority));
    let chart =
        Chart::install(&plane, PROGRAM, &["certificates.mode=bringYourOwn", &bundle], &[]).await?;
    let mut webhook = chart.run(&plane, "webhook", Vec::new()).await?;
    judged(&client, &namespace).await.with_context(|| webhook.log_tail(40))?;
    bundles(&client, &authority).await?;
    quiet(&mut webhook)?;
    audit.ensure_allowed()
}

fn bare(requests: &Value) -> Value {
    let container = json!({"name": "app", "image": "app", "resources": {"requests": requests}});
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare"},
        "spec": {"containers": [container]},
    })
}

/// Waits until the example's policy is in force, and looks at what it does.
async fn judged(client: &Client, namespace: &str) -> Result<()> {
    let refused = poll::until("refusal", DEADLINE, async || {
        let answer = dry_pod(client, namespace, &bare(&json!({}))).await?;
        ensure!(answer.code != 201, "the pod was taken");
        Ok(answer)
    })
    .await?;
    ensure!(refused.code == 422, "{refused:?}");
    for part in [
        "pods.validate.harbinger.sh",
        "container \"app\" has no memory request",
        "set spec.containers[0].resources.requests.memory, for example to 128Mi",
    ] {
        ensure!(refused.message().contains(part), "{part:?} is not in {:?}", refused.message());
    }
    let taken = pod(client, namespace, &bare(&json!({"memory": "64Mi"}))).await?;
    ensure!(taken.code == 201, "{taken:?}");
    ensure!(taken.request("containers", 0, "cpu") == Some("100m"), "{taken:?}");
    let set = |warning: &String| warning.contains("cpu request set to 100m");
    ensure!(taken.warnings.iter().any(set), "{:?}", taken.warnings);
    let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(client.clone(), namespace);
    pods.delete("bare", &DeleteParams::default().grace_period(0)).await?;
    Ok(())
}

/// Waits until both registrations trust this authority.
async fn bundles(client: &Client, authority: &[u8]) -> Result<()> {
    poll::until("authority in the registrations", DEADLINE, || bundled(client, authority)).await
}

/// Both registrations trust this authority and no other.
async fn bundled(client: &Client, authority: &[u8]) -> Result<()> {
    let mutating = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let validating = Api::<ValidatingWebhookConfiguration>::all(client.clone());
    let mutating = mutating.get("zz-harbinger").await?.webhooks.unwrap_or_default();
    let validating = validating.get("harbinger").await?.webhooks.unwrap_or_default();
    let configs = mutating.into_iter().map(|hook| hook.client_config);
    let configs = configs.chain(validating.into_iter().map(|hook| hook.client_config));
    let bundles: Vec<_> = configs.map(|config| config.ca_bundle.unwrap_or_default().0).collect();
    ensure!(bundles.len() == 3 && bundles.iter().all(|b| b == authority), "others are there");
    Ok(())
}

fn workload(name: &str, replicas: u32) -> String {
    let container = json!({
        "name": "app", "image": "app",
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}},
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [container]},
            },
        },
    })
    .to_string()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The process runs, and nothing that it logged is about rights, an error or a panic.
fn quiet(process: &mut Process) -> Result<()> {
    process.ensure_running()?;
    let log = process.log_tail(usize::MAX);
    for word in ["forbidden", "Forbidden", "\"ERROR\"", " ERROR ", "panicked"] {
        ensure!(!log.contains(word), "{} logged {word:?}:\n{log}", process.name());
    }
    Ok(())
}
