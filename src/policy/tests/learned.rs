//! Requests that are learned from use.

use serde_json::{Value, json};

use super::*;
use crate::model::wire::workload::TemplateWire;
use crate::usage::{self, Book, Estimates, Measure, Namespace, Sample};

/// The container `app` of the Deployment `web` used 300 MiB and 400m for three days.
fn known() -> Arc<Estimates> {
    let labels = Labels::from([("pod-template-hash".to_owned(), "5d9c".to_owned())]);
    let subject = usage::Subject::new(
        Some(("ReplicaSet", "web-5d9c")),
        "web-5d9c-1",
        &labels,
        "app",
        "web:1",
    );
    let began = now().as_second() - 3 * 86_400;
    let mut book = Book::default();
    for minute in 0..3 * 1440 {
        let sample = Sample {
            namespace: "shop",
            keys: subject.keys(),
            instance: usage::instance("u", "app"),
            created_at: began,
            cpu: 400,
            memory: 300 << 20,
            starved_cpu: false,
            starved_memory: false,
        };
        book.observe(&sample, began + minute * 60);
    }
    let parts = book.checkpoint("shop");
    let (namespace, bad) = Namespace::read(parts.iter().map(|part| &*part.data));
    assert_eq!(bad, []);
    let mut estimates = Estimates::default();
    estimates.set("shop", Some(namespace.into()));
    Arc::new(estimates)
}

fn learning(action: Action, min: Option<i64>, max: Option<i64>) -> Snapshot {
    let mut policy = policy("p", &[(Resource::Cpu, action), (Resource::Memory, action)]);
    for rule in &mut policy.rules {
        let measure = if rule.resource == Resource::Cpu { Measure::Cpu } else { Measure::Memory };
        let (min, max) = if measure == Measure::Memory { (min, max) } else { (None, None) };
        rule.learned = Some(Learned { measure, under_cost: 9, min, max });
    }
    snapshot(vec![policy]).with_estimates(known())
}

fn pod(set: &str) -> String {
    json!({
        "metadata": {
            "name": "p", "labels": {"pod-template-hash": "5d9c"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": set, "uid": "r", "controller": true}],
        },
        "spec": {"containers": [{"name": "app", "image": "web:1"}]},
    })
    .to_string()
}

fn set(text: &str, snapshot: &Snapshot) -> (Value, Decision) {
    let decision = decide_text(text, snapshot);
    assert_eq!(decision.patch_dropped, None);
    let after: Value = serde_json::from_str(&patched(text, &decision)).unwrap();
    assert!(decide_text(&after.to_string(), snapshot).patch.is_empty(), "{after}");
    (after, decision)
}

#[test]
fn what_was_used_is_asked_for_and_told() {
    for action in [Action::Default, Action::DefaultAndVerify] {
        let (after, decision) = set(&pod("web-5d9c"), &learning(action, None, None));
        let requests = &after["spec"]["containers"][0]["resources"]["requests"];
        assert_eq!(requests["memory"], "352Mi");
        assert_eq!(requests["cpu"], "448m");
        let told = "container \"app\": memory request set to 352Mi, learned from 3 d of web's own \
                    history, 92 % (policy p)";
        assert_eq!(decision.mutation_warnings()[1], told);
        let record = after["metadata"]["annotations"][RECORD_ANNOTATION].as_str().unwrap();
        let record: Value = serde_json::from_str(record).unwrap();
        assert_eq!(record["learned"]["app"]["cpu"], "3 d of web's own history, 92 %");
        assert_eq!(record["set"]["app"]["memory"], "352Mi");
    }
}

#[test]
fn who_is_not_known_gets_the_default() {
    let snapshot = learning(Action::Default, None, None);
    let stranger = json!({"metadata": {"name": "x"}, "spec": {"containers": [
        {"name": "x", "image": "x:1"}]}})
    .to_string();
    let (after, decision) = set(&stranger, &snapshot.clone().with_estimates(Arc::default()));
    let requests = &after["spec"]["containers"][0]["resources"]["requests"];
    assert_eq!((&requests["cpu"], &requests["memory"]), (&json!("250m"), &json!("256Mi")));
    assert!(decision.findings.iter().all(|finding| finding.learned.is_none()));
    // What a user wrote is never asked about.
    let mut written: Value = serde_json::from_str(&pod("web-5d9c")).unwrap();
    written["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "1m", "memory": "1Mi"}});
    assert!(decide_text(&written.to_string(), &snapshot).patch.is_empty());
    // A rule that does not learn sets its amount.
    let plain = super::snapshot(vec![policy("p", &[(Resource::Memory, Action::Default)])])
        .with_estimates(known());
    let (after, _) = set(&pod("web-5d9c"), &plain);
    assert_eq!(after["spec"]["containers"][0]["resources"]["requests"]["memory"], "256Mi");
}

#[test]
fn the_policy_and_all_that_bounds_defaults_bound_what_is_learned() {
    let memory = |snapshot: &Snapshot| {
        let (after, decision) = set(&pod("web-5d9c"), snapshot);
        let requests = &after["spec"]["containers"][0]["resources"]["requests"];
        let finding = &decision.findings[1];
        let causes: Vec<String> = finding.clamps.iter().map(|clamp| clamp.cause.clone()).collect();
        (requests["memory"].as_str().unwrap().to_owned(), causes)
    };
    let least = learning(Action::Default, Some(1 << 30), None);
    assert_eq!(memory(&least), ("1Gi".to_owned(), vec!["the policy's min".to_owned()]));
    let most = learning(Action::Default, None, Some(64 << 20));
    assert_eq!(memory(&most), ("64Mi".to_owned(), vec!["the policy's max".to_owned()]));
    let node = rooms(&[Resources::new(4000, 200 << 20)]);
    let small = learning(Action::Default, None, None).with_rooms(node);
    assert_eq!(memory(&small), ("200Mi".to_owned(), vec!["the largest node".to_owned()]));
}

#[test]
fn suggestions_and_previews_are_learned_too() {
    let decision = decide_text(&pod("web-5d9c"), &learning(Action::Deny, None, None));
    let Verdict::Deny { message, .. } = decision.verdict else { panic!("allowed") };
    assert!(message.contains("for example to 352Mi"), "{message}");
    let template = json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "web:1"}]}});
    let template: TemplateWire = serde_json::from_value(template).unwrap();
    let snapshot = learning(Action::Default, None, None);
    let owner = ("Deployment", "web");
    // What room is kept for is what the pods will ask for.
    let preview = preview(&template, "shop", owner, &snapshot, now());
    let amounts: Vec<i64> = preview.findings.iter().map(|finding| finding.amount).collect();
    assert_eq!(amounts, [448, 352 << 20]);
    let lines = preview.warnings();
    assert!(
        lines[1].contains("pods get 352Mi, learned from 3 d of web's own history, 92 %"),
        "{lines:?}"
    );
}
