//! The boot simulator: turns a launched instance into a Node after a while, as a kubelet on EC2 does,
//! and takes the Node away after the instance has ended, as the cloud's node controller does.
//!
//! The kubelet registers with what the instance's user data says. Where the user data says nothing to
//! a kubelet, the Node gets the `karpenter.sh/unregistered` taint and no labels of its own.

mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinHandle, JoinSet};

use super::client::AwsClient;
use super::machine::{self, Sizes};
use super::proxy::Event;
use super::user_data::Registration;
use super::xml::Element;
use super::{Instance, describe};
use crate::poll;

/// How long a kubelet tries to reach an API server that is away.
const PATIENCE: Duration = Duration::from_mins(2);

/// When an instance's node appears.
#[derive(Clone, Copy, Debug)]
pub struct BootPlan {
    /// From launch to registration; none: never.
    pub register: Option<Duration>,
    /// From registration to Ready; none: never.
    pub ready: Option<Duration>,
}

impl BootPlan {
    pub fn after(register: Duration, ready: Duration) -> Self {
        Self { register: Some(register), ready: Some(ready) }
    }

    pub fn never() -> Self {
        Self { register: None, ready: None }
    }
}

/// Decides by the number of the launch, from 0, and the instance.
pub type Planner = Arc<dyn Fn(usize, &Instance) -> BootPlan + Send + Sync>;
/// Decides by the instance type; none: the test bed's own estimate.
pub type Sizer = Arc<dyn Fn(&str) -> Option<Sizes> + Send + Sync>;

/// How instances boot and end.
#[derive(Clone)]
pub struct BootOptions {
    pub plan: Planner,
    pub sizes: Sizer,
    /// From the instance's end to the removal of its Node, if that is still there; none: never.
    pub removal: Option<Duration>,
}

impl BootOptions {
    /// All instances boot alike. Nodes of ended instances go after 5 s, the cloud node controller's
    /// period.
    pub fn after(register: Duration, ready: Duration) -> Self {
        Self {
            plan: Arc::new(move |_, _| BootPlan::after(register, ready)),
            sizes: Arc::new(|_| None),
            removal: Some(Duration::from_secs(5)),
        }
    }
}

/// A running simulator; it ends when dropped.
pub struct Boot {
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

struct Inner {
    nodes: Api<Node>,
    aws: AwsClient,
    options: BootOptions,
    launches: AtomicUsize,
    /// By type and number of pods.
    estimates: Mutex<BTreeMap<(String, Option<u32>), Sizes>>,
    /// Zone id by zone name.
    zone_ids: OnceCell<BTreeMap<String, String>>,
    /// Ended instances, which boot no further.
    ended: Mutex<BTreeSet<String>>,
    problems: Mutex<Vec<String>>,
}

impl Boot {
    pub(super) fn start(
        kube: Client,
        aws: AwsClient,
        events: UnboundedReceiver<Event>,
        options: BootOptions,
    ) -> Self {
        let inner = Arc::new(Inner {
            nodes: Api::all(kube),
            aws,
            options,
            launches: AtomicUsize::default(),
            estimates: Mutex::default(),
            zone_ids: OnceCell::new(),
            ended: Mutex::default(),
            problems: Mutex::default(),
        });
        let task = tokio::spawn(run(Arc::clone(&inner), events));
        Self { inner, task }
    }

    /// Instances seen so far.
    pub fn launches(&self) -> usize {
        self.inner.launches.load(Ordering::Relaxed)
    }

    /// Boots that failed for a reason other than the plan, such as labels that a kubelet refuses.
    pub fn problems(&self) -> Vec<String> {
        self.inner.problems.lock().clone()
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Follows the cloud until it ends; each instance has a task of its own, which ends with this one.
async fn run(inner: Arc<Inner>, mut events: UnboundedReceiver<Event>) {
    let mut tasks = JoinSet::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Launched { instance_ids, at } => {
                tasks.spawn(Arc::clone(&inner).boot_all(instance_ids, at));
            }
            Event::Terminated { instance_ids } => {
                inner.ended.lock().extend(instance_ids.iter().cloned());
                for id in instance_ids {
                    tasks.spawn(Arc::clone(&inner).remove(id));
                }
            }
        }
        while tasks.try_join_next().is_some() {}
    }
}

impl Inner {
    async fn boot_all(self: Arc<Self>, ids: Vec<String>, at: Instant) {
        let keys: Vec<String> = (1..=ids.len()).map(|i| format!("InstanceId.{i}")).collect();
        let params: Vec<(&str, &str)> =
            keys.iter().zip(&ids).map(|(key, id)| (key.as_str(), id.as_str())).collect();
        let instances = match describe(&self.aws, &params).await {
            Ok(instances) => instances,
            Err(error) => return self.problem(&ids.join(","), &error),
        };
        let boots = instances.iter().map(async |instance| {
            if let Err(error) = self.boot(instance, at).await {
                self.problem(&instance.id, &error);
            }
        });
        futures::future::join_all(boots).await;
    }

    async fn boot(&self, instance: &Instance, at: Instant) -> Result<()> {
        let number = self.launches.fetch_add(1, Ordering::Relaxed);
        let plan = (self.options.plan)(number, instance);
        let Some(register) = plan.register else { return Ok(()) };
        let node = self.describe_node(instance).await?;
        let registered = at + register;
        tokio::time::sleep_until(registered.into()).await;
        if self.ended(&instance.id) {
            return Ok(());
        }
        let name = &instance.private_dns_name;
        poll::until("registration", PATIENCE, async || {
            match self.nodes.create(&PostParams::default(), &node).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
                outcome => outcome.map(drop).context("node not created"),
            }
        })
        .await?;
        if self.ended(&instance.id) {
            // The end came while the request was under way: its removal may have found nothing.
            return self.delete(name, &instance.id).await;
        }
        let Some(ready) = plan.ready else { return Ok(()) };
        tokio::time::sleep_until((registered + ready).into()).await;
        if self.ended(&instance.id) {
            return Ok(());
        }
        let patch = Patch::Strategic(node::ready_status());
        poll::until("readiness", PATIENCE, async || {
            match self.nodes.patch_status(name, &PatchParams::default(), &patch).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                outcome => outcome.map(drop).context("node status not patched"),
            }
        })
        .await
    }

    async fn describe_node(&self, instance: &Instance) -> Result<Node> {
        let params = [("InstanceId", instance.id.as_str()), ("Attribute", "userData")];
        let answer = self.aws.query("ec2", "DescribeInstanceAttribute", &params).await?;
        let text = STANDARD.decode(answer.text_at("userData/value"))?;
        let registration = Registration::parse(&String::from_utf8_lossy(&text));
        let sizes = match (self.options.sizes)(&instance.instance_type) {
            Some(sizes) => sizes,
            None => self.estimate(&instance.instance_type, registration.max_pods).await?,
        };
        let zones = self.zone_ids.get_or_try_init(|| self.zone_ids()).await?;
        let zone_id = zones.get(&instance.zone).map_or("", String::as_str);
        node::describe(instance, zone_id, self.aws.region(), &registration, &sizes)
    }

    /// The test bed's own estimate, asked for once per type.
    async fn estimate(&self, name: &str, max_pods: Option<u32>) -> Result<Sizes> {
        let key = (name.to_owned(), max_pods);
        let known = self.estimates.lock().get(&key).cloned();
        if let Some(sizes) = known {
            return Ok(sizes);
        }
        let sizes = machine::sizes(&self.aws, name, max_pods).await?;
        self.estimates.lock().insert(key, sizes.clone());
        Ok(sizes)
    }

    async fn zone_ids(&self) -> Result<BTreeMap<String, String>> {
        let answer = self.aws.query("ec2", "DescribeAvailabilityZones", &[]).await?;
        let zones = answer.items("availabilityZoneInfo").iter();
        let pair = |zone: &Element| {
            (zone.text_at("zoneName").to_owned(), zone.text_at("zoneId").to_owned())
        };
        Ok(zones.map(pair).collect())
    }

    /// Waits, then deletes the Node unless somebody else did.
    async fn remove(self: Arc<Self>, id: String) {
        let Some(delay) = self.options.removal else { return };
        tokio::time::sleep(delay).await;
        let outcome = async {
            let instances = describe(&self.aws, &[("InstanceId.1", &id)]).await?;
            let name = instances.first().context("the instance is gone")?.private_dns_name.clone();
            poll::until("node removal", PATIENCE, || self.delete(&name, &id)).await
        };
        if let Err(error) = outcome.await {
            self.problem(&id, &error);
        }
    }

    async fn delete(&self, name: &str, id: &str) -> Result<()> {
        let Some(node) = self.nodes.get_opt(name).await? else { return Ok(()) };
        let provider_id = node.spec.and_then(|spec| spec.provider_id).unwrap_or_default();
        if !provider_id.ends_with(id) || node.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let params = DeleteParams::default()
            .preconditions(Preconditions { uid: node.metadata.uid, resource_version: None });
        self.nodes.delete(name, &params).await?;
        Ok(())
    }

    fn ended(&self, id: &str) -> bool {
        self.ended.lock().contains(id)
    }

    fn problem(&self, id: &str, error: &anyhow::Error) {
        tracing::warn!(instance = id, %error, "instance did not boot");
        self.problems.lock().push(format!("{id}: {error:#}"));
    }
}
