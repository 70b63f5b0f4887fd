//! The engine against the real kube-scheduler, in random clusters.
//!
//! A plan is made real as nodes; its pods are released from a gate one at a time, in the order in
//! which the checker says that they can bind, each nominated to its node, and must bind there. A pod
//! that the engine calls impossible must stay pending beside an empty node of everything offered.

mod cluster;
mod pods;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use harbinger::model::taints::Taint;
use harbinger::schedule::check::{self, Spot};
use harbinger::schedule::{Solution, solve};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use testbed::plane::{Plane, PlaneOptions};
use testbed::process::Signal;

use self::cluster::{Cluster, NAMESPACES};
use super::world::DEADLINE;

/// Clusters of a run; `DIFFERENTIAL=first..last` asks for others.
const SEEDS: std::ops::Range<u64> = 0..18;
/// Of these, wide ones.
const WIDE_SEEDS: std::ops::Range<u64> = cluster::WIDE..cluster::WIDE + 12;
/// Requests in flight while many objects are made.
const AT_ONCE: usize = 16;
const GATE: &str = "harbinger.sh/test";

/// Clusters on which engine and scheduler once disagreed: several topology keys left no way that the
/// engine found by deciding one after another; nodes were planned whose pool left the label open over
/// which their pods repel each other; and a node got a label by a term that its offering does not meet.
const REGRESSIONS: [u64; 5] = [27, 39, cluster::WIDE + 38, cluster::WIDE + 46, cluster::WIDE + 71];

fn seeds() -> Result<Vec<u64>> {
    let Ok(asked) = std::env::var("DIFFERENTIAL") else {
        return Ok(REGRESSIONS.into_iter().chain(SEEDS).chain(WIDE_SEEDS).collect());
    };
    let (first, last) = asked.split_once("..").context("DIFFERENTIAL is first..last")?;
    Ok((first.parse()?..last.parse()?).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheduler_agrees_with_the_engine() -> Result<()> {
    let bench = Bench::start().await?;
    let mut disagreements = Vec::new();
    let (mut bound, mut pending) = (0, 0);
    let seeds = seeds()?;
    for seed in &seeds {
        let cluster = Cluster::random(*seed);
        match bench.compare(&cluster).await {
            Ok((these, those)) => {
                bound += these;
                pending += those;
            }
            Err(error) => {
                disagreements.push(format!("cluster {seed}: {error:#}\n{}", cluster.story()));
            }
        }
        bench.clear().await?;
    }
    let clusters = seeds.len();
    eprintln!(
        "{clusters} clusters: {bound} pods bound where planned, {pending} kinds stayed pending"
    );
    ensure!(bound > 0 && pending > 0, "nothing was compared");
    ensure!(
        disagreements.is_empty(),
        "{} of {clusters} clusters disagree:\n{}",
        disagreements.len(),
        disagreements.join("\n")
    );
    Ok(())
}

/// An API server and a scheduler, with nobody else who could touch nodes or pods.
struct Bench {
    _plane: Plane,
    client: Client,
    nodes: Api<Node>,
}

impl Bench {
    async fn start() -> Result<Self> {
        // The plugin would taint each new node until somebody calls it ready.
        let flags = vec!["--disable-admission-plugins=TaintNodesByCondition".to_owned()];
        let options = PlaneOptions { apiserver_flags: flags, ..PlaneOptions::default() };
        let plane = Plane::start(options).await?;
        let client = plane.client();
        for (name, team) in NAMESPACES {
            let namespace = json!({"metadata": {"name": name, "labels": {"team": team}}});
            let namespace = serde_json::from_value(namespace)?;
            let api = Api::<Namespace>::all(client.clone());
            api.create(&PostParams::default(), &namespace).await?;
            plane.wait_default_account(name).await?;
        }
        // A pod that preempts another would be a plan of the scheduler's own.
        for (name, value) in [("normal", 0), ("high", 1000)] {
            let class = serde_json::from_value(json!({
                "metadata": {"name": name}, "value": value, "globalDefault": value == 0,
                "preemptionPolicy": "Never",
            }))?;
            let api = Api::<PriorityClass>::all(client.clone());
            api.create(&PostParams::default(), &class).await?;
        }
        for part in ["kube-controller-manager", "kwok"] {
            plane.stop(part, Signal::TERM).await?;
        }
        Ok(Self { nodes: Api::all(client.clone()), client, _plane: plane })
    }

    /// Plays a cluster: pods that bound, and kinds that stayed pending.
    async fn compare(&self, cluster: &Cluster) -> Result<(usize, usize)> {
        let problem = &cluster.problem;
        let solution = solve(problem);
        let violations = check::check(problem, &solution);
        ensure!(violations.is_empty(), "{violations:?}");
        let order = check::binding_order(problem, &solution);
        let order = order.map_err(|stuck| anyhow::anyhow!("no order: {stuck:?}"))?;
        self.make(&cluster.nodes, cluster.bound.clone()).await?;
        let mut opened = false;
        let mut names = Vec::new();
        for (at, step) in order.iter().enumerate() {
            if step.opened && !opened {
                names = self.open(cluster, &solution).await?;
                opened = true;
            }
            let node = match step.spot {
                Spot::Existing(at) => problem.nodes[at].name.to_string(),
                Spot::New(at) => names.get(at).cloned().context("a node before it is there")?,
            };
            let pod = &cluster.waiting[step.demand];
            let name = format!("pod-{at}");
            match self.release(&name, pod, Some(&node)).await? {
                Outcome::Bound(there) if there == node => {}
                Outcome::Bound(there) => {
                    bail!("{} planned on {node}, bound to {there}", spelled(pod))
                }
                Outcome::Pending(why) => bail!("{} planned on {node}: {why}", spelled(pod)),
            }
        }
        let each = cluster.one_of_each();
        if !solution.unplaced.is_empty() {
            self.make(&each.iter().map(|(_, _, node)| node.clone()).collect::<Vec<_>>(), {
                let daemons = each.iter().flat_map(|(name, labels, node)| {
                    let taints = node["spec"]["taints"].clone();
                    let taints: Vec<Taint> = serde_json::from_value(taints).unwrap_or_default();
                    on_node(cluster.daemons_of(labels, &taints), name)
                });
                daemons.collect()
            })
            .await?;
        }
        for unplaced in &solution.unplaced {
            let pod = &cluster.waiting[unplaced.demand];
            let name = format!("impossible-{}", unplaced.demand);
            match self.release(&name, pod, None).await? {
                Outcome::Pending(_) => {}
                Outcome::Bound(node) => {
                    let reasons = &unplaced.reasons;
                    bail!("{} fits {node}, the engine says {reasons:?}", spelled(pod))
                }
            }
        }
        Ok((order.len(), solution.unplaced.len()))
    }

    async fn open(&self, cluster: &Cluster, solution: &Solution) -> Result<Vec<String>> {
        let (mut names, mut nodes, mut daemons) = (Vec::new(), Vec::new(), Vec::new());
        for (at, new) in solution.new_nodes.iter().enumerate() {
            let (name, labels, node) = cluster.new_node(at, new);
            let taints = &cluster.problem.pools[new.pool].pool.taints;
            daemons.extend(on_node(cluster.daemons_of(&labels, taints), &name));
            nodes.push(node);
            names.push(name);
        }
        self.make(&nodes, daemons).await?;
        Ok(names)
    }

    /// Makes nodes and pods bound to them, and waits until the scheduler knows of them.
    ///
    /// What it knows shows in a pod that fits only a node made after all others. That node has no
    /// place in any topology and no room for a second pod, so nobody else sees it.
    async fn make(&self, nodes: &[Value], bound: Vec<Value>) -> Result<()> {
        let create = |node: Value| async move {
            let node: Node = serde_json::from_value(node)?;
            anyhow::Ok(self.nodes.create(&PostParams::default(), &node).await?.name_any())
        };
        let all: Vec<_> = nodes.iter().cloned().map(create).collect();
        stream::iter(all).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
        let pods: Vec<_> = bound
            .into_iter()
            .enumerate()
            .map(|(at, mut pod)| {
                let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
                pod["metadata"]["name"] = format!("bound-{node}-{at}").into();
                self.create(pod)
            })
            .collect();
        stream::iter(pods).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
        let last = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"generateName": "last-"},
            "status": {"capacity": {"pods": "1"}, "allocatable": {"pods": "1"}},
        });
        let name = create(last).await?;
        let mark = json!({"metadata": {"labels": {"mark": name}}});
        self.nodes.patch(&name, &PatchParams::default(), &Patch::Merge(mark)).await?;
        let pod = json!({
            "metadata": {"namespace": "default", "name": name},
            "spec": {
                "nodeSelector": {"mark": name},
                "containers": [{"name": "app", "image": "registry.example.com/app"}],
            },
        });
        self.create(pod).await?;
        let outcome = self.outcome("default", &name, |o| matches!(o, Outcome::Bound(_))).await?;
        ensure!(matches!(outcome, Outcome::Bound(_)), "{outcome:?}");
        Ok(())
    }

    async fn create(&self, pod: Value) -> Result<Pod> {
        let text = pod.to_string();
        let pod: Pod = serde_json::from_value(pod)?;
        let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        api.create(&PostParams::default(), &pod).await.context(text)
    }

    /// Makes a pod behind a gate, nominates it, opens the gate, and returns what the scheduler did.
    async fn release(&self, name: &str, pod: &Value, node: Option<&str>) -> Result<Outcome> {
        let mut pod = pod.clone();
        pod["metadata"]["name"] = name.into();
        pod["spec"]["schedulingGates"] = json!([{"name": GATE}]);
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        self.create(pod).await?;
        let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        let params = PatchParams::default();
        if let Some(node) = node {
            let status = json!({"status": {"nominatedNodeName": node}});
            api.patch_status(name, &params, &Patch::Merge(status)).await?;
        }
        let open = json!({"spec": {"schedulingGates": null}});
        api.patch(name, &params, &Patch::Merge(open)).await?;
        self.outcome(&namespace, name, |_| true).await
    }

    /// Waits for a decision of the scheduler that `counts`.
    async fn outcome(
        &self,
        namespace: &str,
        name: &str,
        counts: impl Fn(&Outcome) -> bool,
    ) -> Result<Outcome> {
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let decided = |pod: Option<&Pod>| pod.and_then(outcome).is_some_and(|o| counts(&o));
        let wait = await_condition(api, name, decided);
        let pod = tokio::time::timeout(DEADLINE, wait).await.context("no decision")??;
        pod.as_ref().and_then(outcome).context("no pod")
    }

    async fn clear(&self) -> Result<()> {
        let now = DeleteParams::default().grace_period(0);
        for namespace in NAMESPACES.map(|(name, _)| name).into_iter().chain(["default"]) {
            let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
            api.delete_collection(&now, &ListParams::default()).await?;
        }
        self.nodes.delete_collection(&now, &ListParams::default()).await?;
        Ok(())
    }
}

/// What the scheduler did with a pod.
#[derive(Debug)]
enum Outcome {
    /// Bound it to this node.
    Bound(String),
    /// Found no node, for this reason.
    Pending(String),
}

fn outcome(pod: &Pod) -> Option<Outcome> {
    if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) {
        return Some(Outcome::Bound(node));
    }
    let conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let refused = conditions
        .filter(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("Unschedulable"));
    refused.map(|c| Outcome::Pending(c.message.clone().unwrap_or_default())).next()
}

fn on_node(mut pods: Vec<Value>, node: &str) -> Vec<Value> {
    for pod in &mut pods {
        pod["spec"]["nodeName"] = node.into();
    }
    pods
}

fn spelled(pod: &Value) -> String {
    format!("{} {}", pod["metadata"], pod["spec"])
}
