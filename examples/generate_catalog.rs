//! Writes the catalog that ships in the binary from tables of EC2 facts.
//!
//! ```text
//! cargo run --example generate_catalog -- FOLDER src/cloud/catalog/ec2.json.gz
//! ```
//! FOLDER holds `instance_types.jsonl.gz` (one `DescribeInstanceTypes` record a line),
//! `offerings.csv` (region,zone,type), `on_demand_prices.csv` (region,type,$/h),
//! `bandwidth_mbps.csv` (type,Mbit/s) and `vpc_limits.csv` of the VPC CNI.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use harbinger::cloud::catalog::Catalog;
use harbinger::cloud::facts::{Accelerator, Facts};
use serde_json::Value;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: generate_catalog FOLDER OUTPUT";
    let folder = args.next().context(usage)?;
    let output = args.next().context(usage)?;
    let folder = Path::new(&folder);
    let rows = |name: &str| -> Result<Vec<Vec<String>>> {
        let text = std::fs::read_to_string(folder.join(name)).with_context(|| name.to_owned())?;
        let row = |line: &str| line.split(',').map(str::to_owned).collect();
        Ok(text.lines().skip(1).map(row).collect())
    };
    let bandwidth: BTreeMap<String, i64> = rows("bandwidth_mbps.csv")?
        .into_iter()
        .filter_map(|row| Some((row.first()?.clone(), row.get(1)?.parse().ok()?)))
        .collect();
    let branches: BTreeMap<String, i64> = rows("vpc_limits.csv")?
        .into_iter()
        .filter(|row| row.get(3).is_some_and(|trunking| trunking == "true"))
        .filter_map(|row| Some((row.first()?.clone(), row.get(4)?.parse().ok()?)))
        .collect();
    let mut text = String::new();
    let file = std::fs::File::open(folder.join("instance_types.jsonl.gz"))?;
    flate2::read::GzDecoder::new(file).read_to_string(&mut text)?;
    let mut types = Vec::new();
    for line in text.lines() {
        if let Some(mut facts) = facts(&serde_json::from_str(line)?) {
            facts.network_mbps = bandwidth.get(&facts.name).copied().unwrap_or(0);
            facts.branch_enis = branches.get(&facts.name).copied().unwrap_or(0);
            types.push(facts);
        }
    }
    types.sort_by(|a, b| a.name.cmp(&b.name));
    let positions: BTreeMap<&str, usize> =
        types.iter().enumerate().map(|(index, facts)| (&*facts.name, index)).collect();
    let mut zones: BTreeMap<String, BTreeMap<String, Vec<usize>>> = BTreeMap::new();
    for row in rows("offerings.csv")? {
        let [region, zone, name] = row.as_slice() else { continue };
        if let Some(index) = positions.get(&**name) {
            zones.entry(region.clone()).or_default().entry(zone.clone()).or_default().push(*index);
        }
    }
    let prices = rows("on_demand_prices.csv")?
        .into_iter()
        .filter(|row| row.len() == 3 && positions.contains_key(&*row[1]))
        .filter_map(|row| {
            let micros =
                harbinger::model::money::MicroDollarsPerHour::from_dollars(row[2].parse().ok()?)?;
            Some((row[1].clone(), micros.0))
        })
        .collect();
    let source = "EC2 API and price list, 2026-07-20".to_owned();
    let catalog = Catalog { source, types, prices, zones };
    let file = std::fs::File::create(&output)?;
    let mut encoder = flate2::GzBuilder::new().mtime(0).write(file, flate2::Compression::best());
    encoder.write_all(&serde_json::to_vec(&catalog)?)?;
    encoder.finish()?;
    Ok(())
}

/// Facts of one record; `None` for types that cannot be Linux nodes.
fn facts(record: &Value) -> Option<Facts> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let architectures = record["ProcessorInfo"]["SupportedArchitectures"].as_array()?;
    let arch = architectures.iter().find_map(|arch| match arch.as_str()? {
        "x86_64" => Some("amd64"),
        "arm64" => Some("arm64"),
        _ => None,
    })?;
    let hvm = record["SupportedVirtualizationTypes"].as_array()?.iter().any(|kind| kind == "hvm");
    if !hvm {
        return None;
    }
    let classes = record["SupportedUsageClasses"].as_array()?;
    let network = &record["NetworkInfo"];
    let card = usize::try_from(number(&network["DefaultNetworkCardIndex"])).ok()?;
    let store = &record["InstanceStorageInfo"];
    let ebs = &record["EbsInfo"];
    let gpus = record["GpuInfo"]["Gpus"].as_array().map(Vec::as_slice).unwrap_or_default();
    let neurons =
        record["NeuronInfo"]["NeuronDevices"].as_array().map(Vec::as_slice).unwrap_or_default();
    let accelerator = |device: &Value| Accelerator {
        name: text(&device["Name"]),
        maker: text(&device["Manufacturer"]),
        count: number(&device["Count"]),
        memory_mib: number(&device["MemoryInfo"]["SizeInMiB"]),
        cores: number(&device["CoreInfo"]["Count"]),
    };
    #[expect(clippy::cast_possible_truncation, reason = "a clock in MHz")]
    let clock = |ghz: &Value| (ghz.as_f64().unwrap_or(0.0) * 1000.0).round() as i64;
    Some(Facts {
        name: text(&record["InstanceType"]),
        vcpus: number(&record["VCpuInfo"]["DefaultVCpus"]),
        memory_mib: number(&record["MemoryInfo"]["SizeInMiB"]),
        arch: arch.to_owned(),
        hypervisor: text(&record["Hypervisor"]),
        cpu_maker: text(&record["ProcessorInfo"]["Manufacturer"]).to_lowercase().replace(' ', "-"),
        clock_mhz: clock(&record["ProcessorInfo"]["SustainedClockSpeedInGhz"]),
        encrypted: network["EncryptionInTransitSupported"] == true,
        enclaves: record["NitroEnclavesSupport"] == "supported",
        nvme_gb: if store["NvmeSupport"] == "unsupported" {
            0
        } else {
            number(&store["TotalSizeInGB"])
        },
        store_gb: number(&store["TotalSizeInGB"]),
        ebs_mbps: match &ebs["EbsOptimizedSupport"] {
            kind if kind == "default" => number(&ebs["EbsOptimizedInfo"]["MaximumBandwidthInMbps"]),
            _ => 0,
        },
        network_mbps: 0,
        enis: number(&network["NetworkCards"][card]["MaximumNetworkInterfaces"]),
        ips: number(&network["Ipv4AddressesPerInterface"]),
        branch_enis: 0,
        efas: number(&network["EfaInfo"]["MaximumEfaInterfaces"]),
        gpus: gpus.iter().map(accelerator).collect(),
        neurons: neurons.iter().map(accelerator).collect(),
        on_demand: classes.iter().any(|class| class == "on-demand"),
        spot: classes.iter().any(|class| class == "spot"),
    })
}
