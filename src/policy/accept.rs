//! What the API server would say to a pod: the checks of LimitRanges, pod-level resources and
//! ResourceQuotas that depend on requests. Those that depend on limits only are left out, since a
//! patch of ours never changes them.

use super::bounds::{Bounds, Quota, Scope};
use super::snapshot::{ContainerKind, Resource};
use super::subject::{Slot, Subject};
use crate::model::resources::Resources;

/// Requests of all slots by resource: absent, or an amount.
pub(super) type Requests = Vec<[Option<i64>; 3]>;

/// The requests that the subject makes by itself.
pub(super) fn own_requests(subject: &Subject<'_>) -> Requests {
    subject
        .slots
        .iter()
        .map(|slot| Resource::ALL.map(|resource| slot.amounts(resource).request))
        .collect()
}

/// What containers ask together: containers and sidecars add up, an init container runs beside the
/// sidecars started before it, and the largest moment counts.
pub(super) fn sum(subject: &Subject<'_>, amount: impl Fn(usize) -> i64) -> i64 {
    let (mut main, mut sidecars, mut peak) = (0_i64, 0_i64, 0_i64);
    for (at, slot) in subject.slots.iter().enumerate() {
        let amount = amount(at);
        match slot.kind {
            ContainerKind::Main => main = main.saturating_add(amount),
            ContainerKind::Sidecar => {
                main = main.saturating_add(amount);
                sidecars = sidecars.saturating_add(amount);
                peak = peak.max(sidecars);
            }
            ContainerKind::Init => peak = peak.max(sidecars.saturating_add(amount)),
        }
    }
    main.max(peak)
}

/// What the containers ask of a resource.
pub(super) fn containers(subject: &Subject<'_>, requests: &Requests, resource: Resource) -> i64 {
    sum(subject, |at| requests[at][resource as usize].unwrap_or(0))
}

/// What the pod asks of a resource: of its containers or for itself, without overhead.
pub(super) fn pod(subject: &Subject<'_>, requests: &Requests, resource: Resource) -> i64 {
    subject.pod_request(resource).unwrap_or_else(|| containers(subject, requests, resource))
}

/// Overhead of the pod's runtime class.
pub(super) fn overhead(subject: &Subject<'_>, resource: Resource) -> i64 {
    let quantity = subject.overhead.get(resource.name());
    quantity.map_or(0, |quantity| Resources::amount(resource.name(), *quantity))
}

/// What the pod asks of a resource as nodes and quotas count it.
pub(super) fn asked(subject: &Subject<'_>, requests: &Requests, resource: Resource) -> i64 {
    pod(subject, requests, resource).saturating_add(overhead(subject, resource))
}

/// What the pod's containers may use of a resource, as quotas count it.
pub(super) fn limits(subject: &Subject<'_>, resource: Resource) -> i64 {
    sum(subject, |slot| subject.slots[slot].amounts(resource).limit.unwrap_or(0))
}

/// Whether the pod is of the class that is evicted first: no cpu and no memory anywhere.
pub(super) fn is_best_effort(subject: &Subject<'_>, requests: &Requests) -> bool {
    let judged = [Resource::Cpu, Resource::Memory];
    judged.into_iter().all(|resource| {
        subject.pod_request(resource).is_none_or(|amount| amount <= 0)
            && subject.slots.iter().zip(requests).all(|(slot, requests)| {
                requests[resource as usize].is_none_or(|amount| amount <= 0)
                    && slot.amounts(resource).limit.is_none_or(|amount| amount <= 0)
            })
    })
}

/// Quality of service: who is evicted first when a node runs short.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Qos {
    /// Nothing is asked for.
    BestEffort,
    /// Something is.
    Burstable,
    /// All that may be used is.
    Guaranteed,
}

impl Qos {
    /// The name in the pod's status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BestEffort => "BestEffort",
            Self::Burstable => "Burstable",
            Self::Guaranteed => "Guaranteed",
        }
    }
}

/// The class before and after, where the new requests change it. `spec.resources` of a pod decides it
/// alone, and is never changed.
pub(super) fn qos_change(
    subject: &Subject<'_>,
    before: &Requests,
    after: &Requests,
) -> Option<(Qos, Qos)> {
    let judged = [Resource::Cpu, Resource::Memory];
    if judged.into_iter().any(|resource| subject.pod_request(resource).is_some()) {
        return None;
    }
    let qos = |requests: &Requests| {
        let is_whole = |resource: Resource| {
            let limit = |slot: &Slot<'_>| slot.amounts(resource).limit.filter(|limit| *limit > 0);
            subject.slots.iter().zip(requests).all(|(slot, requests)| {
                limit(slot).is_some_and(|limit| requests[resource as usize] == Some(limit))
            })
        };
        if is_best_effort(subject, requests) {
            Qos::BestEffort
        } else if judged.into_iter().all(is_whole) {
            Qos::Guaranteed
        } else {
            Qos::Burstable
        }
    };
    let (before, after) = (qos(before), qos(after));
    (before != after).then_some((before, after))
}

/// Why the API server would refuse the pod with these requests.
pub(super) fn refusal(
    subject: &Subject<'_>,
    requests: &Requests,
    bounds: Option<&Bounds>,
) -> Option<String> {
    for resource in Resource::ALL {
        let over = subject.pod_request(resource).is_some_and(|most| {
            subject.pod_level.is_some() && containers(subject, requests, resource) > most
        });
        if over {
            return Some("spec.resources".to_owned());
        }
        for (slot, requests) in subject.slots.iter().zip(requests) {
            let request = requests[resource as usize];
            if let (Some(request), Some(limit)) = (request, slot.amounts(resource).limit)
                && request > limit
            {
                return Some(format!("the limit of {:?}", slot.name));
            }
        }
    }
    let bounds = bounds?;
    range(subject, requests, bounds).or_else(|| quota(subject, requests, bounds))
}

fn range(subject: &Subject<'_>, requests: &Requests, bounds: &Bounds) -> Option<String> {
    for resource in Resource::ALL {
        let range = &bounds.container[resource as usize];
        for (slot, requests) in subject.slots.iter().zip(requests) {
            let request = requests[resource as usize].unwrap_or(0);
            if let Some(min) = range.min.as_ref().filter(|min| request < min.amount) {
                return Some(format!("LimitRange {:?}", min.by));
            }
            if let Some(max) = range.max.as_ref().filter(|max| request > max.amount) {
                return Some(format!("LimitRange {:?}", max.by));
            }
            if let Some(ratio) = &range.ratio {
                let limit = slot.amounts(resource).limit.unwrap_or(0);
                if request == 0 || exceeds(limit, request, ratio.amount) {
                    return Some(format!("LimitRange {:?}", ratio.by));
                }
            }
        }
        let range = &bounds.pod[resource as usize];
        let asked = pod(subject, requests, resource);
        if let Some(min) = range.min.as_ref().filter(|min| asked < min.amount) {
            return Some(format!("LimitRange {:?}", min.by));
        }
        if let Some(max) = range.max.as_ref().filter(|max| asked > max.amount) {
            return Some(format!("LimitRange {:?}", max.by));
        }
    }
    None
}

/// Whether a limit is more than `ratio` thousandths of its request.
fn exceeds(limit: i64, request: i64, ratio: i64) -> bool {
    i128::from(limit) * 1000 > i128::from(request) * i128::from(ratio)
}

/// The ResourceQuota that would refuse the pod with these requests.
pub(super) fn quota(subject: &Subject<'_>, requests: &Requests, bounds: &Bounds) -> Option<String> {
    let best_effort = is_best_effort(subject, requests);
    let refuses = |quota: &&Quota| {
        quota.counts(subject, best_effort)
            && (quota.pods.is_some_and(|left| left < 1)
                || Resource::ALL.into_iter().any(|resource| {
                    quota.lacks(subject, requests, resource)
                        || quota.is_short(subject, requests, resource)
                }))
    };
    let quota = bounds.quotas.iter().find(refuses)?;
    Some(format!("ResourceQuota {:?}", quota.name))
}

impl Quota {
    /// Whether the quota counts the pod.
    pub(super) fn counts(&self, subject: &Subject<'_>, best_effort: bool) -> bool {
        self.scopes.iter().all(|scope| match scope {
            Scope::BestEffort => best_effort,
            Scope::NotBestEffort => !best_effort,
            Scope::Terminating => subject.has_deadline,
            Scope::NotTerminating => !subject.has_deadline,
            Scope::PriorityClass { allow, classes } => {
                let listed = match classes {
                    Some(classes) => classes.iter().any(|class| class == subject.priority_class),
                    None => !subject.priority_class.is_empty(),
                };
                listed == *allow
            }
            Scope::Other => true,
        })
    }

    /// Whether some container leaves out what the quota needs to count. An amount of zero is one.
    fn lacks(&self, subject: &Subject<'_>, requests: &Requests, resource: Resource) -> bool {
        let at = resource as usize;
        // The API server insists for cpu and memory only.
        if resource == Resource::EphemeralStorage || subject.pod_request(resource).is_some() {
            return false;
        }
        subject.slots.iter().zip(requests).any(|(slot, requests)| {
            (self.requests[at].is_some() && requests[at].is_none())
                || (self.limits[at].is_some() && slot.amounts(resource).limit.is_none())
        })
    }

    /// Whether too little is left.
    fn is_short(&self, subject: &Subject<'_>, requests: &Requests, resource: Resource) -> bool {
        let at = resource as usize;
        self.requests[at].is_some_and(|left| asked(subject, requests, resource) > left)
            || self.limits[at].is_some_and(|left| limits(subject, resource) > left)
    }
}
