//! `harbinger scan` on files.

use serde_json::Value;

use super::cli::{Folder, harbinger, text};

const FILES: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 12
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: app, image: app, ports: [{containerPort: 80}], resources: {requests: {memory: 1Gi}}}
";

#[test]
fn every_form_tells_the_same() {
    let folder = Folder::new();
    folder.file("web.yaml", FILES);
    let path = folder.path().to_str().unwrap();
    let run = |form: &str| {
        let output = harbinger(&["scan", path, "-o", form]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let json: Value = serde_json::from_str(&run("json")).unwrap();
    assert_eq!((&json["pods"], &json["podsWithoutRequests"]), (&12.into(), &12.into()));
    assert_eq!(json["offenders"][0]["missing"], serde_json::json!(["cpu"]));
    let modes: Vec<&str> = json["modes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mode| mode["mode"].as_str().unwrap())
        .collect();
    assert_eq!(modes, ["none", "Warn", "Default", "Deny"]);
    let default = &json["modes"][2];
    assert_eq!(default["changed"], 12);
    assert_eq!(json["modes"][3]["refused"], 12);
    let codes: Vec<&str> = json["advice"]
        .as_array()
        .unwrap()
        .iter()
        .map(|told| told["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["HB001", "HB301", "HB102"]);
    assert!(run("table").contains("12  shop/web  Deployment  app"), "{}", run("table"));
    let yaml: Value = serde_saphyr::from_str(&run("yaml")).unwrap();
    assert_eq!(yaml["advice"], json["advice"]);
    let page = run("html");
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"), "{page}");
    assert!(page.contains("<svg") && page.contains("HB301"));
    for outside in ["<script", "<link", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}: the page needs something else");
    }
    assert_eq!(run("json"), run("json"), "the same input gives the same bytes");
}

#[test]
fn wrong_usage_and_bad_input_are_told() {
    let nothing = harbinger(&["scan"]);
    assert_eq!(nothing.status.code(), Some(2), "{}", text(&nothing.stderr));
    assert!(text(&nothing.stderr).contains("PATH"));
    let both = harbinger(&["scan", "x", "--cluster"]);
    assert_eq!(both.status.code(), Some(2));
    let folder = Folder::new();
    let file =
        folder.file("a.yaml", "apiVersion: apps/v1\nkind: Deploymant\nmetadata: {name: a}\n");
    let bad = harbinger(&["scan", file.to_str().unwrap()]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(text(&bad.stderr).contains("did you mean Deployment?"), "{}", text(&bad.stderr));
}
