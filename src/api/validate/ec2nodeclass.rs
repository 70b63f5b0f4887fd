//! EC2NodeClasses.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Report, kubelet};
use crate::api::EC2NodeClass;
use crate::api::ec2nodeclass::hardware::{
    BlockDevice, InterfaceType, NetworkInterface, RATE_NEEDS_SNAPSHOT, SNAPSHOT_OR_SIZE,
    SOME_TIMEOUT,
};
use crate::api::ec2nodeclass::selectors::{
    ALIAS_FAMILY, ALIAS_FORM, ALIAS_WINDOWS, AMI_ALIAS, AMI_ID, AMI_SOME, AmiSelectorTerm,
    GROUP_ID, GROUP_NAME, GROUP_SOME, PLACEMENT_ONE, RESERVATION_ID, RESERVATION_SOME, SUBNET_ID,
    SUBNET_SOME, TAGS_NOT_EMPTY,
};
use crate::api::ec2nodeclass::{
    ALIAS_IS_ALONE, AmiFamily, EC2NodeClassSpec, FAMILY_OF_ALIAS, FAMILY_WITHOUT_ALIAS,
    ONE_EFA_PER_CARD, ONE_ROOT_VOLUME, PRIMARY_INTERFACE, PROFILE_NOT_EMPTY, ROLE_NOT_EMPTY,
    ROLE_XOR_PROFILE, TAG_CLUSTER, TAG_EKS, TAG_EMPTY, TAG_OWN, UNIQUE_INTERFACES,
};
use crate::api::labels;

type Tags = BTreeMap<String, String>;

pub(super) fn class(report: &mut Report, class: &EC2NodeClass) {
    let spec = &class.spec;
    let one = spec.role.is_some() != spec.instance_profile.is_some();
    report.rule(one, "spec", ROLE_XOR_PROFILE);
    report.rule(spec.role.as_deref() != Some(""), "spec.role", ROLE_NOT_EMPTY);
    let path = "spec.instanceProfile";
    report.rule(spec.instance_profile.as_deref() != Some(""), path, PROFILE_NOT_EMPTY);
    subnets_and_groups(report, spec);
    images(report, spec);
    reservations(report, spec);
    instance_tags(report, &spec.tags);
    volumes(report, spec);
    interfaces(report, &spec.network_interfaces);
    if let Some(tracking) = &spec.connection_tracking {
        let timeouts =
            [tracking.tcp_established_timeout, tracking.udp_stream_timeout, tracking.udp_timeout];
        let some = timeouts.iter().any(Option::is_some);
        report.rule(some, "spec.connectionTracking", SOME_TIMEOUT);
    }
    kubelet::kubelet(report, &spec.kubelet, spec.resolved_family());
}

fn selector_tags(report: &mut Report, tags: &Tags, path: &str) {
    let filled = tags.iter().all(|(key, value)| !key.is_empty() && !value.is_empty());
    report.rule(filled, &format!("{path}.tags"), TAGS_NOT_EMPTY);
}

fn subnets_and_groups(report: &mut Report, spec: &EC2NodeClassSpec) {
    for (index, term) in spec.subnet_selector_terms.iter().enumerate() {
        let path = format!("spec.subnetSelectorTerms[{index}]");
        let tags = !term.tags.is_empty();
        report.rule(tags || term.id.is_some(), &path, SUBNET_SOME);
        report.rule(!tags || term.id.is_none(), &path, SUBNET_ID);
        selector_tags(report, &term.tags, &path);
    }
    for (index, term) in spec.security_group_selector_terms.iter().enumerate() {
        let path = format!("spec.securityGroupSelectorTerms[{index}]");
        let (tags, id, name) = (!term.tags.is_empty(), term.id.is_some(), term.name.is_some());
        report.rule(tags || id || name, &path, GROUP_SOME);
        report.rule(!id || !(tags || name), &path, GROUP_ID);
        report.rule(!name || !(tags || id), &path, GROUP_NAME);
        selector_tags(report, &term.tags, &path);
    }
}

fn images(report: &mut Report, spec: &EC2NodeClassSpec) {
    let terms = &spec.ami_selector_terms;
    for (index, term) in terms.iter().enumerate() {
        image(report, term, &format!("spec.amiSelectorTerms[{index}]"));
    }
    let aliases: Vec<&str> = terms.iter().filter_map(|t| t.alias.as_deref()).collect();
    let alone = aliases.is_empty() || terms.len() == 1;
    report.rule(alone, "spec.amiSelectorTerms", ALIAS_IS_ALONE);
    let known = spec.ami_family.is_some() || !aliases.is_empty();
    report.rule(known, "spec", FAMILY_WITHOUT_ALIAS);
    let Some(family) = spec.ami_family.filter(|family| *family != AmiFamily::Custom) else {
        return;
    };
    let word = family.alias().unwrap_or_default();
    let agree = aliases.iter().all(|alias| alias.split('@').next() == Some(word));
    report.rule(agree, "spec", FAMILY_OF_ALIAS);
}

fn image(report: &mut Report, term: &AmiSelectorTerm, path: &str) {
    let (tags, id, name) = (!term.tags.is_empty(), term.id.is_some(), term.name.is_some());
    let (alias, owner, parameter) =
        (term.alias.is_some(), term.owner.is_some(), term.ssm_parameter.is_some());
    report.rule(tags || id || name || alias || parameter, path, AMI_SOME);
    report.rule(!id || !(alias || tags || name || owner), path, AMI_ID);
    report.rule(!alias || !(id || tags || name || owner || parameter), path, AMI_ALIAS);
    selector_tags(report, &term.tags, path);
    let Some(alias) = &term.alias else { return };
    let path = format!("{path}.alias");
    let (family, version) = alias.split_once('@').unwrap_or((alias.as_str(), ""));
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
    report.rule(word(family) && !version.is_empty(), &path, ALIAS_FORM);
    report.rule(AmiFamily::of_alias(family).is_some(), &path, ALIAS_FAMILY);
    let latest = !family.starts_with("windows") || version == "latest";
    report.rule(latest, &path, ALIAS_WINDOWS);
}

fn reservations(report: &mut Report, spec: &EC2NodeClassSpec) {
    for (index, term) in spec.capacity_reservation_selector_terms.iter().enumerate() {
        let path = format!("spec.capacityReservationSelectorTerms[{index}]");
        let (tags, id) = (!term.tags.is_empty(), term.id.is_some());
        let criteria = term.instance_match_criteria.is_some();
        report.rule(tags || id || criteria, &path, RESERVATION_SOME);
        let alone = !(tags || criteria || term.owner_id.is_some());
        report.rule(!id || alone, &path, RESERVATION_ID);
        selector_tags(report, &term.tags, &path);
    }
    if let Some(selector) = &spec.placement_group_selector {
        let one = selector.name.is_some() != selector.id.is_some();
        report.rule(one, "spec.placementGroupSelector", PLACEMENT_ONE);
    }
}

fn instance_tags(report: &mut Report, tags: &Tags) {
    let own = ["karpenter.sh/nodepool", "karpenter.sh/nodeclaim", labels::EC2NODECLASS];
    for key in tags.keys() {
        let rule = match key.as_str() {
            "" => TAG_EMPTY,
            "eks:eks-cluster-name" => TAG_EKS,
            key if key.starts_with("kubernetes.io/cluster") => TAG_CLUSTER,
            key if own.contains(&key) => TAG_OWN,
            _ => continue,
        };
        report.add("spec.tags", &Value::from(key.as_str()), rule.1);
    }
}

fn volumes(report: &mut Report, spec: &EC2NodeClassSpec) {
    let mappings = &spec.block_device_mappings;
    let roots = mappings.iter().filter(|m| m.root_volume == Some(true)).count();
    report.rule(roots <= 1, "spec.blockDeviceMappings", ONE_ROOT_VOLUME);
    for (index, mapping) in mappings.iter().enumerate() {
        if let Some(ebs) = &mapping.ebs {
            volume(report, ebs, &format!("spec.blockDeviceMappings[{index}].ebs"));
        }
    }
}

fn volume(report: &mut Report, ebs: &BlockDevice, path: &str) {
    let snapshot = ebs.snapshot_id.is_some();
    report.rule(snapshot || ebs.volume_size.is_some(), path, SNAPSHOT_OR_SIZE);
    report.rule(snapshot || ebs.volume_initialization_rate.is_none(), path, RATE_NEEDS_SNAPSHOT);
}

fn interfaces(report: &mut Report, list: &[NetworkInterface]) {
    if list.is_empty() {
        return;
    }
    let path = "spec.networkInterfaces";
    let place = |n: &NetworkInterface| (n.network_card_index, n.device_index);
    let primary =
        list.iter().any(|n| place(n) == (0, 0) && n.interface_type == InterfaceType::Interface);
    report.rule(primary, path, PRIMARY_INTERFACE);
    let unique =
        list.iter().enumerate().all(|(i, n)| list[..i].iter().all(|m| place(m) != place(n)));
    report.rule(unique, path, UNIQUE_INTERFACES);
    let mut cards: Vec<i32> = Vec::new();
    for interface in list.iter().filter(|n| n.interface_type == InterfaceType::EfaOnly) {
        cards.push(interface.network_card_index);
    }
    cards.sort_unstable();
    let single = cards.windows(2).all(|pair| pair[0] != pair[1]);
    report.rule(single, path, ONE_EFA_PER_CARD);
}
