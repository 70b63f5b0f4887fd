//! What capacity costs and how much there is of it.
//!
//! The market is ours, not Amazon's: on-demand prices are real list prices (us-east-1's, used for
//! every region), spot prices a fixed fraction of them, and pools are unlimited until a test says
//! otherwise.

use std::collections::BTreeMap;

/// On-demand price list, Linux, dollars per hour.
const PRICES: &str = include_str!("../../data/prices.csv");

/// How an instance is bought.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum CapacityType {
    OnDemand,
    Spot,
}

impl CapacityType {
    /// EC2's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Spot => "spot",
        }
    }

    pub(super) fn parse(text: &str) -> Self {
        if text == "spot" { Self::Spot } else { Self::OnDemand }
    }
}

/// Instances of one type, zone and way of buying share their capacity.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Pool {
    pub instance_type: String,
    pub zone: String,
    pub capacity_type: CapacityType,
}

impl Pool {
    pub fn new(instance_type: &str, zone: &str, capacity_type: CapacityType) -> Self {
        Self { instance_type: instance_type.to_owned(), zone: zone.to_owned(), capacity_type }
    }
}

/// Prices and capacity.
#[derive(Debug)]
pub struct Market {
    /// Micro-dollars per hour by instance type.
    on_demand: BTreeMap<String, u64>,
    /// Micro-dollars per hour, where a test set one.
    spot: BTreeMap<(String, String), u64>,
    /// Instances left; a pool that is not listed is unlimited.
    left: BTreeMap<Pool, u32>,
    /// Where to give capacity back.
    taken: BTreeMap<String, Pool>,
}

impl Default for Market {
    fn default() -> Self {
        let on_demand = PRICES
            .lines()
            .skip(1)
            .filter_map(|line| {
                let (name, dollars) = line.split_once(',')?;
                Some((name.to_owned(), micro_dollars(dollars)?))
            })
            .collect();
        Self { on_demand, spot: BTreeMap::new(), left: BTreeMap::new(), taken: BTreeMap::new() }
    }
}

impl Market {
    /// Price in micro-dollars per hour; none for a type that is not on the list.
    pub fn price(&self, pool: &Pool) -> Option<u64> {
        let on_demand = *self.on_demand.get(&pool.instance_type)?;
        if pool.capacity_type == CapacityType::OnDemand {
            return Some(on_demand);
        }
        let key = (pool.instance_type.clone(), pool.zone.clone());
        let thousandths = spot_thousandths(&pool.instance_type, &pool.zone);
        Some(self.spot.get(&key).copied().unwrap_or(on_demand * thousandths / 1000))
    }

    /// Types on the price list.
    pub fn instance_types(&self) -> impl Iterator<Item = &str> {
        self.on_demand.keys().map(String::as_str)
    }

    /// Sets the price of a pool (of a type in every zone, for on-demand), micro-dollars per hour.
    pub fn set_price(&mut self, pool: Pool, price: u64) {
        match pool.capacity_type {
            CapacityType::OnDemand => self.on_demand.insert(pool.instance_type, price),
            CapacityType::Spot => self.spot.insert((pool.instance_type, pool.zone), price),
        };
    }

    /// Limits a pool to `count` further instances; 0 is an exhausted pool.
    pub fn set_capacity(&mut self, pool: Pool, count: u32) {
        self.left.insert(pool, count);
    }

    /// Makes every pool unlimited again.
    pub fn lift_limits(&mut self) {
        self.left.clear();
    }

    /// Instances that the pool still has.
    pub fn left(&self, pool: &Pool) -> u32 {
        self.left.get(pool).copied().unwrap_or(u32::MAX)
    }

    /// Takes up to `wanted` instances out of the pool before they are launched.
    pub(super) fn reserve(&mut self, pool: &Pool, wanted: u32) -> u32 {
        let granted = wanted.min(self.left(pool));
        if let Some(left) = self.left.get_mut(pool) {
            *left -= granted;
        }
        granted
    }

    /// Puts `count` reserved instances back that were not launched.
    pub(super) fn refund(&mut self, pool: &Pool, count: u32) {
        if let Some(left) = self.left.get_mut(pool) {
            *left = left.saturating_add(count);
        }
    }

    /// Remembers where the launched instances came from.
    pub(super) fn launched(&mut self, pool: &Pool, instance_ids: &[String]) {
        self.taken.extend(instance_ids.iter().map(|id| (id.clone(), pool.clone())));
    }

    /// An instance ended.
    pub(super) fn give_back(&mut self, instance_id: &str) {
        if let Some(pool) = self.taken.remove(instance_id) {
            self.refund(&pool, 1);
        }
    }
}

/// Spot prices lie between 30 % and 45 % of on-demand, spread evenly and the same in every run.
fn spot_thousandths(instance_type: &str, zone: &str) -> u64 {
    // FNV-1a, folded so that all bytes reach the low bits.
    let hash =
        instance_type.bytes().chain(zone.bytes()).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    300 + (hash ^ (hash >> 32)) % 151
}

/// Reads `0.204000` as 204,000; six decimals at most.
pub(super) fn micro_dollars(dollars: &str) -> Option<u64> {
    let (whole, decimals) = dollars.split_once('.').unwrap_or((dollars, ""));
    let padded = format!("{decimals:0<6}");
    let micro: u64 = padded.get(..6)?.parse().ok()?;
    Some(whole.parse::<u64>().ok()? * 1_000_000 + micro)
}

/// Writes 204,000 as `0.204000`.
pub(super) fn dollars(micro: u64) -> String {
    format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spot_costs_a_stable_fraction() {
        let market = Market::default();
        let on_demand = market.price(&Pool::new("m5.large", "a", CapacityType::OnDemand)).unwrap();
        assert_eq!(on_demand, 96_000);
        let spot = market.price(&Pool::new("m5.large", "a", CapacityType::Spot)).unwrap();
        assert!((28_000..=44_000).contains(&spot), "{spot}");
        assert_eq!(market.price(&Pool::new("none.large", "a", CapacityType::Spot)), None);
        assert_eq!(micro_dollars(&dollars(12_345_678)), Some(12_345_678));
    }

    #[test]
    fn ended_instances_give_their_capacity_back() {
        let pool = Pool::new("m5.large", "a", CapacityType::Spot);
        let mut market = Market::default();
        market.set_capacity(pool.clone(), 1);
        assert_eq!(market.reserve(&pool, 2), 1);
        market.launched(&pool, &["i-1".into()]);
        assert_eq!(market.left(&pool), 0);
        market.give_back("i-1");
        market.give_back("i-1");
        assert_eq!(market.left(&pool), 1);
    }
}
