//! Flags that the roles share: those that run until they are told to end.

use std::collections::BTreeSet;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::telemetry::logs::{self, LogFormat};

/// Logging flags of long-running roles.
#[derive(Args, Clone, Debug)]
pub struct Logging {
    /// Level (`info`, `debug`…) or list of `target=level`
    #[arg(long, env = "HARBINGER_LOG_LEVEL", default_value = "info")]
    log_level: String,
    /// Form of log lines
    #[arg(long, env = "HARBINGER_LOG_FORMAT", value_enum, default_value_t)]
    log_format: Format,
}

/// Forms of log lines.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Format {
    /// Readable lines
    #[default]
    Text,
    /// JSON objects
    Json,
}

impl Logging {
    /// Starts logging to standard error.
    ///
    /// # Errors
    /// When logging was started before.
    pub fn start(&self) -> Result<()> {
        let format = match self.log_format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        };
        Ok(logs::init(&self.log_level, format)?)
    }
}

/// Namespaces that are left alone.
#[derive(Args, Clone, Debug)]
pub struct Excluded {
    /// Namespaces whose pods request policies never touch, separated by commas
    #[arg(
        long,
        env = "HARBINGER_EXCLUDED_NAMESPACES",
        value_delimiter = ',',
        default_value = "kube-system,kube-node-lease,kube-public"
    )]
    excluded_namespaces: Vec<String>,
}

impl Excluded {
    pub(super) fn into_set(self) -> BTreeSet<String> {
        self.excluded_namespaces.into_iter().filter(|name| !name.is_empty()).collect()
    }
}
