//! Catalogs that somebody else made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::Error;
use serde_json::value::RawValue;

use super::CatalogError;
use crate::model::instance::{CapacityType, InstanceType, Offering};
use crate::model::labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::requirement::{Expression, Operator, Requirement, Requirements};
use crate::model::resources::Resources;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    name: String,
    capacity: Resources,
    #[serde(default)]
    overhead: Option<Resources>,
    /// Other tools print it beside the overhead; it counts where no overhead is given.
    #[serde(default)]
    allocatable: Option<Resources>,
    #[serde(default)]
    requirements: Vec<Expression>,
    /// Volumes that nodes can attach, by CSI driver.
    #[serde(default)]
    attach_limits: BTreeMap<String, u32>,
    offerings: Vec<Offer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Offer {
    zone: String,
    #[serde(deserialize_with = "capacity_type")]
    capacity_type: CapacityType,
    #[serde(deserialize_with = "price")]
    price: MicroDollarsPerHour,
    #[serde(default = "yes")]
    available: bool,
}

fn yes() -> bool {
    true
}

fn capacity_type<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<CapacityType, D::Error> {
    let text = String::deserialize(reader)?;
    CapacityType::parse(&text).ok_or_else(|| {
        D::Error::custom(format!("{text:?} is not one of on-demand, spot, reserved"))
    })
}

fn price<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<MicroDollarsPerHour, D::Error> {
    let dollars = f64::deserialize(reader)?;
    MicroDollarsPerHour::from_dollars(dollars).filter(|price| price.0 >= 0).ok_or_else(|| {
        D::Error::custom(format!(
            "{dollars} is not a price in dollars per hour; write a number such as 0.0964"
        ))
    })
}

/// Reads a catalog file: a JSON array of
/// `{name, capacity, overhead, requirements, offerings: [{zone, capacityType, price, available}]}`.
/// The types come back sorted by name.
///
/// # Errors
/// One [`CatalogError::Invalid`] for each entry that is wrong, with the entry and the field.
pub fn from_json(json: &str) -> Result<Vec<Arc<InstanceType>>, Vec<CatalogError>> {
    let wrong = |message: String| vec![CatalogError::invalid("catalog", message)];
    let entries: Vec<&RawValue> = serde_json::from_str(json).map_err(|error| {
        wrong(format!(
            "is not a JSON array of instance types: {error}; write [{{\"name\": …, \"capacity\": …, \
             \"offerings\": […]}}]"
        ))
    })?;
    if entries.is_empty() {
        return Err(wrong("has no instance types; write at least one".to_owned()));
    }
    let mut names = BTreeSet::new();
    let mut types = Vec::with_capacity(entries.len());
    let mut errors = Vec::new();
    for (index, raw) in entries.into_iter().enumerate() {
        let read = entry(index, raw).and_then(|entry| {
            if !names.insert(entry.name.clone()) {
                let place = format!("entry {index} ({:?}): name", entry.name);
                let message = "another entry has the same name; remove or rename one";
                return Err(CatalogError::invalid(place, message));
            }
            instance_type(index, entry)
        });
        match read {
            Ok(instance) => types.push(Arc::new(instance)),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    types.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(types)
}

fn entry(index: usize, raw: &RawValue) -> Result<Entry, CatalogError> {
    let mut reader = serde_json::Deserializer::from_str(raw.get());
    let entry: Entry = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        let named = serde_json::from_str::<Named>(raw.get());
        let name = named.map(|named| format!(" ({:?})", named.name)).unwrap_or_default();
        // The position is one inside the entry, which nobody can find in the file.
        let message = error.inner().to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        CatalogError::invalid(format!("entry {index}{name}: {}", error.path()), message)
    })?;
    if entry.name.is_empty() {
        return Err(CatalogError::invalid(
            format!("entry {index}: name"),
            "is empty; give it a name",
        ));
    }
    Ok(entry)
}

fn instance_type(index: usize, entry: Entry) -> Result<InstanceType, CatalogError> {
    let fail = |field: String, message: &str| {
        CatalogError::invalid(format!("entry {index} ({:?}): {field}", entry.name), message)
    };
    for (position, expression) in entry.requirements.iter().enumerate() {
        if let Some(message) = misuse(expression) {
            return Err(fail(format!("requirements[{position}].values"), message));
        }
    }
    if let Some((name, _)) = entry.capacity.iter().find(|(_, amount)| *amount < 0) {
        return Err(fail(
            format!("capacity.{name}"),
            "must not be negative; write an amount such as 4 or 16Gi",
        ));
    }
    let mut requirements = Requirements::from_expressions(&entry.requirements);
    let own_name = Requirement::one_of([&*entry.name]);
    if requirements.get(labels::INSTANCE_TYPE).is_some_and(|named| !named.intersects(&own_name)) {
        return Err(fail(
            "requirements".to_owned(),
            "name another instance type than the entry's; remove that requirement",
        ));
    }
    requirements.insert(labels::INSTANCE_TYPE, own_name);
    let zones = entry.offerings.iter().map(|offer| &*offer.zone);
    let kinds = entry.offerings.iter().map(|offer| offer.capacity_type.label());
    for (key, requirement) in [
        (labels::ZONE, Requirement::one_of(zones)),
        (labels::CAPACITY_TYPE, Requirement::one_of(kinds)),
    ] {
        if requirements.get(key).is_none() {
            requirements.insert(key, requirement);
        }
    }
    let overhead = match (entry.overhead, entry.allocatable) {
        (Some(overhead), _) => overhead,
        (None, Some(allocatable)) => entry.capacity.minus(&allocatable),
        (None, None) => Resources::default(),
    };
    let offerings = entry
        .offerings
        .into_iter()
        .map(|Offer { zone, capacity_type, price, available }| Offering {
            zone: zone.into(),
            capacity_type,
            price,
            available,
            reserved: None,
        })
        .collect();
    Ok(InstanceType {
        name: entry.name.into(),
        requirements,
        capacity: entry.capacity,
        overhead,
        attach_limits: entry
            .attach_limits
            .into_iter()
            .map(|(driver, limit)| (driver.into(), i64::from(limit)))
            .collect(),
        offerings,
    })
}

/// What is wrong with the number or kind of an expression's values.
fn misuse(expression: &Expression) -> Option<&'static str> {
    match expression.operator {
        Operator::In if expression.values.is_empty() => Some("In needs at least one value"),
        Operator::Exists | Operator::DoesNotExist if !expression.values.is_empty() => {
            Some("Exists and DoesNotExist take no values")
        }
        Operator::Gt | Operator::Lt | Operator::Gte | Operator::Lte if !matches!(expression.values.as_slice(), [only] if only.parse::<i64>().is_ok()) => {
            Some("bounds take exactly one integer")
        }
        _ => None,
    }
}
