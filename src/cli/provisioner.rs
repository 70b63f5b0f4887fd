//! `harbinger provisioner`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use clap::{ArgAction, Args};

use super::role::{Judging, Logging};
use crate::app::provisioner;
use crate::control::{engine, usage};
use crate::{aws, k8s};

/// Buys nodes for pods and ends nodes that are not needed.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "flags of the command line")]
pub struct Provisioner {
    /// Name of the cluster, for tags and node registration
    #[arg(long, env = "HARBINGER_CLUSTER_NAME")]
    cluster_name: String,
    /// URL of the API server as nodes reach it; when absent the kubeconfig's, or in a pod what EKS says
    #[arg(long, env = "HARBINGER_CLUSTER_ENDPOINT", default_value = "")]
    cluster_endpoint: String,
    /// PEM file with the API server's certificate authority; the kubeconfig's when absent
    #[arg(long, env = "HARBINGER_CLUSTER_CA", value_name = "FILE")]
    cluster_ca: Option<PathBuf>,
    /// Address range of Services; guessed from the API server when absent
    #[arg(long, env = "HARBINGER_SERVICE_CIDR")]
    service_cidr: Option<String>,
    /// AWS region; the SDK's own chain when absent
    #[arg(long, env = "HARBINGER_REGION")]
    region: Option<String>,
    /// Kubeconfig; the pod's service account when absent
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Address of health and metrics
    #[arg(long, env = "HARBINGER_METRICS_LISTEN", default_value = "0.0.0.0:8080")]
    metrics_listen: SocketAddr,
    /// Whether replicas elect one that acts
    #[arg(long, env = "HARBINGER_LEADER_ELECT", default_value_t = true, action = ArgAction::Set)]
    leader_elect: bool,
    /// Namespace of the lease
    #[arg(long, env = "HARBINGER_LEASE_NAMESPACE", default_value = "kube-system")]
    lease_namespace: String,
    /// Name of the lease
    #[arg(long, env = "HARBINGER_LEASE_NAME", default_value = "harbinger-leader")]
    lease_name: String,
    /// Name of this replica in the lease; the host name when absent
    #[arg(long, env = "HARBINGER_IDENTITY")]
    identity: Option<String>,
    /// Plan announced pods before they exist
    #[arg(long, env = "HARBINGER_INTENTS", default_value_t = true, action = ArgAction::Set)]
    intents: bool,
    /// Unix socket on which the webhook tells what it has seen
    #[arg(long, env = "HARBINGER_INTENT_SOCKET", value_name = "PATH")]
    intent_socket: Option<PathBuf>,
    #[command(flatten)]
    pub(super) judging: Judging,
    /// Milliseconds without a relevant event after which a plan is made
    #[arg(long, env = "HARBINGER_COALESCE_IDLE_MS", default_value_t = 20)]
    coalesce_idle_ms: u64,
    /// Milliseconds after which a plan is made in any case
    #[arg(long, env = "HARBINGER_COALESCE_MAX_MS", default_value_t = 200)]
    coalesce_max_ms: u64,
    /// Seconds between samples of what pods use, from metrics.k8s.io
    #[arg(long, env = "HARBINGER_USAGE_SECONDS", default_value_t = 60)]
    usage_seconds: u64,
    /// Seconds between checkpoints of what was learned of a namespace
    #[arg(long, env = "HARBINGER_USAGE_CHECKPOINT_SECONDS", default_value_t = 600)]
    usage_checkpoint_seconds: u64,
    /// Share of memory that the hypervisor keeps
    #[arg(long, env = "HARBINGER_VM_MEMORY_OVERHEAD_PERCENT", default_value_t = 0.075)]
    vm_memory_overhead_percent: f64,
    /// Network interfaces of a node that pods do not use
    #[arg(long, env = "HARBINGER_RESERVED_ENIS", default_value_t = 0)]
    reserved_enis: i64,
    /// Do not call the Pricing API, which has no private endpoint in most regions
    #[arg(long, env = "HARBINGER_ISOLATED_VPC")]
    isolated_vpc: bool,
    /// Do not try by dry runs whether nodes of a class may be launched
    #[arg(long, env = "HARBINGER_DISABLE_DRY_RUN")]
    disable_dry_run: bool,
    #[command(flatten)]
    pub(super) logging: Logging,
}

impl Provisioner {
    pub(super) fn run(self) -> Result<ExitCode> {
        self.logging.start()?;
        let options = self.options()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(provisioner::run(options))?;
        Ok(ExitCode::SUCCESS)
    }

    pub(super) fn options(self) -> Result<provisioner::Options> {
        let ca_bundle = match &self.cluster_ca {
            None => String::new(),
            Some(file) => {
                let pem = std::fs::read(file)
                    .with_context(|| format!("--cluster-ca {}", file.display()))?;
                base64::engine::general_purpose::STANDARD.encode(pem)
            }
        };
        let identity = self.identity.unwrap_or_else(|| k8s::lease::identity(std::process::id()));
        #[expect(clippy::cast_possible_truncation, reason = "a share of 1")]
        let memory_overhead_permille = (self.vm_memory_overhead_percent * 1000.0).round() as i64;
        Ok(provisioner::Options {
            kubeconfig: self.kubeconfig,
            metrics_listen: self.metrics_listen,
            lease: self.leader_elect.then_some((self.lease_namespace, self.lease_name)),
            identity,
            intent_socket: self.intent_socket,
            rules: self.judging.into_rules(),
            engine: engine::Settings {
                coalesce_idle: Duration::from_millis(self.coalesce_idle_ms),
                coalesce_max: Duration::from_millis(self.coalesce_max_ms),
                intents: self.intents,
                ..engine::Settings::default()
            },
            usage: usage::Settings {
                every: Duration::from_secs(self.usage_seconds.max(1)),
                checkpoint: Duration::from_secs(self.usage_checkpoint_seconds),
            },
            cloud: aws::Settings {
                cluster_name: self.cluster_name,
                cluster_endpoint: self.cluster_endpoint,
                ca_bundle,
                service_cidr: self.service_cidr,
                region: self.region,
                memory_overhead_permille,
                reserved_enis: self.reserved_enis,
                isolated: self.isolated_vpc,
                no_dry_runs: self.disable_dry_run,
                ..aws::Settings::default()
            },
        })
    }
}
