//! Pools, instances, tokens and chance of the simulated cloud.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{Call, Fault, Faults, Settings};
use crate::cloud::offerings::Unavailable;
use crate::cloud::settings::ClassSettings;
use crate::cloud::{CloudError, Instance, LaunchOption, LaunchOrder, LaunchResult};
use crate::model::instance::{CapacityType, InstanceType};

type Pool = (Arc<str>, Arc<str>, CapacityType);

#[derive(Debug)]
pub(super) struct State {
    rng: Pcg64Mcg,
    now: Timestamp,
    pub(super) pools: BTreeMap<Pool, u32>,
    pub(super) default_pool: Option<u32>,
    pub(super) faults: Faults,
    pub(super) journal: Vec<LaunchOrder>,
    pub(super) unavailable: Unavailable,
    pub(super) catalogs: Vec<(ClassSettings, Arc<[Arc<InstanceType>]>)>,
    instances: Vec<Record>,
    tokens: BTreeMap<String, (String, LaunchResult)>,
}

#[derive(Debug)]
struct Record {
    instance: Instance,
    visible_at: Timestamp,
    gone_at: Option<Timestamp>,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Pcg64Mcg::seed_from_u64(seed),
            now: Timestamp::UNIX_EPOCH,
            pools: BTreeMap::new(),
            default_pool: None,
            faults: Faults::new(),
            journal: Vec::new(),
            unavailable: Unavailable::default(),
            catalogs: Vec::new(),
            instances: Vec::new(),
            tokens: BTreeMap::new(),
        }
    }

    pub(super) fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        let now = self.now;
        self.instances.retain(|record| record.gone_at.is_none_or(|gone_at| gone_at > now));
    }

    /// The fault that this call meets: the first that waits for it, else one by chance.
    pub(super) fn fault(&mut self, call: Call, settings: &Settings) -> Option<Fault> {
        if let Some(index) = self.faults.iter().position(|(waiting, _)| *waiting == call) {
            return self.faults.remove(index).map(|(_, fault)| fault);
        }
        let mut chance = |permille: u32| permille > 0 && self.rng.random_range(0..1000) < permille;
        let writes = matches!(call, Call::Launch | Call::Terminate);
        if writes && chance(settings.throttled_permille) {
            return Some(Fault::Throttle);
        }
        (call == Call::Launch && chance(settings.lost_permille)).then_some(Fault::LostAnswer)
    }

    pub(super) fn visible(&self) -> impl Iterator<Item = &Instance> {
        self.instances
            .iter()
            .filter(|record| record.visible_at <= self.now)
            .map(|record| &record.instance)
    }

    pub(super) fn terminate(&mut self, provider_id: &str, gone_after: SignedDuration) -> bool {
        let gone_at = self.now.checked_add(gone_after).unwrap_or(Timestamp::MAX);
        let found =
            self.instances.iter_mut().find(|record| &*record.instance.provider_id == provider_id);
        let Some(record) = found else { return false };
        if !record.instance.terminating {
            record.instance.terminating = true;
            record.gone_at = Some(gone_at);
            let kind = &record.instance;
            if let Some(capacity_type) = kind.capacity_type {
                let pool = (Arc::clone(&kind.instance_type), Arc::clone(&kind.zone), capacity_type);
                if let Some(left) = self.pools.get_mut(&pool) {
                    *left += 1;
                }
            }
        }
        let now = self.now;
        self.advance(now);
        true
    }

    /// Fills the order from its options in their order.
    pub(super) fn launch(
        &mut self,
        order: &LaunchOrder,
        now: Timestamp,
        visible_after: SignedDuration,
    ) -> Result<LaunchResult, CloudError> {
        let parameters = parameters(order);
        if let Some((before, answer)) = self.tokens.get(&order.token) {
            if *before != parameters {
                return Err(CloudError::TokenMismatch {
                    message: format!("token {} was used before", order.token),
                });
            }
            return Ok(answer.clone());
        }
        self.journal.push(order.clone());
        let mut answer = LaunchResult::default();
        for option in &order.options {
            let missing = order.count as usize - answer.instances.len();
            let taken = self.take(option, missing);
            for _ in 0..taken {
                let instance = self.instance(order, option, now);
                answer.instances.push(instance.clone());
                let visible_at = now.checked_add(visible_after).unwrap_or(Timestamp::MAX);
                self.instances.push(Record { instance, visible_at, gone_at: None });
            }
            if taken == missing {
                break;
            }
            let LaunchOption { instance_type, zone, capacity_type, .. } = option;
            self.unavailable.mark(instance_type, zone, *capacity_type, now);
            answer.shortages.push(option.clone());
        }
        if answer.instances.is_empty() {
            return Err(CloudError::InsufficientCapacity {
                message: format!("none of {} options has capacity", order.options.len()),
            });
        }
        self.tokens.insert(order.token.clone(), (parameters, answer.clone()));
        Ok(answer)
    }

    /// Takes up to `wanted` instances from a pool; returns how many there were.
    fn take(&mut self, option: &LaunchOption, wanted: usize) -> usize {
        let pool =
            (Arc::clone(&option.instance_type), Arc::clone(&option.zone), option.capacity_type);
        let Some(left) = self.pools.get(&pool).copied().or(self.default_pool) else {
            return wanted;
        };
        let taken = wanted.min(left as usize);
        self.pools.insert(pool, left - u32::try_from(taken).unwrap_or(left));
        taken
    }

    fn instance(&mut self, order: &LaunchOrder, option: &LaunchOption, now: Timestamp) -> Instance {
        let id: u64 = self.rng.random();
        Instance {
            provider_id: format!("aws:///{}/i-{id:017x}", option.zone).into(),
            instance_type: Arc::clone(&option.instance_type),
            zone: Arc::clone(&option.zone),
            capacity_type: Some(option.capacity_type),
            reservation: option.reservation.clone(),
            image_id: "ami-simulated".into(),
            pool: Arc::clone(&order.pool),
            tags: order.tags.clone(),
            launched_at: now.as_second(),
            terminating: false,
        }
    }
}

/// What EC2 compares when a token comes again.
fn parameters(order: &LaunchOrder) -> String {
    format!(
        "{} {} {:?} {:?} {:?} {:?}",
        order.pool, order.count, order.options, order.labels, order.taints, order.tags
    )
}
