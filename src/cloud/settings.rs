//! The settings of a class that change what its nodes offer to pods.

use std::collections::BTreeMap;

use crate::api::ec2nodeclass::{AmiFamily, EC2NodeClassSpec, InstanceStorePolicy, VolumeType};
use crate::model::money::MicroDollarsPerHour;
use crate::model::quantity::Quantity;
use crate::model::resources::Resources;

/// gp3 storage costs $0.08 per GiB-month in us-east-1 (EBS price list, 2026-07), and a month has
/// 730 hours: in micro-dollars per GiB-hour.
const GP3_PER_GIB_HOUR: f64 = 0.08 / 730.0 * 1e6;

/// The part of a class that decides capacity and overhead.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassSettings {
    /// Image family.
    pub family: AmiFamily,
    /// Fixed count of pods.
    pub max_pods: Option<i64>,
    /// Pods per core at most.
    pub pods_per_core: Option<i64>,
    /// Interfaces that pods do not use.
    pub reserved_enis: i64,
    /// Share of memory that the machine keeps, in thousandths.
    pub memory_overhead_permille: i64,
    /// Size of the volume that pods' storage is on, bytes.
    pub root_bytes: i64,
    /// Whether local disks become pods' storage.
    pub raid0: bool,
    /// Reserved for the kubelet, by resource; these replace the computed amounts.
    pub kube_reserved: Resources,
    /// Reserved for the system.
    pub system_reserved: Resources,
    /// Memory at which the kubelet evicts.
    pub eviction_memory: Threshold,
    /// Storage at which the kubelet evicts.
    pub eviction_storage: Threshold,
    /// Price of the node's volumes.
    pub volume_price: MicroDollarsPerHour,
}

/// An eviction threshold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Threshold {
    /// Bytes.
    Bytes(i64),
    /// Thousandths of the capacity.
    Permille(i64),
}

impl Threshold {
    /// The threshold in bytes on a node with this capacity, rounded up.
    pub fn bytes(self, capacity: i64) -> i64 {
        match self {
            Self::Bytes(bytes) => bytes,
            // 100 % switches the signal off.
            Self::Permille(1000) => 0,
            Self::Permille(permille) => (capacity.saturating_mul(permille) + 999) / 1000,
        }
    }
}

impl AmiFamily {
    /// Whether the image reserves memory by the address-based count of pods.
    pub fn memory_by_eni(self) -> bool {
        matches!(self, Self::AL2 | Self::AL2023 | Self::Custom)
    }

    /// Whether the image honours `podsPerCore`.
    pub fn pods_per_core(self) -> bool {
        self != Self::Bottlerocket
    }
}

impl Default for ClassSettings {
    /// AL2023 with a 20 GiB gp3 volume, which is what a class without settings gets.
    fn default() -> Self {
        let root_bytes = 20 << 30;
        Self {
            family: AmiFamily::AL2023,
            max_pods: None,
            pods_per_core: None,
            reserved_enis: 0,
            memory_overhead_permille: 75,
            root_bytes,
            raid0: false,
            kube_reserved: Resources::default(),
            system_reserved: Resources::default(),
            eviction_memory: Threshold::Bytes(100 << 20),
            eviction_storage: Threshold::Permille(100),
            volume_price: price_of(root_bytes),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "volumes are small"
)]
fn price_of(bytes: i64) -> MicroDollarsPerHour {
    let gib = bytes as f64 / f64::from(1 << 30);
    MicroDollarsPerHour((gib * GP3_PER_GIB_HOUR).round() as i64)
}

impl ClassSettings {
    /// The settings of a class. Values that do not parse count as absent; validation names them.
    pub fn of(spec: &EC2NodeClassSpec) -> Self {
        let mut settings = Self { family: family(spec), ..Self::default() };
        settings.raid0 = spec.instance_store_policy == Some(InstanceStorePolicy::RAID0);
        let default_root = match settings.family {
            AmiFamily::Windows2019 | AmiFamily::Windows2022 | AmiFamily::Windows2025 => 50 << 30,
            _ => 20_i64 << 30,
        };
        let size = |mapping: &crate::api::ec2nodeclass::BlockDeviceMapping| {
            mapping.ebs.as_ref()?.volume_size.map(Quantity::units)
        };
        let device =
            if settings.family == AmiFamily::Bottlerocket { "/dev/xvdb" } else { "/dev/xvda" };
        let mappings = &spec.block_device_mappings;
        settings.root_bytes = mappings
            .iter()
            .find(|mapping| mapping.root_volume == Some(true))
            .and_then(size)
            .or_else(|| match settings.family {
                AmiFamily::Custom => mappings.last().and_then(size),
                _ => mappings
                    .iter()
                    .find(|mapping| mapping.device_name.as_deref() == Some(device))
                    .and_then(size),
            })
            .unwrap_or(default_root);
        settings.volume_price = if mappings.is_empty() {
            // Bottlerocket has a second volume of 4 GiB for its own system.
            let system = if settings.family == AmiFamily::Bottlerocket { 4_i64 << 30 } else { 0 };
            price_of(settings.root_bytes + system)
        } else {
            mappings
                .iter()
                .map(|mapping| {
                    let kind =
                        mapping.ebs.as_ref().and_then(|ebs| ebs.volume_type).unwrap_or_default();
                    let price = price_of(size(mapping).unwrap_or(0));
                    MicroDollarsPerHour(price.0 * volume_factor_percent(kind) / 100)
                })
                .sum()
        };
        settings.kubelet(spec);
        settings
    }

    fn kubelet(&mut self, spec: &EC2NodeClassSpec) {
        let Some(kubelet) = &spec.kubelet else { return };
        let integer = |key: &str| kubelet.get(key).and_then(serde_json::Value::as_i64);
        self.max_pods = integer("maxPods");
        self.pods_per_core = integer("podsPerCore");
        let resources = |key: &str| -> Resources {
            let list: BTreeMap<String, Quantity> = kubelet
                .get(key)
                .and_then(|value| serde_json::from_value(value.clone()).ok())
                .unwrap_or_default();
            Resources::from_quantities(list.iter().map(|(name, quantity)| (&**name, *quantity)))
        };
        self.kube_reserved = resources("kubeReserved");
        self.system_reserved = resources("systemReserved");
        let signal = |name: &str| {
            let text = kubelet.get("evictionHard")?.get(name)?.as_str()?;
            match text.strip_suffix('%') {
                #[expect(clippy::cast_possible_truncation, reason = "a percentage")]
                Some(percent) => percent
                    .parse::<f64>()
                    .ok()
                    .map(|p| Threshold::Permille((p * 10.0).round() as i64)),
                None => text.parse::<Quantity>().ok().map(|q| Threshold::Bytes(q.units())),
            }
        };
        self.eviction_memory = signal("memory.available").unwrap_or(self.eviction_memory);
        self.eviction_storage = signal("nodefs.available").unwrap_or(self.eviction_storage);
    }
}

/// The image family that a class means: of its alias, or as named.
pub fn family(spec: &EC2NodeClassSpec) -> AmiFamily {
    if let Some(family) = spec.ami_family {
        return family;
    }
    let alias = spec.ami_selector_terms.iter().find_map(|term| term.alias.as_deref());
    match alias.and_then(|alias| alias.split('@').next()).unwrap_or_default() {
        "al2" => AmiFamily::AL2,
        "bottlerocket" => AmiFamily::Bottlerocket,
        "windows2019" => AmiFamily::Windows2019,
        "windows2022" => AmiFamily::Windows2022,
        "windows2025" => AmiFamily::Windows2025,
        _ => AmiFamily::AL2023,
    }
}

/// Price per GiB against gp3, percent (EBS price list, us-east-1: gp2 0.10, io1 and io2 0.125, st1
/// 0.045, sc1 0.015, standard 0.05 $/GiB-month). Provisioned operations are not counted.
fn volume_factor_percent(kind: VolumeType) -> i64 {
    match kind {
        VolumeType::Gp3 => 100,
        VolumeType::Gp2 => 125,
        VolumeType::Io1 | VolumeType::Io2 => 156,
        VolumeType::St1 => 56,
        VolumeType::Sc1 => 19,
        VolumeType::Standard => 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_volume_costs_what_ebs_asks() {
        assert_eq!(ClassSettings::default().volume_price, MicroDollarsPerHour(2192));
    }

    #[test]
    fn kubelet_settings_count() {
        let spec: EC2NodeClassSpec = serde_json::from_value(serde_json::json!({
            "subnetSelectorTerms": [], "securityGroupSelectorTerms": [],
            "amiSelectorTerms": [{"alias": "bottlerocket@latest"}],
            "blockDeviceMappings": [{"deviceName": "/dev/xvdb", "ebs": {"volumeSize": "100Gi"}}],
            "kubelet": {"maxPods": 50, "kubeReserved": {"memory": "1Gi"}, "evictionHard": {"memory.available": "5%"}}
        }))
        .unwrap();
        let settings = ClassSettings::of(&spec);
        assert_eq!(settings.family, AmiFamily::Bottlerocket);
        assert_eq!(settings.root_bytes, 100 << 30);
        assert_eq!(settings.max_pods, Some(50));
        assert_eq!(settings.kube_reserved.memory, 1 << 30);
        assert_eq!(settings.eviction_memory, Threshold::Permille(50));
    }
}
