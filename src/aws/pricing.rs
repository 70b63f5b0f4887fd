//! Prices: on demand from the Pricing API, spot from EC2's price history.
//!
//! Until they are read, and where they cannot be, on-demand prices are those of the built-in
//! catalog (of us-east-1) and spot costs as much as on-demand.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_pricing::types::{Filter, FilterType};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::Provider;
use super::error::from_sdk;
use crate::cloud::CloudError;
use crate::cloud::catalog::{Catalog, PRICED_REGION};
use crate::model::money::MicroDollarsPerHour;

/// Spot prices move slowly by design of the market, list prices hardly ever.
const REFRESH: SignedDuration = SignedDuration::from_hours(12);
/// How soon a failed read is tried again.
const RETRY: SignedDuration = SignedDuration::from_mins(10);

/// Prices and the moment when they are next read.
#[derive(Debug, Default)]
pub(super) struct Prices(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    list: Arc<PriceList>,
    next_on_demand: Option<Timestamp>,
    next_spot: Option<Timestamp>,
}

/// Spot price by type and zone.
type SpotTable = BTreeMap<(Arc<str>, Arc<str>), MicroDollarsPerHour>;

/// Prices of the region.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct PriceList {
    on_demand: BTreeMap<Arc<str>, MicroDollarsPerHour>,
    /// By type and zone; `None` until read for the first time.
    spot: Option<SpotTable>,
}

impl PriceList {
    /// On-demand price of a type.
    pub(super) fn on_demand(&self, kind: &str) -> Option<MicroDollarsPerHour> {
        let live = self.on_demand.get(kind).copied();
        live.or_else(|| Catalog::built_in().ok()?.on_demand(kind))
    }

    /// Spot price of a type in a zone.
    pub(super) fn spot(&self, kind: &Arc<str>, zone: &Arc<str>) -> Option<MicroDollarsPerHour> {
        match &self.spot {
            None => self.on_demand(kind),
            Some(prices) => prices.get(&(Arc::clone(kind), Arc::clone(zone))).copied(),
        }
    }
}

impl Provider {
    /// The prices that are known.
    pub(super) fn price_list(&self) -> Arc<PriceList> {
        Arc::clone(&self.prices.0.lock().list)
    }

    /// Reads prices again when they are old. What was known stays when that fails.
    pub(super) async fn refresh_prices(&self, now: Timestamp) {
        let due = |next: Option<Timestamp>| next.is_none_or(|next| next <= now);
        let (on_demand_due, spot_due) = {
            let known = self.prices.0.lock();
            (due(known.next_on_demand) && !self.settings.isolated, due(known.next_spot))
        };
        let on_demand =
            async { if on_demand_due { Some(self.read_on_demand().await) } else { None } };
        let spot = async { if spot_due { Some(self.read_spot(now).await) } else { None } };
        let (on_demand, spot) = futures::join!(on_demand, spot);
        let after = |failed: bool| now.checked_add(if failed { RETRY } else { REFRESH }).ok();
        let mut known = self.prices.0.lock();
        let mut list = PriceList::clone(&known.list);
        if let Some(read) = on_demand {
            known.next_on_demand = after(read.is_err());
            match read {
                Ok(prices) => list.on_demand.extend(prices),
                Err(error) => tracing::warn!(
                    %error,
                    "on-demand prices were not read; those of {PRICED_REGION} in the built-in catalog stand in"
                ),
            }
        }
        if let Some(read) = spot {
            known.next_spot = after(read.is_err());
            match read {
                Ok(prices) => list.spot.get_or_insert_default().extend(prices),
                Err(error) => {
                    tracing::warn!(%error, "spot prices were not read; the old ones stay");
                }
            }
        }
        if list != *known.list {
            known.list = Arc::new(list);
        }
    }

    async fn read_spot(
        &self,
        now: Timestamp,
    ) -> Result<BTreeMap<(Arc<str>, Arc<str>), MicroDollarsPerHour>, CloudError> {
        let mut pages = self
            .ec2
            .describe_spot_price_history()
            .product_descriptions("Linux/UNIX")
            .product_descriptions("Linux/UNIX (Amazon VPC)")
            // A period that begins now has only the prices that count now.
            .start_time(aws_smithy_types::DateTime::from_secs(now.as_second()))
            .into_paginator()
            .page_size(1000)
            .send();
        let mut prices = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| from_sdk(&error))?;
            for record in page.spot_price_history() {
                let price = record
                    .spot_price()
                    .and_then(|text| text.parse().ok())
                    .and_then(MicroDollarsPerHour::from_dollars);
                if let (Some(kind), Some(zone), Some(price)) =
                    (record.instance_type(), record.availability_zone(), price)
                {
                    prices.insert((kind.as_str().into(), zone.into()), price);
                }
            }
        }
        if prices.is_empty() {
            return Err(CloudError::Unknown { message: "EC2 listed no spot prices".to_owned() });
        }
        Ok(prices)
    }

    async fn read_on_demand(&self) -> Result<BTreeMap<Arc<str>, MicroDollarsPerHour>, CloudError> {
        let (shared, metal) = futures::try_join!(
            self.products("Shared", "Compute Instance"),
            self.products("Dedicated", "Compute Instance (bare metal)"),
        )?;
        let mut prices = shared;
        prices.extend(metal);
        if prices.is_empty() {
            return Err(CloudError::Unknown { message: "no prices were listed".to_owned() });
        }
        Ok(prices)
    }

    async fn products(
        &self,
        tenancy: &str,
        family: &str,
    ) -> Result<BTreeMap<Arc<str>, MicroDollarsPerHour>, CloudError> {
        let mut request = self.pricing.get_products().service_code("AmazonEC2");
        for (field, value) in [
            ("regionCode", &*self.region),
            ("serviceCode", "AmazonEC2"),
            ("preInstalledSw", "NA"),
            ("operatingSystem", "Linux"),
            ("capacitystatus", "Used"),
            ("marketoption", "OnDemand"),
            ("tenancy", tenancy),
            ("productFamily", family),
        ] {
            let filter =
                Filter::builder().r#type(FilterType::TermMatch).field(field).value(value).build();
            request = request.filters(filter.map_err(|error| CloudError::Unknown {
                message: format!("a price filter cannot be built: {error}"),
            })?);
        }
        let mut pages = request.into_paginator().page_size(100).send();
        let mut prices = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| from_sdk(&error))?;
            prices.extend(page.price_list().iter().filter_map(|text| product(text)));
        }
        Ok(prices)
    }
}

/// Type and price of one product of the price list; `None` for what is free or cannot be read.
fn product(text: &str) -> Option<(Arc<str>, MicroDollarsPerHour)> {
    let product: serde_json::Value = serde_json::from_str(text).ok()?;
    let kind = product["product"]["attributes"]["instanceType"].as_str()?;
    let offers = product["terms"]["OnDemand"].as_object()?;
    let dimensions =
        offers.values().filter_map(|offer| offer["priceDimensions"].as_object()).flatten();
    // The regions of China are priced in their own currency, which orders types all the same.
    let price = dimensions
        .filter_map(|(_, dimension)| {
            let unit = &dimension["pricePerUnit"];
            unit["USD"].as_str().or_else(|| unit["CNY"].as_str())?.parse().ok()
        })
        .filter_map(MicroDollarsPerHour::from_dollars)
        .find(|price| price.0 > 0)?;
    Some((kind.into(), price))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_read_one_by_one() {
        let text = |dollars: &str| {
            format!(
                r#"{{"product":{{"attributes":{{"instanceType":"m5.large"}}}},"terms":{{"OnDemand":{{"A.B":{{"priceDimensions":{{"A.B.C":{{"unit":"Hrs","pricePerUnit":{{"USD":"{dollars}"}}}}}}}}}}}}}}"#
            )
        };
        let (kind, price) = product(&text("0.0960000000")).unwrap();
        assert_eq!((&*kind, price.0), ("m5.large", 96_000));
        for broken in [text("0.0000000000"), text("free"), "{}".to_owned(), "no json".to_owned()] {
            assert_eq!(product(&broken), None, "{broken}");
        }
    }

    #[test]
    fn unknown_prices_fall_back() {
        let (kind, zone): (Arc<str>, Arc<str>) = ("m5.large".into(), "z".into());
        let mut list = PriceList::default();
        assert_eq!(list.on_demand(&kind), Some(MicroDollarsPerHour(96_000)));
        assert_eq!(list.spot(&kind, &zone), Some(MicroDollarsPerHour(96_000)));
        list.spot = Some(BTreeMap::new());
        assert_eq!(list.spot(&kind, &zone), None);
        assert_eq!(list.on_demand("x9.mega"), None);
    }
}
