//! Status conditions.

use jiff::Timestamp;

use super::common::Condition;

/// Root condition of pools, claims and classes.
pub const READY: &str = "Ready";
/// The claim's instance runs.
pub const LAUNCHED: &str = "Launched";
/// The claim's node joined.
pub const REGISTERED: &str = "Registered";
/// The claim's node takes pods.
pub const INITIALIZED: &str = "Initialized";
/// The claim's node has no pods left that keep it.
pub const DRAINED: &str = "Drained";
/// The claim's instance is being terminated.
pub const INSTANCE_TERMINATING: &str = "InstanceTerminating";
/// The pool passed the run-time validation.
pub const VALIDATION_SUCCEEDED: &str = "ValidationSucceeded";
/// The pool's class is ready.
pub const NODE_CLASS_READY: &str = "NodeClassReady";

/// The condition of a type.
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of a type is `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// Sets a condition; the transition time changes only with the status. Returns whether anything
/// changed.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let mut next = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        last_transition_time: format_time(now),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: None,
    };
    if let Some(old) = conditions.iter_mut().find(|condition| condition.type_ == type_) {
        if old.status == next.status {
            next.last_transition_time.clone_from(&old.last_transition_time);
        }
        next.observed_generation = old.observed_generation;
        let changed = *old != next;
        *old = next;
        return changed;
    }
    conditions.push(next);
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    true
}

/// RFC 3339 in whole seconds, as Kubernetes writes times.
pub fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_moves_with_the_status_only() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut list = Vec::new();
        assert!(set(&mut list, READY, "False", "A", "", at(10)));
        assert!(set(&mut list, READY, "False", "B", "", at(20)));
        assert_eq!(list[0].last_transition_time, "1970-01-01T00:00:10Z");
        assert!(!set(&mut list, READY, "False", "B", "", at(30)));
        assert!(set(&mut list, READY, "True", "B", "", at(40)));
        assert_eq!(list[0].last_transition_time, "1970-01-01T00:00:40Z");
        assert!(is_true(&list, READY));
    }
}
