//! One look at a cluster, for commands that end.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::k8s::client;
use crate::k8s::list::{self, Listed};

/// All objects that say something about pods and nodes.
///
/// # Errors
/// When the API server cannot be reached.
pub async fn everything(kubeconfig: Option<&Path>) -> Result<Listed> {
    let connection = client::connect(kubeconfig).await?;
    list::everything(&connection.client).await.context("reading the cluster")
}
