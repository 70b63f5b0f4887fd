//! The acts of the demo, in their order.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testbed::cloud::{Boot, BootOptions, Cloud, Moto};
use testbed::install::{self, Chart};
use testbed::plane::{Plane, PlaneOptions};
use testbed::poll;
use testbed::process::Process;

use super::screen::Screen;
use super::view::View;

/// Class, pool and policy that users start with.
const EXAMPLE: &str = include_str!("../../../../manifests/example.yaml");
/// Long enough for a loaded machine; every act takes seconds.
const DEADLINE: Duration = Duration::from_mins(3);
/// Between two looks at the cluster.
const FRAME: Duration = Duration::from_millis(200);

/// What to show.
pub(crate) struct Show {
    pub program: PathBuf,
    pub pods: u32,
    pub boot_delay: Duration,
    pub stay: bool,
}

/// Everything that runs. Parts end in order of declaration: ours first.
struct Stage {
    provisioner: Process,
    webhook: Process,
    _chart: Chart,
    boot: Boot,
    cloud: Cloud,
    plane: Plane,
    _moto: Arc<Moto>,
    /// Namespace of the shown workload.
    namespace: String,
}

impl Show {
    pub(crate) async fn run(self) -> Result<()> {
        let started = Instant::now();
        let stage = self.set(started).await?;
        refused(&stage).await?;
        self.grow(&stage).await?;
        self.shrink(&stage).await?;
        let problems = stage.boot.problems();
        ensure!(problems.is_empty(), "instances did not boot: {problems:?}");
        stage.cloud.journal().ensure_sound()?;
        println!("\nThe whole demo took {:.1} s.", started.elapsed().as_secs_f64());
        if self.stay {
            println!("Ctrl-C ends it all. Until then:");
            println!("  export KUBECONFIG={}", stage.plane.kubeconfig().display());
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    /// Starts the parts and installs Harbinger.
    async fn set(&self, started: Instant) -> Result<Stage> {
        let say = |text: String| println!("[{:5.1} s] {text}", started.elapsed().as_secs_f64());
        say("starting etcd, API server, scheduler, controllers, cert-manager and a cloud".into());
        let options = PlaneOptions { cert_manager: true, ..PlaneOptions::default() };
        let (plane, moto) = futures::join!(Plane::start(options), Moto::start());
        let (plane, moto) = (plane?, Arc::new(moto?));
        let cloud = Cloud::start(Arc::clone(&moto), "c1").await?;
        say(format!("the control plane is at {}", plane.url()));

        install::system_node(&plane).await?;
        let chart = Chart::install(&plane, &self.program, &[], &[]).await?;
        say("helm has installed the chart; cert-manager issues the webhook's certificate".into());
        let webhook = chart.run(&plane, "webhook", Vec::new()).await?;
        let provisioner = chart.run(&plane, "provisioner", cloud.env()).await?;
        say(format!("webhook ({}) and provisioner are ready", chart.address("webhook")?));

        let second = Duration::from_secs(1);
        let boot = cloud.boot(plane.client(), BootOptions::after(self.boot_delay, second));
        let example = EXAMPLE
            .replace("CLUSTER_NAME", &cloud.seed().cluster)
            .replace("NODE_ROLE", &cloud.seed().role)
            // Idle nodes shall leave while somebody is looking.
            .replace("consolidateAfter: 1m", "consolidateAfter: 2s");
        plane.kubectl(&["apply", "-f", "-"], &example).await?;
        let args = ["wait", "--for=condition=Ready", "nodepool/default", "--timeout=60s"];
        if let Err(error) = plane.kubectl(&args, "").await {
            let args = ["get", "nodepools,ec2nodeclasses", "-o=yaml"];
            let objects = plane.kubectl(&args, "").await.unwrap_or_default();
            return Err(error.context(format!("{objects}\n{}", provisioner.log_tail(20))));
        }
        say("an EC2NodeClass, a NodePool and a RequestPolicy are in force".into());
        let namespace = plane.namespace("shop").await?;
        Ok(Stage {
            provisioner,
            webhook,
            _chart: chart,
            boot,
            cloud,
            plane,
            _moto: moto,
            namespace,
        })
    }

    /// A workload comes, and nodes for it.
    async fn grow(&self, stage: &Stage) -> Result<()> {
        println!("\nA Deployment of {} pods, 1 cpu and 2Gi each:\n", self.pods);
        let created = Instant::now();
        let args = ["create", "-n", &stage.namespace, "-f", "-"];
        stage.plane.kubectl(&args, &workload(self.pods)).await?;
        let wanted = usize::try_from(self.pods)?;
        let view = follow(stage, created, |view| view.running == wanted).await?;
        let planned = stage.cloud.journal().of("CreateFleet");
        let first = planned.first().context("nothing was launched")?;
        println!(
            "\nAll {} pods ran {:.1} s after their Deployment was created, of which a machine takes \
             {:.1} s to boot.\nThe first CreateFleet came {:.0} ms after it. {} nodes, ${:.4} per hour.",
            self.pods,
            created.elapsed().as_secs_f64(),
            (self.boot_delay + Duration::from_secs(1)).as_secs_f64(),
            first.at.saturating_duration_since(created).as_secs_f64() * 1000.0,
            view.nodes,
            dollars(view.price),
        );
        println!(
            "Memory: webhook {} MiB, provisioner {} MiB.",
            stage.webhook.rss_bytes()? >> 20,
            stage.provisioner.rss_bytes()? >> 20
        );
        Ok(())
    }

    /// The workload goes, and its nodes after it.
    async fn shrink(&self, stage: &Stage) -> Result<()> {
        println!("\nThe Deployment is scaled to zero:\n");
        let scaled = Instant::now();
        let args = ["scale", "deployment/web", "-n", &stage.namespace, "--replicas=0"];
        stage.plane.kubectl(&args, "").await?;
        let gone = |view: &View| view.claims + view.nodes + view.instances == 0;
        follow(stage, scaled, gone).await?;
        println!("\nAll nodes had left {:.1} s after it.", scaled.elapsed().as_secs_f64());
        Ok(())
    }
}

/// A pod that asks for nothing is refused, and its author is told what to write.
async fn refused(stage: &Stage) -> Result<()> {
    let container = json!({"name": "app", "image": "registry.example/app:1"});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "forgetful"},
        "spec": {"containers": [container]},
    })
    .to_string();
    let mut args = vec!["create", "-n", &stage.namespace, "-f", "-"];
    // The webhook hears of the policy a moment after it was made.
    poll::until("the policy in force", DEADLINE, async || {
        let dry = [&args[..], &["--dry-run=server"]].concat();
        ensure!(stage.plane.kubectl(&dry, &pod).await.is_err(), "the pod was taken");
        Ok(())
    })
    .await?;
    println!("\nA pod without resource requests:\n\n  $ kubectl create -f pod.yaml");
    args.push("-o=name");
    match stage.plane.kubectl(&args, &pod).await {
        Ok(name) => anyhow::bail!("{} was created, which the policy forbids", name.trim()),
        Err(error) => {
            let text = format!("{error:#}");
            let told = text.split_once(": ").map_or(&*text, |(_, message)| message);
            told.lines().for_each(|line| println!("  {line}"));
        }
    }
    Ok(())
}

/// Shows the cluster until `done`.
async fn follow(stage: &Stage, since: Instant, done: impl Fn(&View) -> bool) -> Result<View> {
    let mut screen = Screen::new();
    let mut frames = tokio::time::interval(FRAME);
    println!(" seconds  pending  running  claims  nodes  ready        $/h");
    loop {
        frames.tick().await;
        let client = stage.plane.client();
        let view = View::look(&client, &stage.cloud, &stage.namespace).await?;
        let counts = format!(
            "{:>9}{:>9}{:>8}{:>7}{:>7}{:>11.4}",
            view.pending,
            view.running,
            view.claims,
            view.nodes,
            view.ready,
            dollars(view.price)
        );
        let seconds = since.elapsed().as_secs_f64();
        screen.draw(&counts, &format!("{seconds:>8.1}{counts}"), &view.rows)?;
        if done(&view) {
            screen.keep();
            return Ok(view);
        }
        ensure!(
            since.elapsed() < DEADLINE,
            "not within {DEADLINE:?}; the provisioner's log ends with\n{}",
            stage.provisioner.log_tail(30)
        );
    }
}

fn workload(replicas: u32) -> String {
    let container = json!({
        "name": "web", "image": "registry.example/web:1",
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}},
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [container]},
            },
        },
    })
    .to_string()
}

#[expect(clippy::cast_precision_loss, reason = "prices are far below what a float holds exactly")]
fn dollars(micro: u64) -> f64 {
    micro as f64 / 1e6
}
