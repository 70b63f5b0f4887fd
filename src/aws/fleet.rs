//! CreateFleet: one call that buys an order's instances from its options.
//!
//! The caller has filtered and ordered the options. What is decided here: the capacity type of the
//! call is that of the first option (a fleet buys one capacity type at a time); spot options that
//! cost more than the cheapest on-demand option are left out; one subnet a zone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use aws_sdk_ec2::error::SdkError;
use aws_sdk_ec2::operation::create_fleet::builders::CreateFleetFluentBuilder;
use aws_sdk_ec2::operation::create_fleet::{CreateFleetError, CreateFleetOutput};
use aws_sdk_ec2::types::{
    DefaultTargetCapacityType, FleetLaunchTemplateConfigRequest,
    FleetLaunchTemplateOverridesRequest, FleetLaunchTemplateSpecificationRequest,
    FleetOnDemandAllocationStrategy, FleetReservationType, FleetType, OnDemandOptionsRequest,
    ReservedCapacityOptionsRequest, ResourceType, SpotAllocationStrategy, SpotOptionsRequest,
    TargetCapacitySpecificationRequest,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use jiff::{SignedDuration, Timestamp};

use super::Provider;
use super::cache::Cache;
use super::error::{classify, code, from_sdk, is_missing_template, is_shortage};
use super::instances::provider_id;
use super::launch_template::Group;
use super::tags;
use crate::api::conditions::{self, ConditionStatus};
use crate::api::ec2nodeclass::EC2NodeClass;
use crate::cloud::{CloudError, Instance, LaunchOption, LaunchOrder, LaunchResult};
use crate::model::instance::{CapacityReservation, CapacityType};

/// EC2 takes no more overrides than this in one call.
const MAX_OVERRIDES: usize = 300;
/// A fleet chooses among this many types at most; more add nothing but templates.
const MAX_TYPES: usize = 60;
/// How long a request is kept for a repetition under its token. EC2 compares repetitions word by
/// word, and the choice of subnets moves with the free addresses.
const REPEATABLE: SignedDuration = SignedDuration::from_mins(15);

/// Requests by token.
#[derive(Debug)]
pub(super) struct Sent(Cache<String, Arc<Request>>);

impl Default for Sent {
    fn default() -> Self {
        Self(Cache::new(REPEATABLE))
    }
}

/// A call, with every choice made.
#[derive(Debug)]
pub(super) struct Request {
    fingerprint: String,
    token: String,
    count: i32,
    capacity_type: CapacityType,
    /// The reservation that the call draws on.
    reservation: Option<Arc<CapacityReservation>>,
    /// Whether EC2 is to keep to our order where it would go by its own prices.
    in_order: bool,
    context: Option<String>,
    tags: BTreeMap<String, String>,
    groups: Vec<Group>,
    overrides: Vec<Override>,
}

#[derive(Debug)]
struct Override {
    /// Index of the group.
    group: usize,
    option: LaunchOption,
    subnet: String,
}

impl Provider {
    pub(super) async fn create_fleet(
        &self,
        order: &LaunchOrder,
        now: Timestamp,
    ) -> Result<LaunchResult, CloudError> {
        check_ready(&order.class)?;
        let request = self.request(order, now).await?;
        let sent = match self.send(&request).await {
            Err(error) if is_missing_template(code(&error)) => {
                // Somebody deleted a template; nothing was launched and the token is unused.
                self.recreate(&request.groups, now).await?;
                self.send(&request).await
            }
            sent => sent,
        };
        match sent {
            Ok(answer) => self.read(order, &request, &answer, now),
            Err(error) if is_shortage(code(&error)) => {
                let text = format!("{}: the whole call was refused", code(&error));
                Err(self.no_capacity(&request, text, now))
            }
            Err(error) => Err(from_sdk(&error)),
        }
    }

    /// The request of an order: the same as last time where its token was seen before.
    async fn request(
        &self,
        order: &LaunchOrder,
        now: Timestamp,
    ) -> Result<Arc<Request>, CloudError> {
        let fingerprint = format!(
            "{} {} {:?} {} {:?} {:?} {:?}",
            order.pool,
            order.count,
            order.options,
            order.priced_by_overlay,
            order.labels,
            order.taints,
            order.tags
        );
        let known = self.sent.0.get(&order.token, now);
        if let Some(known) = known.filter(|known| known.fingerprint == fingerprint) {
            return Ok(known);
        }
        let order = narrowed(order);
        let groups = self.prepare(&order, now).await?;
        let request = Arc::new(self.compose(&order, groups, fingerprint, now)?);
        self.sent.0.put(order.token.clone(), Arc::clone(&request), now);
        Ok(request)
    }

    pub(super) fn compose(
        &self,
        order: &LaunchOrder,
        groups: Vec<Group>,
        fingerprint: String,
        now: Timestamp,
    ) -> Result<Request, CloudError> {
        let subnets = order.class.status.as_ref().map(|status| &*status.subnets);
        let subnets = self.network.choose(subnets.unwrap_or_default(), now);
        let mut seen = BTreeSet::new();
        let overrides: Vec<Override> = order
            .options
            .iter()
            .filter_map(|option| {
                let subnet = (*subnets.get(&*option.zone)?).to_owned();
                let group =
                    groups.iter().position(|group| group.types.contains(&option.instance_type))?;
                seen.insert((&option.instance_type, &option.zone)).then(|| Override {
                    group,
                    option: option.clone(),
                    subnet,
                })
            })
            .take(MAX_OVERRIDES)
            .collect();
        let Some(first) = overrides.first() else {
            return Err(CloudError::InsufficientCapacity {
                message: "no option has a subnet with free addresses and an image".to_owned(),
            });
        };
        let mut tags =
            tags::of_class(&order.class, &self.settings.cluster_name, Some(&*order.pool));
        tags.extend(order.tags.clone());
        Ok(Request {
            fingerprint,
            token: order.token.clone(),
            count: i32::try_from(order.count).unwrap_or(i32::MAX),
            capacity_type: first.option.capacity_type,
            reservation: first.option.reservation.clone(),
            in_order: order.priced_by_overlay,
            context: order.class.spec.context.clone(),
            tags,
            groups,
            overrides,
        })
    }

    async fn send(
        &self,
        request: &Request,
    ) -> Result<CreateFleetOutput, SdkError<CreateFleetError, HttpResponse>> {
        self.call(request).send().await
    }

    /// The call of a request.
    pub(super) fn call(&self, request: &Request) -> CreateFleetFluentBuilder {
        let market = request.market();
        let target = match market {
            Market::Spot => DefaultTargetCapacityType::Spot,
            Market::OnDemand => DefaultTargetCapacityType::OnDemand,
            Market::Block => DefaultTargetCapacityType::CapacityBlock,
            Market::Interruptible => DefaultTargetCapacityType::ReservedCapacity,
        };
        let capacity = TargetCapacitySpecificationRequest::builder()
            .total_target_capacity(request.count)
            .default_target_capacity_type(target)
            .build();
        let mut call = self
            .ec2
            .create_fleet()
            .r#type(FleetType::Instant)
            .client_token(&request.token)
            .target_capacity_specification(capacity)
            .set_launch_template_configs(Some(request.configs()))
            .set_context(request.context.clone());
        // The strategy is always said: EC2's own default is not what we want.
        call = match market {
            Market::Spot => {
                let strategy = if request.in_order {
                    SpotAllocationStrategy::CapacityOptimizedPrioritized
                } else {
                    SpotAllocationStrategy::PriceCapacityOptimized
                };
                let options = SpotOptionsRequest::builder().allocation_strategy(strategy);
                call.spot_options(options.build())
            }
            Market::OnDemand => {
                let strategy = if request.in_order {
                    FleetOnDemandAllocationStrategy::Prioritized
                } else {
                    FleetOnDemandAllocationStrategy::LowestPrice
                };
                let options = OnDemandOptionsRequest::builder().allocation_strategy(strategy);
                call.on_demand_options(options.build())
            }
            Market::Block => call,
            Market::Interruptible => {
                let kind = FleetReservationType::InterruptibleCapacityReservation;
                let options = ReservedCapacityOptionsRequest::builder().reservation_types(kind);
                call.reserved_capacity_options(options.build())
            }
        };
        for kind in [ResourceType::Instance, ResourceType::Volume, ResourceType::Fleet] {
            call = call.tag_specifications(tags::specification(kind, &request.tags));
        }
        call
    }

    /// Reads an answer: instances, grouped or one by one, and what had no capacity.
    fn read(
        &self,
        order: &LaunchOrder,
        request: &Request,
        answer: &CreateFleetOutput,
        now: Timestamp,
    ) -> Result<LaunchResult, CloudError> {
        let mut result = LaunchResult::default();
        let mut fault = None;
        let mut texts = String::new();
        for error in answer.errors() {
            let code = error.error_code().unwrap_or_default();
            let text = error.error_message().unwrap_or_default();
            let place = error.launch_template_and_overrides().and_then(|both| both.overrides());
            let kind = place
                .and_then(|place| place.instance_type())
                .map(aws_sdk_ec2::types::InstanceType::as_str);
            let zone = place.and_then(|place| place.availability_zone());
            let subnet = place.and_then(|place| place.subnet_id());
            if is_shortage(code) {
                let gone = self.shortage(request, code, kind, zone, subnet, now);
                result.shortages.extend(gone);
                let (kind, zone) = (kind.unwrap_or("any type"), zone.unwrap_or("any zone"));
                write!(texts, "{code} for {kind} in {zone}; ").ok();
            } else {
                fault.get_or_insert_with(|| classify(code, text, false));
            }
        }
        for launched in answer.instances() {
            result.instances.extend(self.instances_of(order, request, launched, now));
        }
        match (result.instances.is_empty(), fault) {
            (false, fault) => {
                if let Some(error) = fault {
                    tracing::warn!(%error, "a fleet launched some instances and refused others");
                }
                Ok(result)
            }
            (true, Some(fault)) => Err(fault),
            (true, None) if result.shortages.is_empty() => {
                let text = "the fleet has no instances and no errors".to_owned();
                Err(self.no_capacity(request, text, now))
            }
            (true, None) => Err(CloudError::InsufficientCapacity {
                message: texts.trim_end_matches("; ").to_owned(),
            }),
        }
    }

    /// Remembers a shortage; returns the options that it concerns.
    fn shortage(
        &self,
        request: &Request,
        code: &str,
        kind: Option<&str>,
        zone: Option<&str>,
        subnet: Option<&str>,
        now: Timestamp,
    ) -> Vec<LaunchOption> {
        let mut unavailable = self.catalogs.unavailable.lock();
        if code == "AuthFailure.ServiceLinkedRoleCreationNotPermitted" {
            unavailable.mark_capacity_type(request.capacity_type, now);
            return request.options(|_| true);
        }
        if code == "InsufficientFreeAddressesInSubnet" {
            let subnet = subnet.or_else(|| {
                request.overrides.iter().find(|o| Some(&*o.option.zone) == zone).map(|o| &*o.subnet)
            });
            // Another subnet of the zone serves the next order, so the offerings stay.
            if let Some(subnet) = subnet {
                self.network.exhaust(subnet, now);
            }
            return request.options(|o| Some(&*o.subnet) == subnet);
        }
        if let Some(reservation) = &request.reservation {
            self.reservations.exhaust(&reservation.id);
            return request.options(|_| true);
        }
        let gone = request.options(|o| {
            kind.is_none_or(|kind| kind == &*o.option.instance_type)
                && zone.is_none_or(|zone| zone == &*o.option.zone)
        });
        for option in &gone {
            unavailable.mark(&option.instance_type, &option.zone, option.capacity_type, now);
        }
        gone
    }

    /// Remembers all options of a request as short.
    fn no_capacity(&self, request: &Request, message: String, now: Timestamp) -> CloudError {
        if let Some(reservation) = &request.reservation {
            self.reservations.exhaust(&reservation.id);
            return CloudError::InsufficientCapacity { message };
        }
        let mut unavailable = self.catalogs.unavailable.lock();
        for Override { option, .. } in &request.overrides {
            unavailable.mark(&option.instance_type, &option.zone, option.capacity_type, now);
        }
        CloudError::InsufficientCapacity { message }
    }

    fn instances_of(
        &self,
        order: &LaunchOrder,
        request: &Request,
        launched: &aws_sdk_ec2::types::CreateFleetInstance,
        now: Timestamp,
    ) -> Vec<Instance> {
        let place = launched.launch_template_and_overrides().and_then(|both| both.overrides());
        let kind = launched.instance_type().or_else(|| place.and_then(|p| p.instance_type()));
        let kind = kind.map(aws_sdk_ec2::types::InstanceType::as_str).unwrap_or_default();
        let subnet = place.and_then(|place| place.subnet_id()).or(launched.subnet_id());
        let chosen = request.overrides.iter().find(|o| {
            kind == &*o.option.instance_type && subnet.is_none_or(|subnet| subnet == o.subnet)
        });
        let zone = place
            .and_then(|place| place.availability_zone())
            .or(launched.availability_zone())
            .or(chosen.map(|o| &*o.option.zone))
            .unwrap_or_default();
        let group = chosen.and_then(|o| request.groups.get(o.group));
        let ids = launched.instance_ids();
        if let (Some(subnet), Some(group)) = (subnet, group) {
            let count = i64::try_from(ids.len()).unwrap_or(i64::MAX);
            self.network.take(subnet, count.saturating_mul(group.max_pods));
        }
        if let Some(reservation) = &request.reservation {
            self.reservations.launched(&reservation.id, u32::try_from(ids.len()).unwrap_or(0));
        }
        let image = group.map(|group| &*group.template.image).unwrap_or_default();
        ids.iter()
            .map(|id| Instance {
                provider_id: provider_id(zone, id),
                instance_type: kind.into(),
                zone: zone.into(),
                capacity_type: Some(request.capacity_type),
                reservation: request.reservation.clone(),
                image_id: image.into(),
                pool: Arc::clone(&order.pool),
                tags: request.tags.clone(),
                launched_at: now.as_second(),
                terminating: false,
            })
            .collect()
    }
}

/// How EC2 sells what a call buys. Ordinary reservations are drawn on by on-demand instances.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Market {
    Spot,
    OnDemand,
    Block,
    Interruptible,
}

impl Request {
    /// Template, type and subnet of the first option.
    pub(super) fn first(&self) -> Option<(&str, &str, &str)> {
        let first = self.overrides.first()?;
        let group = self.groups.get(first.group)?;
        Some((&group.name, &first.option.instance_type, &first.subnet))
    }

    fn market(&self) -> Market {
        match self.reservation.as_deref() {
            _ if self.capacity_type == CapacityType::Spot => Market::Spot,
            Some(reservation) if reservation.block => Market::Block,
            Some(reservation) if reservation.interruptible => Market::Interruptible,
            _ => Market::OnDemand,
        }
    }

    fn configs(&self) -> Vec<FleetLaunchTemplateConfigRequest> {
        let config = |(index, group): (usize, &Group)| {
            let overrides: Vec<_> = self
                .overrides
                .iter()
                .filter(|o| o.group == index)
                .map(|o| {
                    FleetLaunchTemplateOverridesRequest::builder()
                        .instance_type(o.option.instance_type.as_ref().into())
                        .subnet_id(&o.subnet)
                        // The subnet says it already; errors name the zone only if we do.
                        .availability_zone(&*o.option.zone)
                        .priority(o.option.price.dollars())
                        .build()
                })
                .collect();
            let template = FleetLaunchTemplateSpecificationRequest::builder()
                .launch_template_name(&group.name)
                .version("$Latest")
                .build();
            (!overrides.is_empty()).then(|| {
                FleetLaunchTemplateConfigRequest::builder()
                    .launch_template_specification(template)
                    .set_overrides(Some(overrides))
                    .build()
            })
        };
        self.groups.iter().enumerate().filter_map(config).collect()
    }

    fn options(&self, concerned: impl Fn(&Override) -> bool) -> Vec<LaunchOption> {
        self.overrides.iter().filter(|o| concerned(o)).map(|o| o.option.clone()).collect()
    }
}

/// The order with the options of one capacity type, or one reservation, and at most sixty types.
/// Reserved capacity without a reservation is nothing that EC2 sells.
fn narrowed(order: &LaunchOrder) -> LaunchOrder {
    let sold = |option: &&LaunchOption| {
        option.capacity_type != CapacityType::Reserved || option.reservation.is_some()
    };
    let way = |option: &LaunchOption| (option.capacity_type, option.reservation.clone());
    let chosen = order.options.iter().find(sold).map(way);
    let on_demand = order
        .options
        .iter()
        .filter(|option| option.capacity_type == CapacityType::OnDemand)
        .map(|option| option.price)
        .min();
    let mut types: BTreeSet<&str> = BTreeSet::new();
    let options = order
        .options
        .iter()
        .filter(|option| Some(way(option)) == chosen)
        .filter(|option| {
            option.capacity_type != CapacityType::Spot
                || on_demand.is_none_or(|limit| option.price <= limit)
        })
        .filter(|option| {
            types.contains(&*option.instance_type)
                || (types.len() < MAX_TYPES && types.insert(&option.instance_type))
        })
        .cloned()
        .collect();
    LaunchOrder { options, ..order.clone() }
}

/// Refuses classes that are not ready, or whose status is about an older spec.
fn check_ready(class: &EC2NodeClass) -> Result<(), CloudError> {
    let list = class.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
    let refused = |message: String| Err(CloudError::ClassNotReady { message });
    match conditions::get(list, conditions::READY) {
        None => refused("the class was not resolved yet".to_owned()),
        Some(ready) if ready.status != ConditionStatus::True => refused(ready.message.clone()),
        Some(ready) if ready.observed_generation != class.metadata.generation => {
            refused("the class changed and was not resolved since".to_owned())
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
