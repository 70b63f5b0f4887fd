//! `harbinger simulate`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::app::SystemClock;
use crate::cloud::catalog::{self, Catalog, CatalogError, SpotPrices};
use crate::control::Clock as _;
use crate::simulate::engine::{self, SimulateError};
use crate::simulate::{Report, Settings, cross, input, load, table, upgrade};

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
    #[command(flatten)]
    prices: Prices,
}

/// Where types and prices come from.
#[derive(Args, Clone, Debug)]
pub struct Prices {
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
    #[arg(long = "spot-prices", value_name = "FILE", conflicts_with = "spot_discount")]
    market: Option<PathBuf>,
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

/// What was read, and what follows from the flags.
pub(super) struct Read {
    pub(super) input: input::Input,
    pub(super) settings: Settings,
    /// What was changed on the way.
    pub(super) notes: Vec<String>,
}

impl Output {
    /// A report in this form; `table` is the one for people.
    pub(super) fn render(
        self,
        report: &Report,
        table: impl Fn(&Report) -> String,
    ) -> Result<String> {
        Ok(match self {
            Self::Table => table(report),
            Self::Json => serde_json::to_string_pretty(report)? + "\n",
            Self::Yaml => serde_saphyr::to_string(report)?,
        })
    }
}

impl Source {
    /// Reads, checks and plans; input errors are printed and become the exit code.
    ///
    /// For the named pod or workload the nearest change is looked for where it fits nowhere.
    pub(super) fn simulate(
        &self,
        explain: Option<&str>,
    ) -> Result<std::result::Result<Report, ExitCode>> {
        #[expect(clippy::disallowed_methods, reason = "only the report's timing reads the clock")]
        let now = std::time::Instant::now;
        let start = now();
        let Read { input, mut settings, notes } = match self.prices.read(&self.paths) {
            Ok(read) => read,
            Err(errors) => return Ok(Err(super::complain(&errors))),
        };
        settings.explain = explain.map(str::to_owned);
        let loaded = now();
        let mut report = match engine::simulate(input, &settings) {
            Ok(report) => report,
            Err(SimulateError::Catalog(error)) => return Ok(Err(super::complain(&[error]))),
            Err(error) => return Err(error.into()),
        };
        report.warnings.splice(0..0, notes);
        if settings.catalog.is_none() {
            let spot = report.nodes.iter().any(|node| node.capacity_type == "spot");
            let catalog = Catalog::built_in()?;
            let of_prices = catalog.warnings(&settings.region, &settings.spot);
            let assumed = matches!(settings.spot, SpotPrices::Discount(_));
            report.warnings.extend(of_prices.into_iter().skip(usize::from(assumed && !spot)));
        }
        report.timing.load_ms = (loaded - start).as_secs_f64() * 1000.0;
        report.timing.solve_ms = loaded.elapsed().as_secs_f64() * 1000.0;
        Ok(Ok(report))
    }
}

impl Prices {
    /// Reads and checks files.
    ///
    /// # Errors
    /// Everything that is wrong with them and with the flags.
    pub(super) fn read(&self, paths: &[PathBuf]) -> Result<Read, Vec<String>> {
        let (objects, errors) = load::load(paths);
        let (read, wrong) = self.sort(objects);
        let mut errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        errors.extend(wrong);
        read.filter(|_| errors.is_empty()).ok_or(errors)
    }

    /// Sorts and checks objects. None is read only where the flags are wrong.
    pub(super) fn sort(
        &self,
        objects: Vec<(load::Origin, serde_json::Value)>,
    ) -> (Option<Read>, Vec<String>) {
        let upgraded = upgrade::upgrade(objects, &self.region);
        let (input, wrong) = input::sort(upgraded.objects);
        let wrong = upgraded.errors.iter().chain(&wrong);
        let mut errors: Vec<String> = wrong.map(ToString::to_string).collect();
        let settings = match self.settings() {
            Ok(settings) => settings,
            Err(wrong) => {
                errors.extend(wrong);
                return (None, errors);
            }
        };
        match cross(&input, &settings) {
            Ok(wrong) => errors.extend(wrong.iter().map(ToString::to_string)),
            Err(error) => errors.push(error.to_string()),
        }
        (Some(Read { input, settings, notes: upgraded.notes }), errors)
    }

    /// The settings, or everything that is wrong with the files and flags that they come from.
    fn settings(&self) -> Result<Settings, Vec<String>> {
        let mut errors = Vec::new();
        let catalog =
            self.catalog.as_ref().and_then(|file| of(file, catalog::from_json, &mut errors));
        let table = self.market.as_ref().and_then(|file| {
            of(file, |text| catalog::spot_prices(text).map_err(|error| vec![error]), &mut errors)
        });
        if !errors.is_empty() {
            return Err(errors);
        }
        #[expect(clippy::cast_possible_truncation, reason = "a share below 1")]
        let discount = SpotPrices::Discount((self.spot_discount * 1000.0).round() as i64);
        let spot = table.unwrap_or(discount);
        let (region, now) = (self.region.clone(), SystemClock.now());
        Ok(Settings { region, spot, catalog, now, explain: None })
    }
}

/// What a file of settings says; its errors are added to the others, with its name.
fn of<T>(
    file: &Path,
    parse: impl FnOnce(&str) -> Result<T, Vec<CatalogError>>,
    errors: &mut Vec<String>,
) -> Option<T> {
    match load::read(file) {
        Err(error) => errors.push(error.to_string()),
        Ok(text) => match parse(&text) {
            Ok(value) => return Some(value),
            Err(wrong) => {
                errors.extend(wrong.iter().map(|error| format!("{}: {error}", file.display())));
            }
        },
    }
    None
}

/// Errors between the objects of the input, and between them and the catalog.
fn cross(input: &input::Input, settings: &Settings) -> Result<Vec<load::InputError>, CatalogError> {
    let types: BTreeSet<&str> = match &settings.catalog {
        Some(types) => types.iter().map(|instance| &*instance.name).collect(),
        None => Catalog::built_in()?.names().collect(),
    };
    Ok(cross::check(input, &types, settings.catalog.is_some()))
}

impl Simulate {
    pub(super) fn run(self) -> Result<ExitCode> {
        let report = match self.source.simulate(None)? {
            Ok(report) => report,
            Err(code) => return Ok(code),
        };
        super::print(&self.output.render(&report, table::render)?)?;
        if self.fail_unschedulable && report.pods.unschedulable > 0 {
            return Ok(ExitCode::from(super::EXIT_UNSCHEDULABLE));
        }
        Ok(ExitCode::SUCCESS)
    }
}
