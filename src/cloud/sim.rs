//! A simulated cloud: seeded, on a clock that the caller moves, without network.
//!
//! It sells the built-in catalog from pools of limited size, remembers launch tokens as EC2 does,
//! and fails on command or by chance. The same seed and calls give the same answers. It does not
//! boot nodes; scenarios do that with the instances that they see here.

mod state;

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use self::state::State;
use super::catalog::{Catalog, SpotPrices};
use super::settings::ClassSettings;
use super::{ClassCatalog, Cloud, CloudError, Instance, LaunchOrder, LaunchResult};
use crate::api::conditions::{self, ConditionStatus, Update};
use crate::api::ec2nodeclass::{
    AmiStatus, EC2NodeClass, EC2NodeClassStatus, SecurityGroupStatus, SubnetStatus,
};
use crate::model::instance::CapacityType;

/// A call that can be made to fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Call {
    /// [`Cloud::resolve`].
    Resolve,
    /// [`Cloud::instance_types`].
    InstanceTypes,
    /// [`Cloud::launch`].
    Launch,
    /// [`Cloud::terminate`].
    Terminate,
    /// [`Cloud::get`] and [`Cloud::list`].
    Read,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Refused for its rate; nothing happened.
    Throttle,
    /// The answer never came and nothing happened.
    LostRequest,
    /// The answer never came, but the cloud did what was asked.
    LostAnswer,
    /// A permission is missing; nothing happened.
    Denied,
}

/// What a simulated cloud is like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Seed of chance.
    pub seed: u64,
    /// Region of the built-in catalog.
    pub region: String,
    /// Spot prices.
    pub spot: SpotPrices,
    /// How long a new instance is missing from [`Cloud::get`] and [`Cloud::list`], as EC2's reads
    /// lag behind its writes.
    pub visible_after: SignedDuration,
    /// How long a terminated instance is still seen shutting down.
    pub gone_after: SignedDuration,
    /// Chance in thousandths that a launch or termination is throttled.
    pub throttled_permille: u32,
    /// Chance in thousandths that the answer to a launch is lost.
    pub lost_permille: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 0,
            region: "us-west-2".to_owned(),
            spot: SpotPrices::Discount(600),
            visible_after: SignedDuration::ZERO,
            gone_after: SignedDuration::from_secs(30),
            throttled_permille: 0,
            lost_permille: 0,
        }
    }
}

/// A simulated cloud.
#[derive(Debug)]
pub struct Sim {
    settings: Settings,
    state: Mutex<State>,
}

impl Sim {
    /// A cloud with pools of unlimited size.
    pub fn new(settings: Settings) -> Self {
        let state = Mutex::new(State::new(settings.seed));
        Self { settings, state }
    }

    /// Limits a pool: a type in a zone by capacity type has room for `left` more instances.
    pub fn set_capacity(&self, kind: &str, zone: &str, capacity_type: CapacityType, left: u32) {
        self.state.lock().pools.insert((kind.into(), zone.into(), capacity_type), left);
    }

    /// Limits all pools that are not limited by name.
    pub fn set_default_capacity(&self, left: Option<u32>) {
        self.state.lock().default_pool = left;
    }

    /// Makes the next call of a kind fail; several faults are used up in order.
    pub fn fail_next(&self, call: Call, fault: Fault) {
        self.state.lock().faults.push_back((call, fault));
    }

    /// Moves the clock. Calls that carry a time move it as well; it never goes back.
    pub fn advance_to(&self, now: Timestamp) {
        self.state.lock().advance(now);
    }

    /// Takes an instance back as a spot interruption does; whether there was one.
    pub fn interrupt(&self, provider_id: &str) -> bool {
        let mut state = self.state.lock();
        let gone_after = self.settings.gone_after;
        state.terminate(provider_id, gone_after)
    }

    /// The orders of launches that were answered or lost, oldest first: what a test may assert on.
    pub fn launches(&self) -> Vec<LaunchOrder> {
        self.state.lock().journal.clone()
    }

    fn before(&self, call: Call, now: Option<Timestamp>) -> Result<Option<Fault>, CloudError> {
        let mut state = self.state.lock();
        if let Some(now) = now {
            state.advance(now);
        }
        let fault = state.fault(call, &self.settings);
        match fault {
            Some(Fault::Throttle) => {
                Err(CloudError::Throttled { message: "request limit exceeded".to_owned() })
            }
            Some(Fault::Denied) => {
                Err(CloudError::Denied { message: "you are not authorized".to_owned() })
            }
            Some(Fault::LostRequest) => Err(lost()),
            Some(Fault::LostAnswer) => Ok(fault),
            None => Ok(None),
        }
    }
}

fn lost() -> CloudError {
    CloudError::Unknown { message: "the connection was closed before the answer".to_owned() }
}

fn finish<T>(fault: Option<Fault>, answer: Result<T, CloudError>) -> Result<T, CloudError> {
    if fault.is_some() { Err(lost()) } else { answer }
}

impl Cloud for Sim {
    async fn resolve(
        &self,
        class: &EC2NodeClass,
        now: Timestamp,
    ) -> Result<EC2NodeClassStatus, CloudError> {
        let fault = self.before(Call::Resolve, Some(now))?;
        finish(fault, self.status(class, now))
    }

    async fn instance_types(
        &self,
        class: &EC2NodeClass,
        now: Timestamp,
    ) -> Result<ClassCatalog, CloudError> {
        let fault = self.before(Call::InstanceTypes, Some(now))?;
        let settings = ClassSettings::of(&class.spec);
        let mut state = self.state.lock();
        let types = if let Some((_, types)) =
            state.catalogs.iter().find(|(known, _)| *known == settings)
        {
            Arc::clone(types)
        } else {
            let types: Arc<[_]> = Catalog::built_in()
                .and_then(|catalog| {
                    catalog.instance_types(&self.settings.region, &settings, &self.settings.spot)
                })
                .map_err(|error| CloudError::ClassNotReady { message: error.to_string() })?
                .into();
            state.catalogs.push((settings.clone(), Arc::clone(&types)));
            types
        };
        let _ = state.unavailable.sequence(now);
        let types = state.unavailable.apply(&types, now);
        finish(fault, Ok(ClassCatalog { types, volume_price: settings.volume_price }))
    }

    async fn launch(
        &self,
        order: &LaunchOrder,
        now: Timestamp,
    ) -> Result<LaunchResult, CloudError> {
        let fault = self.before(Call::Launch, Some(now))?;
        let answer = self.state.lock().launch(order, now, self.settings.visible_after);
        finish(fault, answer)
    }

    async fn terminate(&self, provider_id: &str) -> Result<(), CloudError> {
        let fault = self.before(Call::Terminate, None)?;
        let known = self.state.lock().terminate(provider_id, self.settings.gone_after);
        let answer = if known { Ok(()) } else { Err(missing(provider_id)) };
        finish(fault, answer)
    }

    async fn get(&self, provider_id: &str) -> Result<Instance, CloudError> {
        let fault = self.before(Call::Read, None)?;
        let found = self.state.lock().visible().find(|i| &*i.provider_id == provider_id).cloned();
        finish(fault, found.ok_or_else(|| missing(provider_id)))
    }

    async fn list(&self) -> Result<Vec<Instance>, CloudError> {
        let fault = self.before(Call::Read, None)?;
        let all = self.state.lock().visible().cloned().collect();
        finish(fault, Ok(all))
    }
}

fn missing(provider_id: &str) -> CloudError {
    CloudError::NotFound { message: format!("there is no instance {provider_id}") }
}

impl Sim {
    /// A ready status with one subnet in each zone of the region.
    fn status(
        &self,
        class: &EC2NodeClass,
        now: Timestamp,
    ) -> Result<EC2NodeClassStatus, CloudError> {
        let zones = Catalog::built_in()
            .map(|catalog| catalog.zones(&self.settings.region))
            .map_err(|error| CloudError::ClassNotReady { message: error.to_string() })?;
        let subnet = |zone: &String| SubnetStatus {
            id: format!("subnet-{zone}"),
            zone: zone.clone(),
            zone_id: None,
        };
        let mut list = class.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        let ready = Update {
            type_: conditions::READY,
            status: ConditionStatus::True,
            reason: conditions::READY,
            message: "",
            generation: class.metadata.generation,
        };
        conditions::set(&mut list, ready, now);
        Ok(EC2NodeClassStatus {
            subnets: zones.iter().map(subnet).collect(),
            security_groups: vec![SecurityGroupStatus {
                id: "sg-simulated".to_owned(),
                name: Some("simulated".to_owned()),
            }],
            amis: vec![AmiStatus { id: "ami-simulated".to_owned(), ..AmiStatus::default() }],
            instance_profile: Some("simulated".to_owned()),
            conditions: list,
            ..EC2NodeClassStatus::default()
        })
    }
}

/// Faults in waiting, oldest first.
type Faults = VecDeque<(Call, Fault)>;

#[cfg(test)]
mod tests;
