//! Harbinger on the test bed as users get it: installed by helm from its chart, with our own
//! processes in the place of the Deployment's two containers.
//!
//! The processes take the containers' arguments and environment as the chart rendered them, the
//! Service's ClusterIP and ports, the chart's ServiceAccount with a real token, and the mounted
//! Secret, which is kept current as a kubelet would. Only addresses and paths are exchanged, so that
//! a wrong flag, port, name in the certificate or right of the account shows. `tests/e2e/install.rs`
//! and `make demo` both start here.

mod mount;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, PodSpec, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Api;

pub use self::mount::SecretMount;
use crate::cloud::Cloud;
use crate::plane::Plane;
use crate::process::{Process, Recipe};
use crate::{http, poll};

/// The first certificate of cert-manager takes some seconds on a busy machine.
const START: Duration = Duration::from_secs(90);
/// Not 443, so that nobody needs rights for low ports.
const SERVICE_PORT: &str = "webhook.servicePort=8443";

/// What is installed, and how.
#[derive(Clone, Debug)]
pub struct InstallOptions {
    /// The program that the containers would run.
    pub binary: PathBuf,
    /// Folder of the chart.
    pub chart: PathBuf,
    /// Name of the release.
    pub release: String,
    /// Its namespace, which is made.
    pub namespace: String,
    /// Further values, as `helm --set` takes them. The cluster's name is set already.
    pub values: Vec<String>,
}

impl InstallOptions {
    /// The chart of this repository with its defaults, for a program.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            chart: Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/harbinger"),
            release: "harbinger".to_owned(),
            namespace: "harbinger-system".to_owned(),
            values: Vec::new(),
        }
    }
}

/// A release with its two processes, which end with it.
pub struct Installed {
    pub webhook: Process,
    pub provisioner: Process,
    /// The Service's address, on which both listen.
    pub address: IpAddr,
    /// The Service's ports: of the webhook, of its metrics, of the provisioner's metrics.
    pub ports: Ports,
    /// Folder of the mounted Secret with `tls.crt`, `tls.key` and `ca.crt`; none when the webhook
    /// makes its own certificate.
    pub certificates: Option<SecretMount>,
}

/// Ports of the Service.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub webhook: u16,
    pub webhook_metrics: u16,
    pub metrics: u16,
}

impl Installed {
    /// Installs the chart, starts both processes and waits until both are ready and the API server
    /// knows whom to trust.
    pub async fn start(plane: &Plane, cloud: &Cloud, options: &InstallOptions) -> Result<Self> {
        let InstallOptions { release, namespace, .. } = options;
        helm(plane, cloud, options).await?;
        let deployments = Api::<Deployment>::namespaced(plane.client(), namespace);
        let deployment = deployments.get(release).await.context("the chart's Deployment")?;
        // The containers' own pods would only wait for a node that never comes.
        let args = ["scale", "deployment", release, "-n", namespace, "--replicas=0"];
        plane.kubectl(&args, "").await?;
        let pod = deployment.spec.and_then(|spec| spec.template.spec).context("no pod spec")?;
        let services = Api::<Service>::namespaced(plane.client(), namespace);
        let service = services.get(release).await.context("the chart's Service")?;
        let spec = service.spec.context("no spec of the Service")?;
        let address: IpAddr = spec.cluster_ip.context("no ClusterIP")?.parse()?;
        let service_ports = spec.ports.unwrap_or_default();

        let account = pod.service_account_name.as_deref().context("no ServiceAccount")?;
        let kubeconfig = plane.service_account_kubeconfig(namespace, account).await?;
        let volumes = plane.dir().join(format!("{namespace}.{release}"));
        let mut certificates = None;
        for volume in pod.volumes.iter().flatten() {
            let folder = volumes.join(&volume.name);
            match volume.secret.as_ref().and_then(|secret| secret.secret_name.as_deref()) {
                None => std::fs::create_dir_all(&folder)?,
                Some(secret) => {
                    let mount = SecretMount::start(plane.client(), namespace, secret, folder);
                    certificates = Some(mount.await?);
                }
            }
        }
        let place = Place { plane, cloud, options, address, volumes, kubeconfig };
        let mut installed = Self {
            webhook: place.spawn(&pod, "webhook", &service_ports)?,
            provisioner: place.spawn(&pod, "provisioner", &service_ports)?,
            address,
            ports: Ports {
                webhook: port(&service_ports, "webhook")?,
                webhook_metrics: port(&service_ports, "webhook-metrics")?,
                metrics: port(&service_ports, "metrics")?,
            },
            certificates,
        };
        installed.wait_ready().await?;
        trusted(plane, release).await?;
        Ok(installed)
    }

    /// Waits until both processes are ready; one that has ended is reported at once.
    pub async fn wait_ready(&mut self) -> Result<()> {
        for (process, port) in [
            (&mut self.webhook, self.ports.webhook_metrics),
            (&mut self.provisioner, self.ports.metrics),
        ] {
            let url = format!("http://{}:{port}/readyz", self.address);
            let name = process.name().to_owned();
            let process = parking_lot::Mutex::new(process);
            let what = format!("{name} ready");
            let ready = poll::until(&what, START, async || {
                if let Err(dead) = process.lock().ensure_running() {
                    return Ok(Err(dead));
                }
                let reply = http::get(&url).await?;
                ensure!(reply.status == 200, "{}", reply.text());
                Ok(Ok(()))
            });
            match ready.await {
                Ok(outcome) => outcome?,
                Err(error) => {
                    let log = process.lock().log_tail(20);
                    return Err(error.context(format!("{name} logged:\n{log}")));
                }
            }
        }
        Ok(())
    }

    /// The text that the webhook's (`true`) or the provisioner's metrics are.
    pub async fn metrics(&self, of_webhook: bool) -> Result<String> {
        let port = if of_webhook { self.ports.webhook_metrics } else { self.ports.metrics };
        let reply = http::get(&format!("http://{}:{port}/metrics", self.address)).await?;
        Ok(reply.text().into_owned())
    }
}

async fn helm(plane: &Plane, cloud: &Cloud, options: &InstallOptions) -> Result<()> {
    let chart = options.chart.to_str().context("the chart's path is not UTF-8")?;
    let cluster = format!("clusterName={}", cloud.seed().cluster);
    let mut args = vec!["install", &options.release, chart, "-n", &options.namespace];
    args.extend(["--create-namespace", "--set", &cluster, "--set", SERVICE_PORT]);
    args.extend(options.values.iter().flat_map(|value| ["--set", value]));
    plane.helm(&args).await.context("helm install")?;
    let args = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
    plane.kubectl(&args, "").await?;
    Ok(())
}

/// What the containers are given in place of a node.
struct Place<'a> {
    plane: &'a Plane,
    cloud: &'a Cloud,
    options: &'a InstallOptions,
    address: IpAddr,
    volumes: PathBuf,
    kubeconfig: PathBuf,
}

impl Place<'_> {
    fn spawn(&self, pod: &PodSpec, name: &str, service: &[ServicePort]) -> Result<Process> {
        let container = pod.containers.iter().find(|container| container.name == name);
        let container = container.with_context(|| format!("the chart has no container {name}"))?;
        let mut args: Vec<String> = Vec::new();
        for arg in container.args.iter().flatten() {
            args.push(self.local(arg, container, service)?);
        }
        args.push(format!("--kubeconfig={}", self.kubeconfig.display()));
        let mut env = self.cloud.env();
        for variable in container.env.iter().flatten() {
            env.push((variable.name.clone(), variable.value.clone().unwrap_or_default()));
        }
        Process::spawn(Recipe {
            name: name.to_owned(),
            program: self.options.binary.clone(),
            args,
            env,
            log: self.plane.dir().join(format!("{}.{name}.log", self.options.release)),
        })
    }

    /// An argument with the addresses and paths of this machine.
    fn local(&self, arg: &str, container: &Container, service: &[ServicePort]) -> Result<String> {
        if let Some((flag, port)) = arg.split_once("=0.0.0.0:") {
            let port: i32 = port.parse()?;
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|one| one.container_port == port).and_then(|p| p.name.clone());
            let target = |one: &&ServicePort| match &one.target_port {
                Some(IntOrString::String(name)) => Some(name) == named.as_ref(),
                Some(IntOrString::Int(number)) => *number == port,
                None => one.port == port,
            };
            let outer = service.iter().find(target);
            let outer = outer.with_context(|| format!("no port of the Service leads to {port}"))?;
            return Ok(format!("{flag}={}:{}", self.address, outer.port));
        }
        let mut arg = arg.to_owned();
        for mount in container.volume_mounts.iter().flatten() {
            let folder = self.volumes.join(&mount.name).display().to_string();
            arg = arg.replace(&mount.mount_path, &folder);
        }
        Ok(arg)
    }
}

fn port(service: &[ServicePort], name: &str) -> Result<u16> {
    let port = service.iter().find(|port| port.name.as_deref() == Some(name));
    let port = port.with_context(|| format!("the Service has no port {name}"))?;
    Ok(u16::try_from(port.port)?)
}

/// Waits until every registration carries an authority.
async fn trusted(plane: &Plane, release: &str) -> Result<()> {
    let mutating = Api::<MutatingWebhookConfiguration>::all(plane.client());
    let validating = Api::<ValidatingWebhookConfiguration>::all(plane.client());
    poll::until("authority in the registrations", START, async || {
        let mutating = mutating.get(&format!("zz-{release}")).await?.webhooks.unwrap_or_default();
        let validating = validating.get(release).await?.webhooks.unwrap_or_default();
        let configs = mutating.iter().map(|hook| &hook.client_config);
        let mut configs = configs.chain(validating.iter().map(|hook| &hook.client_config));
        ensure!(configs.all(|config| config.ca_bundle.is_some()), "no caBundle yet");
        Ok(())
    })
    .await
}
