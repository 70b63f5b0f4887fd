//! Defaults that make nothing worse: a pod that the API server and some node would have taken
//! without us must be taken with us.
//!
//! What earlier pods of the workload show to be needed has raised the defaults by then. Each passes
//! these in order, and every change is kept for the record and the warning:
//! 1. `min` and `maxLimitRequestRatio` of a LimitRange raise it, `max` lowers it;
//! 2. the container's own limit, or the one that a LimitRange will give it, lowers it;
//! 3. the request of the pod as a whole, where `spec.resources` makes one;
//! 4. `max` of a LimitRange for pods;
//! 5. the largest node that can be bought and that takes the pod (taints, selector, required node affinity,
//!    devices), beside the DaemonSets that run there;
//! 6. what ResourceQuotas leave.
//!
//! From the third on containers share: all defaults of a resource shrink by the same factor. A share
//! below 10m, 32Mi or the LimitRange's `min` is of no use, and then none of them is set. Last the
//! checks of the API server run over the result: if it would refuse the pod now and would not have
//! before, nothing is set at all.
//!
//! An amount that is only suggested passes the first two, so that the API server takes it where
//! somebody writes it down.

use std::sync::Arc;

use super::accept::{self, Qos, Requests};
use super::bounds::{Bound, Bounds};
use super::find::{Clamp, Finding};
use super::snapshot::{Action, Resource};
use super::subject::{Slot, Subject};
use crate::model::resources::Resources;
use crate::model::room::{PoolRooms, Wanted};

/// Adjusts the amounts of all findings, and turns those that cannot set a request into warnings.
pub(super) fn fit(
    subject: &Subject<'_>,
    findings: &mut [Finding],
    bounds: Option<&Bounds>,
    pools: &[PoolRooms],
) {
    for finding in findings.iter_mut() {
        alone(&subject.slots[finding.slot], finding, bounds);
    }
    if !findings.iter().any(|finding| finding.action.sets()) {
        return;
    }
    let own = accept::own_requests(subject);
    for resource in Resource::ALL {
        if let Some(most) = subject.pod_request(resource) {
            share(subject, findings, &own, resource, bounds, (most, "spec.resources"));
        }
    }
    if let Some(bounds) = bounds {
        for resource in Resource::ALL {
            if let Some(max) = &bounds.pod[resource as usize].max {
                let cause = format!("LimitRange {:?} for pods", max.by);
                share(subject, findings, &own, resource, Some(bounds), (max.amount, &cause));
            }
        }
    }
    if !subject.of_daemon_set() && !pools.is_empty() {
        node(subject, findings, &own, bounds, pools);
    }
    if let Some(bounds) = bounds {
        quotas(subject, findings, &own, bounds);
    }
    let before = accept::refusal(subject, &own, bounds);
    if before.is_none()
        && let Some(cause) = accept::refusal(subject, &with(&own, findings), bounds)
    {
        for finding in findings.iter_mut().filter(|finding| finding.action.sets()) {
            finding.withhold(&cause);
        }
    }
}

/// The requests as they will be.
fn with(own: &Requests, findings: &[Finding]) -> Requests {
    let mut requests = own.clone();
    for finding in findings.iter().filter(|finding| finding.action.sets()) {
        requests[finding.slot][finding.resource as usize] = Some(finding.amount);
    }
    requests
}

/// Quality of service before and after, where the findings change it.
pub(super) fn qos_change(subject: &Subject<'_>, findings: &[Finding]) -> Option<(Qos, Qos)> {
    if !findings.iter().any(|finding| finding.action.sets()) {
        return None;
    }
    let own = accept::own_requests(subject);
    accept::qos_change(subject, &own, &with(&own, findings))
}

/// What concerns one container.
fn alone(slot: &Slot<'_>, finding: &mut Finding, bounds: Option<&Bounds>) {
    let limit = slot.amounts(finding.resource).limit;
    if let Some(bounds) = bounds {
        let range = &bounds.container[finding.resource as usize];
        if let Some(least) = least(range.min.as_ref(), range.ratio.as_ref(), limit) {
            finding.raise(least.amount, &format!("LimitRange {:?}", least.by));
        }
        if let Some(max) = &range.max {
            finding.keep_within(max.amount, &format!("LimitRange {:?}", max.by));
        }
    }
    if let Some(limit) = limit {
        finding.keep_within(limit, "its limit");
    }
}

/// The least request that a LimitRange takes beside a limit.
fn least(min: Option<&Bound>, ratio: Option<&Bound>, limit: Option<i64>) -> Option<Bound> {
    let by_ratio = ratio.zip(limit).filter(|(ratio, _)| ratio.amount > 0).map(|(ratio, limit)| {
        let amount =
            (i128::from(limit) * 1000 + i128::from(ratio.amount) - 1) / i128::from(ratio.amount);
        Bound { amount: i64::try_from(amount).unwrap_or(i64::MAX), by: Arc::clone(&ratio.by) }
    });
    min.cloned().into_iter().chain(by_ratio).max_by_key(|bound| bound.amount)
}

/// The largest node, by what it leaves of what the pod wants. A pod that no node can hold even
/// without defaults stays as it is: it does not become worse.
fn node(
    subject: &Subject<'_>,
    findings: &mut [Finding],
    own: &Requests,
    bounds: Option<&Bounds>,
    pools: &[PoolRooms],
) {
    let asked = |requests: &Requests| {
        Resource::ALL.map(|resource| accept::asked(subject, requests, resource))
    };
    let (bare, full) = (asked(own), asked(&with(own, findings)));
    let room = |node: &Resources| Resource::ALL.map(|resource| node.get(resource.name()));
    let fits = |asked: &[i64; 3], node: &Resources| {
        asked.iter().zip(room(node)).all(|(asked, room)| *asked <= room)
    };
    let pod = subject.placement();
    let wanted = Wanted::of(&pod);
    let open: Vec<&PoolRooms> = pools.iter().filter(|pool| pool.lets_in(&wanted)).collect();
    // Labels are compared last: amounts are cheaper.
    let takes_all = |pool: &&PoolRooms| {
        let mut rooms = pool.worth(&wanted);
        rooms.any(|room| fits(&full, &room.left) && pool.takes(room, &wanted))
    };
    if open.iter().any(takes_all) {
        return;
    }
    // In millionths, so that amounts of different resources compare.
    let left = |node: &Resources| {
        let share = |(asked, room): (&i64, i64)| match *asked {
            ..=0 => 1_000_000,
            asked => (i128::from(room) * 1_000_000 / i128::from(asked)).min(1_000_000),
        };
        full.iter().zip(room(node)).map(share).min().unwrap_or(0)
    };
    let mut best: Option<(i128, &Resources)> = None;
    for pool in open {
        for room in pool.worth(&wanted).filter(|room| fits(&bare, &room.left)) {
            let left = left(&room.left);
            if best.is_none_or(|(most, _)| left > most) && pool.takes(room, &wanted) {
                best = Some((left, &room.left));
            }
        }
    }
    let Some((_, best)) = best else { return };
    for resource in Resource::ALL {
        let most = best.get(resource.name()).saturating_sub(accept::overhead(subject, resource));
        share(subject, findings, own, resource, bounds, (most, "the largest node"));
    }
}

fn quotas(subject: &Subject<'_>, findings: &mut [Finding], own: &Requests, bounds: &Bounds) {
    for quota in &bounds.quotas {
        for resource in Resource::ALL {
            let Some(left) = quota.requests[resource as usize] else { continue };
            let after = with(own, findings);
            if quota.counts(subject, accept::is_best_effort(subject, &after)) {
                let most = left.saturating_sub(accept::overhead(subject, resource));
                let cause = format!("ResourceQuota {:?}", quota.name);
                share(subject, findings, own, resource, Some(bounds), (most, &cause));
            }
        }
    }
}

/// Brings the pod's request for a resource to at most `most` by shrinking its defaults.
fn share(
    subject: &Subject<'_>,
    findings: &mut [Finding],
    own: &Requests,
    resource: Resource,
    bounds: Option<&Bounds>,
    (most, cause): (i64, &str),
) {
    let requests = with(own, findings);
    if accept::containers(subject, &requests, resource) <= most {
        return;
    }
    let mine = |finding: &&mut Finding| finding.resource == resource && finding.action.sets();
    if !findings.iter_mut().any(|finding| mine(&finding)) {
        return;
    }
    let is_default = |slot: usize, findings: &[Finding]| {
        findings.iter().any(|f| f.slot == slot && f.resource == resource && f.action.sets())
    };
    let free: Vec<bool> = (0..subject.slots.len()).map(|slot| is_default(slot, findings)).collect();
    let scaled = |amount: i64, factor: i128| {
        let part = (i128::from(amount) * factor) >> SCALE;
        resource.rounded(i64::try_from(part).unwrap_or(i64::MAX))
    };
    let total = |factor: i128| {
        accept::sum(subject, |slot| {
            let amount = requests[slot][resource as usize].unwrap_or(0);
            if free[slot] { scaled(amount, factor) } else { amount }
        })
    };
    // The largest factor that fits, by halving.
    let (mut low, mut high) = (0_i128, 1_i128 << SCALE);
    while low + 1 < high {
        let middle = i128::midpoint(low, high);
        if total(middle) <= most { low = middle } else { high = middle }
    }
    let min = bounds.and_then(|bounds| bounds.container[resource as usize].min.as_ref());
    let useless = total(low) > most
        || findings.iter_mut().filter(mine).any(|finding| {
            let floor = resource.floor().min(finding.amount).max(min.map_or(0, |min| min.amount));
            scaled(finding.amount, low) < floor
        });
    for finding in findings.iter_mut().filter(mine) {
        if useless {
            finding.withhold(cause);
        } else {
            let amount = scaled(finding.amount, low);
            finding.lower(amount, cause);
        }
    }
}

/// Bits of a factor: enough for a byte in an exbibyte.
const SCALE: u32 = 61;

impl Finding {
    pub(super) fn raise(&mut self, least: i64, cause: &str) {
        if self.amount < least {
            self.clamp(least, cause);
        }
    }

    pub(super) fn lower(&mut self, most: i64, cause: &str) {
        if self.amount > most {
            self.clamp(most, cause);
        }
    }

    /// Lowers the amount, where that leaves one.
    fn keep_within(&mut self, most: i64, cause: &str) {
        if most > 0 {
            self.lower(most, cause);
        } else if self.action.sets() {
            self.withhold(cause);
        }
    }

    fn clamp(&mut self, amount: i64, cause: &str) {
        self.clamps.push(Clamp { from: self.amount, cause: cause.to_owned() });
        self.amount = amount;
    }

    /// Leaves the request as it is, with a warning that says why.
    fn withhold(&mut self, cause: &str) {
        self.action = Action::Warn;
        self.amount = self.clamps.first().map_or(self.amount, |clamp| clamp.from);
        self.clamps.clear();
        self.withheld = Some(cause.to_owned());
    }
}
