//! Subnets and security groups that a class selects, and the free addresses of subnets.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_ec2::types::{Filter, SecurityGroup, Subnet};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::Provider;
use super::error::from_sdk;
use crate::api::ec2nodeclass::{EC2NodeClassSpec, SecurityGroupStatus, SubnetStatus};
use crate::cloud::CloudError;

/// How long a subnet that ran out of addresses is passed over; as long as other shortages.
const EXHAUSTED: SignedDuration = SignedDuration::from_mins(3);

/// Free addresses of the subnets that were seen.
#[derive(Debug, Default)]
pub(super) struct Network(Mutex<BTreeMap<String, Addresses>>);

#[derive(Clone, Copy, Debug)]
struct Addresses {
    free: i64,
    /// Until when the subnet is out of use, whatever EC2 counts.
    exhausted_until: Option<Timestamp>,
}

impl Network {
    /// The subnet of each zone with the most free addresses, the lower id where they are equal.
    /// Zones whose subnets all ran out are left out.
    pub(super) fn choose<'a>(
        &self,
        subnets: &'a [SubnetStatus],
        now: Timestamp,
    ) -> BTreeMap<&'a str, &'a str> {
        let addresses = self.0.lock();
        let mut best: BTreeMap<&str, (i64, &str)> = BTreeMap::new();
        for subnet in subnets {
            let known = addresses.get(&subnet.id).copied();
            let exhausted = known.and_then(|known| known.exhausted_until);
            if exhausted.is_some_and(|until| until > now) {
                continue;
            }
            let free = known.map_or(0, |known| known.free);
            let entry = best.entry(&subnet.zone).or_insert((free, &subnet.id));
            if free > entry.0 || (free == entry.0 && *subnet.id < *entry.1) {
                *entry = (free, &subnet.id);
            }
        }
        best.into_iter().map(|(zone, (_, id))| (zone, id)).collect()
    }

    /// Counts addresses that new instances will take, until EC2 is asked again.
    pub(super) fn take(&self, subnet: &str, addresses: i64) {
        if let Some(known) = self.0.lock().get_mut(subnet) {
            known.free -= addresses;
        }
    }

    /// Remembers that a subnet has no addresses left.
    pub(super) fn exhaust(&self, subnet: &str, now: Timestamp) {
        let until = now.checked_add(EXHAUSTED).ok();
        let exhausted = Addresses { free: 0, exhausted_until: until };
        self.0.lock().insert(subnet.to_owned(), exhausted);
    }

    fn count(&self, subnets: &[Subnet]) {
        let mut addresses = self.0.lock();
        for subnet in subnets {
            if let (Some(id), Some(free)) =
                (subnet.subnet_id(), subnet.available_ip_address_count())
            {
                let entry = addresses
                    .entry(id.to_owned())
                    .or_insert(Addresses { free: 0, exhausted_until: None });
                entry.free = free.into();
            }
        }
    }
}

/// The filter for one tag; `*` stands for any value.
pub(super) fn tag_filter(key: &str, value: &str) -> Filter {
    if value == "*" {
        Filter::builder().name("tag-key").values(key).build()
    } else {
        Filter::builder().name(format!("tag:{key}")).values(value).build()
    }
}

pub(super) fn tag_filters(tags: &BTreeMap<String, String>) -> Vec<Filter> {
    tags.iter().map(|(key, value)| tag_filter(key, value)).collect()
}

fn any_of(name: &str, values: Vec<String>) -> Vec<Filter> {
    vec![Filter::builder().name(name).set_values(Some(values)).build()]
}

impl Provider {
    /// Subnets that any of the class's terms selects, those with the most free addresses first.
    pub(super) async fn subnets(
        &self,
        spec: &EC2NodeClassSpec,
    ) -> Result<Vec<SubnetStatus>, CloudError> {
        let terms = &spec.subnet_selector_terms;
        let mut queries: Vec<Vec<Filter>> = terms
            .iter()
            .filter(|term| !term.tags.is_empty())
            .map(|term| tag_filters(&term.tags))
            .collect();
        let ids: Vec<String> = terms.iter().filter_map(|term| term.id.clone()).collect();
        if !ids.is_empty() {
            queries.push(any_of("subnet-id", ids));
        }
        let read = queries.into_iter().map(|filters| self.describe_subnets(filters));
        let mut found: Vec<Subnet> =
            futures::future::try_join_all(read).await?.into_iter().flatten().collect();
        found.sort_by(|a, b| {
            let free = |subnet: &Subnet| subnet.available_ip_address_count();
            free(b).cmp(&free(a)).then_with(|| a.subnet_id().cmp(&b.subnet_id()))
        });
        found.dedup_by(|a, b| a.subnet_id() == b.subnet_id());
        self.network.count(&found);
        Ok(found
            .iter()
            .filter_map(|subnet| {
                Some(SubnetStatus {
                    id: subnet.subnet_id()?.to_owned(),
                    zone: subnet.availability_zone()?.to_owned(),
                    zone_id: subnet.availability_zone_id().map(ToOwned::to_owned),
                })
            })
            .collect())
    }

    async fn describe_subnets(&self, filters: Vec<Filter>) -> Result<Vec<Subnet>, CloudError> {
        let request = self.ec2.describe_subnets().set_filters(Some(filters));
        let mut pages = request.into_paginator().page_size(500).items().send();
        let mut all = Vec::new();
        while let Some(subnet) = pages.next().await {
            all.push(subnet.map_err(|error| from_sdk(&error))?);
        }
        Ok(all)
    }

    /// Security groups that any of the class's terms selects; nodes get all of them.
    pub(super) async fn security_groups(
        &self,
        spec: &EC2NodeClassSpec,
    ) -> Result<Vec<SecurityGroupStatus>, CloudError> {
        let terms = &spec.security_group_selector_terms;
        let mut queries: Vec<Vec<Filter>> = terms
            .iter()
            .filter(|term| !term.tags.is_empty())
            .map(|term| tag_filters(&term.tags))
            .collect();
        let ids: Vec<String> = terms.iter().filter_map(|term| term.id.clone()).collect();
        let names: Vec<String> = terms.iter().filter_map(|term| term.name.clone()).collect();
        if !ids.is_empty() {
            queries.push(any_of("group-id", ids));
        }
        if !names.is_empty() {
            queries.push(any_of("group-name", names));
        }
        let read = queries.into_iter().map(|filters| self.describe_groups(filters));
        let found = futures::future::try_join_all(read).await?;
        let by_id: BTreeMap<String, Option<String>> = found
            .into_iter()
            .flatten()
            .filter_map(|group| Some((group.group_id?, group.group_name)))
            .collect();
        Ok(by_id.into_iter().map(|(id, name)| SecurityGroupStatus { id, name }).collect())
    }

    async fn describe_groups(
        &self,
        filters: Vec<Filter>,
    ) -> Result<Vec<SecurityGroup>, CloudError> {
        let request = self.ec2.describe_security_groups().set_filters(Some(filters));
        let mut pages = request.into_paginator().page_size(500).items().send();
        let mut all = Vec::new();
        while let Some(group) = pages.next().await {
            all.push(group.map_err(|error| from_sdk(&error))?);
        }
        Ok(all)
    }
}

/// Zones of the subnets with their ids.
pub(super) fn zones(subnets: &[SubnetStatus]) -> Vec<crate::cloud::facts::Zone> {
    let zones: BTreeMap<&str, &str> = subnets
        .iter()
        .map(|subnet| (&*subnet.zone, subnet.zone_id.as_deref().unwrap_or_default()))
        .collect();
    let zone = |(name, id)| crate::cloud::facts::Zone { name: Arc::from(name), id: Arc::from(id) };
    zones.into_iter().map(zone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(id: &str, zone: &str) -> SubnetStatus {
        SubnetStatus { id: id.to_owned(), zone: zone.to_owned(), zone_id: None }
    }

    #[test]
    fn the_emptiest_subnet_of_each_zone() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let network = Network::default();
        let free = |id: &str, count| {
            Subnet::builder().subnet_id(id).available_ip_address_count(count).build()
        };
        network.count(&[free("s1", 10), free("s2", 20), free("s3", 5)]);
        let subnets = [subnet("s2", "a"), subnet("s1", "a"), subnet("s3", "b")];
        let chosen = |seconds| network.choose(&subnets, at(seconds));
        assert_eq!(chosen(0), BTreeMap::from([("a", "s2"), ("b", "s3")]));
        network.take("s2", 10);
        assert_eq!(chosen(0)["a"], "s1");
        network.exhaust("s1", at(0));
        network.exhaust("s3", at(0));
        assert_eq!(chosen(1), BTreeMap::from([("a", "s2")]));
        assert_eq!(chosen(180).len(), 2);
    }
}
