//! What pods take from ResourceQuotas, for those who make many pods up.

use super::accept::{self, Requests};
use super::bounds::Quota;
use super::snapshot::{Resource, Snapshot};
use super::subject::Subject;
use crate::model::wire::workload::TemplateWire;

impl Snapshot {
    /// Takes what a pod with this metadata and spec takes from what the quotas leave. One that `asks`
    /// to be let in takes nothing where a quota refuses it, which is named then.
    pub fn charge(
        &mut self,
        pod: &TemplateWire,
        namespace: &str,
        owner: (&str, &str),
        asks: bool,
    ) -> Option<String> {
        let bounds = self.bounds_mut(namespace)?;
        let subject =
            Subject::of_template(&pod.metadata, &pod.spec, namespace, owner, Some(bounds));
        let requests = accept::own_requests(&subject);
        if asks && let Some(refusing) = accept::quota(&subject, &requests, bounds) {
            return Some(refusing);
        }
        let best_effort = accept::is_best_effort(&subject, &requests);
        for quota in &mut bounds.quotas {
            if quota.counts(&subject, best_effort) {
                quota.charge(&subject, &requests);
            }
        }
        None
    }

    /// Whether pods of a namespace are counted, so that one is not like the next.
    pub fn has_quota(&self, namespace: &str) -> bool {
        self.bounds(namespace).is_some_and(|bounds| !bounds.quotas.is_empty())
    }
}

impl Quota {
    fn charge(&mut self, subject: &Subject<'_>, requests: &Requests) {
        let take = |left: &mut Option<i64>, amount: i64| {
            *left = left.map(|left| left.saturating_sub(amount));
        };
        for resource in Resource::ALL {
            let at = resource as usize;
            take(&mut self.requests[at], accept::asked(subject, requests, resource));
            take(&mut self.limits[at], accept::limits(subject, resource));
        }
        take(&mut self.pods, 1);
    }
}
