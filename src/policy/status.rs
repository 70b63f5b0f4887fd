//! The status of a policy: what its rules do now, and what they did.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::snapshot::{Action, Policy, Rule};
use super::tally::{OFFENDERS, Offence, Tallied};
use crate::api::conditions::{self, Condition, ConditionStatus, Update};
use crate::api::requestpolicy as api;

/// Condition of a policy: its match conditions could be evaluated for all pods since it changed.
const CONDITIONS_EVALUATED: &str = "ConditionsEvaluated";

/// What is known of a policy at a time.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Generation of the object.
    pub generation: Option<i64>,
    /// The policy, or why it cannot be used.
    pub compiled: Result<&'a Policy, &'a str>,
    /// The cap on what every rule may do.
    pub max_action: Action,
    /// The time.
    pub now: Timestamp,
}

/// The status with what was counted since it was written.
pub fn next_status(
    old: Option<&api::RequestPolicyStatus>,
    facts: &Facts<'_>,
    tallied: &Tallied,
) -> api::RequestPolicyStatus {
    let mut status = old.cloned().unwrap_or_default();
    let renewed = status.observed_generation != facts.generation;
    status.observed_generation = facts.generation;
    status.rules = facts.compiled.ok().map(|policy| rules(policy, facts.max_action, facts.now));
    let counts = &tallied.counts;
    let total = &mut status.counts;
    for (total, more) in [
        (&mut total.matched, counts.matched),
        (&mut total.shadowed, counts.shadowed),
        (&mut total.warned, counts.warned),
        (&mut total.changed, counts.changed),
        (&mut total.denied, counts.denied),
        (&mut total.failed, counts.failed),
    ] {
        *total = total.saturating_add(more);
    }
    if status.counts_since.is_none() {
        status.counts_since = Some(second(facts.now));
    }
    let mut offenders: Vec<api::Offender> = tallied.offences.iter().map(offender).collect();
    for old in std::mem::take(&mut status.last_offenders) {
        if !offenders.iter().any(|other| other.name == old.name) {
            offenders.push(old);
        }
    }
    // Replicas write in turns, so what the list holds may be newer than what is added.
    offenders.sort_by(|a, b| (&b.time.0, &a.name).cmp(&(&a.time.0, &b.name)));
    offenders.truncate(OFFENDERS);
    status.last_offenders = offenders;
    conditions(&mut status.conditions, facts, tallied, renewed);
    status
}

fn conditions(list: &mut Vec<Condition>, facts: &Facts<'_>, tallied: &Tallied, renewed: bool) {
    let generation = facts.generation;
    let mut set = |type_, reason: &str, message: &str| {
        let failed = !message.is_empty();
        let status = if failed { ConditionStatus::False } else { ConditionStatus::True };
        let update = Update { type_, status, reason, message, generation };
        conditions::set(list, update, facts.now);
    };
    match facts.compiled {
        Ok(_) => set(conditions::VALIDATION_SUCCEEDED, "Compiled", ""),
        Err(error) => set(conditions::VALIDATION_SUCCEEDED, "Refused", error),
    }
    match &tallied.failure {
        Some(failure) => set(CONDITIONS_EVALUATED, "Failed", failure),
        // A failure stands until the policy changes: what failed once will again.
        None if renewed => set(CONDITIONS_EVALUATED, "NoFailure", ""),
        None => {}
    }
    conditions::set_root(list, &[conditions::VALIDATION_SUCCEEDED], generation, facts.now);
}

fn second(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

fn offender(offence: &Offence) -> api::Offender {
    api::Offender {
        name: offence.name.clone(),
        missing: offence.missing.clone(),
        action: match offence.action {
            Action::Off => api::PolicyAction::Off,
            Action::Shadow => api::PolicyAction::Shadow,
            Action::Warn => api::PolicyAction::Warn,
            Action::Default => api::PolicyAction::Default,
            Action::DefaultAndVerify => api::PolicyAction::DefaultAndVerify,
            Action::Deny => api::PolicyAction::Deny,
        },
        time: second(offence.time),
    }
}

/// What the rules do now, in a line.
fn rules(policy: &Policy, cap: Action, now: Timestamp) -> String {
    let rule = |rule: &Rule| {
        let (action, later) = rule.action_at(now, cap);
        let resource = rule.resource;
        let amount = |action: Action| match rule.amount {
            Some(amount) if action.sets() || action == Action::Shadow => {
                let learned = if rule.learned.is_some() { "learned, else " } else { "" };
                format!("({learned}{})", resource.format(amount))
            }
            _ => String::new(),
        };
        let but = match later {
            Some((later, from)) => {
                format!(
                    "({}{} from {})",
                    later.api_name(),
                    amount(later),
                    from.strftime("%Y-%m-%d")
                )
            }
            None if action != rule.action => format!("({} capped)", rule.action.api_name()),
            None => amount(action),
        };
        format!("{}={}{but}", resource.name(), action.api_name())
    };
    policy.rules.iter().map(rule).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::Resource;
    use super::super::tally::Counts;
    use super::super::tests::{now, policy};
    use super::*;

    fn facts<'a>(compiled: Result<&'a Policy, &'a str>, max_action: Action) -> Facts<'a> {
        Facts { generation: Some(3), compiled, max_action, now: now() }
    }

    #[test]
    fn the_line_says_what_rules_do_now() {
        let mut policy = policy(
            "p",
            &[
                (Resource::Cpu, Action::Default),
                (Resource::Memory, Action::Deny),
                (Resource::EphemeralStorage, Action::Shadow),
            ],
        );
        policy.rules[1].enforce_from = Some("2027-03-01T00:00:00Z".parse().unwrap());
        let line = |policy: &Policy, cap| {
            next_status(None, &facts(Ok(policy), cap), &Tallied::default()).rules.unwrap()
        };
        assert_eq!(
            line(&policy, Action::Deny),
            "cpu=Default(250m) memory=Warn(Deny from 2027-03-01) ephemeral-storage=Shadow(2Gi)"
        );
        assert_eq!(
            line(&policy, Action::Warn),
            "cpu=Warn(Default capped) memory=Warn(Deny capped) ephemeral-storage=Shadow(2Gi)"
        );
        policy.rules[1].enforce_from = None;
        policy.rules[0].learned = Some(crate::policy::Learned {
            measure: crate::usage::Measure::Cpu,
            under_cost: 9,
            min: None,
            max: None,
        });
        assert_eq!(
            line(&policy, Action::DefaultAndVerify),
            "cpu=Default(learned, else 250m) memory=Warn(Deny capped) ephemeral-storage=Shadow(2Gi)"
        );
    }

    #[test]
    fn counts_add_up_and_failures_stand_until_the_policy_changes() {
        let policy = policy("p", &[(Resource::Cpu, Action::Warn)]);
        let offence = |name: &str, second: i64| Offence {
            name: name.to_owned(),
            missing: "c: cpu".to_owned(),
            action: Action::Warn,
            time: Timestamp::from_second(second).unwrap(),
        };
        let tallied = |names: &[(&str, i64)], failure: Option<&str>| Tallied {
            counts: Counts { matched: 2, warned: 1, ..Counts::default() },
            offences: names.iter().map(|(name, second)| offence(name, *second)).collect(),
            failure: failure.map(str::to_owned),
        };
        let known = facts(Ok(&policy), Action::Deny);
        let first = next_status(None, &known, &tallied(&[("b", 2), ("a", 1)], None));
        let second = next_status(Some(&first), &known, &tallied(&[("a", 3)], Some("no such key")));
        assert_eq!((second.counts.matched, second.counts.warned), (4, 2));
        assert_eq!(first.counts_since, second.counts_since);
        let names: Vec<&str> = second.last_offenders.iter().map(|o| &*o.name).collect();
        assert_eq!(names, ["a", "b"]);
        let evaluated = |status: &api::RequestPolicyStatus| {
            let condition = conditions::get(&status.conditions, CONDITIONS_EVALUATED).unwrap();
            (condition.status, condition.message.clone())
        };
        assert_eq!(evaluated(&first).0, ConditionStatus::True);
        assert_eq!(evaluated(&second), (ConditionStatus::False, "no such key".to_owned()));
        let third = next_status(Some(&second), &known, &Tallied::default());
        assert_eq!(third, second, "nothing new, nothing to write");
        let changed = Facts { generation: Some(4), ..known };
        let fourth = next_status(Some(&third), &changed, &Tallied::default());
        assert_eq!(evaluated(&fourth).0, ConditionStatus::True);
        assert!(conditions::is_true(&fourth.conditions, conditions::READY));
    }

    #[test]
    fn a_policy_that_cannot_be_used_says_why() {
        let why = "spec.matchConditions[0].expression: is not CEL: x";
        let status = next_status(None, &facts(Err(why), Action::Deny), &Tallied::default());
        let condition =
            conditions::get(&status.conditions, conditions::VALIDATION_SUCCEEDED).unwrap();
        assert_eq!((condition.status, &*condition.message), (ConditionStatus::False, why));
        assert!(!conditions::is_true(&status.conditions, conditions::READY));
        assert_eq!(status.rules, None);
    }
}
