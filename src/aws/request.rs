//! What a launch template holds, as plain values, and its form in the SDK.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{
    CapacityReservationPreference, CapacityReservationTarget,
    ConnectionTrackingSpecificationRequest, LaunchTemplateBlockDeviceMappingRequest,
    LaunchTemplateCapacityReservationSpecificationRequest, LaunchTemplateCpuOptionsRequest,
    LaunchTemplateEbsBlockDeviceRequest, LaunchTemplateEnclaveOptionsRequest,
    LaunchTemplateIamInstanceProfileSpecificationRequest,
    LaunchTemplateInstanceMarketOptionsRequest, LaunchTemplateInstanceMetadataOptionsRequest,
    LaunchTemplateInstanceMetadataTagsState,
    LaunchTemplateInstanceNetworkInterfaceSpecificationRequest, LaunchTemplatePlacementRequest,
    LaunchTemplateTagSpecificationRequest, LaunchTemplatesMonitoringRequest, MarketType,
    NestedVirtualizationSpecification, RequestLaunchTemplateData, ResourceType, VolumeType,
};
use serde::Serialize;

use super::tags;
use crate::api::ec2nodeclass::{
    BlockDevice, BlockDeviceMapping, ConnectionTracking, InterfaceType, MetadataOptions,
    NetworkInterface, PlacementGroupSelector,
};
use crate::cloud::settings::gibibytes;
use crate::model::digest::hex;
use crate::model::instance::CapacityReservation;

type InterfaceRequest = LaunchTemplateInstanceNetworkInterfaceSpecificationRequest;

/// A launch template.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Template {
    /// Image id.
    pub(super) image: String,
    /// User data in base64.
    pub(super) user_data: String,
    /// Name of the instance profile.
    pub(super) profile: String,
    /// Ids of the security groups.
    pub(super) security_groups: Vec<String>,
    /// Volumes; those of the image when empty.
    pub(super) volumes: Vec<BlockDeviceMapping>,
    /// The instance metadata service.
    pub(super) metadata: MetadataOptions,
    /// Detailed monitoring.
    pub(super) monitoring: Option<bool>,
    /// Whether nodes get a public address; the subnet's setting when absent.
    pub(super) public_address: Option<bool>,
    /// Address prefixes on the primary interface.
    pub(super) prefixes: Option<i32>,
    /// Interfaces that the class lists.
    pub(super) interfaces: Vec<NetworkInterface>,
    /// Number of elastic fabric interfaces that pods asked for.
    pub(super) efa: u32,
    /// Connection tracking.
    pub(super) connection_tracking: Option<ConnectionTracking>,
    /// Whether virtual machines may run inside.
    pub(super) nested_virtualization: bool,
    /// Placement group.
    pub(super) placement_group: Option<PlacementGroupSelector>,
    /// The partition of it, from 1; EC2 chooses when absent.
    pub(super) partition: Option<i32>,
    /// Whether Nitro enclaves are on.
    pub(super) enclave: bool,
    /// Whether instances are bought as spot.
    pub(super) spot: bool,
    /// The reservation that instances are launched into.
    pub(super) reservation: Option<ReservationTarget>,
    /// Tags of the template and of what it makes.
    pub(super) tags: BTreeMap<String, String>,
}

/// A capacity reservation, as a template names it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ReservationTarget {
    id: String,
    block: bool,
    interruptible: bool,
}

impl From<&CapacityReservation> for ReservationTarget {
    fn from(reservation: &CapacityReservation) -> Self {
        Self {
            id: reservation.id.to_string(),
            block: reservation.block,
            interruptible: reservation.interruptible,
        }
    }
}

impl ReservationTarget {
    /// The market that the reservation belongs to, where EC2 wants it named.
    fn market(&self) -> Option<MarketType> {
        match (self.block, self.interruptible) {
            (true, _) => Some(MarketType::CapacityBlock),
            (false, true) => Some(MarketType::InterruptibleCapacityReservation),
            (false, false) => None,
        }
    }
}

impl Template {
    /// A digest of everything in the template: 32 hexadecimal digits.
    pub(super) fn digest(&self) -> String {
        // A struct of texts, numbers and lists has a JSON form.
        let json = serde_json::to_vec(self).unwrap_or_default();
        hex(json, 16)
    }

    /// The template in the SDK's form.
    pub(super) fn data(&self) -> RequestLaunchTemplateData {
        let interfaces = self.interface_requests();
        let profile = LaunchTemplateIamInstanceProfileSpecificationRequest::builder()
            .name(&self.profile)
            .build();
        let volumes: Vec<_> = self.volumes.iter().map(volume).collect();
        let mut data = RequestLaunchTemplateData::builder()
            .image_id(&self.image)
            .user_data(&self.user_data)
            .iam_instance_profile(profile)
            .set_block_device_mappings((!volumes.is_empty()).then_some(volumes))
            .metadata_options(self.metadata_options())
            .capacity_reservation_specification(self.reservation_specification())
            .set_tag_specifications(Some(self.tag_specifications()))
            .set_placement(self.placement_group.as_ref().map(|group| {
                LaunchTemplatePlacementRequest::builder()
                    .set_group_name(group.name.clone())
                    .set_group_id(group.id.clone())
                    .set_partition_number(self.partition)
                    .build()
            }));
        if let Some(enabled) = self.monitoring {
            data = data
                .monitoring(LaunchTemplatesMonitoringRequest::builder().enabled(enabled).build());
        }
        if let Some(market) = self.reservation.as_ref().and_then(ReservationTarget::market) {
            let options = LaunchTemplateInstanceMarketOptionsRequest::builder();
            data = data.instance_market_options(options.market_type(market).build());
        }
        if self.nested_virtualization {
            let enabled = NestedVirtualizationSpecification::Enabled;
            data = data.cpu_options(
                LaunchTemplateCpuOptionsRequest::builder().nested_virtualization(enabled).build(),
            );
        }
        if self.enclave {
            data = data.enclave_options(
                LaunchTemplateEnclaveOptionsRequest::builder().enabled(true).build(),
            );
        }
        // EC2 takes the groups in one of two places.
        data = if interfaces.is_empty() {
            data.set_security_group_ids(Some(self.security_groups.clone()))
        } else {
            data.set_network_interfaces(Some(interfaces))
        };
        data.build()
    }

    fn metadata_options(&self) -> LaunchTemplateInstanceMetadataOptionsRequest {
        let hops = i32::try_from(self.metadata.http_put_response_hop_limit).unwrap_or(1);
        LaunchTemplateInstanceMetadataOptionsRequest::builder()
            .http_endpoint(self.metadata.http_endpoint.as_str().into())
            .http_protocol_ipv6(self.metadata.http_protocol_ipv6.as_str().into())
            .http_put_response_hop_limit(hops)
            .http_tokens(self.metadata.http_tokens.as_str().into())
            // Our tag keys have slashes, which this feature refuses.
            .instance_metadata_tags(LaunchTemplateInstanceMetadataTagsState::Disabled)
            .build()
    }

    /// The named reservation and nothing else; without one none at all, not even an open one, whose
    /// instances are counted for those that name it.
    fn reservation_specification(&self) -> LaunchTemplateCapacityReservationSpecificationRequest {
        let request = LaunchTemplateCapacityReservationSpecificationRequest::builder();
        let Some(reservation) = &self.reservation else {
            return request
                .capacity_reservation_preference(CapacityReservationPreference::None)
                .build();
        };
        let only = CapacityReservationPreference::CapacityReservationsOnly;
        let target =
            CapacityReservationTarget::builder().capacity_reservation_id(&reservation.id).build();
        request.capacity_reservation_preference(only).capacity_reservation_target(target).build()
    }

    fn tag_specifications(&self) -> Vec<LaunchTemplateTagSpecificationRequest> {
        let tags = tags::list(&self.tags);
        let mut kinds = vec![ResourceType::NetworkInterface];
        if self.spot {
            kinds.push(ResourceType::SpotInstancesRequest);
        }
        kinds
            .into_iter()
            .map(|kind| {
                LaunchTemplateTagSpecificationRequest::builder()
                    .resource_type(kind)
                    .set_tags(Some(tags.clone()))
                    .build()
            })
            .collect()
    }

    /// Interfaces, where the default one does not do.
    fn interface_requests(&self) -> Vec<InterfaceRequest> {
        if !self.interfaces.is_empty() {
            return self
                .interfaces
                .iter()
                .map(|nic| {
                    let fabric_only = nic.interface_type == InterfaceType::EfaOnly;
                    let kind = if fabric_only { "efa-only" } else { "interface" };
                    let card = nic.network_card_index;
                    self.interface(card, nic.device_index, Some(kind), fabric_only)
                })
                .collect();
        }
        if self.efa > 0 {
            let card = |index: u32| i32::try_from(index).unwrap_or(i32::MAX);
            return (0..self.efa)
                .map(|index| self.interface(card(index), i32::from(index > 0), Some("efa"), false))
                .collect();
        }
        let plain = self.public_address.is_none()
            && self.prefixes.is_none()
            && self.connection_tracking.is_none();
        if plain { Vec::new() } else { vec![self.interface(0, 0, None, false)] }
    }

    fn interface(
        &self,
        card: i32,
        device: i32,
        kind: Option<&str>,
        fabric_only: bool,
    ) -> InterfaceRequest {
        let mut request = InterfaceRequest::builder()
            .network_card_index(card)
            .device_index(device)
            .set_interface_type(kind.map(str::to_owned))
            .set_groups(Some(self.security_groups.clone()));
        let primary = card == 0 && device == 0;
        if !fabric_only {
            request = request
                .set_connection_tracking_specification(
                    self.connection_tracking.as_ref().map(connection_tracking),
                )
                .set_ipv4_prefix_count(self.prefixes.filter(|_| primary));
            // EC2 refuses a public address on instances with several interfaces.
            if self.interfaces.len() < 2 && self.efa < 2 {
                request = request.set_associate_public_ip_address(self.public_address);
            }
        }
        request.build()
    }
}

fn connection_tracking(settings: &ConnectionTracking) -> ConnectionTrackingSpecificationRequest {
    ConnectionTrackingSpecificationRequest::builder()
        .set_tcp_established_timeout(settings.tcp_established_timeout)
        .set_udp_stream_timeout(settings.udp_stream_timeout)
        .set_udp_timeout(settings.udp_timeout)
        .build()
}

fn volume(mapping: &BlockDeviceMapping) -> LaunchTemplateBlockDeviceMappingRequest {
    LaunchTemplateBlockDeviceMappingRequest::builder()
        .set_device_name(mapping.device_name.clone())
        .set_ebs(mapping.ebs.as_ref().map(block_device))
        .build()
}

fn block_device(ebs: &BlockDevice) -> LaunchTemplateEbsBlockDeviceRequest {
    let small = |value: i64| i32::try_from(value).unwrap_or(i32::MAX);
    let kind = ebs.volume_type.and_then(|kind| serde_json::to_value(kind).ok());
    LaunchTemplateEbsBlockDeviceRequest::builder()
        .set_delete_on_termination(ebs.delete_on_termination.or(Some(true)))
        .set_encrypted(ebs.encrypted)
        .set_iops(ebs.iops.map(small))
        .set_throughput(ebs.throughput.map(small))
        .set_kms_key_id(ebs.kms_key_id.clone())
        .set_snapshot_id(ebs.snapshot_id.clone())
        .set_volume_initialization_rate(ebs.volume_initialization_rate)
        .set_volume_size(gibibytes(ebs).map(small))
        .set_volume_type(kind.and_then(|kind| kind.as_str().map(VolumeType::from)))
        .build()
}
