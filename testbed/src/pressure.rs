//! Node pressure as a kubelet acts on it: pods use memory, and a node that has given out more than it
//! has evicts those that use more than they asked for.
//!
//! What a pod's containers use each is said by an annotation ([`USE_MEMORY`]) on the pod; without it a pod
//! uses what it asked for. Every look a node whose pods use more than its allocatable memory gets the
//! condition MemoryPressure (the controller manager makes the taint of it) and evicts one pod, as the
//! kubelet does: those beyond their requests first, then those of lower priority, then those furthest
//! beyond. A node under pressure also turns away pods without any request that were bound meanwhile.
//!
//! The kubelet looks every ten seconds or when the kernel tells it of low memory, and again as soon as
//! an evicted pod is gone, which takes about a second; here all looks are one [`Options::look`] apart.
//! Pods use their memory from the moment on that they run; the page cache, OOM kills and soft
//! thresholds are left out.

mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use self::node::{Occupant, Pressed, Verdict, judge};

/// Annotation with the memory that each container of the pod uses, such as `1536Mi`.
pub const USE_MEMORY: &str = "testbed.harbinger.sh/memory";
/// Annotation with the cores that each container of the pod uses, such as `300m`; only the
/// metrics-server looks at it.
pub const USE_CPU: &str = "testbed.harbinger.sh/cpu";

/// The hard threshold `memory.available` of kubelets on EKS; allocatable memory leaves it out already.
const THRESHOLD: &str = "100Mi";

/// How kubelets behave.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Time between two looks at a node, and so between two evictions on it.
    pub look: Duration,
    /// How long the condition outlives the pressure (`--eviction-pressure-transition-period`).
    pub transition: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { look: Duration::from_secs(1), transition: Duration::from_mins(5) }
    }
}

/// What has happened so far to pods with the annotation.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Pods that were seen.
    pub created: usize,
    /// Evicted for memory.
    pub evicted: usize,
    /// Turned away by a node under pressure.
    pub rejected: usize,
}

/// Running kubelets; they end when dropped.
pub struct Pressure {
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

struct Inner {
    client: Client,
    options: Options,
    state: Mutex<State>,
    evicted: AtomicUsize,
    rejected: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// By namespace and name.
    pods: BTreeMap<(String, String), Occupant>,
    /// Allocatable bytes by name.
    nodes: BTreeMap<String, i64>,
    pressed: BTreeMap<String, Pressed>,
    /// UIDs of all pods with the annotation.
    created: BTreeSet<String>,
    /// Pods of the list that is being read.
    listed: BTreeSet<(String, String)>,
}

impl Pressure {
    /// Starts to play the kubelets of all nodes.
    pub fn start(client: Client, options: Options) -> Self {
        let inner = Arc::new(Inner {
            client,
            options,
            state: Mutex::default(),
            evicted: AtomicUsize::default(),
            rejected: AtomicUsize::default(),
        });
        let task = tokio::spawn(run(Arc::clone(&inner)));
        Self { inner, task }
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        Counts {
            created: self.inner.state.lock().created.len(),
            evicted: self.inner.evicted.load(Ordering::Relaxed),
            rejected: self.inner.rejected.load(Ordering::Relaxed),
        }
    }

    /// Nodes whose pods use more memory than they have.
    pub fn overcommitted(&self) -> usize {
        let state = self.inner.state.lock();
        let over = |(name, allocatable): (&String, &i64)| state.used(name) > *allocatable;
        state.nodes.iter().filter(|node| over(*node)).count()
    }
}

impl Drop for Pressure {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(inner: Arc<Inner>) {
    let pods = Api::<Pod>::all(inner.client.clone());
    let nodes = Api::<Node>::all(inner.client.clone());
    let living = Config::default().fields("status.phase!=Succeeded,status.phase!=Failed");
    let pods = follow(watcher(pods, living), |event| inner.state.lock().pod(event));
    let nodes = follow(watcher(nodes, Config::default()), |event| inner.state.lock().node(event));
    futures::join!(pods, nodes, looks(&inner));
}

async fn follow<K>(
    stream: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    fold: impl Fn(Event<K>),
) {
    let mut stream = std::pin::pin!(stream.default_backoff());
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => fold(event),
            Err(error) => tracing::debug!(%error, "watch starts again"),
        }
    }
}

impl State {
    fn pod(&mut self, event: Event<Pod>) {
        let key = |pod: &Pod| (pod.namespace().unwrap_or_default(), pod.name_any());
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(pod) => {
                self.listed.insert(key(&pod));
                self.pod(Event::Apply(pod));
            }
            Event::InitDone => self.pods.retain(|key, _| self.listed.contains(key)),
            Event::Apply(pod) => {
                if pod.annotations().contains_key(USE_MEMORY) {
                    self.created.insert(pod.uid().unwrap_or_default());
                }
                let key = key(&pod);
                let known_since = self.pods.get(&key).filter(|old| old.is(&pod));
                let since = known_since.and_then(|old| old.since);
                match Occupant::of(&pod, since) {
                    Some(occupant) => drop(self.pods.insert(key, occupant)),
                    None => drop(self.pods.remove(&key)),
                }
            }
            Event::Delete(pod) => drop(self.pods.remove(&key(&pod))),
        }
    }

    fn node(&mut self, event: Event<Node>) {
        match event {
            Event::Init => self.nodes.clear(),
            Event::Apply(node) | Event::InitApply(node) => {
                // Nodes that kwok plays are kubelets; others are left alone.
                let ours = node.annotations().contains_key("kwok.x-k8s.io/node");
                let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
                let memory = allocatable.and_then(|list| node::bytes(list.get("memory")?));
                if let Some(memory) = memory.filter(|_| ours) {
                    self.nodes.insert(node.name_any(), memory);
                }
            }
            Event::Delete(node) => {
                self.nodes.remove(&node.name_any());
                self.pressed.remove(&node.name_any());
            }
            Event::InitDone => {}
        }
    }

    fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Occupant> {
        self.pods.values().filter(move |pod| pod.node == node && pod.since.is_some())
    }

    fn used(&self, node: &str) -> i64 {
        self.on(node).map(Occupant::used).sum()
    }
}

async fn looks(inner: &Inner) {
    let mut ticks = tokio::time::interval(inner.options.look);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let names: Vec<String> = inner.state.lock().nodes.keys().cloned().collect();
        futures::future::join_all(names.iter().map(|name| look(inner, name))).await;
    }
}

/// One look at a node.
async fn look(inner: &Inner, name: &str) {
    let now = Instant::now();
    let verdict = {
        let state = inner.state.lock();
        let Some(allocatable) = state.nodes.get(name) else { return };
        let pressed = state.pressed.get(name).copied();
        let pods: Vec<&Occupant> = state.on(name).collect();
        judge(*allocatable, &pods, pressed, now, inner.options.transition)
    };
    match verdict {
        Verdict::Calm => {}
        Verdict::Relieved => {
            inner.state.lock().pressed.remove(name);
            condition(inner, name, false).await;
        }
        Verdict::Pressed { over, evict, reject } => {
            let fresh = {
                let mut state = inner.state.lock();
                let before = state.pressed.get(name).copied();
                let began = before.map_or(now, |before| before.began);
                let last = before.filter(|_| !over).map_or(now, |before| before.last);
                state.pressed.insert(name.to_owned(), Pressed { began, last });
                before.is_none()
            };
            if fresh {
                condition(inner, name, true).await;
            }
            for (pod, message) in reject {
                if end(inner, &pod, &message).await {
                    inner.rejected.fetch_add(1, Ordering::Relaxed);
                }
            }
            if let Some((pod, message)) = evict
                && end(inner, &pod, &message).await
            {
                inner.evicted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Says that the node is under pressure, or no longer.
async fn condition(inner: &Inner, name: &str, pressure: bool) {
    let (status, reason, message) = if pressure {
        ("True", "KubeletHasInsufficientMemory", "kubelet has insufficient memory available")
    } else {
        ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available")
    };
    let condition = json!({
        "type": "MemoryPressure", "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": moment(), "lastTransitionTime": moment(),
    });
    let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
    let nodes = Api::<Node>::all(inner.client.clone());
    if let Err(error) = nodes.patch_status(name, &PatchParams::default(), &patch).await {
        tracing::debug!(name, %error, "no condition");
    }
}

/// Ends a pod as the kubelet's eviction manager does; says whether it was there.
async fn end(inner: &Inner, pod: &Occupant, message: &str) -> bool {
    let changed = |kind: &str, status: &str, reason: &str| -> Value {
        json!({"type": kind, "status": status, "reason": reason, "lastTransitionTime": moment()})
    };
    let patch = json!({
        "metadata": {"uid": pod.uid},
        "status": {
            "phase": "Failed", "reason": "Evicted", "message": message,
            "conditions": [
                changed("DisruptionTarget", "True", "TerminationByKubelet"),
                changed("Ready", "False", "PodFailed"),
                changed("ContainersReady", "False", "PodFailed"),
            ],
        },
    });
    let pods = Api::<Pod>::namespaced(inner.client.clone(), &pod.namespace);
    let patched =
        pods.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
    // Until the watch tells, it must not be ended twice.
    inner.state.lock().pods.remove(&(pod.namespace.clone(), pod.name.clone()));
    patched.is_ok()
}

fn moment() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
