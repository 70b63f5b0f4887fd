//! The decider: folds events, plans, and starts the tasks that carry out.

mod claims;
mod loops;
mod moves;
mod news;
mod overlays;
mod replicas;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{Clock, Context, launch, lifecycle, reservations};
use crate::api::ec2nodeclass::EC2NodeClass;
use crate::cloud::Cloud;
use crate::cluster::{Change, Event, Snapshot, State};
use crate::demand::{Assignments, Ledger};
use crate::intent::Intent;
use crate::model::claim::Claim;
use crate::model::failure::Failure;
use crate::model::labels;
use crate::model::pool::ClassFacts;
use crate::model::requirement::{Requirement, Requirements};
use crate::plan::{Catalog, Catalogs, ClaimDraft, empty, fixed, provision};
use crate::schedule::Hurry;
use crate::server::{About, ApiServer};

/// Events that may wait: a burst of 1,000 pods makes about 5,000 within seconds.
pub const QUEUE: usize = 8192;
/// Events folded before anything else is looked at.
const BATCH: usize = 1024;
/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How long a nomination may stay away from the watch, seconds. Not longer: a pod that missed its
/// node is nominated again.
const NOMINATION_LAG: i64 = 3;
/// How long a claim that was created may stay away from the watch, seconds.
const WATCH_LAG: i64 = 30;

/// What reaches the decider.
#[expect(clippy::large_enum_variant, reason = "nearly all messages are changes of the cluster")]
#[derive(Clone, Debug)]
pub enum Message {
    /// A change of the cluster.
    Cluster(Event),
    /// A change of the node classes.
    Classes(Change<Arc<str>, EC2NodeClass>),
    /// What the classes offer now.
    Catalogs(BTreeMap<Arc<str>, Catalog>),
    /// What one class offers now.
    Offers(Arc<str>, Catalog),
    /// A workload that admission has seen.
    Intent(Box<Intent>),
    /// Pods that failed.
    Failures(Vec<Arc<Failure>>),
    /// The task of a claim (or launch group) has ended.
    Done(Arc<str>),
}

/// How the decider works.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A plan waits until no relevant event has come for this long…
    pub coalesce_idle: Duration,
    /// …but no longer than this.
    pub coalesce_max: Duration,
    /// Whether announced pods are planned before they exist.
    pub intents: bool,
    /// Improvement attempts of the packing.
    pub improve: u32,
    /// After this time a plan is not improved any more…
    pub improve_time: Duration,
    /// …and after this it comes to its end: pods wait for it.
    pub plan_time: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            coalesce_idle: Duration::from_millis(20),
            coalesce_max: Duration::from_millis(200),
            intents: true,
            improve: 50,
            improve_time: Duration::from_millis(250),
            plan_time: Duration::from_secs(1),
        }
    }
}

/// The decider.
pub struct Engine<A, C, K> {
    context: Context<A, C, K>,
    settings: Settings,
    inbox: mpsc::Receiver<Message>,
    outbox: mpsc::Sender<Message>,
    tracker: TaskTracker,
    state: State,
    snapshot: watch::Sender<Arc<Snapshot>>,
    classes: watch::Sender<BTreeMap<Arc<str>, Arc<EC2NodeClass>>>,
    /// What the classes say of their nodes.
    class_facts: BTreeMap<Arc<str>, ClassFacts>,
    ledger: Ledger,
    reservations: watch::Sender<Arc<BTreeMap<reservations::Key, reservations::Entry>>>,
    assignments: Assignments,
    /// See [`provision::ProvisionPlan::holds`].
    holds: BTreeSet<Arc<str>>,
    catalogs: watch::Sender<Catalogs>,
    /// Whether pools, overlays or catalogs changed since overlays were laid.
    unlaid: bool,
    /// Claims and launch groups with a task.
    busy: BTreeSet<Arc<str>>,
    /// Claims that were created and have not come back through the watch, with the moment and the
    /// capacity reservation that they draw on.
    just_made: BTreeMap<Arc<str>, (i64, Option<Arc<str>>)>,
    /// Claims whose end was asked for and that the watch may show as if it was not, with the moment.
    ending: BTreeMap<Arc<str>, i64>,
    moves: moves::Moves,
    /// Pods that were nominated and may not have come back through the watch, with the moment.
    nominated: BTreeMap<Arc<str>, i64>,
    /// When pods last came to or left a node.
    pod_events: BTreeMap<Arc<str>, i64>,
    /// First and last relevant event since the last plan.
    dirty: Option<(Instant, Instant)>,
    seed: u64,
    told: BTreeMap<String, i64>,
    loops: loops::Loops,
}

impl<A: ApiServer, C: Cloud, K: Clock> Engine<A, C, K> {
    /// A decider that reads from `inbox`; `outbox` is the same queue's other end. `tracker` holds the
    /// tasks that carry out. `seed` differs between leaders, so that names of claims do too.
    pub fn new(
        context: Context<A, C, K>,
        settings: Settings,
        inbox: mpsc::Receiver<Message>,
        outbox: mpsc::Sender<Message>,
        tracker: TaskTracker,
        seed: u64,
    ) -> Self {
        Self {
            context,
            settings,
            inbox,
            outbox,
            tracker,
            state: State::default(),
            snapshot: watch::Sender::new(Arc::default()),
            classes: watch::Sender::new(BTreeMap::new()),
            class_facts: BTreeMap::new(),
            ledger: Ledger::default(),
            reservations: watch::Sender::default(),
            assignments: Assignments::default(),
            holds: BTreeSet::new(),
            catalogs: watch::Sender::default(),
            unlaid: false,
            busy: BTreeSet::new(),
            just_made: BTreeMap::new(),
            ending: BTreeMap::new(),
            moves: moves::Moves::default(),
            nominated: BTreeMap::new(),
            pod_events: BTreeMap::new(),
            dirty: None,
            seed,
            told: BTreeMap::new(),
            loops: loops::Loops::default(),
        }
    }

    /// The cluster as the decider sees it.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    /// The node classes.
    pub fn classes(&self) -> watch::Receiver<BTreeMap<Arc<str>, Arc<EC2NodeClass>>> {
        self.classes.subscribe()
    }

    /// What the classes offer.
    pub fn catalogs(&self) -> watch::Receiver<Catalogs> {
        self.catalogs.subscribe()
    }

    /// The ledger as objects.
    pub fn reservations(
        &self,
    ) -> watch::Receiver<Arc<BTreeMap<reservations::Key, reservations::Entry>>> {
        self.reservations.subscribe()
    }

    /// Folds events without acting until `lead` is true, then decides until the process is to end.
    pub async fn run(mut self, mut lead: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let plan_at = self.plan_at();
            let leads = *lead.borrow();
            tokio::select! {
                biased;
                () = self.context.stop.cancelled() => return,
                changed = lead.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.mark();
                }
                () = sleep_until(plan_at), if leads && plan_at.is_some() => self.plan().await,
                message = self.inbox.recv() => {
                    let Some(message) = message else { return };
                    self.fold(message);
                    for _ in 1..BATCH {
                        let Ok(message) = self.inbox.try_recv() else { break };
                        self.fold(message);
                    }
                    self.publish();
                    self.lay_overlays().await;
                    if leads {
                        self.step_claims();
                    }
                }
                _ = tick.tick(), if leads => self.tick(),
            }
        }
    }

    fn now(&self) -> i64 {
        self.context.clock.now().as_second()
    }

    fn mark(&mut self) {
        let now = Instant::now();
        self.dirty = Some((self.dirty.map_or(now, |(first, _)| first), now));
    }

    fn plan_at(&self) -> Option<Instant> {
        let (first, last) = self.dirty?;
        Some((last + self.settings.coalesce_idle).min(first + self.settings.coalesce_max))
    }

    fn fold(&mut self, message: Message) {
        match message {
            Message::Cluster(event) => {
                let relevant = self.relevant(&event);
                self.note_pods(&event);
                self.note_pod_failures(&event);
                let lays = matches!(event, Event::Pools(_) | Event::Overlays(_));
                let changed = self.state.apply(event);
                self.unlaid |= changed && lays;
                if changed && relevant {
                    self.mark();
                }
            }
            Message::Classes(change) => self.note_classes(change),
            Message::Catalogs(catalogs) => {
                self.catalogs.send_modify(|known| self.unlaid |= known.replace(catalogs));
                self.mark();
            }
            Message::Offers(class, catalog) => {
                self.catalogs.send_modify(|catalogs| {
                    catalogs.insert(class, catalog);
                });
                self.unlaid = true;
                self.mark();
            }
            Message::Intent(intent) => self.announce(&intent),
            Message::Failures(failures) => {
                for failure in &failures {
                    self.note_failure(failure);
                }
            }
            Message::Done(name) => {
                self.busy.remove(&name);
                self.mark();
            }
        }
    }

    fn publish(&mut self) {
        let snapshot = self.state.snapshot();
        if self.snapshot.borrow().revision == snapshot.revision {
            return;
        }
        let nodes = &snapshot.nodes;
        self.pod_events.retain(|node, _| nodes.contains_key(node));
        self.context.metrics.state_nodes.set(i64::try_from(nodes.len()).unwrap_or(i64::MAX));
        self.context.metrics.state_synced.set(i64::from(snapshot.synced));
        self.snapshot.send_replace(Arc::new(snapshot));
    }

    /// Plans for all demand and starts what the plan says.
    async fn plan(&mut self) {
        let Some((first, _)) = self.dirty.take() else { return };
        self.publish();
        let snapshot = self.state.snapshot();
        if !snapshot.synced {
            return;
        }
        // Without a catalog nothing is bought and nothing is said of pods that wait; what nodes are
        // held for must be known all the same, or they would never go.
        let offered = !self.catalogs.borrow().is_empty();
        let now = self.now();
        self.just_made.retain(|name, (made, _)| {
            !snapshot.claims.contains_key(name) && now - *made < WATCH_LAG
        });
        let just_made = self.just_made.clone();
        self.observe(&snapshot, now);
        let waiting: BTreeSet<Arc<str>> = snapshot
            .pods
            .values()
            .filter(|pod| provision::wants_place(&snapshot, pod))
            .map(|pod| snapshot.root_of(pod))
            .collect();
        let ledger = &self.ledger;
        let waits = |owner: &str| {
            waiting.contains(owner) || ledger.get(owner).is_some_and(|r| r.missing() > 0)
        };
        let made = |name: &str| just_made.contains_key(name);
        self.assignments.retain(&snapshot.claims, &made, &waits, now);
        for claim in snapshot.claims.values() {
            let ledger = &self.ledger;
            self.assignments
                .restore(claim, |owner| ledger.get(owner).map(|r| Arc::clone(&r.shape)));
        }
        self.context
            .metrics
            .reservations
            .set(i64::try_from(self.ledger.iter().count()).unwrap_or(0));
        let with_made = with_made(&snapshot, just_made, now);
        self.seed = self.seed.wrapping_add(1);
        let (ledger, assignments) = (self.ledger.clone(), self.assignments.clone());
        let (catalogs, seed) = (self.catalogs.borrow().clone(), self.seed);
        let hurry = Hurry::when_asked();
        let settings = provision::Settings {
            intents: self.settings.intents,
            improve: self.settings.improve,
            hurry: hurry.clone(),
        };
        let started = Instant::now();
        let mut planned = tokio::task::spawn_blocking(move || {
            let missing = fixed::missing(&with_made, &assignments, &catalogs, now, seed);
            let plan = provision::provision(
                &with_made,
                &ledger,
                &assignments,
                &catalogs,
                &settings,
                now,
                seed,
            );
            (missing, plan)
        });
        let (improve, plan) = (self.settings.improve_time, self.settings.plan_time);
        let wishes = async {
            tokio::time::sleep(improve).await;
            hurry.settle();
            tokio::time::sleep(plan.saturating_sub(improve)).await;
            hurry.ask();
            std::future::pending::<Infallible>().await
        };
        let planned = tokio::select! {
            planned = &mut planned => planned,
            never = wishes => match never {},
        };
        self.context.metrics.solve_seconds.observe(started.elapsed().as_secs_f64());
        let (missing, plan) = match planned {
            Ok(planned) => planned,
            Err(error) => {
                tracing::error!(%error, "planning broke off");
                return;
            }
        };
        if self.context.stop.is_cancelled() {
            return;
        }
        if offered {
            self.tell_short(&missing.short, now);
        }
        self.buy(missing.claims, first, now);
        if !plan.violations.is_empty() {
            self.context.metrics.plans_rejected.inc();
            let first = plan.violations.first().map(ToString::to_string).unwrap_or_default();
            tracing::error!(
                first,
                count = plan.violations.len(),
                "plan failed its check and is dropped"
            );
            return;
        }
        self.holds.clone_from(&plan.holds);
        if !offered {
            return;
        }
        self.tell_unschedulable(&snapshot, &plan, now);
        if plan.claims.is_empty() {
            return;
        }
        let claims = plan.claims.len();
        tracing::info!(claims, cost = %plan.cost, ms = started.elapsed().as_millis(), "planned");
        self.buy(plan.claims, first, now);
    }

    /// Creates and launches claims, by launch group.
    fn buy(&mut self, claims: Vec<ClaimDraft>, first: Instant, now: i64) {
        let mut groups: BTreeMap<Arc<str>, Vec<ClaimDraft>> = BTreeMap::new();
        for draft in claims {
            self.assignments.assign(
                Arc::clone(&draft.name),
                draft.pods.clone(),
                draft.capacity.clone(),
            );
            let reservation = draft.options.iter().find_map(|option| option.reservation.as_ref());
            let reservation = reservation.map(|of| Arc::clone(&of.id));
            self.just_made.insert(Arc::clone(&draft.name), (now, reservation));
            groups.entry(Arc::clone(&draft.group)).or_default().push(draft);
        }
        for (group, drafts) in groups {
            self.busy.insert(Arc::clone(&group));
            let class = self.classes.borrow().get(&drafts[0].class.name).cloned();
            let (context, done) = (self.context.clone(), self.outbox.clone());
            let offers = self.offers();
            self.spawn(async move {
                launch::fresh(&context, class, drafts, &offers, first).await;
                // The engine is gone only when the process ends.
                drop(done.send(Message::Done(group)).await);
            });
        }
    }

    /// Compares what workloads want with the pods that they have.
    fn observe(&mut self, snapshot: &Snapshot, now: i64) {
        let mut active: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        for pod in snapshot.pods.values().filter(|pod| pod.active()) {
            *active.entry(snapshot.root_of(pod)).or_insert(0) += 1;
        }
        self.stop_loops(snapshot, now);
        self.ledger.observe(snapshot.workloads.values(), &active, now);
    }

    fn tell_unschedulable(
        &mut self,
        snapshot: &Snapshot,
        plan: &provision::ProvisionPlan,
        now: i64,
    ) {
        let count: u32 = plan.unschedulable.iter().map(|u| u.count).sum();
        self.context.metrics.unschedulable_pods.set(i64::from(count));
        // The same message about the same pod is told again after five minutes, as in the field.
        self.told.retain(|_, at| now - *at < 300);
        for unschedulable in &plan.unschedulable {
            let message = format!("Failed to schedule pod, {}", unschedulable.reasons);
            for key in unschedulable.pods.iter().take(20) {
                let Some(pod) = snapshot.pods.get(key) else { continue };
                let note = format!("{}/{message}", pod.uid);
                if self.told.insert(note, now).is_some() {
                    continue;
                }
                let (context, message) = (self.context.clone(), message.clone());
                let about = About::pod(pod);
                self.spawn(async move { context.warn(about, "FailedScheduling", message).await });
            }
        }
    }

    /// Timers: time-outs of claims, empty and expired nodes.
    fn tick(&mut self) {
        self.publish();
        self.step_claims();
        let snapshot = Arc::clone(&self.snapshot.borrow());
        if !snapshot.synced {
            return;
        }
        let now = self.now();
        if self.catalogs.send_if_modified(|catalogs| catalogs.measure(&snapshot)) {
            self.unlaid = true;
            self.mark();
        }
        self.observe(&snapshot, now);
        self.tell_loops(&snapshot, now);
        let entries = reservations::entries(&snapshot, &self.ledger, &self.assignments);
        self.reservations.send_if_modified(|old| {
            let changed = **old != entries;
            if changed {
                *old = Arc::new(entries);
            }
            changed
        });
        // With a plan due, what it will place on empty nodes is not known yet.
        let planned = self.dirty.is_none();
        // Waiting pods that nothing covers are looked at again, for example after a failed launch;
        // and nodes that were held for pods, until these have come.
        let again = || snapshot.pods.values().any(|pod| pod.waiting());
        if planned && (!self.holds.is_empty() || again()) {
            self.mark();
        }
        let pod_events = &self.pod_events;
        let last_pod_event = |node: &str| pod_events.get(node).copied().unwrap_or(0);
        let ends = empty::to_end(&snapshot, &self.assignments, &self.holds, &last_pod_event, now);
        let surplus =
            self.surplus(&snapshot, now).into_iter().map(|claim| (claim, "overprovisioned"));
        for (claim, reason) in ends.into_iter().chain(surplus) {
            if (reason == "empty" && !planned) || !self.busy.insert(Arc::clone(&claim.name)) {
                continue;
            }
            self.ending.insert(Arc::clone(&claim.name), now);
            let (context, done) = (self.context.clone(), self.outbox.clone());
            self.spawn(async move {
                lifecycle::give_up(&context, &claim, reason).await;
                drop(done.send(Message::Done(Arc::clone(&claim.name))).await);
            });
        }
    }

    fn offers(&self) -> launch::Offers {
        launch::Offers { catalogs: self.catalogs.borrow().clone(), tell: self.outbox.clone() }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }
}

/// The cluster with the claims that the watch has not shown yet: they are in the way of nobody but must
/// be counted.
fn with_made(
    snapshot: &Snapshot,
    just_made: BTreeMap<Arc<str>, (i64, Option<Arc<str>>)>,
    now: i64,
) -> Snapshot {
    let mut whole = snapshot.clone();
    if just_made.is_empty() {
        return whole;
    }
    let claims = Arc::make_mut(&mut whole.claims);
    for (name, (_, reservation)) in just_made {
        let mut requirements = Requirements::new();
        if let Some(id) = reservation {
            requirements.insert(labels::RESERVATION_ID, Requirement::one_of([id]));
        }
        let pool = name.rsplit_once('-').map_or("", |(pool, _)| pool);
        let claim = Claim {
            name: Arc::clone(&name),
            pool: pool.into(),
            requirements,
            created_at: now,
            ..Claim::default()
        };
        claims.entry(name).or_insert_with(|| Arc::new(claim));
    }
    whole
}

async fn sleep_until(moment: Option<Instant>) {
    if let Some(moment) = moment {
        tokio::time::sleep_until(moment).await;
    }
}
