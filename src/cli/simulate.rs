//! `harbinger simulate`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::app::SystemClock;
use crate::cloud::catalog::{self, SpotPrices};
use crate::control::Clock as _;
use crate::simulate::engine::{self, SimulateError};
use crate::simulate::{Report, Settings, input, load, table, upgrade};

/// Says which nodes manifests would need, what they cost, and which pods fit nowhere.
#[derive(Args, Debug)]
pub struct Simulate {
    #[command(flatten)]
    source: Source,
    /// Form of the report
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Exit with code 3 when some pods fit nowhere
    #[arg(long)]
    fail_unschedulable: bool,
}

/// Where objects, types and prices come from.
#[derive(Args, Clone, Debug)]
pub struct Source {
    /// Files or folders of Kubernetes YAML or JSON; `-` is standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Instance types from a JSON file in place of the built-in EC2 catalog
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
    /// Region of the built-in catalog
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// Spot price as a share below on-demand (there is no list of spot prices offline)
    #[arg(long, value_name = "SHARE", default_value_t = 0.6, value_parser = share)]
    spot_discount: f64,
    /// Spot prices from a file: the output of `aws ec2 describe-spot-price-history`
    #[arg(long, value_name = "FILE", conflicts_with = "spot_discount")]
    spot_prices: Option<PathBuf>,
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("{text} is not a number"))?;
    if (0.0..1.0).contains(&value) {
        Ok(value)
    } else {
        Err("must be at least 0 and below 1".to_owned())
    }
}

/// Forms of a report.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Output {
    /// Tables for people
    #[default]
    Table,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

impl Source {
    /// Reads, checks and plans; input errors are printed and become the exit code.
    pub(super) fn simulate(&self) -> Result<std::result::Result<Report, ExitCode>> {
        #[expect(clippy::disallowed_methods, reason = "only the report's timing reads the clock")]
        let now = std::time::Instant::now;
        let start = now();
        let (objects, mut errors) = load::load(&self.paths);
        let upgraded = upgrade::upgrade(objects, &self.region);
        errors.extend(upgraded.errors);
        let (input, wrong) = input::sort(upgraded.objects);
        errors.extend(wrong);
        let settings = match self.settings() {
            Ok(settings) => Some(settings),
            Err(message) => {
                return Ok(Err(if errors.is_empty() {
                    super::complain(&[message])
                } else {
                    super::complain(&errors);
                    super::complain(&[message])
                }));
            }
        };
        let Some(settings) = settings.filter(|_| errors.is_empty()) else {
            return Ok(Err(super::complain(&errors)));
        };
        let loaded = now();
        let mut report = match engine::simulate(input, &settings) {
            Ok(report) => report,
            Err(SimulateError::Catalog(error)) => return Ok(Err(super::complain(&[error]))),
            Err(error) => return Err(error.into()),
        };
        report.warnings.splice(0..0, upgraded.notes);
        if self.spot_prices.is_none() && self.catalog.is_none() {
            let spot = report.nodes.iter().any(|node| node.capacity_type == "spot");
            if spot {
                report.warnings.push(format!(
                    "spot prices are assumed to be {:.0} % below on-demand; give --spot-prices for real ones",
                    self.spot_discount * 100.0
                ));
            }
        }
        report.timing.load_ms = (loaded - start).as_secs_f64() * 1000.0;
        report.timing.solve_ms = loaded.elapsed().as_secs_f64() * 1000.0;
        Ok(Ok(report))
    }

    fn settings(&self) -> Result<Settings, String> {
        let read = |file: &PathBuf| load::read(file).map_err(|error| error.to_string());
        let catalog = match &self.catalog {
            None => None,
            Some(file) => Some(
                catalog::from_json(&read(file)?)
                    .map_err(|error| format!("{}: {error}", file.display()))?,
            ),
        };
        #[expect(clippy::cast_possible_truncation, reason = "a share below 1")]
        let discount = SpotPrices::Discount((self.spot_discount * 1000.0).round() as i64);
        let spot = match &self.spot_prices {
            None => discount,
            Some(file) => catalog::spot_prices(&read(file)?)
                .map_err(|error| format!("{}: {error}", file.display()))?,
        };
        Ok(Settings { region: self.region.clone(), spot, catalog, now: SystemClock.now() })
    }
}

impl Simulate {
    pub(super) fn run(self) -> Result<ExitCode> {
        let report = match self.source.simulate()? {
            Ok(report) => report,
            Err(code) => return Ok(code),
        };
        let text = match self.output {
            Output::Table => table::render(&report),
            Output::Json => serde_json::to_string_pretty(&report)? + "\n",
            Output::Yaml => serde_saphyr::to_string(&report)?,
        };
        super::print(&text)?;
        if self.fail_unschedulable && report.pods.unschedulable > 0 {
            return Ok(ExitCode::from(super::EXIT_UNSCHEDULABLE));
        }
        Ok(ExitCode::SUCCESS)
    }
}
