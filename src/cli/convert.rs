//! `harbinger convert`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::api::convert::{self, Options};
use crate::simulate::load;

/// Prints objects of older Karpenter versions as karpenter.sh/v1 and karpenter.k8s.aws/v1.
///
/// What was changed, defaulted or dropped is said on standard error. Other objects come out as they
/// went in, except for label keys that have a new name.
#[derive(Args, Debug)]
pub struct Convert {
    /// Files or folders of Kubernetes YAML or JSON; `-` is standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Region that zones of one letter belong to
    #[arg(long)]
    region: Option<String>,
    /// Instance profile of node templates that name none, once a global setting
    #[arg(long, value_name = "NAME")]
    default_instance_profile: Option<String>,
}

impl Convert {
    pub(super) fn run(self) -> Result<ExitCode> {
        let (objects, errors) = load::load(&self.paths);
        if !errors.is_empty() {
            return Ok(super::complain(&errors));
        }
        let options = Options {
            default_instance_profile: self.default_instance_profile,
            region: self.region,
        };
        let objects = objects.into_iter().map(|(_, object)| object).collect();
        let conversion = match convert::convert(objects, &options) {
            Ok(conversion) => conversion,
            Err(error) => {
                super::note(&error.notes);
                return Ok(super::complain(&error.errors));
            }
        };
        super::note(&conversion.notes);
        for flag in &conversion.flags {
            super::note(&[format!("start harbinger with {flag}")]);
        }
        for object in &conversion.objects {
            super::print(&format!("---\n{}", serde_saphyr::to_string(object)?))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
