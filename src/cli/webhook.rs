//! `harbinger webhook`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::role::{Judging, Logging};
use crate::app::certificates::SelfManaged;
use crate::app::webhook::{self, Certificate, Limits, Options};
use crate::certs::{CA_LIFETIME, SERVING_LIFETIME};

/// The longest life of a self-made certificate, seconds: a hundred years.
const LONGEST: u64 = 36_500 * 86_400;
/// Looks at a certificate in the shortest life that it may have: in a sixth of it, for which the
/// authority before is trusted, each replica looks several times.
const LOOKS: u64 = 24;

/// Answers admission reviews over HTTPS.
#[derive(Args, Debug)]
pub struct Webhook {
    #[command(flatten)]
    pub(super) serving: Serving,
    /// Address of health and metrics
    #[arg(long, env = "HARBINGER_METRICS_LISTEN", default_value = "0.0.0.0:8081")]
    metrics_listen: SocketAddr,
    /// Kubeconfig; the pod's service account when absent
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Unix socket of the provisioner, which is told what was seen
    #[arg(long, env = "HARBINGER_INTENT_SOCKET", value_name = "PATH")]
    intent_socket: Option<PathBuf>,
    #[command(flatten)]
    judging: Judging,
    #[command(flatten)]
    logging: Logging,
}

/// How the webhook is served.
#[derive(Args, Debug)]
pub struct Serving {
    /// Address of the webhook
    #[arg(long, env = "HARBINGER_LISTEN", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// PEM file with the serving certificate; read again when it changes
    #[arg(long, env = "HARBINGER_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file with the certificate's key
    #[arg(long, env = "HARBINGER_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Secret for a certificate of the webhook's own making, in place of files
    #[arg(
        long,
        env = "HARBINGER_CERTIFICATE_SECRET",
        value_name = "NAME",
        conflicts_with = "tls_cert"
    )]
    certificate_secret: Option<String>,
    /// Seconds that an authority of the webhook's own making lives
    #[arg(
        long,
        env = "HARBINGER_AUTHORITY_LIFETIME_SECONDS",
        default_value_t = CA_LIFETIME.as_secs(),
        value_parser = clap::value_parser!(u64).range(..=LONGEST)
    )]
    authority_lifetime_seconds: u64,
    /// Seconds that a serving certificate of the webhook's own making lives
    #[arg(
        long,
        env = "HARBINGER_CERTIFICATE_LIFETIME_SECONDS",
        default_value_t = SERVING_LIFETIME.as_secs(),
        value_parser = clap::value_parser!(u64).range(..=LONGEST)
    )]
    certificate_lifetime_seconds: u64,
    /// Service of the webhook, for the names of a self-made certificate and of the registrations
    #[arg(long, env = "HARBINGER_SERVICE_NAME", default_value = "harbinger")]
    service_name: String,
    /// Namespace of the Service and the Secret
    #[arg(long, env = "HARBINGER_NAMESPACE", default_value = "harbinger-system")]
    namespace: String,
    /// Seconds between looks at the certificate files
    #[arg(long, env = "HARBINGER_CERTIFICATE_POLL_SECONDS", default_value_t = 10)]
    certificate_poll_seconds: u64,
    /// Seconds after which a connection is closed behind an answer, so that API servers spread over
    /// new replicas
    #[arg(long, env = "HARBINGER_CONNECTION_SECONDS", default_value_t = 600)]
    connection_seconds: u64,
    /// Seconds between a SIGTERM and the end of accepting connections
    #[arg(long, env = "HARBINGER_DRAIN_SECONDS", default_value_t = 5)]
    drain_seconds: u64,
    /// Refuse pods that could not be judged instead of letting them pass
    #[arg(long, env = "HARBINGER_STRICT")]
    strict: bool,
}

impl Serving {
    /// Options of the role.
    ///
    /// # Errors
    /// When no certificate is named, or one that would end before it is served.
    pub(super) fn options(
        self,
        kubeconfig: Option<PathBuf>,
        metrics_listen: SocketAddr,
        intent_socket: Option<PathBuf>,
        judging: Judging,
    ) -> Result<Options, String> {
        let poll = self.certificate_poll_seconds.max(1);
        let lives = [
            ("authority", self.authority_lifetime_seconds),
            ("certificate", self.certificate_lifetime_seconds),
        ];
        for (what, seconds) in lives {
            let least = LOOKS.saturating_mul(poll);
            if seconds < least {
                return Err(format!(
                    "--{what}-lifetime-seconds {seconds} is too short where the certificate is looked \
                     at every {poll} s (--certificate-poll-seconds); give {least} or more"
                ));
            }
        }
        let certificate = match (self.tls_cert, self.tls_key, self.certificate_secret) {
            (Some(certificate), Some(key), _) => Certificate::Files { certificate, key },
            (_, _, Some(secret)) => Certificate::SelfManaged(SelfManaged {
                secret,
                registrations: (format!("zz-{}", self.service_name), self.service_name.clone()),
                service: self.service_name,
                namespace: self.namespace,
                authority_lifetime: Duration::from_secs(self.authority_lifetime_seconds),
                certificate_lifetime: Duration::from_secs(self.certificate_lifetime_seconds),
            }),
            _ => {
                return Err("no certificate: give --tls-cert and --tls-key (make some with \
                            `harbinger certs`), or --certificate-secret"
                    .to_owned());
            }
        };
        Ok(Options {
            kubeconfig,
            listen: self.listen,
            metrics_listen,
            certificate,
            intent_socket,
            rules: judging.into_rules(),
            limits: Limits {
                drain_delay: Duration::from_secs(self.drain_seconds),
                certificate_poll: Duration::from_secs(poll),
                max_connection_age: Duration::from_secs(self.connection_seconds.max(1)),
                strict: self.strict,
            },
        })
    }
}

impl Webhook {
    pub(super) fn run(self) -> Result<ExitCode> {
        self.logging.start()?;
        let options = match self.serving.options(
            self.kubeconfig,
            self.metrics_listen,
            self.intent_socket,
            self.judging,
        ) {
            Ok(options) => options,
            Err(message) => return Ok(super::complain(&[message])),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(webhook::run(options))?;
        Ok(ExitCode::SUCCESS)
    }
}
