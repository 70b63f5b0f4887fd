//! Claims as they will be written, with what may be launched for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::catalogs::Catalogs;
use super::drift;
use crate::demand::assignment::PLANNED;
use crate::demand::{Assignment, Assignments};
use crate::model::claim::Claim;
use crate::model::digest::hex;
use crate::model::instance::{CapacityReservation, CapacityType};
use crate::model::labels::{self, Labels};
use crate::model::money::MicroDollarsPerHour;
use crate::model::node::UNREGISTERED_TAINT;
use crate::model::pool::{ClassRef, Pool};
use crate::model::requirement::Requirements;
use crate::model::resources::Resources;
use crate::model::taints::{Taint, TaintEffect};
use crate::schedule::{OfferingRef, PoolSlot};

/// Annotation that names a claim's launch group: claims of one group are launched by one call, and a
/// new leader repeats exactly that call.
pub const LAUNCH_GROUP: &str = "harbinger.sh/launch-group";

/// A claim to make and to launch.
#[derive(Clone, Debug)]
pub struct ClaimDraft {
    /// Name.
    pub name: Arc<str>,
    /// Pool.
    pub pool: Arc<Pool>,
    /// Class.
    pub class: ClassRef,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// Requirements.
    pub requirements: Requirements,
    /// Requests of its pods and DaemonSets.
    pub requests: Resources,
    /// What may be launched, cheapest first.
    pub options: Vec<LaunchChoice>,
    /// Capacity of the first option.
    pub capacity: Resources,
    /// Pods that it is for.
    pub pods: Vec<Assignment>,
    /// Launch group.
    pub group: Arc<str>,
}

/// One way to launch a claim.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LaunchChoice {
    /// Price without volumes.
    pub price: MicroDollarsPerHour,
    /// Instance type.
    pub instance_type: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
    /// Capacity type.
    pub capacity_type: CapacityType,
    /// Reservation that it draws on.
    pub reservation: Option<Arc<CapacityReservation>>,
}

/// A node that is to be.
pub(super) struct Wish<'n> {
    /// What may be launched, cheapest first.
    pub(super) acceptable: &'n [OfferingRef],
    /// What the claim requires.
    pub(super) requirements: &'n Requirements,
    /// Requests of its pods and DaemonSets.
    pub(super) requests: &'n Resources,
    /// Pods that it is for.
    pub(super) pods: Vec<Assignment>,
}

/// The claim of a node of a pool. Its group is left open.
pub(super) fn draft(
    catalogs: &Catalogs,
    slot: &PoolSlot,
    wish: &Wish<'_>,
    suffix: &str,
) -> ClaimDraft {
    let pool = Arc::clone(&slot.pool);
    let options = wish
        .acceptable
        .iter()
        .map(|offering| {
            let instance = &slot.types[offering.type_index];
            let bought = &instance.offerings[offering.offering_index];
            LaunchChoice {
                price: bought.price,
                instance_type: Arc::clone(&instance.name),
                zone: Arc::clone(&bought.zone),
                capacity_type: bought.capacity_type,
                reservation: bought.reserved.as_ref().map(|of| Arc::clone(&of.reservation)),
            }
        })
        .collect();
    let mut annotations = pool.annotations.clone();
    annotations.extend(drift::pool_digest(&pool));
    annotations.insert(PLANNED.to_owned(), Assignments::annotation(&wish.pods));
    let choices = wish.acceptable.iter().map(|o| (o.type_index, o.offering_index));
    annotations.extend(catalogs.marks(&pool, choices));
    let mut labels = pool.labels.clone();
    for (key, requirement) in wish.requirements.iter() {
        if let Some(value) = requirement.single()
            && !labels::is_well_known(key)
        {
            labels.insert(key.to_string(), value.to_string());
        }
    }
    let first = wish.acceptable.first();
    ClaimDraft {
        name: format!("{}-{suffix}", pool.name).into(),
        class: pool.class.clone(),
        labels,
        annotations,
        requirements: wish.requirements.clone(),
        requests: wish.requests.clone(),
        options,
        capacity: first.map(|o| slot.types[o.type_index].capacity.clone()).unwrap_or_default(),
        pods: wish.pods.clone(),
        group: "".into(),
        pool,
    }
}

/// Claims with equal launch parameters share a group.
pub(super) fn group(claims: &mut [ClaimDraft], seed: u64, now: i64) {
    type Key = (Arc<str>, Vec<LaunchChoice>, Labels);
    let mut groups: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
    for (index, claim) in claims.iter().enumerate() {
        let key = (Arc::clone(&claim.pool.name), claim.options.clone(), claim.labels.clone());
        groups.entry(key).or_default().push(index);
    }
    for members in groups.into_values() {
        let id: Arc<str> = name(seed, now, members[0]).into();
        for index in members {
            let claim = &mut claims[index];
            claim.group = Arc::clone(&id);
            claim.annotations.insert(LAUNCH_GROUP.to_owned(), id.to_string());
        }
    }
}

/// Launch group of a claim.
pub fn launch_group(claim: &Claim) -> Option<&str> {
    claim.annotations.get(LAUNCH_GROUP).map(String::as_str)
}

/// Ten hexadecimal digits that differ between plans and claims.
pub(super) fn name(seed: u64, now: i64, index: usize) -> String {
    hex(format!("{seed}/{now}/{index}"), 5)
}

/// Taints that a claim's node registers with.
pub fn registration_taints(pool: &Pool) -> Vec<Taint> {
    let mut taints = pool.taints.clone();
    taints.extend(pool.startup_taints.iter().cloned());
    taints.push(Taint::new(UNREGISTERED_TAINT, TaintEffect::NoExecute));
    taints
}
