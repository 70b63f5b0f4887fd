//! Keeping request policies compiled, for admission and for the provisioner alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use kube::ResourceExt;
use tokio::sync::{mpsc, watch};

use super::{SystemClock, rooms};
use crate::api::requestpolicy::RequestPolicy;
use crate::cluster::Change;
use crate::control::Clock as _;
use crate::guard::Guard;
use crate::k8s::usage::{self, Recommended};
use crate::k8s::watch::{Place, Watches};
use crate::model::digest::hex;
use crate::model::failure::Failure;
use crate::model::labels::Labels;
use crate::model::room::PoolRooms;
use crate::policy::{self, Action, Bounds, Policy, Snapshot};
use crate::server::ApiError;
use crate::usage::{Estimates, Namespace, Recommendation};

/// Changes that may wait to be folded; namespaces of a large cluster come in one list.
const QUEUE: usize = 256;

/// Time between looks at VerticalPodAutoscalers, which themselves look once a minute.
const RECOMMENDATIONS: Duration = Duration::from_mins(1);

/// How long a replica that has just started waits for what was learned before it decides without. A
/// source that never answers must not keep it from ever being ready.
const PATIENCE: Duration = Duration::from_secs(30);

enum Message {
    Policy(Box<Change<Arc<str>, RequestPolicy>>),
    Namespace(Change<Arc<str>, (Arc<str>, Labels)>),
    LimitRange(Change<Place, LimitRange>),
    Quota(Change<Place, ResourceQuota>),
    Rooms(Arc<[PoolRooms]>),
    Failures(Vec<Arc<Failure>>),
    Profile(Change<Place, (Place, Vec<u8>)>),
    Recommended(Vec<Recommended>),
}

/// What applies to all policies.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Namespaces whose pods are never touched.
    pub excluded: BTreeSet<String>,
    /// What a rule may do at most.
    pub max_action: Action,
}

/// A policy as it is stored, and what became of it.
#[derive(Clone, Debug)]
pub struct Held {
    /// The object.
    pub object: RequestPolicy,
    /// The policy, or why it cannot be used.
    pub compiled: Result<Policy, String>,
}

/// The policies as they are now.
#[derive(Clone)]
pub struct Policies {
    /// What decisions read.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// The policies by name, those that cannot be used too.
    pub held: Arc<ArcSwap<BTreeMap<Arc<str>, Arc<Held>>>>,
    /// Whether all that decisions read has been read once, or what was learned does not come.
    pub synced: Arc<AtomicBool>,
    /// Identifies the policies; changes with them, not with namespaces. Empty until listed.
    pub version: watch::Receiver<String>,
}

/// Watches policies and what they are judged by.
pub fn follow(watches: &Watches, rules: Rules) -> Policies {
    let (to, mut inbox) = mpsc::channel(QUEUE);
    watches.policies(&to, |change| Message::Policy(Box::new(change)));
    watches.namespaces(&to, Message::Namespace);
    watches.limit_ranges(&to, Message::LimitRange);
    watches.quotas(&to, Message::Quota);
    watches.failures(&to, Message::Failures);
    watches.profiles(&to, Message::Profile);
    watches.tracker.spawn(recommendations(watches.clone(), to.clone()));
    let (changed, changes) = watch::channel(());
    let (version, versions) = watch::channel(String::new());
    let policies = Policies {
        snapshot: Arc::default(),
        held: Arc::default(),
        synced: Arc::default(),
        version: versions,
    };
    let snapshots = Arc::clone(&policies.snapshot);
    rooms::follow(watches, snapshots, changes, to, Message::Rooms);
    let shared = policies.clone();
    watches.tracker.spawn(async move {
        let mut state = State::new(rules);
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    None => return,
                    Some(message) => state.fold(message),
                },
                () = &mut patience, if state.waits => {
                    state.waits = false;
                    let missing = state.missing();
                    if !missing.is_empty() {
                        tracing::warn!(?missing, "decisions do without what is not read yet");
                    }
                }
            }
            while let Ok(message) = inbox.try_recv() {
                state.fold(message);
            }
            state.learn().await;
            let next = state.snapshot();
            let name = next.version().to_owned();
            shared.snapshot.store(Arc::new(next));
            changed.send_replace(());
            shared.held.store(Arc::new(state.policies.clone()));
            if state.knows_enough() {
                shared.synced.store(true, Ordering::Release);
            }
            if state.knows_rules() {
                version.send_if_modified(|old| {
                    let changed = *old != name;
                    *old = name;
                    changed
                });
            }
        }
    });
    policies
}

/// Sends on what VerticalPodAutoscalers recommend when it changes, from time to time.
async fn recommendations(watches: Watches, to: mpsc::Sender<Message>) {
    let mut last: Option<Vec<Recommended>> = None;
    loop {
        let asked =
            watches.cancel.run_until_cancelled(usage::recommendations(&watches.client)).await;
        let found = match asked {
            None => return,
            Some(Ok(found)) => found,
            Some(Err(ApiError::NotFound)) => Vec::new(),
            Some(Err(error)) => {
                tracing::debug!(%error, "VerticalPodAutoscalers are not read");
                last.clone().unwrap_or_default()
            }
        };
        if last.as_ref() != Some(&found) {
            last = Some(found.clone());
            if to.send(Message::Recommended(found)).await.is_err() {
                return;
            }
        }
        let pause = tokio::time::sleep(RECOMMENDATIONS);
        if watches.cancel.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

/// LimitRanges and ResourceQuotas of one namespace, and what they come to.
#[derive(Default)]
struct OfNamespace {
    ranges: BTreeMap<Arc<str>, LimitRange>,
    quotas: BTreeMap<Arc<str>, ResourceQuota>,
}

struct State {
    rules: Rules,
    policies: BTreeMap<Arc<str>, Arc<Held>>,
    namespaces: Arc<BTreeMap<String, Labels>>,
    sources: BTreeMap<Arc<str>, OfNamespace>,
    bounds: BTreeMap<Arc<str>, Arc<Bounds>>,
    rooms: Arc<[PoolRooms]>,
    guard: Arc<Guard>,
    estimates: Arc<Estimates>,
    /// Profiles by namespace and name, as they are written.
    profiles: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Vec<u8>>>,
    /// Namespaces whose profiles have not been read since they changed.
    unread: BTreeSet<Arc<str>>,
    /// What has been read once.
    listed: BTreeSet<Source>,
    /// Whether what was learned is still waited for.
    waits: bool,
}

/// Where a decision's facts come from.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Source {
    // Rules: without one of these a decision may be wrong.
    Policies,
    Namespaces,
    LimitRanges,
    Quotas,
    // What was learned: without these a decision may be worse.
    Rooms,
    Failures,
    Profiles,
    Recommendations,
}

/// Sources without which nothing is decided.
const RULES: [Source; 4] =
    [Source::Policies, Source::Namespaces, Source::LimitRanges, Source::Quotas];

/// Sources that are waited for as long as patience lasts.
const LEARNED: [Source; 4] =
    [Source::Rooms, Source::Failures, Source::Profiles, Source::Recommendations];

impl State {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            policies: BTreeMap::new(),
            namespaces: Arc::default(),
            sources: BTreeMap::new(),
            bounds: BTreeMap::new(),
            rooms: Arc::new([]),
            guard: Arc::default(),
            estimates: Arc::default(),
            profiles: BTreeMap::new(),
            unread: BTreeSet::new(),
            listed: BTreeSet::new(),
            waits: true,
        }
    }

    fn knows_rules(&self) -> bool {
        RULES.iter().all(|source| self.listed.contains(source))
    }

    /// Whether decisions may begin.
    fn knows_enough(&self) -> bool {
        self.knows_rules() && (!self.waits || self.missing().is_empty())
    }

    fn missing(&self) -> Vec<Source> {
        let all = RULES.into_iter().chain(LEARNED);
        all.filter(|source| !self.listed.contains(source)).collect()
    }

    fn fold(&mut self, message: Message) {
        let source = match &message {
            Message::Policy(change) => change.is_list().then_some(Source::Policies),
            Message::Namespace(change) => change.is_list().then_some(Source::Namespaces),
            Message::LimitRange(change) => change.is_list().then_some(Source::LimitRanges),
            Message::Quota(change) => change.is_list().then_some(Source::Quotas),
            Message::Rooms(_) => Some(Source::Rooms),
            // The first message of a watch is its list.
            Message::Failures(_) => Some(Source::Failures),
            Message::Profile(change) => change.is_list().then_some(Source::Profiles),
            Message::Recommended(_) => Some(Source::Recommendations),
        };
        self.listed.extend(source);
        match message {
            Message::Policy(change) => match *change {
                Change::Upsert(policy) => self.hold(policy),
                Change::Delete(name) => {
                    self.policies.remove(&name);
                }
                Change::Replace(list) => {
                    let names: BTreeSet<String> = list.iter().map(ResourceExt::name_any).collect();
                    self.policies.retain(|name, _| names.contains(&**name));
                    for policy in list {
                        self.hold(policy);
                    }
                }
            },
            Message::Namespace(change) => {
                let namespaces = Arc::make_mut(&mut self.namespaces);
                match change {
                    Change::Upsert((name, labels)) => {
                        namespaces.insert(name.to_string(), labels);
                    }
                    Change::Delete(name) => {
                        namespaces.remove(&*name);
                    }
                    Change::Replace(list) => {
                        *namespaces = list
                            .into_iter()
                            .map(|(name, labels)| (name.to_string(), labels))
                            .collect();
                    }
                }
            }
            Message::LimitRange(change) => self.bound(change, |of| &mut of.ranges),
            Message::Quota(change) => self.bound(change, |of| &mut of.quotas),
            Message::Rooms(rooms) => self.rooms = rooms,
            Message::Profile(change) => self.profile(change),
            Message::Recommended(all) => self.recommend(&all),
            Message::Failures(failures) => {
                let now = SystemClock.now().as_second();
                for failure in failures {
                    Arc::make_mut(&mut self.guard).fold(&failure, now);
                }
            }
        }
    }

    fn profile(&mut self, change: Change<Place, (Place, Vec<u8>)>) {
        let changed = match change {
            Change::Upsert(profile) => vec![profile],
            Change::Delete((namespace, name)) => {
                if let Some(parts) = self.profiles.get_mut(&namespace) {
                    parts.remove(&name);
                }
                self.unread.insert(namespace);
                return;
            }
            Change::Replace(list) => {
                self.unread.extend(std::mem::take(&mut self.profiles).into_keys());
                list
            }
        };
        for ((namespace, name), data) in changed {
            self.profiles.entry(Arc::clone(&namespace)).or_default().insert(name, data);
            self.unread.insert(namespace);
        }
    }

    /// Reads the profiles that changed, beside the threads that wait: thousands of containers take
    /// milliseconds.
    async fn learn(&mut self) {
        for namespace in std::mem::take(&mut self.unread) {
            let parts = self.profiles.remove(&namespace).filter(|parts| !parts.is_empty());
            let Some(parts) = parts else {
                Arc::make_mut(&mut self.estimates).set(&namespace, None);
                continue;
            };
            let read = tokio::task::spawn_blocking(move || {
                let read = Namespace::read(parts.values().map(Vec::as_slice));
                (parts, read)
            });
            match read.await {
                Ok((parts, (read, bad))) => {
                    for error in bad {
                        tracing::warn!(%namespace, %error, "a profile is read in part");
                    }
                    Arc::make_mut(&mut self.estimates).set(&namespace, Some(Arc::new(read)));
                    self.profiles.insert(namespace, parts);
                }
                Err(error) => tracing::error!(%namespace, %error, "a profile is not read"),
            }
        }
    }

    fn recommend(&mut self, all: &[Recommended]) {
        let estimates = Arc::make_mut(&mut self.estimates);
        estimates.forget_recommendations();
        for of_namespace in all.chunk_by(|a, b| a.namespace == b.namespace) {
            let Some(first) = of_namespace.first() else { continue };
            let each = of_namespace.iter().map(|one| {
                let Recommended { owner: (kind, name), container, cpu, memory, .. } = one;
                ((&**kind, &**name), &**container, Recommendation { cpu: *cpu, memory: *memory })
            });
            estimates.recommend(&first.namespace, each);
        }
    }

    /// Compiles a policy that is new or changed. One that cannot be compiled counts as absent: others
    /// must go on working.
    fn hold(&mut self, object: RequestPolicy) {
        let name: Arc<str> = object.name_any().into();
        let old = self.policies.get(&name).filter(|old| old.object.spec == object.spec);
        let compiled = match old {
            Some(old) => old.compiled.clone(),
            None => policy::compile(&name, &object.spec).map_err(|error| {
                tracing::error!(policy = %name, %error, "request policy is ignored");
                error.to_string()
            }),
        };
        self.policies.insert(name, Arc::new(Held { object, compiled }));
    }

    /// Folds an object that bounds pods of its namespace.
    fn bound<T: ResourceExt>(
        &mut self,
        change: Change<Place, T>,
        list: fn(&mut OfNamespace) -> &mut BTreeMap<Arc<str>, T>,
    ) {
        let mut touched = BTreeSet::new();
        let objects = match change {
            Change::Upsert(object) => vec![object],
            Change::Delete((namespace, name)) => {
                if let Some(of) = self.sources.get_mut(&namespace) {
                    list(of).remove(&name);
                }
                touched.insert(namespace);
                Vec::new()
            }
            Change::Replace(objects) => {
                self.sources.values_mut().for_each(|of| list(of).clear());
                touched.extend(self.sources.keys().cloned());
                objects
            }
        };
        for object in objects {
            let namespace: Arc<str> = object.namespace().unwrap_or_default().into();
            let of = self.sources.entry(Arc::clone(&namespace)).or_default();
            list(of).insert(object.name_any().into(), object);
            touched.insert(namespace);
        }
        for namespace in touched {
            let of = self.sources.get(&namespace);
            if let Some(of) = of.filter(|of| !(of.ranges.is_empty() && of.quotas.is_empty())) {
                let bounds = Bounds::new(of.ranges.values(), of.quotas.values());
                self.bounds.insert(namespace, Arc::new(bounds));
            } else {
                self.sources.remove(&namespace);
                self.bounds.remove(&namespace);
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let mut compiled = Vec::new();
        let mut identity = String::from("v1");
        for (name, held) in &self.policies {
            if let Ok(policy) = &held.compiled {
                let generation = held.object.metadata.generation.unwrap_or_default();
                let part = format!(" {name}/{generation}");
                identity.push_str(&part);
                compiled.push(policy.clone());
            }
        }
        let version = hex(identity, 8);
        Snapshot::new(version, compiled, Arc::clone(&self.namespaces), self.rules.excluded.clone())
            .with_max_action(self.rules.max_action)
            .with_bounds(self.bounds.clone())
            .with_rooms(Arc::clone(&self.rooms))
            .with_guard(Arc::clone(&self.guard))
            .with_estimates(Arc::clone(&self.estimates))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_begin_with_all_rules_and_wait_some_time_for_what_was_learned() {
        let rules = Rules { excluded: BTreeSet::new(), max_action: Action::Deny };
        let mut state = State::new(rules);
        let learned: [fn() -> Message; 4] = [
            || Message::Rooms(Arc::new([])),
            || Message::Failures(Vec::new()),
            || Message::Profile(Change::Replace(Vec::new())),
            || Message::Recommended(Vec::new()),
        ];
        for message in learned {
            state.fold(message());
        }
        let of_rules: [fn() -> Message; 4] = [
            || Message::Policy(Box::new(Change::Replace(Vec::new()))),
            || Message::Namespace(Change::Replace(Vec::new())),
            || Message::LimitRange(Change::Replace(Vec::new())),
            || Message::Quota(Change::Replace(Vec::new())),
        ];
        for message in of_rules {
            state.waits = false;
            assert!(!state.knows_enough(), "{:?}", state.missing());
            state.waits = true;
            assert!(!state.knows_enough(), "{:?}", state.missing());
            state.fold(message());
        }
        assert!(state.knows_enough());
        for source in LEARNED {
            state.listed.remove(&source);
            state.waits = true;
            assert!(state.knows_rules() && !state.knows_enough(), "{source:?}");
            state.waits = false;
            assert!(state.knows_enough(), "{source:?}");
            state.listed.insert(source);
        }
        // An object before the list is no list.
        state.listed.remove(&Source::Quotas);
        state.fold(Message::Quota(Change::Delete(("n".into(), "q".into()))));
        assert_eq!(state.missing(), [Source::Quotas]);
    }

    /// An API server that serves no kinds of `groups`, and of all others has no objects.
    fn without(groups: &'static [&'static str]) -> kube::Client {
        let service = tower::service_fn(
            move |request: http::Request<kube::client::Body>| async move {
                let (path, query) =
                    (request.uri().path(), request.uri().query().unwrap_or_default());
                let absent =
                    groups.iter().any(|group| path.starts_with(&format!("/apis/{group}/")));
                if !absent && query.contains("watch=true") {
                    std::future::pending::<()>().await;
                }
                let (code, body) = if absent {
                    (
                        404,
                        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"no","reason":"NotFound","code":404}"#,
                    )
                } else {
                    (
                        200,
                        r#"{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}"#,
                    )
                };
                let body = kube::client::Body::from(body.as_bytes().to_vec());
                let response = http::Response::builder().status(code).body(body).unwrap();
                Ok::<_, std::convert::Infallible>(response)
            },
        );
        kube::Client::new(service, "default")
    }

    /// Time until decisions begin.
    async fn ready_after(groups: &'static [&'static str]) -> Duration {
        let tracker = tokio_util::task::TaskTracker::new();
        let cancel = tokio_util::sync::CancellationToken::new();
        let watches =
            Watches { client: without(groups), tracker: tracker.clone(), cancel: cancel.clone() };
        let start = tokio::time::Instant::now();
        let rules = Rules { excluded: BTreeSet::new(), max_action: Action::Deny };
        let policies = follow(&watches, rules);
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        while !policies.synced.load(Ordering::Acquire) && start.elapsed() < 2 * PATIENCE {
            ticks.tick().await;
        }
        cancel.cancel();
        tracker.close();
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_webhook_alone_is_ready_at_once() {
        let soon = Duration::from_secs(1);
        let nothing_to_learn =
            &["karpenter.sh", "karpenter.k8s.aws", "autoscaling.k8s.io"] as &[&str];
        assert!(ready_after(nothing_to_learn).await < soon);
        // Its own kinds must be there.
        assert!(ready_after(&["harbinger.sh"]).await >= 2 * PATIENCE);
    }
}
