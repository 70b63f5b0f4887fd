//! Settings of the provider, and the SDK's configuration.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};

use crate::cloud::CloudError;

/// Longest wait for one attempt of a call. CreateFleet `instant` answers in seconds; an attempt
/// that takes longer has lost its connection.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a call with its retries.
const CALL_TIMEOUT: Duration = Duration::from_secs(75);
/// Attempts of one call; the SDK waits up to a second between them.
const ATTEMPTS: u32 = 3;

/// What the provider must know of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Name of the cluster, for tags and user data.
    pub cluster_name: String,
    /// URL of the API server, as nodes reach it.
    pub cluster_endpoint: String,
    /// Certificate authority of the API server, PEM in base64.
    pub ca_bundle: String,
    /// Addresses of Services, such as `10.100.0.0/16`; AL2023 nodes need it.
    pub service_cidr: Option<String>,
    /// Address of the cluster's DNS Service; the kubelet's default when absent.
    pub cluster_dns: Option<String>,
    /// Minor version of the control plane, such as `1.33`.
    pub kubernetes_version: String,
    /// Region; that of the SDK's chain when absent.
    pub region: Option<String>,
    /// Share of memory that the hypervisor takes, in thousandths.
    pub memory_overhead_permille: i64,
    /// Interfaces of each node that are kept for other uses (custom networking takes one).
    pub reserved_enis: i64,
    /// Whether the Pricing API cannot be reached (it has no VPC endpoint in most regions).
    pub isolated: bool,
    /// Whether permissions are found out by launches only.
    pub no_dry_runs: bool,
}

impl Settings {
    pub(super) fn check(&self) -> Result<(), CloudError> {
        let missing = |what: &str| CloudError::ClassNotReady { message: what.to_owned() };
        if self.cluster_name.is_empty() {
            return Err(missing("the cluster name is empty"));
        }
        if !self.cluster_endpoint.contains("://") {
            return Err(missing(
                "the cluster endpoint must be a URL such as https://10.0.0.1:6443",
            ));
        }
        let version = self.kubernetes_version.split_once('.');
        if version.is_none_or(|(_, minor)| minor.parse::<u32>().is_err()) {
            return Err(missing("the kubernetes version must be a minor version such as 1.33"));
        }
        Ok(())
    }

    /// The minor version as a number.
    pub(super) fn minor(&self) -> u32 {
        let minor = self.kubernetes_version.split_once('.').map(|(_, minor)| minor);
        minor.and_then(|minor| minor.parse().ok()).unwrap_or(0)
    }
}

/// The SDK's chain with our time limits.
pub(super) async fn sdk_config(settings: &Settings) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(CALL_TIMEOUT)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(timeouts);
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    loader.load().await
}

pub(super) fn region(config: &SdkConfig) -> Result<String, CloudError> {
    config.region().map(ToString::to_string).ok_or_else(|| CloudError::ClassNotReady {
        message: "no AWS region is known: set AWS_REGION or give the region".to_owned(),
    })
}

/// The Pricing API lives in a few regions only; each serves the prices of all.
pub(super) fn pricing_config(config: &SdkConfig, region: &str) -> aws_sdk_pricing::Config {
    let home = match region.split('-').next().unwrap_or_default() {
        "ap" => "ap-south-1",
        "cn" => "cn-northwest-1",
        "eu" => "eu-central-1",
        _ => "us-east-1",
    };
    aws_sdk_pricing::config::Builder::from(config).region(Region::new(home)).build()
}
