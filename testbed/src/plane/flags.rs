//! Files and flags of each part of the plane.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{PlaneOptions, certs, kubeconfig};
use crate::tools::Tools;

/// All of 127.0.0.0/8 is on the loopback interface, so a Service's ClusterIP can be bound.
const SERVICE_RANGE: &str = "127.96.0.0/16";
const FIRST_CLUSTER_IP: &str = "127.96.0.1";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Lets tests look at health and metrics without a token.
const OPEN_PATHS: &str = "--authorization-always-allow-paths=/healthz,/readyz,/livez,/metrics";
/// Ports that a plane needs.
pub(super) const PORTS: usize = 7;
/// User, token and group of each built-in user.
const USERS: [(&str, &str, &str, &str); 3] = [
    ("admin", "admin", "admin-token", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", "controller-manager-token", ""),
    ("scheduler", "system:kube-scheduler", "scheduler-token", ""),
];

/// Where things are: the folder, the ports, the authority.
pub(super) struct Layout {
    dir: PathBuf,
    etcd: u16,
    etcd_peer: u16,
    apiserver: u16,
    controller_manager: u16,
    scheduler: u16,
    kwok: u16,
    metrics_server: u16,
    pub(super) ca_pem: String,
}

impl Layout {
    /// Writes certificates, users, kubeconfigs and the scheduler's configuration.
    pub(super) fn prepare(dir: &Path, ports: Vec<u16>, options: &PlaneOptions) -> Result<Self> {
        let [etcd, etcd_peer, apiserver, controller_manager, scheduler, kwok, metrics_server]: [u16;
            PORTS] = ports.try_into().ok().context("each part needs its port")?;
        let ca_pem = certs::write(dir, FIRST_CLUSTER_IP)?;
        let dir = dir.to_owned();
        let layout = Self {
            dir,
            etcd,
            etcd_peer,
            apiserver,
            controller_manager,
            scheduler,
            kwok,
            metrics_server,
            ca_pem,
        };
        let mut tokens = Vec::new();
        for (file, user, token, group) in USERS {
            tokens.push(format!("{token},{user},{file},\"{group}\"\n"));
            kubeconfig::write(&layout.kubeconfig(file), &layout.url(), &layout.ca_pem, token)?;
        }
        fs::write(layout.dir.join("tokens.csv"), tokens.concat())?;
        // Default client limits and back-offs would hide how fast a pod binds to a new node.
        let scheduler = format!(
            "apiVersion: kubescheduler.config.k8s.io/v1\n\
             kind: KubeSchedulerConfiguration\n\
             leaderElection: {{ leaderElect: false }}\n\
             clientConnection: {{ kubeconfig: {}, qps: 1000, burst: 2000 }}\n\
             podInitialBackoffSeconds: 1\n\
             podMaxBackoffSeconds: 2\n{}",
            layout.kubeconfig("scheduler").display(),
            options.scheduler_config,
        );
        fs::write(layout.dir.join("scheduler.yaml"), scheduler)?;
        Ok(layout)
    }

    pub(super) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.apiserver)
    }

    pub(super) fn etcd_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.etcd)
    }

    pub(super) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.dir.join(format!("{user}.kubeconfig"))
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    pub(super) fn etcd(&self) -> Vec<String> {
        let peer = format!("http://127.0.0.1:{}", self.etcd_peer);
        vec![
            "--name=testbed".into(),
            format!("--data-dir={}", self.file("etcd")),
            format!("--listen-client-urls={}", self.etcd_url()),
            format!("--advertise-client-urls={}", self.etcd_url()),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=testbed={peer}"),
            "--unsafe-no-fsync".into(),
        ]
    }

    pub(super) fn apiserver(&self, options: &PlaneOptions) -> Vec<String> {
        let mut flags = vec![
            format!("--etcd-servers={}", self.etcd_url()),
            format!("--secure-port={}", self.apiserver),
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            // A loopback address cannot be published as an endpoint.
            "--endpoint-reconciler-type=none".into(),
            format!("--service-cluster-ip-range={SERVICE_RANGE}"),
            "--authorization-mode=RBAC".into(),
            format!("--token-auth-file={}", self.file("tokens.csv")),
            format!("--client-ca-file={}", self.file("ca.crt")),
            format!("--service-account-issuer={ISSUER}"),
            format!("--service-account-key-file={}", self.file("accounts.pub")),
            format!("--service-account-signing-key-file={}", self.file("accounts.key")),
            format!("--requestheader-client-ca-file={}", self.file("ca.crt")),
            "--requestheader-allowed-names=front-proxy".into(),
            "--requestheader-username-headers=X-Remote-User".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
            format!("--proxy-client-cert-file={}", self.file("front-proxy.crt")),
            format!("--proxy-client-key-file={}", self.file("front-proxy.key")),
            "--allow-privileged=true".into(),
            // Without it, SIGTERM waits up to a minute for open watches.
            "--shutdown-send-retry-after=true".into(),
        ];
        flags.extend(self.shared(options));
        flags.extend(options.apiserver_flags.iter().cloned());
        flags
    }

    pub(super) fn controller_manager(&self, options: &PlaneOptions) -> Vec<String> {
        let mut flags = vec![
            format!("--kubeconfig={}", self.kubeconfig("controller-manager").display()),
            format!("--secure-port={}", self.controller_manager),
            "--bind-address=127.0.0.1".into(),
            "--leader-elect=false".into(),
            "--use-service-account-credentials=true".into(),
            format!("--root-ca-file={}", self.file("ca.crt")),
            format!("--service-account-private-key-file={}", self.file("accounts.key")),
            format!("--cluster-signing-cert-file={}", self.file("ca.crt")),
            format!("--cluster-signing-key-file={}", self.file("ca.key")),
            // The default of 20 requests per second would throttle every test of some size.
            "--kube-api-qps=500".into(),
            "--kube-api-burst=1000".into(),
            OPEN_PATHS.into(),
        ];
        flags.extend(self.shared(options));
        flags
    }

    pub(super) fn scheduler(&self, options: &PlaneOptions) -> Vec<String> {
        let mut flags = vec![
            format!("--config={}", self.file("scheduler.yaml")),
            format!("--secure-port={}", self.scheduler),
            "--bind-address=127.0.0.1".into(),
            OPEN_PATHS.into(),
        ];
        flags.extend(self.shared(options));
        flags
    }

    pub(super) fn kwok(&self) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", self.kubeconfig("admin").display()),
            format!("--config={}", Tools::recipe("stages.yaml").display()),
            format!("--config={}", Tools::recipe("usage.yaml").display()),
            // Where it answers for the kubelets.
            format!("--server-address=127.0.0.1:{}", self.kwok),
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake".into(),
            "--node-lease-duration-seconds=40".into(),
            // The kwok default holds 254 pods.
            "--cidr=10.128.0.0/10".into(),
        ]
    }

    pub(super) fn metrics_server(&self) -> Vec<String> {
        let kubeconfig = self.kubeconfig("admin").display().to_string();
        vec![
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            format!("--secure-port={}", self.metrics_server),
            "--bind-address=127.0.0.1".into(),
            format!("--cert-dir={}", self.file("metrics-server")),
            // The least that it takes; a request must be shorter.
            "--metric-resolution=10s".into(),
            "--kubelet-request-timeout=5s".into(),
            // kwok speaks plain HTTP, on the address that nodes have for those outside.
            "--deprecated-kubelet-completely-insecure".into(),
            "--kubelet-preferred-address-types=ExternalIP".into(),
            format!("--kubelet-port={}", self.kwok),
        ]
    }

    /// What makes the API server ask the metrics-server: a Service by name, since a plane without
    /// kube-proxy has no other way.
    pub(super) fn metrics_registration(&self) -> String {
        let port = self.metrics_server;
        format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: metrics-server, namespace: kube-system}}
spec: {{type: ExternalName, externalName: localhost, ports: [{{port: {port}}}]}}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1beta1.metrics.k8s.io}}
spec:
  group: metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {{name: metrics-server, namespace: kube-system, port: {port}}}
"
        )
    }

    fn shared(&self, options: &PlaneOptions) -> [String; 3] {
        [
            format!("--tls-cert-file={}", self.file("serving.crt")),
            format!("--tls-private-key-file={}", self.file("serving.key")),
            format!("--feature-gates={}", options.feature_gates),
        ]
    }
}
