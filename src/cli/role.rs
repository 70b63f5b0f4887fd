//! Flags that the roles share: those that run until they are told to end.

use std::collections::BTreeSet;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::app::policies::Rules;
use crate::policy::Action;
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

/// What applies to all request policies.
#[derive(Args, Clone, Debug)]
pub struct Judging {
    #[command(flatten)]
    excluded: Excluded,
    /// The most that any request policy may do, whatever it says: warn stops changes and refusals at
    /// once
    #[arg(long, env = "HARBINGER_MAX_ACTION", value_enum, default_value_t)]
    max_action: MaxAction,
}

/// Caps on what policies do.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum MaxAction {
    /// Nothing
    Off,
    /// Count
    Shadow,
    /// Warn
    Warn,
    /// Set requests; what would refuse warns
    Default,
    /// Set requests and see that they stay; what would refuse warns
    DefaultAndVerify,
    /// No cap
    #[default]
    Deny,
}

impl Judging {
    pub(super) fn into_rules(self) -> Rules {
        Rules {
            excluded: self.excluded.into_set(),
            max_action: match self.max_action {
                MaxAction::Off => Action::Off,
                MaxAction::Shadow => Action::Shadow,
                MaxAction::Warn => Action::Warn,
                MaxAction::Default => Action::Default,
                MaxAction::DefaultAndVerify => Action::DefaultAndVerify,
                MaxAction::Deny => Action::Deny,
            },
        }
    }
}
