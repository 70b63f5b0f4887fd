//! How much of an instance type pods can use: capacity, and what the system keeps from them.
//!
//! The formulas are those of the EKS-optimized images (their bootstrap code computes the kubelet's
//! reservations), so that a planned node and a booted node agree.

use std::sync::Arc;

use super::Facts;
use crate::api::ec2nodeclass::AmiFamily;
use crate::cloud::kubelet::Threshold;
use crate::cloud::settings::ClassSettings;
use crate::model::resources::{CPU, EPHEMERAL_STORAGE, MEMORY, Resources};

/// CSI driver of EBS volumes.
const EBS_DRIVER: &str = "ebs.csi.aws.com";
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
/// Instance stores are sold in decimal gigabytes.
const GB: i64 = 1_000_000_000;
/// Memory that arm64 machines lose to the firmware before the hypervisor's share, MiB.
const ARM64_FIRMWARE_MIB: u64 = 64;
/// The kubelet's own default, for families that do not count interfaces.
const KUBELET_MAX_PODS: i64 = 110;
/// Free memory below which the kubelet evicts, by its default.
const EVICTION_MEMORY: i64 = 100 * MIB;

impl Facts {
    /// All resources of the machine.
    pub(super) fn capacity(&self, class: &ClassSettings) -> Resources {
        let mut capacity = Resources::new(i64::from(self.vcpus) * 1000, self.memory(class));
        capacity.pods = self.pods(class);
        capacity.ephemeral_storage = self.ephemeral_storage(class);
        for (name, amount) in self.devices(class) {
            capacity.set(name, amount);
        }
        capacity
    }

    /// Memory that the operating system will see, bytes.
    fn memory(&self, class: &ClassSettings) -> i64 {
        let firmware = if self.arm64 { ARM64_FIRMWARE_MIB } else { 0 };
        let mib = i64::try_from(self.memory_mib.saturating_sub(firmware)).unwrap_or(i64::MAX);
        let share = i128::from(mib) * i128::from(class.memory_overhead_permille.max(0));
        let hypervisor = i64::try_from((share + 999) / 1000).unwrap_or(i64::MAX);
        mib.saturating_sub(hypervisor).max(0).saturating_mul(MIB)
    }

    /// Pod slots of a node of this type.
    pub fn pods(&self, class: &ClassSettings) -> i64 {
        let pods = match class.kubelet.max_pods {
            Some(max) => i64::from(max),
            None if class.counts_interfaces() => {
                self.pods_by_interfaces(class, class.reserved_enis)
            }
            None => KUBELET_MAX_PODS,
        };
        match class.kubelet.pods_per_core {
            Some(per_core) if per_core > 0 && class.family != AmiFamily::Bottlerocket => {
                pods.min(i64::from(per_core) * i64::from(self.vcpus))
            }
            _ => pods,
        }
    }

    /// The number of pods that the interfaces' addresses allow: each interface keeps one address
    /// for itself, and two pods live in the host's network.
    fn pods_by_interfaces(&self, class: &ClassSettings, reserved: i64) -> i64 {
        let on_card = self.cards.get(self.default_card).copied().unwrap_or(0);
        let fabric = class.fabric_interfaces(|card| card == 0);
        let interfaces = i64::from(on_card) - reserved - fabric;
        if interfaces <= 0 {
            return 0;
        }
        interfaces * (i64::from(self.ips_per_interface) - 1) + 2
    }

    /// Disk for pods, bytes.
    fn ephemeral_storage(&self, class: &ClassSettings) -> i64 {
        if let (true, Some(gb)) = (class.raid0, self.instance_store_gb) {
            return i64::try_from(gb).unwrap_or(i64::MAX / GB).saturating_mul(GB);
        }
        class.ephemeral_volume_bytes()
    }

    /// Extended resources that the machine's device plugins will announce.
    fn devices(&self, class: &ClassSettings) -> Vec<(&'static str, i64)> {
        let gpus = |manufacturer: &str| -> i64 {
            let of_maker = self.gpus.iter().filter(|gpu| gpu.manufacturer == manufacturer);
            of_maker.map(|gpu| i64::from(gpu.count)).sum()
        };
        let neurons = self.neurons.iter().map(|device| i64::from(device.count)).sum();
        let cores = self.neurons.first().map(|d| i64::from(d.count) * i64::from(d.cores));
        let fabric = if class.interfaces.is_empty() {
            i64::from(self.efa)
        } else {
            class.fabric_interfaces(|_| true)
        };
        // The VPC resource controller gives Windows pods the addresses of one interface.
        let addresses = if class.family.is_windows() {
            (i64::from(self.ips_per_interface) - 1).max(0)
        } else {
            0
        };
        vec![
            ("nvidia.com/gpu", gpus("NVIDIA")),
            ("amd.com/gpu", gpus("AMD")),
            ("habana.ai/gaudi", gpus("Habana")),
            ("aws.amazon.com/neuron", neurons),
            ("aws.amazon.com/neuroncore", cores.unwrap_or(0)),
            ("vpc.amazonaws.com/pod-eni", i64::from(self.pod_interfaces)),
            ("vpc.amazonaws.com/efa", fabric),
            ("vpc.amazonaws.com/PrivateIPv4Address", addresses),
        ]
    }

    /// Volumes that pods can attach, by CSI driver, as the EBS driver will state it: what EC2 allows
    /// less the volumes that a node starts with and, where network interfaces take places as well,
    /// one that the CNI adds while the node starts.
    pub(super) fn attach_limits(&self, class: &ClassSettings) -> Vec<(Arc<str>, i64)> {
        let Some(most) = self.ebs_attachments else { return Vec::new() };
        let own = i64::try_from(class.resolved_volumes().len()).unwrap_or(i64::MAX);
        let left = i64::from(most) - own - i64::from(self.ebs_shares_slots);
        // The driver never states less.
        vec![(EBS_DRIVER.into(), left.max(1))]
    }

    /// What the kubelet keeps from pods: its own reservations and the eviction threshold.
    pub(super) fn overhead(&self, class: &ClassSettings, capacity: &Resources) -> Resources {
        let mut kube = self.kube_reserved(class, capacity);
        for (name, quantity) in &class.kubelet.kube_reserved {
            kube.set(name, Resources::amount(name, *quantity));
        }
        let mut overhead = kube;
        for (name, quantity) in &class.kubelet.system_reserved {
            let sum = overhead.get(name) + Resources::amount(name, *quantity);
            overhead.set(name, sum);
        }
        let eviction = &class.kubelet.eviction_hard;
        overhead.memory +=
            threshold(eviction.get("memory.available"), capacity.memory, EVICTION_MEMORY);
        let storage = capacity.ephemeral_storage;
        overhead.ephemeral_storage +=
            threshold(eviction.get("nodefs.available"), storage, ceil_percent(storage, 10_000));
        overhead
    }

    /// The family's default reservation for the kubelet and the container runtime.
    fn kube_reserved(&self, class: &ClassSettings, capacity: &Resources) -> Resources {
        // Interfaces that are reserved for other uses do not lower what the bootstrap code reserves.
        let pods = if class.reserves_by_interfaces() {
            self.pods_by_interfaces(&ClassSettings::default(), 0)
        } else {
            capacity.pods
        };
        let mut reserved = Resources::default();
        reserved.set(CPU, kube_cpu(capacity.cpu));
        reserved.set(MEMORY, (11 * pods + 255) * MIB);
        reserved.set(EPHEMERAL_STORAGE, GIB);
        reserved
    }
}

/// Millicores for the kubelet: 6 % of the first core, 1 % of the second, 0.5 % of the next two and
/// 0.25 % of the rest.
fn kube_cpu(milli: i64) -> i64 {
    let slice = |from: i64, to: i64| (milli.min(to) - from).max(0);
    slice(0, 1000) * 6 / 100
        + slice(1000, 2000) / 100
        + slice(2000, 4000) / 200
        + slice(4000, i64::MAX) / 400
}

/// An eviction threshold in the unit of `capacity`.
fn threshold(set: Option<&Threshold>, capacity: i64, default: i64) -> i64 {
    match set {
        None => default,
        Some(Threshold::Amount(quantity)) => quantity.units(),
        // The kubelet reads 100 % as "off".
        Some(Threshold::MilliPercent(100_000)) => 0,
        Some(Threshold::MilliPercent(percent)) => ceil_percent(capacity, *percent),
    }
}

/// A share of `capacity` in thousandths of a percent, rounded up.
fn ceil_percent(capacity: i64, milli_percent: u32) -> i64 {
    let share = (i128::from(capacity) * i128::from(milli_percent) + 99_999) / 100_000;
    i64::try_from(share).unwrap_or(i64::MAX)
}
