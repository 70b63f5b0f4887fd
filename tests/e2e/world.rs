//! A cluster, a cloud and our provisioner, for one test.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harbinger::api::nodeclaim::NodeClaim;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use testbed::cloud::{Boot, BootOptions, Cloud, Moto, Pool};
use testbed::install::{self, Chart};
use testbed::plane::{Plane, PlaneOptions};
use testbed::poll;
use testbed::process::Process;
use tokio::sync::OnceCell;

/// Long enough for a loaded machine; what is waited for comes within seconds.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// Serves all tests: it takes seconds of processor time to start and to list its instance types.
static MOTO: OnceCell<Arc<Moto>> = OnceCell::const_new();

/// The emulator of all tests.
pub(crate) async fn moto() -> Result<Arc<Moto>> {
    let moto = MOTO.get_or_try_init(async || anyhow::Ok(Arc::new(Moto::start().await?))).await?;
    Ok(Arc::clone(moto))
}

/// A fresh account.
pub(crate) async fn account() -> Result<Cloud> {
    Cloud::start(moto().await?, "c1").await
}

/// One test's world. Parts end in order of declaration: ours first.
pub(crate) struct World {
    pub provisioner: Process,
    pub webhook: Process,
    pub boot: Boot,
    pub cloud: Cloud,
    pub chart: Chart,
    pub plane: Plane,
}

impl World {
    /// Everything up: the chart with both our processes, and one pool of on-demand nodes. Instances
    /// register after `boot` and are ready a moment later. `flags` are the provisioner's.
    pub(crate) async fn start(boot: Duration, flags: &[&str]) -> Result<Self> {
        Self::start_on(PlaneOptions::default(), boot, flags).await
    }

    /// The same on another control plane.
    pub(crate) async fn start_on(
        options: PlaneOptions,
        boot: Duration,
        flags: &[&str],
    ) -> Result<Self> {
        let (plane, cloud) = futures::try_join!(Plane::start(options), account())?;
        let mut values = vec!["certificates.mode=selfManaged".to_owned()];
        for (at, flag) in flags.iter().chain(&["--service-cidr=127.96.0.0/16"]).enumerate() {
            values.push(format!("provisioner.extraArgs[{at}]={flag}"));
        }
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let program = env!("CARGO_BIN_EXE_harbinger");
        let (chart, ()) = futures::try_join!(
            Chart::install(&plane, program, &values, &[]),
            install::system_node(&plane),
        )?;
        let options = BootOptions {
            removal: Some(Duration::from_secs(5)),
            ..BootOptions::after(boot, Duration::from_millis(500))
        };
        let boot = cloud.boot(plane.client(), options);
        let objects = format!("{CLASS}---{POOL}");
        let (webhook, provisioner, _) = futures::try_join!(
            chart.run(&plane, "webhook", Vec::new()),
            chart.run(&plane, "provisioner", cloud.env()),
            plane.kubectl(&["apply", "-f", "-"], &objects),
        )?;
        let world = Self { provisioner, webhook, boot, cloud, chart, plane };
        // Until the class is resolved nothing can be bought, and nothing is worth measuring.
        let ready = ["wait", "--for=condition=Ready", "nodepool/default", "--timeout=60s"];
        world.plane.kubectl(&ready, "").await.with_context(|| world.story())?;
        Ok(world)
    }

    /// A further provisioner, as another replica of the pod would run it.
    pub(crate) fn another(&self, name: &str) -> Result<Process> {
        let mut recipe = self.chart.recipe(&self.plane, "provisioner", self.cloud.env())?;
        name.clone_into(&mut recipe.name);
        recipe.log = self.plane.dir().join(format!("{name}.log"));
        for arg in &mut recipe.args {
            match arg.split_once('=').map(|(flag, _)| flag) {
                Some("--metrics-listen") => "--metrics-listen=127.0.0.1:0".clone_into(arg),
                Some("--intent-socket") => arg.push_str(name),
                Some("--identity") => *arg = format!("--identity={name}"),
                _ => {}
            }
        }
        Process::spawn(recipe)
    }

    /// Applies YAML.
    pub(crate) async fn apply(&self, yaml: &str) -> Result<()> {
        self.plane.kubectl(&["apply", "-f", "-"], yaml).await.map(drop)
    }

    /// Creates a Deployment of pods with 1 cpu and 2 GiB each.
    pub(crate) async fn deploy(&self, namespace: &str, name: &str, replicas: u32) -> Result<()> {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{
                        "name": "c", "image": "c",
                        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}},
                    }]},
                },
            },
        }))?;
        let api = Api::<Deployment>::namespaced(self.plane.client(), namespace);
        api.create(&PostParams::default(), &deployment).await?;
        Ok(())
    }

    /// Changes a Deployment's replicas.
    pub(crate) async fn scale(&self, namespace: &str, name: &str, replicas: u32) -> Result<()> {
        let api = Api::<Deployment>::namespaced(self.plane.client(), namespace);
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        api.patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Waits until so many pods of a namespace run.
    pub(crate) async fn running(&self, namespace: &str, count: usize) -> Result<Vec<Pod>> {
        let pods = Api::<Pod>::namespaced(self.plane.client(), namespace);
        poll::until("pods run", DEADLINE, async || {
            let list = pods.list(&ListParams::default()).await?;
            let running = |pod: &&Pod| {
                pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
            };
            let found: Vec<Pod> = list.items.iter().filter(running).cloned().collect();
            let others: Vec<String> =
                list.items.iter().filter(|pod| !running(pod)).map(state).collect();
            ensure!(
                found.len() == count,
                "{} of {count} run, not:\n{}",
                found.len(),
                others.join("\n")
            );
            Ok(found)
        })
        .await
        .with_context(|| self.story())
    }

    /// Waits until there are no claims, no nodes and no instances.
    pub(crate) async fn empty(&self) -> Result<()> {
        poll::until("everything is gone", DEADLINE, async || {
            let claims = self.claims().await?;
            let names: Vec<String> = claims.iter().map(ResourceExt::name_any).collect();
            ensure!(names.is_empty(), "claims: {names:?}");
            let left = self.nodes().await?.len();
            ensure!(left == 0, "{left} nodes");
            let instances = self.cloud.instances().await?.len();
            ensure!(instances == 0, "{instances} instances");
            Ok(())
        })
        .await
        .with_context(|| self.story())
    }

    /// All claims, by name.
    pub(crate) async fn claims(&self) -> Result<Vec<NodeClaim>> {
        let api = Api::<NodeClaim>::all(self.plane.client());
        let mut all = api.list(&ListParams::default()).await?.items;
        all.sort_by_key(ResourceExt::name_any);
        Ok(all)
    }

    /// Nodes that we bought.
    pub(crate) async fn nodes(&self) -> Result<Vec<Node>> {
        let ours = ListParams::default().labels("karpenter.sh/nodepool");
        Ok(Api::<Node>::all(self.plane.client()).list(&ours).await?.items)
    }

    /// Price of the instances that run, dollars an hour.
    pub(crate) async fn dollars(&self) -> Result<f64> {
        let instances = self.cloud.instances().await?;
        let market = self.cloud.market();
        let pool =
            |i: &testbed::cloud::Instance| Pool::new(&i.instance_type, &i.zone, i.capacity_type);
        let prices = instances.iter().filter_map(|instance| market.price(&pool(instance)));
        let price: u64 = prices.sum();
        Ok(f64::from(u32::try_from(price)?) / 1e6)
    }

    /// What our process said last.
    pub(crate) fn story(&self) -> String {
        format!("the provisioner's log ends with\n{}", self.provisioner.log_tail(40))
    }
}

const CLASS: &str = "
apiVersion: karpenter.k8s.aws/v1
kind: EC2NodeClass
metadata: {name: default}
spec:
  instanceProfile: node
  amiSelectorTerms: [{alias: al2023@latest}]
  subnetSelectorTerms: [{tags: {karpenter.sh/discovery: c1}}]
  securityGroupSelectorTerms: [{tags: {karpenter.sh/discovery: c1}}]
";

const POOL: &str = "
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: default}
spec:
  template:
    spec:
      nodeClassRef: {group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}
      requirements:
        - {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}
        - {key: karpenter.k8s.aws/instance-category, operator: In, values: [c, m, r]}
        - {key: karpenter.k8s.aws/instance-generation, operator: Gt, values: ['4']}
        - {key: karpenter.k8s.aws/instance-cpu, operator: Lte, values: ['32']}
  disruption: {consolidationPolicy: WhenEmpty, consolidateAfter: 2s}
";

/// Where a pod is, and why it is not further.
fn state(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let conditions = status.conditions.unwrap_or_default();
    let why: Vec<&str> = conditions.iter().filter_map(|of| of.message.as_deref()).collect();
    format!(
        "{}: {}, on {}, nominated {}: {}",
        pod.name_any(),
        status.phase.as_deref().unwrap_or("no phase"),
        node.unwrap_or("no node"),
        status.nominated_node_name.as_deref().unwrap_or("nowhere"),
        why.join("; ")
    )
}
