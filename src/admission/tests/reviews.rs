//! What each endpoint answers, and which intents it sends.

use std::sync::Arc;

use ::http::StatusCode;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::support::*;
use crate::admission::*;
use crate::intent::{self, Intent};

fn reviewer(intents: Option<intent::Sender>, strict: bool) -> Reviewer {
    let clock: Clock = Arc::new(noon);
    Reviewer::new(policies(), intents, Arc::default(), Arc::default(), clock, strict)
}

fn answer(endpoint: Endpoint, review: &Value) -> (Value, Outcome) {
    let answer = reviewer(None, false).answer(endpoint, review.to_string().as_bytes());
    assert_eq!(answer.status, StatusCode::OK);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(body["kind"], "AdmissionReview");
    assert_eq!(body["response"]["uid"], review["request"]["uid"]);
    (body, answer.outcome)
}

fn deployment(replicas: i64, generation: i64) -> Value {
    json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "d-1", "generation": generation },
        "spec": {
            "replicas": replicas,
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c",
                    "resources": { "requests": { "cpu": "500m" } } }] },
            },
        },
    })
}

#[test]
fn mutation_patches_and_never_denies() {
    let (body, outcome) = answer(Endpoint::Mutate, &pod_review(&half_pod()));
    assert_eq!(outcome, Outcome::Patched);
    let mut pod = half_pod();
    json_patch::patch(&mut pod, &patch_of(&body)).unwrap();
    assert_eq!(pod["spec"]["containers"][0]["resources"]["requests"]["memory"], "256Mi");
    assert_eq!(
        body["response"]["warnings"],
        json!(["container \"c\": memory request set to 256Mi (policy prod)"])
    );
    assert_eq!(body["response"]["auditAnnotations"]["policies"], "prod");

    let bare = json!({ "spec": { "containers": [{ "name": "c" }] } });
    let (body, _) = answer(Endpoint::Mutate, &pod_review(&bare));
    assert_eq!(body["response"]["allowed"], true, "an injector may still add the request");
}

#[test]
fn validation_denies_and_never_patches() {
    let bare = json!({ "metadata": { "generateName": "web-" },
                       "spec": { "containers": [{ "name": "c" }] } });
    let (body, outcome) = answer(Endpoint::Validate, &pod_review(&bare));
    assert_eq!(outcome, Outcome::Denied);
    let status = &body["response"]["status"];
    assert_eq!((&status["code"], &status["reason"]), (&json!(422), &json!("Invalid")));
    assert_eq!(
        status["message"],
        "pod shop/web-: container \"c\" has no cpu request: set \
         spec.containers[0].resources.requests.cpu, for example to 100m (policy prod)"
    );
    assert!(body["response"].get("patch").is_none());
    // The mutating webhook could not be reached, or came before the injector of this container.
    let (body, outcome) = answer(Endpoint::Validate, &pod_review(&half_pod()));
    assert_eq!((&body["response"]["allowed"], outcome), (&json!(true), Outcome::Warned));
    assert_eq!(
        body["response"]["warnings"],
        json!(["container \"c\" has no memory request, and none was set (policy prod)"])
    );
    assert!(body["response"].get("patch").is_none());
}

#[test]
fn only_creation_of_pods_is_judged() {
    let bare = json!({ "spec": { "containers": [{ "name": "c" }] } });
    for operation in ["UPDATE", "DELETE", "CONNECT", ""] {
        let (body, _) = answer(Endpoint::Validate, &review("", "Pod", "pods", operation, &bare));
        assert_eq!(body["response"]["allowed"], true, "{operation}");
    }
    let mut ephemeral = pod_review(&bare);
    ephemeral["request"]["subResource"] = "ephemeralcontainers".into();
    assert_eq!(answer(Endpoint::Validate, &ephemeral).1, Outcome::Allowed);
    let mut system = pod_review(&bare);
    system["request"]["namespace"] = "kube-system".into();
    assert_eq!(answer(Endpoint::Validate, &system).1, Outcome::Allowed);
}

#[test]
fn what_cannot_be_judged_is_allowed_with_a_warning_or_denied_where_strict() {
    let other = review("", "ConfigMap", "configmaps", "CREATE", &json!({}));
    let odd = pod_review(&json!({ "spec": { "containers": 7 } }));
    let empty = pod_review(&Value::Null);
    let mut unreadable = pod_review(&half_pod());
    unreadable["request"]["namespace"] = json!(7);
    for review in [other, odd, empty, unreadable] {
        let (body, outcome) = answer(Endpoint::Validate, &review);
        assert!(matches!(outcome, Outcome::Unsupported | Outcome::Malformed));
        assert_eq!(body["response"]["allowed"], true);
        let warning = body["response"]["warnings"][0].as_str().unwrap();
        assert!(warning.starts_with("harbinger: requests not checked: "), "{warning}");
        let text = review.to_string();
        let strict = reviewer(None, true).answer(Endpoint::Validate, text.as_bytes());
        let body: Value = serde_json::from_slice(&strict.body).unwrap();
        assert_eq!(body["response"]["allowed"], false);
        let strict = reviewer(None, true).answer(Endpoint::Mutate, text.as_bytes());
        let body: Value = serde_json::from_slice(&strict.body).unwrap();
        assert_eq!(body["response"]["allowed"], true, "only validation is strict");
    }
}

#[test]
fn dry_runs_are_answered_like_real_requests() {
    let mut dry = pod_review(&half_pod());
    dry["request"]["dryRun"] = true.into();
    for endpoint in [Endpoint::Mutate, Endpoint::Validate] {
        assert_eq!(answer(endpoint, &dry).0, answer(endpoint, &pod_review(&half_pod())).0);
    }
}

#[test]
fn workloads_are_advised_unless_a_controller_made_them() {
    let (body, _) = answer(
        Endpoint::Advise,
        &review("apps", "Deployment", "deployments", "CREATE", &deployment(3, 1)),
    );
    assert_eq!(
        body["response"]["warnings"],
        json!(["container \"c\" has no memory request; pods get 256Mi (policy prod)"])
    );
    let mut owned = deployment(3, 1);
    owned["metadata"]["ownerReferences"] =
        json!([{ "kind": "Deployment", "name": "web", "uid": "d", "controller": true }]);
    let review = review("apps", "ReplicaSet", "replicasets", "CREATE", &owned);
    assert_eq!(answer(Endpoint::Advise, &review).1, Outcome::Allowed);
}

/// Sends the reviews to `/advise/workloads` or `/validate/pods`, in order, and gives the intents
/// that arrive at the far end of the socket.
async fn intents_of(reviews: Vec<Value>) -> Vec<Intent> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("intent.sock");
    let (listener, mut intents) = intent::listen(&path, 0o600).await.unwrap();
    let (sender, forwarder) = intent::channel(&path);
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    tasks.spawn(listener.run(cancel.clone()));
    tasks.spawn(forwarder.run(cancel.clone()));
    let reviewer = reviewer(Some(sender), false);
    // The last one marks the end.
    let mut end = pod_review(&half_pod());
    end["request"]["namespace"] = "end".into();
    for review in reviews.into_iter().chain([end]) {
        let is_pod = review["request"]["kind"]["kind"] == "Pod";
        let endpoint = if is_pod { Endpoint::Validate } else { Endpoint::Advise };
        let answer = reviewer.answer(endpoint, review.to_string().as_bytes());
        assert_eq!(answer.status, StatusCode::OK);
    }
    let mut got = Vec::new();
    loop {
        let intent = tokio::time::timeout(DEADLINE, intents.recv()).await.unwrap().unwrap();
        if intent.namespace == "end" {
            break;
        }
        got.push(intent);
    }
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
    got
}

#[tokio::test]
async fn workloads_scales_and_bare_pods_become_intents() {
    let mut job = deployment(0, 1);
    job["spec"]["parallelism"] = 40.into();
    let mut scale = review(
        "autoscaling",
        "Scale",
        "deployments",
        "UPDATE",
        &json!({ "metadata": { "name": "web", "uid": "d-1" }, "spec": { "replicas": 60 } }),
    );
    scale["request"]["resource"]["group"] = "apps".into();
    scale["request"]["subResource"] = "scale".into();
    scale["request"]["oldObject"] = json!({ "spec": { "replicas": 3 } });
    let got = intents_of(vec![
        review("apps", "Deployment", "deployments", "CREATE", &deployment(10, 1)),
        review("batch", "Job", "jobs", "CREATE", &job),
        scale,
        pod_review(&half_pod()),
    ])
    .await;
    let told: Vec<(&str, u32, Option<i64>)> =
        got.iter().map(|i| (&*i.kind, i.desired, i.generation)).collect();
    assert_eq!(
        told,
        [
            ("Deployment", 10, Some(1)),
            ("Job", 40, Some(1)),
            ("Deployment", 60, None),
            ("Pod", 1, None)
        ]
    );
    assert_eq!(got[0].uid, "d-1");
    assert_eq!(got[0].seen_at, noon());
    let requests = &got[0].template.as_ref().unwrap().spec.containers[0].resources.requests;
    assert_eq!(requests["memory"].units(), 256 << 20, "the shape that the policy will leave");
    assert!(got[2].template.is_none(), "a scale tells the count only");
    assert_eq!(got[3].template.as_ref().unwrap().metadata.namespace.as_deref(), Some("shop"));
}

#[tokio::test]
async fn dry_runs_refusals_and_requests_that_change_nothing_send_no_intent() {
    let mut dry = review("apps", "Deployment", "deployments", "CREATE", &deployment(10, 1));
    dry["request"]["dryRun"] = true.into();
    let mut dry_pod = pod_review(&half_pod());
    dry_pod["request"]["dryRun"] = true.into();
    let refused = pod_review(&json!({ "spec": { "containers": [{ "name": "c" }] } }));
    let mut owned = half_pod();
    owned["metadata"]["ownerReferences"] =
        json!([{ "kind": "ReplicaSet", "name": "web", "uid": "r", "controller": true }]);
    let mut relabelled = review("apps", "Deployment", "deployments", "UPDATE", &deployment(10, 4));
    relabelled["request"]["oldObject"] = deployment(10, 4);
    let mut same_scale = review(
        "autoscaling",
        "Scale",
        "deployments",
        "UPDATE",
        &json!({ "spec": { "replicas": 3 } }),
    );
    same_scale["request"]["subResource"] = "scale".into();
    same_scale["request"]["oldObject"] = json!({ "spec": { "replicas": 3 } });
    let daemons = review("apps", "DaemonSet", "daemonsets", "CREATE", &deployment(1, 1));
    let deleted = review("apps", "Deployment", "deployments", "DELETE", &deployment(1, 1));
    let got = intents_of(vec![
        dry,
        dry_pod,
        refused,
        pod_review(&owned),
        relabelled,
        same_scale,
        daemons,
        deleted,
    ])
    .await;
    assert!(got.is_empty(), "{got:?}");
}
