//! What a node class means for capacity and price: pure values, read from its spec once.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

use crate::api::ec2nodeclass::{
    AmiFamily, BlockDevice, BlockDeviceMapping, EC2NodeClassSpec, InterfaceType, NetworkInterface,
    Toggle, VolumeType,
};
use crate::cloud::kubelet::{Kubelet, KubeletError};
use crate::model::money::MicroDollarsPerHour;
use crate::model::quantity::Quantity;

const GIB: i64 = 1 << 30;
/// Pods' disk where nothing says how large it is.
const DEFAULT_VOLUME_BYTES: i64 = 20 * GIB;
/// EC2 sells EBS by the month; its price list counts 730 hours in one.
const HOURS_PER_MONTH: f64 = 730.0;
/// Share of memory that the hypervisor takes where the user does not say, in thousandths; the
/// field's default.
const MEMORY_OVERHEAD_PERMILLE: i64 = 75;

/// Settings of a node class that decide what its nodes offer.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassSettings {
    /// Family of the images.
    pub family: AmiFamily,
    /// Kubelet settings.
    pub kubelet: Kubelet,
    /// Volumes; the family's own when empty.
    pub volumes: Vec<BlockDeviceMapping>,
    /// Whether instance stores become the pods' disk.
    pub raid0: bool,
    /// Network interfaces; the default ones when empty.
    pub interfaces: Vec<NetworkInterface>,
    /// Whether nodes run virtual machines.
    pub nested_virtualization: bool,
    /// Whether connection tracking is tuned.
    pub connection_tracking: bool,
    /// Interfaces of each node that are kept for other uses (custom networking takes one).
    pub reserved_enis: i64,
    /// Share of memory that the hypervisor takes, in thousandths.
    pub memory_overhead_permille: i64,
    /// Price of a node's EBS volumes.
    pub volume_price: MicroDollarsPerHour,
}

impl Default for ClassSettings {
    fn default() -> Self {
        let mut settings = Self {
            family: AmiFamily::AL2023,
            kubelet: Kubelet::default(),
            volumes: Vec::new(),
            raid0: false,
            interfaces: Vec::new(),
            nested_virtualization: false,
            connection_tracking: false,
            reserved_enis: 0,
            memory_overhead_permille: MEMORY_OVERHEAD_PERMILLE,
            volume_price: MicroDollarsPerHour::ZERO,
        };
        settings.volume_price = settings.price_of_volumes();
        settings
    }
}

/// The family of a class: what it says, else what its alias names.
pub fn family(spec: &EC2NodeClassSpec) -> AmiFamily {
    spec.resolved_family().unwrap_or(AmiFamily::AL2023)
}

/// The alias of a class, as family and version.
pub fn alias(spec: &EC2NodeClassSpec) -> Option<(&str, &str)> {
    spec.ami_selector_terms.iter().find_map(|term| term.alias.as_deref()?.split_once('@'))
}

impl ClassSettings {
    /// The settings of a class. A kubelet block that is wrong counts as absent;
    /// [`Self::checked`] says what is wrong with it.
    pub fn of(spec: &EC2NodeClassSpec) -> Self {
        Self::checked(spec).unwrap_or_else(|_| Self::with_kubelet(spec, Kubelet::default()))
    }

    /// The settings of a class.
    ///
    /// # Errors
    /// What is wrong with the kubelet block.
    pub fn checked(spec: &EC2NodeClassSpec) -> Result<Self, KubeletError> {
        let kubelet = Kubelet::parse(&spec.kubelet, family(spec))?;
        Ok(Self::with_kubelet(spec, kubelet))
    }

    fn with_kubelet(spec: &EC2NodeClassSpec, kubelet: Kubelet) -> Self {
        let nested = spec.cpu_options.as_ref().and_then(|cpu| cpu.nested_virtualization);
        let mut settings = Self {
            family: family(spec),
            kubelet,
            volumes: spec.block_device_mappings.clone(),
            raid0: spec.instance_store_policy.is_some(),
            interfaces: spec.network_interfaces.clone(),
            nested_virtualization: nested == Some(Toggle::Enabled),
            connection_tracking: spec.connection_tracking.is_some(),
            ..Self::default()
        };
        settings.volume_price = settings.price_of_volumes();
        settings
    }

    /// Number of interfaces for the elastic fabric only, on the cards that `on` names.
    pub(super) fn fabric_interfaces(&self, on: impl Fn(i32) -> bool) -> i64 {
        self.interfaces
            .iter()
            .filter(|nic| {
                nic.interface_type == InterfaceType::EfaOnly && on(nic.network_card_index)
            })
            .map(|_| 1)
            .sum()
    }

    /// Whether the number of pods follows from the interfaces' addresses.
    pub(super) fn counts_interfaces(&self) -> bool {
        !self.is_windows()
    }

    /// Whether the kubelet's memory reservation follows from the interfaces' addresses, whatever
    /// the number of pods is.
    pub(super) fn reserves_by_interfaces(&self) -> bool {
        matches!(self.family, AmiFamily::AL2 | AmiFamily::AL2023 | AmiFamily::Custom)
    }

    /// Whether the family is one of Windows.
    pub fn is_windows(&self) -> bool {
        matches!(
            self.family,
            AmiFamily::Windows2019 | AmiFamily::Windows2022 | AmiFamily::Windows2025
        )
    }

    /// Volumes of a node: those of the class, else those of the family.
    pub fn resolved_volumes(&self) -> Vec<BlockDeviceMapping> {
        if !self.volumes.is_empty() {
            return self.volumes.clone();
        }
        let volume = |device: &str, gib: i64| BlockDeviceMapping {
            device_name: Some(device.to_owned()),
            root_volume: None,
            ebs: Some(BlockDevice {
                encrypted: Some(true),
                volume_size: Some(WireQuantity(format!("{gib}Gi"))),
                volume_type: Some(VolumeType::Gp3),
                ..BlockDevice::default()
            }),
        };
        match self.family {
            AmiFamily::AL2 | AmiFamily::AL2023 => vec![volume("/dev/xvda", 20)],
            // The operating system has its own small volume; images and pods live on the second.
            AmiFamily::Bottlerocket => vec![volume("/dev/xvda", 4), volume("/dev/xvdb", 20)],
            AmiFamily::Custom => Vec::new(),
            AmiFamily::Windows2019 | AmiFamily::Windows2022 | AmiFamily::Windows2025 => {
                vec![volume("/dev/sda1", 50)]
            }
        }
    }

    /// The device that pods' ephemeral storage is on.
    fn ephemeral_device(&self) -> Option<&'static str> {
        match self.family {
            AmiFamily::AL2 | AmiFamily::AL2023 => Some("/dev/xvda"),
            AmiFamily::Bottlerocket => Some("/dev/xvdb"),
            AmiFamily::Custom => None,
            AmiFamily::Windows2019 | AmiFamily::Windows2022 | AmiFamily::Windows2025 => {
                Some("/dev/sda1")
            }
        }
    }

    /// Size of the volume that pods' ephemeral storage is on, bytes.
    pub(super) fn ephemeral_volume_bytes(&self) -> i64 {
        let size = |mapping: &BlockDeviceMapping| mapping.ebs.as_ref().and_then(bytes);
        let marked = self.volumes.iter().find(|mapping| mapping.root_volume == Some(true));
        if let Some(bytes) = marked.and_then(size) {
            return bytes;
        }
        if self.family == AmiFamily::Custom {
            return self.volumes.last().and_then(size).unwrap_or(DEFAULT_VOLUME_BYTES);
        }
        let device = self.ephemeral_device();
        let on_device = |mapping: &&BlockDeviceMapping| mapping.device_name.as_deref() == device;
        let own = self.volumes.iter().find(on_device).and_then(size);
        let default = || {
            let family = Self { volumes: Vec::new(), ..self.clone() };
            family.resolved_volumes().iter().find(on_device).and_then(size)
        };
        own.or_else(default).unwrap_or(DEFAULT_VOLUME_BYTES)
    }

    /// Price of a node's EBS volumes.
    ///
    /// The prices are those of us-east-1 in dollars per GiB, operation per second and MiB/s a
    /// month, from the EBS price list; a volume that takes its size from a snapshot counts as free,
    /// since its size is not known here.
    fn price_of_volumes(&self) -> MicroDollarsPerHour {
        let monthly: f64 =
            self.resolved_volumes().iter().filter_map(|m| m.ebs.as_ref()).map(monthly).sum();
        MicroDollarsPerHour::from_dollars(monthly / HOURS_PER_MONTH).unwrap_or_default()
    }
}

/// Dollars a month of one volume.
fn monthly(volume: &BlockDevice) -> f64 {
    let number = |value: i64| u32::try_from(value.max(0)).map_or(f64::from(u32::MAX), f64::from);
    let gib = number(gibibytes(volume).unwrap_or(0));
    let iops = volume.iops.map_or(0.0, number);
    let throughput = volume.throughput.map_or(0.0, number);
    match volume.volume_type.unwrap_or(VolumeType::Gp3) {
        // 3,000 operations per second and 125 MiB/s are part of the volume.
        VolumeType::Gp3 => {
            0.08 * gib + 0.005 * (iops - 3000.0).max(0.0) + 0.04 * (throughput - 125.0).max(0.0)
        }
        VolumeType::Gp2 => 0.10 * gib,
        VolumeType::Io1 => 0.125 * gib + 0.065 * iops,
        // Operations become cheaper in two steps.
        VolumeType::Io2 => {
            let first = iops.min(32_000.0);
            let second = (iops - 32_000.0).clamp(0.0, 32_000.0);
            let third = (iops - 64_000.0).max(0.0);
            0.125 * gib + 0.065 * first + 0.0455 * second + 0.03185 * third
        }
        VolumeType::St1 => 0.045 * gib,
        VolumeType::Sc1 => 0.015 * gib,
        VolumeType::Standard => 0.05 * gib,
    }
}

/// Size of a volume, bytes. Without one, a snapshot decides.
fn bytes(volume: &BlockDevice) -> Option<i64> {
    Some(volume.volume_size.as_ref()?.0.parse::<Quantity>().ok()?.units())
}

/// Whole GiB, rounded up: the unit in which EC2 sells volumes.
pub fn gibibytes(volume: &BlockDevice) -> Option<i64> {
    let bytes = bytes(volume)?;
    Some(bytes / GIB + i64::from(bytes % GIB != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: &str) -> ClassSettings {
        let base = r#"{"subnetSelectorTerms":[],"securityGroupSelectorTerms":[],"amiSelectorTerms":[{"alias":"al2023@latest"}]}"#;
        let mut spec: serde_json::Value = serde_json::from_str(base).unwrap();
        let extra: serde_json::Value = serde_json::from_str(json).unwrap();
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        ClassSettings::checked(&serde_json::from_value(spec).unwrap()).unwrap()
    }

    #[test]
    fn the_default_volume_costs_a_fifth_of_a_cent() {
        assert_eq!(ClassSettings::default().volume_price, MicroDollarsPerHour(2192));
    }

    #[test]
    fn volumes_are_priced_by_type() {
        for (ebs, micros) in [
            (r#"{"volumeSize":"100Gi","volumeType":"gp3","iops":4000,"throughput":225}"#, 23_288),
            (r#"{"volumeSize":"100G","volumeType":"gp2"}"#, 12_877),
            (r#"{"volumeSize":"100Gi","volumeType":"io2","iops":40000}"#, 3_365_068),
            (r#"{"snapshotID":"snap-1"}"#, 0),
        ] {
            let class = settings(&format!(
                r#"{{"blockDeviceMappings":[{{"deviceName":"/dev/xvda","ebs":{ebs}}}]}}"#
            ));
            assert_eq!(class.volume_price.0, micros, "{ebs}");
        }
    }

    #[test]
    fn the_alias_names_the_family() {
        assert_eq!(settings("{}").family, AmiFamily::AL2023);
        let bottlerocket = r#"{"amiSelectorTerms":[{"alias":"bottlerocket@v1.20.4"}]}"#;
        assert_eq!(settings(bottlerocket).family, AmiFamily::Bottlerocket);
        assert_eq!(settings(r#"{"amiFamily":"Custom"}"#).family, AmiFamily::Custom);
    }

    #[test]
    fn ephemeral_storage_follows_the_volumes() {
        let gib = |class: &ClassSettings| class.ephemeral_volume_bytes() / GIB;
        assert_eq!(gib(&settings("{}")), 20);
        let mappings = r#""blockDeviceMappings":[{"deviceName":"/dev/xvda","ebs":{"volumeSize":"30Gi"}},{"deviceName":"/dev/xvdb","ebs":{"volumeSize":"50Gi"}}]"#;
        assert_eq!(gib(&settings(&format!("{{{mappings}}}"))), 30);
        assert_eq!(gib(&settings(&format!(r#"{{"amiFamily":"Custom",{mappings}}}"#))), 50);
        assert_eq!(
            gib(&settings(&format!(
                r#"{{"amiSelectorTerms":[{{"alias":"bottlerocket@latest"}}],{mappings}}}"#
            ))),
            50
        );
    }
}
