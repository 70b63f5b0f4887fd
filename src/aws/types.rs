//! Instance types of the region: facts, and the zones that offer them.
//!
//! Both change rarely and are large (some twenty pages), so they are refreshed twice a day, and only
//! while classes are resolved, never on the way of a plan or launch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_sdk_ec2::types::{
    ArchitectureType, AttachmentLimitType, EbsOptimizedSupport, EnaSupport, EphemeralNvmeSupport,
    Filter, InstanceTypeInfo, LocationType, NitroEnclavesSupport, PlacementGroupStrategy,
    SupportedAdditionalProcessorFeature, UsageClassType,
};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::Provider;
use super::error::from_sdk;
use crate::cloud::CloudError;
use crate::cloud::catalog::Catalog;
use crate::cloud::facts::{Accelerator, Facts, Gpu, Neuron};

/// New types and zones appear a few times a month.
const REFRESH: SignedDuration = SignedDuration::from_hours(12);

/// What was read last.
#[derive(Debug, Default)]
pub(super) struct Types(Mutex<Option<Known>>);

#[derive(Clone, Debug)]
struct Known {
    at: Timestamp,
    table: Arc<TypeTable>,
}

/// Instance types of the region.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct TypeTable {
    /// Facts by name.
    pub(super) facts: BTreeMap<Arc<str>, Facts>,
    /// Zones that offer a type.
    pub(super) zones: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Strategies of placement groups that a type may start in.
    pub(super) strategies: BTreeMap<Arc<str>, Vec<PlacementGroupStrategy>>,
}

/// Facts, and the strategies of placement groups, by name.
type Described = (BTreeMap<Arc<str>, Facts>, BTreeMap<Arc<str>, Vec<PlacementGroupStrategy>>);

impl Provider {
    /// The types that are known, however old; read now if there are none yet.
    pub(super) async fn type_table(&self, now: Timestamp) -> Result<Arc<TypeTable>, CloudError> {
        let known = self.types.0.lock().as_ref().map(|known| Arc::clone(&known.table));
        match known {
            Some(table) => Ok(table),
            None => self.read_types(now).await,
        }
    }

    /// Reads the types again when they are old. What was known stays when that fails.
    pub(super) async fn refresh_types(&self, now: Timestamp) -> Result<(), CloudError> {
        let known = self.types.0.lock().clone();
        match known {
            None => self.read_types(now).await.map(drop),
            Some(known) if now.duration_since(known.at) < REFRESH => Ok(()),
            Some(_) => {
                if let Err(error) = self.read_types(now).await {
                    tracing::warn!(%error, "instance types were not refreshed; the old ones stay");
                }
                Ok(())
            }
        }
    }

    async fn read_types(&self, now: Timestamp) -> Result<Arc<TypeTable>, CloudError> {
        let ((facts, strategies), zones) =
            futures::try_join!(self.describe_types(), self.describe_offerings())?;
        if facts.is_empty() || zones.is_empty() {
            return Err(CloudError::Unknown { message: "EC2 listed no instance types".to_owned() });
        }
        let read = TypeTable { facts, zones, strategies };
        let mut known = self.types.0.lock();
        // An equal table keeps its address, by which readers see that nothing changed.
        let table = match &*known {
            Some(known) if *known.table == read => Arc::clone(&known.table),
            _ => Arc::new(read),
        };
        *known = Some(Known { at: now, table: Arc::clone(&table) });
        Ok(table)
    }

    async fn describe_types(&self) -> Result<Described, CloudError> {
        let filter = |name: &str, values: &[&str]| {
            let values = values.iter().map(ToString::to_string).collect();
            Filter::builder().name(name).set_values(Some(values)).build()
        };
        let mut pages = self
            .ec2
            .describe_instance_types()
            .filters(filter("supported-virtualization-type", &["hvm"]))
            .filters(filter("processor-info.supported-architecture", &["x86_64", "arm64"]))
            .into_paginator()
            .page_size(100)
            .send();
        let mut all = BTreeMap::new();
        let mut strategies = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| from_sdk(&error))?;
            for info in page.instance_types() {
                let Some(facts) = facts(info) else { continue };
                let groups = info.placement_group_info();
                let supported = groups.map(|groups| groups.supported_strategies().to_vec());
                strategies.insert(Arc::clone(&facts.name), supported.unwrap_or_default());
                all.insert(Arc::clone(&facts.name), facts);
            }
        }
        Ok((all, strategies))
    }

    async fn describe_offerings(
        &self,
    ) -> Result<BTreeMap<Arc<str>, BTreeSet<Arc<str>>>, CloudError> {
        let mut pages = self
            .ec2
            .describe_instance_type_offerings()
            .location_type(LocationType::AvailabilityZone)
            .into_paginator()
            .page_size(1000)
            .send();
        let mut zones: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| from_sdk(&error))?;
            for offering in page.instance_type_offerings() {
                if let (Some(kind), Some(zone)) = (offering.instance_type(), offering.location()) {
                    zones.entry(kind.as_str().into()).or_default().insert(zone.into());
                }
            }
        }
        Ok(zones)
    }
}

fn number(value: Option<i32>) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
}

/// The facts of one answer. Branch interfaces and measured bandwidth are not part of the API; they
/// come from the built-in catalog.
fn facts(info: &InstanceTypeInfo) -> Option<Facts> {
    let name: Arc<str> = info.instance_type()?.as_str().into();
    let built_in = Catalog::built_in().ok().and_then(|catalog| catalog.facts(&name));
    let network = info.network_info()?;
    let processor = info.processor_info()?;
    let ebs = info.ebs_info();
    let ebs_bandwidth = ebs
        .filter(|ebs| ebs.ebs_optimized_support() == Some(&EbsOptimizedSupport::Default))
        .and_then(|ebs| ebs.ebs_optimized_info()?.maximum_bandwidth_in_mbps());
    let store = info.instance_storage_info();
    let usage = info.supported_usage_classes();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clock speeds are a few GHz and bandwidths below a few Tbit/s"
    )]
    let thousandfold = |value: f64| (value * 1000.0).round() as u32;
    let baseline = || {
        let cards = network.network_cards();
        let sum: f64 = cards
            .iter()
            .filter_map(aws_sdk_ec2::types::NetworkCardInfo::baseline_bandwidth_in_gbps)
            .sum();
        (sum > 0.0).then(|| thousandfold(sum))
    };
    Some(Facts {
        vcpus: number(info.v_cpu_info()?.default_v_cpus()),
        memory_mib: u64::try_from(info.memory_info()?.size_in_mib()?).ok()?,
        arm64: processor.supported_architectures().first() == Some(&ArchitectureType::Arm64),
        hypervisor: info.hypervisor().map(|h| h.as_str().to_owned()).unwrap_or_default(),
        cpu_manufacturer: processor.manufacturer().unwrap_or_default().to_owned(),
        clock_mhz: processor.sustained_clock_speed_in_ghz().map(thousandfold),
        encryption_in_transit: network.encryption_in_transit_supported().unwrap_or(false),
        enclaves: info.nitro_enclaves_support() == Some(&NitroEnclavesSupport::Supported),
        nested_virtualization: processor
            .supported_features()
            .contains(&SupportedAdditionalProcessorFeature::NestedVirtualization),
        instance_store_gb: store
            .and_then(aws_sdk_ec2::types::InstanceStorageInfo::total_size_in_gb)
            .and_then(|gb| u64::try_from(gb).ok()),
        nvme: store
            .and_then(|store| store.nvme_support())
            .is_some_and(|support| *support != EphemeralNvmeSupport::Unsupported),
        ebs_mbps: ebs_bandwidth.and_then(|mbps| u32::try_from(mbps).ok()),
        ebs_attachments: ebs
            .and_then(aws_sdk_ec2::types::EbsInfo::maximum_ebs_attachments)
            .and_then(|most| u32::try_from(most).ok()),
        ebs_shares_slots: ebs.and_then(aws_sdk_ec2::types::EbsInfo::attachment_limit_type)
            == Some(&AttachmentLimitType::Shared),
        network_mbps: built_in.map_or_else(baseline, |facts| facts.network_mbps),
        cards: network
            .network_cards()
            .iter()
            .map(|card| number(card.maximum_network_interfaces()))
            .collect(),
        default_card: usize::try_from(network.default_network_card_index().unwrap_or(0)).ok()?,
        ips_per_interface: number(network.ipv4_addresses_per_interface()),
        ena: network.ena_support().is_some_and(|support| *support != EnaSupport::Unsupported),
        efa: number(
            network.efa_info().and_then(aws_sdk_ec2::types::EfaInfo::maximum_efa_interfaces),
        ),
        pod_interfaces: built_in.map_or(0, |facts| facts.pod_interfaces),
        gpus: gpus(info),
        accelerators: accelerators(info),
        neurons: neurons(info),
        on_demand: usage.contains(&UsageClassType::OnDemand),
        spot: usage.contains(&UsageClassType::Spot),
        name,
    })
}

fn gpus(info: &InstanceTypeInfo) -> Vec<Gpu> {
    let devices = info.gpu_info().map(aws_sdk_ec2::types::GpuInfo::gpus).unwrap_or_default();
    devices
        .iter()
        .map(|gpu| Gpu {
            name: gpu.name().unwrap_or_default().to_owned(),
            manufacturer: gpu.manufacturer().unwrap_or_default().to_owned(),
            count: number(gpu.count()),
            memory_mib: number(
                gpu.memory_info().and_then(aws_sdk_ec2::types::GpuDeviceMemoryInfo::size_in_mib),
            )
            .into(),
        })
        .collect()
}

fn accelerators(info: &InstanceTypeInfo) -> Vec<Accelerator> {
    let devices = info
        .inference_accelerator_info()
        .map(aws_sdk_ec2::types::InferenceAcceleratorInfo::accelerators)
        .unwrap_or_default();
    devices
        .iter()
        .map(|device| Accelerator {
            name: device.name().unwrap_or_default().to_owned(),
            manufacturer: device.manufacturer().unwrap_or_default().to_owned(),
            count: number(device.count()),
        })
        .collect()
}

fn neurons(info: &InstanceTypeInfo) -> Vec<Neuron> {
    let devices =
        info.neuron_info().map(aws_sdk_ec2::types::NeuronInfo::neuron_devices).unwrap_or_default();
    devices
        .iter()
        .map(|device| Neuron {
            name: device.name().unwrap_or_default().to_owned(),
            count: number(device.count()),
            cores: number(
                device.core_info().and_then(aws_sdk_ec2::types::NeuronDeviceCoreInfo::count),
            ),
        })
        .collect()
}
