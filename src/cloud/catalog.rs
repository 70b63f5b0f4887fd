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

pub use foreign::from_json;
pub use generate::{Source, generate};
pub use spot::{SpotPrices, spot_prices};

use super::facts::{Facts, Zone};
use super::settings::ClassSettings;
use crate::model::instance::{CapacityType, InstanceType, Offering};
use crate::model::money::MicroDollarsPerHour;
use crate::model::requirement::Texts;

/// Region that the built-in prices are of.
pub const PRICED_REGION: &str = "us-east-1";

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
    fn invalid(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { place: place.into(), message: message.into() }
    }
}

/// EC2 as a table.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Catalog {
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

impl Catalog {
    /// The catalog that ships in the binary.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] when the data is damaged, which a test rules out.
    pub fn built_in() -> Result<&'static Self, CatalogError> {
        static BUILT_IN: OnceLock<Result<Catalog, CatalogError>> = OnceLock::new();
        let unpacked = BUILT_IN.get_or_init(|| {
            Self::unpack(include_bytes!("catalog/ec2.json.gz"))
                .map_err(|error| CatalogError::invalid("built-in catalog", error.to_string()))
        });
        unpacked.as_ref().map_err(Clone::clone)
    }

    fn unpack(packed: &[u8]) -> std::io::Result<Self> {
        let mut json = Vec::new();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut json)?;
        Ok(serde_json::from_slice(&json)?)
    }

    /// Regions that the catalog has.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        self.zones.keys().map(String::as_str)
    }

    /// Zones of a region, sorted; none where the region is not in the catalog.
    pub fn zones(&self, region: &str) -> &[String] {
        self.zones.get(region).map_or(&[], Vec::as_slice)
    }

    /// Names of all types, of whatever region.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|row| &*row.f.name)
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

    /// The types of a region as nodes of a class see them, sorted by name. Types that have no price
    /// are not offered and left out.
    ///
    /// # Errors
    /// [`CatalogError::UnknownRegion`].
    pub fn instance_types(
        &self,
        region: &str,
        settings: &ClassSettings,
        spot: &SpotPrices,
    ) -> Result<Vec<Arc<InstanceType>>, CatalogError> {
        let Some(zones) = self.zones.get(region) else {
            let known = self.regions().collect::<Vec<_>>().join(", ");
            return Err(CatalogError::UnknownRegion { region: region.to_owned(), known });
        };
        let zones: Vec<Zone> =
            zones.iter().map(|name| Zone { name: Arc::from(&**name), id: Arc::from("") }).collect();
        let mut texts = Texts::default();
        let instance_type = |row: &Row| {
            let on_demand = row.p?;
            let offered = *row.z.get(region)?;
            let compatible = row.f.incompatibility(settings).is_none();
            let in_zones = zones.iter().enumerate().filter(|(bit, _)| offered & (1 << bit) != 0);
            let offerings = in_zones
                .flat_map(|(_, zone)| offers(&row.f, zone, on_demand, spot))
                .map(|offer| Offering { available: compatible && offer.available, ..offer })
                .collect();
            let mut kind = row.f.instance_type(region, settings, &zones, offerings);
            kind.requirements.compact(&mut texts);
            Some(Arc::new(kind))
        };
        Ok(self.rows.iter().filter_map(instance_type).collect())
    }

    /// What the reader of a plan made from this catalog should know about its prices.
    pub fn warnings(&self, region: &str, spot: &SpotPrices) -> Vec<String> {
        let mut warnings = spot.warnings();
        if region != PRICED_REGION {
            warnings.push(format!(
                "on-demand prices are those of {PRICED_REGION}: the built-in catalog has none for {region}"
            ));
        }
        warnings
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
        reserved: None,
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
