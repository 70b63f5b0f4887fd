//! Admission by the real API server: what a pod's author meets.

use anyhow::{Context, Result, ensure};
use harbinger::intent::{self, Intent};
use http::{Method, StatusCode};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use testbed::plane::{Plane, PlaneOptions};
use testbed::poll;
use testbed::process::Process;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::direct::Direct;
use super::submit::{Answer, dry_pod, pod, submit};
use super::world::DEADLINE;
use testbed::install::{Chart, PORT};

const PROGRAM: &str = env!("CARGO_BIN_EXE_harbinger");

/// By label of the namespace, by label of the pod, by kind of the owner, by kind of the container.
const POLICIES: &str = "
apiVersion: v1
kind: List
items:
- apiVersion: harbinger.sh/v1alpha1
  kind: RequestPolicy
  metadata: {name: prod}
  spec:
    match: {namespaceSelector: {matchLabels: {env: prod}}}
    rules: [{resource: cpu, action: Deny}, {resource: memory, action: Deny}]
    message: 'see https://wiki.example.com/requests ({namespace})'
    allowOptOut: true
- apiVersion: harbinger.sh/v1alpha1
  kind: RequestPolicy
  metadata: {name: test}
  spec:
    match: {namespaceSelector: {matchLabels: {env: test}}}
    rules: [{resource: cpu, action: Warn}, {resource: memory, action: Warn}]
- apiVersion: harbinger.sh/v1alpha1
  kind: RequestPolicy
  metadata: {name: small}
  spec:
    priority: 10
    match: {objectSelector: {matchLabels: {size: small}}}
    rules:
    - {resource: cpu, action: Default, default: 50m}
    - {resource: memory, action: Default, default: 64Mi}
- apiVersion: harbinger.sh/v1alpha1
  kind: RequestPolicy
  metadata: {name: init}
  spec:
    priority: 10
    match: {objectSelector: {matchLabels: {size: small}}, containerNames: [unpack], containerKinds: [Init]}
    rules: [{resource: cpu, action: Default, default: 10m}]
- apiVersion: harbinger.sh/v1alpha1
  kind: RequestPolicy
  metadata: {name: jobs}
  spec:
    priority: 20
    match: {ownerKinds: [Job]}
    rules:
    - {resource: cpu, action: Default, default: 200m}
    - {resource: memory, action: Default, default: 256Mi}
";

/// A plane with the chart's registrations and the webhook; the provisioner's place is taken by us.
struct Door {
    intents: Receiver<Intent>,
    webhook: Process,
    chart: Chart,
    client: Client,
    prod: String,
    test: String,
    plane: Plane,
    _listener: DropGuard,
}

impl Door {
    async fn open() -> Result<Self> {
        let plane = Plane::start(PlaneOptions::default()).await?;
        let chart =
            Chart::install(&plane, PROGRAM, &["certificates.mode=selfManaged"], &[]).await?;
        let (listener, intents) =
            intent::listen(&chart.folder("socket").join("intents.sock"), 0o600).await?;
        let cancel = CancellationToken::new();
        tokio::spawn(listener.run(cancel.clone()));
        let webhook = chart.run(&plane, "webhook", Vec::new()).await?;
        let (prod, test) = (plane.namespace("prod").await?, plane.namespace("test").await?);
        plane.kubectl(&["label", "namespace", &prod, "env=prod"], "").await?;
        plane.kubectl(&["label", "namespace", &test, "env=test"], "").await?;
        plane.kubectl(&["apply", "--validate=strict", "-f", "-"], POLICIES).await?;
        let client = plane.client();
        let door = Self {
            intents,
            webhook,
            chart,
            client,
            prod,
            test,
            plane,
            _listener: cancel.drop_guard(),
        };
        door.in_force().await.with_context(|| door.webhook.log_tail(20))?;
        Ok(door)
    }

    /// Waits until registrations, policies and namespaces have reached everybody.
    async fn in_force(&self) -> Result<()> {
        poll::until("policies in force", DEADLINE, async || {
            let refused = dry_pod(&self.client, &self.prod, &app(json!({}), json!({}))).await?;
            ensure!(refused.code == 422, "{refused:?}");
            let warned = dry_pod(&self.client, &self.test, &app(json!({}), json!({}))).await?;
            ensure!(warned.warnings.len() == 2, "{warned:?}");
            let labels = json!({"size": "small"});
            let set = dry_pod(&self.client, &self.prod, &app(labels, json!({}))).await?;
            ensure!(set.code == 201, "{set:?}");
            Ok(())
        })
        .await
    }

    async fn reviews(&self, labels: &[&str]) -> Result<f64> {
        self.chart.metric("webhook-metrics", "harbinger_admission_reviews_total", labels).await
    }

    async fn workload(&self, namespace: &str, object: &Value, query: &str) -> Result<Answer> {
        let resource = match object["kind"].as_str() {
            Some("Job") => "batch/v1/namespaces/NS/jobs",
            _ => "apps/v1/namespaces/NS/deployments",
        };
        let path = format!("/apis/{}{query}", resource.replace("NS", namespace));
        submit(&self.client, Method::POST, &path, object).await
    }

    async fn intent(&mut self) -> Result<Intent> {
        let next = tokio::time::timeout(DEADLINE, self.intents.recv()).await;
        next.context("no intent came")?.context("the listener ended")
    }
}

/// A pod of one container.
fn app(labels: Value, resources: Value) -> Value {
    let container = json!({"name": "app", "image": "app", "resources": resources});
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app", "labels": labels},
        "spec": {"containers": [container]},
    })
}

fn deployment(name: &str, labels: Value, resources: Value) -> Value {
    let mut template = app(labels, resources);
    template["metadata"]["labels"]["app"] = name.into();
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": template["metadata"]["labels"]}, "spec": template["spec"]},
        },
    })
}

fn has(answer: &Answer, warnings: &[&str]) -> Result<()> {
    ensure!(answer.warnings.len() == warnings.len(), "{:?}", answer.warnings);
    for part in warnings {
        let found = answer.warnings.iter().any(|warning| warning.contains(part));
        ensure!(found, "{part:?} is not in {:?}", answer.warnings);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_refused_warned_about_and_cured() -> Result<()> {
    let mut door = Door::open().await?;
    let client = door.client.clone();
    let (prod, test) = (door.prod.clone(), door.test.clone());

    // Deny: the message says what to write, where, and why.
    let answer = pod(&client, &prod, &app(json!({}), json!({"requests": {"cpu": "1"}}))).await?;
    ensure!(answer.code == 422 && answer.object["reason"] == "Invalid", "{answer:?}");
    for part in [
        "admission webhook \"pods.validate.harbinger.sh\" denied the request",
        "container \"app\" has no memory request",
        "set spec.containers[0].resources.requests.memory, for example to 128Mi (policy prod)",
        &format!("see https://wiki.example.com/requests ({prod})"),
    ] {
        ensure!(answer.message().contains(part), "{part:?} is not in {:?}", answer.message());
    }
    let mut skipped = app(json!({}), json!({}));
    skipped["metadata"]["annotations"] = json!({"harbinger.sh/request-policy": "skip"});
    ensure!(dry_pod(&client, &prod, &skipped).await?.code == 201, "the opt-out was not honoured");

    // Warn: the pod stays as it is.
    let answer = pod(&client, &test, &app(json!({}), json!({"requests": {"cpu": "0"}}))).await?;
    ensure!(answer.code == 201, "{answer:?}");
    has(&answer, &["has a zero cpu request", "has no memory request"])?;
    ensure!(answer.request("containers", 0, "memory").is_none(), "{answer:?}");

    cured(&client, &prod).await?;
    not_asked(&door).await?;
    owners(&door).await?;
    dry_runs(&mut door).await?;
    door.webhook.ensure_running()
}

/// Default: for containers, zeros, sidecars and selected init containers; not beside pod-level
/// resources and limits.
async fn cured(client: &Client, prod: &str) -> Result<()> {
    let labels = json!({"size": "small"});
    let mut mixed = app(labels.clone(), json!({"requests": {"cpu": "0"}}));
    mixed["spec"]["initContainers"] = json!([
        {"name": "fetch", "image": "i"},
        {"name": "unpack", "image": "i"},
        {"name": "proxy", "image": "i", "restartPolicy": "Always", "resources": {"requests": {"memory": "1Gi"}}},
    ]);
    let answer = pod(client, prod, &mixed).await?;
    ensure!(answer.code == 201, "{answer:?}");
    let expected = [
        ("containers", 0, "cpu", Some("50m")),
        ("containers", 0, "memory", Some("64Mi")),
        ("initContainers", 0, "cpu", None),
        ("initContainers", 0, "memory", None),
        ("initContainers", 1, "cpu", Some("10m")),
        ("initContainers", 2, "cpu", Some("50m")),
        ("initContainers", 2, "memory", Some("1Gi")),
    ];
    for (list, index, resource, amount) in expected {
        let found = answer.request(list, index, resource);
        ensure!(found == amount, "{list}[{index}] {resource}: {found:?}, not {amount:?}");
    }
    has(
        &answer,
        &[
            "container \"app\": cpu request set to 50m (policy small)",
            "container \"app\": memory request set to 64Mi (policy small)",
            "init container \"unpack\": cpu request set to 10m (policy init)",
            "sidecar \"proxy\": cpu request set to 50m (policy small)",
        ],
    )?;
    let record = &answer.object["metadata"]["annotations"]["harbinger.sh/default-requests"];
    let record: Value = serde_json::from_str(record.as_str().context("no record")?)?;
    ensure!(record["set"]["app"] == json!({"cpu": "50m", "memory": "64Mi"}), "{record}");

    // The pod as a whole asks for cpu, so only memory is missing.
    let mut whole = app(labels.clone(), json!({}));
    whole["metadata"]["name"] = "whole".into();
    whole["spec"]["resources"] = json!({"requests": {"cpu": "1"}});
    let answer = pod(client, prod, &whole).await?;
    ensure!(answer.code == 201, "{answer:?}");
    ensure!(answer.request("containers", 0, "cpu").is_none(), "{answer:?}");
    ensure!(answer.request("containers", 0, "memory") == Some("64Mi"), "{answer:?}");

    // The API server itself copies limits.
    let mut limited = app(labels, json!({"limits": {"cpu": "2", "memory": "1Gi"}}));
    limited["metadata"]["name"] = "limited".into();
    let answer = pod(client, prod, &limited).await?;
    ensure!(answer.request("containers", 0, "cpu") == Some("2"), "{answer:?}");
    has(&answer, &[])
}

/// Pods that lack nothing, and namespaces of the system, cost no call.
async fn not_asked(door: &Door) -> Result<()> {
    let pods = ["endpoint=\"mutate\""];
    let before = door.reviews(&pods).await?;
    let amounts = json!({"requests": {"cpu": "1", "memory": "1Gi"}});
    let mut full = app(json!({}), amounts.clone());
    let mut whole = app(json!({}), json!({}));
    whole["spec"]["resources"] = amounts;
    for pod in [&mut full, &mut whole] {
        pod["metadata"]["name"] = "full".into();
        let answer = dry_pod(&door.client, &door.prod, pod).await?;
        ensure!(answer.code == 201, "{answer:?}");
        has(&answer, &[])?;
    }
    let bare = app(json!({"size": "small"}), json!({}));
    let answer = dry_pod(&door.client, "kube-system", &bare).await;
    // Its account may not be there yet, which is told before admission by webhooks.
    ensure!(answer?.request("containers", 0, "cpu").is_none(), "kube-system was touched");
    let after = door.reviews(&pods).await?;
    ensure!((after - before).abs() < 0.5, "{} calls", after - before);
    Ok(())
}

/// By the kind of the owner; and a Deployment is let in with a warning that its pods will not be.
async fn owners(door: &Door) -> Result<()> {
    let spec = json!({"containers": [{"name": "c", "image": "c"}], "restartPolicy": "Never"});
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "sum"},
        "spec": {"template": {"spec": spec}},
    });
    let answer = door.workload(&door.prod, &job, "").await?;
    ensure!(answer.code == 201, "{answer:?}");
    has(&answer, &["pods get 200m (policy jobs)", "pods get 256Mi (policy jobs)"])?;
    let pods = Api::<Pod>::namespaced(door.client.clone(), &door.prod);
    let of_job = ListParams::default().labels("job-name=sum");
    poll::until("the Job's pod", DEADLINE, async || {
        let list = pods.list(&of_job).await?;
        let pod = serde_json::to_value(list.items.first().context("no pod")?)?;
        let set = &pod["spec"]["containers"][0]["resources"]["requests"];
        ensure!(*set == json!({"cpu": "200m", "memory": "256Mi"}), "{set}");
        Ok(())
    })
    .await?;

    let answer = door.workload(&door.prod, &deployment("web", json!({}), json!({})), "").await?;
    ensure!(answer.code == 201, "{answer:?}");
    has(
        &answer,
        &[
            "no cpu request; pods are refused, set e.g. 100m (policy prod)",
            "no memory request; pods are refused, set e.g. 128Mi (policy prod)",
            "see https://wiki.example.com/requests",
        ],
    )?;
    let events = Api::<Event>::namespaced(door.client.clone(), &door.prod);
    let failed = ListParams::default().fields("reason=FailedCreate");
    poll::until("the ReplicaSet's complaint", DEADLINE, async || {
        let list = events.list(&failed).await?;
        let event = list.items.first().and_then(|event| event.message.clone());
        let message = event.context("no event")?;
        ensure!(message.contains("container \"app\" has no cpu request"), "{message}");
        Ok(())
    })
    .await
}

/// A dry run is answered as the real request is, and nobody else hears of it.
async fn dry_runs(door: &mut Door) -> Result<()> {
    // Those that came before this.
    while door.intents.try_recv().is_ok() {}
    let (prod, test) = (door.prod.clone(), door.test.clone());
    let mut small = app(json!({"size": "small"}), json!({}));
    small["metadata"]["name"] = "dry".into();
    let labels = ["endpoint=\"mutate\"", "dry_run=\"true\"", "outcome=\"patched\""];
    let before = door.reviews(&labels).await?;
    let dry = dry_pod(&door.client, &prod, &small).await?;
    ensure!(door.reviews(&labels).await? >= before + 1.0, "the dry run did not reach us");
    let web = |name: &str| deployment(name, json!({"size": "small"}), json!({}));
    let advised = door.workload(&test, &web("dry"), "?dryRun=All").await?;
    has(&advised, &["pods get 50m (policy small)", "pods get 64Mi (policy small)"])?;

    small["metadata"]["name"] = "real".into();
    let real = pod(&door.client, &prod, &small).await?;
    ensure!(dry.code == 201 && real.code == 201, "{dry:?} {real:?}");
    ensure!(
        dry.object["spec"]["containers"][0]["resources"]
            == real.object["spec"]["containers"][0]["resources"]
    );
    ensure!(dry.warnings == real.warnings, "{:?} {:?}", dry.warnings, real.warnings);

    // A bare pod that goes in without a request is announced; one that has them all is not sent to us.
    let mut bare = app(json!({}), json!({"requests": {"cpu": "1"}}));
    for (name, send) in [("dry", true), ("real", false)] {
        bare["metadata"]["name"] = name.into();
        let answer = match send {
            true => dry_pod(&door.client, &test, &bare).await?,
            false => pod(&door.client, &test, &bare).await?,
        };
        ensure!(answer.code == 201, "{answer:?}");
    }
    let told = door.intent().await?;
    ensure!((&*told.kind, &*told.name) == ("Pod", "real"), "{told:?}");

    let answer = door.workload(&test, &web("real"), "").await?;
    ensure!(answer.warnings == advised.warnings, "{:?}", answer.warnings);
    let told = door.intent().await?;
    ensure!((&*told.kind, &*told.name, told.desired) == ("Deployment", "real", 3), "{told:?}");
    let template = serde_json::to_value(&told.template)?;
    let requests = &template["spec"]["containers"][0]["resources"]["requests"];
    ensure!(*requests == json!({"cpu": "50m", "memory": "67108864"}), "{requests}");

    let path = format!("/apis/apps/v1/namespaces/{test}/deployments/real/scale");
    let scale = json!({"spec": {"replicas": 7}});
    let dry = submit(&door.client, Method::PATCH, &format!("{path}?dryRun=All"), &scale).await?;
    ensure!(dry.code == 200, "{dry:?}");
    let scale = json!({"spec": {"replicas": 9}});
    submit(&door.client, Method::PATCH, &path, &scale).await?;
    // The ReplicaSet's own intents come between.
    loop {
        let told = door.intent().await?;
        ensure!(told.desired != 7, "a dry run was told: {told:?}");
        if told.kind == "Deployment" && told.desired == 9 {
            return Ok(());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_reviews_are_answered() -> Result<()> {
    let mut door = Door::open().await?;
    let hooks = Api::<ValidatingWebhookConfiguration>::all(door.client.clone());
    let hooks = hooks.get("harbinger").await?.webhooks.unwrap_or_default();
    let bundle = hooks.first().and_then(|hook| hook.client_config.ca_bundle.clone());
    let direct = Direct::new(format!("{}:{PORT}", door.chart.ip), &bundle.context("no bundle")?.0)?;
    let review = |version: &str, uid: &str| {
        json!({
            "apiVersion": version, "kind": "AdmissionReview",
            "request": {
                "uid": uid, "operation": "CREATE", "namespace": door.prod,
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "object": app(json!({}), json!({})),
            },
        })
    };
    let v1 = "admission.k8s.io/v1";
    let huge = vec![b' '; (8 << 20) + 1];
    let beta = review("admission.k8s.io/v1beta1", "u1").to_string();
    let mut typed = review(v1, "u2");
    typed["request"]["namespace"] = 7.into();
    let mut no_pod = review(v1, "u3");
    no_pod["request"]["object"] = json!({"spec": {"containers": 7}});
    let json_type = "application/json";
    let cases: [(&str, &str, Vec<u8>, StatusCode, &str); 8] = [
        ("too large", json_type, huge, StatusCode::PAYLOAD_TOO_LARGE, "larger than 8388608 bytes"),
        (
            "malformed",
            json_type,
            b"{\"kind\":".to_vec(),
            StatusCode::BAD_REQUEST,
            "not an AdmissionReview",
        ),
        ("empty", json_type, Vec::new(), StatusCode::BAD_REQUEST, "not an AdmissionReview"),
        (
            "unknown version",
            json_type,
            beta.into(),
            StatusCode::BAD_REQUEST,
            "send AdmissionReview of admission.k8s.io/v1",
        ),
        (
            "no request",
            json_type,
            json!({"apiVersion": v1, "kind": "AdmissionReview"}).to_string().into(),
            StatusCode::BAD_REQUEST,
            "no request",
        ),
        (
            "another type",
            "text/plain",
            b"{}".to_vec(),
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "application/json",
        ),
        (
            "wrong field",
            json_type,
            typed.to_string().into(),
            StatusCode::OK,
            "requests not checked",
        ),
        (
            "no pod",
            json_type,
            no_pod.to_string().into(),
            StatusCode::OK,
            "requests not checked: unreadable Pod",
        ),
    ];
    for (name, content_type, body, status, part) in cases {
        let answer = direct.post("/validate/pods?timeout=2s", content_type, body).await;
        let (code, text) = answer.context(name)?;
        ensure!(code == status && text.contains(part), "{name}: {code} {text}");
        if code == StatusCode::OK {
            let answer: Value = serde_json::from_str(&text)?;
            ensure!(answer["response"]["allowed"] == true, "{name}: {text}");
        }
    }
    // A whole one after all that.
    let (code, text) =
        direct.post("/validate/pods", json_type, review(v1, "u4").to_string()).await?;
    let answer: Value = serde_json::from_str(&text)?;
    ensure!(code == StatusCode::OK && answer["response"]["allowed"] == false, "{code} {text}");
    ensure!(answer["response"]["uid"] == "u4", "{text}");
    for (outcome, count) in
        [("too_large", 1.0), ("malformed", 5.0), ("content_type", 1.0), ("unsupported", 1.0)]
    {
        let found =
            door.reviews(&["endpoint=\"validate\"", &format!("outcome=\"{outcome}\"")]).await?;
        ensure!((found - count).abs() < 0.5, "{outcome}: {found}");
    }
    door.webhook.ensure_running()?;
    let log = door.webhook.log_tail(usize::MAX);
    ensure!(!log.contains("panicked"), "{log}");
    // An API server that goes away leaves the webhook judging by what it knows.
    door.plane.stop("kube-apiserver", testbed::process::Signal::KILL).await?;
    let (code, text) =
        direct.post("/validate/pods", json_type, review(v1, "u5").to_string()).await?;
    ensure!(code == StatusCode::OK && text.contains("\"allowed\":false"), "{code} {text}");
    door.chart.ready("webhook").await
}
