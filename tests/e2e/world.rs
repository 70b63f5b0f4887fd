//! A cluster, a cloud and our provisioner, for one test.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use testbed::cloud::{Boot, BootOptions, Cloud, Moto};
use testbed::plane::{Plane, PlaneOptions};
use testbed::poll;
use testbed::process::{Process, Recipe};

/// Long enough for a loaded machine; what is waited for comes within seconds.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// One test's world. Parts end in order of declaration: ours first.
pub(crate) struct World {
    pub provisioner: Process,
    pub boot: Boot,
    pub cloud: Cloud,
    pub plane: Plane,
    _moto: Arc<Moto>,
}

impl World {
    /// Everything up, with one pool of on-demand nodes; instances register after `boot` and are
    /// ready a moment later.
    pub(crate) async fn start(boot: Duration, flags: &[&str]) -> Result<Self> {
        let (plane, moto) = futures::join!(Plane::start(PlaneOptions::default()), Moto::start());
        let (plane, moto) = (plane?, Arc::new(moto?));
        let cloud = Cloud::start(Arc::clone(&moto), "c1").await?;
        let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/crds");
        plane.kubectl(&["apply", "--server-side", "-f", crds], "").await?;
        plane
            .kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"], "")
            .await?;
        let options = BootOptions {
            removal: Some(Duration::from_secs(5)),
            ..BootOptions::after(boot, Duration::from_millis(500))
        };
        let boot = cloud.boot(plane.client(), options);
        let provisioner = provisioner(&plane, &cloud, "provisioner", flags)?;
        let world = Self { provisioner, boot, cloud, plane, _moto: moto };
        world.apply(&format!("{CLASS}---{POOL}")).await?;
        Ok(world)
    }

    /// A further replica.
    pub(crate) fn another(&self, name: &str, flags: &[&str]) -> Result<Process> {
        provisioner(&self.plane, &self.cloud, name, flags)
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
            ensure!(found.len() == count, "{} of {count} run", found.len());
            Ok(found)
        })
        .await
        .with_context(|| self.story())
    }

    /// Waits until there are no claims, no nodes and no instances.
    pub(crate) async fn empty(&self) -> Result<()> {
        let nodes = Api::<Node>::all(self.plane.client());
        poll::until("everything is gone", DEADLINE, async || {
            let claims = self.plane.kubectl(&["get", "nodeclaims", "-o", "name"], "").await?;
            ensure!(claims.trim().is_empty(), "claims: {claims}");
            let left = nodes.list(&ListParams::default()).await?.items.len();
            ensure!(left == 0, "{left} nodes");
            let instances = self.cloud.instances().await?.len();
            ensure!(instances == 0, "{instances} instances");
            Ok(())
        })
        .await
        .with_context(|| self.story())
    }

    /// What our process said last.
    pub(crate) fn story(&self) -> String {
        format!("the provisioner's log ends with\n{}", self.provisioner.log_tail(40))
    }
}

fn provisioner(plane: &Plane, cloud: &Cloud, name: &str, flags: &[&str]) -> Result<Process> {
    let kubeconfig = plane.kubeconfig().display().to_string();
    let mut args: Vec<String> = [
        "provisioner",
        "--cluster-name=c1",
        "--metrics-listen=127.0.0.1:0",
        "--service-cidr=127.96.0.0/16",
        "--kubeconfig",
        &kubeconfig,
    ]
    .map(str::to_owned)
    .to_vec();
    args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let recipe = Recipe {
        name: name.to_owned(),
        program: PathBuf::from(env!("CARGO_BIN_EXE_harbinger")),
        args,
        env: cloud.env(),
        log: plane.dir().join(format!("{name}.log")),
    };
    Process::spawn(recipe)
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
