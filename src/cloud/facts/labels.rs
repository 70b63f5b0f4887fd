//! The labels that nodes of an instance type carry, as requirements.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Facts, Zone};
use crate::api::ec2nodeclass::AmiFamily;
use crate::model::instance::Offering;
use crate::model::labels;
use crate::model::requirement::{Requirement, Requirements};

/// Every label of the `karpenter.k8s.aws` domain that an instance type defines, without the domain.
/// A label that has no value on a type is required to be absent.
pub const KEYS: [&str; 28] = [
    "capacity-reservation-id",
    "capacity-reservation-interruptible",
    "capacity-reservation-type",
    "instance-accelerator-count",
    "instance-accelerator-manufacturer",
    "instance-accelerator-name",
    "instance-capability-flex",
    "instance-category",
    "instance-cpu",
    "instance-cpu-manufacturer",
    "instance-cpu-sustained-clock-speed-mhz",
    "instance-ebs-bandwidth",
    "instance-encryption-in-transit-supported",
    "instance-family",
    "instance-generation",
    "instance-gpu-count",
    "instance-gpu-manufacturer",
    "instance-gpu-memory",
    "instance-gpu-name",
    "instance-hypervisor",
    "instance-local-nvme",
    "instance-memory",
    "instance-network-bandwidth",
    "instance-size",
    "instance-tenancy",
    "nitro-sandbox",
    "placement-group-id",
    "placement-group-partition",
];

impl Facts {
    /// The requirements of the type: one entry for each well-known key.
    pub(super) fn requirements(
        &self,
        family: AmiFamily,
        region: &str,
        zones: &[Zone],
        offerings: &[Offering],
    ) -> Requirements {
        let mut all = Requirements::new();
        self.standard(&mut all, family, region, zones, offerings);
        let reserved = offerings.iter().any(|offering| offering.reserved.is_some());
        for key in KEYS {
            // Then it is the offering that decides.
            if reserved && key.starts_with("capacity-reservation-") {
                continue;
            }
            let requirement = match self.label(key) {
                Some(value) => Requirement::one_of([&*value]),
                None if key == "instance-tenancy" => Requirement::one_of(["default", "dedicated"]),
                None => Requirement::does_not_exist(),
            };
            all.insert(&format!("{}{key}", labels::AWS_DOMAIN), requirement);
        }
        all
    }

    fn standard(
        &self,
        all: &mut Requirements,
        family: AmiFamily,
        region: &str,
        zones: &[Zone],
        offerings: &[Offering],
    ) {
        let offered: BTreeSet<&Arc<str>> = offerings.iter().map(|offer| &offer.zone).collect();
        let zone_ids: Vec<Arc<str>> = zones
            .iter()
            .filter(|zone| !zone.id.is_empty() && offered.contains(&zone.name))
            .map(|zone| Arc::clone(&zone.id))
            .collect();
        let capacity_types: BTreeSet<&str> =
            offerings.iter().map(|offer| offer.capacity_type.label()).collect();
        let (os, build) = match family {
            AmiFamily::Windows2019 => ("windows", Some("10.0.17763")),
            AmiFamily::Windows2022 => ("windows", Some("10.0.20348")),
            AmiFamily::Windows2025 => ("windows", Some("10.0.26100")),
            _ => ("linux", None),
        };
        // There is no Windows image for arm64.
        let os = (os == "linux" || !self.arm64).then_some(os);
        all.insert(labels::INSTANCE_TYPE, Requirement::one_of([Arc::clone(&self.name)]));
        all.insert(labels::ARCH, Requirement::one_of([self.arch()]));
        all.insert(labels::OS, Requirement::one_of(os));
        all.insert(labels::REGION, Requirement::one_of([region]));
        all.insert(labels::ZONE, Requirement::one_of(offered.into_iter().map(Arc::clone)));
        all.insert(labels::CAPACITY_TYPE, Requirement::one_of(capacity_types));
        all.insert(labels::WINDOWS_BUILD, known(build));
        all.insert(
            labels::ZONE_ID,
            if zone_ids.is_empty() {
                Requirement::does_not_exist()
            } else {
                Requirement::one_of(zone_ids)
            },
        );
    }

    /// The value of the `kubernetes.io/arch` label.
    pub fn arch(&self) -> &'static str {
        if self.arm64 { "arm64" } else { "amd64" }
    }

    /// The value of one label of [`KEYS`].
    fn label(&self, key: &str) -> Option<String> {
        let (family, size) = self.name.split_once('.').unwrap_or((&self.name, ""));
        let gpu = match self.gpus.as_slice() {
            [only] => Some(only),
            _ => None,
        };
        // A type that has Neuron devices also lists them as inference accelerators.
        let accelerator = match (self.accelerators.as_slice(), self.neurons.as_slice()) {
            ([only], []) => Some((slug(&only.name), slug(&only.manufacturer), only.count)),
            (_, [only]) => Some((slug(&only.name), "aws".to_owned(), only.count)),
            _ => None,
        };
        match key {
            "instance-accelerator-count" => accelerator.map(|(_, _, count)| count.to_string()),
            "instance-accelerator-manufacturer" => accelerator.map(|(_, maker, _)| maker),
            "instance-accelerator-name" => accelerator.map(|(name, _, _)| name),
            "instance-capability-flex" => Some(family.contains("-flex").to_string()),
            "instance-category" => series(&self.name).map(|(category, _)| category.to_owned()),
            "instance-generation" => series(&self.name).map(|(_, number)| number.to_owned()),
            "instance-cpu" => Some(self.vcpus.to_string()),
            "instance-cpu-manufacturer" => {
                (!self.cpu_manufacturer.is_empty()).then(|| slug(&self.cpu_manufacturer))
            }
            "instance-cpu-sustained-clock-speed-mhz" => self.clock_mhz.map(|mhz| mhz.to_string()),
            "instance-ebs-bandwidth" => self.ebs_mbps.map(|mbps| mbps.to_string()),
            "instance-encryption-in-transit-supported" => {
                Some(self.encryption_in_transit.to_string())
            }
            "instance-family" => Some(family.to_owned()),
            "instance-gpu-count" => gpu.map(|gpu| gpu.count.to_string()),
            "instance-gpu-manufacturer" => gpu.map(|gpu| slug(&gpu.manufacturer)),
            "instance-gpu-memory" => gpu.map(|gpu| gpu.memory_mib.to_string()),
            "instance-gpu-name" => gpu.map(|gpu| slug(&gpu.name)),
            "instance-hypervisor" => Some(self.hypervisor.clone()),
            "instance-local-nvme" => {
                self.instance_store_gb.filter(|_| self.nvme).map(|gb| gb.to_string())
            }
            "instance-memory" => Some(self.memory_mib.to_string()),
            "instance-network-bandwidth" => self.network_mbps.map(|mbps| mbps.to_string()),
            "instance-size" => Some(size.to_owned()),
            "nitro-sandbox" => Some(self.enclaves.to_string()),
            _ => None,
        }
    }
}

fn known(value: Option<&str>) -> Requirement {
    value.map_or_else(Requirement::does_not_exist, |value| Requirement::one_of([value]))
}

/// Lower case, with dashes for spaces: label values may not contain spaces.
fn slug(name: &str) -> String {
    name.to_lowercase().replace(' ', "-")
}

/// Category and generation: the letters that a name begins with and the number after them, past
/// the memory size that the names of high-memory types carry (`u-6tb1.metal` is category `u`,
/// generation 1).
fn series(name: &str) -> Option<(&str, &str)> {
    let (family, _) = name.rsplit_once('.')?;
    let category = family.trim_start_matches(|c: char| c.is_ascii_lowercase());
    let (category, rest) = family.split_at(family.len() - category.len());
    if category.is_empty() {
        return None;
    }
    let rest = match rest.strip_prefix('-') {
        Some(sized) => {
            let digits = sized.bytes().take_while(u8::is_ascii_digit).count();
            sized[digits..].strip_prefix("tb").filter(|_| digits > 0)?
        }
        None => rest,
    };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0).then(|| (category, &rest[..digits]))
}
