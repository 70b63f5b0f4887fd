//! Our definitions on a real API server: it takes them, and it judges objects as the table says.
//!
//! The same table holds for our own validation, in `src/api/validate.rs`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harbinger::api::crds;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::Value;
use testbed::plane::{Plane, PlaneOptions};
use testbed::poll;

/// One line of the table.
#[derive(Deserialize)]
struct Case {
    name: String,
    object: Value,
    /// A merge patch of the stored object.
    #[serde(default)]
    patch: Value,
    /// A part of what the server says; empty when it takes the object.
    #[serde(default)]
    message: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_judges_as_the_table_says() -> Result<()> {
    let plane = Plane::start(PlaneOptions::default()).await?;
    let client = plane.client();
    let folder = "manifests/crds";
    plane.kubectl(&["apply", "--server-side", "--validate=strict", "-f", folder], "").await?;
    established(&client).await?;

    let mut wrong = Vec::new();
    // Making them takes longer than any answer.
    let definitions = crds();
    let path = |object: &Value| path(&definitions, object);
    let (accepted, refused, changed) = (cases("accept"), cases("refuse"), cases("change"));
    for case in accepted.iter().chain(&refused) {
        let path = format!("{}?fieldValidation=Strict&dryRun=All", path(&case.object)?);
        let answer = send(&client, "POST", &path, &case.object).await;
        wrong.extend(judge(case, answer));
    }
    for case in &changed {
        let list = path(&case.object)?;
        send(&client, "POST", &list, &case.object).await.with_context(|| case.name.clone())?;
        let name = case.object["metadata"]["name"].as_str().context("no name")?;
        let object = format!("{list}/{name}");
        let answer =
            send(&client, "PATCH", &format!("{object}?fieldValidation=Strict"), &case.patch).await;
        wrong.extend(judge(case, answer));
        send(&client, "DELETE", &object, &Value::Null).await?;
    }
    println!(
        "{} objects taken, {} refused, {} changes judged",
        accepted.len(),
        refused.len(),
        changed.len()
    );
    ensure!(wrong.is_empty(), "{} of the table are wrong:\n{}", wrong.len(), wrong.join("\n"));
    every_transition_has_a_case(&definitions, &changed)?;

    // What users type.
    let names = [
        "nodepools",
        "nodeclaims",
        "overlays",
        "ec2nc",
        "ec2ncs",
        "reqpol",
        "reservations",
        "demandprofiles",
    ];
    for name in names.into_iter().chain(["karpenter", "harbinger"]) {
        plane.kubectl(&["get", name, "-A"], "").await?;
    }
    plane.kubectl(&["explain", "nodepools.spec.disruption.budgets"], "").await?;
    Ok(())
}

/// Waits until all definitions are served, and looks for what the server dislikes about them.
async fn established(client: &Client) -> Result<()> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let wanted = crds().len();
    poll::until("definitions", Duration::from_secs(30), async || {
        let all = api.list(&ListParams::default()).await?.items;
        ensure!(all.len() == wanted, "{} of {wanted}", all.len());
        for crd in all {
            let name = crd.metadata.name.unwrap_or_default();
            let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
            let is = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
            ensure!(is("Established") && is("NamesAccepted"), "{name}: {conditions:?}");
            ensure!(!is("NonStructuralSchema"), "{name}: {conditions:?}");
        }
        Ok(())
    })
    .await
}

fn cases(file: &str) -> Vec<Case> {
    let path = format!("tests/fixtures/crds/{file}.yaml");
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// What is wrong about an answer.
fn judge(case: &Case, answer: Result<(), kube::Error>) -> Option<String> {
    let Case { name, message, .. } = case;
    match answer {
        Ok(()) if message.is_empty() => None,
        Ok(()) => Some(format!("{name}: was taken, not refused with {message:?}")),
        Err(kube::Error::Api(status)) => {
            let told = status.message.to_lowercase();
            let right = !message.is_empty()
                && matches!(status.code, 400 | 422)
                && told.contains(&message.to_lowercase());
            (!right)
                .then(|| format!("{name}: {} {:?}, not {message:?}", status.code, status.message))
        }
        Err(error) => Some(format!("{name}: {error}")),
    }
}

/// The path of an object's list.
fn path(definitions: &[CustomResourceDefinition], object: &Value) -> Result<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let crd = definitions.iter().find(|crd| crd.spec.names.kind == kind).context(kind)?;
    let namespace = match text(&object["metadata"]["namespace"]) {
        none if none.is_empty() => String::new(),
        name => format!("/namespaces/{name}"),
    };
    Ok(format!("/apis/{version}{namespace}/{}", crd.spec.names.plural))
}

async fn send(client: &Client, method: &str, path: &str, body: &Value) -> Result<(), kube::Error> {
    let kind = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
    client.request::<Value>(request.body(body).unwrap()).await.map(drop)
}

/// Rules that compare with the stored object are tried by changes alone.
fn every_transition_has_a_case(
    definitions: &[CustomResourceDefinition],
    changed: &[Case],
) -> Result<()> {
    let text = serde_json::to_value(definitions)?;
    let mut found = Vec::new();
    transitions(&text, &mut found);
    ensure!(!found.is_empty(), "no rule compares with the stored object");
    for message in found {
        ensure!(changed.iter().any(|case| case.message == message), "no case for {message:?}");
    }
    Ok(())
}

fn transitions(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(object) => {
            let of = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
            if of("rule").contains("oldSelf") {
                found.push(of("message").to_owned());
            }
            object.values().for_each(|value| transitions(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| transitions(value, found)),
        _ => {}
    }
}
