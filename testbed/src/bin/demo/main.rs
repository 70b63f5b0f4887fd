//! `make demo`: a real control plane, a played cloud, Harbinger from its chart. A pod without
//! requests is refused, a hundred pods get nodes, and the nodes leave when the pods do.
#![expect(clippy::print_stdout, reason = "the demo speaks to a person")]

mod screen;
mod show;
mod view;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Shows pods that get their nodes, on a real control plane and a played cloud
#[derive(Debug, Parser)]
struct Options {
    /// Program to show; the one beside the demo when absent
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Pods of the Deployment, 1 cpu and 2 GiB each
    #[arg(long, default_value_t = 100)]
    pods: u32,
    /// Seconds from an instance's launch to its node's registration
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    boot_delay: u64,
    /// Stays until Ctrl-C at the end, for a look around with kubectl
    #[arg(long)]
    stay: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let program = match options.program {
        Some(program) => program,
        None => std::env::current_exe()?.with_file_name("harbinger"),
    };
    ensure!(program.exists(), "{} is missing; `make demo` builds it", program.display());
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let shown = show::Show {
        program,
        pods: options.pods,
        boot_delay: Duration::from_secs(options.boot_delay),
        stay: options.stay,
    };
    // All children belong to the show, so that dropping it ends them.
    tokio::select! {
        ended = shown.run() => ended.map(|()| ExitCode::SUCCESS),
        _ = interrupt.recv() => { println!("\ncleaning up"); Ok(ExitCode::from(130)) }
        _ = terminate.recv() => Ok(ExitCode::from(143)),
    }
}
