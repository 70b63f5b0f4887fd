//! What EKS says of the cluster.

use aws_config::SdkConfig;

use super::error::from_sdk;
use super::settings::{Settings, sdk_config};
use crate::cloud::CloudError;

impl Settings {
    /// Fills in what nodes join with and nobody has said: the endpoint, its authority, and the
    /// addresses of Services.
    ///
    /// # Errors
    /// When EKS cannot be asked or does not know the cluster.
    pub async fn complete_from_eks(&mut self) -> Result<(), CloudError> {
        let config = sdk_config(self).await;
        self.complete_with(&config).await
    }

    /// As [`Self::complete_from_eks`], with a configuration that the caller made.
    ///
    /// # Errors
    /// As there.
    pub async fn complete_with(&mut self, config: &SdkConfig) -> Result<(), CloudError> {
        let eks = aws_sdk_eks::Client::new(config);
        let answer = eks.describe_cluster().name(&self.cluster_name).send().await;
        let cluster = answer.map_err(|error| from_sdk(&error))?.cluster;
        let Some(cluster) = cluster.filter(|cluster| cluster.endpoint.is_some()) else {
            let message = format!("cluster {} has no endpoint yet", self.cluster_name);
            return Err(CloudError::NotFound { message });
        };
        if self.cluster_endpoint.is_empty() {
            self.cluster_endpoint = cluster.endpoint.unwrap_or_default();
        }
        if self.ca_bundle.is_empty() {
            let authority = cluster.certificate_authority.and_then(|authority| authority.data);
            self.ca_bundle = authority.unwrap_or_default();
        }
        if self.service_cidr.is_none()
            && let Some(network) = cluster.kubernetes_network_config
        {
            self.service_cidr = network.service_ipv4_cidr.or(network.service_ipv6_cidr);
        }
        Ok(())
    }
}
