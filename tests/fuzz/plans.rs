//! Fuzzing of what is planned: manifests and catalogs of instance types.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use harbinger::cloud::catalog::{self, SpotPrices};
use harbinger::simulate::engine::{Settings, SimulateError};
use harbinger::simulate::{cross, input, load, simulate, upgrade};
use serde_json::{Value, json};

use crate::{now, run};

/// Pods of one input: more cost time and show nothing new.
const MOST_PODS: u64 = 300;

/// Whatever is read, a plan comes of it that its check accepts, or what is wrong is told.
#[test]
fn plans() {
    let (files, types) = (manifests(), types());
    run("plans", |mutator| {
        let mut objects = mutator.pick(&files).clone();
        mutator.tree(&mut objects);
        let mut types = types.clone();
        if *mutator.pick(&[true, false, false]) {
            mutator.tree(&mut types);
        }
        let text = objects.to_string();
        let found = catch_unwind(AssertUnwindSafe(|| plan(&text, &types.to_string())));
        let why = match found {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(_) => "panic".to_owned(),
        };
        Err((why, format!("{text}\n{types}")))
    });
}

fn plan(objects: &str, types: &str) -> Result<(), String> {
    let Ok(types) = catalog::from_json(types) else { return Ok(()) };
    let Ok(objects) = load::parse_text("fuzz.json", objects) else { return Ok(()) };
    let objects = upgrade::upgrade(objects, "us-east-1").objects;
    // What is wrong with some objects keeps the others from nothing here.
    let (input, _) = input::sort(objects);
    let names: BTreeSet<&str> = types.iter().map(|instance| &*instance.name).collect();
    let pods = cross::pods(&input);
    drop(cross::check(&input, &names, true));
    if pods > MOST_PODS {
        return Ok(());
    }
    let settings = Settings {
        region: "us-east-1".to_owned(),
        spot: SpotPrices::Discount(600),
        catalog: Some(types),
        now: now(),
        explain: None,
    };
    match simulate(input, &settings) {
        Err(SimulateError::Check(why)) => Err(why),
        _ => Ok(()),
    }
}

/// Six types of two architectures, some with GPUs and some as spot.
fn types() -> Value {
    let offers = |price: f64, spot: bool| {
        let mut offers = Vec::new();
        for zone in ["a", "b", "c"] {
            offers.push(json!({ "zone": zone, "capacityType": "on-demand", "price": price,
                "available": true }));
            if spot && zone != "c" {
                offers.push(json!({ "zone": zone, "capacityType": "spot", "price": price * 0.35,
                    "available": zone == "a" }));
            }
        }
        offers
    };
    let one = |name: &str, arch: &str, cpu: u32, gib: u32, price: f64, gpus: u32| {
        json!({
            "name": name,
            "capacity": { "cpu": cpu.to_string(), "memory": format!("{gib}Gi"),
                "pods": (cpu * 8).to_string(), "nvidia.com/gpu": gpus.to_string() },
            "overhead": { "cpu": "100m", "memory": "300Mi" },
            "attachLimits": { "ebs.csi.aws.com": 5 },
            "requirements": [
                { "key": "kubernetes.io/arch", "operator": "In", "values": [arch] },
                { "key": "kubernetes.io/os", "operator": "In", "values": ["linux"] },
                { "key": "example.com/size", "operator": "In", "values": [cpu.to_string()] },
            ],
            "offerings": offers(price, gpus == 0),
        })
    };
    json!([
        one("c.small", "amd64", 2, 4, 0.085, 0),
        one("m.small", "amd64", 2, 8, 0.096, 0),
        one("m.large", "amd64", 8, 32, 0.384, 0),
        one("r.large", "amd64", 8, 64, 0.504, 0),
        one("g.large", "arm64", 8, 32, 0.31, 0),
        one("p.large", "amd64", 16, 64, 3.06, 4),
    ])
}

fn pool(name: &str, weight: Option<i64>, requirements: &Value, limits: &Value) -> Value {
    json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": { "name": name },
        "spec": { "weight": weight, "limits": limits, "template": {
            "metadata": { "labels": { "team": name } },
            "spec": {
                "nodeClassRef": { "group": "karpenter.k8s.aws", "kind": "EC2NodeClass",
                    "name": "default" },
                "requirements": requirements,
                "startupTaints": [{ "key": "boot", "effect": "NoSchedule" }],
            } } },
    })
}

/// Lists of objects that say everything that a plan is made from.
fn manifests() -> Vec<Value> {
    let workload = |kind: &str, name: &str, replicas: u32, spec: Value| {
        let group = if kind == "Job" { "batch/v1" } else { "apps/v1" };
        json!({
            "apiVersion": group, "kind": kind,
            "metadata": { "name": name, "namespace": "n" },
            "spec": { "replicas": replicas, "parallelism": replicas, "completions": replicas * 2,
                "selector": { "matchLabels": { "app": name } },
                "template": { "metadata": { "labels": { "app": name } }, "spec": spec } },
        })
    };
    let asks = |cpu: &str, memory: &str| {
        json!([{ "name": "c", "image": "i",
            "resources": { "requests": { "cpu": cpu, "memory": memory } } }])
    };
    let of = |app: &str| json!({ "matchLabels": { "app": app } });
    let zone = "topology.kubernetes.io/zone";
    let host = "kubernetes.io/hostname";
    let any = pool("any", None, &json!([]), &Value::Null);
    let spread = workload(
        "Deployment",
        "spread",
        7,
        json!({
            "containers": asks("500m", "1Gi"), "priority": 10,
            "topologySpreadConstraints": [
                { "maxSkew": 1, "minDomains": 2, "topologyKey": zone,
                  "whenUnsatisfiable": "DoNotSchedule", "labelSelector": of("spread"),
                  "nodeTaintsPolicy": "Honor" },
                { "maxSkew": 2, "topologyKey": host, "whenUnsatisfiable": "ScheduleAnyway",
                  "labelSelector": of("spread"), "matchLabelKeys": ["app"] },
            ],
        }),
    );
    let apart = workload(
        "StatefulSet",
        "apart",
        3,
        json!({
            "containers": [{ "name": "c", "image": "i",
                "ports": [{ "containerPort": 80, "hostPort": 80 }],
                "resources": { "requests": { "cpu": "1", "memory": "3Gi" } } }],
            "affinity": {
                "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
                    { "topologyKey": host, "labelSelector": of("apart"), "namespaces": ["n"] }] },
                "podAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
                    { "weight": 10, "podAffinityTerm":
                        { "topologyKey": zone, "labelSelector": of("spread"),
                          "namespaceSelector": {} } }] },
                "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        { "matchExpressions": [{ "key": zone, "operator": "NotIn", "values": ["c"] }] },
                        { "matchExpressions": [{ "key": "example.com/size", "operator": "Gt",
                            "values": ["4"] }] }] } },
            },
        }),
    );
    let near = workload(
        "Job",
        "near",
        4,
        json!({
            "containers": asks("300m", "256Mi"), "nodeSelector": { "kubernetes.io/arch": "amd64" },
            "tolerations": [{ "key": "team", "operator": "Exists" }],
            "affinity": { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
                { "topologyKey": zone, "labelSelector": of("near") }] } },
        }),
    );
    let gpu = workload(
        "Deployment",
        "gpu",
        3,
        json!({ "containers": [{ "name": "c", "image": "i", "resources":
            { "limits": { "nvidia.com/gpu": "1", "cpu": "2", "memory": "8Gi" } } }],
            "initContainers": [{ "name": "s", "image": "i", "restartPolicy": "Always",
                "resources": { "requests": { "cpu": "50m", "memory": "64Mi" } } }],
            "overhead": { "cpu": "50m", "memory": "16Mi" } }),
    );
    let daemon = workload("DaemonSet", "log", 1, json!({ "containers": asks("100m", "128Mi") }));
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": "n1", "labels": { zone: "a", host: "n1",
            "kubernetes.io/arch": "amd64", "karpenter.sh/nodepool": "any" } },
        "spec": { "taints": [{ "key": "team", "value": "x", "effect": "PreferNoSchedule" }] },
        "status": { "allocatable": { "cpu": "3900m", "memory": "14Gi", "pods": "20" },
            "conditions": [{ "type": "Ready", "status": "True" }] },
    });
    let claim = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "name": "data", "namespace": "n" },
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "gp3",
            "resources": { "requests": { "storage": "1Gi" } } } });
    let class = json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": { "name": "gp3" }, "provisioner": "ebs.csi.aws.com",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowedTopologies": [{ "matchLabelExpressions": [{ "key": zone, "values": ["a", "b"] }] }] });
    let pod = json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "with-data", "namespace": "n", "labels": { "app": "near" } },
        "spec": { "containers": asks("1", "2Gi"), "volumes": [
            { "name": "d", "persistentVolumeClaim": { "claimName": "data" } }] } });
    let limited = pool(
        "limited",
        Some(20),
        &json!([
            { "key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot", "on-demand"],
              "minValues": 1 },
            { "key": "example.com/size", "operator": "Gt", "values": ["1"] },
            { "key": "team", "operator": "In", "values": ["limited", "y"] },
        ]),
        &json!({ "cpu": "20", "nodes": "3" }),
    );
    vec![
        json!([any, spread, apart, daemon]),
        json!([any, limited, near, gpu, node]),
        json!([limited, spread, near, claim, class, pod, node, daemon]),
    ]
}
