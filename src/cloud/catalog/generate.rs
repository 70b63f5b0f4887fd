//! Makes the built-in table from public data.
//!
//! It reads one `DescribeInstanceTypes` record a line and four CSV tables, and writes the packed
//! table. The same input gives the same bytes.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use serde_json::Value;

use super::{Catalog, CatalogError, PRICED_REGION, Row};
use crate::cloud::facts::{Accelerator, Facts, Gpu, Neuron};
use crate::model::money::MicroDollarsPerHour;

/// The texts that the table is made from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// One `DescribeInstanceTypes` record a line.
    pub instance_types: &'a str,
    /// CSV: region, zone, instance type.
    pub offerings: &'a str,
    /// CSV: region, instance type, dollars per hour.
    pub on_demand_prices: &'a str,
    /// CSV: instance type, baseline Mbit/s.
    pub bandwidth: &'a str,
    /// CSV: instance type, interfaces, addresses, trunking, branch interfaces, …
    pub vpc_limits: &'a str,
}

/// The packed table.
///
/// # Errors
/// [`CatalogError::Invalid`], which names the table and the line.
pub fn generate(source: Source<'_>) -> Result<Vec<u8>, CatalogError> {
    let prices = column(source.on_demand_prices, "on-demand prices", |fields| {
        let [region, name, dollars] = fields else { return None };
        let price = MicroDollarsPerHour::from_dollars(dollars.parse().ok()?)?;
        Some((*region == PRICED_REGION).then(|| ((*name).to_owned(), price)))
    })?;
    let bandwidth = column(source.bandwidth, "bandwidth", |fields| {
        let [name, mbps] = fields else { return None };
        Some(Some(((*name).to_owned(), mbps.parse::<u32>().ok()?)))
    })?;
    let branches = column(source.vpc_limits, "VPC limits", |fields| {
        let [name, _, _, trunking, branches, ..] = fields else { return None };
        let branches: u32 = branches.parse().ok()?;
        Some((*trunking == "true").then(|| ((*name).to_owned(), branches)))
    })?;
    let (zones, mut offered) = offerings(source.offerings)?;
    let mut rows = Vec::new();
    for (index, line) in source.instance_types.lines().enumerate() {
        let place = || format!("instance types, line {}", index + 1);
        let record: Value = serde_json::from_str(line)
            .map_err(|error| CatalogError::invalid(place(), error.to_string()))?;
        let Some(mut facts) =
            facts(&record).ok_or_else(|| CatalogError::invalid(place(), "lacks a field"))?
        else {
            continue;
        };
        facts.network_mbps = bandwidth.get(&*facts.name).copied();
        facts.pod_interfaces = branches.get(&*facts.name).copied().unwrap_or(0);
        let z = offered.remove(&*facts.name).unwrap_or_default();
        rows.push(Row { p: prices.get(&*facts.name).copied(), z, f: facts });
    }
    rows.sort_by(|a, b| a.f.name.cmp(&b.f.name));
    pack(&Catalog { zones, rows })
        .map_err(|error| CatalogError::invalid("table", error.to_string()))
}

fn pack(table: &Catalog) -> std::io::Result<Vec<u8>> {
    let mut packed = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::best());
    packed.write_all(&serde_json::to_vec(table)?)?;
    packed.finish()
}

/// Reads a CSV table with a heading; `read` gives `None` for a line that is wrong and `Some(None)`
/// for one that does not matter.
fn column<T>(
    csv: &str,
    table: &str,
    read: impl Fn(&[&str]) -> Option<Option<(String, T)>>,
) -> Result<BTreeMap<String, T>, CatalogError> {
    let mut map = BTreeMap::new();
    for (index, line) in csv.lines().enumerate().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let row = read(&fields).ok_or_else(|| {
            CatalogError::invalid(
                format!("{table}, line {}", index + 1),
                format!("cannot read {line:?}"),
            )
        })?;
        map.extend(row);
    }
    Ok(map)
}

type Zones = BTreeMap<String, Vec<String>>;
/// For each type the bits of its zones by region.
type Offered = BTreeMap<String, BTreeMap<String, u32>>;

/// Zones of each region, and for each type the bits of its zones by region.
fn offerings(csv: &str) -> Result<(Zones, Offered), CatalogError> {
    let rows: Vec<(usize, Vec<&str>)> =
        csv.lines().enumerate().skip(1).map(|(i, line)| (i, line.split(',').collect())).collect();
    let mut zones = Zones::new();
    for (index, fields) in &rows {
        let [region, zone, _] = fields.as_slice() else {
            let place = format!("offerings, line {}", index + 1);
            return Err(CatalogError::invalid(place, "has not three fields"));
        };
        let known = zones.entry((*region).to_owned()).or_default();
        if let Err(position) = known.binary_search_by(|name| (**name).cmp(zone)) {
            known.insert(position, (*zone).to_owned());
        }
    }
    let mut offered = Offered::new();
    for (_, fields) in &rows {
        if let [region, zone, name] = fields.as_slice()
            && let Some(bit) = zones[*region].iter().position(|known| known == zone)
        {
            let bits = offered.entry((*name).to_owned()).or_default();
            *bits.entry((*region).to_owned()).or_default() |= 1 << bit;
        }
    }
    Ok((zones, offered))
}

/// The facts of one record: `None` when a field is missing, `Some(None)` for types that no node can
/// be made of (no hardware virtualization, or the architecture of a Mac).
#[expect(clippy::option_option, reason = "a missing field is not the same as a type of no use")]
fn facts(record: &Value) -> Option<Option<Facts>> {
    let list = |value: &'_ Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let architectures = list(&record["ProcessorInfo"]["SupportedArchitectures"]);
    let arm64 = architectures.iter().any(|name| name == "arm64");
    let x86 = architectures.iter().any(|name| name == "x86_64");
    let hvm = list(&record["SupportedVirtualizationTypes"]).iter().any(|kind| kind == "hvm");
    if !hvm || !(arm64 || x86) {
        return Some(None);
    }
    let usage = list(&record["SupportedUsageClasses"]);
    let network = &record["NetworkInfo"];
    let ebs = &record["EbsInfo"];
    let default_bandwidth = ebs["EbsOptimizedSupport"] == "default";
    let clock = record["ProcessorInfo"]["SustainedClockSpeedInGhz"].as_f64();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clock speeds are a few GHz"
    )]
    let clock_mhz = clock.map(|ghz| (ghz * 1000.0).round() as u32);
    Some(Some(Facts {
        name: Arc::from(record["InstanceType"].as_str()?),
        vcpus: small(&record["VCpuInfo"]["DefaultVCpus"])?,
        memory_mib: record["MemoryInfo"]["SizeInMiB"].as_u64()?,
        arm64: architectures.first().is_some_and(|name| name == "arm64"),
        hypervisor: text(&record["Hypervisor"]),
        cpu_manufacturer: text(&record["ProcessorInfo"]["Manufacturer"]),
        clock_mhz,
        encryption_in_transit: network["EncryptionInTransitSupported"] == true,
        enclaves: record["NitroEnclavesSupport"] == "supported",
        nested_virtualization: list(&record["ProcessorInfo"]["SupportedFeatures"])
            .iter()
            .any(|feature| feature == "nested-virtualization"),
        instance_store_gb: record["InstanceStorageInfo"]["TotalSizeInGB"].as_u64(),
        nvme: record["InstanceStorageInfo"]["NvmeSupport"]
            .as_str()
            .is_some_and(|support| support != "unsupported"),
        ebs_mbps: small(&ebs["EbsOptimizedInfo"]["MaximumBandwidthInMbps"])
            .filter(|_| default_bandwidth),
        ebs_attachments: small(&ebs["MaximumEbsAttachments"]),
        ebs_shares_slots: ebs["AttachmentLimitType"] == "shared",
        network_mbps: None,
        cards: network["NetworkCards"]
            .as_array()?
            .iter()
            .map(|card| small(&card["MaximumNetworkInterfaces"]))
            .collect::<Option<_>>()?,
        default_card: usize::try_from(network["DefaultNetworkCardIndex"].as_u64()?).ok()?,
        ips_per_interface: small(&network["Ipv4AddressesPerInterface"])?,
        ena: network["EnaSupport"].as_str().is_some_and(|support| support != "unsupported"),
        efa: small(&network["EfaInfo"]["MaximumEfaInterfaces"]).unwrap_or(0),
        pod_interfaces: 0,
        gpus: each(&record["GpuInfo"]["Gpus"], |gpu| Gpu {
            name: text(&gpu["Name"]),
            manufacturer: text(&gpu["Manufacturer"]),
            count: small(&gpu["Count"]).unwrap_or(0),
            memory_mib: gpu["MemoryInfo"]["SizeInMiB"].as_u64().unwrap_or(0),
        }),
        accelerators: each(&record["InferenceAcceleratorInfo"]["Accelerators"], |device| {
            Accelerator {
                name: text(&device["Name"]),
                manufacturer: text(&device["Manufacturer"]),
                count: small(&device["Count"]).unwrap_or(0),
            }
        }),
        neurons: each(&record["NeuronInfo"]["NeuronDevices"], |device| Neuron {
            name: text(&device["Name"]),
            count: small(&device["Count"]).unwrap_or(0),
            cores: small(&device["CoreInfo"]["Count"]).unwrap_or(0),
        }),
        on_demand: usage.iter().any(|class| class == "on-demand"),
        spot: usage.iter().any(|class| class == "spot"),
    }))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn small(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

fn each<T>(list: &Value, read: impl Fn(&Value) -> T) -> Vec<T> {
    list.as_array().into_iter().flatten().map(read).collect()
}
