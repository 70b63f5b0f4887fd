//! The zero-request gotcha, played out: a Deployment whose pods ask for nothing and use memory all the
//! same, on nodes that evict when they run out.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;
use testbed::pressure::{Options, Pressure, USE_MEMORY};

use super::world::{DEADLINE, World};

/// What each pod uses.
pub(crate) const USED: &str = "1536Mi";

/// A world with kubelets.
pub(crate) struct Scene {
    pub pressure: Pressure,
    pub namespace: String,
    pub world: World,
}

/// How it stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Pods that were ever made.
    pub created: usize,
    /// Pods evicted for memory.
    pub evicted: usize,
    /// Pods that a node under pressure turned away.
    pub rejected: usize,
    /// Pods that run.
    pub running: usize,
    /// Nodes.
    pub nodes: usize,
    /// Instances launched so far.
    pub bought: usize,
    /// Price of the instances, dollars an hour.
    pub dollars: f64,
}

impl Scene {
    /// Everything up, with a policy of this action; without one the webhook is stopped.
    pub(crate) async fn start(
        boot: Duration,
        action: Option<&str>,
        kubelets: Options,
    ) -> Result<Self> {
        let mut world = World::start(boot, &["--leader-elect=false"]).await?;
        if let Some(action) = action {
            world.apply(&policy(action)).await?;
            let ready = ["wait", "--for=condition=Ready", "requestpolicy/gotcha", "--timeout=60s"];
            world.plane.kubectl(&ready, "").await.with_context(|| world.webhook.log_tail(20))?;
        } else {
            world.webhook.stop(DEADLINE).await?;
        }
        let namespace = world.plane.namespace("gotcha").await?;
        let pressure = Pressure::start(world.plane.client(), kubelets);
        Ok(Self { pressure, namespace, world })
    }

    /// Creates the Deployment `web`, whose containers ask for nothing.
    pub(crate) async fn deploy(&self, replicas: u32) -> Result<()> {
        let labels = json!({"app": "web"});
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "web"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels, "annotations": {USE_MEMORY: USED}},
                    "spec": {"containers": [{"name": "app", "image": "app"}]},
                },
            },
        }))?;
        let api = Api::<Deployment>::namespaced(self.world.plane.client(), &self.namespace);
        api.create(&PostParams::default(), &deployment).await?;
        Ok(())
    }

    /// The pods that run.
    pub(crate) async fn running(&self) -> Result<Vec<Pod>> {
        let pods = Api::<Pod>::namespaced(self.world.plane.client(), &self.namespace);
        Ok(pods.list(&ListParams::default().fields("status.phase=Running")).await?.items)
    }

    /// How it stands now.
    pub(crate) async fn figures(&self) -> Result<Figures> {
        let counts = self.pressure.counts();
        Ok(Figures {
            created: counts.created,
            evicted: counts.evicted,
            rejected: counts.rejected,
            running: self.running().await?.len(),
            nodes: self.world.nodes().await?.len(),
            bought: self.world.boot.launches(),
            dollars: self.world.dollars().await?,
        })
    }
}

fn policy(action: &str) -> String {
    let rule = |resource: &str, amount: &str| match action {
        "Warn" | "Deny" => json!({"resource": resource, "action": action}),
        _ => json!({"resource": resource, "action": action, "default": amount}),
    };
    json!({
        "apiVersion": "harbinger.sh/v1alpha1", "kind": "RequestPolicy",
        "metadata": {"name": "gotcha"},
        "spec": {"rules": [rule("cpu", "100m"), rule("memory", "128Mi")]},
    })
    .to_string()
}
