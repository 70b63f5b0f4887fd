//! Which policy decides, from when, for whom; and what templates are told.

use serde_json::{Value, json};

use super::*;
use crate::model::labels::LabelSelector;
use crate::model::wire::workload::TemplateWire;

fn selector(value: Value) -> LabelSelector {
    serde_json::from_value(value).unwrap()
}

fn actions(pod: &Value, policies: Vec<Policy>) -> Vec<(String, Action)> {
    decide_text(&pod.to_string(), &snapshot(policies))
        .findings
        .iter()
        .map(|finding| (finding.policy.to_string(), finding.action))
        .collect()
}

fn bare() -> Value {
    json!({ "metadata": { "name": "p", "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "a" }] } })
}

#[test]
fn higher_priority_then_name_and_the_first_rule_for_a_resource_wins() {
    let cpu = |name, action, priority| {
        let mut policy = policy(name, &[(Resource::Cpu, action)]);
        policy.priority = priority;
        policy
    };
    let deny = cpu("z", Action::Deny, 0);
    let warn = cpu("a", Action::Warn, 0);
    let off = cpu("m", Action::Off, 10);
    let memory = policy("mem", &[(Resource::Memory, Action::Default)]);
    assert_eq!(actions(&bare(), vec![deny.clone(), warn.clone()]), [("a".into(), Action::Warn)]);
    assert_eq!(
        actions(&bare(), vec![deny, warn, off, memory]),
        [("mem".into(), Action::Default)],
        "a policy without a rule for the resource leaves it to the next"
    );
}

#[test]
fn selectors_must_all_hold() {
    let with = |change: fn(&mut Policy)| {
        let mut policy = policy("p", &[(Resource::Cpu, Action::Deny)]);
        change(&mut policy);
        actions(&bare(), vec![policy]).len()
    };
    assert_eq!(
        with(|p| p.namespaces = Some(selector(json!({ "matchLabels": { "team": "web" } })))),
        1
    );
    assert_eq!(
        with(|p| p.namespaces = Some(selector(json!({ "matchLabels": { "team": "db" } })))),
        0
    );
    let by_name = json!({ "matchLabels": { "kubernetes.io/metadata.name": "shop" } });
    assert_eq!(with(|p| p.namespaces = Some(selector(json!({})))), 1);
    let mut named = policy("p", &[(Resource::Cpu, Action::Deny)]);
    named.namespaces = Some(selector(by_name));
    assert_eq!(actions(&bare(), vec![named]).len(), 1);
    assert_eq!(with(|p| p.objects = Some(selector(json!({ "matchLabels": { "app": "web" } })))), 1);
    assert_eq!(with(|p| p.objects = Some(selector(json!({ "matchLabels": { "app": "db" } })))), 0);
    assert_eq!(with(|p| p.owner_kinds = vec!["Pod".into()]), 1);
    assert_eq!(with(|p| p.owner_kinds = vec!["Job".into()]), 0);
    assert_eq!(with(|p| p.container_names = vec!["a".into()]), 1);
    assert_eq!(with(|p| p.container_names = vec!["b".into()]), 0);
    assert_eq!(with(|p| p.container_kinds = vec![ContainerKind::Main]), 1);
    assert_eq!(with(|p| p.container_kinds = vec![ContainerKind::Sidecar]), 0);
}

#[test]
fn a_namespace_that_is_not_known_yet_matches_by_name_only() {
    let mut by_label = policy("label", &[(Resource::Cpu, Action::Deny)]);
    by_label.namespaces = Some(selector(
        json!({ "matchExpressions": [{ "key": "skip", "operator": "DoesNotExist" }] }),
    ));
    let mut by_name = policy("name", &[(Resource::Memory, Action::Deny)]);
    by_name.namespaces =
        Some(selector(json!({ "matchLabels": { "kubernetes.io/metadata.name": "fresh" } })));
    let snapshot = snapshot(vec![by_label, by_name]);
    let text = bare().to_string();
    let view = PodView::parse(&text).unwrap();
    let decision = decide(&view, &meta("fresh"), &snapshot);
    let found: Vec<&str> = decision.findings.iter().map(|finding| &*finding.policy).collect();
    assert_eq!(found, ["name"]);
}

#[test]
fn a_replica_set_of_a_deployment_is_both() {
    let owned = |kind: &str, name: &str| {
        let mut pod = bare();
        pod["metadata"]["labels"]["pod-template-hash"] = "5d4f".into();
        pod["metadata"]["ownerReferences"] =
            json!([{ "kind": kind, "name": name, "controller": true }]);
        pod
    };
    let for_kind = |kind: &str, pod: &Value| {
        let mut policy = policy("p", &[(Resource::Cpu, Action::Warn)]);
        policy.owner_kinds = vec![kind.into()];
        actions(pod, vec![policy]).len()
    };
    let of_deployment = owned("ReplicaSet", "web-5d4f");
    assert_eq!(for_kind("Deployment", &of_deployment), 1);
    assert_eq!(for_kind("ReplicaSet", &of_deployment), 1);
    assert_eq!(for_kind("Pod", &of_deployment), 0);
    assert_eq!(for_kind("Deployment", &owned("ReplicaSet", "web-other")), 0);
    assert_eq!(for_kind("Rollout", &owned("Rollout", "web-5d4f")), 1);
}

#[test]
fn daemon_sets_get_no_default_unless_named() {
    let mut pod = bare();
    pod["metadata"]["ownerReferences"] =
        json!([{ "kind": "DaemonSet", "name": "agent", "controller": true }]);
    let general = policy("p", &[(Resource::Cpu, Action::Default)]);
    let mut named = general.clone();
    named.owner_kinds = vec!["DaemonSet".into()];
    assert_eq!(actions(&pod, vec![general])[0].1, Action::Warn);
    assert_eq!(actions(&pod, vec![named])[0].1, Action::Default);
}

#[test]
fn opting_out_needs_the_policy_to_allow_it() {
    let mut pod = bare();
    pod["metadata"]["annotations"] = json!({ OPT_OUT_ANNOTATION: "skip" });
    let strict = policy("p", &[(Resource::Cpu, Action::Deny)]);
    let mut lenient = strict.clone();
    lenient.allow_opt_out = true;
    assert_eq!(actions(&pod, vec![strict]).len(), 1);
    assert_eq!(actions(&pod, vec![lenient.clone()]).len(), 0);
    pod["metadata"]["annotations"][OPT_OUT_ANNOTATION] = "yes".into();
    assert_eq!(actions(&pod, vec![lenient]).len(), 1);
}

#[test]
fn users_and_groups_are_exempt_where_the_policy_allows_opting_out() {
    let mut strict = policy("p", &[(Resource::Cpu, Action::Deny)]);
    strict.exempt_users = vec!["jane".into()];
    strict.exempt_groups = vec!["ops".into()];
    let mut lenient = strict.clone();
    lenient.allow_opt_out = true;
    let text = bare().to_string();
    let view = PodView::parse(&text).unwrap();
    for (policy, name, group, judged) in [
        (&strict, "jane", "ops", true),
        (&lenient, "jane", "dev", false),
        (&lenient, "joe", "ops", false),
        (&lenient, "joe", "dev", true),
    ] {
        let groups = [group.into()];
        let meta = RequestMeta { user: User { name, groups: &groups }, ..meta("shop") };
        let decision = decide(&view, &meta, &snapshot(vec![policy.clone()]));
        assert_eq!(!decision.findings.is_empty(), judged, "{name} {group}");
    }
}

#[test]
fn images_priority_classes_and_conditions_select() {
    let compiled = |matches: Value, conditions: Value| {
        let rules = json!([{ "resource": "cpu", "action": "Warn" }]);
        let spec = json!({ "match": matches, "matchConditions": conditions, "rules": rules });
        compile("p", &serde_json::from_value(spec).unwrap()).unwrap()
    };
    let mut pod = bare();
    pod["spec"]["containers"][0]["image"] = "registry/team/web:1".into();
    pod["spec"]["priorityClassName"] = "batch".into();
    let count = |matches: Value, conditions: Value| {
        actions(&pod, vec![compiled(matches, conditions)]).len()
    };
    let none = || json!([]);
    assert_eq!(count(json!({ "images": ["registry/*"] }), none()), 1);
    assert_eq!(count(json!({ "images": ["other/*", "*/web:1"] }), none()), 1);
    assert_eq!(count(json!({ "images": ["team/*"] }), none()), 0);
    assert_eq!(count(json!({ "priorityClasses": ["batch", "low"] }), none()), 1);
    assert_eq!(count(json!({ "priorityClasses": ["low"] }), none()), 0);
    let when = |expression: &str| json!([{ "name": "c", "expression": expression }]);
    assert_eq!(count(json!({}), when("object.metadata.labels.app == 'web'")), 1);
    assert_eq!(count(json!({}), when("namespaceObject.metadata.labels.team == 'db'")), 0);

    let failing = compiled(json!({}), when("object.metadata.labels.nothing == 'x'"));
    let decision = decide_text(&pod.to_string(), &snapshot(vec![failing]));
    assert!(decision.findings.is_empty());
    assert_eq!(decision.failed_conditions[0].to_string(), "condition \"c\": No such key: nothing");
    assert_eq!(&*decision.failed_conditions[0].policy, "p");
}

#[test]
fn the_cap_stops_what_is_above_it_and_starts_nothing() {
    use Action::{Default, DefaultAndVerify, Deny, Off, Shadow, Warn};
    for (cap, expected) in [
        (Off, [Off, Off, Off, Off, Off]),
        (Shadow, [Shadow, Shadow, Shadow, Shadow, Shadow]),
        (Warn, [Shadow, Warn, Warn, Warn, Warn]),
        (Default, [Shadow, Warn, Default, Default, Warn]),
        (DefaultAndVerify, [Shadow, Warn, Default, DefaultAndVerify, Warn]),
        (Deny, [Shadow, Warn, Default, DefaultAndVerify, Deny]),
    ] {
        for (action, expected) in
            [Shadow, Warn, Default, DefaultAndVerify, Deny].iter().zip(expected)
        {
            let policies = vec![policy("p", &[(Resource::Cpu, *action)])];
            let snapshot = snapshot(policies).with_max_action(cap);
            let found = decide_text(&bare().to_string(), &snapshot).findings;
            let action = found.first().map_or(Off, |finding| finding.action);
            assert_eq!(action, expected, "{action:?} under {cap:?}");
        }
    }
}

#[test]
fn verification_refuses_what_is_not_set_at_the_end() {
    let policies = vec![policy("p", &[(Resource::Cpu, Action::DefaultAndVerify)])];
    let snapshot = snapshot(policies);
    let decision = decide_text(&bare().to_string(), &snapshot);
    let Verdict::Deny { message, .. } = &decision.verdict else { panic!("allowed") };
    assert!(message.contains("spec.containers[0].resources.requests.cpu, for example to 250m"));
    let after = decide_text(&patched(&bare().to_string(), &decision), &snapshot);
    assert_eq!(after.verdict, Verdict::Allow);
    // What we ourselves hold back is no reason to refuse.
    let mut zero = bare();
    zero["spec"]["containers"][0]["resources"] =
        json!({ "requests": { "cpu": "0" }, "limits": { "cpu": "0" } });
    let decision = decide_text(&zero.to_string(), &snapshot);
    assert_eq!((decision.verdict, decision.findings[0].action), (Verdict::Allow, Action::Warn));
}

#[test]
fn enforcement_starts_at_its_date() {
    let told = |action| {
        let mut policy = policy("p", &[(Resource::Cpu, action)]);
        policy.rules[0].enforce_from = Some("2027-03-01T00:00:00Z".parse().unwrap());
        decide_text(&bare().to_string(), &snapshot(vec![policy])).warnings
    };
    assert_eq!(
        told(Action::Deny),
        ["container \"a\" has no cpu request; refused from 2027-03-01, set e.g. 250m (policy p)"]
    );
    assert_eq!(
        told(Action::Default),
        ["container \"a\" has no cpu request; set to 250m from 2027-03-01 (policy p)"]
    );
    let at = |from: &str, action| {
        let mut policy = policy("p", &[(Resource::Cpu, action)]);
        policy.rules[0].enforce_from = Some(from.parse().unwrap());
        actions(&bare(), vec![policy])[0].1
    };
    assert_eq!(at("2026-06-01T12:00:01Z", Action::Deny), Action::Warn);
    assert_eq!(at("2026-06-01T12:00:01Z", Action::Default), Action::Warn);
    assert_eq!(at("2026-06-01T12:00:01Z", Action::Shadow), Action::Shadow);
    assert_eq!(at("2026-06-01T12:00:00Z", Action::Deny), Action::Deny);
}

#[test]
fn a_clock_that_jumps_moves_start_dates_alone() {
    let rules = [(Resource::Cpu, Action::Default), (Resource::Memory, Action::Deny)];
    let mut dated = policy("p", &rules);
    dated.rules[1].enforce_from = Some("2026-03-01T00:00:00Z".parse().unwrap());
    let snapshot = snapshot(vec![dated]);
    let text = bare().to_string();
    let view = PodView::parse(&text).unwrap();
    let at = |time: &str| {
        let meta = RequestMeta { now: time.parse().unwrap(), ..meta("shop") };
        decide(&view, &meta, &snapshot)
    };
    let (epoch, today, far) =
        (at("1970-01-01T00:00:00Z"), at("2026-06-01T12:00:00Z"), at("9999-12-30T00:00:00Z"));
    for decision in [&epoch, &today, &far] {
        assert_eq!(decision.findings[0].action, Action::Default);
        assert!(decision.patch_dropped.is_none());
        assert_eq!(decision.patch, today.patch);
    }
    assert_eq!(epoch.verdict, Verdict::Allow);
    assert_eq!(epoch.findings[1].action, Action::Warn);
    assert!(matches!(today.verdict, Verdict::Deny { .. }));
    assert_eq!(today.verdict, far.verdict);
}

#[test]
fn the_policys_own_message_is_filled_in_once() {
    let mut policy = policy("prod", &[(Resource::Memory, Action::Deny)]);
    policy.message = Some(
        "{namespace}/{pod}: see wiki/{resource}\n{container} {policy} {unknown} {value} {open"
            .into(),
    );
    let mut pod = json!({ "metadata": { "generateName": "w-" },
                          "spec": { "containers": [{ "name": "{policy}" }] } });
    let deny = decide_text(&pod.to_string(), &snapshot(vec![policy.clone()]));
    let Verdict::Deny { message, .. } = deny.verdict else { panic!("allowed") };
    assert_eq!(
        message,
        "pod shop/w-: container \"{policy}\" has no memory request: set \
         spec.containers[0].resources.requests.memory, for example to 256Mi (policy prod); \
         shop/w-: see wiki/memory {policy} prod {unknown} 256Mi {open"
    );
    policy.rules[0].action = Action::Warn;
    policy.message = Some("ask {namespace}".into());
    pod["spec"]["containers"].as_array_mut().unwrap().push(json!({ "name": "b" }));
    let warn = decide_text(&pod.to_string(), &snapshot(vec![policy]));
    assert_eq!(warn.warnings.len(), 3, "one per container, and the policy's own once");
    assert_eq!(warn.warnings[2], "ask shop");
}

#[test]
fn shadow_says_nothing_but_is_recorded() {
    let policies = vec![policy("p", &[(Resource::Cpu, Action::Shadow)])];
    let decision = decide_text(&bare().to_string(), &snapshot(policies));
    assert!(decision.warnings.is_empty() && decision.patch.is_empty());
    assert_eq!(decision.audit["findings"], "a/cpu:shadow=250m@p");
    assert_eq!(decision.audit["snapshot"], "v7");
}

#[test]
fn templates_are_told_what_their_pods_will_get() {
    let template: TemplateWire = serde_json::from_value(json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "a" }], "tolerations": [{ "operator": "Exists" }] },
    }))
    .unwrap();
    let snapshot = snapshot(vec![policy(
        "p",
        &[(Resource::Cpu, Action::Default), (Resource::Memory, Action::Deny)],
    )]);
    let owner = ("Deployment", "web");
    assert_eq!(
        preview(&template, "shop", owner, &snapshot, now()).warnings(),
        [
            "container \"a\" has no cpu request; pods get 250m (policy p)",
            "container \"a\" has no memory request; pods are refused, set e.g. 256Mi (policy p)",
        ]
    );
    let spec = effective_shape(&template, "shop", owner, &snapshot, now());
    assert_eq!(spec.containers[0].resources.requests["cpu"].milli(), 250);
    assert_eq!(spec.tolerations.len(), 1, "the rest of the template is kept");
    let refusal = preview(&template, "shop", owner, &snapshot, now()).refusal.unwrap();
    assert!(refusal.starts_with("Deployment shop/web: container"), "{refusal}");
    assert!(preview(&template, "kube-system", owner, &snapshot, now()).warnings().is_empty());
}

#[test]
fn cron_jobs_match_by_template_and_by_the_names_of_their_jobs() {
    let owned = |kind: &str, name: &str| {
        let mut pod = bare();
        pod["metadata"]["ownerReferences"] =
            json!([{ "kind": kind, "name": name, "controller": true }]);
        pod
    };
    let policies = |kind: &str| {
        let mut policy = policy("p", &[(Resource::Cpu, Action::Warn)]);
        policy.owner_kinds = vec![kind.into()];
        vec![policy]
    };
    let run = owned("Job", "report-29384756");
    assert_eq!(actions(&run, policies("CronJob")).len(), 1);
    assert_eq!(actions(&run, policies("Job")).len(), 1);
    assert_eq!(actions(&owned("Job", "report"), policies("CronJob")).len(), 0);
    assert_eq!(actions(&owned("Job", "report-7"), policies("CronJob")).len(), 0);
    assert_eq!(actions(&owned("StatefulSet", "db-29384756"), policies("CronJob")).len(), 0);

    let template: TemplateWire =
        serde_json::from_value(json!({ "spec": { "containers": [{ "name": "a" }] } })).unwrap();
    for (owner, kind, found) in [
        (("CronJob", "report"), "CronJob", 1),
        (("CronJob", "report"), "Job", 1),
        (("Job", "report"), "CronJob", 0),
    ] {
        let preview = preview(&template, "shop", owner, &snapshot(policies(kind)), now());
        assert_eq!(preview.findings.len(), found, "{owner:?} {kind}");
    }
}
