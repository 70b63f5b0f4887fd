//! A real control plane on loopback: etcd, API server, controller manager, scheduler and a fake
//! kubelet, each a plain process that ends with the [`Plane`].
//!
//! There is no kubelet, no kube-proxy and no DNS: pods run because kwok says so, and a ClusterIP
//! (all of them lie in 127.96.0.0/16) carries traffic to whatever binds it on this machine.

mod certs;
mod flags;
mod kubeconfig;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use crate::plane::flags::Layout;
use crate::process::{Process, Recipe, Signal};
use crate::tools::Tools;
use crate::{http, poll, ports, process};

/// A start on a busy machine takes a few seconds; beyond this something is wrong.
const START: Duration = Duration::from_mins(1);
/// An API server with open watches ends within 2.1 s of SIGTERM.
const STOP: Duration = Duration::from_secs(10);
/// Another process may take a port between our look and our use.
const ATTEMPTS: u32 = 3;

/// What a plane is made of besides the standard parts.
#[derive(Clone, Debug, Default)]
pub struct PlaneOptions {
    /// Runs cert-manager's controllers and CA injector (without its validating webhook).
    pub cert_manager: bool,
    /// Feature gates of all parts, such as `GenericWorkload=true`.
    pub feature_gates: String,
    /// Flags for the API server after our own; a later flag wins.
    pub apiserver_flags: Vec<String>,
    /// Lines added to the scheduler's configuration, such as `profiles:`.
    pub scheduler_config: String,
}

/// A running control plane.
pub struct Plane {
    // In the order of their start.
    processes: Mutex<Vec<Process>>,
    client: Client,
    layout: Layout,
    tools: Tools,
    namespaces: AtomicU32,
    dir: TempDir,
}

impl Plane {
    /// Starts a plane and waits until the `default` namespace takes pods.
    pub async fn start(options: PlaneOptions) -> Result<Self> {
        let tools = Tools::locate()?;
        let mut attempt = 1;
        loop {
            match Self::start_once(&tools, &options).await {
                Ok(plane) => return Ok(plane),
                Err(error)
                    if attempt < ATTEMPTS
                        && format!("{error:#}").contains("address already in use") =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn start_once(tools: &Tools, options: &PlaneOptions) -> Result<Self> {
        let dir = process::scratch("harbinger-plane-")?;
        let layout = Layout::prepare(dir.path(), ports::free(flags::PORTS)?, options)?;
        let client = connect(&layout.kubeconfig("admin")).await?;
        let plane = Self {
            processes: Mutex::default(),
            client,
            layout,
            tools: tools.clone(),
            namespaces: AtomicU32::default(),
            dir,
        };
        plane.spawn("etcd", plane.layout.etcd()).await?;
        plane.wait_etcd().await?;
        plane.spawn("kube-apiserver", plane.layout.apiserver(options)).await?;
        plane.wait_apiserver().await?;
        plane.spawn("kube-controller-manager", plane.layout.controller_manager(options)).await?;
        plane.spawn("kube-scheduler", plane.layout.scheduler(options)).await?;
        plane.spawn("kwok", plane.layout.kwok()).await?;
        plane.wait_ready().await?;
        if options.cert_manager {
            plane.start_cert_manager().await?;
        }
        Ok(plane)
    }

    /// A client with all rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The kubeconfig file of the user with all rights.
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig("admin")
    }

    /// The API server's URL.
    pub fn url(&self) -> String {
        self.layout.url()
    }

    /// The authority that signed the API server's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.layout.ca_pem
    }

    /// Folder of logs and certificates, removed with the plane.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Waits until the API server answers and `default` takes pods; fails if a part has ended.
    pub async fn wait_ready(&self) -> Result<()> {
        self.wait_apiserver().await?;
        self.wait_default_account("default").await?;
        self.processes.lock().await.iter_mut().try_for_each(Process::ensure_running)
    }

    /// Makes a namespace that is used by nobody else, and waits until it takes pods.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        let name = format!("{prefix}-{}", self.namespaces.fetch_add(1, Ordering::Relaxed));
        let namespace = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
        Api::<Namespace>::all(self.client()).create(&PostParams::default(), &namespace).await?;
        self.wait_default_account(&name).await?;
        Ok(name)
    }

    /// Writes a kubeconfig file with a real token of a ServiceAccount, valid for a day.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let accounts = Api::<ServiceAccount>::namespaced(self.client(), namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec { expiration_seconds: Some(86_400), ..Default::default() }),
            ..Default::default()
        };
        let answer = accounts.create_token_request(name, &PostParams::default(), &request).await?;
        let token = answer.status.and_then(|status| status.token);
        let token = token.context("a token request is answered with a token")?;
        let path = self.layout.kubeconfig(&format!("{namespace}.{name}"));
        kubeconfig::write(&path, &self.url(), &self.layout.ca_pem, &token)?;
        Ok(path)
    }

    /// Runs kubectl as the user with all rights and returns what it printed.
    pub async fn kubectl(&self, args: &[&str], stdin: &str) -> Result<String> {
        self.run_tool("kubectl", args, stdin).await
    }

    /// Runs helm as the user with all rights and returns what it printed.
    pub async fn helm(&self, args: &[&str]) -> Result<String> {
        self.run_tool("helm", args, "").await
    }

    /// Ends the API server with `signal`, starts it again and waits until it answers.
    pub async fn restart_apiserver(&self, signal: Signal) -> Result<()> {
        self.restart("kube-apiserver", signal).await?;
        self.wait_apiserver().await
    }

    /// Ends a part of the plane with `signal` and starts it again, without waiting for it.
    pub async fn restart(&self, name: &str, signal: Signal) -> Result<()> {
        self.stop(name, signal).await?;
        self.with(name, Process::start_again).await
    }

    /// Ends a part of the plane with `signal`; [`Plane::restart`] brings it back.
    pub async fn stop(&self, name: &str, signal: Signal) -> Result<()> {
        let mut processes = self.processes.lock().await;
        let process = find(&mut processes, name)?;
        process.signal(signal)?;
        process.wait(STOP).await?;
        Ok(())
    }

    /// Runs `action` on a part of the plane, for example to measure it.
    pub async fn with<T>(
        &self,
        name: &str,
        action: impl FnOnce(&mut Process) -> Result<T>,
    ) -> Result<T> {
        action(find(&mut self.processes.lock().await, name)?)
    }

    /// Names and pids of the parts, in the order of their start.
    pub async fn pids(&self) -> Vec<(String, u32)> {
        let processes = self.processes.lock().await;
        processes.iter().map(|process| (process.name().to_owned(), process.pid())).collect()
    }

    /// Installs cert-manager's CRDs and runs its controllers.
    pub async fn start_cert_manager(&self) -> Result<()> {
        let crds = self.tools.cert_manager_crds();
        let crds = crds.to_str().context("the cache's path is not UTF-8")?;
        self.kubectl(&["create", "-f", crds], "").await?;
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", crds], "")
            .await?;
        for command in ["controller", "cainjector"] {
            let kubeconfig = self.kubeconfig().display().to_string();
            let args = vec![command.to_owned(), "--kubeconfig".to_owned(), kubeconfig];
            self.spawn_as(&format!("cert-manager-{command}"), "certmanager", args).await?;
        }
        Ok(())
    }

    /// Runs a metrics-server, which reads what pods use from kwok: what the annotations `USE_CPU` and
    /// `USE_MEMORY` of [`crate::pressure`] say, or nearly nothing. Use is known some 20 s later,
    /// after two looks at a pod.
    pub async fn start_metrics_server(&self) -> Result<()> {
        self.spawn("metrics-server", self.layout.metrics_server()).await?;
        self.kubectl(&["apply", "-f", "-"], &self.layout.metrics_registration()).await?;
        self.wait_path("metrics-server", "/apis/metrics.k8s.io/v1beta1").await
    }

    async fn spawn(&self, name: &str, args: Vec<String>) -> Result<()> {
        self.spawn_as(name, name, args).await
    }

    async fn spawn_as(&self, name: &str, program: &str, args: Vec<String>) -> Result<()> {
        let process = Process::spawn(Recipe {
            name: name.to_owned(),
            program: self.tools.program(program),
            args,
            env: Vec::new(),
            log: self.dir.path().join(format!("{name}.log")),
        })?;
        self.processes.lock().await.push(process);
        Ok(())
    }

    async fn wait_etcd(&self) -> Result<()> {
        let url = format!("{}/readyz", self.layout.etcd_url());
        self.wait("etcd", async || {
            let reply = http::get(&url).await?;
            ensure!(reply.status == 200, "{}", reply.text());
            Ok(())
        })
        .await
    }

    async fn wait_apiserver(&self) -> Result<()> {
        self.wait_path("kube-apiserver", "/readyz").await
    }

    /// Waits until the API server answers a GET for `path`, which `name` brings about.
    async fn wait_path(&self, name: &str, path: &str) -> Result<()> {
        self.wait(name, async || {
            let request = hyper::Request::get(path).body(Vec::new())?;
            self.client.request_text(request).await?;
            Ok(())
        })
        .await
    }

    /// Before its `default` ServiceAccount exists, a namespace refuses pods.
    /// Waits until a namespace takes pods.
    pub async fn wait_default_account(&self, namespace: &str) -> Result<()> {
        let accounts = Api::<ServiceAccount>::namespaced(self.client(), namespace);
        self.wait("kube-controller-manager", async || {
            accounts.get("default").await?;
            Ok(())
        })
        .await
    }

    /// Waits for what `name` brings about; a part that has ended is reported at once.
    async fn wait(&self, name: &str, probe: impl AsyncFn() -> Result<()>) -> Result<()> {
        let outcome = poll::until(name, START, async || {
            if let Err(dead) = self.with(name, Process::ensure_running).await {
                return Ok(Err(dead));
            }
            probe().await.map(Ok)
        })
        .await;
        match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                let log = self.with(name, |process| Ok(process.log_tail(20))).await?;
                Err(error.context(format!("{name} logged:\n{log}")))
            }
        }
    }

    async fn run_tool(&self, program: &str, args: &[&str], stdin: &str) -> Result<String> {
        let mut child = tokio::process::Command::new(self.tools.program(program))
            .args(args)
            .env("KUBECONFIG", self.kubeconfig())
            // helm and kubectl keep caches; these die with the plane.
            .env("HOME", self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut pipe = child.stdin.take().context("standard input is piped")?;
        pipe.write_all(stdin.as_bytes()).await?;
        drop(pipe);
        let output = child.wait_with_output().await?;
        if !output.status.success() {
            bail!(
                "{program} {}: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // The state is thrown away, so nothing is gained by asking politely.
        for process in self.processes.get_mut().iter_mut().rev() {
            process.kill().ok();
        }
    }
}

fn find<'a>(processes: &'a mut [Process], name: &str) -> Result<&'a mut Process> {
    processes
        .iter_mut()
        .find(|process| process.name() == name)
        .with_context(|| format!("this plane has no {name}"))
}

async fn connect(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
