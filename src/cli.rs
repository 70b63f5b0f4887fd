//! The command line: what was typed.

pub mod certs;
pub mod convert;
pub mod crds;
pub mod doctor;
pub mod explain;
#[cfg(feature = "aws")]
pub mod provisioner;
pub mod role;
#[cfg(feature = "aws")]
pub mod run;
pub mod scan;
pub mod simulate;
pub mod webhook;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Bad input: files, flags or objects that cannot be used.
pub const EXIT_INPUT: u8 = 2;
/// Some pods fit nowhere, and `--fail-unschedulable` asked to fail then.
pub const EXIT_UNSCHEDULABLE: u8 = 3;

/// `doctor` found errors.
pub const EXIT_UNHEALTHY: u8 = 4;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 unexpected failure; 2 wrong usage or input; \
3 some pods fit nowhere (with --fail-unschedulable); 4 doctor found errors";

/// Of the roles that run until they are told to end.
const ROLE_EXIT_CODES: &str = "Exit codes: 0 ended and drained after SIGTERM or SIGINT; \
1 failure, such as an API server that cannot be reached, an address in use or a lost lease; \
2 wrong usage; 130 ended at once by a second signal";

/// Node autoscaler for Kubernetes on EC2 that has the node ready before the pod needs it.
#[derive(Debug, Parser)]
#[command(name = "harbinger", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[cfg_attr(feature = "aws", expect(clippy::large_enum_variant, reason = "there is one, once"))]
enum Command {
    /// Says which nodes manifests would need, what they cost, and which pods fit nowhere
    #[command(after_help = EXIT_CODES)]
    Simulate(simulate::Simulate),
    /// Says where a pod or workload of the manifests goes, or why it fits nowhere
    #[command(after_help = EXIT_CODES)]
    Explain(explain::Explain),
    /// Says which pods lack requests, what each mode of policy would do, and advises on workloads
    #[command(after_help = EXIT_CODES)]
    Scan(scan::Scan),
    /// Buys nodes for pods and ends nodes that are not needed
    #[cfg(feature = "aws")]
    #[command(after_help = ROLE_EXIT_CODES)]
    Provisioner(provisioner::Provisioner),
    /// Answers admission reviews over HTTPS
    #[command(after_help = ROLE_EXIT_CODES)]
    Webhook(webhook::Webhook),
    /// Both roles in one process, for development
    #[cfg(feature = "aws")]
    #[command(after_help = ROLE_EXIT_CODES)]
    Run(run::Run),
    /// Looks at an installed webhook for what can take the cluster down, and says what to do
    #[command(after_help = EXIT_CODES)]
    Doctor(doctor::Doctor),
    /// Makes an authority and a serving certificate for the webhook
    #[command(after_help = EXIT_CODES)]
    Certs(certs::Certs),
    /// Prints objects of older Karpenter versions as the current ones
    #[command(after_help = EXIT_CODES)]
    Convert(convert::Convert),
    /// Prints the custom resource definitions, or writes them to a folder
    #[command(after_help = EXIT_CODES)]
    Crds(crds::Crds),
}

impl Cli {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// When something unexpected fails; bad input is an exit code with messages.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Simulate(command) => command.run(),
            Command::Explain(command) => command.run(),
            Command::Scan(command) => command.run(),
            #[cfg(feature = "aws")]
            Command::Provisioner(command) => command.run(),
            Command::Webhook(command) => command.run(),
            #[cfg(feature = "aws")]
            Command::Run(command) => command.run(),
            Command::Doctor(command) => command.run(),
            Command::Certs(command) => command.run(),
            Command::Convert(command) => command.run(),
            Command::Crds(command) => command.run(),
        }
    }
}

/// Writes to standard output; a reader that closed the pipe is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Writes input errors to standard error, one a line.
fn complain<T: std::fmt::Display>(errors: &[T]) -> ExitCode {
    say("error", errors);
    ExitCode::from(EXIT_INPUT)
}

/// Writes what users should know to standard error, one a line.
fn note<T: std::fmt::Display>(notes: &[T]) {
    say("note", notes);
}

fn say<T: std::fmt::Display>(kind: &str, lines: &[T]) {
    let mut stderr = std::io::stderr().lock();
    for line in lines {
        // Nobody is left to tell when standard error is closed.
        drop(writeln!(stderr, "{kind}: {line}"));
    }
}
