//! CreateFleet as a market would answer it. moto launches everything from the first override; here
//! the overrides are tried in the order of the allocation strategy, pools run out, and each choice is
//! forwarded to moto as a fleet of one override.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use hyper::StatusCode;

use super::call::{Call, encode, indices, under};
use super::market::{CapacityType, Pool, dollars, micro_dollars};
use super::proxy::{Carried, Inner};
use super::xml::{Element, write_element, write_text};
use crate::http::Reply;

/// Fields of an override that EC2 echoes, as (request name, answer name).
const ECHOED: [(&str, &str); 5] = [
    ("InstanceType", "instanceType"),
    ("SubnetId", "subnetId"),
    ("AvailabilityZone", "availabilityZone"),
    ("Priority", "priority"),
    ("MaxPrice", "maxPrice"),
];

/// Fields that name a launch template, as (request name, answer name).
const TEMPLATE: [(&str, &str); 3] = [
    ("LaunchTemplateId", "launchTemplateId"),
    ("LaunchTemplateName", "launchTemplateName"),
    ("Version", "version"),
];

/// A CreateFleet request that the market understands.
pub(super) struct Fleet {
    /// How many to buy in which way, and by which strategy.
    purchases: Vec<(CapacityType, u32, String)>,
    /// All overrides of all configurations, in the order of the request.
    offers: Vec<Offer>,
}

struct Offer {
    template: BTreeMap<String, String>,
    override_: BTreeMap<String, String>,
    zone: String,
}

/// What came of one offer.
struct Outcome<'a> {
    offer: &'a Offer,
    capacity_type: CapacityType,
    result: Result<Launched, (String, String)>,
}

struct Launched {
    instance_ids: Vec<String>,
    /// The launch template as moto resolved it: id and version number.
    template: BTreeMap<String, String>,
}

impl Fleet {
    /// Reads the request. Requests without overrides, dry runs and fleets that live on are left to
    /// moto: no value.
    pub(super) async fn read(call: &Call, inner: &Inner) -> Result<Option<Self>> {
        if call.param("Type") != "instant" || call.param("DryRun") == "true" {
            return Ok(None);
        }
        let mut offers = Vec::new();
        for config in indices(&call.params, "LaunchTemplateConfigs") {
            let config = under(&call.params, &format!("LaunchTemplateConfigs.{config}"));
            let template = under(&config, "LaunchTemplateSpecification");
            for number in indices(&config, "Overrides") {
                let override_ = under(&config, &format!("Overrides.{number}"));
                let zone = match override_.get("AvailabilityZone") {
                    Some(zone) => zone.clone(),
                    None => inner.zone_of(get(&override_, "SubnetId")).await?,
                };
                offers.push(Offer { template: template.clone(), override_, zone });
            }
        }
        if offers.iter().any(|offer| !offer.override_.contains_key("InstanceType")) {
            return Ok(None);
        }
        let fleet = Self { purchases: purchases(call), offers };
        Ok(if fleet.offers.is_empty() { None } else { Some(fleet) })
    }

    /// The pools that the request may buy from.
    pub(super) fn pools(&self) -> Vec<Pool> {
        self.purchases
            .iter()
            .filter(|(_, count, _)| *count > 0)
            .flat_map(|(kind, _, _)| self.offers.iter().map(|offer| offer.pool(*kind)))
            .collect()
    }

    /// Buys, and answers as EC2 does: 200 with what was launched and what could not be.
    pub(super) async fn launch(&self, call: &Call, inner: &Inner) -> Result<Carried> {
        let exhausted = inner.rules.lock().exhausted(&self.pools());
        let mut outcomes = Vec::new();
        let mut fleet_id = None;
        for (kind, count, strategy) in &self.purchases {
            let mut wanted = *count;
            for offer in self.ranked(*kind, strategy, inner) {
                if wanted == 0 {
                    break;
                }
                let pool = offer.pool(*kind);
                if let Some(refusal) = refusal(offer, &pool, &exhausted, inner) {
                    outcomes.push(Outcome { offer, capacity_type: *kind, result: Err(refusal) });
                    continue;
                }
                let name = get(&offer.template, "LaunchTemplateName");
                let drawn = inner.reservations.lock().of_template(name).map(str::to_owned);
                let refund = |count| match &drawn {
                    Some(id) => inner.reservations.lock().refund(id, count),
                    None => inner.market.lock().refund(&pool, count),
                };
                let granted = match &drawn {
                    Some(id) => {
                        inner.reservations.lock().draw(id, &pool.instance_type, &pool.zone, wanted)
                    }
                    None => inner.market.lock().reserve(&pool, wanted),
                };
                if granted > 0 {
                    let reply = inner
                        .forward(call, Some(encode(&offer.request(call, *kind, granted))))
                        .await?;
                    if reply.status != StatusCode::OK.as_u16() {
                        refund(granted);
                        return Ok(Carried::from(reply));
                    }
                    let answer = Element::parse(&reply.text())?;
                    let launched = Launched::read(&answer);
                    match &drawn {
                        Some(id) => {
                            inner.reservations.lock().launched(id, &launched.instance_ids);
                        }
                        None => inner.market.lock().launched(&pool, &launched.instance_ids),
                    }
                    fleet_id.get_or_insert_with(|| answer.text_at("fleetId").to_owned());
                    outcomes.push(Outcome { offer, capacity_type: *kind, result: Ok(launched) });
                    wanted -= granted;
                }
                if wanted > 0 {
                    let result = Err(match &drawn {
                        Some(id) => used_up(id),
                        None => no_capacity(&pool),
                    });
                    outcomes.push(Outcome { offer, capacity_type: *kind, result });
                }
            }
        }
        let launched = outcomes.iter().filter_map(|outcome| outcome.result.as_ref().ok());
        let instance_ids = launched.flat_map(|one| one.instance_ids.clone()).collect();
        let fleet_id = fleet_id.unwrap_or_else(|| inner.made_up_fleet_id());
        let reply = Reply::new(200, "text/xml", render(&fleet_id, &outcomes));
        Ok(Carried { reply, launched: instance_ids, ..Carried::default() })
    }

    /// Offers in the order in which the strategy tries them.
    fn ranked(&self, kind: CapacityType, strategy: &str, inner: &Inner) -> Vec<&Offer> {
        let market = inner.market.lock();
        let mut offers: Vec<&Offer> = self.offers.iter().collect();
        // Stable sorts: the order of the request decides between equals.
        match strategy {
            "prioritized" | "capacity-optimized-prioritized" => {
                offers.sort_by(|a, b| a.priority().total_cmp(&b.priority()));
            }
            "capacity-optimized" => {
                offers.sort_by_key(|offer| std::cmp::Reverse(market.left(&offer.pool(kind))));
            }
            _ => offers.sort_by_key(|offer| market.price(&offer.pool(kind)).unwrap_or(u64::MAX)),
        }
        offers
    }
}

impl Offer {
    fn pool(&self, kind: CapacityType) -> Pool {
        Pool::new(get(&self.override_, "InstanceType"), &self.zone, kind)
    }

    /// Lower goes first; an offer without a priority goes last.
    fn priority(&self) -> f64 {
        get(&self.override_, "Priority").parse().unwrap_or(f64::INFINITY)
    }

    /// The request for `count` instances of this offer alone.
    fn request(&self, call: &Call, kind: CapacityType, count: u32) -> BTreeMap<String, String> {
        let mut params = call.params.clone();
        params.retain(|key, _| {
            !key.starts_with("LaunchTemplateConfigs.")
                && !key.starts_with("TargetCapacitySpecification.")
        });
        let config = "LaunchTemplateConfigs.1";
        let prefixed = |prefix: String, fields: &BTreeMap<String, String>| {
            let fields =
                fields.iter().map(|(key, value)| (format!("{prefix}.{key}"), value.clone()));
            fields.collect::<Vec<_>>()
        };
        params.extend(prefixed(format!("{config}.LaunchTemplateSpecification"), &self.template));
        params.extend(prefixed(format!("{config}.Overrides.1"), &self.override_));
        let target = "TargetCapacitySpecification";
        params.insert(format!("{target}.TotalTargetCapacity"), count.to_string());
        params.insert(format!("{target}.DefaultTargetCapacityType"), kind.as_str().to_owned());
        // EC2's default; moto breaks without it.
        params
            .entry("SpotOptions.AllocationStrategy".to_owned())
            .or_insert_with(|| "lowest-price".to_owned());
        params
    }
}

fn purchases(call: &Call) -> Vec<(CapacityType, u32, String)> {
    let number = |name: &str| -> u32 {
        call.param(&format!("TargetCapacitySpecification.{name}")).parse().unwrap_or(0)
    };
    let default = call.param("TargetCapacitySpecification.DefaultTargetCapacityType");
    let (spot, on_demand) = (number("SpotTargetCapacity"), number("OnDemandTargetCapacity"));
    let rest = number("TotalTargetCapacity").saturating_sub(spot + on_demand);
    let spot_strategy = call.param("SpotOptions.AllocationStrategy").to_owned();
    let on_demand_strategy = call.param("OnDemandOptions.AllocationStrategy").to_owned();
    let (spot, on_demand) = match CapacityType::parse(default) {
        CapacityType::Spot => (spot + rest, on_demand),
        CapacityType::OnDemand => (spot, on_demand + rest),
    };
    vec![
        (CapacityType::OnDemand, on_demand, on_demand_strategy),
        (CapacityType::Spot, spot, spot_strategy),
    ]
}

fn refusal(
    offer: &Offer,
    pool: &Pool,
    exhausted: &BTreeSet<Pool>,
    inner: &Inner,
) -> Option<(String, String)> {
    if exhausted.contains(pool) {
        return Some(no_capacity(pool));
    }
    if pool.capacity_type == CapacityType::Spot
        && let Some(limit) = offer.override_.get("MaxPrice").and_then(|price| micro_dollars(price))
        && let Some(price) = inner.market.lock().price(pool)
        && price > limit
    {
        let message = format!(
            "Your Spot request price of {} is lower than the minimum required Spot request \
             fulfillment price of {}.",
            dollars(limit),
            dollars(price)
        );
        return Some(("SpotMaxPriceTooLow".to_owned(), message));
    }
    None
}

fn no_capacity(pool: &Pool) -> (String, String) {
    let message = format!(
        "We currently do not have sufficient {} capacity in the Availability Zone you requested \
         ({}). Our system will be working on provisioning additional capacity.",
        pool.instance_type, pool.zone
    );
    ("InsufficientInstanceCapacity".to_owned(), message)
}

fn used_up(reservation: &str) -> (String, String) {
    let message = format!(
        "The requested reservation does not have sufficient compatible and available capacity for \
         this request: {reservation}."
    );
    ("ReservationCapacityExceeded".to_owned(), message)
}

impl Launched {
    fn read(answer: &Element) -> Self {
        let items = answer.items("fleetInstanceSet");
        let ids = items.iter().flat_map(|item| item.items("instanceIds"));
        let template = items
            .first()
            .and_then(|item| item.at("launchTemplateAndOverrides/launchTemplateSpecification"));
        let field = |(name, tag): (&str, &str)| {
            let value = template?.at(tag)?.text.clone();
            Some((name.to_owned(), value))
        };
        Self {
            instance_ids: ids.map(|id| id.text.clone()).collect(),
            template: TEMPLATE.into_iter().filter_map(field).collect(),
        }
    }
}

fn render(fleet_id: &str, outcomes: &[Outcome<'_>]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    write_element(&mut out, "CreateFleetResponse", |out| {
        write_text(out, "requestId", "00000000-0000-0000-0000-000000000000");
        write_text(out, "fleetId", fleet_id);
        write_element(out, "errorSet", |out| {
            for outcome in outcomes {
                if let Err((code, message)) = &outcome.result {
                    write_element(out, "item", |out| {
                        write_offer(out, outcome);
                        write_text(out, "errorCode", code);
                        write_text(out, "errorMessage", message);
                    });
                }
            }
        });
        write_element(out, "fleetInstanceSet", |out| {
            for outcome in outcomes {
                if let Ok(launched) = &outcome.result {
                    write_element(out, "item", |out| {
                        write_offer(out, outcome);
                        write_text(
                            out,
                            "instanceType",
                            get(&outcome.offer.override_, "InstanceType"),
                        );
                        write_text(out, "availabilityZone", &outcome.offer.zone);
                        write_element(out, "instanceIds", |out| {
                            for id in &launched.instance_ids {
                                write_text(out, "item", id);
                            }
                        });
                    });
                }
            }
        });
    });
    out
}

fn write_offer(out: &mut String, outcome: &Outcome<'_>) {
    let template = match &outcome.result {
        Ok(launched) => &launched.template,
        Err(_) => &outcome.offer.template,
    };
    write_element(out, "launchTemplateAndOverrides", |out| {
        write_element(out, "launchTemplateSpecification", |out| {
            for (name, tag) in TEMPLATE {
                if let Some(value) = template.get(name) {
                    write_text(out, tag, value);
                }
            }
        });
        write_element(out, "overrides", |out| {
            for (name, tag) in ECHOED {
                if let Some(value) = outcome.offer.override_.get(name) {
                    write_text(out, tag, value);
                }
            }
        });
    });
    write_text(out, "lifecycle", outcome.capacity_type.as_str());
}

fn get<'a>(fields: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    fields.get(name).map_or("", String::as_str)
}
