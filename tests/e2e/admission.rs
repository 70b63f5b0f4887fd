//! Admission by the real API server: what a pod's author meets.

use anyhow::{Context, Result, ensure};
use http::Method;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use testbed::poll;

use super::door::{Door, app, deployment};
use super::submit::{Answer, dry_pod, pod, submit};
use super::world::DEADLINE;

fn has(answer: &Answer, warnings: &[&str]) -> Result<()> {
    ensure!(answer.warnings.len() == warnings.len(), "{:?}", answer.warnings);
    for part in warnings {
        let found = answer.warnings.iter().any(|warning| warning.contains(part));
        ensure!(found, "{part:?} is not in {:?}", answer.warnings);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_refused_warned_about_and_cured() -> Result<()> {
    let mut door = Door::open().await?;
    let client = door.client.clone();
    let (prod, test) = (door.prod.clone(), door.test.clone());

    // Deny: the message says what to write, where, and why.
    let answer = pod(&client, &prod, &app(&json!({}), &json!({"requests": {"cpu": "1"}}))).await?;
    ensure!(answer.code == 422 && answer.object["reason"] == "Invalid", "{answer:?}");
    for part in [
        "admission webhook \"pods.validate.harbinger.sh\" denied the request",
        "container \"app\" has no memory request",
        "set spec.containers[0].resources.requests.memory, for example to 128Mi (policy prod)",
        &format!("see https://wiki.example.com/requests ({prod})"),
    ] {
        ensure!(answer.message().contains(part), "{part:?} is not in {:?}", answer.message());
    }
    let mut skipped = app(&json!({}), &json!({}));
    skipped["metadata"]["annotations"] = json!({"harbinger.sh/request-policy": "skip"});
    ensure!(dry_pod(&client, &prod, &skipped).await?.code == 201, "the opt-out was not honoured");

    // Warn: the pod stays as it is.
    let answer = pod(&client, &test, &app(&json!({}), &json!({"requests": {"cpu": "0"}}))).await?;
    ensure!(answer.code == 201, "{answer:?}");
    has(&answer, &["has a zero cpu request", "has no memory request"])?;
    ensure!(answer.request("containers", 0, "memory").is_none(), "{answer:?}");

    cured(&client, &prod).await?;
    not_asked(&door).await?;
    owners(&door).await?;
    dry_runs(&mut door).await?;
    door.webhook.ensure_running()
}

/// Default: for containers, zeros, sidecars and selected init containers; not beside pod-level
/// resources and limits.
async fn cured(client: &Client, prod: &str) -> Result<()> {
    let labels = json!({"size": "small"});
    let mut mixed = app(&labels, &json!({"requests": {"cpu": "0"}}));
    mixed["spec"]["initContainers"] = json!([
        {"name": "fetch", "image": "i"},
        {"name": "unpack", "image": "i"},
        {"name": "proxy", "image": "i", "restartPolicy": "Always", "resources": {"requests": {"memory": "1Gi"}}},
    ]);
    let answer = pod(client, prod, &mixed).await?;
    ensure!(answer.code == 201, "{answer:?}");
    let expected = [
        ("containers", 0, "cpu", Some("50m")),
        ("containers", 0, "memory", Some("64Mi")),
        ("initContainers", 0, "cpu", None),
        ("initContainers", 0, "memory", None),
        ("initContainers", 1, "cpu", Some("10m")),
        ("initContainers", 2, "cpu", Some("50m")),
        ("initContainers", 2, "memory", Some("1Gi")),
    ];
    for (list, index, resource, amount) in expected {
        let found = answer.request(list, index, resource);
        ensure!(found == amount, "{list}[{index}] {resource}: {found:?}, not {amount:?}");
    }
    has(
        &answer,
        &[
            "container \"app\": cpu request set to 50m (policy small)",
            "container \"app\": memory request set to 64Mi (policy small)",
            "init container \"unpack\": cpu request set to 10m (policy init)",
            "sidecar \"proxy\": cpu request set to 50m (policy small)",
        ],
    )?;
    let record = &answer.object["metadata"]["annotations"]["harbinger.sh/default-requests"];
    let record: Value = serde_json::from_str(record.as_str().context("no record")?)?;
    ensure!(record["set"]["app"] == json!({"cpu": "50m", "memory": "64Mi"}), "{record}");

    // The pod as a whole asks for cpu, so only memory is missing.
    let mut whole = app(&labels, &json!({}));
    whole["metadata"]["name"] = "whole".into();
    whole["spec"]["resources"] = json!({"requests": {"cpu": "1"}});
    let answer = pod(client, prod, &whole).await?;
    ensure!(answer.code == 201, "{answer:?}");
    ensure!(answer.request("containers", 0, "cpu").is_none(), "{answer:?}");
    ensure!(answer.request("containers", 0, "memory") == Some("64Mi"), "{answer:?}");

    // The API server itself copies limits.
    let mut limited = app(&labels, &json!({"limits": {"cpu": "2", "memory": "1Gi"}}));
    limited["metadata"]["name"] = "limited".into();
    let answer = pod(client, prod, &limited).await?;
    ensure!(answer.request("containers", 0, "cpu") == Some("2"), "{answer:?}");
    has(&answer, &[])
}

/// Pods that lack nothing, and namespaces of the system, cost no call.
async fn not_asked(door: &Door) -> Result<()> {
    let pods = ["endpoint=\"mutate\""];
    let before = door.reviews(&pods).await?;
    let amounts = json!({"requests": {"cpu": "1", "memory": "1Gi"}});
    let mut full = app(&json!({}), &amounts);
    let mut whole = app(&json!({}), &json!({}));
    whole["spec"]["resources"] = amounts;
    for pod in [&mut full, &mut whole] {
        pod["metadata"]["name"] = "full".into();
        let answer = dry_pod(&door.client, &door.prod, pod).await?;
        ensure!(answer.code == 201, "{answer:?}");
        has(&answer, &[])?;
    }
    let bare = app(&json!({"size": "small"}), &json!({}));
    let answer = dry_pod(&door.client, "kube-system", &bare).await;
    // Its account may not be there yet, which is told before admission by webhooks.
    ensure!(answer?.request("containers", 0, "cpu").is_none(), "kube-system was touched");
    let after = door.reviews(&pods).await?;
    ensure!((after - before).abs() < 0.5, "{} calls", after - before);
    Ok(())
}

/// By the kind of the owner; and a Deployment is let in with a warning that its pods will not be.
async fn owners(door: &Door) -> Result<()> {
    let spec = json!({"containers": [{"name": "c", "image": "c"}], "restartPolicy": "Never"});
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "sum"},
        "spec": {"template": {"spec": spec}},
    });
    let answer = door.workload(&door.prod, &job, "").await?;
    ensure!(answer.code == 201, "{answer:?}");
    has(
        &answer,
        &[
            "pods get 200m (policy jobs)",
            "pods get 256Mi (policy jobs)",
            "pods: quality of service becomes Burstable, was BestEffort",
        ],
    )?;
    let pods = Api::<Pod>::namespaced(door.client.clone(), &door.prod);
    let of_job = ListParams::default().labels("job-name=sum");
    poll::until("the Job's pod", DEADLINE, async || {
        let list = pods.list(&of_job).await?;
        let pod = serde_json::to_value(list.items.first().context("no pod")?)?;
        let set = &pod["spec"]["containers"][0]["resources"]["requests"];
        ensure!(*set == json!({"cpu": "200m", "memory": "256Mi"}), "{set}");
        Ok(())
    })
    .await?;

    let answer = door.workload(&door.prod, &deployment("web", &json!({}), &json!({})), "").await?;
    ensure!(answer.code == 201, "{answer:?}");
    has(
        &answer,
        &[
            "no cpu request; pods are refused, set e.g. 100m (policy prod)",
            "no memory request; pods are refused, set e.g. 128Mi (policy prod)",
            "see https://wiki.example.com/requests",
        ],
    )?;
    let events = Api::<Event>::namespaced(door.client.clone(), &door.prod);
    let failed = ListParams::default().fields("reason=FailedCreate");
    poll::until("the ReplicaSet's complaint", DEADLINE, async || {
        let list = events.list(&failed).await?;
        let event = list.items.first().and_then(|event| event.message.clone());
        let message = event.context("no event")?;
        ensure!(message.contains("container \"app\" has no cpu request"), "{message}");
        Ok(())
    })
    .await
}

/// A dry run is answered as the real request is, and nobody else hears of it.
async fn dry_runs(door: &mut Door) -> Result<()> {
    // Those that came before this.
    while door.intents.intents.try_recv().is_ok() {}
    let (prod, test) = (door.prod.clone(), door.test.clone());
    let mut small = app(&json!({"size": "small"}), &json!({}));
    small["metadata"]["name"] = "dry".into();
    let labels = ["endpoint=\"mutate\"", "dry_run=\"true\"", "outcome=\"patched\""];
    let before = door.reviews(&labels).await?;
    let dry = dry_pod(&door.client, &prod, &small).await?;
    ensure!(door.reviews(&labels).await? >= before + 1.0, "the dry run did not reach us");
    let web = |name: &str| deployment(name, &json!({"size": "small"}), &json!({}));
    let advised = door.workload(&test, &web("dry"), "?dryRun=All").await?;
    let qos = "pods: quality of service becomes Burstable, was BestEffort";
    has(&advised, &["pods get 50m (policy small)", "pods get 64Mi (policy small)", qos])?;

    small["metadata"]["name"] = "real".into();
    let real = pod(&door.client, &prod, &small).await?;
    ensure!(dry.code == 201 && real.code == 201, "{dry:?} {real:?}");
    ensure!(
        dry.object["spec"]["containers"][0]["resources"]
            == real.object["spec"]["containers"][0]["resources"]
    );
    ensure!(dry.warnings == real.warnings, "{:?} {:?}", dry.warnings, real.warnings);

    // A bare pod that goes in without a request is announced; one that has them all is not sent to us.
    let mut bare = app(&json!({}), &json!({"requests": {"cpu": "1"}}));
    bare["metadata"]["name"] = "dry".into();
    let dry = dry_pod(&door.client, &test, &bare).await?;
    bare["metadata"]["name"] = "real".into();
    let real = pod(&door.client, &test, &bare).await?;
    ensure!(dry.code == 201 && real.code == 201, "{dry:?} {real:?}");
    let told = door.intent().await?;
    ensure!((&*told.kind, &*told.name) == ("Pod", "real"), "{told:?}");

    let answer = door.workload(&test, &web("real"), "").await?;
    ensure!(answer.warnings == advised.warnings, "{:?}", answer.warnings);
    let told = door.intent().await?;
    ensure!((&*told.kind, &*told.name, told.desired) == ("Deployment", "real", 3), "{told:?}");
    let template = serde_json::to_value(&told.template)?;
    let requests = &template["spec"]["containers"][0]["resources"]["requests"];
    ensure!(*requests == json!({"cpu": "50m", "memory": "67108864"}), "{requests}");

    let path = format!("/apis/apps/v1/namespaces/{test}/deployments/real/scale");
    let scale = json!({"spec": {"replicas": 7}});
    let dry = submit(&door.client, Method::PATCH, &format!("{path}?dryRun=All"), &scale).await?;
    ensure!(dry.code == 200, "{dry:?}");
    let scale = json!({"spec": {"replicas": 9}});
    submit(&door.client, Method::PATCH, &path, &scale).await?;
    // The ReplicaSet's own intents come between.
    loop {
        let told = door.intent().await?;
        ensure!(told.desired != 7, "a dry run was told: {told:?}");
        if told.kind == "Deployment" && told.desired == 9 {
            return Ok(());
        }
    }
}
