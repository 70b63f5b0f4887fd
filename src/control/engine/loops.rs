//! The guard against eviction loops: what it knows is folded from pods, and what follows from it is
//! told to people and to the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Engine;
use crate::cloud::Cloud;
use crate::cluster::{Change, Event, Snapshot};
use crate::control::Clock;
use crate::guard::{Guard, Loop, WINDOW};
use crate::model::failure::{Failure, Owner};
use crate::model::resources::Resources;
use crate::model::workload::{Workload, WorkloadKind, cron_job_of};
use crate::server::{About, ApiServer};
use crate::telemetry::metrics::FailureLabel;

/// Reason of the Events.
const REASON: &str = "EvictionLoop";

/// What is known of pods that fail.
#[derive(Default)]
pub(super) struct Loops {
    guard: Guard,
    stops: BTreeMap<Owner, Stop>,
    told: BTreeSet<Owner>,
}

/// A workload that gets no room ahead.
struct Stop {
    /// Its latest failure.
    last: Arc<Failure>,
    /// Generation of its spec by then: another one deserves another try.
    generation: i64,
}

impl Loops {
    /// Looks at the loops as they are at `now`, and names the workloads that get no room ahead of
    /// their pods, by UID.
    fn stopped(&mut self, snapshot: &Snapshot, now: i64) -> BTreeSet<Arc<str>> {
        let mut owners = BTreeSet::new();
        let mut stops = BTreeMap::new();
        for Loop { owner, last, .. } in self.guard.loops(now) {
            let workloads = workloads_of(snapshot, owner);
            let Some(workload) = workloads.first() else { continue };
            let old = self.stops.remove(owner).filter(|old| Arc::ptr_eq(&old.last, last));
            let generation = old.map_or(workload.generation, |old| old.generation);
            if generation == workload.generation {
                owners.extend(workloads.iter().map(|workload| Arc::clone(&workload.uid)));
            }
            stops.insert(owner.clone(), Stop { last: Arc::clone(last), generation });
        }
        self.stops = stops;
        owners
    }

    /// Loops that nobody has been told of yet, as what to tell.
    fn news(&mut self, now: i64) -> Vec<(Arc<Failure>, String)> {
        let looping: BTreeSet<&Owner> = self.guard.loops(now).map(|found| found.owner).collect();
        self.told.retain(|owner| looping.contains(owner));
        let news: Vec<_> = self
            .guard
            .loops(now)
            .filter(|found| !self.told.contains(found.owner))
            .map(|found| (Arc::clone(found.last), message(&self.guard, &found, now)))
            .collect();
        self.told.extend(news.iter().map(|(last, _)| last.owner.clone()));
        news
    }
}

/// The workloads whose failures are counted together, the one that people know first: a CronJob comes
/// before its runs.
fn workloads_of<'a>(snapshot: &'a Snapshot, owner: &Owner) -> Vec<&'a Arc<Workload>> {
    let named = |kind| snapshot.workload(kind, &owner.namespace, &owner.name);
    let Some(kind) = WorkloadKind::parse(&owner.kind) else { return Vec::new() };
    if kind != WorkloadKind::Job {
        return named(kind).into_iter().collect();
    }
    let runs = snapshot.workloads.iter().filter(|((kind, (namespace, name)), _)| {
        *kind == WorkloadKind::Job
            && *namespace == owner.namespace
            && cron_job_of(name) == Some(&*owner.name)
    });
    let alone = [WorkloadKind::CronJob, kind].into_iter().filter_map(named);
    alone.chain(runs.map(|(_, workload)| workload)).collect()
}

fn message(guard: &Guard, found: &Loop<'_>, now: i64) -> String {
    let Owner { kind, name, .. } = found.owner;
    let containers = found.last.shortages.iter().map(|shortage| {
        let show = |amount| Resources::format_amount(shortage.resource, amount);
        let floor = guard.floor(found.owner, &shortage.container, shortage.resource, now);
        format!(
            "container {:?} used {} of {} or more, with a request of {}: set {} or more",
            shortage.container,
            show(shortage.used),
            shortage.resource,
            show(shortage.request),
            show(floor.map_or(shortage.used, |floor| floor.amount)),
        )
    });
    format!(
        "pods of {kind} {name} were evicted or OOM-killed {} times in {} min; {}. No room is kept \
         ahead for its pods until they are calm for that long or its spec changes",
        found.failures,
        WINDOW / 60,
        containers.collect::<Vec<_>>().join("; "),
    )
}

impl<A: ApiServer, C: Cloud, K: Clock> Engine<A, C, K> {
    /// Folds the failures that changes of pods tell.
    pub(super) fn note_pod_failures(&mut self, event: &Event) {
        let pods = match event {
            Event::Pods(Change::Upsert(pod)) => std::slice::from_ref(pod),
            Event::Pods(Change::Replace(pods)) => pods.as_slice(),
            _ => return,
        };
        for failure in pods.iter().filter_map(|pod| pod.failure.as_ref()) {
            self.note_failure(failure);
        }
    }

    /// Folds one failure.
    pub(super) fn note_failure(&mut self, failure: &Arc<Failure>) {
        let now = self.now();
        if self.loops.guard.fold(failure, now) {
            let label = FailureLabel { kind: failure.kind.name() };
            self.context.metrics.pod_failures.get_or_create(&label).inc();
        }
    }

    /// Tells the ledger who gets no room ahead.
    pub(super) fn stop_loops(&mut self, snapshot: &Snapshot, now: i64) {
        self.ledger.stop(self.loops.stopped(snapshot, now));
    }

    /// Writes an Event on the workload and its latest pod when a loop begins.
    pub(super) fn tell_loops(&mut self, snapshot: &Snapshot, now: i64) {
        let news = self.loops.news(now);
        let looping = i64::try_from(self.loops.told.len()).unwrap_or(i64::MAX);
        self.context.metrics.eviction_loops.set(looping);
        for (last, message) in news {
            tracing::warn!(namespace = &*last.owner.namespace, message, "eviction loop");
            let pod = About {
                api_version: "v1",
                kind: "Pod",
                namespace: last.owner.namespace.to_string(),
                name: last.pod.to_string(),
                uid: last.uid.to_string(),
            };
            let workloads = workloads_of(snapshot, &last.owner);
            let workload = workloads.first().map(|workload| About::workload(workload));
            for about in workload.into_iter().chain([pod]) {
                let (context, message) = (self.context.clone(), message.clone());
                self.spawn(async move { context.warn(about, REASON, message).await });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::State;

    fn failure(pod: u32, at: i64) -> Arc<Failure> {
        Arc::new(Failure::of_web(&format!("web-{pod}"), at, 1 << 30))
    }

    fn snapshot(generation: i64) -> Snapshot {
        let mut state = State::default();
        let workload = Workload {
            kind: WorkloadKind::Deployment,
            namespace: "shop".into(),
            name: "web".into(),
            uid: "w".into(),
            generation,
            owner: None,
            desired: 5,
            template: Arc::default(),
            deleted_at: None,
        };
        let change = Change::Replace(vec![workload]);
        state.apply(Event::Workloads(WorkloadKind::Deployment, change));
        state.snapshot()
    }

    #[test]
    fn a_loop_stops_reservations_until_it_is_calm_or_the_spec_changes() {
        let mut loops = Loops::default();
        let stopped = |loops: &mut Loops, generation: i64, now: i64| {
            loops.stopped(&snapshot(generation), now).contains("w")
        };
        for pod in 0..2 {
            loops.guard.fold(&failure(pod, 0), 0);
        }
        assert!(!stopped(&mut loops, 1, 0));
        loops.guard.fold(&failure(2, 1), 1);
        assert!(stopped(&mut loops, 1, 1));
        assert!(!stopped(&mut loops, 2, 2), "another spec");
        assert!(stopped(&mut loops, 1, 2), "the same again");
        // The new spec loops as well.
        loops.guard.fold(&failure(3, 3), 3);
        assert!(stopped(&mut loops, 2, 3));
        assert!(!stopped(&mut loops, 2, 3 + WINDOW), "calm");
    }

    #[test]
    fn the_runs_of_a_cron_job_stop_together() {
        let mut state = State::default();
        let workload = |kind: WorkloadKind, name: &str, uid: &str| Workload {
            kind,
            name: name.into(),
            uid: uid.into(),
            ..Workload::clone(snapshot(1).workloads.values().next().unwrap())
        };
        for (kind, list) in [
            (WorkloadKind::CronJob, vec![workload(WorkloadKind::CronJob, "nightly", "c")]),
            (
                WorkloadKind::Job,
                vec![
                    workload(WorkloadKind::Job, "nightly-29340000", "j1"),
                    workload(WorkloadKind::Job, "nightly-29340001", "j2"),
                    workload(WorkloadKind::Job, "other-29340001", "j3"),
                ],
            ),
        ] {
            state.apply(Event::Workloads(kind, Change::Replace(list)));
        }
        let snapshot = state.snapshot();
        let mut loops = Loops::default();
        for pod in 0..3 {
            let mut failure = Failure::clone(&failure(pod, 0));
            failure.owner = Owner::new("shop", "Job", "nightly");
            loops.guard.fold(&Arc::new(failure), 0);
        }
        let stopped = loops.stopped(&snapshot, 1);
        assert_eq!(stopped, ["c", "j1", "j2"].into_iter().map(Arc::from).collect());
        let about = workloads_of(&snapshot, &Owner::new("shop", "Job", "nightly"));
        assert_eq!(about.first().map(|w| w.kind), Some(WorkloadKind::CronJob), "people know it");
    }

    #[test]
    fn a_loop_is_told_once_each_time() {
        let mut loops = Loops::default();
        for pod in 0..5 {
            loops.guard.fold(&failure(pod, 0), 0);
        }
        let news = loops.news(0);
        let [(last, message)] = &news[..] else { panic!("{news:?}") };
        assert_eq!(&*last.owner.name, "web");
        for part in [
            "pods of Deployment web were evicted or OOM-killed 5 times in 10 min",
            "container \"app\" used 1Gi of memory or more, with a request of 0: set 1229Mi or more",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert!(loops.news(1).is_empty());
        assert!(loops.news(WINDOW).is_empty() && loops.told.is_empty());
        for pod in 10..13 {
            loops.guard.fold(&failure(pod, WINDOW), WINDOW);
        }
        assert_eq!(loops.news(WINDOW).len(), 1);
    }
}
