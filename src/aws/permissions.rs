//! Whether we may launch what a class asks for, found out before pods wait for it: a launch template is
//! made, and the two calls that need most permissions are tried as dry runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_ec2::types::LaunchTemplateSpecification;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::Provider;
use super::cache::Cache;
use super::error::{code, from_sdk};
use super::fleet::Request;
use super::resolve::Verdict;
use crate::api::ec2nodeclass::EC2NodeClass;
use crate::cloud::{CloudError, LaunchOption, LaunchOrder};
use crate::model::digest::hex;
use crate::model::instance::CapacityType;
use crate::model::labels::Labels;
use crate::model::resources::Resources;

/// How long a class that may be launched is not tried again, as in the field.
const GRANTED: SignedDuration = SignedDuration::from_mins(30);
/// EC2's code for a dry run that would have worked.
const WOULD_WORK: &str = "DryRunOperation";
/// Types that the dry runs ask for where the class offers one of them; any will do.
const SAMPLES: [&str; 2] = ["m5.large", "m6g.large"];

/// Classes that may be launched, by what a launch depends on.
#[derive(Debug)]
pub(super) struct Granted(Cache<String, ()>);

impl Default for Granted {
    fn default() -> Self {
        Self(Cache::new(GRANTED))
    }
}

impl Provider {
    /// Whether a class, resolved, can be launched; else reason and message of its condition. What the
    /// answer to a call leaves open counts as granted: the launch itself will tell.
    pub(super) async fn permitted(&self, class: &EC2NodeClass, now: Timestamp) -> Verdict {
        let status = class.status.as_ref();
        let parts = json!([
            class.metadata.uid,
            class.spec,
            status.map(|s| (&s.subnets, &s.security_groups, &s.amis, &s.instance_profile)),
        ]);
        let key = hex(parts.to_string(), 16);
        if self.granted.0.get(&key, now).is_some() {
            return Ok(());
        }
        self.try_launch(class, now).await?;
        self.granted.0.put(key, (), now);
        Ok(())
    }

    async fn try_launch(&self, class: &EC2NodeClass, now: Timestamp) -> Verdict {
        let Some(order) = self.sample(class, now).await else { return Ok(()) };
        let groups = match self.prepare(&order, now).await {
            Ok(groups) => groups,
            Err(error) => return refused("CreateLaunchTemplateAuthCheckFailed", &error),
        };
        let Ok(request) = self.compose(&order, groups, String::new(), now) else { return Ok(()) };
        self.try_fleet(&request).await?;
        self.try_instance(&request).await
    }

    /// An order for one instance; none where the class offers nothing.
    async fn sample(&self, class: &EC2NodeClass, now: Timestamp) -> Option<LaunchOrder> {
        let types = self.class_catalog(class, now).await.ok()?.types;
        let of = |name: &str| types.iter().find(|kind| &*kind.name == name);
        let kind = SAMPLES.into_iter().find_map(of).or_else(|| types.first())?;
        let offers = kind.offerings.iter();
        let offer = offers.clone().find(|o| o.capacity_type == CapacityType::OnDemand);
        let offer = offer.or_else(|| offers.clone().find(|o| o.reserved.is_none()))?;
        let option = LaunchOption {
            instance_type: Arc::clone(&kind.name),
            zone: Arc::clone(&offer.zone),
            capacity_type: offer.capacity_type,
            reservation: None,
            price: offer.price,
        };
        Some(LaunchOrder {
            class: Arc::new(class.clone()),
            pool: "".into(),
            token: String::new(),
            count: 1,
            options: vec![option],
            priced_by_overlay: false,
            labels: Labels::new(),
            taints: Vec::new(),
            requests: Resources::default(),
            tags: BTreeMap::new(),
        })
    }

    async fn try_fleet(&self, request: &Request) -> Verdict {
        match self.call(request).set_client_token(None).dry_run(true).send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == WOULD_WORK => Ok(()),
            Err(error) => refused("CreateFleetAuthCheckFailed", &from_sdk(&error)),
        }
    }

    /// A fleet's dry run does not look at what its instances need, such as passing a role to them.
    async fn try_instance(&self, request: &Request) -> Verdict {
        let Some((template, kind, subnet)) = request.first() else { return Ok(()) };
        let template = LaunchTemplateSpecification::builder().launch_template_name(template);
        let answer = self
            .ec2
            .run_instances()
            .launch_template(template.build())
            .instance_type(kind.into())
            .subnet_id(subnet)
            .min_count(1)
            .max_count(1)
            .dry_run(true)
            .send()
            .await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == WOULD_WORK => Ok(()),
            // IAM needs some seconds to make a new profile known everywhere.
            Err(error) if error.message().is_some_and(|text| text.contains("Instance Profile")) => {
                Err(("InstanceProfileNotFound", from_sdk(&error).to_string()))
            }
            Err(error) => refused("RunInstancesAuthCheckFailed", &from_sdk(&error)),
        }
    }
}

fn refused(reason: &'static str, error: &CloudError) -> Verdict {
    match error {
        CloudError::Denied { .. } => Err((reason, error.to_string())),
        other => {
            tracing::debug!(error = %other, "a dry run says nothing about permissions");
            Ok(())
        }
    }
}
