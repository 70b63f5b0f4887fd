//! The released program on files: what users type, and what they read back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

pub(crate) fn harbinger(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_harbinger")).args(args).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        self.bytes(name, content.as_bytes())
    }

    pub(crate) fn bytes(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

fn simulate_json(args: &[&str]) -> Value {
    let output = harbinger(&[&["simulate", "-o", "json"], args].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn examples_run_and_place_what_can_be_placed() {
    for (example, total, nowhere) in
        [("web-shop", 27, 0), ("batch-farm", 230, 0), ("gpu-service", 12, 1)]
    {
        let report = simulate_json(&[&format!("examples/{example}")]);
        assert_eq!(report["pods"]["total"], total, "{example}");
        assert_eq!(report["pods"]["unschedulable"], nowhere, "{example}");
        let cost = report["cost"]["perHour"].as_f64().unwrap();
        let bound = report["cost"]["lowerBoundPerHour"].as_f64().unwrap();
        assert!(bound > 0.0 && bound <= cost && cost < bound * 1.25, "{example}: {cost} {bound}");
    }
}

#[test]
fn the_shop_is_warned_of_its_zero_request_pods() {
    let report = simulate_json(&["examples/web-shop"]);
    let findings = report["admission"].as_array().unwrap();
    assert_eq!(findings.len(), 8, "cpu and memory of four pods");
    let message = findings[0]["message"].as_str().unwrap();
    assert!(
        message.starts_with("container \"model\" has no cpu request; pods get 100m"),
        "{message}"
    );

    let report = simulate_json(&["examples/web-shop/shop.yaml"]);
    let findings = report["admission"].as_array().unwrap();
    assert_eq!(findings.len(), 4);
    let message = findings[0]["message"].as_str().unwrap();
    assert!(message.starts_with("container model has no cpu and no memory request"), "{message}");
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn json_has_the_promised_shape() {
    let folder = Folder::new();
    let policy = folder.file(
        "policy.yaml",
        "apiVersion: harbinger.sh/v1alpha1\nkind: RequestPolicy\nmetadata: {name: p}\nspec: {rules: [{resource: ephemeral-storage, action: Warn}]}\n",
    );
    let report = simulate_json(&["examples/gpu-service", policy.to_str().unwrap()]);
    let all = ["admission", "cost", "nodes", "pods", "timing", "unschedulable", "warnings"];
    assert_eq!(keys(&report), all);
    assert_eq!(
        keys(&report["pods"]),
        ["placedOnExisting", "placedOnNew", "total", "unschedulable"]
    );
    let count = |key: &str| report["pods"][key].as_u64().unwrap();
    assert_eq!(
        count("total"),
        count("placedOnExisting") + count("placedOnNew") + count("unschedulable")
    );
    let mut price = 0.0;
    let mut placed = 0;
    for node in report["nodes"].as_array().unwrap() {
        let fields = [
            "allocatable",
            "capacityType",
            "instanceType",
            "nodePool",
            "pods",
            "pricePerHour",
            "requested",
            "zone",
        ];
        assert_eq!(keys(node), fields);
        for field in ["capacityType", "instanceType", "nodePool", "zone"] {
            assert!(!node[field].as_str().unwrap().is_empty(), "{field}: {node}");
        }
        for resource in ["cpu", "memory", "pods"] {
            assert!(node["allocatable"][resource].is_string(), "{node}");
            assert!(node["requested"][resource].is_string(), "{node}");
        }
        let pods = node["pods"].as_array().unwrap();
        assert!(pods.iter().all(|pod| pod.as_str().unwrap().starts_with("models/")), "{node}");
        placed += pods.len();
        price += node["pricePerHour"].as_f64().unwrap();
    }
    assert_eq!(u64::try_from(placed).unwrap(), count("placedOnNew"));
    assert_eq!(keys(&report["cost"]), ["lowerBoundPerHour", "perHour"]);
    assert!((report["cost"]["perHour"].as_f64().unwrap() - price).abs() < 1e-6);
    let unschedulable = &report["unschedulable"][0];
    assert_eq!(keys(unschedulable), ["pod", "reasons"]);
    assert_eq!(unschedulable["pod"], "models/training");
    assert_eq!(unschedulable["reasons"].as_array().unwrap().len(), 2, "one for each pool");
    assert_eq!(keys(&report["admission"][0]), ["action", "message", "pod"]);
    assert_eq!(keys(&report["timing"]), ["loadMs", "solveMs"]);
    assert!(report["timing"]["loadMs"].as_f64().unwrap() > 0.0);
    assert!(report["timing"]["solveMs"].as_f64().unwrap() > 0.0);
    assert!(report["warnings"].as_array().unwrap().iter().all(Value::is_string));
}

#[test]
fn examples_together_and_one_of_them_twice() {
    let report = simulate_json(&[
        "examples/web-shop",
        "examples/gpu-service",
        "examples/gpu-service/gpu.yaml",
    ]);
    assert_eq!(report["pods"]["total"], 39);
    assert_eq!(report["pods"]["unschedulable"], 1);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("gpu.yaml already, and is used once"), "{warnings}");
}

#[test]
fn yaml_says_the_same_as_json() {
    let mut json = simulate_json(&["examples/gpu-service"]);
    let output = harbinger(&["simulate", "-o", "yaml", "examples/gpu-service"]);
    let mut yaml: Value = serde_saphyr::from_str(&text(&output.stdout)).unwrap();
    json["timing"] = Value::Null;
    yaml["timing"] = Value::Null;
    assert_eq!(yaml, json);
}

#[test]
fn spot_is_assumed_listed_or_said_to_be_missing() {
    let folder = Folder::new();
    let file = folder.file(
        "pod.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, resources: {requests: {cpu: 1, memory: 1Gi}}}]}\n",
    );
    let file = file.to_str().unwrap();
    let price = |args: &[&str]| {
        let report = simulate_json(&[args, &[file]].concat());
        (report["cost"]["perHour"].as_f64().unwrap(), report["warnings"].to_string())
    };
    let (usual, warnings) = price(&[]);
    assert!(warnings.contains("60.0 % below on-demand"), "{warnings}");
    assert!(warnings.contains("no NodePool in the input"), "{warnings}");
    let (dearer, _) = price(&["--spot-discount", "0.1"]);
    assert!(dearer > usual, "{dearer} {usual}");
    let prices = folder.file(
        "spot.json",
        &json!({"SpotPriceHistory": [{"InstanceType": "m5.large", "AvailabilityZone": "us-east-1a", "SpotPrice": "0.001"}]}).to_string(),
    );
    let report = simulate_json(&["--spot-prices", prices.to_str().unwrap(), file]);
    let node = &report["nodes"][0];
    assert_eq!(
        (&node["instanceType"], &node["zone"], &node["capacityType"]),
        (&json!("m5.large"), &json!("us-east-1a"), &json!("spot"))
    );
    let (_, warnings) = price(&["--region", "eu-west-1"]);
    assert!(warnings.contains("prices are those of us-east-1"), "{warnings}");
    let report = simulate_json(&["--region", "eu-west-1", file]);
    assert!(report["nodes"][0]["zone"].as_str().unwrap().starts_with("eu-west-1"));
}

#[test]
fn types_of_other_regions_and_fields_of_later_versions_are_warnings() {
    let folder = Folder::new();
    let file = folder.file(
        "a.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {hyperdrive: on, containers: [{name: c, resources: {requests: {cpu: 1, memory: 1Gi}}}]}\n",
    );
    let report = simulate_json(&[file.to_str().unwrap()]);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("a.yaml: Pod a: spec.hyperdrive: "), "{warnings}");
    assert!(warnings.contains("unknown field; it is not read"), "{warnings}");
}

#[test]
fn a_foreign_catalog_takes_the_place_of_ec2() {
    let folder = Folder::new();
    let catalog = folder.file(
        "catalog.json",
        &json!([{
            "name": "box", "capacity": {"cpu": "4", "memory": "8Gi", "pods": "20"},
            "overhead": {"cpu": "100m"},
            "requirements": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}],
            "offerings": [{"zone": "z1", "capacityType": "on-demand", "price": 0.25, "available": true}]
        }])
        .to_string(),
    );
    let pods = folder.file(
        "pods.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  replicas: 5\n  template:\n    spec:\n      containers: [{name: c, resources: {requests: {cpu: 1900m, memory: 1Gi}}}]\n",
    );
    let report = simulate_json(&["--catalog", catalog.to_str().unwrap(), pods.to_str().unwrap()]);
    assert_eq!(report["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(report["cost"]["perHour"], 0.75);
    assert_eq!(report["nodes"][0]["allocatable"]["cpu"], "3900m");
}

/// On one core or on all, 20 times: what is read in another order, or raced for, would show.
#[test]
fn a_plan_is_the_same_bytes_each_time() {
    let folder = Folder::new();
    let types: Vec<Value> = (1..=12)
        .map(|cores| {
            let offer = |zone: &str, kind: &str, price: f64| {
                json!({"zone": zone, "capacityType": kind, "available": true,
                    "price": price * f64::from(cores)})
            };
            json!({"name": format!("box.{cores}"), "overhead": {"cpu": "100m"},
                "capacity": {"cpu": cores, "memory": format!("{}Gi", 3 * cores), "pods": "40"},
                "requirements": [],
                "offerings": [offer("z1", "on-demand", 0.05), offer("z2", "on-demand", 0.05),
                    offer("z2", "spot", 0.02), offer("z3", "spot", 0.02)]})
        })
        .collect();
    let catalog = folder.file("catalog.json", &json!(types).to_string());
    let deployment = |at: u32| {
        let labels = json!({"app": format!("a{}", at % 5)});
        let rule = match at % 4 {
            0 => json!({"topologySpreadConstraints": [{"maxSkew": 1, "labelSelector":
                {"matchLabels": labels}, "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "DoNotSchedule"}]}),
            1 => json!({"affinity": {"podAntiAffinity":
                {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey":
                "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}]}}}),
            _ => json!({}),
        };
        let mut spec = json!({"containers": [{"name": "c", "resources": {"requests":
            {"cpu": format!("{}m", 100 + 150 * (at % 7)), "memory": format!("{}Mi", 200 * at)}}}]});
        spec.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": format!("d{at}")},
            "spec": {"replicas": 1 + at % 4, "template": {"metadata": {"labels": labels}, "spec": spec}}})
    };
    let items: Vec<Value> = (1..=6).map(deployment).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let (catalog, pods) = (catalog.to_str().unwrap().to_owned(), folder.file("pods.json", &list));
    let args = ["simulate", "-o", "json", "--catalog", &catalog, pods.to_str().unwrap()];
    let mut seen = BTreeSet::new();
    for run in 0..20 {
        let output = if run % 2 == 0 {
            harbinger(&args)
        } else {
            let mut one = Command::new("taskset");
            one.args(["-c", "0", env!("CARGO_BIN_EXE_harbinger")]).args(args).output().unwrap()
        };
        let out = text(&output.stdout);
        let (plan, _) = out.split_once("\"timing\"").unwrap();
        assert!(plan.contains("\"perHour\""), "{plan}");
        seen.insert(plan.to_owned());
    }
    assert_eq!(seen.len(), 1);
}

#[test]
fn existing_nodes_are_filled_first() {
    let folder = Folder::new();
    let file = folder.file(
        "a.yaml",
        "
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {kubernetes.io/arch: amd64}}
status:
  allocatable: {cpu: '4', memory: 8Gi, pods: '10'}
  conditions: [{type: Ready, status: 'True'}]
---
apiVersion: v1
kind: Pod
metadata: {name: old}
spec: {nodeName: n1, containers: [{name: c, resources: {requests: {cpu: '2', memory: 1Gi}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: new}
spec: {containers: [{name: c, resources: {requests: {cpu: '2', memory: 1Gi}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: newer}
spec: {containers: [{name: c, resources: {requests: {cpu: '2', memory: 1Gi}}}]}
",
    );
    let report = simulate_json(&[file.to_str().unwrap()]);
    assert_eq!(
        report["pods"],
        json!({"total": 2, "placedOnExisting": 1, "placedOnNew": 1, "unschedulable": 0})
    );
    assert_eq!(report["existing"]["n1"], json!(["default/new"]));
}

const CLASS: &str = "
apiVersion: karpenter.k8s.aws/v1
kind: EC2NodeClass
metadata: {name: c}
spec:
  role: r
  amiSelectorTerms: [{alias: al2023@latest}]
  subnetSelectorTerms: [{id: subnet-1}]
  securityGroupSelectorTerms: [{id: sg-1}]
";

pub(crate) fn pool(requirements: &str, rest: &str) -> String {
    format!(
        "apiVersion: karpenter.sh/v1\nkind: NodePool\nmetadata: {{name: p}}\nspec:\n  template:\n    spec:\n      nodeClassRef: {{group: karpenter.k8s.aws, kind: EC2NodeClass, name: c}}\n      requirements: {requirements}\n{rest}\n---{CLASS}"
    )
}

#[test]
fn unschedulable_pods_can_fail_the_run() {
    let output = harbinger(&["simulate", "--fail-unschedulable", "examples/gpu-service"]);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn explain_gives_place_or_reason() {
    let output = harbinger(&["explain", "models/training", "examples/gpu-service"]);
    let out = text(&output.stdout);
    assert!(out.contains("models/training: fits nowhere"), "{out}");
    assert!(out.contains("NodePool gpu: no instance type is large enough"), "{out}");
    assert!(out.contains("It would fit if its memory request were at most"), "{out}");
    // The whole table: what each family of each pool says.
    assert!(out.contains("c6a, c7a, c7i  "), "{out}");
    let output = harbinger(&["explain", "-o", "json", "models/training", "examples/gpu-service"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let families = report["unschedulable"][0]["families"].as_array().unwrap();
    let g4dn = families.iter().find(|family| family["family"] == "g4dn").unwrap();
    assert_eq!(g4dn["nodePool"], "gpu");
    assert_eq!(g4dn["reason"]["code"], "TooLarge");
    assert_eq!(g4dn["reason"]["resource"], "memory");
    assert_eq!(report["nodes"].as_array().map(Vec::len), Some(0), "only what is about the name");
    let output = harbinger(&["explain", "models/model", "examples/gpu-service"]);
    assert!(text(&output.stdout).contains("on a new g4dn.xlarge"), "{}", text(&output.stdout));
    let output = harbinger(&["explain", "nobody", "examples/gpu-service"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn definitions_can_be_written() {
    let folder = Folder::new();
    let output = harbinger(&["crds", "--out", folder.0.path().to_str().unwrap()]);
    assert!(output.status.success());
    let written =
        std::fs::read_to_string(folder.0.path().join("karpenter.sh_nodepools.yaml")).unwrap();
    let committed = Path::new("manifests/crds/karpenter.sh_nodepools.yaml");
    assert_eq!(written, std::fs::read_to_string(committed).unwrap());
}

#[test]
fn objects_of_older_versions_are_read_and_converted() {
    let folder = Folder::new();
    let old = folder.file(
        "old.yaml",
        "apiVersion: karpenter.sh/v1alpha5\nkind: Provisioner\nmetadata: {name: web}\nspec:\n  ttlSecondsAfterEmpty: 30\n  providerRef: {name: web}\n---\napiVersion: karpenter.k8s.aws/v1alpha1\nkind: AWSNodeTemplate\nmetadata: {name: web}\nspec:\n  instanceProfile: node\n  subnetSelector: {karpenter.sh/discovery: c1}\n  securityGroupSelector: {karpenter.sh/discovery: c1}\n",
    );
    let old = old.to_str().unwrap();
    let converted = harbinger(&["convert", old, "--region", "us-east-1"]);
    assert!(converted.status.success(), "{}", text(&converted.stderr));
    let yaml = text(&converted.stdout);
    assert!(yaml.contains("apiVersion: karpenter.sh/v1\n"), "{yaml}");
    assert!(text(&converted.stderr).contains("note: "), "{}", text(&converted.stderr));

    let file = folder.file("new.yaml", &yaml);
    let report = |path: &str| {
        let output = harbinger(&["simulate", path, "-o", "json"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        report["warnings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|w| w.as_str().unwrap().starts_with("converted "))
            .count()
    };
    assert!(report(old) > 0, "the conversion is part of the report");
    assert_eq!(report(file.to_str().unwrap()), 0, "what was converted is current");
}

#[test]
fn policies_decide_who_comes_in_and_what_they_ask() {
    let workload = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec:\n  replicas: 3\n  template:\n    spec: {containers: [{name: c, image: c}]}\n";
    let policy = |action: &str| {
        format!(
            "---\napiVersion: harbinger.sh/v1alpha1\nkind: RequestPolicy\nmetadata: {{name: p}}\nspec:\n  rules:\n  - {{resource: cpu, action: {action}{}}}\n",
            if action == "Default" { ", default: '2'" } else { "" }
        )
    };
    let folder = Folder::new();
    let run = |action: &str| {
        let file = folder.file("in.yaml", &format!("{workload}{}", policy(action)));
        let output = harbinger(&["simulate", file.to_str().unwrap(), "-o", "json"]);
        assert!(output.status.success(), "{action}: {}", text(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let said = |report: &serde_json::Value, action: &str| {
        report["admission"].as_array().unwrap().iter().filter(|a| a["action"] == action).count()
    };
    let denied = run("Deny");
    assert_eq!((denied["pods"]["total"].as_u64(), said(&denied, "Deny")), (Some(0), 3), "{denied}");
    let message = denied["admission"][0]["message"].as_str().unwrap();
    assert!(message.contains("spec.containers[0].resources.requests.cpu"), "{message}");
    let defaulted = run("Default");
    assert_eq!(said(&defaulted, "Default"), 3, "{defaulted}");
    assert_eq!(defaulted["nodes"][0]["requested"]["cpu"], "6", "{defaulted}");
    let warned = run("Warn");
    assert_eq!(warned["pods"]["placedOnNew"], 3, "{warned}");
    // One about the cpu from the policy, one about the memory that no policy speaks of.
    assert_eq!(said(&warned, "Warn"), 6, "{warned}");
}
