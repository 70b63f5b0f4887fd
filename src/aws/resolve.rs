//! The status of a class: what it selects, and whether nodes can be made of it.

use jiff::Timestamp;

use super::Provider;
use super::images::alias_fault;
use super::profile::gone_is_fine;
use super::userdata::Node;
use crate::api::conditions::{self, Condition, ConditionStatus, Update};
use crate::api::ec2nodeclass::{AmiFamily, EC2NodeClass, EC2NodeClassStatus};
use crate::cloud::CloudError;
use crate::cloud::settings::{self, ClassSettings};
use crate::model::labels::Labels;

/// What one condition says; `Err` holds reason and message.
pub(super) type Verdict = Result<(), (&'static str, String)>;

impl Provider {
    /// Resolves a class, and uses the occasion to refresh what all classes share: this runs once a
    /// minute and nobody's pods wait for it.
    pub(super) async fn resolve_class(
        &self,
        class: &EC2NodeClass,
        now: Timestamp,
    ) -> Result<EC2NodeClassStatus, CloudError> {
        let spec = &class.spec;
        let (subnets, groups, amis, profile, reservations, placement, types, ()) = futures::join!(
            self.subnets(spec),
            self.security_groups(spec),
            self.images(spec, now),
            self.instance_profile(class, now),
            self.capacity_reservations(spec, now),
            Box::pin(self.find_placement_group(spec)),
            self.refresh_types(now),
            self.refresh_prices(now),
        );
        types?;
        let mut status = EC2NodeClassStatus::default();
        let mut verdicts: Vec<(&str, Verdict)> = Vec::new();
        let verdict = found(subnets, &mut status.subnets)?.and_then(|()| {
            some(&status.subnets, "SubnetsNotFound", "subnetSelectorTerms select no subnet")
        });
        verdicts.push(("SubnetsReady", verdict));
        let verdict = found(groups, &mut status.security_groups)?.and_then(|()| {
            let none = "securityGroupSelectorTerms select no security group";
            some(&status.security_groups, "SecurityGroupsNotFound", none)
        });
        verdicts.push(("SecurityGroupsReady", verdict));
        let fault = settings::alias(spec)
            .and_then(|(family, _)| alias_fault(family, self.settings.minor()));
        let verdict = found(amis, &mut status.amis)?.and_then(|()| match fault {
            Some(fault) => Err(fault),
            None => some(&status.amis, "AMINotFound", "amiSelectorTerms select no image"),
        });
        verdicts.push(("AMIsReady", verdict));
        let mut profiles = Vec::new();
        let verdict = found(profile.map(Vec::from_iter), &mut profiles)?.and_then(|()| {
            let none = "the role does not exist or is not named; create it or give instanceProfile";
            some(&profiles, "InstanceProfileNotFound", none)
        });
        status.instance_profile = profiles.pop();
        verdicts.push(("InstanceProfileReady", verdict));
        let verdict = match placement {
            Ok(()) => Ok(()),
            Err(CloudError::NotFound { message }) => Err(("PlacementGroupNotFound", message)),
            Err(other) => return Err(other),
        };
        verdicts.push((conditions::PLACEMENT_GROUP_READY, verdict));
        let previous = class.status.clone().unwrap_or_default();
        let verdict = match reservations {
            Ok(list) => {
                status.capacity_reservations = list;
                Ok(())
            }
            // Nodes can be bought without them.
            Err(error) => {
                status.capacity_reservations = previous.capacity_reservations;
                Err(("CapacityReservationsNotRead", error.to_string()))
            }
        };
        verdicts.push((conditions::CAPACITY_RESERVATIONS_READY, verdict));
        let mut verdict = self.validate(class);
        let found = verdicts.iter().all(|(_, verdict)| verdict.is_ok());
        if found && verdict.is_ok() && !self.settings.no_dry_runs {
            let resolved = EC2NodeClass { status: Some(status.clone()), ..class.clone() };
            verdict = Box::pin(self.permitted(&resolved, now)).await;
        }
        verdicts.push((conditions::VALIDATION_SUCCEEDED, verdict));
        status.conditions =
            conditions_of(previous.conditions, verdicts, class.metadata.generation, now);
        self.sweep_templates(now).await;
        Ok(status)
    }

    /// What can be seen in the class alone.
    fn validate(&self, class: &EC2NodeClass) -> Verdict {
        let spec = &class.spec;
        let settings =
            self.class_settings(spec).map_err(|error| (error.reason, error.to_string()))?;
        if let Some(key) = spec.tags.keys().find(|key| is_reserved_tag(key)) {
            let message = format!("spec.tags may not set {key}, which the autoscaler sets itself");
            return Err(("TagValidationFailed", message));
        }
        self.sample_user_data(class, &settings)
    }

    /// Writes user data once, to see whether it can be written.
    fn sample_user_data(&self, class: &EC2NodeClass, settings: &ClassSettings) -> Verdict {
        let node = Node {
            cluster: &self.settings,
            family: settings.family,
            kubelet: &settings.kubelet,
            max_pods: 110,
            labels: &Labels::new(),
            taints: &[],
            raid0: settings.raid0,
            custom: class.spec.user_data.as_deref(),
        };
        if settings.family == AmiFamily::Custom && class.spec.user_data.is_none() {
            tracing::debug!("a Custom class has no user data: its image must join by itself");
        }
        node.user_data().map(drop).map_err(|error| (error.reason, error.message))
    }

    /// Removes what was made for a class.
    pub(super) async fn release_class(&self, class: &EC2NodeClass) -> Result<(), CloudError> {
        let name = class.metadata.name.as_deref().unwrap_or_default();
        self.catalogs.forget(name);
        // IAM cannot be reached from an isolated network.
        if !self.settings.isolated {
            gone_is_fine(self.delete_profiles(class).await)?;
        }
        gone_is_fine(self.delete_class_templates(name).await)
    }
}

/// Tags by which we know what is ours.
fn is_reserved_tag(key: &str) -> bool {
    key.starts_with("kubernetes.io/cluster")
        || matches!(
            key,
            "eks:eks-cluster-name"
                | "karpenter.sh/nodepool"
                | "karpenter.sh/nodeclaim"
                | "karpenter.k8s.aws/ec2nodeclass"
        )
}

/// Puts what was found into its place. An answer that blames the class becomes a verdict; any other
/// error ends the resolution, and the class keeps the status that it has.
fn found<T>(read: Result<Vec<T>, CloudError>, place: &mut Vec<T>) -> Result<Verdict, CloudError> {
    match read {
        Ok(list) => {
            *place = list;
            Ok(Ok(()))
        }
        Err(CloudError::ClassNotReady { message } | CloudError::NotFound { message }) => {
            Ok(Err(("SelectorRefused", message)))
        }
        Err(other) => Err(other),
    }
}

fn some<T>(list: &[T], reason: &'static str, message: &str) -> Verdict {
    if list.is_empty() { Err((reason, message.to_owned())) } else { Ok(()) }
}

fn conditions_of(
    mut list: Vec<Condition>,
    verdicts: Vec<(&str, Verdict)>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut write = |type_: &str, status, reason: &str, message: &str| {
        conditions::set(&mut list, Update { type_, status, reason, message, generation }, now);
    };
    let mut first_fault = None;
    for (kind, verdict) in verdicts {
        match verdict {
            Ok(()) => write(kind, ConditionStatus::True, kind, ""),
            Err((reason, message)) => {
                if kind != conditions::CAPACITY_RESERVATIONS_READY {
                    first_fault.get_or_insert_with(|| format!("{kind}=False: {message}"));
                }
                write(kind, ConditionStatus::False, reason, &message);
            }
        }
    }
    match first_fault {
        None => write(conditions::READY, ConditionStatus::True, conditions::READY, ""),
        Some(message) => {
            write(conditions::READY, ConditionStatus::False, "UnhealthyDependents", &message);
        }
    }
    list
}
