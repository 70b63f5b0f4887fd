//! Pods with volumes: they bind where they were planned, and what the engine calls impossible waits.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use testbed::poll;

use super::world::{DEADLINE, World};

const DRIVER: &str = "ebs.csi.aws.com";
const ZONE: &str = "topology.kubernetes.io/zone";
const A: &str = "us-west-2a";
const B: &str = "us-west-2b";
const C: &str = "us-west-2c";

fn class(name: &str, provisioner: &str, mode: &str, zones: &[&str]) -> Value {
    let mut class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": provisioner, "volumeBindingMode": mode,
    });
    if !zones.is_empty() {
        class["allowedTopologies"] =
            json!([{"matchLabelExpressions": [{"key": ZONE, "values": zones}]}]);
    }
    class
}

/// A volume with a term for each zone.
fn volume(name: &str, class: &str, zones: &[&str], claim: Option<(&str, &str)>) -> Value {
    let term = |zone: &&str| json!({"matchExpressions": [{"key": ZONE, "operator": "In", "values": [zone]}]});
    let terms: Vec<Value> = zones.iter().map(term).collect();
    // The API server takes this mode alone or not at all.
    let mode = if name == "one-pod" { "ReadWriteOncePod" } else { "ReadWriteOnce" };
    let mut spec = json!({
        "capacity": {"storage": "5Gi"}, "accessModes": [mode],
        "storageClassName": class, "persistentVolumeReclaimPolicy": "Retain",
        "csi": {"driver": DRIVER, "volumeHandle": format!("vol-{name}")},
        "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
    });
    if let Some((namespace, name)) = claim {
        spec["claimRef"] = json!({"namespace": namespace, "name": name});
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec})
}

fn claim(name: &str, class: &str, mode: &str, volume: Option<&str>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"storageClassName": class, "accessModes": [mode], "volumeName": volume,
            "resources": {"requests": {"storage": "5Gi"}}},
    })
}

fn pod(name: &str, cpu: &str, claims: &[&str]) -> Value {
    let volumes: Vec<Value> = claims
        .iter()
        .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"volumes": volumes, "containers": [{"name": "c", "image": "c",
            "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}]},
    })
}

async fn apply(world: &World, namespace: &str, objects: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    world.plane.kubectl(&["apply", "-n", namespace, "-f", "-"], &list.to_string()).await.map(drop)
}

/// Makes volumes as the driver's controller does: where the node is that the scheduler chose.
async fn make_volumes(client: Client, namespace: String) -> Result<()> {
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &namespace);
    let volumes = Api::<PersistentVolume>::all(client.clone());
    let nodes = Api::<Node>::all(client);
    loop {
        for claim in claims.list(&ListParams::default()).await?.items {
            let node = claim.annotations().get("volume.kubernetes.io/selected-node");
            let taken = claim.spec.as_ref().is_some_and(|spec| spec.volume_name.is_some());
            let (Some(node), false, Some(uid)) = (node, taken, claim.uid()) else { continue };
            let zone = nodes.get(node).await?.labels()[ZONE].clone();
            let name = claim.name_any();
            let mut made =
                volume(&format!("pvc-{uid}"), "ebs", &[&zone], Some((&namespace, &name)));
            made["spec"]["claimRef"]["uid"] = json!(uid);
            let made: PersistentVolume = serde_json::from_value(made)?;
            match volumes.create(&PostParams::default(), &made).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                other => drop(other?),
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Zone of each running pod.
async fn zones(world: &World, namespace: &str, count: usize) -> Result<BTreeMap<String, String>> {
    let nodes = Api::<Node>::all(world.plane.client());
    let mut zones = BTreeMap::new();
    for pod in world.running(namespace, count).await? {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let node = nodes.get(&node.context("runs nowhere")?).await?;
        zones.insert(pod.name_any(), node.labels()[ZONE].clone());
    }
    Ok(zones)
}

/// Waits until we say why a pod has no place, and the reason names its claim.
async fn told(world: &World, namespace: &str, pod: &str, reason: &str) -> Result<()> {
    let events = Api::<Event>::namespaced(world.plane.client(), namespace);
    poll::until("an Event", DEADLINE, async || {
        let list = events.list(&ListParams::default()).await?.items;
        let ours = list.iter().filter(|event| {
            event.reporting_component.as_deref() == Some("harbinger")
                && event.involved_object.name.as_deref() == Some(pod)
        });
        let said: Vec<&str> = ours.filter_map(|event| event.message.as_deref()).collect();
        ensure!(said.iter().any(|message| message.contains(reason)), "{pod}: {said:?}");
        Ok(())
    })
    .await
    .with_context(|| world.story())
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_bind_where_their_volumes_are() -> Result<()> {
    // The objects are made one after another; they are to be planned together.
    let flags = ["--leader-elect=false", "--coalesce-idle-ms=1500", "--coalesce-max-ms=20000"];
    let world = World::start(Duration::from_secs(1), &flags).await?;
    let namespace = world.plane.namespace("volumes").await?;
    let n = namespace.as_str();
    let driver = tokio::spawn(make_volumes(world.plane.client(), namespace.clone()));
    let once = "ReadWriteOnce";
    apply(
        &world,
        n,
        &[
            class("ebs", DRIVER, "WaitForFirstConsumer", &[C]),
            class("now", DRIVER, "Immediate", &[]),
            class("hand", "kubernetes.io/no-provisioner", "WaitForFirstConsumer", &[]),
            volume("old-a", "ebs", &[A], Some((n, "old-a"))),
            claim("old-a", "ebs", once, Some("old-a")),
            volume("old-b", "ebs", &[B], Some((n, "old-b"))),
            claim("old-b", "ebs", once, Some("old-b")),
            volume("old-bc", "ebs", &[C, B], Some((n, "old-bc"))),
            claim("old-bc", "ebs", once, Some("old-bc")),
            volume("one-pod", "ebs", &[A], Some((n, "one-pod"))),
            claim("one-pod", "ebs", "ReadWriteOncePod", Some("one-pod")),
            volume("hand-b", "hand", &[B], None),
            claim("by-hand", "hand", once, None),
            claim("late-hand", "hand", once, None),
            claim("made", "ebs", once, None),
            claim("now", "now", once, None),
        ],
    )
    .await?;
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {
            "replicas": 2, "serviceName": "db", "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": pod("", "1", &[])["spec"]},
            "volumeClaimTemplates": [{"metadata": {"name": "data"},
                "spec": claim("", "ebs", once, None)["spec"]}],
        },
    });
    let ephemeral = json!([{"name": "own", "ephemeral": {"volumeClaimTemplate":
        {"spec": claim("", "ebs", once, None)["spec"]}}}]);
    let mut brings = pod("brings", "1", &[]);
    brings["spec"]["volumes"] = ephemeral;
    apply(
        &world,
        n,
        &[
            pod("in-a", "1", &["old-a"]),
            pod("in-both", "1", &["old-bc", "old-b"]),
            pod("made", "1", &["made"]),
            pod("by-hand", "1", &["by-hand"]),
            pod("alone", "1", &["one-pod"]),
            brings,
            set,
        ],
    )
    .await?;
    let placed = zones(&world, n, 8).await?;
    let expected = [
        ("alone", A),
        ("brings", C),
        ("by-hand", B),
        ("db-0", C),
        ("db-1", C),
        ("in-a", A),
        ("in-both", B),
        ("made", C),
    ];
    let expected: BTreeMap<String, String> =
        expected.map(|(pod, zone)| (pod.to_owned(), zone.to_owned())).into();
    ensure!(placed == expected, "{placed:?}");
    let bought = world.cloud.instances().await?.len();
    // Planned together, one or two small nodes a zone are cheapest.
    ensure!((3..=4).contains(&bought), "{bought} instances for three zones\n{}", world.story());

    // Nobody can place these, whatever there is.
    let hopeless = [
        ("missing", vec!["nobody"], "PersistentVolumeClaim nobody does not exist"),
        ("unbound", vec!["now"], "PersistentVolumeClaim now is not bound"),
        ("apart", vec!["old-a", "old-b"], "PersistentVolumeClaim old-b has a volume that cannot"),
        ("second", vec!["one-pod"], "PersistentVolumeClaim one-pod is ReadWriteOncePod"),
        ("late", vec!["late-hand"], "PersistentVolumeClaim late-hand finds no free"),
    ];
    let pods: Vec<Value> = hopeless.iter().map(|(name, c, _)| pod(name, "1", c)).collect();
    apply(&world, n, &pods).await?;
    for (pod, _, reason) in &hopeless {
        told(&world, n, pod, reason).await?;
    }
    // Not a wait for something: the scheduler tries again each two seconds.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let pods = Api::<Pod>::namespaced(world.plane.client(), n);
    for (pod, ..) in &hopeless {
        let node = pods.get(pod).await?.spec.and_then(|spec| spec.node_name);
        ensure!(node.is_none(), "{pod} is on {node:?}");
    }
    let after = world.cloud.instances().await?.len();
    ensure!(after == bought, "{after} instances where {bought} were enough");
    ensure!(!driver.is_finished(), "the driver broke off: {:?}", driver.await?);
    driver.abort();
    world.cloud.journal().ensure_sound()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_attaches_no_more_than_it_says() -> Result<()> {
    let world = World::start(Duration::from_secs(1), &["--leader-elect=false"]).await?;
    let namespace = world.plane.namespace("limits").await?;
    let n = namespace.as_str();
    let room = json!({"cpu": "30", "memory": "60Gi", "pods": "50"});
    apply(
        &world,
        n,
        &[
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": "full", "annotations": {"kwok.x-k8s.io/node": "fake"},
                    "labels": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                        "kubernetes.io/hostname": "full", ZONE: A}},
                "status": {"allocatable": room, "capacity": room,
                    "conditions": [{"type": "Ready", "status": "True"}]},
            }),
            json!({
                "apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "full"},
                "spec": {"drivers": [{"name": DRIVER, "nodeID": "full", "topologyKeys": [ZONE],
                    "allocatable": {"count": 2}}]},
            }),
            class("ebs", DRIVER, "WaitForFirstConsumer", &[]),
        ],
    )
    .await?;
    for name in ["one", "two", "three"] {
        let objects = [
            volume(name, "ebs", &[A], Some((n, name))),
            claim(name, "ebs", "ReadWriteOnce", Some(name)),
        ];
        apply(&world, n, &objects).await?;
    }
    apply(&world, n, &[pod("one", "1", &["one"]), pod("two", "1", &["two"])]).await?;
    let on = async |count| -> Result<BTreeMap<String, String>> {
        let pods = world.running(n, count).await?;
        let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        Ok(pods.iter().filter_map(|pod| Some((pod.name_any(), node(pod)?))).collect())
    };
    ensure!(on(2).await?.values().all(|node| node == "full"));
    // A further volume does not fit, the ones that are there do.
    apply(&world, n, &[pod("again", "1", &["one", "two"]), pod("three", "1", &["three"])]).await?;
    let nodes = on(4).await?;
    ensure!(nodes["again"] == "full" && nodes["three"] != "full", "{nodes:?}");
    let bought = world.cloud.instances().await?.len();
    ensure!(bought == 1, "{bought} instances");
    world.cloud.journal().ensure_sound()
}
