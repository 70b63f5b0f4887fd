//! What mutations begin with: the usual shapes of pods, policies and reviews.

use serde_json::{Value, json};

/// Pods of every kind of container, and with every way to lack a request.
pub(crate) fn pods() -> Vec<Value> {
    let full = json!({ "requests": { "cpu": "250m", "memory": "256Mi" } });
    let half = json!({ "requests": { "cpu": "250m" }, "limits": { "memory": "1Gi" } });
    let zero = json!({ "requests": { "cpu": "0", "memory": 0 } });
    let pod = |containers: Value, init: Value, level: Value| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web-1", "generateName": "web-", "namespace": "shop",
                "labels": { "app": "web", "pod-template-hash": "5d4f" },
                "annotations": { "example.com/a~b": "c" },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet",
                    "name": "web-5d4f", "uid": "r", "controller": true }],
            },
            "spec": { "containers": containers, "initContainers": init, "resources": level,
                "overhead": { "cpu": "10m" }, "priorityClassName": "high" },
        })
    };
    vec![
        json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c" }] } }),
        pod(
            json!([{ "name": "app", "resources": half }, { "name": "side", "resources": zero }]),
            json!([{ "name": "init" }, { "name": "proxy", "restartPolicy": "Always" }]),
            Value::Null,
        ),
        pod(json!([{ "name": "app", "resources": full }]), Value::Null, Value::Null),
        pod(
            json!([{ "name": "app", "resources": { "limits": { "cpu": "100m" } } }, { "name": "b" }]),
            json!([]),
            json!({ "requests": { "memory": "1Gi" } }),
        ),
        placed(),
    ]
}

/// A pod that says where it may be.
fn placed() -> Value {
    let term = json!({ "key": "team", "operator": "In", "values": ["web", "db"] });
    json!({
        "metadata": { "name": "p" },
        "spec": {
            "containers": [{ "name": "c", "resources": { "limits": { "nvidia.com/gpu": "1" } } }],
            "nodeSelector": { "kubernetes.io/arch": "arm64" },
            "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{ "matchExpressions": [term] }],
            } } },
            "tolerations": [{ "key": "gpu", "operator": "Exists", "effect": "NoSchedule" }],
        },
    })
}

/// What namespaces bound pods by: items of a LimitRange, quotas, and what nodes leave, in millicores
/// and mebibytes.
pub(crate) fn worlds() -> Vec<Value> {
    let container = json!({
        "type": "Container", "min": { "cpu": "50m" }, "max": { "cpu": "2", "memory": "512Mi" },
        "default": { "memory": "200Mi" }, "defaultRequest": { "cpu": "80m" },
    });
    let ratio = json!({ "type": "Container", "maxLimitRequestRatio": { "cpu": "1.5" } });
    let pod = json!({ "type": "Pod", "max": { "memory": "300Mi", "ephemeral-storage": "1Gi" } });
    let hard = json!({ "requests.cpu": "500m", "memory": "400Mi", "limits.cpu": "1", "pods": "2" });
    let quota =
        |scopes: Value, used: Value| json!({ "hard": hard, "scopes": scopes, "used": used });
    vec![
        json!({ "limits": [], "quotas": [], "nodes": [] }),
        json!({ "limits": [container, pod], "quotas": [], "nodes": [] }),
        json!({ "limits": [ratio], "quotas": [quota(json!([]), json!({}))], "nodes": [[200, 150]] }),
        json!({
            "limits": [], "nodes": [[100, 4096], [8000, 64]],
            "quotas": [quota(json!(["NotBestEffort"]), json!({ "pods": "1", "memory": "380Mi" }))],
        }),
    ]
}

/// Policies with every action and every part of a match.
pub(crate) fn policies() -> Vec<Value> {
    let rules = |cpu: &str, memory: &str| {
        let rule = |resource: &str, action: &str, amount: &str| match action {
            "Default" | "Shadow" => {
                json!({ "resource": resource, "action": action, "default": amount })
            }
            _ => json!({ "resource": resource, "action": action }),
        };
        json!([rule("cpu", cpu, "100m"), rule("memory", memory, "128Mi")])
    };
    vec![
        json!({ "rules": rules("Default", "Default") }),
        json!({ "rules": rules("Deny", "Default"), "message": "see {namespace}/{pod} {container} {",
            "zeroMeansMissing": false }),
        json!({ "rules": rules("Shadow", "Warn"), "allowOptOut": true, "priority": 5 }),
        json!({
            "match": {
                "namespaceSelector": { "matchLabels": { "team": "web" } },
                "objectSelector": { "matchExpressions": [{ "key": "app", "operator": "In", "values": ["web"] }] },
                "ownerKinds": ["Deployment", "Pod"], "containerKinds": ["Main", "Init", "Sidecar"],
            },
            "rules": [
                { "resource": "cpu", "action": "Default", "default": "1" },
                { "resource": "memory", "action": "Default", "default": "3Gi" },
                { "resource": "ephemeral-storage", "action": "Default", "default": "1Gi",
                  "enforceFrom": "2026-01-01T00:00:00Z" },
            ],
        }),
    ]
}

/// Reviews of pods, workloads and scales.
pub(crate) fn reviews() -> Vec<Value> {
    let review = |group: &str, kind: &str, resource: &str, sub: Value, object: Value| {
        json!({
            "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
                "kind": { "group": group, "version": "v1", "kind": kind },
                "resource": { "group": group, "version": "v1", "resource": resource },
                "subResource": sub, "name": "web", "namespace": "shop", "operation": "CREATE",
                "userInfo": { "username": "admin", "groups": ["system:masters"] },
                "object": object, "oldObject": null, "dryRun": false,
                "options": { "kind": "CreateOptions" },
            },
        })
    };
    let mut all: Vec<Value> =
        pods().into_iter().map(|pod| review("", "Pod", "pods", Value::Null, pod)).collect();
    let workload = json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "d", "generation": 3,
            "annotations": { "harbinger.sh/silence-advice": "HB102" } },
        "spec": { "replicas": 3, "parallelism": 2, "completions": 9, "template": pods()[1] },
    });
    all.push(review("apps", "Deployment", "deployments", Value::Null, workload.clone()));
    all.push(review("apps", "DaemonSet", "daemonsets", Value::Null, workload.clone()));
    all.push(review("batch", "Job", "jobs", Value::Null, workload.clone()));
    let cron = json!({ "metadata": { "name": "c" },
        "spec": { "schedule": "* * * * *", "jobTemplate": { "spec": workload["spec"] } } });
    all.push(review("batch", "CronJob", "cronjobs", Value::Null, cron));
    let scale = json!({ "metadata": { "uid": "d" }, "spec": { "replicas": 9 } });
    let mut scaled = review("autoscaling", "Scale", "deployments", "scale".into(), scale);
    scaled["request"]["operation"] = "UPDATE".into();
    all.push(scaled);
    all
}
