//! What new nodes of each pool leave for a pod: a default beyond the largest that takes it would keep
//! it waiting for ever.
//!
//! Types come from the built-in table as the region of a class's subnets has them. Before subnets are
//! found, and in a region that the table lacks, they are those of one region: what a type is does not
//! depend on where it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use tokio::sync::{mpsc, watch};

use super::SystemClock;
use crate::api::conditions::{self, ConditionStatus};
use crate::api::ec2nodeclass::{EC2NodeClass, EC2NodeClassStatus};
use crate::api::nodepool::NodePool;
use crate::api::project;
use crate::cloud::catalog::{Catalog, PRICED_REGION, SpotPrices};
use crate::cloud::settings::ClassSettings;
use crate::cluster::Change;
use crate::control::Clock as _;
use crate::k8s::watch::{Place, Watches};
use crate::model::instance::InstanceType;
use crate::model::labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::pod::PodShape;
use crate::model::requirement::{Requirement, Requirements};
use crate::model::room::PoolRooms;
use crate::model::wire::workload::WorkloadWire;
use crate::model::workload::WorkloadKind;
use crate::policy::{self, Snapshot};
use crate::schedule::{self, PoolSlot};

/// Changes that may wait to be folded.
const QUEUE: usize = 64;

#[expect(clippy::large_enum_variant, reason = "messages are few, and folded at once")]
enum Message {
    Pool(Change<Arc<str>, NodePool>),
    Class(Change<Arc<str>, EC2NodeClass>),
    Daemon(Change<Place, (Place, WorkloadWire)>),
}

/// Watches pools, classes and DaemonSets, and sends on what they come to when it changes. DaemonSets
/// count with the requests that LimitRanges and `policies` give their pods, looked at again when
/// `changed` says so.
pub(super) fn follow<M: Send + 'static>(
    watches: &Watches,
    policies: Arc<ArcSwap<Snapshot>>,
    mut changed: watch::Receiver<()>,
    to: mpsc::Sender<M>,
    wrap: fn(Arc<[PoolRooms]>) -> M,
) {
    let (sender, mut inbox) = mpsc::channel(QUEUE);
    watches.offers(&sender, Message::Pool, Message::Class);
    watches.daemon_sets(&sender, Message::Daemon);
    watches.tracker.spawn(async move {
        let mut state = State::default();
        loop {
            let mut stale = tokio::select! {
                message = inbox.recv() => match message {
                    None => return,
                    Some(message) => state.fold(message),
                },
                Ok(()) = changed.changed() => false,
            };
            while let Ok(message) = inbox.try_recv() {
                stale |= state.fold(message);
            }
            if !state.listed.iter().all(|listed| *listed) {
                continue;
            }
            let daemons = state.daemons(&policies.load(), SystemClock.now());
            if !stale && state.last.is_some() && daemons == state.counted {
                continue;
            }
            state.counted = daemons;
            let rooms: Arc<[PoolRooms]> = state.rooms().into();
            if state.last.as_ref() == Some(&rooms) {
                continue;
            }
            state.last = Some(Arc::clone(&rooms));
            if to.send(wrap(rooms)).await.is_err() {
                return;
            }
        }
    });
}

#[derive(Default)]
struct State {
    pools: Arc<BTreeMap<Arc<str>, Arc<NodePool>>>,
    classes: Arc<BTreeMap<Arc<str>, Arc<EC2NodeClass>>>,
    daemon_sets: BTreeMap<Place, WorkloadWire>,
    /// Pods of DaemonSets as the last rooms count them.
    counted: Vec<Arc<PodShape>>,
    /// Whether pools, classes and DaemonSets have been listed.
    listed: [bool; 3],
    last: Option<Arc<[PoolRooms]>>,
}

impl State {
    /// Says whether something other than DaemonSets changed.
    fn fold(&mut self, message: Message) -> bool {
        let (at, is_list) = match &message {
            Message::Pool(change) => (0, change.is_list()),
            Message::Class(change) => (1, change.is_list()),
            Message::Daemon(change) => (2, change.is_list()),
        };
        self.listed[at] |= is_list;
        match message {
            Message::Pool(change) => change.fold_into(&mut self.pools, name_of),
            Message::Class(change) => change.fold_into(&mut self.classes, name_of),
            Message::Daemon(change) => {
                match change {
                    Change::Upsert((place, workload)) => {
                        self.daemon_sets.insert(place, workload);
                    }
                    Change::Delete(place) => {
                        self.daemon_sets.remove(&place);
                    }
                    Change::Replace(list) => self.daemon_sets = list.into_iter().collect(),
                }
                false
            }
        }
    }

    /// A pod of each DaemonSet as it will be let in.
    fn daemons(&self, policies: &Snapshot, now: Timestamp) -> Vec<Arc<PodShape>> {
        let shape = |workload: &WorkloadWire| {
            let mut workload = workload.clone();
            policy::settle(WorkloadKind::DaemonSet, &mut workload, policies, now);
            Arc::new(workload.template_shape())
        };
        self.daemon_sets.values().map(shape).collect()
    }

    fn rooms(&self) -> Vec<PoolRooms> {
        let Ok(catalog) = Catalog::built_in() else { return Vec::new() };
        let offered: BTreeMap<&str, Offered> = self
            .classes
            .iter()
            .filter_map(|(name, class)| Some((&**name, Offered::new(catalog, class)?)))
            .collect();
        let mut slots = Vec::new();
        for object in self.pools.values() {
            let mut pool = project::pool(object);
            let Some(offered) = offered.get(&*pool.class.name) else { continue };
            // What the table does not know is laid over the rooms.
            let mut place = offered.place.clone();
            let unknown: &[&str] = if offered.known {
                &[labels::ZONE_ID]
            } else {
                &[labels::REGION, labels::ZONE, labels::ZONE_ID]
            };
            for key in unknown {
                if let Some(own) = pool.requirements.remove(key) {
                    place.insert(key, own);
                }
            }
            let slot = PoolSlot {
                types: Arc::clone(&offered.types),
                remaining: pool.limits.clone(),
                volume_price: MicroDollarsPerHour::ZERO,
                pool: Arc::new(pool),
            };
            slots.push((slot, place, offered.ready));
        }
        // Where no class is ready, some will be again; a pod keeps its request for ever.
        if slots.iter().any(|(slot, _, ready)| *ready && slot.pool.ready) {
            slots.retain(|(_, _, ready)| *ready);
        }
        let (slots, places): (Vec<_>, Vec<_>) =
            slots.into_iter().map(|(slot, place, _)| (slot, place)).unzip();
        let rooms = schedule::rooms(slots, self.counted.clone());
        rooms.into_iter().zip(places).map(|(rooms, place)| rooms.within(&place)).collect()
    }
}

/// What nodes of a class can be.
struct Offered {
    types: Arc<[Arc<InstanceType>]>,
    /// Where its subnets are, as far as they were found.
    place: Requirements,
    /// Whether the table has their region; else the zones of the types are not those of nodes.
    known: bool,
    /// Whether it can be used now, as far as is known.
    ready: bool,
}

impl Offered {
    fn new(catalog: &Catalog, class: &EC2NodeClass) -> Option<Self> {
        let none = EC2NodeClassStatus::default();
        let status = class.status.as_ref().unwrap_or(&none);
        let zones: BTreeSet<&str> = status.subnets.iter().map(|subnet| &*subnet.zone).collect();
        let here = |region: &&str| catalog.zones(region).iter().any(|zone| zones.contains(&**zone));
        let region = catalog.regions().find(here);
        let mut place = Requirements::new();
        if let Some(region) = region {
            place.insert(labels::REGION, Requirement::one_of([region]));
        }
        if !zones.is_empty() {
            place.insert(labels::ZONE, Requirement::one_of(zones.iter().copied()));
        }
        let settings = ClassSettings::of(&class.spec);
        let spot = SpotPrices::Discount(0);
        let types =
            catalog.instance_types(region.unwrap_or(PRICED_REGION), &settings, &spot).ok()?;
        let in_place = |mut kind: Arc<InstanceType>| {
            if region.is_some() {
                let offerings = &mut Arc::make_mut(&mut kind).offerings;
                offerings.retain(|offering| zones.contains(&*offering.zone));
            }
            kind
        };
        let ready = conditions::get(&status.conditions, conditions::READY);
        let ready = ready.is_none_or(|ready| ready.status != ConditionStatus::False);
        let types = types.into_iter().map(in_place).collect();
        Some(Self { types, place, known: region.is_some(), ready })
    }
}

fn name_of<K: Resource>(object: &K) -> Arc<str> {
    object.name_any().into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::room::Wanted;
    use crate::policy::Bounds;

    fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
        serde_json::from_value(object).unwrap()
    }

    /// Cpu of the largest room for a pod that selects nodes by a label.
    fn largest(rooms: &[PoolRooms], key: &str, value: &str) -> Option<i64> {
        let mut pod = PodShape::default();
        let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        pod.node_selector = Requirements::from_labels(&labels);
        let wanted = Wanted::of(&pod);
        let open = rooms.iter().filter(|pool| pool.lets_in(&wanted));
        let all =
            open.flat_map(|pool| pool.worth(&wanted).filter(|room| pool.takes(room, &wanted)));
        all.map(|room| room.left.cpu).max()
    }

    #[test]
    fn pools_keep_their_zones_and_daemon_sets_count_as_they_are_let_in() {
        let requirement =
            |key: &str, value: &str| json!({ "key": key, "operator": "In", "values": [value] });
        let pool = json!({
            "metadata": { "name": "web" },
            "spec": { "template": { "spec": {
                "nodeClassRef": { "group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "c" },
                "requirements": [
                    requirement(labels::INSTANCE_TYPE, "m5.large"),
                    requirement(labels::ZONE, "eu-central-1a"),
                ],
            } } },
        });
        let class = json!({ "metadata": { "name": "c" }, "spec": {
            "amiSelectorTerms": [{ "alias": "al2023@latest" }],
            "subnetSelectorTerms": [{ "id": "s" }], "securityGroupSelectorTerms": [{ "id": "g" }],
            "role": "r",
        } });
        let mut state = State::default();
        state.fold(Message::Pool(Change::Replace(vec![read(pool)])));
        state.fold(Message::Class(Change::Replace(vec![read(class)])));
        state.fold(Message::Daemon(Change::Replace(Vec::new())));
        assert_eq!(state.listed, [true; 3]);
        let bare = state.rooms();
        assert_eq!(largest(&bare, labels::ZONE, "us-east-1a"), None);
        let Some(room) = largest(&bare, labels::ZONE, "eu-central-1a") else {
            panic!("no room in the pool's own zone")
        };

        // The DaemonSet asks for nothing; a LimitRange gives its pods half a core.
        let daemons: WorkloadWire = read(json!({
            "metadata": { "name": "agent", "namespace": "system" },
            "spec": { "template": { "spec": { "containers": [{ "name": "a" }] } } },
        }));
        let place: Place = ("system".into(), "agent".into());
        state.fold(Message::Daemon(Change::Upsert((place, daemons))));
        let range = read(json!({ "metadata": { "name": "lr" }, "spec": { "limits": [
            { "type": "Container", "defaultRequest": { "cpu": "500m" } },
        ] } }));
        let bounds = Arc::new(Bounds::new([&range], &[]));
        let policies = Snapshot::default().with_bounds(BTreeMap::from([("system".into(), bounds)]));
        state.counted = state.daemons(&policies, Timestamp::UNIX_EPOCH);
        assert_eq!(largest(&state.rooms(), labels::ZONE, "eu-central-1a"), Some(room - 500));
    }

    fn pool(name: &str, class: &str, requirements: &Value) -> NodePool {
        read(json!({
            "metadata": { "name": name },
            "spec": { "template": { "spec": {
                "nodeClassRef":
                    { "group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": class },
                "requirements": requirements,
            } } },
        }))
    }

    /// A class that found a subnet in `zone`, or nothing yet.
    fn class(name: &str, zone: Option<&str>, ready: &str) -> EC2NodeClass {
        let mut object = json!({ "metadata": { "name": name }, "spec": {
            "amiSelectorTerms": [{ "alias": "al2023@latest" }],
            "subnetSelectorTerms": [{ "id": "s" }], "securityGroupSelectorTerms": [{ "id": "g" }],
            "role": "r",
        } });
        if let Some(zone) = zone {
            object["status"] = json!({
                "subnets": [{ "id": "s", "zone": zone }],
                "conditions": [{ "type": "Ready", "status": ready, "reason": "R", "message": "",
                    "lastTransitionTime": "2026-06-01T12:00:00Z" }],
            });
        }
        read(object)
    }

    fn state(pools: Vec<NodePool>, classes: Vec<EC2NodeClass>) -> Vec<PoolRooms> {
        let mut state = State::default();
        state.fold(Message::Pool(Change::Replace(pools)));
        state.fold(Message::Class(Change::Replace(classes)));
        state.rooms()
    }

    #[test]
    fn zones_and_types_are_those_where_the_subnets_of_the_class_are() {
        let of = |class: EC2NodeClass| state(vec![pool("p", "c", &json!([]))], vec![class]);
        let here = of(class("c", Some("eu-west-1a"), "True"));
        assert!(largest(&here, labels::ZONE, "eu-west-1a").is_some());
        assert_eq!(largest(&here, labels::ZONE, "eu-west-1b"), None, "no subnet is there");
        assert_eq!(largest(&here, labels::ZONE, "us-east-1a"), None);
        assert_eq!(largest(&here, labels::REGION, "us-east-1"), None);
        // Nodes of types that the zone does not have are none: 192 cores are the most in this one.
        let small = of(class("c", Some("us-east-1e"), "True"));
        assert!(largest(&small, labels::OS, "linux").is_some_and(|cpu| cpu <= 192_000));
        // A class that has found nothing yet may be anywhere, and so may one in a region that the
        // table lacks, except where its subnets are not.
        let nowhere = of(class("c", None, ""));
        assert!(largest(&nowhere, labels::ZONE, "xx-west-1a").is_some_and(|cpu| cpu > 192_000));
        let far = of(class("c", Some("xx-west-1a"), "True"));
        assert!(largest(&far, labels::ZONE, "xx-west-1a").is_some_and(|cpu| cpu > 192_000));
        assert_eq!(largest(&far, labels::ZONE, "us-east-1a"), None);
    }

    #[test]
    fn what_cannot_be_bought_now_counts_only_where_nothing_else_can() {
        let of = |kind: &str| json!([{ "key": labels::INSTANCE_TYPE, "operator": "In", "values": [kind] }]);
        let pools = || {
            vec![pool("small", "good", &of("m5.large")), pool("large", "bad", &of("m5.4xlarge"))]
        };
        let zone = Some("us-east-1a");
        let with = |good: &str| {
            let classes = vec![class("good", zone, good), class("bad", zone, "False")];
            largest(&state(pools(), classes), labels::ZONE, "us-east-1a").unwrap()
        };
        assert!(with("True") < 2_000);
        assert!(with("False") > 14_000);
    }
}
