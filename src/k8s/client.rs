//! How the API server is reached.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

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

/// A client from a kubeconfig file, or the pod's own service account without one.
///
/// # Errors
/// When neither can be used.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let failed = |message: String| ClientError::Kubeconfig {
                path: path.display().to_string(),
                message,
            };
            let file = Kubeconfig::read_from(path).map_err(|error| failed(error.to_string()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(|error| failed(error.to_string()))?
        }
        None => Config::infer().await.map_err(|error| ClientError::Nowhere(error.to_string()))?,
    };
    // Watches are kept alive by bookmarks; a connection that is silent for longer is dead.
    config.read_timeout = Some(Duration::from_mins(5));
    config.connect_timeout = Some(Duration::from_secs(10));
    Client::try_from(config).map_err(|error| ClientError::Build(error.to_string()))
}
