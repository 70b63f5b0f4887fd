//! Draining a node in order.

use std::sync::Arc;

use crate::model::node::DISRUPTED_TAINT;
use crate::model::pod::Pod;
use crate::model::taints::{Taint, TaintEffect};

/// A pod that is stuck in termination this long past its deletion no longer holds the drain, seconds.
const STUCK: i64 = 60;

/// What a drain does next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drain {
    /// Pods to evict now.
    pub evict: Vec<Arc<Pod>>,
    /// Pods to delete now, with the grace that the node's deadline leaves them, seconds.
    pub delete: Vec<(Arc<Pod>, i64)>,
    /// Whether nothing holds the node any more.
    pub done: bool,
}

/// The next step of a drain. `deadline` is when the node must be gone, in seconds since the epoch.
///
/// Waves: ordinary pods, then ordinary DaemonSet pods, then critical pods, then critical DaemonSet
/// pods; a wave starts when the one before is gone.
pub fn drain(pods: &[&Arc<Pod>], deadline: Option<i64>, now: i64) -> Drain {
    let disrupted = Taint::new(DISRUPTED_TAINT, TaintEffect::NoSchedule);
    let mut plan = Drain::default();
    let mut waves: [Vec<&Arc<Pod>>; 4] = Default::default();
    for pod in pods {
        let tolerates = pod.shape.tolerations.iter().any(|t| t.tolerates(&disrupted));
        let stuck = pod.deleted_at.is_some_and(|at| now - at > STUCK);
        if pod.terminal() || pod.mirror || tolerates || stuck {
            continue;
        }
        waves[usize::from(pod.critical) * 2 + usize::from(pod.of_daemon_set())].push(pod);
    }
    if let Some(deadline) = deadline {
        for pod in waves.iter().flatten().filter(|pod| pod.deleted_at.is_none()) {
            // A pod whose own grace would outlast the node gets what is left, whatever protects it.
            if now + pod.grace_seconds >= deadline {
                plan.delete.push((Arc::clone(pod), (deadline - now).max(1)));
            }
        }
    }
    match waves.iter().find(|wave| !wave.is_empty()) {
        None => plan.done = true,
        Some(wave) => {
            plan.evict = wave
                .iter()
                .filter(|pod| {
                    pod.deleted_at.is_none()
                        && !pod.protected(now)
                        && !plan.delete.iter().any(|(deleted, _)| Arc::ptr_eq(deleted, pod))
                })
                .map(|pod| Arc::clone(pod))
                .collect();
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pod::{OwnerRef, Protection};

    fn pod(name: &str, daemon: bool, critical: bool) -> Arc<Pod> {
        let kind = if daemon { "DaemonSet" } else { "ReplicaSet" };
        Arc::new(Pod {
            name: name.into(),
            owner: Some(OwnerRef { kind: kind.into(), ..OwnerRef::default() }),
            critical,
            grace_seconds: 30,
            ..Pod::default()
        })
    }

    fn evicted(plan: &Drain) -> Vec<&str> {
        plan.evict.iter().map(|pod| &*pod.name).collect()
    }

    #[test]
    fn waves_follow_each_other() {
        let all = [pod("web", false, false), pod("log", true, false), pod("dns", false, true)];
        let refs: Vec<&Arc<Pod>> = all.iter().collect();
        assert_eq!(evicted(&drain(&refs, None, 0)), ["web"]);
        assert_eq!(evicted(&drain(&refs[1..], None, 0)), ["log"]);
        assert_eq!(evicted(&drain(&refs[2..], None, 0)), ["dns"]);
        assert!(drain(&[], None, 0).done);
    }

    #[test]
    fn the_deadline_overrides_protection() {
        let mut held = (*pod("web", false, false)).clone();
        held.protection = Protection::parse("true");
        let held = Arc::new(held);
        let plan = drain(&[&held], None, 0);
        assert!(plan.evict.is_empty() && !plan.done);
        let plan = drain(&[&held], Some(20), 0);
        assert_eq!(plan.delete, [(held, 20)]);
    }

    #[test]
    fn a_pod_may_be_protected_for_a_time_after_its_start() {
        let protected = |text: &str, started_at, now| {
            let mut held = (*pod("web", false, false)).clone();
            held.protection = Protection::parse(text);
            held.started_at = started_at;
            drain(&[&Arc::new(held)], None, now).evict.is_empty()
        };
        assert!(protected("1h30m", None, 9_000), "it has not started");
        assert!(protected("1h30m", Some(1_000), 6_399));
        assert!(!protected("1h30m", Some(1_000), 6_400));
        assert!(!protected("false", None, 0) && !protected("-5m", None, 0));
    }
}
