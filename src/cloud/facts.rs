//! What EC2 says about an instance type, and what that makes of it as a node.
//!
//! [`Facts`] is a small record of the fields of `DescribeInstanceTypes` that matter here. The
//! built-in catalog stores these records and the provider fills them from the live API; both turn
//! them into [`InstanceType`] by the same pure conversion, so that offline answers are those of a
//! cluster. Prices and availability come from the caller.

mod capacity;
mod labels;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use labels::KEYS;

use super::settings::ClassSettings;
use crate::api::ec2nodeclass::AmiFamily;
use crate::model::instance::{InstanceType, Offering};

/// An instance type as EC2 describes it. Absent and zero fields are left out when stored.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of the table")]
pub struct Facts {
    /// Name, such as `m5.large`.
    #[serde(rename = "n", with = "shared_text")]
    pub name: Arc<str>,
    /// Default vCPUs.
    #[serde(rename = "c")]
    pub vcpus: u32,
    /// Memory, MiB.
    #[serde(rename = "m")]
    pub memory_mib: u64,
    /// Whether the architecture is arm64 (else x86-64).
    #[serde(rename = "a", skip_serializing_if = "is_default")]
    pub arm64: bool,
    /// Hypervisor: `nitro`, `xen`, or empty for bare metal.
    #[serde(rename = "h", skip_serializing_if = "is_default")]
    pub hypervisor: String,
    /// Maker of the processor as EC2 spells it.
    #[serde(rename = "p", skip_serializing_if = "is_default")]
    pub cpu_manufacturer: String,
    /// Sustained clock, MHz.
    #[serde(rename = "hz", skip_serializing_if = "is_default")]
    pub clock_mhz: Option<u32>,
    /// Whether traffic between instances is encrypted in transit.
    #[serde(rename = "et", skip_serializing_if = "is_default")]
    pub encryption_in_transit: bool,
    /// Whether Nitro enclaves are supported.
    #[serde(rename = "ne", skip_serializing_if = "is_default")]
    pub enclaves: bool,
    /// Whether the processor supports nested virtualization.
    #[serde(rename = "nv", skip_serializing_if = "is_default")]
    pub nested_virtualization: bool,
    /// Instance store, decimal GB in total.
    #[serde(rename = "st", skip_serializing_if = "is_default")]
    pub instance_store_gb: Option<u64>,
    /// Whether the instance store is NVMe.
    #[serde(rename = "nm", skip_serializing_if = "is_default")]
    pub nvme: bool,
    /// Highest EBS bandwidth, Mbit/s, of types that are EBS-optimized by default.
    #[serde(rename = "eb", skip_serializing_if = "is_default")]
    pub ebs_mbps: Option<u32>,
    /// Most EBS volumes, the root volume among them.
    #[serde(rename = "ea", skip_serializing_if = "is_default")]
    pub ebs_attachments: Option<u32>,
    /// Whether further network interfaces take the places of EBS volumes.
    #[serde(rename = "es", skip_serializing_if = "is_default")]
    pub ebs_shares_slots: bool,
    /// Baseline network bandwidth, Mbit/s.
    #[serde(rename = "nb", skip_serializing_if = "is_default")]
    pub network_mbps: Option<u32>,
    /// Highest number of interfaces of each network card.
    #[serde(rename = "nc", skip_serializing_if = "is_default")]
    pub cards: Vec<u32>,
    /// Index of the default network card.
    #[serde(rename = "dc", skip_serializing_if = "is_default")]
    pub default_card: usize,
    /// IPv4 addresses of an interface.
    #[serde(rename = "ip")]
    pub ips_per_interface: u32,
    /// Whether the elastic network adapter is supported.
    #[serde(rename = "en", skip_serializing_if = "is_default")]
    pub ena: bool,
    /// Highest number of elastic fabric interfaces.
    #[serde(rename = "ef", skip_serializing_if = "is_default")]
    pub efa: u32,
    /// Branch interfaces for pods, where trunking is possible.
    #[serde(rename = "bi", skip_serializing_if = "is_default")]
    pub pod_interfaces: u32,
    /// GPUs by kind.
    #[serde(rename = "g", skip_serializing_if = "is_default")]
    pub gpus: Vec<Gpu>,
    /// Inference accelerators by kind.
    #[serde(rename = "ac", skip_serializing_if = "is_default")]
    pub accelerators: Vec<Accelerator>,
    /// Neuron devices by kind.
    #[serde(rename = "nd", skip_serializing_if = "is_default")]
    pub neurons: Vec<Neuron>,
    /// Whether it is sold on demand.
    #[serde(rename = "od", skip_serializing_if = "is_default")]
    pub on_demand: bool,
    /// Whether it is sold as spot.
    #[serde(rename = "sp", skip_serializing_if = "is_default")]
    pub spot: bool,
}

/// GPUs of one kind.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gpu {
    /// Name, such as `T4`.
    #[serde(rename = "n")]
    pub name: String,
    /// Maker, such as `NVIDIA`.
    #[serde(rename = "p")]
    pub manufacturer: String,
    /// Number; 0 for a fraction of one.
    #[serde(rename = "c")]
    pub count: u32,
    /// Memory of each, MiB.
    #[serde(rename = "m")]
    pub memory_mib: u64,
}

/// Inference accelerators of one kind.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Accelerator {
    /// Name.
    #[serde(rename = "n")]
    pub name: String,
    /// Maker.
    #[serde(rename = "p")]
    pub manufacturer: String,
    /// Number.
    #[serde(rename = "c")]
    pub count: u32,
}

/// Neuron devices of one kind.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Neuron {
    /// Name.
    #[serde(rename = "n")]
    pub name: String,
    /// Number of devices.
    #[serde(rename = "c")]
    pub count: u32,
    /// Cores of each.
    #[serde(rename = "k")]
    pub cores: u32,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

mod shared_text {
    //! Shared text as plain text; serde's own support for it is off in this crate.

    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, writer: S) -> Result<S::Ok, S::Error> {
        writer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(reader: D) -> Result<Arc<str>, D::Error> {
        Ok(Arc::from(String::deserialize(reader)?))
    }
}

/// A zone that an instance type is offered in.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Zone {
    /// Name, such as `us-west-2a`.
    pub name: Arc<str>,
    /// Id, the same for all accounts; empty when unknown.
    pub id: Arc<str>,
}

impl Facts {
    /// The instance type as nodes of `class` in `region` see it.
    pub fn instance_type(
        &self,
        region: &str,
        class: &ClassSettings,
        zones: &[Zone],
        offerings: Vec<Offering>,
    ) -> InstanceType {
        let capacity = self.capacity(class);
        let overhead = self.overhead(class, &capacity);
        let requirements = self.requirements(class.family, region, zones, &offerings);
        let attach_limits = self.attach_limits(class);
        InstanceType {
            name: Arc::clone(&self.name),
            requirements,
            capacity,
            overhead,
            attach_limits,
            offerings,
        }
    }

    /// Why nodes of `class` cannot be of this type, whatever its price.
    pub fn incompatibility(&self, class: &ClassSettings) -> Option<String> {
        if class.family == AmiFamily::AL2023 && self.name.starts_with("a1.") {
            return Some("AL2023 does not boot on the first generation of Graviton".to_owned());
        }
        if class.nested_virtualization && !self.nested_virtualization {
            return Some("it does not support nested virtualization".to_owned());
        }
        if class.connection_tracking && self.hypervisor != "nitro" {
            return Some("connection tracking needs the nitro hypervisor".to_owned());
        }
        self.interface_mismatch(class)
    }

    /// Why the class's network interfaces do not fit this type.
    fn interface_mismatch(&self, class: &ClassSettings) -> Option<String> {
        if class.interfaces.is_empty() {
            return None;
        }
        if !self.ena {
            return Some("network interfaces need the elastic network adapter".to_owned());
        }
        for interface in &class.interfaces {
            let card = usize::try_from(interface.network_card_index).unwrap_or(usize::MAX);
            let room = self.cards.get(card).copied().unwrap_or(0);
            if !u32::try_from(interface.device_index).is_ok_and(|device| device < room) {
                return Some(format!(
                    "it has no device {} on network card {}",
                    interface.device_index, interface.network_card_index
                ));
            }
        }
        let fabric = class.fabric_interfaces(|_| true);
        (fabric > i64::from(self.efa))
            .then(|| format!("it has {} of {fabric} fabric interfaces", self.efa))
    }
}

#[cfg(test)]
mod tests;
