//! Pods get nodes, and idle nodes go.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harbinger::api::nodeclaim::NodeClaim;
use harbinger::api::reservation::{Reservation, ReservationPhase};
use k8s_openapi::api::core::v1::{Event, Node};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use testbed::cloud::{Effect, Rule};
use testbed::poll;

use super::world::{DEADLINE, World};

/// One pool sees nodes come, drain, die and leave.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_and_go() -> Result<()> {
    let world = World::start(Duration::from_secs(1), &["--leader-elect=false"]).await?;
    let namespace = world.plane.namespace("drain").await?;
    a_deleted_node_is_drained(&world, &namespace).await.context("drained")?;
    a_dead_node_ends(&world, &namespace).await.context("dead")?;
    a_deployment_comes_and_goes(&world).await.context("deployed")
}

/// A node that is deleted is drained as its budget allows, and ends after its volumes are detached.
async fn a_deleted_node_is_drained(world: &World, namespace: &str) -> Result<()> {
    let budget = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: web}\nspec:\n  \
                  minAvailable: 2\n  selector: {matchLabels: {app: web}}\n";
    world.plane.kubectl(&["apply", "-n", namespace, "-f", "-"], budget).await?;
    world.deploy(namespace, "web", 2).await?;
    world.running(namespace, 2).await?;
    let nodes = Api::<Node>::all(world.plane.client());
    let old = world.nodes().await?[0].name_any();
    let attached = format!(
        "apiVersion: storage.k8s.io/v1\nkind: VolumeAttachment\nmetadata: {{name: disk}}\nspec:\n  \
         attacher: ebs.csi.aws.com\n  nodeName: {old}\n  source: {{persistentVolumeName: data}}\n"
    );
    world.apply(&attached).await?;
    // What the claim of the node says, or comes to say.
    let claims = world.plane.kubectl(&["get", "nodeclaims", "-o", "name"], "").await?;
    let claim = claims.trim();
    let says = async |what: &str| {
        let args = ["wait", &format!("--for=condition={what}"), claim, "--timeout=60s"];
        world.plane.kubectl(&args, "").await.map(drop).with_context(|| world.story())
    };
    says("ConsistentStateFound").await?;
    says("Consolidatable").await?;
    let field = "jsonpath={.status.lastPodEventTime}";
    let last = world.plane.kubectl(&["get", claim, "-o", field], "").await?;
    ensure!(!last.trim().is_empty(), "no pod came");
    nodes.delete(&old, &DeleteParams::default()).await?;

    // The budget allows nothing: the node must stay, tainted, and say why.
    let events = Api::<Event>::namespaced(world.plane.client(), "default");
    told(world, &events, "FailedDraining").await?;
    says("Drained=Unknown").await?;
    says("DisruptionReason").await?;
    let node = nodes.get(&old).await?;
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    ensure!(taints.iter().any(|taint| taint.key == "karpenter.sh/disrupted"), "{taints:?}");
    ensure!(world.cloud.journal().of("TerminateInstances").is_empty(), "ended before its pods");

    // Without the budget the pods move to the node that was bought ahead.
    world.plane.kubectl(&["delete", "pdb", "web", "-n", namespace], "").await?;
    let waits = told(world, &events, "AwaitingVolumeDetachment").await?;
    ensure!(waits.message.is_some_and(|message| message.contains("data")), "no volume is named");
    says("Drained").await?;
    says("VolumesDetached=Unknown").await?;
    ensure!(world.cloud.journal().of("TerminateInstances").is_empty(), "ended before its volumes");
    world.plane.kubectl(&["delete", "volumeattachment", "disk"], "").await?;
    poll::until("the node is gone", DEADLINE, async || {
        ensure!(nodes.get_opt(&old).await?.is_none(), "{old} is there");
        Ok(())
    })
    .await
    .with_context(|| world.story())?;
    world.running(namespace, 2).await?;
    let instances = world.cloud.instances().await?.len();
    let left = world.nodes().await?.len();
    ensure!(instances == left, "{instances} instances, {left} nodes");
    world.cloud.journal().ensure_sound()
}

/// A node that is dead ends with its volumes attached.
async fn a_dead_node_ends(world: &World, namespace: &str) -> Result<()> {
    let pod = world.running(namespace, 2).await?.remove(0);
    let node = pod.spec.and_then(|spec| spec.node_name).context("it runs nowhere")?;
    let attached = format!(
        "apiVersion: storage.k8s.io/v1\nkind: VolumeAttachment\nmetadata: {{name: disk}}\nspec:\n  \
         attacher: ebs.csi.aws.com\n  nodeName: {node}\n  source: {{persistentVolumeName: data}}\n"
    );
    world.apply(&attached).await?;
    let claims = world.claims().await?;
    let of_node = |claim: &&NodeClaim| {
        claim.status.as_ref().and_then(|status| status.node_name.as_deref()) == Some(&node)
    };
    let claim = claims.iter().find(of_node).context("no claim")?;
    let claim = format!("nodeclaims/{}", claim.name_any());
    let dead = r#"{"status": {"conditions": [{"type": "Ready", "status": "False"}]}}"#;
    world.plane.kubectl(&["patch", "node", &node, "--subresource=status", "-p", dead], "").await?;
    // The end is accepted, and the instance is there for some time all the same.
    world.cloud.rules().push(Rule::new(Effect::Accept).on("TerminateInstances"));
    world.plane.kubectl(&["delete", &claim, "--wait=false"], "").await?;
    for condition in ["Drained", "InstanceTerminating"] {
        let args = ["wait", &format!("--for=condition={condition}"), &claim, "--timeout=60s"];
        world.plane.kubectl(&args, "").await.with_context(|| world.story())?;
    }
    let detached = "jsonpath={.status.conditions[?(@.type==\"VolumesDetached\")].status}";
    let detached = world.plane.kubectl(&["get", &claim, "-o", detached], "").await?;
    ensure!(detached.is_empty(), "VolumesDetached is {detached}");
    world.cloud.rules().clear();
    world.scale(namespace, "web", 0).await?;
    world.empty().await?;
    world.cloud.journal().ensure_sound()
}

/// A Deployment runs, and its nodes leave after it, as does their class.
async fn a_deployment_comes_and_goes(world: &World) -> Result<()> {
    let namespace = world.plane.namespace("web").await?;
    world.cloud.journal().clear();
    let asked = Instant::now();
    world.deploy(&namespace, "web", 10).await?;
    // A class that is deleted stays until no claim needs it; what was bought goes its way, and what was
    // planned for it is let go of when its pods have come.
    poll::until("nodes are bought", DEADLINE, async || {
        ensure!(!world.cloud.instances().await?.is_empty(), "no instance");
        Ok(())
    })
    .await?;
    let class = "ec2nodeclass/default";
    world.plane.kubectl(&["delete", class, "--wait=false"], "").await?;
    let pods = world.running(&namespace, 10).await?;
    eprintln!("10 pods ran {:?} after the Deployment was made", asked.elapsed());
    assert!(pods.iter().all(|pod| pod.spec.as_ref().unwrap().node_name.is_some()));
    let fleets = world.cloud.journal().of("CreateFleet").len();
    let instances = world.cloud.instances().await?.len();
    assert!(instances >= 1 && fleets >= 1, "{instances} instances by {fleets} calls");

    let events = Api::<Event>::namespaced(world.plane.client(), "default");
    told(world, &events, "WaitingOnNodeClaimTermination").await?;

    let scaled = Instant::now();
    world.scale(&namespace, "web", 0).await?;
    world.empty().await?;
    eprintln!("all nodes were gone {:?} after the scale to zero", scaled.elapsed());
    let gone = ["wait", "--for=delete", class, "--timeout=60s"];
    world.plane.kubectl(&gone, "").await.with_context(|| world.story())?;
    let templates = world.cloud.journal().of("DeleteLaunchTemplate").len();
    ensure!(templates >= 1, "what was made for the class is left");
    assert!(world.boot.problems().is_empty(), "{:?}", world.boot.problems());
    world.cloud.journal().ensure_sound()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_can_be_followed() -> Result<()> {
    let mut world = World::start(Duration::from_secs(1), &["--leader-elect=false"]).await?;
    let namespace = world.plane.namespace("seen").await?;
    world.deploy(&namespace, "web", 3).await?;

    // The ledger shows the workload from the moment on that it waits for nodes.
    let ledger = Api::<Reservation>::namespaced(world.plane.client(), &namespace);
    let phase = async |wanted: fn(ReservationPhase) -> bool| {
        poll::until("the reservation", DEADLINE, async || {
            let list = ledger.list(&ListParams::default()).await?.items;
            let [one] = &list[..] else { anyhow::bail!("{} reservations", list.len()) };
            let phase = one.status.as_ref().map(|status| status.phase).unwrap_or_default();
            ensure!(wanted(phase), "{phase:?}");
            Ok(one.clone())
        })
        .await
        .with_context(|| world.story())
    };
    let reserved = phase(|phase| phase != ReservationPhase::Tentative).await?;
    ensure!(reserved.spec.owner.name == "web" && reserved.spec.shape.count == 3);
    world.running(&namespace, 3).await?;
    phase(|phase| phase == ReservationPhase::Released).await?;
    let healthy = "--for=condition=NodeRegistrationHealthy";
    world.plane.kubectl(&["wait", healthy, "nodepool/default", "--timeout=60s"], "").await?;

    // A pool that changes has nodes that are not what it says, until it is as it was.
    let annotate = async |value: &str| {
        let patch = format!(
            r#"{{"spec":{{"template":{{"metadata":{{"annotations":{{"cost":{value}}}}}}}}}}}"#
        );
        let args = ["patch", "nodepool/default", "--type=merge", "-p", &patch];
        world.plane.kubectl(&args, "").await
    };
    let drifted = async |wanted: &str| {
        let path = "jsonpath={.items[*].status.conditions[?(@.type==\"Drifted\")].reason}";
        poll::until("drift", DEADLINE, async || {
            let said = world.plane.kubectl(&["get", "nodeclaims", "-o", path], "").await?;
            ensure!(said == wanted, "{said:?}, not {wanted:?}");
            Ok(())
        })
        .await
        .with_context(|| world.story())
    };
    annotate("\"7\"").await?;
    drifted("NodePoolDrifted").await?;
    annotate("null").await?;
    drifted("").await?;
    let tag = async |value: &str| {
        let patch = format!(r#"{{"spec":{{"tags":{{"cost":{value}}}}}}}"#);
        let args = ["patch", "ec2nodeclass/default", "--type=merge", "-p", &patch];
        world.plane.kubectl(&args, "").await
    };
    tag("\"7\"").await?;
    drifted("NodeClassDrift").await?;
    tag("null").await?;
    drifted("").await?;

    // A dry run reserves nothing and buys nothing.
    let bought = world.cloud.journal().of("CreateFleet").len();
    let large = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: large}\nspec:\n  replicas: 90\n  \
                 selector: {matchLabels: {app: large}}\n  template:\n    metadata: {labels: {app: large}}\n    \
                 spec: {containers: [{name: c, image: c, resources: {requests: {cpu: 1, memory: 1Gi}}}]}\n";
    let args = ["apply", "--dry-run=server", "-n", &namespace, "-f", "-"];
    world.plane.kubectl(&args, large).await?;

    // Nor does what is refused after our webhook has seen it: quotas are looked at last.
    let full = world.plane.namespace("full").await?;
    let quota = "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: none}\nspec:\n  \
                 hard: {count/deployments.apps: 0}\n";
    world.plane.kubectl(&["apply", "-n", &full, "-f", "-"], quota).await?;
    let counted = "--for=jsonpath={.status.hard.count/deployments\\.apps}=0";
    world.plane.kubectl(&["wait", "-n", &full, counted, "resourcequota/none"], "").await?;
    let refused = world.plane.kubectl(&["apply", "-n", &full, "-f", "-"], large).await;
    ensure!(refused.is_err_and(|error| format!("{error:#}").contains("exceeded quota")));

    // A claim that nobody planned is told so.
    let claim = "apiVersion: karpenter.sh/v1\nkind: NodeClaim\nmetadata: {name: by-hand}\nspec:\n  \
                 nodeClassRef: {group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}\n  \
                 requirements: [{key: kubernetes.io/arch, operator: In, values: [amd64]}]\n";
    world.apply(claim).await?;
    let told = "--for=jsonpath={.status.conditions[?(@.type==\"Launched\")].reason}=NotOurs";
    world.plane.kubectl(&["wait", told, "nodeclaim/by-hand", "--timeout=60s"], "").await?;

    // A pod of nobody that fits nowhere is told why.
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: huge}\nspec:\n  containers:\n  - {name: c, \
               image: c, resources: {requests: {cpu: 500, memory: 1Gi}}}\n";
    world.plane.kubectl(&["apply", "-n", &namespace, "-f", "-"], pod).await?;
    let events = Api::<Event>::namespaced(world.plane.client(), &namespace);
    let told = poll::until("an Event", DEADLINE, async || {
        let list = events.list(&ListParams::default()).await?;
        let ours = |event: &&Event| event.reporting_component.as_deref() == Some("harbinger");
        let about = |event: &&Event| event.involved_object.name.as_deref() == Some("huge");
        let found = list.items.iter().filter(ours).find(about).context("no Event")?;
        Ok(found.clone())
    })
    .await?;
    let message = told.message.unwrap_or_default();
    ensure!(told.reason.as_deref() == Some("FailedScheduling"), "{:?}", told.reason);
    ensure!(message.contains("NodePool default") && message.contains("cpu"), "{message}");
    ensure!(world.cloud.journal().of("CreateFleet").len() == bought, "somebody paid for it");
    ensure!(ledger.list(&ListParams::default()).await?.items.len() == 1, "a dry run is reserved");

    // Without the webhook nodes are bought all the same.
    world.webhook.kill()?;
    let namespace = world.plane.namespace("alone").await?;
    world.deploy(&namespace, "web", 3).await?;
    world.running(&namespace, 3).await.map(drop)
}

/// The first Event of a reason.
async fn told(world: &World, events: &Api<Event>, reason: &str) -> Result<Event> {
    poll::until(reason, DEADLINE, async || {
        let list = events.list(&ListParams::default()).await?;
        let found = list.items.iter().find(|event| event.reason.as_deref() == Some(reason));
        found.context("no Event").cloned()
    })
    .await
    .with_context(|| world.story())
}
