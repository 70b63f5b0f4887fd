//! The `harbinger` program: parses the command line, runs one subcommand, maps errors to exit codes.

use std::process::ExitCode;

use clap::Parser;
use harbinger::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stderr, reason = "the one place that tells the user why the program ends")]
fn main() -> ExitCode {
    // Every TLS connection uses this provider; a second install is somebody's test.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
