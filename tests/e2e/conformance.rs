//! Every kind of container, every state of its requests, under LimitRanges and quotas, in every mode,
//! through the real API server: the pod that results, what its author is told, and that a pod which is
//! accepted without us is accepted with us.
//!
//! What is expected is written in [`TABLE`] by hand. What happens without us is not expected but
//! measured: each pod is sent to a namespace that has the same bounds and is excluded, too.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;
use serde_json::{Value, json};
use testbed::install::Chart;
use testbed::plane::{Plane, PlaneOptions};
use testbed::poll;

use super::submit::{Answer, dry_pod};
use super::world::DEADLINE;

const PROGRAM: &str = env!("CARGO_BIN_EXE_harbinger");

/// Requests of the subject under `Default` with 100m and 128Mi, as cpu/memory: `-` is absent, `x` a
/// pod that is refused. In `storage` environments ephemeral-storage is third, under 1Gi; in `whole` the pod
/// asks for 256Mi of memory as a whole. The columns are: the pod's only container; beside another that asks for 50m
/// and 64Mi with a limit of 64Mi of memory, as main container, sidecar and init container.
const TABLE: &str = "
environment   state    only        main        sidecar     init
none          missing  100m/128Mi  100m/128Mi  100m/128Mi  100m/128Mi
none          zero     100m/128Mi  100m/128Mi  100m/128Mi  100m/128Mi
none          partial  60m/128Mi   60m/128Mi   60m/128Mi   60m/128Mi
none          limits   80m/80Mi    80m/80Mi    80m/80Mi    80m/80Mi
none          capped   100m/80Mi   100m/80Mi   100m/80Mi   100m/80Mi
max           missing  100m/100Mi  100m/100Mi  100m/100Mi  100m/100Mi
max           zero     100m/100Mi  100m/100Mi  100m/100Mi  100m/100Mi
max           partial  60m/100Mi   60m/100Mi   60m/100Mi   60m/100Mi
max           limits   80m/80Mi    80m/80Mi    80m/80Mi    80m/80Mi
max           capped   100m/80Mi   100m/80Mi   100m/80Mi   100m/80Mi
default       missing  70m/96Mi    70m/96Mi    70m/96Mi    70m/96Mi
default       zero     100m/96Mi   100m/96Mi   100m/96Mi   100m/96Mi
default       partial  60m/96Mi    60m/96Mi    60m/96Mi    60m/96Mi
default       limits   80m/80Mi    80m/80Mi    80m/80Mi    80m/80Mi
default       capped   100m/80Mi   100m/80Mi   100m/80Mi   100m/80Mi
min           missing  50m/48Mi    50m/48Mi    50m/48Mi    50m/48Mi
min           zero     100m/128Mi  100m/128Mi  100m/128Mi  100m/128Mi
min           partial  60m/48Mi    60m/48Mi    60m/48Mi    60m/48Mi
min           limits   80m/80Mi    80m/80Mi    80m/80Mi    80m/80Mi
min           capped   100m/80Mi   100m/80Mi   100m/80Mi   100m/80Mi
pod           missing  x           100m/96Mi   100m/96Mi   100m/128Mi
pod           zero     x           100m/96Mi   100m/96Mi   100m/128Mi
pod           partial  x           60m/96Mi    60m/96Mi    60m/128Mi
pod           limits   80m/80Mi    80m/80Mi    80m/80Mi    80m/80Mi
pod           capped   100m/80Mi   100m/80Mi   100m/80Mi   100m/80Mi
roomy         missing  100m/128Mi  100m/128Mi  100m/128Mi  100m/128Mi
roomy         zero     100m/128Mi  100m/128Mi  100m/128Mi  100m/128Mi
roomy         partial  60m/128Mi   60m/128Mi   60m/128Mi   60m/128Mi
roomy         limits   80m/80Mi    80m/80Mi    80m/80Mi    80m/80Mi
roomy         capped   100m/80Mi   100m/80Mi   100m/80Mi   100m/80Mi
tight         missing  100m/128Mi  100m/64Mi   100m/64Mi   100m/128Mi
tight         zero     100m/128Mi  100m/64Mi   100m/64Mi   100m/128Mi
tight         partial  60m/128Mi   60m/64Mi    60m/64Mi    60m/128Mi
tight         limits   80m/80Mi    x           x           80m/80Mi
tight         capped   100m/80Mi   100m/64Mi   100m/64Mi   100m/80Mi
scarce        missing  100m/80Mi   x           x           100m/80Mi
scarce        zero     100m/80Mi   100m/0      100m/0      100m/80Mi
scarce        partial  60m/80Mi    x           x           60m/80Mi
scarce        limits   80m/80Mi    x           x           80m/80Mi
scarce        capped   100m/80Mi   100m/0      100m/0      100m/80Mi
besteffort    missing  -/-         x           x           x
besteffort    zero     0/0         x           x           x
besteffort    partial  x           x           x           x
besteffort    limits   x           x           x           x
besteffort    capped   x           x           x           x
ratio         missing  x           x           x           x
ratio         zero     x           x           x           x
ratio         partial  x           x           x           x
ratio         limits   80m/80Mi    80m/80Mi    80m/80Mi    80m/80Mi
ratio         capped   100m/80Mi   100m/80Mi   100m/80Mi   100m/80Mi
ratio         wide     100m/256Mi  100m/256Mi  100m/256Mi  100m/256Mi
whole         missing  100m/-      100m/-      100m/-      100m/-
whole         zero     100m/0      100m/0      100m/0      100m/0
whole         partial  60m/-       60m/-       60m/-       60m/-
whole         limits   80m/80Mi    80m/80Mi    80m/80Mi    80m/80Mi
whole         capped   100m/0      100m/0      100m/0      100m/0
storage       missing  100m/128Mi/1Gi    100m/128Mi/1Gi    100m/128Mi/1Gi    100m/128Mi/1Gi
storage       zero     100m/128Mi/1Gi    100m/128Mi/1Gi    100m/128Mi/1Gi    100m/128Mi/1Gi
storage       limits   80m/80Mi/1Gi      80m/80Mi/1Gi      80m/80Mi/1Gi      80m/80Mi/1Gi
storage-max   missing  100m/128Mi/512Mi  100m/128Mi/512Mi  100m/128Mi/512Mi  100m/128Mi/512Mi
storage-max   limits   80m/80Mi/512Mi    80m/80Mi/512Mi    80m/80Mi/512Mi    80m/80Mi/512Mi
storage-quota missing  100m/128Mi/768Mi  100m/128Mi/512Mi  100m/128Mi/512Mi  100m/128Mi/768Mi
storage-quota zero     100m/128Mi/768Mi  100m/128Mi/512Mi  100m/128Mi/512Mi  100m/128Mi/768Mi
storage-quota limits   80m/80Mi/768Mi    80m/80Mi/512Mi    80m/80Mi/512Mi    80m/80Mi/768Mi
";

const STORAGE: &str = "ephemeral-storage";

const MODES: [&str; 6] = ["Off", "Shadow", "Warn", "Default", "DefaultAndVerify", "Deny"];

/// What a namespace of an environment has.
fn bounds(environment: &str) -> Value {
    let range = |item: Value| json!({"kind": "LimitRange", "spec": {"limits": [item]}});
    let quota = |spec: Value| json!({"kind": "ResourceQuota", "spec": spec});
    match environment {
        "max" => range(json!({"type": "Container", "max": {"memory": "100Mi"}})),
        "default" => range(json!({
            "type": "Container", "defaultRequest": {"cpu": "70m"}, "default": {"memory": "96Mi"},
        })),
        "min" => range(json!({"type": "Container", "min": {"cpu": "50m", "memory": "48Mi"}})),
        "pod" => range(json!({"type": "Pod", "max": {"memory": "160Mi"}})),
        "roomy" => quota(json!({"hard": {"requests.cpu": "10", "requests.memory": "10Gi"}})),
        "tight" => quota(json!({"hard": {"requests.memory": "128Mi"}})),
        "scarce" => quota(json!({"hard": {"requests.memory": "80Mi"}})),
        "ratio" => range(json!({"type": "Container", "maxLimitRequestRatio": {"memory": "2"}})),
        "storage-max" => range(json!({"type": "Container", "max": {STORAGE: "512Mi"}})),
        "storage-quota" => quota(json!({"hard": {"requests.ephemeral-storage": "768Mi"}})),
        "besteffort" => quota(json!({"hard": {"pods": "0"}, "scopes": ["NotBestEffort"]})),
        _ => Value::Null,
    }
}

fn resources(state: &str) -> Value {
    match state {
        "missing" => json!({}),
        "zero" => json!({"requests": {"cpu": "0", "memory": "0"}}),
        "partial" => json!({"requests": {"cpu": "60m"}}),
        "limits" => json!({"limits": {"cpu": "80m", "memory": "80Mi"}}),
        "wide" => json!({"requests": {"cpu": "0", "memory": "0"}, "limits": {"memory": "512Mi"}}),
        _ => json!({"requests": {"cpu": "0", "memory": "0"}, "limits": {"memory": "80Mi"}}),
    }
}

fn pod(environment: &str, kind: &str, state: &str) -> Value {
    let mut subject = json!({"name": "subject", "image": "i", "resources": resources(state)});
    let mut other = json!({"name": "other", "image": "i", "resources": {
        "requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "64Mi"},
    }});
    if has_storage(environment) {
        other["resources"]["requests"][STORAGE] = "256Mi".into();
    }
    let mut spec = match kind {
        "only" => json!({"containers": [subject]}),
        "main" => json!({"containers": [other, subject]}),
        kind => {
            if kind == "sidecar" {
                subject["restartPolicy"] = "Always".into();
            }
            json!({"containers": [other], "initContainers": [subject]})
        }
    };
    if environment == "whole" {
        spec["resources"] = json!({"requests": {"memory": "256Mi"}});
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
}

/// Whether the policies speak about ephemeral-storage.
fn has_storage(environment: &str) -> bool {
    environment.starts_with("storage")
}

/// Requests that are absent or zero once the API server and the LimitRange have filled in theirs.
fn lacking(case: &Case, mode: &str) -> usize {
    let Case { environment, state, kind, .. } = case;
    if *environment == "whole" {
        // The pod asks for memory itself. What some container asks of cpu the API server makes the pod's
        // own request, after pods are changed and before they are refused or warned about.
        let summed = *kind != "only" && !mode.starts_with("Default");
        return usize::from(matches!(*state, "missing" | "zero" | "capped") && !summed);
    }
    let storage = usize::from(matches!(*environment, "storage" | "storage-quota"));
    storage + usual(environment, state)
}

/// The same of cpu and memory.
fn usual(environment: &str, state: &str) -> usize {
    let memory_is_filled = matches!(environment, "max" | "default" | "min");
    let cpu_is_filled = matches!(environment, "default" | "min");
    match state {
        "missing" => usize::from(!memory_is_filled) + usize::from(!cpu_is_filled),
        "partial" => usize::from(!memory_is_filled),
        "limits" => 0,
        _ => 2,
    }
}

struct Case {
    environment: &'static str,
    state: &'static str,
    kind: &'static str,
    /// As in [`TABLE`].
    expected: &'static str,
}

fn cases() -> Vec<Case> {
    let mut lines = TABLE
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| line.split_whitespace().collect::<Vec<&'static str>>());
    let kinds = lines.next().unwrap_or_default();
    lines
        .flat_map(|row| {
            let kinds = kinds.clone();
            (2..row.len()).map(move |at| Case {
                environment: row[0],
                state: row[1],
                kind: kinds[at],
                expected: row[at],
            })
        })
        .collect()
}

/// Requests of the subject, as in [`TABLE`].
fn shown(environment: &str, answer: &Answer) -> Result<String> {
    if answer.code != 201 {
        return Ok("x".to_owned());
    }
    let lists = ["containers", "initContainers"];
    let all = lists.iter().filter_map(|list| answer.object["spec"][list].as_array()).flatten();
    let subject = all.into_iter().find(|c| c["name"] == "subject").context("no subject")?;
    let amount =
        |name: &str| subject["resources"]["requests"][name].as_str().unwrap_or("-").to_owned();
    let third = has_storage(environment).then(|| format!("/{}", amount(STORAGE)));
    Ok(format!("{}/{}{}", amount("cpu"), amount("memory"), third.unwrap_or_default()))
}

/// The spec without requests and without what the API server makes up anew each time.
fn rest(answer: &Answer) -> Value {
    let mut spec = answer.object["spec"].clone();
    spec["volumes"].take();
    // What the containers of a pod with requests of its own ask of cpu, the API server adds up there.
    spec["resources"]["requests"]["cpu"].take();
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            container["volumeMounts"].take();
            container["resources"]["requests"].take();
        }
    }
    spec
}

fn judge(case: &Case, mode: &str, without: &Answer, with: &Answer) -> Result<()> {
    let missing = lacking(case, mode);
    let (before, after) = (shown(case.environment, without)?, shown(case.environment, with)?);
    let ours = with.message().contains("harbinger.sh");
    if mode == "Deny" && missing > 0 {
        ensure!(after == "x", "was let in as {after}");
        ensure!(before == "x" || ours, "refused by others only: {}", with.message());
        if ours {
            ensure!(with.code == 422, "code {}", with.code);
            let list =
                if matches!(case.kind, "only" | "main") { "containers" } else { "initContainers" };
            let field = format!("set spec.{list}[");
            ensure!(with.message().contains(&field), "{}", with.message());
            ensure!(with.message().matches("\"subject\"").count() == missing, "{}", with.message());
        }
        return Ok(());
    }
    ensure!(!ours, "{}", with.message());
    ensure!(before == "x" || after != "x", "was {before} without us: {}", with.message());
    let sets = mode.starts_with("Default");
    let expected = if sets { case.expected } else { &*before };
    ensure!(after == expected, "is {after}, not {expected} ({})", with.message());
    if after == "x" {
        return Ok(());
    }
    if before != "x" {
        ensure!(rest(with) == rest(without), "more than requests differs");
    }
    let told = match mode {
        "Off" | "Shadow" => 0,
        _ => missing,
    };
    let (classes, warnings): (Vec<&String>, Vec<&String>) =
        with.warnings.iter().partition(|warning| warning.contains("quality of service"));
    if before != "x" {
        let class = |answer: &Answer| answer.object["status"]["qosClass"].clone();
        ensure!((class(with) == class(without)) == classes.is_empty(), "{classes:?}");
    }
    ensure!(warnings.len() == told, "{warnings:?}");
    for warning in warnings {
        ensure!(warning.contains("\"subject\""), "{warning}");
        let said = if sets { "set" } else { "; set one" };
        ensure!(warning.contains(said), "{warning}");
    }
    let changed = sets && missing > 0 && after != before;
    let record = &with.object["metadata"]["annotations"]["harbinger.sh/default-requests"];
    // What would be verified is recorded where it is held back, too.
    let held_back = mode == "DefaultAndVerify" && missing > 0;
    ensure!(record.is_string() == (changed || held_back), "record {record}");
    Ok(())
}

fn name(environment: &str, mode: &str) -> String {
    format!("{environment}-{}", mode.to_lowercase())
}

fn environments() -> BTreeSet<&'static str> {
    cases().iter().map(|case| case.environment).collect()
}

/// A plane with the webhook, and a namespace for each environment and mode, and without us.
async fn door() -> Result<(Plane, Chart, testbed::process::Process)> {
    let plane = Plane::start(PlaneOptions::default()).await?;
    let environments = environments();
    let mut objects = Vec::new();
    let mut excluded = vec!["kube-system".to_owned()];
    for environment in &environments {
        excluded.push(name(environment, "alone"));
        for mode in MODES.iter().chain(&["alone"]) {
            let namespace = name(environment, mode);
            objects.push(json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": namespace, "labels": {
                    "mode": mode, "storage": has_storage(environment).to_string(),
                }},
            }));
            let mut object = bounds(environment);
            if !object.is_null() {
                object["apiVersion"] = "v1".into();
                object["metadata"] = json!({"name": "bounds", "namespace": namespace});
                objects.push(object);
            }
        }
    }
    for (mode, storage) in MODES.into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        let rule = |resource: &str, amount: &str| match mode {
            "Warn" | "Deny" => json!({"resource": resource, "action": mode}),
            _ => json!({"resource": resource, "action": mode, "default": amount}),
        };
        let mut rules = vec![rule("cpu", "100m"), rule("memory", "128Mi")];
        rules.extend(storage.then(|| rule(STORAGE, "1Gi")));
        objects.push(json!({
            "apiVersion": "harbinger.sh/v1alpha1", "kind": "RequestPolicy",
            "metadata": {"name": format!("{}-{storage}", mode.to_lowercase())},
            "spec": {
                "match": {
                    "namespaceSelector": {
                        "matchLabels": {"mode": mode, "storage": storage.to_string()},
                    },
                    "containerKinds": ["Main", "Init", "Sidecar"],
                },
                "rules": rules,
            },
        }));
    }
    let excluded = format!("webhook.excludedNamespaces={{{}}}", excluded.join(","));
    let values = ["certificates.mode=selfManaged", "webhook.ephemeralStorage=true", &excluded];
    let chart = Chart::install(&plane, PROGRAM, &values, &[]).await?;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    plane.kubectl(&["apply", "-f", "-"], &list.to_string()).await?;
    let webhook = chart.run(&plane, "webhook", Vec::new()).await?;
    Ok((plane, chart, webhook))
}

/// Waits until registrations, policies and bounds have reached everybody.
async fn in_force(plane: &Plane) -> Result<()> {
    let client = plane.client();
    let quotas = Api::<ResourceQuota>::all(client.clone());
    poll::until("bounds in force", DEADLINE, async || {
        for quota in quotas.list(&kube::api::ListParams::default()).await? {
            let hard = quota.status.and_then(|status| status.hard);
            ensure!(hard.is_some_and(|hard| !hard.is_empty()), "a quota has no status");
        }
        for environment in environments() {
            for mode in MODES {
                let namespace = name(environment, mode);
                let zero = pod(environment, "only", "zero");
                let answer = dry_pod(&client, &namespace, &zero).await?;
                let acts = !answer.warnings.is_empty() || answer.code != 201;
                ensure!(acts || matches!(mode, "Off" | "Shadow"), "{mode}: {answer:?}");
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pod_comes_out_as_the_table_says() -> Result<()> {
    let (plane, _chart, mut webhook) = door().await?;
    in_force(&plane).await.with_context(|| webhook.log_tail(20))?;
    let client = plane.client();
    let cases = cases();
    let results: Vec<[(bool, Option<String>); MODES.len()]> = stream::iter(&cases)
        .map(async |case| {
            let Case { environment, state, kind, .. } = case;
            let pod = pod(environment, kind, state);
            let without = dry_pod(&client, &name(environment, "alone"), &pod).await?;
            let mut results = [const { (false, None) }; MODES.len()];
            for (mode, result) in MODES.into_iter().zip(&mut results) {
                let with = dry_pod(&client, &name(environment, mode), &pod).await?;
                let wrong = judge(case, mode, &without, &with).err();
                let wrong = wrong.map(|e| format!("{environment} {state} {kind} {mode}: {e:#}"));
                *result = (without.code == 201, wrong);
            }
            anyhow::Ok(results)
        })
        .buffer_unordered(8)
        .try_collect()
        .await?;
    let results = results.concat();
    let accepted = results.iter().filter(|(accepted, _)| *accepted).count();
    println!("{} pods, {accepted} of them accepted without us", results.len());
    let wrong: Vec<&String> = results.iter().filter_map(|(_, wrong)| wrong.as_ref()).collect();
    if !wrong.is_empty() {
        bail!(
            "{} wrong:\n{}",
            wrong.len(),
            wrong.iter().map(|w| w.as_str()).collect::<Vec<_>>().join("\n")
        );
    }
    ensure!(results.len() >= 300, "only {} pods", results.len());
    webhook.ensure_running()
}
