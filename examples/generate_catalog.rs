//! Writes the built-in catalog of EC2 instance types.
//!
//! ```text
//! cargo run --no-default-features --example generate_catalog -- DATA_FOLDER src/cloud/catalog/ec2.json.gz
//! ```
//!
//! The folder holds `instance_types.jsonl.gz` (one `DescribeInstanceTypes` record a line),
//! `offerings.csv` (region, zone, type), `on_demand_prices.csv` (region, type, dollars per hour),
//! `bandwidth_mbps.csv` (type, Mbit/s) and `vpc_limits.csv` (type, interfaces, addresses, trunking,
//! branch interfaces).

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use harbinger::cloud::catalog::{Source, generate};

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), Some(output)) = (args.next(), args.next()) else {
        anyhow::bail!("usage: generate_catalog DATA_FOLDER OUTPUT_FILE");
    };
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let packed = generate(Source {
        instance_types: &unpacked(&folder.join("instance_types.jsonl.gz"))?,
        offerings: &read("offerings.csv")?,
        on_demand_prices: &read("on_demand_prices.csv")?,
        bandwidth: &read("bandwidth_mbps.csv")?,
        vpc_limits: &read("vpc_limits.csv")?,
    })?;
    std::fs::write(&output, &packed)
        .with_context(|| format!("cannot write {}", output.display()))?;
    Ok(())
}

fn unpacked(path: &Path) -> Result<String> {
    let file =
        std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot unpack {}", path.display()))?;
    Ok(text)
}
