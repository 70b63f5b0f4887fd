//! What can be bought: by class, as the cloud says and nodes have shown, and by pool, as overlays have
//! it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::measured::Measured;
use super::overlay::{self, Overlaid, Refusal, Types};
use crate::cluster::Snapshot;
use crate::model::instance::InstanceType;
use crate::model::labels::Labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::pool::Pool;

/// Annotation of claims whose price an overlay made.
pub const PRICE_OVERLAY_APPLIED: &str = "karpenter.sh/price-overlay-applied";
/// Annotation of claims whose capacity an overlay made.
pub const CAPACITY_OVERLAY_APPLIED: &str = "karpenter.sh/capacity-overlay-applied";

/// What one class offers.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// Types.
    pub types: Types,
    /// Price of a node's volumes.
    pub volume_price: MicroDollarsPerHour,
}

/// What classes offer, and what overlays make of it. Cloning costs a few reference counts a class.
#[derive(Clone, Debug, Default)]
pub struct Catalogs {
    /// As the cloud says.
    given: BTreeMap<Arc<str>, Catalog>,
    measured: Arc<Measured>,
    /// With the memory that nodes turned out to have.
    classes: BTreeMap<Arc<str>, Catalog>,
    overlaid: Arc<Overlaid>,
}

impl Catalogs {
    /// What these classes offer, without overlays.
    pub fn new(classes: BTreeMap<Arc<str>, Catalog>) -> Self {
        Self { given: classes.clone(), classes, ..Self::default() }
    }

    /// Whether nothing is known yet.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// The overlays that were laid; those that change nothing with the reason.
    pub fn overlays(&self) -> &BTreeMap<Arc<str>, Option<Refusal>> {
        &self.overlaid.verdicts
    }

    /// Takes what classes offer now. Whether that differs from what was known; if so,
    /// [`Self::overlaid`] makes what overlays say current.
    pub fn replace(&mut self, classes: BTreeMap<Arc<str>, Catalog>) -> bool {
        let same = |a: &Catalog, b: &Catalog| {
            Arc::ptr_eq(&a.types, &b.types) && a.volume_price == b.volume_price
        };
        let changed = self.given.len() != classes.len()
            || self
                .given
                .iter()
                .any(|(name, old)| classes.get(name).is_none_or(|new| !same(old, new)));
        if changed {
            self.given = classes;
            self.correct();
        }
        changed
    }

    /// Takes what one class offers now.
    pub fn insert(&mut self, class: Arc<str>, catalog: Catalog) {
        let types = self.measured.correct(&class, &catalog.types);
        let volume_price = catalog.volume_price;
        self.classes.insert(Arc::clone(&class), Catalog { types, volume_price });
        self.given.insert(class, catalog);
    }

    /// Takes note of the memory of nodes that registered. Whether that changes what is offered.
    pub fn measure(&mut self, snapshot: &Snapshot) -> bool {
        let learned = Arc::make_mut(&mut self.measured).observe(snapshot);
        learned && self.correct()
    }

    /// Says whether the types of a class are other ones now.
    fn correct(&mut self) -> bool {
        let corrected = self.given.iter().map(|(name, catalog)| {
            let types = self.measured.correct(name, &catalog.types);
            (Arc::clone(name), Catalog { types, ..catalog.clone() })
        });
        let before = std::mem::replace(&mut self.classes, corrected.collect());
        self.classes.iter().any(|(name, catalog)| {
            before.get(name).is_none_or(|old| !Arc::ptr_eq(&old.types, &catalog.types))
        })
    }

    /// The same offers with the overlays of a snapshot laid over them. It looks at every type of
    /// every pool for every overlay: some milliseconds.
    #[must_use]
    pub fn overlaid(self, snapshot: &Snapshot) -> Self {
        let pools: Vec<(&Pool, &Types)> = snapshot
            .pools
            .values()
            .filter_map(|pool| Some((&**pool, &self.classes.get(&pool.class.name)?.types)))
            .collect();
        let overlays = snapshot.overlays.values().map(|overlay| &**overlay);
        let overlaid = Arc::new(overlay::lay(overlays, &pools));
        Self { overlaid, ..self }
    }

    /// What a pool's class offers, as overlays have it.
    pub fn of(&self, pool: &Pool) -> Option<Catalog> {
        let class = self.classes.get(&pool.class.name)?;
        let types = self.overlaid.types.get(&pool.name).unwrap_or(&class.types);
        Some(Catalog { types: Arc::clone(types), volume_price: class.volume_price })
    }

    /// The annotations that say what overlays changed about what a claim of a pool may launch:
    /// types with the offerings that it may take, by position.
    pub fn marks(&self, pool: &Pool, choices: impl IntoIterator<Item = (usize, usize)>) -> Labels {
        let mut marks = Labels::new();
        let classes = self.classes.get(&pool.class.name);
        let (Some(class), Some(types)) = (classes, self.overlaid.types.get(&pool.name)) else {
            return marks;
        };
        for (kind, offering) in choices {
            let (Some(old), Some(new)) = (class.types.get(kind), types.get(kind)) else { continue };
            let price = |kind: &InstanceType| kind.offerings.get(offering).map(|o| o.price);
            if price(old) != price(new) {
                marks.insert(PRICE_OVERLAY_APPLIED.to_owned(), "true".to_owned());
            }
            if old.capacity != new.capacity {
                marks.insert(CAPACITY_OVERLAY_APPLIED.to_owned(), "true".to_owned());
            }
        }
        marks
    }
}
