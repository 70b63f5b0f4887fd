use std::collections::BTreeSet;

use super::*;
use crate::cloud::catalog::SpotPrices;
use crate::simulate::{input, load};

const FILES: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, uid: d}
spec:
  replicas: 10
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: app, image: app, resources: {requests: {memory: 2Gi}}}
      - {name: <b>side</b>, image: side, resources: {limits: {cpu: 1, memory: 1Gi}}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  {name: web-1, namespace: shop, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: d, controller: true}]}
spec:
  replicas: 10
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: app, image: app, resources: {requests: {memory: 2Gi}}}]}
---
apiVersion: v1
kind: Pod
metadata:
  {name: web-1-x, namespace: shop, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, uid: r, controller: true}]}
spec: {nodeName: old, containers: [{name: app, image: app}]}
status: {phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, namespace: shop}
spec: {nodeName: old, containers: [{name: app, image: app}]}
status: {phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: dns, namespace: kube-system}
spec: {containers: [{name: app, image: app}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: shop}
spec: {maxUnavailable: 0, selector: {matchLabels: {app: web}}}
---
apiVersion: harbinger.sh/v1alpha1
kind: RequestPolicy
metadata: {name: shop}
spec:
  match: {ownerKinds: [Deployment]}
  rules: [{resource: cpu, action: Default, default: '1'}]
";

fn scanned(text: &str) -> Scan {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.yaml");
    std::fs::write(&file, text).unwrap();
    let (objects, errors) = load::load(&[file]);
    assert!(errors.is_empty(), "{errors:?}");
    let (input, errors) = input::sort(objects);
    assert!(errors.is_empty(), "{errors:?}");
    let settings = Settings {
        region: "us-east-1".into(),
        spot: SpotPrices::Discount(600),
        catalog: None,
        explain: None,
        now: "2026-06-01T12:00:00Z".parse().unwrap(),
    };
    scan(input, &settings, &BTreeSet::from(["kube-system".to_owned()])).unwrap()
}

#[test]
fn workloads_count_once_and_running_pods_with_them() {
    let scan = scanned(FILES);
    assert_eq!((scan.workloads, scan.pods, scan.pods_without_requests), (3, 12, 11));
    let found: Vec<String> = scan
        .offenders
        .iter()
        .map(|o| format!("{} {} {} {} {}", o.pods, o.kind, o.name, o.missing.join("+"), o.said()))
        .collect();
    assert_eq!(
        found,
        ["10 Deployment web cpu cpu: Default 1 (shop)", "1 Pod bare cpu+memory none"]
    );
}

#[test]
fn modes_differ_in_pods_nodes_and_price() {
    let scan = scanned(FILES);
    let of = |name: &str| scan.modes.iter().find(|mode| mode.mode == name).unwrap();
    let (none, configured) = (of("none"), of("configured"));
    assert_eq!((none.changed, none.warned, none.refused, none.delta_nodes), (0, 0, 0, 0));
    assert_eq!((configured.changed, configured.refused), (10, 0));
    assert!(configured.delta_per_month > 0.0, "ten more cpu cost something: {configured:?}");
    assert!((of("Warn").delta_per_month).abs() < 0.01 && of("Warn").warned == 11);
    assert_eq!(of("Default").changed, 11);
    assert_eq!(of("Deny").refused, 11);
    assert!(of("Deny").nodes <= none.nodes);
}

#[test]
fn advice_is_given_and_every_form_has_it() {
    let scan = scanned(FILES);
    let budget = scan.advice.iter().find(|told| told.advice.code.name() == "HB201").unwrap();
    assert_eq!((&*budget.kind, &*budget.name), ("Deployment", "web"));
    let text = table(&scan);
    assert!(text.contains("10  shop/web") && text.contains("HB201"), "{text}");
    let json = serde_json::to_value(&scan).unwrap();
    assert!(json["advice"].as_array().unwrap().iter().any(|told| told["code"] == "HB201"));
    let page = html(&scan);
    assert_eq!(page.matches("<svg").count(), 3, "three charts");
    assert!(page.contains("HB201") && !page.contains("<b>side"), "names are escaped");
    assert!(!page.contains("http://") || !page.contains("src="), "nothing is fetched");
}

#[test]
fn nothing_is_still_a_report() {
    let scan = scanned("apiVersion: v1\nkind: Namespace\nmetadata: {name: empty}\n");
    assert_eq!((scan.workloads, scan.offenders.len()), (0, 0));
    assert!(table(&scan).contains("0 workloads"));
    assert!(html(&scan).contains("None."));
}

#[test]
fn defaults_that_are_verified_are_defaults() {
    let scan = scanned(&FILES.replace("action: Default,", "action: DefaultAndVerify,"));
    assert_eq!(scan.offenders[0].said(), "cpu: DefaultAndVerify 1 (shop)");
    let configured = scan.modes.iter().find(|mode| mode.mode == "configured").unwrap();
    assert_eq!((configured.changed, configured.refused), (10, 0));
}

#[test]
fn what_a_limit_range_fills_in_is_not_missing() {
    let ranges = r"
---
apiVersion: v1
kind: LimitRange
metadata: {name: usual, namespace: shop}
spec: {limits: [{type: Container, defaultRequest: {cpu: 500m, memory: 1Gi}}]}
";
    let scan = scanned(&format!("{FILES}{ranges}"));
    assert_eq!(scan.pods_without_requests, 0, "{:?}", scan.offenders);
    assert!(scan.advice.iter().all(|told| told.advice.code.name() != "HB001"));
    let none = |scan: &Scan| scan.modes.iter().find(|mode| mode.mode == "none").unwrap().clone();
    assert!(none(&scan).per_month > none(&scanned(FILES)).per_month);
}

#[test]
fn quotas_count_the_pods_of_each_mode() {
    let quotas = r"
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: team, namespace: shop}
spec: {hard: {requests.memory: 20Gi, pods: 20}}
status: {hard: {requests.memory: 20Gi}, used: {requests.memory: 20Gi}}
";
    let text = format!("{FILES}{quotas}")
        .replace("cpu, action: Default, default: '1'", "memory, action: Default, default: 1Gi");
    let scan = scanned(&text);
    let of = |name: &str| scan.modes.iter().find(|mode| mode.mode == name).unwrap();
    // A pod of the Deployment has 3Gi; the bare one asks for no memory, which the quota insists on.
    assert_eq!((of("none").refused, of("Warn").refused), (4 + 1, 4 + 1));
    // It gets some where a policy gives it.
    assert_eq!(of("Default").refused, 4);
    assert!(of("none").nodes > 0);
}

#[test]
fn a_daemon_set_that_runs_has_its_room() {
    let daemon = r"
apiVersion: v1
kind: Node
metadata: {name: node-1}
status: {allocatable: {cpu: '2', memory: 4Gi, pods: '110'}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: shop, uid: a}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: c, resources: {requests: {cpu: 1500m, memory: 1Gi}}}]}
";
    let pod = r"
---
apiVersion: v1
kind: Pod
metadata:
  {name: agent-x, namespace: shop, ownerReferences: [{apiVersion: apps/v1, kind: DaemonSet, name: agent, uid: a, controller: true}]}
spec: {nodeName: node-1, containers: [{name: c, resources: {requests: {cpu: 1500m, memory: 1Gi}}}]}
status: {phase: Running}
";
    let told = |text: &str| -> Vec<String> {
        let scan = scanned(text);
        let of = scan.advice.iter().filter(|told| told.advice.code.name() == "HB104");
        of.map(|told| told.advice.message.clone()).collect()
    };
    let line = "takes cpu 1500m, memory 1Gi on 1 node";
    assert_eq!(told(&format!("{daemon}{pod}")), [line]);
    let other = pod.replace("DaemonSet, name: agent", "DaemonSet, name: other");
    assert_eq!(told(&format!("{daemon}{other}")), [format!("{line}; 1 lack room")]);
}
