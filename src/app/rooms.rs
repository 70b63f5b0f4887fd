//! What the largest node of any pool leaves for a pod: a default beyond that would keep a pod waiting
//! for ever.
//!
//! Types come from the built-in table as one region has them, and zones of pools are not looked at:
//! what a type is does not depend on where it runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::{Resource, ResourceExt};
use tokio::sync::mpsc;

use crate::api::ec2nodeclass::EC2NodeClass;
use crate::api::nodepool::NodePool;
use crate::api::project;
use crate::cloud::catalog::{Catalog, PRICED_REGION, SpotPrices};
use crate::cloud::settings::ClassSettings;
use crate::cluster::Change;
use crate::k8s::watch::{Place, Watches};
use crate::model::instance::InstanceType;
use crate::model::labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::pod::PodShape;
use crate::model::resources::Resources;
use crate::schedule::{PoolSlot, largest_rooms};

/// Changes that may wait to be folded.
const QUEUE: usize = 64;

enum Message {
    Pool(Change<Arc<str>, NodePool>),
    Class(Change<Arc<str>, EC2NodeClass>),
    Daemon(Change<Place, (Place, Arc<PodShape>)>),
}

/// Watches pools, classes and DaemonSets, and sends on what they come to when it changes.
pub(super) fn follow<M: Send + 'static>(
    watches: &Watches,
    to: mpsc::Sender<M>,
    wrap: fn(Arc<[Resources]>) -> M,
) {
    let (sender, mut inbox) = mpsc::channel(QUEUE);
    watches.pools(&sender, Message::Pool);
    watches.classes(&sender, Message::Class);
    watches.daemon_sets(&sender, Message::Daemon);
    watches.tracker.spawn(async move {
        let mut state = State::default();
        while let Some(message) = inbox.recv().await {
            let mut changed = state.fold(message);
            while let Ok(message) = inbox.try_recv() {
                changed |= state.fold(message);
            }
            if !changed {
                continue;
            }
            let rooms: Arc<[Resources]> = state.rooms().into();
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
    daemons: Arc<BTreeMap<Place, Arc<(Place, Arc<PodShape>)>>>,
    last: Option<Arc<[Resources]>>,
}

impl State {
    /// Says whether something changed.
    fn fold(&mut self, message: Message) -> bool {
        match message {
            Message::Pool(change) => change.fold_into(&mut self.pools, name_of),
            Message::Class(change) => change.fold_into(&mut self.classes, name_of),
            Message::Daemon(change) => {
                change.fold_into(&mut self.daemons, |(place, _)| place.clone())
            }
        }
    }

    fn rooms(&self) -> Vec<Resources> {
        let Ok(catalog) = Catalog::built_in() else { return Vec::new() };
        let mut types: BTreeMap<&str, Arc<[Arc<InstanceType>]>> = BTreeMap::new();
        for (name, class) in self.classes.iter() {
            let settings = ClassSettings::of(&class.spec);
            let spot = SpotPrices::Discount(0);
            if let Ok(offered) = catalog.instance_types(PRICED_REGION, &settings, &spot) {
                types.insert(name, offered.into());
            }
        }
        let pools = self.pools.values().filter_map(|object| {
            let mut pool = project::pool(object);
            for key in [labels::REGION, labels::ZONE, labels::ZONE_ID] {
                pool.requirements.remove(key);
            }
            Some(PoolSlot {
                types: Arc::clone(types.get(&*pool.class.name)?),
                remaining: pool.limits.clone(),
                volume_price: MicroDollarsPerHour::ZERO,
                pool: Arc::new(pool),
            })
        });
        largest_rooms(
            pools.collect(),
            self.daemons.values().map(|daemon| Arc::clone(&daemon.1)).collect(),
        )
    }
}

fn name_of<K: Resource>(object: &K) -> Arc<str> {
    object.name_any().into()
}
