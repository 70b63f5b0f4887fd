//! What the chart, as `manifests/install.yaml` has it, must hold.

use harbinger::simulate::load;
use serde_json::Value;

fn objects() -> Vec<Value> {
    let text = std::fs::read_to_string("manifests/install.yaml").unwrap();
    load::parse_text("install.yaml", &text).unwrap().into_iter().map(|(_, object)| object).collect()
}

/// Two containers share a pod, and the endpoint is the pod's.
#[test]
fn only_the_webhook_decides_about_its_pods_readiness() {
    let objects = objects();
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    let with = |probe: &str| -> Vec<&str> {
        let with = containers.iter().filter(|container| !container[probe].is_null());
        with.map(|container| container["name"].as_str().unwrap()).collect()
    };
    assert_eq!(with("readinessProbe"), ["webhook"]);
    assert_eq!(with("livenessProbe"), ["webhook", "provisioner"]);
}
