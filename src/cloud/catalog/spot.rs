//! Where spot prices come from when no cloud can be asked.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::CatalogError;
use crate::model::money::MicroDollarsPerHour;

/// Spot prices: assumed, or listed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SpotPrices {
    /// On-demand price less this share, in thousandths, in every zone.
    Discount(i64),
    /// Prices by type and zone; what is not listed is not offered.
    Table(BTreeMap<(String, String), MicroDollarsPerHour>),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct History {
    spot_price_history: Vec<Record>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record {
    instance_type: String,
    availability_zone: String,
    spot_price: String,
    #[serde(default)]
    product_description: Option<String>,
    #[serde(default)]
    timestamp: Option<String>,
}

/// Reads the answer of `DescribeSpotPriceHistory` (as `aws ec2 describe-spot-price-history`
/// prints it). The newest Linux price of each type and zone counts.
///
/// # Errors
/// [`CatalogError::Invalid`], which names the record and the field.
pub fn spot_prices(json: &str) -> Result<SpotPrices, CatalogError> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let history: History = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { "spot prices".to_owned() } else { path };
        let wanted = "give what `aws ec2 describe-spot-price-history` prints";
        CatalogError::invalid(place, format!("{}; {wanted}", error.inner()))
    })?;
    reader.end().map_err(|error| {
        CatalogError::invalid("spot prices", format!("{error}; remove what follows the object"))
    })?;
    let mut listed = BTreeMap::new();
    for (index, record) in history.spot_price_history.into_iter().enumerate() {
        // Windows and other priced systems are listed as well.
        let product = record.product_description.as_deref().unwrap_or("Linux/UNIX");
        if !product.starts_with("Linux/UNIX") {
            continue;
        }
        let price = record.spot_price.parse().ok().and_then(MicroDollarsPerHour::from_dollars);
        let price = price.filter(|price| price.0 >= 0).ok_or_else(|| {
            CatalogError::invalid(
                format!("SpotPriceHistory[{index}].SpotPrice"),
                format!("{:?} is not a price in dollars such as \"0.0321\"", record.spot_price),
            )
        })?;
        let moment = match &record.timestamp {
            None => jiff::Timestamp::MIN,
            Some(text) => text.parse().map_err(|_| {
                CatalogError::invalid(
                    format!("SpotPriceHistory[{index}].Timestamp"),
                    format!("{text:?} is not a time such as 2026-01-31T12:00:00Z"),
                )
            })?,
        };
        let key = (record.instance_type, record.availability_zone);
        let entry = listed.entry(key).or_insert((moment, price));
        if moment >= entry.0 {
            *entry = (moment, price);
        }
    }
    Ok(SpotPrices::Table(listed.into_iter().map(|(key, (_, price))| (key, price)).collect()))
}

impl SpotPrices {
    /// The spot price of a type in a zone; `None` where it is not offered.
    pub(super) fn price(
        &self,
        name: &str,
        zone: &str,
        on_demand: MicroDollarsPerHour,
    ) -> Option<MicroDollarsPerHour> {
        match self {
            Self::Discount(share) => {
                let left = 1000 - share.clamp(&0, &1000);
                Some(MicroDollarsPerHour(on_demand.0.saturating_mul(left) / 1000))
            }
            Self::Table(prices) => prices.get(&(name.to_owned(), zone.to_owned())).copied(),
        }
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        match self {
            Self::Discount(share) => {
                vec![format!(
                    "spot prices are assumed: {}.{} % below on-demand in every zone; give --spot-prices \
                     for real ones",
                    share / 10,
                    share % 10
                )]
            }
            Self::Table(prices) if prices.is_empty() => {
                vec!["the list of spot prices has no Linux price: spot is not offered".to_owned()]
            }
            Self::Table(_) => Vec::new(),
        }
    }
}
