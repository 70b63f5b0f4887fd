//! Faults: ordered rules that say which request goes wrong and how.
//!
//! The first rule that applies ends the search; delays add up and let the search go on. Dry runs are
//! hit by rules that mean them, and by no others.

use std::collections::BTreeSet;
use std::time::Duration;

use super::market::{CapacityType, Pool};

/// What happens to a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// 503 with the service's throttling code (`RequestLimitExceeded` for EC2).
    Throttle,
    /// An error of the service.
    Error { status: u16, code: String, message: String },
    /// The pools that the rule names have no capacity for this CreateFleet.
    InsufficientCapacity,
    /// The request waits before it goes on.
    Delay(Duration),
    /// The connection ends before the request is carried out.
    LoseRequest,
    /// The request is carried out, then the connection ends without an answer.
    LoseAnswer,
    /// EC2 accepts the request, and nothing comes of it: it is consistent only in the end.
    Accept,
}

/// A fault and the requests that it hits. A fresh rule hits every request.
#[derive(Clone, Debug)]
pub struct Rule {
    effect: Effect,
    action: Option<String>,
    instance_type: Option<String>,
    zone: Option<String>,
    capacity_type: Option<CapacityType>,
    dry_run: bool,
    skip: u32,
    times: Option<u32>,
    matched: u32,
}

impl Rule {
    pub fn new(effect: Effect) -> Self {
        Self {
            effect,
            action: None,
            instance_type: None,
            zone: None,
            capacity_type: None,
            dry_run: false,
            skip: 0,
            times: None,
            matched: 0,
        }
    }

    /// Only this action.
    #[must_use]
    pub fn on(mut self, action: &str) -> Self {
        self.action = Some(action.to_owned());
        self
    }

    /// Only launches that may use this instance type.
    #[must_use]
    pub fn instance_type(mut self, name: &str) -> Self {
        self.instance_type = Some(name.to_owned());
        self
    }

    /// Only launches that may use this zone.
    #[must_use]
    pub fn zone(mut self, name: &str) -> Self {
        self.zone = Some(name.to_owned());
        self
    }

    /// Only launches of this kind.
    #[must_use]
    pub fn capacity_type(mut self, kind: CapacityType) -> Self {
        self.capacity_type = Some(kind);
        self
    }

    /// Only dry runs.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Lets the first `count` matching requests pass.
    #[must_use]
    pub fn skip(mut self, count: u32) -> Self {
        self.skip = count;
        self
    }

    /// Hits at most `count` requests (after those skipped).
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.times = Some(count);
        self
    }

    fn names_a_pool(&self) -> bool {
        self.instance_type.is_some() || self.zone.is_some() || self.capacity_type.is_some()
    }

    fn matches_pool(&self, pool: &Pool) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        same(&self.instance_type, &pool.instance_type)
            && same(&self.zone, &pool.zone)
            && self.capacity_type.is_none_or(|kind| kind == pool.capacity_type)
    }

    /// Counts a matching request; true when the rule hits it.
    fn count(&mut self) -> bool {
        self.matched += 1;
        let number = self.matched;
        number > self.skip && self.times.is_none_or(|times| number - self.skip <= times)
    }
}

/// The rules in force.
#[derive(Debug, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Adds a rule after the others.
    pub fn push(&mut self, rule: Rule) {
        self.0.push(rule);
    }

    /// Ends all faults.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Delay and effect for a request whose launches may use `pools`.
    pub(super) fn hit(
        &mut self,
        action: &str,
        dry_run: bool,
        pools: &[Pool],
    ) -> (Duration, Option<Effect>) {
        let mut delay = Duration::ZERO;
        for rule in &mut self.0 {
            let applies = rule.effect != Effect::InsufficientCapacity
                && rule.dry_run == dry_run
                && rule.action.as_deref().is_none_or(|wanted| wanted == action)
                && (!rule.names_a_pool() || pools.iter().any(|pool| rule.matches_pool(pool)));
            if !applies || !rule.count() {
                continue;
            }
            match &rule.effect {
                Effect::Delay(more) => delay += *more,
                effect => return (delay, Some(effect.clone())),
            }
        }
        (delay, None)
    }

    /// Those of `pools` that have no capacity for this launch.
    pub(super) fn exhausted(&mut self, pools: &[Pool]) -> BTreeSet<Pool> {
        let mut exhausted = BTreeSet::new();
        for rule in &mut self.0 {
            if rule.effect != Effect::InsufficientCapacity {
                continue;
            }
            let mut hit = pools.iter().filter(|pool| rule.matches_pool(pool)).peekable();
            if hit.peek().is_some() {
                let hit: Vec<Pool> = hit.cloned().collect();
                if rule.count() {
                    exhausted.extend(hit);
                }
            }
        }
        exhausted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skip_and_times_count_only_matching_requests() {
        let mut rules = Rules::default();
        rules.push(Rule::new(Effect::Throttle).on("CreateFleet").skip(1).times(2));
        let hits: Vec<bool> =
            (0..4).map(|_| rules.hit("CreateFleet", false, &[]).1.is_some()).collect();
        assert_eq!(hits, [false, true, true, false]);
        assert_eq!(rules.hit("DescribeInstances", false, &[]).1, None);
    }

    #[test]
    fn delays_add_up_before_the_first_fault() {
        let mut rules = Rules::default();
        rules.push(Rule::new(Effect::Delay(Duration::from_secs(1))));
        rules.push(Rule::new(Effect::Delay(Duration::from_secs(2))));
        rules.push(Rule::new(Effect::LoseRequest));
        rules.push(Rule::new(Effect::Throttle));
        assert_eq!(rules.hit("X", false, &[]), (Duration::from_secs(3), Some(Effect::LoseRequest)));
    }

    #[test]
    fn a_pool_rule_hits_only_its_pool() {
        let pool = |zone: &str| Pool::new("m5.large", zone, CapacityType::Spot);
        let mut rules = Rules::default();
        rules.push(Rule::new(Effect::InsufficientCapacity).zone("b").times(1));
        assert!(rules.exhausted(&[pool("a")]).is_empty());
        assert_eq!(rules.exhausted(&[pool("a"), pool("b")]), BTreeSet::from([pool("b")]));
        assert!(rules.exhausted(&[pool("b")]).is_empty());
    }
}
