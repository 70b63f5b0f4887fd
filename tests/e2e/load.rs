//! Pods made through the API server again and again, none of which may be refused or left as it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};
use testbed::plane::Plane;
use testbed::poll;
use tokio::task::JoinHandle;

use super::submit::{Answer, dry_pod};
use super::world::DEADLINE;

/// Requests at the same time, and the time between two of each: 200 a second, as far as the machine
/// keeps up.
const WORKERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(40);
/// Failures after which there is no need to go on.
const ENOUGH: usize = 100;

const POLICY: &str = "
apiVersion: harbinger.sh/v1alpha1
kind: RequestPolicy
metadata: {name: default}
spec:
  rules:
  - {resource: cpu, action: Default, default: 100m}
  - {resource: memory, action: Default, default: 128Mi}
";

/// A running load.
pub(crate) struct Load {
    tally: Arc<Tally>,
    tasks: Vec<JoinHandle<()>>,
    started: Instant,
}

/// What a load met.
#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    pods: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

/// What a load has met in the end.
#[derive(Debug)]
pub(crate) struct Met {
    pub pods: usize,
    pub failures: Vec<String>,
    pub took: Duration,
}

impl Load {
    /// Applies a policy, waits until it is in force, and starts.
    pub(crate) async fn start(plane: &Plane) -> Result<Self> {
        plane.kubectl(&["apply", "-f", "-"], POLICY).await?;
        let client = plane.client();
        let namespace = plane.namespace("load").await?;
        poll::until("policy in force", DEADLINE, async || {
            let answer = dry_pod(&client, &namespace, &bare()).await?;
            fault(&answer).map_or(Ok(()), |why| anyhow::bail!(why))
        })
        .await?;
        let tally = Arc::new(Tally::default());
        let worker =
            |_| tokio::spawn(create(client.clone(), namespace.clone(), Arc::clone(&tally)));
        let tasks = (0..WORKERS).map(worker).collect();
        Ok(Self { tally, tasks, started: Instant::now() })
    }

    /// Fails once there is no need to go on.
    pub(crate) fn ensure_worth_it(&self) -> Result<()> {
        let failed = self.tally.failures.lock();
        anyhow::ensure!(failed.len() < ENOUGH, "{} failures: {:#?}", failed.len(), failed.first());
        Ok(())
    }

    /// Stops.
    pub(crate) async fn end(self) -> Result<Met> {
        self.tally.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await?;
        }
        Ok(Met {
            pods: self.tally.pods.load(Ordering::Relaxed),
            failures: std::mem::take(&mut *self.tally.failures.lock()),
            took: self.started.elapsed(),
        })
    }
}

/// How often a test repeats what it is about: `HARBINGER_REPEAT`, else a few times.
pub(crate) fn repeat(few: usize) -> usize {
    let asked = std::env::var("HARBINGER_REPEAT").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(few)
}

fn bare() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "bare-"},
        "spec": {"containers": [{"name": "c", "image": "c"}]},
    })
}

/// What is wrong with an answer.
fn fault(answer: &Answer) -> Option<String> {
    let cured = answer.request("containers", 0, "cpu") == Some("100m");
    (answer.code != 201 || !cured).then(|| format!("{} {}", answer.code, answer.object))
}

async fn create(client: Client, namespace: String, tally: Arc<Tally>) {
    let mut ticks = tokio::time::interval(PAUSE);
    while !tally.stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let why = match dry_pod(&client, &namespace, &bare()).await {
            Ok(answer) => fault(&answer),
            Err(error) => Some(format!("{error:#}")),
        };
        tally.pods.fetch_add(1, Ordering::Relaxed);
        tally.failures.lock().extend(why);
    }
}
