//! Instance types for planning without a cloud: the built-in table of EC2 and foreign catalogs.
//!
//! The table ships in the binary (`catalog/ec2.json.gz`, written by
//! `cargo run --example generate_catalog`). It holds the facts of each type, the zones of three
//! regions and the on-demand prices of us-east-1; it knows no spot prices, since EC2 publishes
//! those only live.

mod foreign;
mod generate;
mod spot;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

pub use generate::{Source, generate};
pub use spot::SpotPrices;

use super::class::ClassSettings;
use super::ec2facts::{Facts, Zone};
use crate::model::instance::{CapacityType, InstanceType, Offering};
use crate::model::money::MicroDollarsPerHour;

/// Region that the built-in prices are of.
pub const PRICED_REGION: &str = "us-east-1";

/// Instance types and what should be said about them.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Instance types, sorted by name.
    pub types: Vec<Arc<InstanceType>>,
    /// What the reader of a plan should know, such as prices of another region.
    pub warnings: Vec<String>,
}

/// Why there is no catalog.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CatalogError {
    /// The region is not in the built-in table.
    #[error(
        "region {region:?} is not in the built-in catalog; it has {known} (for others give a catalog file)"
    )]
    UnknownRegion {
        /// The region asked for.
        region: String,
        /// The regions that are there.
        known: String,
    },
    /// The text is not what it should be; the message names the place.
    #[error("{place}: {message}")]
    Invalid {
        /// Entry and field, or line and column.
        place: String,
        /// What is wrong and what is wanted.
        message: String,
    },
}

impl CatalogError {
    fn invalid(place: impl Into<String>, message: impl ToString) -> Self {
        Self::Invalid { place: place.into(), message: message.to_string() }
    }
}

/// The stored table.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Table {
    /// Zones of each region, in the order of the bits of [`Row::zones`].
    zones: BTreeMap<String, Vec<String>>,
    /// Types, sorted by name.
    rows: Vec<Row>,
}

/// One type of the table.
#[derive(Debug, Deserialize, Serialize)]
struct Row {
    /// The facts.
    f: Facts,
    /// On-demand price in us-east-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p: Option<MicroDollarsPerHour>,
    /// For each region the zones that offer it, as bits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    z: BTreeMap<String, u32>,
}

impl Table {
    /// The table that ships in the binary.
    pub fn builtin() -> &'static Self {
        static TABLE: OnceLock<Table> = OnceLock::new();
        TABLE.get_or_init(|| {
            Self::unpack(include_bytes!("catalog/ec2.json.gz"))
                .expect("the packed table is part of the source and a test reads it")
        })
    }

    fn unpack(packed: &[u8]) -> std::io::Result<Self> {
        let mut json = Vec::new();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut json)?;
        Ok(serde_json::from_slice(&json)?)
    }

    /// Regions that the table has.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        self.zones.keys().map(String::as_str)
    }

    /// Facts of a type.
    pub fn facts(&self, name: &str) -> Option<&Facts> {
        self.row(name).map(|row| &row.f)
    }

    /// On-demand price of a type in us-east-1.
    pub fn on_demand(&self, name: &str) -> Option<MicroDollarsPerHour> {
        self.row(name)?.p
    }

    fn row(&self, name: &str) -> Option<&Row> {
        let index = self.rows.binary_search_by(|row| (*row.f.name).cmp(name)).ok()?;
        Some(&self.rows[index])
    }

    /// All facts, sorted by name.
    pub fn all(&self) -> impl Iterator<Item = &Facts> {
        self.rows.iter().map(|row| &row.f)
    }
}

impl Catalog {
    /// The built-in catalog of a region as nodes of `class` see it. Types that have no price are
    /// not offered and left out.
    ///
    /// # Errors
    /// [`CatalogError::UnknownRegion`].
    pub fn builtin(
        region: &str,
        class: &ClassSettings,
        spot: &SpotPrices,
    ) -> Result<Self, CatalogError> {
        let table = Table::builtin();
        let Some(zones) = table.zones.get(region) else {
            let known = table.regions().collect::<Vec<_>>().join(", ");
            return Err(CatalogError::UnknownRegion { region: region.to_owned(), known });
        };
        let zones: Vec<Zone> =
            zones.iter().map(|name| Zone { name: Arc::from(&**name), id: Arc::from("") }).collect();
        let types = table
            .rows
            .iter()
            .filter_map(|row| {
                let on_demand = row.p?;
                let offered = *row.z.get(region)?;
                let compatible = row.f.incompatibility(class).is_none();
                let in_zones =
                    zones.iter().enumerate().filter(|(bit, _)| offered & (1 << bit) != 0);
                let offerings = in_zones
                    .flat_map(|(_, zone)| offers(&row.f, zone, on_demand, spot))
                    .map(|offer| Offering { available: compatible && offer.available, ..offer })
                    .collect();
                Some(Arc::new(row.f.instance_type(class, region, &zones, offerings)))
            })
            .collect();
        let mut warnings = spot.warnings();
        if region != PRICED_REGION {
            warnings.push(format!(
                "on-demand prices are those of {PRICED_REGION}: the built-in catalog has none for {region}"
            ));
        }
        Ok(Self { types, warnings })
    }

    /// Reads a foreign catalog: a JSON array of
    /// `{name, capacity, overhead, requirements, offerings: [{zone, capacityType, price, available}]}`.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`], which names the entry and the field.
    pub fn from_json(json: &str) -> Result<Self, CatalogError> {
        foreign::read(json)
    }
}

/// The ways to buy a type in one zone.
fn offers(
    facts: &Facts,
    zone: &Zone,
    on_demand: MicroDollarsPerHour,
    spot: &SpotPrices,
) -> Vec<Offering> {
    let offer = |capacity_type, price: Option<MicroDollarsPerHour>| Offering {
        zone: Arc::clone(&zone.name),
        capacity_type,
        price: price.unwrap_or(on_demand),
        available: price.is_some(),
    };
    let mut offers = Vec::new();
    if facts.spot {
        let price = spot.price(&facts.name, &zone.name, on_demand);
        offers.push(offer(CapacityType::Spot, price));
    }
    if facts.on_demand {
        offers.push(offer(CapacityType::OnDemand, Some(on_demand)));
    }
    offers
}

#[cfg(test)]
mod tests;
