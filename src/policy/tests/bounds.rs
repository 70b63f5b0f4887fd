//! Defaults under LimitRanges, ResourceQuotas, limits, pod-level resources and the largest node. What
//! is expected is written down, not computed.

use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use serde_json::{Value, json};

use super::*;
use crate::model::requirement::Requirement;
use crate::model::taints::{Taint, TaintEffect};
use crate::model::wire::workload::TemplateWire;

fn range(items: &Value) -> LimitRange {
    serde_json::from_value(json!({ "metadata": { "name": "lr" }, "spec": { "limits": items } }))
        .unwrap()
}

fn quota(name: &str, spec: &Value, used: &Value) -> ResourceQuota {
    serde_json::from_value(json!({
        "metadata": { "name": name }, "spec": spec,
        "status": { "hard": spec["hard"], "used": used },
    }))
    .unwrap()
}

/// Cpu is set to 250m and memory to 256Mi, as in [`policy`].
fn world(ranges: &[LimitRange], quotas: &[ResourceQuota], nodes: &[Resources]) -> Snapshot {
    let rules = [(Resource::Cpu, Action::Default), (Resource::Memory, Action::Default)];
    let bounds = Arc::new(Bounds::new(ranges, quotas));
    snapshot(vec![policy("p", &rules)])
        .with_bounds(BTreeMap::from([("shop".into(), bounds)]))
        .with_rooms(rooms(nodes))
}

fn pod(containers: &Value) -> Value {
    json!({ "metadata": { "name": "p" }, "spec": { "containers": containers } })
}

/// Requests of all containers, main ones first, as `cpu/memory`.
fn requests(object: &Value, snapshot: &Snapshot) -> String {
    let text = object.to_string();
    let decision = decide_text(&text, snapshot);
    assert!(decision.patch_dropped.is_none(), "{:?}", decision.patch_dropped);
    let after: Value = serde_json::from_str(&patched(&text, &decision)).unwrap();
    assert!(decide_text(&after.to_string(), snapshot).patch.is_empty(), "{after}");
    let lists = ["containers", "initContainers"];
    let containers = lists.iter().filter_map(|list| after["spec"][list].as_array()).flatten();
    let show = |container: &Value| {
        let requests = &container["resources"]["requests"];
        let amount = |name: &str| requests[name].as_str().unwrap_or("-").to_owned();
        format!("{}/{}", amount("cpu"), amount("memory"))
    };
    containers.map(show).collect::<Vec<_>>().join(" ")
}

fn zero() -> Value {
    json!({ "requests": { "cpu": "0", "memory": "0" } })
}

#[test]
fn limit_ranges_bound_each_container() {
    let bare = json!([{ "name": "a", "resources": zero() }]);
    let with = |resources: Value| json!([{ "name": "a", "resources": resources }]);
    for (items, containers, expected) in [
        (json!([]), bare.clone(), "250m/256Mi"),
        // min raises, max lowers; max is also the limit that the container will get.
        (json!([{ "type": "Container", "min": { "cpu": "300m" } }]), bare.clone(), "300m/256Mi"),
        (
            json!([{ "type": "Container", "max": { "memory": "100Mi" } }]),
            bare.clone(),
            "250m/100Mi",
        ),
        (
            json!([{ "type": "Container", "default": { "cpu": "200m" } }]),
            bare.clone(),
            "200m/256Mi",
        ),
        // Half of the limit is the least.
        (
            json!([{ "type": "Container", "maxLimitRequestRatio": { "cpu": "2" } }]),
            with(json!({ "requests": { "cpu": "0", "memory": "0" }, "limits": { "cpu": "3" } })),
            "1500m/256Mi",
        ),
        (
            json!([{ "type": "Container", "maxLimitRequestRatio": { "cpu": "1.5" } }]),
            with(json!({ "requests": { "cpu": "0", "memory": "0" }, "limits": { "cpu": "1" } })),
            "667m/256Mi",
        ),
        // What a LimitRange will fill in is not missing.
        (
            json!([{ "type": "Container", "defaultRequest": { "cpu": "70m" } }]),
            with(json!({})),
            "-/256Mi",
        ),
        // Claims for volumes are no pods.
        (
            json!([{ "type": "PersistentVolumeClaim", "max": { "cpu": "1m", "storage": "1Gi" } }]),
            bare.clone(),
            "250m/256Mi",
        ),
    ] {
        let snapshot = world(&[range(&items)], &[], &[]);
        assert_eq!(requests(&pod(&containers), &snapshot), expected, "{items}");
    }
}

#[test]
fn pods_share_what_a_limit_range_or_a_quota_leaves() {
    let three = json!([{ "name": "a" }, { "name": "b" }, { "name": "c" }]);
    let pods = |max: Value| vec![range(&json!([{ "type": "Pod", "max": max }]))];
    let one = |name: &str, left: Value| quota(name, &json!({ "hard": left }), &json!({}));
    for (ranges, quotas, expected) in [
        (pods(json!({ "cpu": "750m" })), vec![], "250m/256Mi 250m/256Mi 250m/256Mi"),
        (pods(json!({ "cpu": "300m" })), vec![], "100m/256Mi 100m/256Mi 100m/256Mi"),
        (pods(json!({ "memory": "192Mi" })), vec![], "250m/64Mi 250m/64Mi 250m/64Mi"),
        // Less than 32Mi each is of no use.
        (pods(json!({ "memory": "90Mi" })), vec![], "250m/- 250m/- 250m/-"),
        (vec![], vec![one("q", json!({ "requests.cpu": "60m" }))], "20m/256Mi 20m/256Mi 20m/256Mi"),
        (vec![], vec![one("q", json!({ "cpu": "29m" }))], "-/256Mi -/256Mi -/256Mi"),
        (
            pods(json!({ "cpu": "300m" })),
            vec![
                one("q", json!({ "requests.memory": "96Mi" })),
                one("r", json!({ "memory": "1Gi" })),
            ],
            "100m/32Mi 100m/32Mi 100m/32Mi",
        ),
    ] {
        let snapshot = world(&ranges, &quotas, &[]);
        assert_eq!(requests(&pod(&three), &snapshot), expected, "{ranges:?} {quotas:?}");
    }
}

#[test]
fn what_was_asked_for_comes_first_and_init_containers_only_peak() {
    let half = quota(
        "q",
        &json!({ "hard": { "requests.cpu": "2" } }),
        &json!({ "requests.cpu": "1500m" }),
    );
    let big = json!({ "requests": { "cpu": "400m" } });
    let snapshot = world(&[], std::slice::from_ref(&half), &[]);
    let both = pod(&json!([{ "name": "a", "resources": big }, { "name": "b" }]));
    assert_eq!(requests(&both, &snapshot), "400m/256Mi 100m/256Mi");
    let mut init = pod(&json!([{ "name": "a", "resources": big }]));
    init["spec"]["initContainers"] = json!([{ "name": "i" }]);
    assert_eq!(requests(&init, &snapshot), "400m/256Mi 250m/256Mi");
    init["spec"]["initContainers"][0]["restartPolicy"] = "Always".into();
    assert_eq!(requests(&init, &snapshot), "400m/256Mi 100m/256Mi");
    // Overhead counts against quotas and nodes.
    init["spec"]["overhead"] = json!({ "cpu": "50m" });
    assert_eq!(requests(&init, &snapshot), "400m/256Mi 50m/256Mi");
}

#[test]
fn a_pod_is_not_moved_into_a_quota_that_refuses_it() {
    let bare = pod(&json!([{ "name": "a", "resources": zero() }]));
    let scoped = |scope: &str, hard: Value| {
        quota("q", &json!({ "hard": hard, "scopes": [scope] }), &json!({ "pods": "3" }))
    };
    for (quota, expected) in [
        (scoped("NotBestEffort", json!({ "pods": "3" })), "0/0"),
        (scoped("NotBestEffort", json!({ "pods": "4" })), "250m/256Mi"),
        (scoped("NotBestEffort", json!({ "limits.cpu": "1" })), "0/0"),
        (scoped("NotBestEffort", json!({ "requests.memory": "64Mi" })), "250m/64Mi"),
        // Leaving the scope is no harm.
        (scoped("BestEffort", json!({ "pods": "4" })), "250m/256Mi"),
        (scoped("Terminating", json!({ "requests.memory": "64Mi" })), "250m/256Mi"),
        (scoped("NotTerminating", json!({ "requests.memory": "64Mi" })), "250m/64Mi"),
    ] {
        let snapshot = world(&[], std::slice::from_ref(&quota), &[]);
        assert_eq!(requests(&bare, &snapshot), expected, "{quota:?}");
    }
    let class = |operator: &str, values: Value| {
        let term = json!({ "scopeName": "PriorityClass", "operator": operator, "values": values });
        let selector = json!({ "matchExpressions": [term] });
        let hard = json!({ "requests.memory": "64Mi" });
        quota("q", &json!({ "hard": hard, "scopeSelector": selector }), &json!({}))
    };
    let mut classed = bare.clone();
    classed["spec"]["priorityClassName"] = "high".into();
    for (operator, values, of_class, of_none) in [
        ("In", json!(["high"]), "250m/64Mi", "250m/256Mi"),
        ("NotIn", json!(["high"]), "250m/256Mi", "250m/64Mi"),
        ("Exists", Value::Null, "250m/64Mi", "250m/256Mi"),
        ("DoesNotExist", Value::Null, "250m/256Mi", "250m/64Mi"),
    ] {
        let snapshot = world(&[], &[class(operator, values)], &[]);
        assert_eq!(requests(&classed, &snapshot), of_class, "{operator}");
        assert_eq!(requests(&bare, &snapshot), of_none, "{operator}");
    }
}

#[test]
fn a_pod_that_is_refused_anyway_is_still_cured() {
    // The quota wants a request that is absent: without one the pod is refused.
    let quota = quota("q", &json!({ "hard": { "requests.memory": "1Gi" } }), &json!({}));
    let snapshot = world(&[], &[quota], &[]);
    assert_eq!(requests(&pod(&json!([{ "name": "a" }])), &snapshot), "250m/256Mi");
}

#[test]
fn containers_stay_within_what_the_pod_asks_for_itself() {
    for (level, expected) in [
        (json!({ "requests": { "cpu": "1" } }), "-/256Mi"),
        (json!({ "requests": { "memory": "0" } }), "250m/-"),
        (json!({ "limits": { "memory": "0" } }), "250m/-"),
        (json!({ "requests": { "cpu": "1", "memory": "1Gi" } }), "-/-"),
    ] {
        let mut object = pod(&json!([{ "name": "a" }]));
        object["spec"]["resources"] = level.clone();
        assert_eq!(requests(&object, &world(&[], &[], &[])), expected, "{level}");
    }
}

#[test]
fn no_default_is_larger_than_the_largest_node() {
    let bare = json!([{ "name": "a" }]);
    let asking = json!([{ "name": "a", "resources": { "requests": { "memory": "8Gi" } } }]);
    let node = |cpu, memory_mib: i64| Resources {
        ephemeral_storage: 1 << 40,
        ..Resources::new(cpu, memory_mib << 20)
    };
    for (nodes, containers, expected) in [
        (vec![node(100, 1024)], &bare, "100m/256Mi"),
        (vec![node(4000, 128)], &bare, "250m/128Mi"),
        // The node of which least is missing.
        (vec![node(100, 1024), node(200, 64)], &bare, "100m/256Mi"),
        (vec![node(100, 1024), node(200, 200)], &bare, "200m/200Mi"),
        (vec![node(100, 1024), node(4000, 4096)], &bare, "250m/256Mi"),
        // Fits nowhere with or without us.
        (vec![node(100, 1024)], &asking, "250m/8Gi"),
        (vec![], &bare, "250m/256Mi"),
    ] {
        let snapshot = world(&[], &[], &nodes);
        assert_eq!(requests(&pod(containers), &snapshot), expected, "{nodes:?}");
    }
}

#[test]
fn only_nodes_that_take_the_pod_count() {
    let room = |name: &str, memory: i64| {
        let mut labels = Requirements::new();
        labels.insert("node.kubernetes.io/instance-type", Requirement::one_of([name]));
        let left = Resources::new(4000, memory << 20);
        Room { labels: Arc::new(labels), left }
    };
    let mut device = room("gpu", 100);
    device.left.set("nvidia.com/gpu", 1);
    let open = PoolRooms::new(
        Vec::new(),
        Requirements::from_labels(&Labels::from([("team".to_owned(), "web".to_owned())])),
        vec![room("small", 64), room("usual", 128), device],
    );
    let taint = Taint::new("batch", TaintEffect::NoSchedule);
    let batch = PoolRooms::new(vec![taint], Requirements::new(), vec![room("big", 512)]);
    let pools: Arc<[PoolRooms]> = Arc::new([open, batch]);
    let term = |key: &str, values: Value| {
        let term = json!({ "key": key, "operator": "In", "values": values });
        let terms = json!([{ "matchExpressions": [term] }]);
        let required = json!({ "nodeSelectorTerms": terms });
        json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": required } })
    };
    let instance_type = "node.kubernetes.io/instance-type";
    for (spec, expected) in [
        (json!({}), "250m/128Mi"),
        (json!({ "tolerations": [{ "key": "batch", "operator": "Exists" }] }), "250m/256Mi"),
        (json!({ "nodeSelector": { instance_type: "small" } }), "250m/64Mi"),
        (json!({ "affinity": term(instance_type, json!(["small", "big"])) }), "250m/64Mi"),
        (json!({ "nodeSelector": { "team": "web" } }), "250m/128Mi"),
        // No node of ours takes it, so none bounds it.
        (json!({ "nodeSelector": { "team": "db" } }), "250m/256Mi"),
        (json!({ "nodeSelector": { instance_type: "big" } }), "250m/256Mi"),
        (json!({ "nodeSelector": null, "affinity": null, "tolerations": null }), "250m/128Mi"),
    ] {
        let snapshot = world(&[], &[], &[]).with_rooms(Arc::clone(&pools));
        let mut object = pod(&json!([{ "name": "a" }]));
        object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        assert_eq!(requests(&object, &snapshot), expected, "{spec}");
        // Templates say the same.
        let template = json!({ "spec": object["spec"] });
        let template: TemplateWire = serde_json::from_value(template).unwrap();
        let shape = effective_shape(&template, "shop", ("Deployment", "web"), &snapshot, now());
        let memory = Resource::Memory.format(shape.containers[0].resources.effective().memory);
        assert_eq!(format!("250m/{memory}"), expected, "{spec}");
    }
    let resources = json!({ "limits": { "nvidia.com/gpu": "1" } });
    let snapshot = world(&[], &[], &[]).with_rooms(pools);
    let with_device = pod(&json!([{ "name": "a", "resources": resources }]));
    assert_eq!(requests(&with_device, &snapshot), "250m/100Mi");
}

#[test]
fn each_change_is_told_and_recorded() {
    let ranges = [range(&json!([{ "type": "Container", "max": { "memory": "100Mi" } }]))];
    let quotas = [quota("team", &json!({ "hard": { "requests.cpu": "5m" } }), &json!({}))];
    let snapshot = world(&ranges, &quotas, &[]);
    let text = pod(&json!([{ "name": "a", "resources": zero() }])).to_string();
    let decision = decide_text(&text, &snapshot);
    assert_eq!(
        decision.warnings,
        [
            "container \"a\": memory request set to 100Mi, not 256Mi: LimitRange \"lr\" (policy p)",
            "container \"a\" has a zero cpu request; 250m was not set: ResourceQuota \"team\" (policy p)",
        ]
    );
    let after: Value = serde_json::from_str(&patched(&text, &decision)).unwrap();
    let record = after["metadata"]["annotations"][RECORD_ANNOTATION].as_str().unwrap();
    assert_eq!(
        record,
        r#"{"clamped":{"a":{"memory":"was 256Mi: LimitRange \"lr\""}},"policies":["p"],"set":{"a":{"memory":"100Mi"}},"v":1}"#
    );
    assert_eq!(
        decision.audit["findings"],
        "a/cpu:warn=250m@p(withheld:ResourceQuota \"team\") a/memory:default=100Mi@p"
    );
}

#[test]
fn templates_are_told_the_amounts_that_their_pods_will_get() {
    let ranges = [range(&json!([{ "type": "Container", "max": { "memory": "100Mi" } }]))];
    let snapshot = world(&ranges, &[], &[]);
    let template = serde_json::from_value(json!({ "spec": { "containers": [{ "name": "a" }] } }));
    let template = template.unwrap();
    let told = preview(&template, "shop", ("Deployment", "web"), &snapshot, now()).warnings();
    // Memory gets the LimitRange's own default.
    assert_eq!(told, ["container \"a\" has no cpu request; pods get 250m (policy p)"]);
    let told = preview(&template, "other", ("Deployment", "web"), &snapshot, now()).warnings();
    assert_eq!(told.len(), 3, "bounds are of their namespace: {told:?}");
    assert_eq!(told[2], "pods: quality of service becomes Burstable, was BestEffort");
}

#[test]
fn templates_ask_for_what_a_limit_range_fills_in() {
    let ranges = [range(&json!([
        { "type": "Container", "defaultRequest": { "cpu": "500m", "memory": "1Gi" } },
    ]))];
    let template: TemplateWire = serde_json::from_value(json!({ "spec": { "containers": [
        { "name": "a" }, { "name": "b", "resources": { "limits": { "cpu": "2" }, "requests": { "memory": "2Gi" } } },
    ] } }))
    .unwrap();
    let bounds = Arc::new(Bounds::new(&ranges, &[]));
    for namespace in ["shop", "kube-system"] {
        // No policy, and in the second not even judged.
        let world = snapshot(Vec::new())
            .with_bounds(BTreeMap::from([(namespace.into(), Arc::clone(&bounds))]));
        let shape = effective_shape(&template, namespace, ("Deployment", "web"), &world, now());
        let asked: Vec<String> =
            shape.containers.iter().map(|c| c.resources.effective().to_string()).collect();
        assert_eq!(asked, ["cpu 500m, memory 1Gi", "cpu 2, memory 2Gi"], "{namespace}");
    }
}

#[test]
fn suggestions_are_amounts_that_the_api_server_takes() {
    let ranges = [range(&json!([{ "type": "Container", "min": { "cpu": "300m" } }]))];
    let bounds = Arc::new(Bounds::new(&ranges, &[]));
    let limited = json!({ "requests": zero()["requests"], "limits": { "memory": "64Mi" } });
    let text = pod(&json!([{ "name": "a", "resources": limited }])).to_string();
    for action in [Action::Deny, Action::Warn, Action::Shadow] {
        let rules = [(Resource::Cpu, action), (Resource::Memory, action)];
        let world = snapshot(vec![policy("p", &rules)])
            .with_bounds(BTreeMap::from([("shop".into(), Arc::clone(&bounds))]));
        let decision = decide_text(&text, &world);
        let suggested: Vec<String> = decision.findings.iter().map(Finding::quantity).collect();
        assert_eq!(suggested, ["300m", "64Mi"], "{action:?}");
        assert!(decision.findings.iter().all(|finding| finding.action == action));
    }
}

#[test]
fn bounds_from_above_are_rounded_down() {
    let limited = json!({ "requests": { "memory": "0" }, "limits": { "memory": "67108864500m" } });
    let one = |resources: &Value| pod(&json!([{ "name": "a", "resources": resources }]));
    assert_eq!(requests(&one(&limited), &world(&[], &[], &[])), "250m/64Mi");
    let ranges = [range(&json!([{ "type": "Container", "max": { "memory": "67108864500m" } }]))];
    assert_eq!(requests(&one(&zero()), &world(&ranges, &[], &[])), "250m/64Mi");
    let ranges = [range(&json!([{ "type": "Pod", "max": { "cpu": "100500u" } }]))];
    assert_eq!(requests(&one(&zero()), &world(&ranges, &[], &[])), "100m/256Mi");
    let quota = quota(
        "q",
        &json!({ "hard": { "requests.cpu": "300500u" } }),
        &json!({ "requests.cpu": "199900u" }),
    );
    assert_eq!(requests(&one(&zero()), &world(&[], &[quota], &[])), "100m/256Mi");
}

#[test]
fn a_changed_quality_of_service_is_told_and_recorded() {
    let with = |resources: Value| json!([{ "name": "a", "resources": resources }]);
    let both = |cpu: &str, memory: &str| json!({ "cpu": cpu, "memory": memory });
    for (containers, expected) in [
        (json!([{ "name": "a" }]), Some("Burstable, was BestEffort")),
        (with(zero()), Some("Burstable, was BestEffort")),
        (with(json!({ "requests": { "cpu": "1" } })), None),
        // The limits are below the defaults, so that requests become what they are.
        (
            with(json!({ "requests": both("0", "0"), "limits": both("100m", "64Mi") })),
            Some("Guaranteed, was Burstable"),
        ),
        (with(json!({ "requests": both("0", "0"), "limits": both("1", "64Mi") })), None),
        (with(json!({ "limits": both("1", "64Mi") })), None),
    ] {
        let text = pod(&containers).to_string();
        let decision = decide_text(&text, &world(&[], &[], &[]));
        let line = expected.map(|change| format!("pod: quality of service becomes {change}"));
        let told = decision.mutation_warnings();
        let told = told.iter().find(|line| line.contains("quality of service"));
        assert_eq!(told, line.as_ref(), "{containers}");
        let after: Value = serde_json::from_str(&patched(&text, &decision)).unwrap();
        let record = after["metadata"]["annotations"][RECORD_ANNOTATION].as_str();
        let record: Value = record.map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
        assert_eq!(record["qos"].as_str(), expected, "{containers}");
    }
    // What a pod asks for as a whole decides alone.
    let mut whole = pod(&json!([{ "name": "a" }]));
    whole["spec"]["resources"] = json!({ "requests": { "cpu": "1" } });
    assert_eq!(decide_text(&whole.to_string(), &world(&[], &[], &[])).qos, None);
}
