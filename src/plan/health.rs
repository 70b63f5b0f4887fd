//! Whether the nodes of a pool register, from how the last ones fared.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Outcomes that count; as in the field (`karpenter-core` 3.5: a ring of four).
const MEMORY: usize = 4;
/// From so many failures among them on a pool is unhealthy: half.
const FAILURES: usize = 2;

/// How a node fared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It registered in time.
    Registered,
    /// Its instance was not launched in time.
    NotLaunched,
    /// Its instance was launched and did not register in time.
    NotRegistered,
}

/// What is known of a pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    /// Too little was seen since this process began.
    Unseen,
    /// Nothing was seen since the pool or its class changed.
    Unknown,
    /// Nodes register.
    Healthy,
    /// Nodes do not register; how the last one failed.
    Unhealthy(Outcome),
}

/// The last outcomes by pool.
#[derive(Clone, Debug, Default)]
pub struct Registrations(BTreeMap<Arc<str>, Last>);

#[derive(Clone, Debug, Default)]
struct Last {
    outcomes: VecDeque<Outcome>,
    version: Option<String>,
    changed: bool,
}

impl Registrations {
    /// Notes how a node of a pool fared.
    pub fn note(&mut self, pool: &Arc<str>, outcome: Outcome) {
        let outcomes = &mut self.0.entry(Arc::clone(pool)).or_default().outcomes;
        if outcomes.len() == MEMORY {
            outcomes.pop_front();
        }
        outcomes.push_back(outcome);
    }

    /// Whether nodes of a pool register. `version` names the state of the pool and its class: what was
    /// seen of another says nothing of this one.
    pub fn health(&mut self, pool: &Arc<str>, version: &str) -> Health {
        let last = self.0.entry(Arc::clone(pool)).or_default();
        if last.version.as_deref() != Some(version)
            && last.version.replace(version.to_owned()).is_some()
        {
            last.outcomes.clear();
            last.changed = true;
        }
        let failed = |outcome: &&Outcome| **outcome != Outcome::Registered;
        let failures = last.outcomes.iter().filter(failed).count();
        match last.outcomes.iter().rev().find(failed) {
            Some(outcome) if failures >= FAILURES => Health::Unhealthy(*outcome),
            _ if failures < last.outcomes.len() => Health::Healthy,
            _ if last.changed => Health::Unknown,
            _ => Health::Unseen,
        }
    }

    /// Forgets pools that are gone.
    pub fn retain(&mut self, there: impl Fn(&str) -> bool) {
        self.0.retain(|pool, _| there(pool));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_last_four_decide() {
        let mut seen = Registrations::default();
        let pool: Arc<str> = "p".into();
        assert_eq!(seen.health(&pool, "1"), Health::Unseen);
        seen.note(&pool, Outcome::NotRegistered);
        assert_eq!(seen.health(&pool, "1"), Health::Unseen, "one failure says nothing");
        seen.note(&pool, Outcome::Registered);
        assert_eq!(seen.health(&pool, "1"), Health::Healthy);
        seen.note(&pool, Outcome::NotLaunched);
        assert_eq!(seen.health(&pool, "1"), Health::Unhealthy(Outcome::NotLaunched));
        for _ in 0..3 {
            seen.note(&pool, Outcome::Registered);
        }
        assert_eq!(seen.health(&pool, "1"), Health::Healthy);
        assert_eq!(seen.health(&pool, "2"), Health::Unknown, "the pool changed");
        seen.retain(|_| false);
        assert_eq!(seen.health(&pool, "2"), Health::Unseen);
    }
}
