//! What policies did, counted for their status.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::decide::Decision;
use super::find::Finding;
use super::snapshot::Action;
use super::view::PodView;

/// Pods that are remembered by name, for each policy.
pub(super) const OFFENDERS: usize = 10;

/// Which endpoint decided. A pod passes the mutating one first; what it is told at the end it is told
/// by the validating one, so each counts its part and no pod is counted twice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Requests are set.
    Mutating,
    /// Pods are warned about and refused.
    Validating,
}

/// Pods by what a policy did to them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Lacked a request.
    pub matched: i64,
    /// Would have been changed or refused.
    pub shadowed: i64,
    /// Let in with a warning.
    pub warned: i64,
    /// Given a request.
    pub changed: i64,
    /// Refused.
    pub denied: i64,
    /// Not judged, because a condition failed.
    pub failed: i64,
}

/// A pod that lacked requests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Offence {
    /// Namespace, kind and name of the workload or pod.
    pub name: String,
    /// What was missing, by container.
    pub missing: String,
    /// The strictest action.
    pub action: Action,
    /// When.
    pub time: Timestamp,
}

/// What one policy did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tallied {
    /// Pods by outcome.
    pub counts: Counts,
    /// The last pods, newest first, each workload once.
    pub offences: Vec<Offence>,
    /// The last failure of a condition.
    pub failure: Option<String>,
}

/// What all policies did since it was last taken. Bounded by the number of policies.
#[derive(Debug, Default)]
pub struct Tally {
    policies: BTreeMap<Arc<str>, Tallied>,
}

impl Tally {
    /// Counts a decision about a pod that is really to be made.
    pub fn record(
        &mut self,
        stage: Stage,
        pod: &PodView<'_>,
        namespace: &str,
        decision: &Decision,
        now: Timestamp,
    ) {
        if stage == Stage::Mutating {
            for error in &decision.failed_conditions {
                let tallied = self.policies.entry(Arc::clone(&error.policy)).or_default();
                tallied.counts.failed += 1;
                tallied.failure = Some(error.to_string());
            }
        }
        let mut by_policy: BTreeMap<&Arc<str>, Vec<&Finding>> = BTreeMap::new();
        for finding in &decision.findings {
            by_policy.entry(&finding.policy).or_default().push(finding);
        }
        for (policy, findings) in by_policy {
            let tallied = self.policies.entry(Arc::clone(policy)).or_default();
            let counts = &mut tallied.counts;
            let any = |action: Action| i64::from(findings.iter().any(|f| f.action == action));
            match stage {
                Stage::Mutating => {
                    counts.matched += 1;
                    counts.changed += i64::from(findings.iter().any(|f| f.action.sets()));
                    tallied.remember(offence(pod, namespace, &findings, now));
                }
                Stage::Validating => {
                    let some = |of: fn(&Finding) -> bool| i64::from(findings.iter().any(|f| of(f)));
                    counts.shadowed += any(Action::Shadow);
                    counts.warned += any(Action::Warn) | some(|f| f.action.sets() && !f.refuses());
                    counts.denied += some(Finding::refuses);
                }
            }
        }
    }

    /// Takes what was counted.
    pub fn take(&mut self) -> BTreeMap<Arc<str>, Tallied> {
        std::mem::take(&mut self.policies)
    }

    /// Puts back what could not be written.
    pub fn give_back(&mut self, policy: Arc<str>, old: Tallied) {
        let tallied = self.policies.entry(policy).or_default();
        tallied.counts.add(&old.counts);
        for offence in old.offences {
            if tallied.offences.len() < OFFENDERS
                && !tallied.offences.iter().any(|other| other.name == offence.name)
            {
                tallied.offences.push(offence);
            }
        }
        tallied.failure = tallied.failure.take().or(old.failure);
    }
}

impl Tallied {
    fn remember(&mut self, offence: Offence) {
        self.offences.retain(|other| other.name != offence.name);
        self.offences.insert(0, offence);
        self.offences.truncate(OFFENDERS);
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.matched += other.matched;
        self.shadowed += other.shadowed;
        self.warned += other.warned;
        self.changed += other.changed;
        self.denied += other.denied;
        self.failed += other.failed;
    }
}

fn offence(pod: &PodView<'_>, namespace: &str, findings: &[&Finding], now: Timestamp) -> Offence {
    let (kind, name) = pod.workload().unwrap_or(("Pod", pod.name()));
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for finding in findings {
        missing.entry(&finding.container).or_default().push(finding.resource.name());
    }
    let missing: Vec<String> = missing
        .into_iter()
        .map(|(container, resources)| format!("{container}: {}", resources.join(", ")))
        .collect();
    Offence {
        name: format!("{namespace}/{kind}/{name}"),
        missing: missing.join("; ").chars().take(256).collect(),
        action: findings.iter().map(|finding| finding.action).max().unwrap_or(Action::Off),
        time: now,
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::{Resource, Snapshot};
    use super::super::tests::{decide_text, now, policy, snapshot};
    use super::*;

    fn record(tally: &mut Tally, text: &str, snapshot: &Snapshot) {
        let decision = decide_text(text, snapshot);
        let pod = PodView::parse(text).unwrap();
        for stage in [Stage::Mutating, Stage::Validating] {
            tally.record(stage, &pod, "shop", &decision, now());
        }
    }

    #[test]
    fn counts_each_pod_once_for_each_policy_and_remembers_workloads() {
        let snapshot = snapshot(vec![
            policy("a", &[(Resource::Cpu, Action::Deny)]),
            policy("b", &[(Resource::Memory, Action::Default)]),
        ]);
        let mut tally = Tally::default();
        let owned = r#"{"metadata":{"name":"web-1-x","labels":{"pod-template-hash":"1"},
            "ownerReferences":[{"kind":"ReplicaSet","name":"web-1","controller":true}]},
            "spec":{"containers":[{"name":"app"},{"name":"log"}]}}"#;
        for text in
            [owned, owned, r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c"}]}}"#]
        {
            record(&mut tally, text, &snapshot);
        }
        let mut taken = tally.take();
        let a = &taken["a"];
        assert_eq!(a.counts, Counts { matched: 3, denied: 3, ..Counts::default() });
        let names: Vec<&str> = a.offences.iter().map(|offence| &*offence.name).collect();
        assert_eq!(names, ["shop/Pod/p", "shop/Deployment/web"]);
        assert_eq!(
            (&*a.offences[1].missing, a.offences[1].action),
            ("app: cpu; log: cpu", Action::Deny)
        );
        // The validating stage of a test sees the pod as it came: what was not set is warned of.
        assert_eq!(
            taken["b"].counts,
            Counts { matched: 3, changed: 3, warned: 3, ..Counts::default() }
        );

        assert!(tally.take().is_empty());
        let a = taken.remove("a").unwrap();
        record(&mut tally, owned, &snapshot);
        tally.give_back("a".into(), a);
        let again = &tally.take()["a"];
        assert_eq!((again.counts.matched, again.offences.len()), (4, 2));
        assert_eq!(again.offences[0].name, "shop/Deployment/web", "newest first");
    }

    #[test]
    fn no_more_than_ten_are_remembered() {
        let snapshot = snapshot(vec![policy("a", &[(Resource::Cpu, Action::Warn)])]);
        let mut tally = Tally::default();
        for number in 0..30 {
            let text = format!(
                r#"{{"metadata":{{"name":"p{number}"}},"spec":{{"containers":[{{"name":"c"}}]}}}}"#
            );
            record(&mut tally, &text, &snapshot);
        }
        let taken = tally.take();
        assert_eq!(
            (taken["a"].offences.len(), &*taken["a"].offences[0].name),
            (10, "shop/Pod/p29")
        );
    }
}
