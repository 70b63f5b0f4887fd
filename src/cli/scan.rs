//! `harbinger scan`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::role::Excluded;
use super::simulate::{Prices, Read};
use crate::app;
use crate::simulate::engine::SimulateError;
use crate::simulate::load::Origin;
use crate::simulate::scan;

/// Says which pods lack requests, what each mode of policy would do, and advises on workloads.
#[derive(Args, Debug)]
pub struct Scan {
    /// Files or folders of Kubernetes YAML or JSON; `-` is standard input
    #[arg(value_name = "PATH", required_unless_present = "cluster", conflicts_with = "cluster")]
    paths: Vec<PathBuf>,
    /// Look at a live cluster in place of files; it is only read
    #[arg(long)]
    cluster: bool,
    /// Kubeconfig of the cluster; the pod's service account when absent
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    excluded: Excluded,
    #[command(flatten)]
    prices: Prices,
    /// Form of the report
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Forms of a scan.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Output {
    /// Tables for people
    #[default]
    Table,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// One page with charts that needs nothing else
    Html,
}

impl Scan {
    pub(super) fn run(self) -> Result<ExitCode> {
        let read = if self.cluster { self.look()? } else { self.prices.read(&self.paths) };
        let Read { input, settings, notes } = match read {
            Ok(read) => read,
            Err(errors) => return Ok(super::complain(&errors)),
        };
        let mut found = match scan::scan(input, &settings, &self.excluded.into_set()) {
            Ok(found) => found,
            Err(SimulateError::Catalog(error)) => return Ok(super::complain(&[error])),
            Err(error) => return Err(error.into()),
        };
        found.notes.splice(0..0, notes);
        let text = match self.output {
            Output::Table => scan::table(&found),
            Output::Json => serde_json::to_string_pretty(&found)? + "\n",
            Output::Yaml => serde_saphyr::to_string(&found)?,
            Output::Html => scan::html(&found),
        };
        super::print(&text)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Reads the cluster. An object that cannot be used is left out with a note: it is there, and
    /// nobody can mend it before the scan.
    fn look(&self) -> Result<Result<Read, Vec<String>>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listed = runtime.block_on(app::cluster::everything(self.kubeconfig.as_deref()))?;
        let origin = |item: usize| Origin { file: "cluster".to_owned(), document: 0, item };
        let objects = listed.objects.into_iter().enumerate();
        let (read, wrong) =
            self.prices.sort(objects.map(|(index, object)| (origin(index + 1), object)).collect());
        Ok(match read {
            None => Err(wrong),
            Some(mut read) => {
                // Fields that are newer than this program are usual in a cluster.
                read.input.warnings.clear();
                read.notes.extend(listed.notes);
                read.notes.extend(wrong);
                Ok(read)
            }
        })
    }
}
