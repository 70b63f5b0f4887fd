//! Advice on workloads, over HTTPS and with a provisioner to ask.

use crate::model::labels::LabelSelector;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use super::support::*;
use crate::advice::{Facts, Quote};
use crate::intent;
use crate::model::companions::{Budget, Scaler};
use crate::model::money::MicroDollarsPerHour;

fn deployment() -> Value {
    let requests = json!({ "cpu": "1", "memory": "1Gi" });
    json!({
        "metadata": { "name": "web", "namespace": "shop", "generation": 1 },
        "spec": { "replicas": 3, "template": {
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "c", "resources": { "requests": requests } }] } } },
    })
}

async fn warnings(client: &mut Client, review: &Value) -> Vec<String> {
    let reply = client.post("/advise/workloads", review.to_string()).await.unwrap();
    let answer = reply.json();
    assert_eq!(answer["response"]["allowed"], true, "advice never refuses");
    serde_json::from_value(answer["response"]["warnings"].clone()).unwrap_or_default()
}

#[tokio::test]
async fn the_replicas_that_an_autoscaler_holds_are_priced() {
    let made = issue(now());
    let (sender, mut inbox) = intent::local();
    let tasks = TaskTracker::new();
    let asked = tasks.spawn(async move {
        let asked = inbox.questions.recv().await.unwrap();
        asked.reply.send(Quote::default()).unwrap();
        asked.question.desired
    });
    let context = context(Arc::new(now), Some(sender));
    let mut facts = Facts::default();
    let scaler = Scaler {
        namespace: "shop".into(),
        name: "h".into(),
        target: ("Deployment".into(), "web".into()),
        replicas: (5, 9),
        cpu_of: Vec::new(),
    };
    Arc::make_mut(&mut facts.scalers).insert(("shop".into(), "h".into()), Arc::new(scaler));
    context.facts.store(Arc::new(facts));
    let running = start(settings(fixed(&made)), context).await;
    let mut client = Client::connect(running.addr, &made.ca, false).await;
    let create = review("apps", "Deployment", "deployments", "CREATE", &deployment());
    warnings(&mut client, &create).await;
    assert_eq!(asked.await.unwrap(), 5);
    running.stop().await;
}

#[tokio::test]
async fn advice_asks_the_provisioner_and_does_without() {
    let made = issue(now());
    let (sender, mut inbox) = intent::local();
    let tasks = TaskTracker::new();
    // Answers the first question and lets the others wait.
    tasks.spawn(async move {
        let asked = inbox.questions.recv().await.unwrap();
        assert_eq!((asked.question.desired, &*asked.question.namespace), (3, "shop"));
        let types = vec![("m7i.large".to_owned(), 2)];
        let per_hour = MicroDollarsPerHour(201_600);
        let quote = Quote { replicas: 3, nodes: 2, per_hour, types, ..Quote::default() };
        asked.reply.send(quote).unwrap();
        let mut later = Vec::new();
        while let Some(asked) = inbox.questions.recv().await {
            later.push(asked);
        }
    });
    let context = context(Arc::new(now), Some(sender));
    let mut facts = Facts::default();
    let budget = Budget {
        namespace: "shop".into(),
        name: "b".into(),
        selector: Some(LabelSelector::default()),
        min_available: None,
        max_unavailable: Some(crate::model::companions::Amount::Count(0)),
        expected: 0,
    };
    Arc::make_mut(&mut facts.budgets).insert(("shop".into(), "b".into()), Arc::new(budget));
    context.facts.store(Arc::new(facts));
    let running = start(settings(fixed(&made)), context).await;
    let mut client = Client::connect(running.addr, &made.ca, false).await;
    let create = review("apps", "Deployment", "deployments", "CREATE", &deployment());
    let budget = "HB201: budget \"b\" (maxUnavailable 0) lets none of 3 pods go: it blocks drains";
    assert_eq!(
        warnings(&mut client, &create).await,
        [budget, "HB102: 3 pods need 2 nodes of their own (2 m7i.large): $0.2016/h"]
    );
    assert_eq!(warnings(&mut client, &create).await, [budget], "no answer comes in time");

    // Nothing of the spec changes, or nobody reads it: nothing is said.
    let mut same = review("apps", "Deployment", "deployments", "UPDATE", &deployment());
    same["request"]["oldObject"] = deployment();
    assert!(warnings(&mut client, &same).await.is_empty());
    let mut owned = deployment();
    owned["metadata"]["ownerReferences"] =
        json!([{ "kind": "Deployment", "name": "web", "uid": "d", "controller": true }]);
    let owned = review("apps", "ReplicaSet", "replicasets", "CREATE", &owned);
    assert!(warnings(&mut client, &owned).await.is_empty());
    let result = |name| vec![("result", name)];
    let quotes = &running.metrics.quotes;
    assert_eq!(quotes.get_or_create(&result("answered")).get(), 1);
    assert_eq!(quotes.get_or_create(&result("none")).get(), 1);
    running.stop().await;
}
