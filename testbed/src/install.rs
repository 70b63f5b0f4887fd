//! The chart on a plane, with our processes in place of its containers: what `make demo` and the
//! tests of the installation share.
//!
//! Flags, ports, Secrets and the account are read from the installed objects, so that what is wrong
//! there shows. Played are kube-proxy (a process listens on the Service's address and port instead of
//! the container's) and the kubelet (Secrets as files, paths of mounts as folders).

mod mount;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, PodSpec, Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Api;
use serde_json::json;
use tokio::task::JoinSet;

use crate::plane::Plane;
use crate::process::{Process, Recipe};
use crate::tools::repository;
use crate::{http, poll};

/// Namespace of the release.
pub const NAMESPACE: &str = "harbinger-system";
/// Port of the Service: one that needs no rights.
pub const PORT: u16 = 8443;
/// Long enough for a loaded machine; what is waited for comes within seconds.
const DEADLINE: Duration = Duration::from_mins(1);

/// Flags of helm that name the chart and what is always set. The cluster is named `c1`.
pub fn helm_args(command: &str, values: &[&str]) -> Vec<String> {
    let folder = repository().join("charts/harbinger").display().to_string();
    let mut args =
        [command, "harbinger", &folder, "--namespace", NAMESPACE].map(str::to_owned).to_vec();
    let port = format!("webhook.servicePort={PORT}");
    for value in ["clusterName=c1", &port].into_iter().chain(values.iter().copied()) {
        args.extend(["--set".to_owned(), value.to_owned()]);
    }
    args
}

/// Makes the release's namespace.
pub async fn namespace(plane: &Plane) -> Result<()> {
    let yaml = repository().join("manifests/namespace.yaml").display().to_string();
    plane.kubectl(&["apply", "-f", &yaml], "").await?;
    Ok(())
}

/// A node for the pods of the chart, which kwok runs; taken by nobody else.
pub async fn system_node(plane: &Plane) -> Result<()> {
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": "system",
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/os": "linux", "kubernetes.io/hostname": "system"},
        },
        "spec": {"taints": [{"key": "CriticalAddonsOnly", "effect": "NoSchedule"}]},
        "status": {
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "50"},
            "capacity": {"cpu": "4", "memory": "8Gi", "pods": "50"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    plane.kubectl(&["create", "-f", "-"], &node.to_string()).await.map(drop)
}

/// An installed release.
pub struct Chart {
    /// Address of the Service.
    pub ip: String,
    program: PathBuf,
    service: ServiceSpec,
    pod: PodSpec,
    kubeconfig: PathBuf,
    /// Stands for the pod's file system.
    root: PathBuf,
    /// Mounted Secrets, kept current.
    secrets: JoinSet<()>,
}

impl Chart {
    /// Installs the chart as `harbinger`, into a namespace that takes restricted pods only; `program`
    /// is what its containers would run.
    pub async fn install(
        plane: &Plane,
        program: impl Into<PathBuf>,
        values: &[&str],
        flags: &[&str],
    ) -> Result<Self> {
        namespace(plane).await?;
        let mut args = helm_args("install", values);
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        plane.helm(&args.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        Self::installed(plane, program.into()).await
    }

    /// Reads what is installed, and starts to mount its Secrets.
    async fn installed(plane: &Plane, program: PathBuf) -> Result<Self> {
        let client = plane.client();
        let service =
            Api::<Service>::namespaced(client.clone(), NAMESPACE).get("harbinger").await?;
        let service = service.spec.context("no Service spec")?;
        let ip = service.cluster_ip.clone().context("no ClusterIP")?;
        let deployments = Api::<Deployment>::namespaced(client.clone(), NAMESPACE);
        let pod = deployments.get("harbinger").await?.spec.template.spec.context("no pod spec")?;
        let account = pod.service_account_name.clone().context("no account")?;
        let kubeconfig = plane.service_account_kubeconfig(NAMESPACE, &account).await?;
        let root = plane.dir().join("pod");
        // What an earlier release left is not the new pod's.
        if root.exists() {
            std::fs::remove_dir_all(&root)?;
        }
        let mut secrets = JoinSet::new();
        for volume in pod.volumes.iter().flatten() {
            let folder = root.join(&volume.name);
            std::fs::create_dir_all(&folder)?;
            if let Some(secret) = &volume.secret {
                let name = secret.secret_name.clone().context("a volume names no Secret")?;
                secrets.spawn(mount::follow(client.clone(), NAMESPACE.to_owned(), name, folder));
            }
        }
        Ok(Self { ip, program, service, pod, kubeconfig, root, secrets })
    }

    /// Removes the release.
    pub async fn uninstall(self, plane: &Plane) -> Result<()> {
        drop(self.secrets);
        plane.helm(&["uninstall", "harbinger", "--namespace", NAMESPACE, "--wait"]).await?;
        Ok(())
    }

    /// Runs what a container would run, once its mounts are there, and waits until it is ready.
    pub async fn run(
        &self,
        plane: &Plane,
        container: &str,
        env: Vec<(String, String)>,
    ) -> Result<Process> {
        let recipe = self.recipe(plane, container, env)?;
        self.mounted(container).await?;
        let mut process = Process::spawn(recipe)?;
        let ready = self.ready(container).await;
        process.ensure_running()?;
        ready.with_context(|| process.log_tail(40))?;
        Ok(process)
    }

    /// What a container would run.
    pub fn recipe(
        &self,
        plane: &Plane,
        name: &str,
        mut env: Vec<(String, String)>,
    ) -> Result<Recipe> {
        let container = self.container(name)?;
        for variable in container.env.iter().flatten() {
            env.push((variable.name.clone(), variable.value.clone().unwrap_or_default()));
        }
        // In place of the token and the authority that the kubelet mounts.
        env.push(("KUBECONFIG".to_owned(), self.kubeconfig.display().to_string()));
        let args = container.args.iter().flatten().map(|arg| self.argument(container, arg));
        Ok(Recipe {
            name: name.to_owned(),
            program: self.program.clone(),
            args: args.collect::<Result<_>>()?,
            env,
            log: plane.dir().join(format!("{name}.log")),
        })
    }

    /// A flag with the address at which clients reach it, and with the folder that stands for a path.
    fn argument(&self, container: &Container, arg: &str) -> Result<String> {
        if let Some((flag, address)) = arg.split_once('=')
            && flag.ends_with("listen")
        {
            let port: i32 = address.rsplit(':').next().context("no port")?.parse()?;
            let ports = container.ports.iter().flatten();
            let mut named = ports.filter(|named| named.container_port == port);
            let name = named.find_map(|named| named.name.as_deref());
            let name = name.with_context(|| format!("{address} is no port of the container"))?;
            return Ok(format!("{flag}={}", self.address(name)?));
        }
        let mut arg = arg.to_owned();
        for mount in container.volume_mounts.iter().flatten() {
            let folder = self.root.join(&mount.name).display().to_string();
            arg = arg.replace(&format!("{}/", mount.mount_path), &format!("{folder}/"));
        }
        ensure!(!arg.contains("=/var/"), "{arg} is below no mount");
        Ok(arg)
    }

    /// Address of the Service for a named port of the pod.
    pub fn address(&self, name: &str) -> Result<String> {
        let target = IntOrString::String(name.to_owned());
        let mut ports = self.service.ports.iter().flatten();
        let port = ports.find(|port| port.target_port.as_ref() == Some(&target));
        let port = port.with_context(|| format!("the Service does not lead to {name}"))?;
        Ok(format!("{}:{}", self.ip, port.port))
    }

    fn container(&self, name: &str) -> Result<&Container> {
        let mut containers = self.pod.containers.iter();
        containers.find(|c| c.name == name).with_context(|| format!("no container {name}"))
    }

    /// Waits for what the kubelet waits for before it starts a container.
    async fn mounted(&self, container: &str) -> Result<()> {
        let mounts = self.container(container)?.volume_mounts.clone().unwrap_or_default();
        let is_secret = |name: &str| {
            let mut volumes = self.pod.volumes.iter().flatten();
            volumes.any(|volume| volume.name == name && volume.secret.is_some())
        };
        for mount in mounts.iter().filter(|mount| is_secret(&mount.name)) {
            let folder = self.root.join(&mount.name);
            poll::until("a mounted Secret", DEADLINE, async || {
                ensure!(folder.join(mount::DATA).exists(), "{} is empty", folder.display());
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until the container says that it is ready, on the port of its probes. The kubelet does not
    /// ask a provisioner for it.
    pub async fn ready(&self, container: &str) -> Result<()> {
        let probe = self.container(container)?.liveness_probe.clone().context("no probe")?;
        let probe = probe.http_get.context("the probe is no GET")?;
        let IntOrString::String(port) = &probe.port else { bail!("the port has no name") };
        let url = format!("http://{}/readyz", self.address(port)?);
        poll::until(&format!("{container} is ready"), DEADLINE, async || {
            let reply = http::get(&url).await?;
            ensure!(reply.status == 200, "{}", reply.text());
            Ok(())
        })
        .await
    }

    /// The folder that stands for a volume.
    pub fn folder(&self, volume: &str) -> PathBuf {
        self.root.join(volume)
    }

    /// The sum of a metric's samples that carry all of the labels, such as `endpoint="mutate"`, on
    /// the named port.
    pub async fn metric(&self, port: &str, name: &str, labels: &[&str]) -> Result<f64> {
        let reply = http::get(&format!("http://{}/metrics", self.address(port)?)).await?;
        let text = reply.text();
        let samples = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
                && labels.iter().all(|label| line.contains(label))
        });
        Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}
