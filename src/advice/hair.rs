//! Requests that miss one more pod on each node by a hair.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::market::Market;
use super::price::{scaled, solve, type_of};
use super::quote::Hair;
use crate::model::money::MicroDollarsPerHour;
use crate::model::pod::PodShape;
use crate::model::resources::{CPU, MEMORY};
use crate::schedule::Solution;

/// How much less still counts as a hair, per cent of the request.
const HAIR: i64 = 5;
/// A saving must be this share of the price, per cent: asking 5 % less of everything saves about 5 %
/// anywhere, and is no discovery.
const WORTH: i64 = 10;
/// A saving below this is not worth a line: $10 a month.
const LEAST: MicroDollarsPerHour = MicroDollarsPerHour(10_000_000 / super::HOURS_PER_MONTH);
/// Pods that are planned for this; more pods repeat the same nodes.
const PLANNED: u32 = 60;
/// Halvings of the way between what is asked and a hair less: below a fifth of a per cent.
const STEPS: u32 = 5;

/// The resource of which a hair less saves the most, if it saves anything worth the line.
pub(super) fn hair(market: &Market, shape: &Arc<PodShape>, desired: u32) -> Option<Hair> {
    let planned = desired.min(PLANNED);
    let now = solve(market, shape, planned).cost;
    let found = [CPU, MEMORY].into_iter().filter_map(|resource| {
        let from = shape.requests.get(resource);
        let with = |amount: i64| {
            let mut less = (**shape).clone();
            less.requests.set(resource, amount);
            solve(market, &Arc::new(less), planned)
        };
        let worth = |solution: &Solution| {
            let saving = now - solution.cost;
            solution.unplaced.is_empty() && saving.0 * 100 >= now.0 * WORTH
        };
        let mut good = grid(resource, from - from * HAIR / 100);
        if good <= 0 || good >= from {
            return None;
        }
        let mut best = with(good);
        if !worth(&best) {
            return None;
        }
        // The most that still saves nearly all of it: nobody gives up more than needed.
        let most = now - best.cost;
        let mut bad = from;
        for _ in 0..STEPS {
            let middle = grid(resource, good + (bad - good) / 2);
            if middle <= good || middle >= bad {
                break;
            }
            let tried = with(middle);
            if worth(&tried) && (now - tried.cost).0 * 10 >= most.0 * 9 {
                (good, best) = (middle, tried);
            } else {
                bad = middle;
            }
        }
        let (instance_type, fits) = commonest(market, &best)?;
        Some(Hair {
            resource: resource.to_owned(),
            from,
            to: good,
            saving: scaled(now - best.cost, desired, planned),
            instance_type,
            fits,
        })
    });
    found.max_by_key(|hair| hair.saving).filter(|hair| hair.saving >= LEAST)
}

/// Rounds down to an amount that people would write: 10m of cpu, 8Mi of memory.
fn grid(resource: &str, amount: i64) -> i64 {
    let step = if resource == CPU { 10 } else { 8 << 20 };
    amount / step * step
}

/// The type and the count of pods that most of the pods are with.
fn commonest(market: &Market, solution: &Solution) -> Option<(String, u32)> {
    let mut pods: BTreeMap<(&str, u32), u32> = BTreeMap::new();
    for node in &solution.new_nodes {
        let count = node.pods.iter().map(|(_, count)| count).sum();
        *pods.entry((type_of(market, node), count)).or_insert(0) += count;
    }
    let ((name, fits), _) = pods.into_iter().max_by_key(|(_, count)| *count)?;
    Some((name.to_owned(), fits))
}
