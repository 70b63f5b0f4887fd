//! The catalog that ships in the binary, and catalogs from files.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::settings::ClassSettings;
use crate::api::decode::{FieldError, decode_lenient};
use crate::model::instance::{CapacityType, InstanceType, Offering};
use crate::model::labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::requirement::{Expression, Requirements};
use crate::model::resources::Resources;

/// Made by `cargo run --example generate_catalog`.
static BUILT_IN: &[u8] = include_bytes!("catalog/ec2.json.gz");

/// EC2 as a table.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Catalog {
    /// Where and when the facts were read.
    pub source: String,
    /// Types, by name.
    pub types: Vec<Facts>,
    /// On-demand Linux price in us-east-1 by type, micro-dollars per hour.
    pub prices: BTreeMap<String, i64>,
    /// Zones of each region, with the positions of the types that are offered there.
    pub zones: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
}

/// Why the catalog cannot be used as asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CatalogError {
    /// The data in the binary is damaged.
    #[error("the built-in catalog cannot be read: {0}")]
    Damaged(String),
    /// The region is not in the catalog.
    #[error(
        "region {region} is not in the built-in catalog (known: {known}); give --catalog FILE for others"
    )]
    UnknownRegion {
        /// What was asked.
        region: String,
        /// What there is.
        known: String,
    },
    /// A catalog file is wrong.
    #[error("entry {index}{name}: {error}")]
    Entry {
        /// Position in the array.
        index: usize,
        /// Name of the type, if known, in brackets.
        name: String,
        /// What is wrong.
        error: FieldError,
    },
    /// A file is not what it should be at all.
    #[error("{0}")]
    Shape(String),
}

/// Where spot prices come from.
#[derive(Clone, Debug)]
pub enum SpotPrices {
    /// On-demand less this share, in thousandths.
    Discount(i64),
    /// By type and zone; what is missing is not offered.
    Table(BTreeMap<(String, String), MicroDollarsPerHour>),
}

impl Catalog {
    /// The catalog in the binary.
    ///
    /// # Errors
    /// When the data is damaged, which a test rules out.
    pub fn built_in() -> Result<Self, CatalogError> {
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(BUILT_IN)
            .read_to_end(&mut text)
            .map_err(|error| CatalogError::Damaged(error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| CatalogError::Damaged(error.to_string()))
    }

    /// The types that a class can launch in a region, by name. Types without a price are left out.
    ///
    /// # Errors
    /// When the region is not in the catalog.
    pub fn instance_types(
        &self,
        region: &str,
        settings: &ClassSettings,
        spot: &SpotPrices,
    ) -> Result<Vec<Arc<InstanceType>>, CatalogError> {
        let zones = self.zones.get(region).ok_or_else(|| CatalogError::UnknownRegion {
            region: region.to_owned(),
            known: self.zones.keys().cloned().collect::<Vec<_>>().join(", "),
        })?;
        let mut by_type: BTreeMap<usize, Vec<Arc<str>>> = BTreeMap::new();
        for (zone, types) in zones {
            let zone: Arc<str> = (&**zone).into();
            for index in types {
                by_type.entry(*index).or_default().push(Arc::clone(&zone));
            }
        }
        let mut types = Vec::new();
        for (index, zones) in by_type {
            let Some(facts) = self.types.get(index) else { continue };
            let Some(price) = self.prices.get(&facts.name) else { continue };
            let offerings = offerings(facts, *price, &zones, spot);
            types.push(Arc::new(facts.instance_type(region, settings, offerings)));
        }
        types.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(types)
    }
}

fn offerings(facts: &Facts, price: i64, zones: &[Arc<str>], spot: &SpotPrices) -> Vec<Offering> {
    let mut offerings = Vec::new();
    let offer = |zone: &Arc<str>, capacity_type, price| Offering {
        zone: Arc::clone(zone),
        capacity_type,
        price,
        available: true,
    };
    for zone in zones {
        if facts.on_demand {
            offerings.push(offer(zone, CapacityType::OnDemand, MicroDollarsPerHour(price)));
        }
        let spot_price = match spot {
            SpotPrices::Discount(permille) => {
                Some(MicroDollarsPerHour(price * (1000 - permille) / 1000))
            }
            SpotPrices::Table(table) => table.get(&(facts.name.clone(), zone.to_string())).copied(),
        };
        if let Some(price) = spot_price.filter(|_| facts.spot) {
            offerings.push(offer(zone, CapacityType::Spot, price));
        }
    }
    offerings
}

/// One entry of a catalog file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: String,
    capacity: Resources,
    #[serde(default)]
    overhead: Resources,
    #[serde(default)]
    requirements: Vec<Expression>,
    offerings: Vec<EntryOffering>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EntryOffering {
    zone: String,
    capacity_type: CapacityType,
    price: f64,
    #[serde(default = "yes")]
    available: bool,
}

fn yes() -> bool {
    true
}

/// Reads a catalog file: a JSON array of types with capacity, overhead, requirements, offerings.
///
/// # Errors
/// The first entry that is wrong, with its field.
pub fn from_json(text: &str) -> Result<Vec<Arc<InstanceType>>, CatalogError> {
    let value: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| CatalogError::Shape(format!("the catalog is not JSON: {error}")))?;
    let serde_json::Value::Array(entries) = value else {
        return Err(CatalogError::Shape("the catalog must be a JSON array of types".to_owned()));
    };
    if entries.is_empty() {
        return Err(CatalogError::Shape("the catalog has no types".to_owned()));
    }
    let mut types = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let name = entry["name"].as_str().map(|name| format!(" ({name})")).unwrap_or_default();
        let wrong = |error| CatalogError::Entry { index, name: name.clone(), error };
        let entry: Entry = decode_lenient(entry).map_err(wrong)?;
        types.push(Arc::new(entry.instance_type().map_err(wrong)?));
    }
    types.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(types)
}

impl Entry {
    fn instance_type(self) -> Result<InstanceType, FieldError> {
        let mut requirements = Requirements::from_expressions(&self.requirements);
        if requirements.get(labels::INSTANCE_TYPE).is_none() {
            let own = crate::model::requirement::Requirement::one_of([&*self.name]);
            requirements.insert(labels::INSTANCE_TYPE, own);
        }
        let mut offerings = Vec::new();
        for (index, offering) in self.offerings.iter().enumerate() {
            let price =
                MicroDollarsPerHour::from_dollars(offering.price).filter(|price| price.0 >= 0);
            offerings.push(Offering {
                zone: (&*offering.zone).into(),
                capacity_type: offering.capacity_type,
                price: price.ok_or_else(|| {
                    FieldError::new(
                        format!("offerings[{index}].price"),
                        format!("{} is not a price", offering.price),
                        "give dollars per hour, for example 0.096",
                    )
                })?,
                available: offering.available,
            });
        }
        Ok(InstanceType {
            name: self.name.into(),
            requirements,
            capacity: self.capacity,
            overhead: self.overhead,
            offerings,
        })
    }
}

/// Reads the output of `aws ec2 describe-spot-price-history`.
///
/// # Errors
/// When it is not JSON of that form.
pub fn spot_prices(text: &str) -> Result<SpotPrices, CatalogError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct History {
        spot_price_history: Vec<Price>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Price {
        availability_zone: String,
        instance_type: String,
        #[serde(rename = "SpotPrice")]
        dollars: String,
        #[serde(default)]
        timestamp: String,
    }
    let value: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| CatalogError::Shape(format!("the spot prices are not JSON: {error}")))?;
    let history: History = decode_lenient(&value)
        .map_err(|error| CatalogError::Shape(format!("the spot prices: {error}")))?;
    let mut newest: BTreeMap<(String, String), (String, MicroDollarsPerHour)> = BTreeMap::new();
    for (index, price) in history.spot_price_history.into_iter().enumerate() {
        let dollars = price.dollars.parse::<f64>().ok().and_then(MicroDollarsPerHour::from_dollars);
        let Some(dollars) = dollars else {
            return Err(CatalogError::Shape(format!(
                "SpotPriceHistory[{index}].SpotPrice: {:?} is not a price",
                price.dollars
            )));
        };
        let entry = newest
            .entry((price.instance_type, price.availability_zone))
            .or_insert_with(|| (price.timestamp.clone(), dollars));
        if price.timestamp >= entry.0 {
            *entry = (price.timestamp, dollars);
        }
    }
    Ok(SpotPrices::Table(newest.into_iter().map(|(key, (_, price))| (key, price)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocatable_of_known_types() {
        let catalog = Catalog::built_in().unwrap();
        // Measured values of AL2023 with default settings: cpu, memory MiB, pods, one extended
        // resource.
        for (name, cpu, memory, pods, extra) in [
            ("a1.medium", 940, 1392, 8, ("vpc.amazonaws.com/pod-eni", 10)),
            ("a1.large", 1930, 3055, 29, ("nvidia.com/gpu", 0)),
            ("t3.medium", 1930, 3246, 17, ("nvidia.com/gpu", 0)),
            ("m5.large", 1930, 6903, 29, ("vpc.amazonaws.com/pod-eni", 9)),
            ("m6g.large", 1930, 6844, 29, ("vpc.amazonaws.com/pod-eni", 9)),
            ("c6a.4xlarge", 15890, 27381, 234, ("nvidia.com/gpu", 0)),
            ("c7gn.16xlarge", 63770, 112_720, 737, ("nvidia.com/gpu", 0)),
            ("m5.24xlarge", 95690, 355_262, 737, ("nvidia.com/gpu", 0)),
            ("g4dn.xlarge", 3920, 14481, 29, ("nvidia.com/gpu", 1)),
            ("inf2.xlarge", 3920, 14162, 58, ("aws.amazon.com/neuroncore", 2)),
            ("p4d.24xlarge", 95690, 1_082_712, 737, ("vpc.amazonaws.com/efa", 4)),
            ("p5.48xlarge", 191_450, 1_938_410, 100, ("nvidia.com/gpu", 8)),
            ("trn1.32xlarge", 127_610, 481_894, 247, ("aws.amazon.com/neuroncore", 32)),
            ("u-6tb1.112xlarge", 446_810, 5_811_134, 737, ("nvidia.com/gpu", 0)),
        ] {
            let facts = catalog.types.iter().find(|facts| facts.name == name).unwrap();
            let instance = facts.instance_type("us-east-1", &ClassSettings::default(), Vec::new());
            let allocatable = instance.allocatable();
            let found = (allocatable.cpu, allocatable.memory >> 20, allocatable.pods);
            assert_eq!(found, (cpu, memory, pods), "{name}");
            assert_eq!(allocatable.get(extra.0), extra.1, "{name} {}", extra.0);
            assert_eq!(allocatable.ephemeral_storage >> 30, 17, "{name}");
        }
    }

    #[test]
    fn regions_have_offerings_and_prices() {
        let catalog = Catalog::built_in().unwrap();
        let spot = SpotPrices::Discount(600);
        for region in ["us-east-1", "us-west-2", "eu-west-1"] {
            let types = catalog.instance_types(region, &ClassSettings::default(), &spot).unwrap();
            assert!(types.len() > 900, "{region}: {}", types.len());
            assert!(types.iter().all(|t| t.cheapest().is_some()), "{region}");
        }
        let error = catalog.instance_types("mars-1", &ClassSettings::default(), &spot).unwrap_err();
        assert!(error.to_string().contains("known: eu-west-1"), "{error}");
    }

    #[test]
    fn foreign_catalogs_name_what_is_wrong() {
        let good = r#"[{"name":"a","capacity":{"cpu":"2","memory":"4Gi","pods":"10"},"offerings":[{"zone":"z","capacityType":"spot","price":0.5}]}]"#;
        assert_eq!(from_json(good).unwrap()[0].offerings[0].price, MicroDollarsPerHour(500_000));
        for (bad, expected) in [
            (
                r#"[{"name":"a","capacity":{"cpu":"two"},"offerings":[]}]"#,
                "entry 0 (a): capacity.cpu: quantity \"two\"",
            ),
            (r#"[{"name":"a","offerings":[]}]"#, "missing field `capacity`"),
            (r#"{"name":"a"}"#, "must be a JSON array"),
            ("[]", "no types"),
            ("[", "not JSON"),
            (
                r#"[{"name":"a","capacity":{},"offerings":[{"zone":"z","capacityType":"sport","price":1}]}]"#,
                "offerings[0].capacityType",
            ),
            (
                r#"[{"name":"a","capacity":{},"offerings":[{"zone":"z","capacityType":"spot","price":-1}]}]"#,
                "offerings[0].price: -1 is not a price",
            ),
        ] {
            let error = from_json(bad).unwrap_err().to_string();
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }

    #[test]
    fn spot_prices_take_the_newest() {
        let text = r#"{"SpotPriceHistory":[
            {"AvailabilityZone":"z","InstanceType":"a","SpotPrice":"0.2","Timestamp":"2026-01-02T00:00:00Z"},
            {"AvailabilityZone":"z","InstanceType":"a","SpotPrice":"0.1","Timestamp":"2026-01-01T00:00:00Z"}
        ]}"#;
        let SpotPrices::Table(table) = spot_prices(text).unwrap() else { panic!() };
        assert_eq!(table[&("a".to_owned(), "z".to_owned())], MicroDollarsPerHour(200_000));
    }
}
