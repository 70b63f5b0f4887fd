//! Instances: read, tag, terminate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ec2::types::{
    CapacityReservationPreference, Filter, InstanceLifecycleType, InstanceStateName, Tag,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Provider;
use super::error::from_sdk;
use super::tags;
use crate::cloud::{CloudError, Instance};
use crate::model::instance::{CapacityReservation, CapacityType};

/// States of instances that are not yet gone.
const PRESENT: [&str; 5] = ["pending", "running", "shutting-down", "stopped", "stopping"];
/// How long terminations are gathered into one call: TerminateInstances has a budget of a few calls
/// a second, and nodes leave in waves.
const GATHER: Duration = Duration::from_millis(50);
/// Ids in one call; EC2 advises against more than a thousand.
const TERMINATIONS_PER_CALL: usize = 500;

type Answer = Result<(), CloudError>;

/// Terminations that wait for the next call.
#[derive(Debug, Default)]
pub(super) struct Terminations(Mutex<Vec<(String, oneshot::Sender<Answer>)>>);

/// The instance id of a provider id such as `aws:///us-west-2a/i-0123`.
pub(super) fn instance_id(provider_id: &str) -> Result<&str, CloudError> {
    let id = provider_id.rsplit('/').next().unwrap_or_default();
    if provider_id.starts_with("aws:///") && id.starts_with("i-") {
        return Ok(id);
    }
    Err(CloudError::NotFound { message: format!("{provider_id:?} is no id of an EC2 instance") })
}

/// The provider id of an instance.
pub(super) fn provider_id(zone: &str, instance_id: &str) -> Arc<str> {
    format!("aws:///{zone}/{instance_id}").into()
}

fn filter(name: &str, values: &[&str]) -> Filter {
    let values = values.iter().map(ToString::to_string).collect();
    Filter::builder().name(name).set_values(Some(values)).build()
}

impl Provider {
    /// Reads one instance.
    pub(super) async fn describe_instance(
        &self,
        provider_id: &str,
    ) -> Result<Instance, CloudError> {
        let id = instance_id(provider_id)?;
        let answer = self
            .ec2
            .describe_instances()
            .instance_ids(id)
            .send()
            .await
            .map_err(|error| from_sdk(&error))?;
        answer
            .reservations()
            .iter()
            .flat_map(aws_sdk_ec2::types::Reservation::instances)
            .find_map(present)
            .ok_or_else(|| CloudError::NotFound { message: format!("instance {id} is gone") })
    }

    /// Reads all instances of the cluster.
    pub(super) async fn list_instances(&self) -> Result<Vec<Instance>, CloudError> {
        let owned = format!("tag:{}", tags::owned(&self.settings.cluster_name));
        let mut pages = self
            .ec2
            .describe_instances()
            .filters(filter(&owned, &["owned"]))
            .filters(filter("tag-key", &[tags::POOL]))
            .filters(filter("instance-state-name", &PRESENT))
            .into_paginator()
            .page_size(1000)
            .send();
        let mut all = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| from_sdk(&error))?;
            let instances =
                page.reservations().iter().flat_map(aws_sdk_ec2::types::Reservation::instances);
            all.extend(instances.filter_map(present));
        }
        Ok(all)
    }

    /// Sets tags of an instance.
    pub(super) async fn tag_instance(
        &self,
        provider_id: &str,
        tags: &[(&str, &str)],
    ) -> Result<(), CloudError> {
        let id = instance_id(provider_id)?;
        let tags = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build());
        let request = self.ec2.create_tags().resources(id).set_tags(Some(tags.collect()));
        request.send().await.map(drop).map_err(|error| from_sdk(&error))
    }

    /// Terminates one instance, together with others that are asked for in the same moment.
    pub(super) async fn terminate_instance(&self, provider_id: &str) -> Result<(), CloudError> {
        let id = instance_id(provider_id)?;
        let (sender, receiver) = oneshot::channel();
        let first = {
            let mut waiting = self.terminations.0.lock();
            waiting.push((id.to_owned(), sender));
            waiting.len() == 1
        };
        if first {
            // The wave has its own task: the caller that began it may be dropped.
            let (waiting, ec2) = (Arc::clone(&self.terminations), self.ec2.clone());
            #[expect(
                clippy::disallowed_methods,
                reason = "the task ends with its wave, whose callers wait for it"
            )]
            drop(tokio::spawn(async move {
                tokio::time::sleep(GATHER).await;
                let wave = std::mem::take(&mut *waiting.0.lock());
                terminate_wave(&ec2, wave).await;
            }));
        }
        receiver.await.unwrap_or_else(|_| {
            Err(CloudError::Unknown { message: "the process is stopping".to_owned() })
        })
    }
}

async fn terminate_wave(
    ec2: &aws_sdk_ec2::Client,
    mut wave: Vec<(String, oneshot::Sender<Answer>)>,
) {
    while !wave.is_empty() {
        let rest = wave.split_off(wave.len().min(TERMINATIONS_PER_CALL));
        let chunk = std::mem::replace(&mut wave, rest);
        let ids: Vec<String> = chunk.iter().map(|(id, _)| id.clone()).collect();
        let together = terminate(ec2, &ids).await;
        for (id, sender) in chunk {
            let answer = match &together {
                // One unknown id makes EC2 refuse the whole call.
                Err(CloudError::NotFound { .. }) if ids.len() > 1 => {
                    terminate(ec2, std::slice::from_ref(&id)).await
                }
                other => other.clone(),
            };
            // A caller that went away needs no answer.
            sender.send(answer).ok();
        }
    }
}

async fn terminate(ec2: &aws_sdk_ec2::Client, ids: &[String]) -> Answer {
    let request = ec2.terminate_instances().set_instance_ids(Some(ids.to_vec()));
    request.send().await.map(drop).map_err(|error| from_sdk(&error))
}

/// An instance in our words; `None` when it is gone.
fn present(instance: &aws_sdk_ec2::types::Instance) -> Option<Instance> {
    let state = instance.state().and_then(|state| state.name());
    if state == Some(&InstanceStateName::Terminated) {
        return None;
    }
    let id = instance.instance_id()?;
    let zone = instance.placement()?.availability_zone()?;
    let spot = instance.instance_lifecycle() == Some(&InstanceLifecycleType::Spot)
        || instance.spot_instance_request_id().is_some_and(|request| !request.is_empty());
    let only = instance
        .capacity_reservation_specification()
        .and_then(|specification| specification.capacity_reservation_preference())
        .is_some_and(|it| *it == CapacityReservationPreference::CapacityReservationsOnly);
    // An instance that fell into an open reservation by itself was not bought as reserved.
    let reservation = instance.capacity_reservation_id().filter(|_| only).map(|id| {
        let lifecycle = instance.instance_lifecycle();
        Arc::new(CapacityReservation {
            id: id.into(),
            block: lifecycle == Some(&InstanceLifecycleType::CapacityBlock),
            interruptible: lifecycle
                == Some(&InstanceLifecycleType::InterruptibleCapacityReservation),
        })
    });
    let capacity_type = match (&reservation, spot) {
        (Some(_), _) => CapacityType::Reserved,
        (None, true) => CapacityType::Spot,
        (None, false) => CapacityType::OnDemand,
    };
    let tags: BTreeMap<String, String> = instance
        .tags()
        .iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())))
        .collect();
    Some(Instance {
        provider_id: provider_id(zone, id),
        instance_type: instance.instance_type()?.as_str().into(),
        zone: zone.into(),
        capacity_type: Some(capacity_type),
        reservation,
        image_id: instance.image_id().unwrap_or_default().into(),
        pool: tags.get(tags::POOL).map(String::as_str).unwrap_or_default().into(),
        tags,
        launched_at: instance.launch_time().map_or(0, aws_smithy_types::DateTime::secs),
        terminating: state == Some(&InstanceStateName::ShuttingDown),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provider_ids_name_instances() {
        assert_eq!(instance_id("aws:///us-west-2a/i-0a1").unwrap(), "i-0a1");
        assert_eq!(&*provider_id("us-west-2a", "i-0a1"), "aws:///us-west-2a/i-0a1");
        for wrong in ["", "i-0a1", "gce:///a/i-1", "aws:///us-west-2a/", "aws:///us-west-2a/vm-1"] {
            assert!(matches!(instance_id(wrong), Err(CloudError::NotFound { .. })), "{wrong}");
        }
    }
}
