//! How the API server is reached, and what it says about itself.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use k8s_openapi::api::core::v1::Service;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {path}: {message}")]
    Kubeconfig {
        /// File.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// Neither a kubeconfig nor a service account is there.
    #[error("no kubeconfig was given and this is no pod of a cluster: {0}")]
    Nowhere(String),
    /// The client cannot be built.
    #[error("the API server's address or credentials cannot be used: {0}")]
    Build(String),
}

/// A client, and what the configuration says of the server.
pub struct Connection {
    /// Client that repeats what the server is too busy for.
    pub client: Client,
    /// Client that repeats nothing. A disruption budget refuses an eviction with the status of a busy
    /// server: who asks must hear of it at once.
    pub impatient: Client,
    /// Address of the server.
    pub endpoint: String,
    /// Whether that is the address of the Service, which exists for pods alone.
    pub in_pod: bool,
    /// Certificate authority of the server: PEM in base64, empty when it is a public one.
    pub ca_bundle: String,
}

/// What nodes must know of the server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServerFacts {
    /// Minor version, such as `1.33`.
    pub version: String,
    /// Address range of Services.
    pub service_cidr: Option<String>,
    /// Address of the cluster's DNS Service.
    pub cluster_dns: Option<String>,
}

/// A client from a kubeconfig file, or the pod's own service account without one.
///
/// # Errors
/// When neither can be used.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Connection, ClientError> {
    let (mut config, in_pod) = match kubeconfig {
        Some(path) => {
            let failed = |message: String| ClientError::Kubeconfig {
                path: path.display().to_string(),
                message,
            };
            let file = Kubeconfig::read_from(path).map_err(|error| failed(error.to_string()))?;
            let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
            (config.map_err(|error| failed(error.to_string()))?, false)
        }
        None => match Config::from_kubeconfig(&KubeConfigOptions::default()).await {
            Ok(config) => (config, false),
            Err(outside) => match Config::incluster() {
                Ok(config) => (config, true),
                Err(inside) => return Err(ClientError::Nowhere(format!("{outside}; {inside}"))),
            },
        },
    };
    // Watches are kept alive by bookmarks; a connection that is silent for longer is dead.
    config.read_timeout = Some(Duration::from_mins(5));
    config.connect_timeout = Some(Duration::from_secs(10));
    let endpoint = config.cluster_url.to_string();
    let authorities = config.root_cert.clone().unwrap_or_default();
    let mut once = config.clone();
    once.default_retry = false;
    let build = |config: Config| {
        Client::try_from(config).map_err(|error| ClientError::Build(error.to_string()))
    };
    let (client, impatient) = (build(config)?, build(once)?);
    Ok(Connection { client, impatient, endpoint, in_pod, ca_bundle: bundle(&authorities) })
}

/// Certificates in DER as PEM in base64, which is what user data carries.
fn bundle(certificates: &[Vec<u8>]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD;
    let mut pem = String::new();
    for der in certificates {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let text = base64.encode(der);
        for line in text.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    if pem.is_empty() { pem } else { base64.encode(pem) }
}

impl Connection {
    /// Asks the server for its version and addresses.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn facts(&self) -> Result<ServerFacts, kube::Error> {
        let version = self.client.apiserver_version().await?;
        // Some providers append a sign to the minor version (`33+`).
        let minor: String = version.minor.chars().take_while(char::is_ascii_digit).collect();
        let address = |namespace: &'static str, name: &'static str| async move {
            let api: Api<Service> = Api::namespaced(self.client.clone(), namespace);
            let service = api.get_opt(name).await.ok().flatten()?;
            service.spec?.cluster_ip.filter(|ip| !ip.is_empty() && ip != "None")
        };
        Ok(ServerFacts {
            version: format!("{}.{minor}", version.major),
            // EKS gives Services a /16; others name the range with a flag.
            service_cidr: address("default", "kubernetes").await.and_then(|ip| {
                let mut parts = ip.split('.');
                Some(format!("{}.{}.0.0/16", parts.next()?, parts.next()?))
            }),
            cluster_dns: address("kube-system", "kube-dns").await,
        })
    }
}
