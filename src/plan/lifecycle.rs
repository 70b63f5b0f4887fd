//! The life of a claim from launch to readiness.

use super::marks::Mark;
use crate::cluster::view::open;
use crate::model::claim::{Claim, ClaimStage};
use crate::model::node::{Node, UNREGISTERED_TAINT, is_ephemeral};
use crate::model::taints::Taint;

/// A claim whose instance is not there after this is given up, seconds.
pub const LAUNCH_TIMEOUT: i64 = 5 * 60;
/// A claim whose node has not joined after this is given up, seconds.
pub const REGISTRATION_TIMEOUT: i64 = 15 * 60;
/// Why a claim is given up that was not launched in time, as in the field's metrics.
pub const LAUNCH_TIMED_OUT: &str = "launch_timeout";
/// Why a claim is given up whose node did not join in time, as in the field's metrics.
pub const REGISTRATION_TIMED_OUT: &str = "registration_timeout";
/// A registered node is opened after this even if it is not ready, seconds: a DaemonSet that does
/// not tolerate the taint may be what makes it ready.
pub const OPEN_ANYWAY: i64 = 10;

/// The next step of a claim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Nothing to do until something changes.
    Wait {
        /// Condition that is waited for, with reason and message.
        condition: &'static str,
        /// Reason.
        reason: &'static str,
        /// Message.
        message: String,
    },
    /// The node joined: give it our labels, taints, finalizer and owner.
    Register,
    /// The node may take pods: nominate those planned for it, then take the taint off.
    /// `initialized` says whether it is ready for good at the same moment.
    Open {
        /// Whether the claim becomes initialized with it.
        initialized: bool,
    },
    /// The node is ready for good.
    Initialize,
    /// The claim has failed and must go.
    GiveUp {
        /// Reason for metrics and events.
        reason: &'static str,
    },
    /// Its life has begun; what its status says of its node is to be written.
    Mark(Mark),
    /// Its life has begun.
    Done,
}

/// The next step of a claim that is not being deleted. `planned` says whether pods are meant for
/// it, `now` is in seconds since the epoch.
pub fn step(claim: &Claim, node: Option<&Node>, planned: bool, now: i64) -> Step {
    let wait = |condition, reason, message: String| Step::Wait { condition, reason, message };
    match claim.stage {
        ClaimStage::Pending if now - claim.created_at > LAUNCH_TIMEOUT => {
            Step::GiveUp { reason: LAUNCH_TIMED_OUT }
        }
        ClaimStage::Pending => wait("Launched", "AwaitingReconciliation", String::new()),
        ClaimStage::Launched => match node {
            Some(_) => Step::Register,
            None if now - claim.stage_at > REGISTRATION_TIMEOUT => {
                Step::GiveUp { reason: REGISTRATION_TIMED_OUT }
            }
            None => wait("Registered", "NodeNotFound", "the node has not joined".to_owned()),
        },
        ClaimStage::Registered => match node {
            Some(node) => registered(claim, node, planned, now),
            None => wait("Initialized", "NodeNotFound", "the node is gone".to_owned()),
        },
        ClaimStage::Initialized => {
            debug_assert!(open(claim), "initialized claims are open");
            Step::Done
        }
    }
}

fn registered(claim: &Claim, node: &Node, planned: bool, now: i64) -> Step {
    let closed = node.taints.iter().any(|taint| taint.key == UNREGISTERED_TAINT);
    let missing = not_ready(claim, node);
    match (closed, missing) {
        (true, None) => Step::Open { initialized: true },
        (false, None) => Step::Initialize,
        (true, Some(_)) if !planned || now - claim.stage_at >= OPEN_ANYWAY => {
            Step::Open { initialized: false }
        }
        (_, Some((reason, message))) => Step::Wait { condition: "Initialized", reason, message },
    }
}

/// What keeps a node from being initialized, the unregistered taint aside.
fn not_ready(claim: &Claim, node: &Node) -> Option<(&'static str, String)> {
    if !node.ready {
        return Some(("NodeNotReady", "the node is not ready".to_owned()));
    }
    let ephemeral = |taint: &&Taint| taint.key != UNREGISTERED_TAINT && is_ephemeral(taint);
    if let Some(taint) = node.taints.iter().find(ephemeral) {
        return Some((
            "KnownEphemeralTaintsExist",
            format!("the node still has the taint {taint}"),
        ));
    }
    let startup = |taint: &&Taint| {
        claim.startup_taints.iter().any(|own| own.key == taint.key && own.effect == taint.effect)
    };
    if let Some(taint) = node.taints.iter().find(startup) {
        return Some((
            "StartupTaintsExist",
            format!("the node still has the startup taint {taint}"),
        ));
    }
    let unregistered = claim.requests.iter().find(|(name, amount)| {
        *amount > 0 && claim.capacity.get(name) > 0 && node.allocatable.get(name) == 0
    });
    unregistered
        .map(|(name, _)| ("ResourceNotRegistered", format!("the node does not offer {name} yet")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::taints::TaintEffect;

    fn claim(stage: ClaimStage) -> Claim {
        Claim { stage, created_at: 100, stage_at: 100, ..Claim::default() }
    }

    fn node(ready: bool, taints: &[&str]) -> Node {
        let taints = taints.iter().map(|key| Taint::new(key, TaintEffect::NoExecute)).collect();
        Node { taints, ready, ..Node::default() }
    }

    #[test]
    fn time_outs() {
        let pending = claim(ClaimStage::Pending);
        assert!(matches!(step(&pending, None, true, 400), Step::Wait { .. }));
        assert_eq!(step(&pending, None, true, 401), Step::GiveUp { reason: LAUNCH_TIMED_OUT });
        let launched = claim(ClaimStage::Launched);
        assert!(matches!(step(&launched, None, true, 1000), Step::Wait { .. }));
        assert_eq!(
            step(&launched, None, true, 1001),
            Step::GiveUp { reason: REGISTRATION_TIMED_OUT }
        );
    }

    #[test]
    fn a_planned_node_opens_when_it_is_ready() {
        let registered = claim(ClaimStage::Registered);
        let booting = node(false, &[UNREGISTERED_TAINT]);
        assert!(matches!(step(&registered, Some(&booting), true, 101), Step::Wait { .. }));
        assert_eq!(
            step(&registered, Some(&booting), false, 101),
            Step::Open { initialized: false }
        );
        assert_eq!(step(&registered, Some(&booting), true, 110), Step::Open { initialized: false });
        let ready = node(true, &[UNREGISTERED_TAINT]);
        assert_eq!(step(&registered, Some(&ready), true, 101), Step::Open { initialized: true });
        let cordoned = node(true, &[UNREGISTERED_TAINT, "node.kubernetes.io/not-ready"]);
        assert!(matches!(step(&registered, Some(&cordoned), true, 101), Step::Wait { .. }));
        assert_eq!(step(&registered, Some(&node(true, &[])), true, 101), Step::Initialize);
    }

    #[test]
    fn a_claim_says_what_it_waits_for() {
        let wait = |claim: &Claim, node: Option<&Node>| match step(claim, node, true, 101) {
            Step::Wait { condition, reason, message } => format!("{condition} {reason}: {message}"),
            other => format!("{other:?}"),
        };
        let launched = claim(ClaimStage::Launched);
        assert_eq!(wait(&launched, None), "Registered NodeNotFound: the node has not joined");
        let mut registered = claim(ClaimStage::Registered);
        assert_eq!(wait(&registered, None), "Initialized NodeNotFound: the node is gone");
        let of = |node: Node| wait(&registered, Some(&node));
        let not_ready = "Initialized NodeNotReady: the node is not ready";
        assert_eq!(of(node(false, &[UNREGISTERED_TAINT])), not_ready);
        assert_eq!(
            of(node(true, &["node.kubernetes.io/not-ready"])),
            "Initialized KnownEphemeralTaintsExist: the node still has the taint \
             node.kubernetes.io/not-ready:NoExecute"
        );
        registered.startup_taints = vec![Taint::new("agent", TaintEffect::NoExecute)];
        registered.requests.set("example.com/gpu", 1);
        registered.capacity.set("example.com/gpu", 1);
        let of = |node: Node| wait(&registered, Some(&node));
        assert_eq!(
            of(node(true, &["agent"])),
            "Initialized StartupTaintsExist: the node still has the startup taint agent:NoExecute"
        );
        assert_eq!(
            of(node(true, &[])),
            "Initialized ResourceNotRegistered: the node does not offer example.com/gpu yet"
        );
    }

    #[test]
    fn startup_taints_hold_initialization_back() {
        let mut registered = claim(ClaimStage::Registered);
        registered.startup_taints = vec![Taint::new("agent", TaintEffect::NoExecute)];
        let Step::Wait { reason, .. } = step(&registered, Some(&node(true, &["agent"])), true, 101)
        else {
            panic!()
        };
        assert_eq!(reason, "StartupTaintsExist");
    }
}
