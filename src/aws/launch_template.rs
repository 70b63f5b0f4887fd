//! Launch templates: everything about a node but its type, zone and price.
//!
//! A template's name is a digest of what it holds, so the same settings have the same template in
//! every process and nothing needs to be compared. Templates that nobody used for an hour are
//! deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_ec2::types::{Filter, LaunchTemplate, ResourceType};
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::Provider;
use super::catalog::{image_of, images};
use super::error::{code, from_sdk};
use super::profile::gone_is_fine;
use super::request::{ReservationTarget, Template};
use super::tags;
use super::userdata::{Node, with_capacity_type};
use crate::cloud::settings::ClassSettings;
use crate::cloud::{CloudError, LaunchOption, LaunchOrder};
use crate::model::instance::CapacityType;
use crate::model::labels;

/// Prefix of the names of our templates.
const PREFIX: &str = "harbinger.sh/";
/// How long an unused template stays. Templates cost nothing, but a region holds 5,000 of them.
const UNUSED: SignedDuration = SignedDuration::from_hours(1);
/// How often unused templates are looked for.
const SWEEP: SignedDuration = SignedDuration::from_mins(10);
/// Templates that are made at once; EC2's budget for writes is about five calls a second with a
/// burst of fifty.
const AT_ONCE: usize = 8;

/// Templates that exist, with the time of their last use.
#[derive(Debug, Default)]
pub(super) struct Templates(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    used_at: BTreeMap<String, Timestamp>,
    first_sweep: Option<Timestamp>,
    last_sweep: Option<Timestamp>,
}

/// Instance types of an order that share a template.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Name of the template.
    pub(super) name: String,
    /// The template.
    pub(super) template: Arc<Template>,
    /// Types.
    pub(super) types: Vec<Arc<str>>,
    /// Pods that a node takes, hence the addresses.
    pub(super) max_pods: i64,
}

impl Provider {
    /// The templates of an order, made where they are missing. Without missing ones there is no
    /// call.
    pub(super) async fn prepare(
        &self,
        order: &LaunchOrder,
        now: Timestamp,
    ) -> Result<Vec<Group>, CloudError> {
        let groups = self.groups(order, now).await?;
        self.ensure(&groups, now).await?;
        Ok(groups)
    }

    /// The types of an order by template.
    async fn groups(&self, order: &LaunchOrder, now: Timestamp) -> Result<Vec<Group>, CloudError> {
        let refused = |message: String| CloudError::ClassNotReady { message };
        let settings =
            self.class_settings(&order.class.spec).map_err(|error| refused(error.to_string()))?;
        let status = order
            .class
            .status
            .as_ref()
            .ok_or_else(|| refused("the class was not resolved yet".to_owned()))?;
        let Some(first) = order.options.first() else {
            return Err(CloudError::InsufficientCapacity {
                message: "the order has no options".to_owned(),
            });
        };
        let table = self.type_table(now).await?;
        let images = images(&status.amis);
        let fabric = order.requests.get("vpc.amazonaws.com/efa") > 0;
        let mut by_need: BTreeMap<(&str, i64, u32), Vec<Arc<str>>> = BTreeMap::new();
        for option in &order.options {
            let Some(facts) = table.facts.get(&option.instance_type) else { continue };
            let requirements =
                facts.instance_type(&self.region, &settings, &[], Vec::new()).requirements;
            let Some(image) = image_of(&images, &requirements) else { continue };
            let need = (image, facts.pods(&settings), if fabric { facts.efa } else { 0 });
            let types = by_need.entry(need).or_default();
            if !types.contains(&facts.name) {
                types.push(Arc::clone(&facts.name));
            }
        }
        by_need
            .into_iter()
            .map(|((image, max_pods, efa), types)| {
                let template = self.template(order, &settings, first, image, max_pods, efa)?;
                let name = format!("{PREFIX}{}", template.digest());
                Ok(Group { name, template: Arc::new(template), types, max_pods })
            })
            .collect()
    }

    fn template(
        &self,
        order: &LaunchOrder,
        settings: &ClassSettings,
        first: &LaunchOption,
        image: &str,
        max_pods: i64,
        efa: u32,
    ) -> Result<Template, CloudError> {
        let spec = &order.class.spec;
        let status = order.class.status.as_ref();
        let labels = with_capacity_type(&order.labels, first.capacity_type.label());
        let node = Node {
            cluster: &self.settings,
            family: settings.family,
            kubelet: &settings.kubelet,
            max_pods,
            labels: &labels,
            taints: &order.taints,
            raid0: settings.raid0,
            custom: spec.user_data.as_deref(),
        };
        let user_data = node
            .user_data()
            .map_err(|error| CloudError::ClassNotReady { message: error.to_string() })?;
        let groups = status.map(|status| &*status.security_groups).unwrap_or_default();
        Ok(Template {
            image: image.to_owned(),
            user_data,
            profile: status.and_then(|status| status.instance_profile.clone()).unwrap_or_default(),
            security_groups: groups.iter().map(|group| group.id.clone()).collect(),
            volumes: settings.resolved_volumes(),
            metadata: spec.metadata_options,
            monitoring: spec.detailed_monitoring,
            public_address: spec.associate_public_ip_address,
            prefixes: spec.ip_prefix_count,
            interfaces: spec.network_interfaces.clone(),
            efa,
            connection_tracking: spec.connection_tracking,
            nested_virtualization: settings.nested_virtualization,
            placement_group: spec.placement_group_selector.clone(),
            partition: order
                .labels
                .get(labels::PLACEMENT_GROUP_PARTITION)
                .and_then(|number| number.parse().ok()),
            enclave: order.requests.get("eks.amazonaws.com/nitro-sandbox") > 0,
            spot: first.capacity_type == CapacityType::Spot,
            reservation: first.reservation.as_deref().map(ReservationTarget::from),
            tags: tags::of_class(&order.class, &self.settings.cluster_name, Some(&*order.pool)),
        })
    }

    /// Makes the templates that are not known to exist.
    async fn ensure(&self, groups: &[Group], now: Timestamp) -> Result<(), CloudError> {
        let missing: Vec<Group> = {
            let mut known = self.templates.0.lock();
            let is_missing = |group: &&Group| match known.used_at.get_mut(&group.name) {
                Some(used_at) => {
                    *used_at = now.max(*used_at);
                    false
                }
                None => true,
            };
            groups.iter().filter(is_missing).cloned().collect()
        };
        stream::iter(missing)
            .map(|group| async move { self.create_template(&group, now).await })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Makes a template without asking first: one that exists under its digest is the same one.
    async fn create_template(&self, group: &Group, now: Timestamp) -> Result<(), CloudError> {
        let created = self
            .ec2
            .create_launch_template()
            .launch_template_name(&group.name)
            .launch_template_data(group.template.data())
            .tag_specifications(tags::specification(
                ResourceType::LaunchTemplate,
                &group.template.tags,
            ))
            .send()
            .await;
        match created {
            Ok(_) => {}
            Err(error) if code(&error).contains("AlreadyExists") => {}
            Err(error) => return Err(from_sdk(&error)),
        }
        self.templates.0.lock().used_at.insert(group.name.clone(), now);
        Ok(())
    }

    /// Makes templates again that somebody deleted.
    pub(super) async fn recreate(
        &self,
        groups: &[Group],
        now: Timestamp,
    ) -> Result<(), CloudError> {
        {
            let mut known = self.templates.0.lock();
            for group in groups {
                known.used_at.remove(&group.name);
            }
        }
        self.ensure(groups, now).await
    }

    /// Deletes templates that nobody used for an hour, those of earlier processes as well.
    pub(super) async fn sweep_templates(&self, now: Timestamp) {
        let since = {
            let mut known = self.templates.0.lock();
            let first = *known.first_sweep.get_or_insert(now);
            // Nothing is known to be unused for so long yet. A process that has just started has more
            // urgent calls than one that changes nothing.
            if now.duration_since(first) < UNUSED
                || known.last_sweep.is_some_and(|last| now.duration_since(last) < SWEEP)
            {
                return;
            }
            known.last_sweep = Some(now);
            first
        };
        if let Err(error) = self.delete_unused(since, now).await {
            tracing::warn!(%error, "unused launch templates were not deleted");
        }
    }

    async fn delete_unused(&self, since: Timestamp, now: Timestamp) -> Result<(), CloudError> {
        let owned = format!("tag:{}", tags::owned(&self.settings.cluster_name));
        for template in self.list_templates(&[(&owned, "owned")]).await? {
            let Some(name) = template.launch_template_name.filter(|n| n.starts_with(PREFIX)) else {
                continue;
            };
            // Templates of another process count as used when this one first saw them.
            let used_at = self.templates.0.lock().used_at.get(&name).copied().unwrap_or(since);
            if now.duration_since(used_at) >= UNUSED {
                self.templates.0.lock().used_at.remove(&name);
                self.delete_template(&name).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn delete_class_templates(&self, class: &str) -> Result<(), CloudError> {
        let owned = format!("tag:{}", tags::owned(&self.settings.cluster_name));
        let of_class = format!("tag:{}", tags::CLASS);
        for template in self.list_templates(&[(&owned, "owned"), (&of_class, class)]).await? {
            if let Some(name) = template.launch_template_name.filter(|n| n.starts_with(PREFIX)) {
                self.templates.0.lock().used_at.remove(&name);
                self.delete_template(&name).await?;
            }
        }
        Ok(())
    }

    async fn list_templates(
        &self,
        filters: &[(&str, &str)],
    ) -> Result<Vec<LaunchTemplate>, CloudError> {
        let filters = filters
            .iter()
            .map(|(name, value)| Filter::builder().name(*name).values(*value).build());
        let mut pages = self
            .ec2
            .describe_launch_templates()
            .set_filters(Some(filters.collect()))
            .into_paginator()
            .page_size(200)
            .items()
            .send();
        let mut all = Vec::new();
        while let Some(template) = pages.next().await {
            all.push(template.map_err(|error| from_sdk(&error))?);
        }
        Ok(all)
    }

    async fn delete_template(&self, name: &str) -> Result<(), CloudError> {
        let deleted = self.ec2.delete_launch_template().launch_template_name(name).send().await;
        gone_is_fine(deleted.map(drop).map_err(|error| from_sdk(&error)))
    }
}
