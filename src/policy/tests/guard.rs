//! Defaults of workloads whose earlier pods failed.

use serde_json::{Value, json};

use super::*;
use crate::guard::Guard;
use crate::model::failure::Failure;
use crate::model::wire::workload::TemplateWire;

/// A pod of the Deployment `web` used 1 GiB in its container `app`.
fn failed() -> Arc<Guard> {
    let at = now().as_second();
    let mut guard = Guard::default();
    guard.fold(&Arc::new(Failure::of_web("web-1", at, 1 << 30)), at);
    Arc::new(guard)
}

fn pod(set: &str, resources: &Value) -> String {
    json!({
        "metadata": {
            "name": "p", "labels": {"pod-template-hash": "5d9c"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": set, "uid": "r", "controller": true}],
        },
        "spec": {"containers": [
            {"name": "app", "resources": resources}, {"name": "log"},
        ]},
    })
    .to_string()
}

fn world(action: Action) -> Snapshot {
    snapshot(vec![policy("p", &[(Resource::Memory, action)])]).with_guard(failed())
}

fn request(pod: &str, snapshot: &Snapshot) -> (Value, Decision) {
    let decision = decide_text(pod, snapshot);
    assert!(decision.patch_dropped.is_none(), "{:?}", decision.patch_dropped);
    let after: Value = serde_json::from_str(&patched(pod, &decision)).unwrap();
    assert!(decide_text(&after.to_string(), snapshot).patch.is_empty(), "{after}");
    (after, decision)
}

#[test]
fn the_next_pod_of_a_workload_asks_for_more() {
    for action in [Action::Default, Action::DefaultAndVerify] {
        let (after, decision) = request(&pod("web-5d9c", &json!({})), &world(action));
        let containers = &after["spec"]["containers"];
        assert_eq!(containers[0]["resources"]["requests"]["memory"], "1229Mi");
        assert_eq!(containers[1]["resources"]["requests"]["memory"], "256Mi", "another container");
        let told = "container \"app\": memory request set to 1229Mi, not 256Mi: earlier pods were \
                    evicted (policy p)";
        assert_eq!(decision.mutation_warnings()[0], told);
        let record = after["metadata"]["annotations"][RECORD_ANNOTATION].as_str().unwrap();
        assert!(record.contains("was 256Mi: earlier pods were evicted"), "{record}");
    }
}

#[test]
fn others_ask_for_the_default() {
    let snapshot = world(Action::Default);
    let (after, _) = request(&pod("api-5d9c", &json!({})), &snapshot);
    assert_eq!(after["spec"]["containers"][0]["resources"]["requests"]["memory"], "256Mi");
    // What somebody wrote down is left alone, however little it is.
    let small = json!({"requests": {"memory": "64Mi"}});
    let (after, _) = request(&pod("web-5d9c", &small), &snapshot);
    assert_eq!(after["spec"]["containers"][0]["resources"]["requests"]["memory"], "64Mi");
    // The floor is not asked of a pod that nobody makes.
    let (after, _) =
        request(r#"{"metadata":{"name":"web"},"spec":{"containers":[{"name":"app"}]}}"#, &snapshot);
    assert_eq!(after["spec"]["containers"][0]["resources"]["requests"]["memory"], "256Mi");
}

#[test]
fn a_floor_keeps_within_limits_and_the_largest_node() {
    // A limit that is absent for memory's request would be copied to it: it must be zero here.
    let limited = json!({"requests": {"memory": "0"}, "limits": {"memory": "512Mi"}});
    let (after, decision) = request(&pod("web-5d9c", &limited), &world(Action::Default));
    assert_eq!(after["spec"]["containers"][0]["resources"]["requests"]["memory"], "512Mi");
    assert_eq!(decision.findings[0].clamps.len(), 2);

    let nodes = rooms(&[Resources::new(4000, 800 << 20)]);
    let snapshot = world(Action::Default).with_rooms(nodes);
    let (after, _) = request(&pod("web-5d9c", &json!({})), &snapshot);
    // Both defaults shrink by the same factor: 1229 and 256 to 800 together.
    let containers = &after["spec"]["containers"];
    assert_eq!(containers[0]["resources"]["requests"]["memory"], "662Mi");
    assert_eq!(containers[1]["resources"]["requests"]["memory"], "138Mi");
}

#[test]
fn suggestions_and_previews_know_the_floor() {
    let decision = decide_text(&pod("web-5d9c", &json!({})), &world(Action::Deny));
    let Verdict::Deny { message, .. } = decision.verdict else { panic!("allowed") };
    assert!(message.contains("for example to 1229Mi"), "{message}");

    let template =
        r#"{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"app"}]}}"#;
    let template: TemplateWire = serde_json::from_str(template).unwrap();
    let world = world(Action::Default);
    for (owner, expected) in [(("Deployment", "web"), 1229), (("Deployment", "api"), 256)] {
        let preview = preview(&template, "shop", owner, &world, now());
        assert_eq!(preview.findings[0].amount >> 20, expected, "{owner:?}");
    }
}

#[test]
fn the_policys_max_comes_after_what_failed_pods_show() {
    let capped = |max: i64| {
        let mut policy = policy("p", &[(Resource::Memory, Action::Default)]);
        policy.rules[0].learned = Some(Learned {
            measure: crate::usage::Measure::Memory,
            under_cost: 9,
            min: None,
            max: Some(max),
        });
        snapshot(vec![policy]).with_guard(failed())
    };
    let (after, decision) = request(&pod("web-5d9c", &json!({})), &capped(512 << 20));
    assert_eq!(after["spec"]["containers"][0]["resources"]["requests"]["memory"], "512Mi");
    let causes: Vec<&str> = decision.findings[0].clamps.iter().map(|c| &*c.cause).collect();
    assert_eq!(causes, ["earlier pods were evicted", "the policy's max"]);
    // The rule's default is not held to it.
    let (after, _) = request(&pod("web-5d9c", &json!({})), &capped(64 << 20));
    assert_eq!(after["spec"]["containers"][0]["resources"]["requests"]["memory"], "256Mi");
}

#[test]
fn the_next_run_of_a_cron_job_asks_for_more() {
    let at = now().as_second();
    let mut failure = Failure::of_web("nightly-1", at, 1 << 30);
    failure.owner = crate::model::failure::Owner::new("shop", "Job", "nightly");
    let mut guard = Guard::default();
    guard.fold(&Arc::new(failure), at);
    let world = snapshot(vec![policy("p", &[(Resource::Memory, Action::Default)])])
        .with_guard(Arc::new(guard));
    let pod = json!({
        "metadata": { "name": "p", "ownerReferences":
            [{"kind": "Job", "name": "nightly-29340000", "uid": "j", "controller": true}] },
        "spec": {"containers": [{"name": "app"}]},
    });
    let (after, _) = request(&pod.to_string(), &world);
    assert_eq!(after["spec"]["containers"][0]["resources"]["requests"]["memory"], "1229Mi");
    let template = r#"{"spec":{"containers":[{"name":"app"}]}}"#;
    let template: TemplateWire = serde_json::from_str(template).unwrap();
    let preview = preview(&template, "shop", ("CronJob", "nightly"), &world, now());
    assert_eq!(preview.findings[0].amount >> 20, 1229);
}
