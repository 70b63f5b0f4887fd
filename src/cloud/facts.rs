//! What EC2 says about an instance type, and what that means for nodes.
//!
//! The same conversion serves the built-in catalog and the live API, so that offline plans and real
//! ones agree.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::settings::ClassSettings;
use crate::model::instance::{InstanceType, Offering};
use crate::model::labels;
use crate::model::requirement::{Requirement, Requirements};
use crate::model::resources::{EPHEMERAL_STORAGE, Resources};

/// Bytes in a MiB.
pub const MIB: i64 = 1 << 20;

/// Facts of one instance type.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of the table")]
pub struct Facts {
    /// Name, such as `m7i.large`.
    pub name: String,
    /// Virtual CPUs.
    pub vcpus: i64,
    /// Memory, MiB.
    pub memory_mib: i64,
    /// `amd64` or `arm64`.
    pub arch: String,
    /// `nitro`, `xen`, or empty for bare metal.
    pub hypervisor: String,
    /// Maker of the CPU: `intel`, `amd`, `aws`.
    pub cpu_maker: String,
    /// Sustained clock, MHz.
    #[serde(skip_serializing_if = "is_zero")]
    pub clock_mhz: i64,
    /// Whether traffic between instances is encrypted.
    pub encrypted: bool,
    /// Whether enclaves are supported.
    pub enclaves: bool,
    /// Local NVMe disks, GB.
    #[serde(skip_serializing_if = "is_zero")]
    pub nvme_gb: i64,
    /// All local disks, GB.
    #[serde(skip_serializing_if = "is_zero")]
    pub store_gb: i64,
    /// EBS bandwidth, Mbit/s.
    #[serde(skip_serializing_if = "is_zero")]
    pub ebs_mbps: i64,
    /// Network baseline, Mbit/s.
    #[serde(skip_serializing_if = "is_zero")]
    pub network_mbps: i64,
    /// Network interfaces of the default card.
    pub enis: i64,
    /// IPv4 addresses of one interface.
    pub ips: i64,
    /// Branch interfaces, for security groups for pods.
    #[serde(skip_serializing_if = "is_zero")]
    pub branch_enis: i64,
    /// Elastic fabric interfaces.
    #[serde(skip_serializing_if = "is_zero")]
    pub efas: i64,
    /// GPUs, one entry a model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Accelerator>,
    /// Neuron devices, one entry a model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub neurons: Vec<Accelerator>,
    /// Whether it can be bought on demand.
    pub on_demand: bool,
    /// Whether it can be bought as spot capacity.
    pub spot: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// GPUs or Neuron devices of one model.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Accelerator {
    /// Model, such as `T4`.
    pub name: String,
    /// Maker, such as `NVIDIA`.
    pub maker: String,
    /// Devices.
    pub count: i64,
    /// Memory of one device, MiB.
    pub memory_mib: i64,
    /// Cores of one device, for Neuron.
    #[serde(skip_serializing_if = "is_zero")]
    pub cores: i64,
}

impl Facts {
    /// Family, before the dot.
    pub fn family(&self) -> &str {
        self.name.split_once('.').map_or(&*self.name, |(family, _)| family)
    }

    /// Size, after the dot.
    pub fn size(&self) -> &str {
        self.name.split_once('.').map_or("", |(_, size)| size)
    }

    /// Category letters and generation number of the family: `c` and `7` of `c7gn`, `u` and `1` of
    /// `u-6tb1`.
    pub fn category_and_generation(&self) -> Option<(&str, &str)> {
        let family = self.family();
        let letters = family.bytes().take_while(u8::is_ascii_lowercase).count();
        let (category, mut rest) = family.split_at(letters);
        if let Some(size) = rest.strip_prefix('-') {
            let digits = size.bytes().take_while(u8::is_ascii_digit).count();
            rest = size[digits..].strip_prefix("tb")?;
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        (!category.is_empty() && digits > 0).then(|| (category, &rest[..digits]))
    }

    /// The type as nodes of a class would be, with these offerings.
    pub fn instance_type(
        &self,
        region: &str,
        settings: &ClassSettings,
        offerings: Vec<Offering>,
    ) -> InstanceType {
        let pods = self.pods(settings);
        InstanceType {
            name: (&*self.name).into(),
            requirements: self.requirements(region, &offerings),
            capacity: self.capacity(settings, pods),
            overhead: self.overhead(settings, pods),
            offerings,
        }
    }

    fn requirements(&self, region: &str, offerings: &[Offering]) -> Requirements {
        let mut all = Requirements::new();
        let mut put = |key: &str, value: String| all.insert(key, Requirement::one_of([value]));
        put(labels::INSTANCE_TYPE, self.name.clone());
        put(labels::ARCH, self.arch.clone());
        put(labels::OS, "linux".to_owned());
        put(labels::REGION, region.to_owned());
        let mut aws = |key: &str, value: Option<String>| {
            let requirement = match value {
                Some(value) => Requirement::one_of([value]),
                None => Requirement::does_not_exist(),
            };
            all.insert(&format!("{}{key}", labels::AWS_DOMAIN), requirement);
        };
        let positive = |value: i64| (value > 0).then(|| value.to_string());
        let named = self.category_and_generation();
        aws("instance-category", named.map(|(category, _)| category.to_owned()));
        aws("instance-generation", named.map(|(_, generation)| generation.to_owned()));
        aws("instance-family", Some(self.family().to_owned()));
        aws("instance-size", Some(self.size().to_owned()));
        aws("instance-capability-flex", Some(self.family().contains("-flex").to_string()));
        aws("instance-hypervisor", Some(self.hypervisor.clone()));
        aws("instance-encryption-in-transit-supported", Some(self.encrypted.to_string()));
        aws("nitro-sandbox", Some(self.enclaves.to_string()));
        aws("instance-cpu", Some(self.vcpus.to_string()));
        aws("instance-memory", Some(self.memory_mib.to_string()));
        aws(
            "instance-cpu-manufacturer",
            (!self.cpu_maker.is_empty()).then(|| self.cpu_maker.clone()),
        );
        aws("instance-cpu-sustained-clock-speed-mhz", positive(self.clock_mhz));
        aws("instance-ebs-bandwidth", positive(self.ebs_mbps));
        aws("instance-network-bandwidth", positive(self.network_mbps));
        aws("instance-local-nvme", positive(self.nvme_gb));
        let gpu = if let [gpu] = self.gpus.as_slice() { Some(gpu) } else { None };
        aws("instance-gpu-name", gpu.map(|gpu| label(&gpu.name)));
        aws("instance-gpu-manufacturer", gpu.map(|gpu| label(&gpu.maker)));
        aws("instance-gpu-count", gpu.map(|gpu| gpu.count.to_string()));
        aws("instance-gpu-memory", gpu.map(|gpu| gpu.memory_mib.to_string()));
        let neuron = if let [neuron] = self.neurons.as_slice() { Some(neuron) } else { None };
        aws("instance-accelerator-name", neuron.map(|neuron| label(&neuron.name)));
        aws("instance-accelerator-manufacturer", neuron.map(|_| "aws".to_owned()));
        aws("instance-accelerator-count", neuron.map(|neuron| neuron.count.to_string()));
        all.insert(
            &format!("{}instance-tenancy", labels::AWS_DOMAIN),
            Requirement::one_of(["default", "dedicated"]),
        );
        all.insert(labels::WINDOWS_BUILD, Requirement::does_not_exist());
        all.insert(
            labels::ZONE,
            Requirement::one_of(offerings.iter().map(|o| Arc::clone(&o.zone))),
        );
        all.insert(
            labels::CAPACITY_TYPE,
            Requirement::one_of(offerings.iter().map(|o| o.capacity_type.label())),
        );
        all
    }

    /// Pods by the addresses of the default card's interfaces, of which `reserved` are kept back.
    fn eni_pods(&self, reserved: i64) -> i64 {
        match (self.enis - reserved).max(0) {
            0 => 0,
            enis => enis * (self.ips - 1) + 2,
        }
    }

    fn pods(&self, settings: &ClassSettings) -> i64 {
        let pods = settings.max_pods.unwrap_or_else(|| self.eni_pods(settings.reserved_enis));
        match settings.pods_per_core {
            Some(per_core) if per_core > 0 && settings.family.pods_per_core() => {
                pods.min(per_core * self.vcpus)
            }
            _ => pods,
        }
    }

    fn capacity(&self, settings: &ClassSettings, pods: i64) -> Resources {
        // The hypervisor and firmware keep some memory; Graviton machines 64 MiB more.
        let mib = self.memory_mib - if self.arch == "arm64" { 64 } else { 0 };
        let kept = (mib * settings.memory_overhead_permille + 999) / 1000;
        let mut capacity = Resources::new(self.vcpus * 1000, (mib - kept) * MIB);
        capacity.pods = pods;
        let local = settings.raid0.then_some(self.store_gb).filter(|gb| *gb > 0);
        capacity.ephemeral_storage =
            local.map_or(settings.root_bytes, |gigabytes| gigabytes * 1_000_000_000);
        let by_maker = |maker: &str| -> i64 {
            self.gpus.iter().filter(|gpu| gpu.maker == maker).map(|gpu| gpu.count).sum()
        };
        capacity.set("nvidia.com/gpu", by_maker("NVIDIA"));
        capacity.set("amd.com/gpu", by_maker("AMD"));
        capacity.set("habana.ai/gaudi", by_maker("Habana"));
        capacity.set("aws.amazon.com/neuron", self.neurons.iter().map(|n| n.count).sum());
        let cores = self.neurons.first().map_or(0, |neuron| neuron.count * neuron.cores);
        capacity.set("aws.amazon.com/neuroncore", cores);
        capacity.set("vpc.amazonaws.com/pod-eni", self.branch_enis);
        capacity.set("vpc.amazonaws.com/efa", self.efas);
        capacity
    }

    fn overhead(&self, settings: &ClassSettings, pods: i64) -> Resources {
        // The EKS images reserve by the address-based count whatever maxPods is; Bottlerocket by
        // the real count.
        let counted = if settings.family.memory_by_eni() { self.eni_pods(0) } else { pods };
        let mut overhead = Resources::new(reserved_cpu(self.vcpus), (11 * counted + 255) * MIB);
        overhead.ephemeral_storage = 1 << 30;
        for (name, amount) in settings.kube_reserved.iter() {
            overhead.set(name, amount);
        }
        overhead.add(&settings.system_reserved);
        let capacity = self.capacity(settings, pods);
        let memory = settings.eviction_memory.bytes(capacity.memory);
        overhead.memory += memory;
        let storage = settings.eviction_storage.bytes(capacity.ephemeral_storage);
        overhead.set(EPHEMERAL_STORAGE, overhead.ephemeral_storage + storage);
        overhead
    }
}

/// CPU that the kubelet and runtime keep, millicores: 6 % of the first core, 1 % of the second,
/// 0.5 % of the next two and 0.25 % of the rest, as the EKS images compute it.
fn reserved_cpu(vcpus: i64) -> i64 {
    let milli = vcpus * 1000;
    let slice =
        |from: i64, to: i64, per_100k: i64| (milli.min(to) - from).max(0) * per_100k / 100_000;
    slice(0, 1000, 6000)
        + slice(1000, 2000, 1000)
        + slice(2000, 4000, 500)
        + slice(4000, i64::MAX, 250)
}

fn label(text: &str) -> String {
    text.to_lowercase().replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_into_category_and_generation() {
        for (name, expected) in [
            ("c7gn.16xlarge", Some(("c", "7"))),
            ("u-6tb1.metal", Some(("u", "1"))),
            ("p6-b300.48xlarge", Some(("p", "6"))),
            ("m7i-flex.large", Some(("m", "7"))),
            ("mac2.metal", Some(("mac", "2"))),
        ] {
            let facts = Facts { name: name.to_owned(), ..Facts::default() };
            assert_eq!(facts.category_and_generation(), expected, "{name}");
        }
    }

    #[test]
    fn reserved_cpu_by_size() {
        for (vcpus, milli) in
            [(1, 60), (2, 70), (4, 80), (8, 90), (16, 110), (96, 310), (192, 550), (448, 1190)]
        {
            assert_eq!(reserved_cpu(vcpus), milli, "{vcpus}");
        }
    }
}
