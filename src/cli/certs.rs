//! `harbinger certs`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::app::SystemClock;
use crate::certs::{self, Request};
use crate::control::Clock as _;

/// Makes an authority and a serving certificate for the webhook: ca.crt, ca.key, tls.crt, tls.key.
///
/// An authority that is in the folder already signs the new serving certificate, so that the
/// registrations stay as they are.
#[derive(Args, Debug)]
pub struct Certs {
    /// Folder to write to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the Service
    #[arg(long, default_value = "harbinger")]
    service_name: String,
    /// Namespace of the Service
    #[arg(long, default_value = "harbinger-system")]
    namespace: String,
    /// Other names or addresses that the webhook is reached by
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Days that the serving certificate lives
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    days: u64,
}

impl Certs {
    pub(super) fn run(self) -> Result<ExitCode> {
        let mut request = Request::new(self.service_name, self.namespace, SystemClock.now());
        request.extra_names = self.names;
        request.serving_lifetime = Duration::from_hours(24 * self.days);
        let authority = (self.out.join("ca.crt"), self.out.join("ca.key"));
        let made = if authority.0.exists() && authority.1.exists() {
            let read = |path: &Path| {
                std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))
            };
            certs::renew(&request, &read(&authority.0)?, &read(&authority.1)?)
        } else {
            certs::issue(&request)
        };
        let made = match made {
            Ok(made) => made,
            Err(error) => return Ok(super::complain(&[error])),
        };
        std::fs::create_dir_all(&self.out)
            .with_context(|| format!("cannot make the folder {}", self.out.display()))?;
        let files = [
            ("ca.crt", &made.ca, 0o644),
            ("ca.key", &made.ca_key, 0o600),
            ("tls.crt", &made.certificate, 0o644),
            ("tls.key", &made.key, 0o600),
        ];
        for (name, text, mode) in files {
            write(&self.out.join(name), text, mode)?;
        }
        super::print(&format!(
            "wrote ca.crt, ca.key, tls.crt and tls.key for {} to {}\n",
            request.names().join(", "),
            self.out.display()
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes beside the file and renames, so that a reader never sees half a key.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let context = || format!("cannot write {}", path.display());
    let beside = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options.open(&beside).with_context(context)?;
    file.write_all(text.as_bytes()).with_context(context)?;
    std::fs::rename(&beside, path).with_context(context)
}
