//! `harbinger doctor`.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::app;
use crate::app::SystemClock;
use crate::control::Clock as _;
use crate::doctor::{self, Finding, Severity};

/// Looks at an installed webhook for what can take the cluster down, and says what to do.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Kubeconfig of the cluster; the pod's service account when absent
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Namespace of the release
    #[arg(long, env = "HARBINGER_NAMESPACE", default_value = "harbinger-system")]
    namespace: String,
    /// Form of the findings
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Forms of the findings.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Output {
    /// Lines for people
    #[default]
    Text,
    /// JSON
    Json,
}

impl Doctor {
    pub(super) fn run(self) -> Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let looked = app::doctor::look(self.kubeconfig.as_deref(), &self.namespace);
        let installation = runtime.block_on(looked)?;
        let findings = doctor::examine(&installation, SystemClock.now());
        let text = match self.output {
            Output::Text => text(&findings)?,
            Output::Json => serde_json::to_string_pretty(&findings)? + "\n",
        };
        super::print(&text)?;
        let sick = findings.iter().any(|finding| finding.severity == Severity::Error);
        Ok(if sick { ExitCode::from(super::EXIT_UNHEALTHY) } else { ExitCode::SUCCESS })
    }
}

fn text(findings: &[Finding]) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    for finding in findings {
        writeln!(out, "{finding}")?;
    }
    Ok(out)
}
