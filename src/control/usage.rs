//! Learning what containers use: the leader asks `metrics.k8s.io`, folds what it hears into the book,
//! and keeps the book in the API server.
//!
//! Metrics may be absent, for a while or for ever: then nothing new is learned but kills, and what is
//! known stays. What a leader has heard since its last checkpoint is lost with it: at most ten
//! minutes of samples, which the next pods use again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::{Clock, Context, Outcome};
use crate::cluster::Snapshot;
use crate::model::digest::hex;
use crate::model::failure::Failure;
use crate::model::pod::{Pod, PodPhase};
use crate::model::resources::MEMORY;
use crate::server::{ApiError, ApiServer, PodUsage, Profile};
use crate::usage::{Book, Sample, Subject, instance};

/// Namespaces that are written in one round, of some hundreds of kilobytes each at most.
const MOST_WRITES: usize = 50;

/// Failures that wait for this process to lead and to have read what is known.
const MOST_PENDING: usize = 4096;

/// Share of a node's allocatable cpu in thousandths from which containers are taken to want more than
/// they get.
const SATURATED: i64 = 950;

/// Taint of a node that is about to evict pods for its memory.
const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";

/// How often things are done.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Time between samples. Days of evidence are counted for one a minute.
    pub every: Duration,
    /// Time between checkpoints of one namespace.
    pub checkpoint: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { every: Duration::from_mins(1), checkpoint: Duration::from_mins(10) }
    }
}

/// Learns while this process leads. `failures` are those of pods that ended; containers that were
/// killed and started again are in the snapshot.
pub async fn run<A: ApiServer, C, K: Clock>(
    context: Context<A, C, K>,
    settings: Settings,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    mut failures: mpsc::Receiver<Vec<Arc<Failure>>>,
    lead: watch::Receiver<bool>,
) {
    let mut learner = Learner::default();
    let mut ticks = tokio::time::interval(settings.every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(more) = failures.recv() => {
                learner.pend(more);
                continue;
            }
        }
        let snapshot = Arc::clone(&snapshots.borrow());
        if *lead.borrow() && snapshot.synced {
            learner.round(&context, settings, snapshot).await;
        }
    }
}

#[derive(Default)]
struct Learner {
    /// Absent until what earlier leaders knew has been read.
    book: Option<Book>,
    pending: Vec<Arc<Failure>>,
    /// What was written of namespaces.
    written: BTreeMap<Arc<str>, Written>,
    /// Namespaces with kills that are not written.
    urgent: BTreeSet<Arc<str>>,
    /// Whether the absence of metrics has been told.
    told: bool,
}

/// What was written of a namespace: digests of its parts, and when they were looked at last, seconds
/// since the epoch.
#[derive(Default)]
struct Written {
    parts: Vec<String>,
    at: i64,
}

impl Learner {
    fn pend(&mut self, more: Vec<Arc<Failure>>) {
        self.pending.extend(more);
        let surplus = self.pending.len().saturating_sub(MOST_PENDING);
        self.pending.drain(..surplus);
    }

    async fn round<A: ApiServer, C, K: Clock>(
        &mut self,
        context: &Context<A, C, K>,
        settings: Settings,
        snapshot: Arc<Snapshot>,
    ) {
        let Some(mut book) = self.take(context).await else { return };
        let used = self.ask(context).await;
        let mut failures = std::mem::take(&mut self.pending);
        failures.extend(snapshot.pods.values().filter_map(|pod| pod.failure.clone()));
        let now = context.clock.now().as_second();
        let folded = tokio::task::spawn_blocking(move || {
            observe(&mut book, &snapshot, &used, now);
            let killed = failures.iter().filter(|failure| kill(&mut book, failure));
            let killed: BTreeSet<Arc<str>> =
                killed.map(|failure| Arc::clone(&failure.owner.namespace)).collect();
            let gone: Vec<Arc<str>> = book
                .namespaces()
                .filter(|n| !snapshot.namespaces.contains_key(*n))
                .cloned()
                .collect();
            for namespace in &gone {
                book.forget(namespace);
            }
            (book, killed, gone)
        });
        match folded.await {
            Ok((book, killed, gone)) => {
                for namespace in gone {
                    // Its profiles go with it.
                    self.written.remove(&namespace);
                }
                self.urgent.extend(killed);
                context.metrics.usage_containers.set(i64::try_from(book.len()).unwrap_or(i64::MAX));
                let book = Arc::new(book);
                self.write(context, settings, &book, now).await;
                self.book = Arc::into_inner(book);
            }
            // What was written is read again.
            Err(error) => {
                tracing::error!(%error, "what was learned since the last checkpoint is lost");
            }
        }
    }

    /// The book; at first what earlier leaders wrote of it.
    async fn take<A: ApiServer, C, K>(&mut self, context: &Context<A, C, K>) -> Option<Book> {
        if let Some(book) = self.book.take() {
            return Some(book);
        }
        let profiles = match context.api.profiles().await {
            Ok(profiles) => profiles,
            Err(error) => {
                let outcome = Outcome::Failed(error.to_string());
                context.record("read_profiles", "demandprofiles", &outcome);
                return None;
            }
        };
        let mut book = Book::default();
        self.written.clear();
        for profile in profiles {
            if let Err(error) = book.restore(&profile.namespace, &profile.data) {
                let object = format!("{}/{}", profile.namespace, profile.name);
                tracing::warn!(object, %error, "profile is read in part and written anew");
            }
            let written = self.written.entry(profile.namespace.as_str().into()).or_default();
            let place = place_of(&profile.name).unwrap_or(0);
            written.parts.resize(written.parts.len().max(place + 1), String::new());
            written.parts[place] = hex(&profile.data, 8);
        }
        context.record("read_profiles", "demandprofiles", &Outcome::Applied);
        Some(book)
    }

    /// What pods use now. Without an answer nothing: that is told once, until there is one again.
    async fn ask<A: ApiServer, C, K>(&mut self, context: &Context<A, C, K>) -> Vec<PodUsage> {
        let answer = context.api.usage().await;
        context.metrics.usage_source_up.set(i64::from(answer.is_ok()));
        match answer {
            Ok(used) => {
                self.told = false;
                used
            }
            Err(error) => {
                context.record("read_usage", "metrics.k8s.io", &Outcome::Skipped);
                if !self.told {
                    let why = match error {
                        ApiError::NotFound => "it is not installed".to_owned(),
                        error => error.to_string(),
                    };
                    tracing::warn!(
                        why,
                        "metrics.k8s.io does not answer; use is not learned until it does"
                    );
                    self.told = true;
                }
                Vec::new()
            }
        }
    }

    /// Writes the namespaces whose turn it is, those with kills first, those without any container
    /// that is still known last.
    async fn write<A: ApiServer, C, K>(
        &mut self,
        context: &Context<A, C, K>,
        settings: Settings,
        book: &Arc<Book>,
        now: i64,
    ) {
        let due = now - i64::try_from(settings.checkpoint.as_secs()).unwrap_or(i64::MAX);
        let is_due = |namespace: &&Arc<str>| {
            !self.urgent.contains(*namespace)
                && self.written.get(*namespace).is_none_or(|written| written.at <= due)
        };
        let turn: Vec<Arc<str>> = self
            .urgent
            .iter()
            .chain(book.namespaces().filter(is_due))
            .chain(self.written.keys().filter(|namespace| !book.knows(namespace)))
            .take(MOST_WRITES)
            .cloned()
            .collect();
        for namespace in turn {
            let written = self.written.entry(Arc::clone(&namespace)).or_default();
            match write(context, book, &namespace, written).await {
                Ok(()) => {
                    written.at = now;
                    self.urgent.remove(&namespace);
                    if !book.knows(&namespace) {
                        self.written.remove(&namespace);
                    }
                }
                Err(error) => {
                    let outcome = Outcome::Failed(error.to_string());
                    context.record("write_profile", &namespace, &outcome);
                }
            }
        }
    }
}

/// Name of a part of a namespace's profile.
fn name_of(place: usize) -> String {
    format!("usage-{place}")
}

fn place_of(name: &str) -> Option<usize> {
    name.strip_prefix("usage-")?.parse().ok().filter(|place| *place < 1000)
}

/// Writes the parts of a namespace that differ from what was written.
async fn write<A: ApiServer, C, K>(
    context: &Context<A, C, K>,
    book: &Arc<Book>,
    namespace: &Arc<str>,
    written: &mut Written,
) -> Result<(), ApiError> {
    let (of, name) = (Arc::clone(book), Arc::clone(namespace));
    let parts = tokio::task::spawn_blocking(move || of.checkpoint(&name)).await;
    let parts = parts.map_err(|error| ApiError::Transient(error.to_string()))?;
    let count = parts.len();
    written.parts.resize(written.parts.len().max(count), String::new());
    for (place, part) in parts.into_iter().enumerate() {
        let digest = hex(&part.data, 8);
        if written.parts[place] == digest {
            continue;
        }
        let profile = Profile {
            namespace: namespace.to_string(),
            name: name_of(place),
            containers: part.containers,
            data: part.data,
        };
        context.api.write_profile(&profile).await?;
        written.parts[place] = digest;
    }
    while written.parts.len() > count {
        context.api.delete_profile(namespace, &name_of(written.parts.len() - 1)).await?;
        written.parts.pop();
    }
    Ok(())
}

/// Folds what pods use into the book.
fn observe(book: &mut Book, snapshot: &Snapshot, used: &[PodUsage], now: i64) {
    let pod_of = |usage: &PodUsage| {
        let key = (Arc::from(usage.namespace.as_str()), Arc::from(usage.name.as_str()));
        snapshot.pods.get(&key)
    };
    let mut node_cpu: BTreeMap<&str, i64> = BTreeMap::new();
    let pods: Vec<(&PodUsage, &Pod)> =
        used.iter().filter_map(|usage| Some((usage, &**pod_of(usage)?))).collect();
    for (usage, pod) in &pods {
        if let Some(node) = &pod.node_name {
            let cpu: i64 = usage.containers.iter().map(|(_, cpu, _)| *cpu).sum();
            *node_cpu.entry(node).or_insert(0) += cpu;
        }
    }
    for (usage, pod) in pods {
        if pod.phase != PodPhase::Running || pod.mirror {
            continue;
        }
        let node = pod.node_name.as_ref().and_then(|name| snapshot.nodes.get(name));
        let starved_cpu = node.is_some_and(|node| {
            let most = node.allocatable.cpu.saturating_mul(SATURATED) / 1000;
            most > 0 && node_cpu.get(&*node.name).is_some_and(|cpu| *cpu >= most)
        });
        let starved_memory =
            node.is_some_and(|node| node.taints.iter().any(|taint| &*taint.key == MEMORY_PRESSURE));
        for (container, cpu, memory) in &usage.containers {
            let image = pod.images.iter().find(|(name, _)| **name == **container);
            let Some((_, image)) = image else { continue };
            let controller = pod.owner.as_ref().map(|owner| (&*owner.kind, &*owner.name));
            let subject = Subject::new(controller, &pod.name, &pod.shape.labels, container, image);
            let sample = Sample {
                namespace: &usage.namespace,
                keys: subject.keys(),
                instance: instance(&pod.uid, container),
                created_at: pod.created_at,
                cpu: *cpu,
                memory: *memory,
                starved_cpu,
                starved_memory,
            };
            book.observe(&sample, now);
        }
    }
}

/// Folds a failure into the book; says whether it was one for lack of memory that was not known.
fn kill(book: &mut Book, failure: &Failure) -> bool {
    let owner = (&*failure.owner.kind, &*failure.owner.name);
    let mut changed = false;
    for shortage in failure.shortages.iter().filter(|shortage| shortage.resource == MEMORY) {
        let container = &*shortage.container;
        let keys = Subject { owner, container, ..Subject::default() }.keys();
        let place = instance(&failure.uid, container);
        changed |= book.killed(&failure.owner.namespace, &keys, place, shortage.used, failure.at);
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Change, Event, State};
    use crate::model::labels::Labels;
    use crate::model::node::Node;
    use crate::model::pod::{OwnerRef, PodShape};
    use crate::model::resources::Resources;
    use crate::model::taints::{Taint, TaintEffect};
    use crate::usage::{Estimate, Estimates, Level, Measure, Namespace};

    const NOW: i64 = 1_800_000_000;
    const MEBI: i64 = 1 << 20;

    fn web<'a>() -> Subject<'a> {
        let owner = ("Deployment", "web");
        Subject { owner, revision: "5d9c", container: "app", image: "web:1" }
    }

    /// A pod of the Deployment `web` on a node with two cores.
    fn snapshot(taints: Vec<Taint>) -> Snapshot {
        let labels = Labels::from([("pod-template-hash".to_owned(), "5d9c".to_owned())]);
        let shape = PodShape { namespace: "shop".into(), labels, ..PodShape::default() };
        let pod = Pod {
            name: "web-1".into(),
            uid: "u".into(),
            shape: Arc::new(shape),
            owner: Some(OwnerRef {
                kind: "ReplicaSet".into(),
                name: "web-5d9c".into(),
                uid: "r".into(),
            }),
            node_name: Some("n".into()),
            phase: PodPhase::Running,
            created_at: NOW,
            images: Arc::new(vec![("app".into(), "web:1".into())]),
            ..Pod::default()
        };
        let allocatable = Resources::new(2000, 4096 * MEBI);
        let node = Node { name: "n".into(), allocatable, taints, ..Node::default() };
        let mut state = State::default();
        state.apply(Event::Pods(Change::Replace(vec![pod])));
        state.apply(Event::Nodes(Change::Replace(vec![node])));
        state.snapshot()
    }

    fn used(cpu: i64, memory: i64) -> PodUsage {
        PodUsage {
            namespace: "shop".into(),
            name: "web-1".into(),
            containers: vec![("app".into(), cpu, memory), ("gone".into(), 1, 1)],
        }
    }

    fn memory(book: &Book) -> Option<Estimate> {
        let parts = book.checkpoint("shop");
        let (namespace, _) = Namespace::read(parts.iter().map(|part| &*part.data));
        let mut estimates = Estimates::default();
        estimates.set("shop", Some(Arc::new(namespace)));
        estimates.estimate("shop", &web(), Measure::Memory, 19, 64 * MEBI, NOW)
    }

    #[test]
    fn samples_belong_to_the_workload_that_people_know() {
        let snapshot = snapshot(Vec::new());
        let mut book = Book::default();
        let stranger = PodUsage { name: "other".into(), ..used(1, 1) };
        for minute in 0..120 {
            observe(
                &mut book,
                &snapshot,
                &[used(100, 500 * MEBI), stranger.clone()],
                NOW + minute * 60,
            );
        }
        assert_eq!(book.len(), 1, "neither the unknown pod nor the unknown container");
        let found = memory(&book).unwrap();
        assert!(matches!(found.level, Level::Own { .. }), "{found:?}");
        assert!(found.amount >= 500 * MEBI);
    }

    #[test]
    fn use_under_pressure_is_a_lower_bound() {
        let pressed = Taint::new(MEMORY_PRESSURE, TaintEffect::NoSchedule);
        let (calm, pressed) = (snapshot(Vec::new()), snapshot(vec![pressed]));
        let mut book = Book::default();
        // Nothing but lower bounds is no evidence of memory.
        observe(&mut book, &pressed, &[used(100, 500 * MEBI)], NOW);
        assert_eq!(memory(&book), None);
        observe(&mut book, &calm, &[used(100, 500 * MEBI)], NOW + 60);
        let before = memory(&book).unwrap().amount;
        observe(&mut book, &pressed, &[used(100, 100 * MEBI)], NOW + 120);
        assert_eq!(memory(&book).unwrap().amount, before);
        observe(&mut book, &pressed, &[used(100, 900 * MEBI)], NOW + 180);
        assert!(memory(&book).unwrap().amount >= 900 * MEBI);
    }

    #[test]
    fn cpu_on_a_full_node_is_a_lower_bound() {
        let snapshot = snapshot(Vec::new());
        let (mut free, mut full) = (Book::default(), Book::default());
        for minute in 0..600 {
            let at = NOW + minute * 60;
            observe(&mut free, &snapshot, &[used(300, MEBI)], at);
            observe(&mut full, &snapshot, &[used(300, MEBI)], at);
            // The neighbour takes what is left of two cores.
            let neighbour = PodUsage {
                containers: vec![("app".into(), 10, MEBI), ("neighbour".into(), 1900, 1)],
                ..used(0, 0)
            };
            observe(&mut full, &snapshot, &[neighbour], at + 30);
        }
        let cpu = |book: &Book| {
            let parts = book.checkpoint("shop");
            let (namespace, _) = Namespace::read(parts.iter().map(|part| &*part.data));
            let mut estimates = Estimates::default();
            estimates.set("shop", Some(Arc::new(namespace)));
            estimates.estimate("shop", &web(), Measure::Cpu, 1, 10, NOW).unwrap().amount
        };
        assert_eq!(cpu(&full), cpu(&free));
    }

    #[test]
    fn kills_are_learned_once() {
        let of_memory = Failure::of_web("web-1", NOW, 1024 * MEBI);
        let mut failure = of_memory.clone();
        failure.shortages[0].resource = "ephemeral-storage";
        let mut book = Book::default();
        assert!(!kill(&mut book, &failure), "not of memory");
        failure.shortages.extend(of_memory.shortages);
        assert!(kill(&mut book, &failure));
        assert!(!kill(&mut book, &failure));
        let found = memory(&book).unwrap();
        assert_eq!(found.level, Level::Killed);
        assert!(found.amount >= 1228 * MEBI);
        // The first sample does not undo it.
        observe(&mut book, &snapshot(Vec::new()), &[used(100, 300 * MEBI)], NOW + 60);
        assert_eq!(memory(&book).unwrap().level, Level::Killed);
    }

    #[test]
    fn parts_of_profiles_are_told_by_their_names() {
        assert_eq!(place_of(&name_of(17)), Some(17));
        assert_eq!(place_of("usage-1000000"), None);
        assert_eq!(place_of("web"), None);
    }
}
