//! What `simulate` makes of volumes in files.

use serde_json::Value;

use crate::cli::{Folder, harbinger, text};

const FILES: &str = r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: fast, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: ebs.csi.aws.com
volumeBindingMode: WaitForFirstConsumer
allowedTopologies:
- matchLabelExpressions: [{key: topology.ebs.csi.aws.com/zone, values: [us-east-1c]}]
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: old}
spec:
  capacity: {storage: 5Gi}
  accessModes: [ReadWriteOnce]
  csi: {driver: ebs.csi.aws.com, volumeHandle: vol-1}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions:
        - {key: topology.kubernetes.io/zone, operator: In, values: [us-east-1b]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data-db-1}
spec: {volumeName: old, accessModes: [ReadWriteOnce], resources: {requests: {storage: 5Gi}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: c, resources: {requests: {cpu: 1, memory: 1Gi}}}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 5Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: lost}
spec:
  containers: [{name: c, image: c, resources: {requests: {cpu: 1, memory: 1Gi}}}]
  volumes: [{name: v, persistentVolumeClaim: {claimName: nobody}}]
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/zone: us-east-1c, kubernetes.io/os: linux}}
status: {capacity: {cpu: 16, memory: 32Gi, pods: 50}, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: storage.k8s.io/v1
kind: CSINode
metadata: {name: n1}
spec: {drivers: [{name: ebs.csi.aws.com, nodeID: n1, topologyKeys: [], allocatable: {count: COUNT}}]}
"#;

fn report(count: u32) -> Value {
    let folder = Folder::new();
    folder.file("all.yaml", &FILES.replace("COUNT", &count.to_string()));
    let path = folder.path().to_str().unwrap();
    let output = harbinger(&["simulate", "-o", "json", path]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn pods_go_where_the_files_say_their_volumes_are() {
    let report = report(1);
    assert_eq!(report["nodes"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["nodes"][0]["zone"], "us-east-1b");
    assert_eq!(report["nodes"][0]["pods"], serde_json::json!(["default/db-1"]));
    assert_eq!(report["existing"]["n1"], serde_json::json!(["default/db-0"]));
    let reason = "PersistentVolumeClaim nobody does not exist; create it";
    assert_eq!(report["unschedulable"][0]["reasons"], serde_json::json!([reason]));
    let warnings = report["warnings"].to_string();
    assert!(!warnings.contains("volume") && !warnings.contains("skipped"), "{warnings}");
}

#[test]
fn a_node_of_the_files_attaches_what_it_says() {
    let report = report(0);
    let zones: Vec<&str> =
        report["nodes"].as_array().unwrap().iter().map(|n| n["zone"].as_str().unwrap()).collect();
    assert_eq!(zones.len(), 2, "{report}");
    assert!(zones.contains(&"us-east-1c"), "{zones:?}");
}

#[test]
fn slips_in_volumes_are_named() {
    let folder = Folder::new();
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: a}\n\
                 spec: {storageClasName: fast, resources: {requests: {storage: much}}}\n---\n\
                 apiVersion: v1\nkind: StorageClass\nmetadata: {name: b}\nprovisioner: c\n";
    folder.file("a.yaml", claim);
    let output = harbinger(&["simulate", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let errors = text(&output.stderr);
    for part in [
        "spec.storageClasName",
        "did you mean storageClassName?",
        "spec.resources.requests.storage: \"much\"",
        "StorageClass is not of this group; write storage.k8s.io/v1",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}
