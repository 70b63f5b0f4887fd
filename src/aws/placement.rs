//! The placement group that a class names: whether it is there, and which types may start in it.
//!
//! The status of a class has no room for it, so what was found last is kept here.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{Filter, PlacementGroupStrategy, PlacementStrategy};
use parking_lot::Mutex;

use super::Provider;
use super::error::{code, from_sdk};
use crate::api::ec2nodeclass::EC2NodeClassSpec;
use crate::api::ec2nodeclass::selectors::PlacementGroupSelector;
use crate::cloud::CloudError;
use crate::model::labels;
use crate::model::requirement::{Requirement, Requirements};

/// A placement group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PlacementGroup {
    id: String,
    strategy: PlacementStrategy,
    partitions: i32,
}

/// What was found last, by the id or name that was looked for.
#[derive(Debug, Default)]
pub(super) struct Placements(Mutex<BTreeMap<String, PlacementGroup>>);

impl Placements {
    /// The group of a class; none where it names none, or one that was not found.
    pub(super) fn of(&self, spec: &EC2NodeClassSpec) -> Option<PlacementGroup> {
        self.0.lock().get(key(spec.placement_group_selector.as_ref()?)).cloned()
    }
}

impl PlacementGroup {
    /// Whether instances of a type with these strategies may start in it.
    pub(super) fn takes(&self, strategies: Option<&Vec<PlacementGroupStrategy>>) -> bool {
        // One word in two enums of the SDK.
        let same = |one: &PlacementGroupStrategy| one.as_str() == self.strategy.as_str();
        strategies.is_some_and(|all| all.iter().any(same))
    }

    /// Says on a type that its nodes will be in the group.
    pub(super) fn label(&self, requirements: &mut Requirements) {
        // A type by itself is in no group.
        requirements.remove(labels::PLACEMENT_GROUP_ID);
        requirements.insert(labels::PLACEMENT_GROUP_ID, Requirement::one_of([&*self.id]));
        if self.strategy == PlacementStrategy::Partition {
            let numbers: Vec<String> = (1..=self.partitions).map(|n| n.to_string()).collect();
            requirements.remove(labels::PLACEMENT_GROUP_PARTITION);
            requirements.insert(
                labels::PLACEMENT_GROUP_PARTITION,
                Requirement::one_of(numbers.iter().map(|n| &**n)),
            );
        }
    }
}

fn key(selector: &PlacementGroupSelector) -> &str {
    selector.id.as_deref().or(selector.name.as_deref()).unwrap_or_default()
}

impl Provider {
    /// Looks for the group that the class names, and keeps what it finds.
    ///
    /// # Errors
    /// [`CloudError::NotFound`] when it is not there.
    pub(super) async fn find_placement_group(
        &self,
        spec: &EC2NodeClassSpec,
    ) -> Result<(), CloudError> {
        let Some(selector) = &spec.placement_group_selector else { return Ok(()) };
        let available = Filter::builder().name("state").values("available").build();
        let answer = self
            .ec2
            .describe_placement_groups()
            .set_group_ids(selector.id.clone().map(|id| vec![id]))
            .set_group_names(selector.name.clone().map(|name| vec![name]))
            .filters(available)
            .send()
            .await;
        let groups = match answer {
            Ok(answer) => answer.placement_groups.unwrap_or_default(),
            Err(error) if code(&error).starts_with("InvalidPlacementGroup") => Vec::new(),
            Err(error) => return Err(from_sdk(&error)),
        };
        let found = groups.into_iter().find_map(|group| {
            Some(PlacementGroup {
                id: group.group_id?,
                strategy: group.strategy?,
                partitions: group.partition_count.unwrap_or(0),
            })
        });
        let mut known = self.placements.0.lock();
        let Some(found) = found else {
            known.remove(key(selector));
            return Err(CloudError::NotFound {
                message: format!(
                    "placementGroupSelector names the placement group {}, which does not exist or \
                     is not available",
                    key(selector)
                ),
            });
        };
        known.insert(key(selector).to_owned(), found);
        Ok(())
    }
}
