//! What a class offers: facts, prices and shortages put together.
//!
//! Plans ask for it each time, so the answer is kept until something that it is made of changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::Provider;
use super::network;
use super::placement::PlacementGroup;
use super::pricing::PriceList;
use super::types::TypeTable;
use crate::api::ec2nodeclass::status::{CapacityReservation, ReservationState, ReservationType};
use crate::api::ec2nodeclass::{AmiStatus, EC2NodeClass, EC2NodeClassSpec, SubnetStatus};
use crate::cloud::facts::{Facts, Zone};
use crate::cloud::kubelet::KubeletError;
use crate::cloud::offerings::Unavailable;
use crate::cloud::settings::ClassSettings;
use crate::cloud::{ClassCatalog, CloudError};
use crate::model::instance::{self as model, CapacityType, InstanceType, Offering, Reserved};
use crate::model::money::MicroDollarsPerHour;
use crate::model::requirement::{Requirements, Texts};

type TypeList = Arc<[Arc<InstanceType>]>;

/// The part of the list price that reserved capacity counts as. The field's is a ten-millionth, for
/// which micro-dollars are too coarse.
const RESERVED_SHARE: i64 = 10_000;

/// Catalogs of the classes, and the shortages that all of them share.
#[derive(Debug, Default)]
pub(super) struct Catalogs {
    by_class: Mutex<BTreeMap<String, Entry>>,
    pub(super) unavailable: Mutex<Unavailable>,
}

impl Catalogs {
    /// Forgets a class.
    pub(super) fn forget(&self, class: &str) {
        self.by_class.lock().remove(class);
    }
}

#[derive(Debug)]
struct Entry {
    parts: Parts,
    all: TypeList,
    /// The shortages that `offered` was made with.
    sequence: u64,
    offered: TypeList,
}

/// What a catalog is made of.
#[derive(Clone, Debug)]
struct Parts {
    region: String,
    settings: ClassSettings,
    subnets: Vec<SubnetStatus>,
    amis: Vec<AmiStatus>,
    /// Reservations, with the instances that they have left.
    reservations: Vec<(CapacityReservation, u32)>,
    placement: Option<PlacementGroup>,
    types: Arc<TypeTable>,
    prices: Arc<PriceList>,
}

impl PartialEq for Parts {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.types, &other.types)
            && Arc::ptr_eq(&self.prices, &other.prices)
            && self.settings == other.settings
            && self.subnets == other.subnets
            && self.amis == other.amis
            && self.reservations == other.reservations
            && self.placement == other.placement
    }
}

impl Provider {
    /// Settings of a class with those of the process.
    pub(super) fn class_settings(
        &self,
        spec: &EC2NodeClassSpec,
    ) -> Result<ClassSettings, KubeletError> {
        let mut settings = ClassSettings::checked(spec)?;
        settings.reserved_enis = self.settings.reserved_enis;
        settings.memory_overhead_permille = self.settings.memory_overhead_permille;
        Ok(settings)
    }

    pub(super) async fn class_catalog(
        &self,
        class: &EC2NodeClass,
        now: Timestamp,
    ) -> Result<ClassCatalog, CloudError> {
        let not_ready = |message: String| CloudError::ClassNotReady { message };
        let settings =
            self.class_settings(&class.spec).map_err(|error| not_ready(error.to_string()))?;
        let Some(status) = &class.status else {
            return Err(not_ready("the class was not resolved yet".to_owned()));
        };
        let name = class.metadata.name.clone().unwrap_or_default();
        let volume_price = settings.volume_price;
        let parts = Parts {
            region: self.region.clone(),
            settings,
            subnets: status.subnets.clone(),
            amis: status.amis.clone(),
            reservations: status
                .capacity_reservations
                .iter()
                .map(|one| (one.clone(), self.reservations.left(&one.id)))
                .collect(),
            placement: self.placements.of(&class.spec),
            types: self.type_table(now).await?,
            prices: self.price_list(),
        };
        if let Some(types) = self.known(&name, &parts, now) {
            return Ok(ClassCatalog { types, volume_price });
        }
        // Some 1,400 types take longer than an async thread should be held.
        let (all, parts) = tokio::task::spawn_blocking(move || (parts.build(), parts))
            .await
            .map_err(|error| CloudError::Unknown { message: error.to_string() })?;
        let (sequence, types) = self.offered(&all, now);
        let entry = Entry { parts, all, sequence, offered: Arc::clone(&types) };
        self.catalogs.by_class.lock().insert(name, entry);
        Ok(ClassCatalog { types, volume_price })
    }

    /// The catalog as it was, with the shortages of today, if nothing else changed.
    fn known(&self, class: &str, parts: &Parts, now: Timestamp) -> Option<TypeList> {
        let sequence = self.catalogs.unavailable.lock().sequence(now);
        let mut by_class = self.catalogs.by_class.lock();
        let entry = by_class.get_mut(class).filter(|entry| entry.parts == *parts)?;
        if entry.sequence != sequence {
            (entry.sequence, entry.offered) = self.offered(&entry.all, now);
        }
        Some(Arc::clone(&entry.offered))
    }

    fn offered(&self, all: &TypeList, now: Timestamp) -> (u64, TypeList) {
        let mut unavailable = self.catalogs.unavailable.lock();
        (unavailable.sequence(now), unavailable.apply(all, now))
    }
}

impl Parts {
    /// All types that have a price, a zone of the class and an image, sorted by name.
    fn build(&self) -> TypeList {
        let zones = network::zones(&self.subnets);
        let images = images(&self.amis);
        let mut texts = Texts::default();
        self.types
            .facts
            .values()
            .filter_map(|facts| {
                let offerings = self.offerings(facts, &zones)?;
                let mut kind = facts.instance_type(&self.region, &self.settings, &zones, offerings);
                if let Some(group) = &self.placement {
                    if !group.takes(self.types.strategies.get(&facts.name)) {
                        return None;
                    }
                    group.label(&mut kind.requirements);
                }
                image_of(&images, &kind.requirements)?;
                kind.requirements.compact(&mut texts);
                Some(Arc::new(kind))
            })
            .collect()
    }

    fn offerings(&self, facts: &Facts, zones: &[Zone]) -> Option<Vec<Offering>> {
        let on_demand = self.prices.on_demand(&facts.name);
        let compatible = facts.incompatibility(&self.settings).is_none();
        let mut offerings = Vec::new();
        if let (Some(on_demand), Some(offered)) = (on_demand, self.types.zones.get(&facts.name)) {
            for zone in zones.iter().filter(|zone| offered.contains(&zone.name)) {
                let mut offer = |capacity_type, price: Option<_>| {
                    offerings.push(Offering {
                        zone: Arc::clone(&zone.name),
                        capacity_type,
                        price: price.unwrap_or(on_demand),
                        available: compatible && price.is_some(),
                        reserved: None,
                    });
                };
                if facts.spot {
                    offer(CapacityType::Spot, self.prices.spot(&facts.name, &zone.name));
                }
                if facts.on_demand {
                    offer(CapacityType::OnDemand, Some(on_demand));
                }
            }
        }
        let of_type = |(one, _): &&(CapacityReservation, u32)| *one.instance_type == *facts.name;
        for (one, left) in self.reservations.iter().filter(of_type) {
            let in_zone = |zone: &&Zone| *zone.name == *one.availability_zone;
            let Some(zone) = zones.iter().find(in_zone) else { continue };
            let usable = compatible && *left > 0 && one.state == ReservationState::Active;
            offerings.push(Offering {
                zone: Arc::clone(&zone.name),
                capacity_type: CapacityType::Reserved,
                price: reserved_price(on_demand),
                available: usable,
                reserved: Some(Reserved { reservation: Arc::new(reservation(one)), left: *left }),
            });
        }
        (!offerings.is_empty()).then_some(offerings)
    }
}

/// What reserved capacity counts as: nearly nothing, since it is paid for, and in the proportion of
/// list prices, so that small nodes are used for little.
fn reserved_price(on_demand: Option<MicroDollarsPerHour>) -> MicroDollarsPerHour {
    MicroDollarsPerHour((on_demand.unwrap_or_default().0 / RESERVED_SHARE).max(1))
}

fn reservation(status: &CapacityReservation) -> model::CapacityReservation {
    model::CapacityReservation {
        id: (&*status.id).into(),
        block: status.reservation_type == ReservationType::CapacityBlock,
        interruptible: status.interruptible == Some(true),
    }
}

/// Images with what they boot.
pub(super) fn images(amis: &[AmiStatus]) -> Vec<(&str, Requirements)> {
    let requirements = |ami: &AmiStatus| {
        let expressions: Vec<_> = ami
            .requirements
            .iter()
            .map(super::super::api::common::Requirement::expression)
            .collect();
        Requirements::from_expressions(&expressions)
    };
    amis.iter().map(|ami| (&*ami.id, requirements(ami))).collect()
}

/// The image that an instance type boots: the first that fits, which is the newest.
pub(super) fn image_of<'a>(
    images: &[(&'a str, Requirements)],
    kind: &Requirements,
) -> Option<&'a str> {
    images.iter().find(|(_, image)| image.conflict(kind).is_none()).map(|(id, _)| *id)
}
