//! `harbinger crds`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

/// Prints the custom resource definitions, or writes them to a folder.
#[derive(Args, Debug)]
pub struct Crds {
    /// Folder to write one file per definition to
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Crds {
    pub(super) fn run(self) -> Result<ExitCode> {
        let definitions = crate::api::crds_yaml();
        match self.out {
            None => {
                for (_, yaml) in definitions {
                    super::print(&yaml)?;
                }
            }
            Some(folder) => {
                std::fs::create_dir_all(&folder)
                    .with_context(|| format!("cannot make the folder {}", folder.display()))?;
                for (name, yaml) in definitions {
                    let file = folder.join(name);
                    std::fs::write(&file, yaml)
                        .with_context(|| format!("cannot write {}", file.display()))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
