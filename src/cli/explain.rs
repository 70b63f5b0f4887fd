//! `harbinger explain`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::simulate::{Output, Source};
use crate::simulate::table;

/// Says where a pod or workload of the manifests goes, or why it fits nowhere.
#[derive(Args, Debug)]
pub struct Explain {
    /// Pod or workload as `namespace/name`, or a name in namespace `default`
    name: String,
    #[command(flatten)]
    source: Source,
    /// Form of the answer: JSON and YAML are those of `simulate`, with what is about the name alone
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Explain {
    pub(super) fn run(self) -> Result<ExitCode> {
        let name =
            if self.name.contains('/') { self.name } else { format!("default/{}", self.name) };
        let mut report = match self.source.simulate(Some(&name))? {
            Ok(report) => report,
            Err(code) => return Ok(code),
        };
        if !report.keep(&name) {
            return Ok(super::complain(&[format!(
                "no pod of the input is {name} or was made by a workload of that name"
            )]));
        }
        super::print(&self.output.render(&report, table::explain)?)?;
        Ok(ExitCode::SUCCESS)
    }
}
