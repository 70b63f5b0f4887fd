//! What a pool can say, and what overlays say about its types, through `simulate`.

use serde_json::{Value, json};

use crate::cli::{Folder, harbinger, text};

/// A pool of on-demand nodes in one zone with these requirements, and more fields of its spec and of
/// its template's.
fn pool(name: &str, requirements: &str, spec: &str, template: &str) -> String {
    format!(
        "apiVersion: karpenter.sh/v1\nkind: NodePool\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n  template:\n    \
         metadata: {{labels: {{team: {name}}}}}\n    spec:\n      {template}\n      \
         nodeClassRef: {{group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}}\n      requirements:\n      \
         - {{key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}}\n      \
         - {{key: topology.kubernetes.io/zone, operator: In, values: [us-east-1a]}}\n      {requirements}\n---\n"
    )
}

fn types(list: &str) -> String {
    format!("- {{key: node.kubernetes.io/instance-type, operator: In, values: [{list}]}}")
}

fn overlay(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: karpenter.sh/v1alpha1\nkind: NodeOverlay\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"
    )
}

/// Pods that ask for 1 cpu and 2Gi each, and more fields of their spec.
fn pods(count: u32, requests: &str, spec: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {count}\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      \
         {spec}\n      containers: [{{name: c, image: c, resources: {{requests: {{cpu: 1, memory: 2Gi{requests}}}}}}}]\n---\n"
    )
}

fn report(yaml: &str) -> Value {
    let folder = Folder::new();
    folder.file("all.yaml", yaml);
    let output = harbinger(&["simulate", "-o", "json", folder.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn bought(report: &Value) -> Vec<String> {
    let node = |node: &Value| {
        format!("{} {}", node["nodePool"].as_str().unwrap(), node["instanceType"].as_str().unwrap())
    };
    report["nodes"].as_array().unwrap().iter().map(node).collect()
}

fn nowhere(report: &Value) -> String {
    report["unschedulable"].to_string()
}

#[test]
fn an_overlay_makes_a_type_the_cheapest() {
    let plain = format!("{}{}", pool("p", &types("m5.large, m7i.large"), "", ""), pods(1, "", ""));
    let before = report(&plain);
    assert_eq!(bought(&before), ["p m5.large"]);
    let volumes = before["nodes"][0]["pricePerHour"].as_f64().unwrap() - 0.096;
    let half = overlay(
        "half",
        "{requirements: [{key: node.kubernetes.io/instance-type, operator: In, values: [m7i.large]}], \
         priceAdjustment: -50%}",
    );
    let after = report(&format!("{plain}{half}"));
    assert_eq!(bought(&after), ["p m7i.large"]);
    let price = after["nodes"][0]["pricePerHour"].as_f64().unwrap() - volumes;
    assert!((price - 0.1008 / 2.0).abs() < 1e-6, "{price}");
    // A heavier one wins; one of the same weight is refused, and told.
    let dear = overlay(
        "dear",
        "{requirements: [{key: karpenter.k8s.aws/instance-family, operator: In, values: [m7i]}], price: '9', weight: 5}",
    );
    assert_eq!(bought(&report(&format!("{plain}{half}{dear}"))), ["p m5.large"]);
    let clash = overlay("clash", "{requirements: [], price: '9'}");
    let told = report(&format!("{plain}{half}{clash}"));
    assert_eq!(bought(&told), ["p m7i.large"]);
    let warning = "NodeOverlay clash is not applied: overlay half of the same weight";
    assert!(told["warnings"].to_string().contains(warning), "{}", told["warnings"]);
}

#[test]
fn an_overlay_adds_what_a_device_plugin_will() {
    let plain = format!(
        "{}{}",
        pool("p", &types("m5.large, m5.xlarge"), "", ""),
        pods(3, ", example.com/card: 1", "")
    );
    let without = report(&plain);
    assert!(bought(&without).is_empty());
    assert!(nowhere(&without).contains("example.com/card"), "{}", nowhere(&without));
    let cards = overlay(
        "cards",
        "{requirements: [{key: karpenter.k8s.aws/instance-cpu, operator: Gte, values: ['4']}], \
         capacity: {example.com/card: 2}}",
    );
    let with = report(&format!("{plain}{cards}"));
    assert_eq!(bought(&with), ["p m5.xlarge", "p m5.xlarge"]);
    assert_eq!(with["nodes"][0]["allocatable"]["example.com/card"], "2");
}

#[test]
fn a_broken_overlay_is_told_with_a_fix() {
    let folder = Folder::new();
    folder.file(
        "o.yaml",
        &overlay("o", "{requirements: [], priceAdjustment: 10%, capacity: {cpu: 1}}"),
    );
    let output = harbinger(&["simulate", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let errors = text(&output.stderr);
    for part in [
        "NodeOverlay o: spec.priceAdjustment: \"10%\": should match",
        "or a share with a sign such as +10%",
        "NodeOverlay o: spec.capacity: invalid resource restricted",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}

#[test]
fn requirements_hold_with_every_operator() {
    let key = |key: &str| format!("karpenter.k8s.aws/instance-{key}");
    let (cpu, size, family) = (key("cpu"), key("size"), key("family"));
    let cases = [
        (format!("{{key: {cpu}, operator: Gt, values: ['2']}}"), "m5.xlarge"),
        (format!("{{key: {cpu}, operator: Gte, values: ['8']}}"), "m5.2xlarge"),
        (format!("{{key: {cpu}, operator: Lt, values: ['4']}}"), "m5.large"),
        (format!("{{key: {cpu}, operator: Lte, values: ['2']}}"), "m5.large"),
        (format!("{{key: {size}, operator: NotIn, values: [large, xlarge]}}"), "m5.2xlarge"),
        (format!("{{key: {family}, operator: Exists}}"), "m5.large"),
        ("{key: karpenter.k8s.aws/instance-local-nvme, operator: Exists}".to_owned(), "m5d.large"),
        (
            "{key: karpenter.k8s.aws/instance-gpu-count, operator: DoesNotExist}".to_owned(),
            "m5.large",
        ),
    ];
    for (requirement, expected) in cases {
        let list = types("m5.large, m5.xlarge, m5.2xlarge, m5d.large");
        let pool = pool("p", &format!("{list}\n      - {requirement}"), "", "");
        let report = report(&format!("{pool}{}", pods(1, "", "")));
        assert_eq!(bought(&report), [format!("p {expected}")], "{requirement}");
    }
}

#[test]
fn min_values_are_kept_or_told() {
    let varied = |least: u32| {
        let list = types("m5.large, m6i.large, m7i.large, m5.xlarge");
        let family = format!(
            "- {{key: karpenter.k8s.aws/instance-family, operator: Exists, minValues: {least}}}"
        );
        report(&format!(
            "{}{}",
            pool("p", &format!("{list}\n      {family}"), "", ""),
            pods(1, "", "")
        ))
    };
    assert_eq!(bought(&varied(3)).len(), 1);
    let few = varied(4);
    assert!(bought(&few).is_empty());
    assert!(nowhere(&few).contains("minValues"), "{}", nowhere(&few));
}

#[test]
fn weights_limits_and_taints_decide_between_pools() {
    let heavy = |spec: &str, template: &str| pool("heavy", &types("m5.xlarge"), spec, template);
    let light = pool("light", &types("m5.large"), "", "");
    let both = |spec: &str, template: &str, pods: &str| {
        report(&format!("{}{light}{pods}", heavy(spec, template)))
    };
    // Heavier first, though dearer, and as far as its limits go.
    assert_eq!(bought(&both("weight: 10", "", &pods(1, "", ""))), ["heavy m5.xlarge"]);
    let limited = both("weight: 10\n  limits: {nodes: 2}", "", &pods(9, "", ""));
    let names = bought(&limited);
    assert_eq!(names.iter().filter(|name| name.starts_with("heavy")).count(), 2, "{names:?}");
    assert_eq!(limited["pods"]["unschedulable"], 0);
    let none = both("weight: 10\n  limits: {cpu: 3}", "", &pods(1, "", ""));
    assert_eq!(bought(&none), ["light m5.large"], "an m5.xlarge has 4 cpu");
    // A startup taint need not be tolerated, a taint must be.
    let taint = "[{key: agent, effect: NoSchedule}]";
    let starting = both("weight: 10", &format!("startupTaints: {taint}"), &pods(1, "", ""));
    assert_eq!(bought(&starting), ["heavy m5.xlarge"]);
    let tainted = both("weight: 10", &format!("taints: {taint}"), &pods(1, "", ""));
    assert_eq!(bought(&tainted), ["light m5.large"]);
    let tolerated = pods(1, "", "tolerations: [{key: agent, operator: Exists}]");
    assert_eq!(
        bought(&both("weight: 10", &format!("taints: {taint}"), &tolerated)),
        ["heavy m5.xlarge"]
    );
}

#[test]
fn nodes_have_the_labels_of_template_pool_class_and_type() {
    for selector in [
        "team: p",
        "karpenter.sh/nodepool: p",
        "karpenter.k8s.aws/ec2nodeclass: default",
        "karpenter.sh/registered: 'true'",
        "karpenter.sh/capacity-type: on-demand",
        "topology.kubernetes.io/region: us-east-1",
        "failure-domain.beta.kubernetes.io/zone: us-east-1a",
        "beta.kubernetes.io/instance-type: m5.large",
        "kubernetes.io/os: linux",
        "kubernetes.io/arch: amd64",
        "karpenter.k8s.aws/instance-family: m5",
        "karpenter.k8s.aws/instance-cpu-manufacturer: intel",
        "karpenter.k8s.aws/instance-memory: '8192'",
    ] {
        let pool = pool("p", &types("m5.large"), "", "");
        let report =
            report(&format!("{pool}{}", pods(1, "", &format!("nodeSelector: {{{selector}}}"))));
        assert_eq!(bought(&report), ["p m5.large"], "{selector}: {}", nowhere(&report));
    }
    let other = pods(1, "", "nodeSelector: {team: q}");
    let report = report(&format!("{}{other}", pool("p", &types("m5.large"), "", "")));
    assert_eq!(report["nodes"], json!([]));
    assert!(nowhere(&report).contains("team"), "{}", nowhere(&report));
}

#[test]
fn pods_of_a_group_wait_for_each_other() {
    let group = |policy: &str| {
        format!(
            "apiVersion: scheduling.k8s.io/v1beta1\nkind: PodGroup\nmetadata: {{name: train}}\n\
             spec: {{schedulingPolicy: {policy}}}\n---\n"
        )
    };
    let three = pods(3, "", "schedulingGroup: {podGroupName: train}");
    let alone = report(&three);
    assert!(nowhere(&alone).contains("PodGroup train does not exist"), "{}", nowhere(&alone));
    let four = report(&format!("{three}{}", group("{gang: {minCount: 4}}")));
    assert!(nowhere(&four).contains("3 of 4 are there"), "{}", nowhere(&four));
    let whole = report(&format!("{three}{}", group("{gang: {minCount: 3}}")));
    assert_eq!(whole["pods"]["placedOnNew"], 3, "{whole}");
    let each = report(&format!("{three}{}", group("{basic: {}}")));
    assert_eq!(each["pods"]["placedOnNew"], 3, "{each}");
    assert!(!each["warnings"].to_string().contains("schedulingGroup"), "{each}");
}
