//! What a node of an instance type offers, computed from EC2's own description of the type.
//!
//! This is the test bed's estimate of what a kubelet on Amazon Linux reports. Tests of the product's
//! own formula hand in theirs.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::client::AwsClient;
use super::xml::Element;

/// Kernel and firmware keep this share of the memory from the operating system.
const HIDDEN_MEMORY_THOUSANDTHS: u64 = 75;
/// Kubelet's hard eviction threshold on EKS.
const EVICTION_MIB: u64 = 100;

/// Quantities by resource name.
pub type Resources = BTreeMap<String, String>;

/// What a node reports in its status.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sizes {
    pub capacity: Resources,
    pub allocatable: Resources,
}

/// Asks EC2 for the type and computes its node's sizes; `max_pods` overrides the number by
/// network interfaces.
pub(super) async fn sizes(aws: &AwsClient, name: &str, max_pods: Option<u32>) -> Result<Sizes> {
    let answer = aws.query("ec2", "DescribeInstanceTypes", &[("InstanceType.1", name)]).await?;
    let item = answer.items("instanceTypeSet").first().context("no such instance type")?;
    Ok(of(item, max_pods))
}

fn of(item: &Element, max_pods: Option<u32>) -> Sizes {
    let number = |path: &str| -> u64 { item.text_at(path).parse().unwrap_or(0) };
    let cpus = number("vCpuInfo/defaultVCpus");
    let memory_kib =
        number("memoryInfo/sizeInMiB") * 1024 * (1000 - HIDDEN_MEMORY_THOUSANDTHS) / 1000;
    let interfaces = number("networkInfo/maximumNetworkInterfaces");
    let addresses = number("networkInfo/ipv4AddressesPerInterface");
    // Two pods use the host's network; the first address of an interface is its own.
    let by_network = interfaces * addresses.saturating_sub(1) + 2;
    let pods = max_pods.map_or(by_network, u64::from);
    let gpus = item.items("gpuInfo/gpus").iter();
    let nvidia: u64 = gpus
        .filter(|gpu| gpu.text_at("manufacturer") == "NVIDIA")
        .filter_map(|gpu| gpu.text_at("count").parse::<u64>().ok())
        .sum();
    // The reservations of EKS' bootstrap: memory by pods, cpu by a falling share of the cores.
    let reserved_kib = (255 + 11 * pods + EVICTION_MIB) * 1024;
    let reserved_millicores: u64 = (0..cpus)
        .map(|core| match core {
            0 => 600,
            1 => 100,
            2 | 3 => 50,
            _ => 25,
        })
        .sum::<u64>()
        / 10;
    let sizes = |millicores: u64, kib: u64| {
        let mut resources = BTreeMap::from([
            ("cpu".to_owned(), format!("{millicores}m")),
            ("memory".to_owned(), format!("{kib}Ki")),
            ("pods".to_owned(), pods.to_string()),
            ("ephemeral-storage".to_owned(), "20Gi".to_owned()),
        ]);
        if nvidia > 0 {
            resources.insert("nvidia.com/gpu".to_owned(), nvidia.to_string());
        }
        resources
    };
    Sizes {
        capacity: sizes(cpus * 1000, memory_kib),
        allocatable: sizes(
            cpus * 1000 - reserved_millicores,
            memory_kib.saturating_sub(reserved_kib),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_machine() {
        let item = Element::parse(
            "<item><vCpuInfo><defaultVCpus>2</defaultVCpus></vCpuInfo><memoryInfo>\
             <sizeInMiB>8192</sizeInMiB></memoryInfo><networkInfo><maximumNetworkInterfaces>3\
             </maximumNetworkInterfaces><ipv4AddressesPerInterface>10</ipv4AddressesPerInterface>\
             </networkInfo></item>",
        )
        .unwrap();
        let sizes = of(&item, None);
        assert_eq!(sizes.capacity["pods"], "29");
        assert_eq!(sizes.allocatable["cpu"], "1930m");
        // 8192 MiB less 7.5 %, less 255 + 11·29 + 100 MiB.
        assert_eq!(sizes.allocatable["memory"], format!("{}Ki", 7_759_462 - 674 * 1024));
        assert_eq!(of(&item, Some(110)).allocatable["pods"], "110");
    }
}
