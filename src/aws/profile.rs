//! Instance profiles: the class's own, or one that is made for its role.

use jiff::{SignedDuration, Timestamp};

use super::Provider;
use super::cache::Cache;
use super::error::{code, from_sdk};
use super::tags;
use crate::api::ec2nodeclass::EC2NodeClass;
use crate::cloud::CloudError;
use crate::model::digest::hex;
use crate::model::labels;

/// A profile that was seen is taken for granted for this long.
const SEEN: SignedDuration = SignedDuration::from_mins(15);
/// A role that was missing is not asked for again for this long.
const MISSING: SignedDuration = SignedDuration::from_mins(1);

/// What is known of profiles and roles.
#[derive(Debug)]
pub(super) struct Profiles {
    seen: Cache<String, ()>,
    missing_roles: Cache<String, ()>,
}

impl Default for Profiles {
    fn default() -> Self {
        Self { seen: Cache::new(SEEN), missing_roles: Cache::new(MISSING) }
    }
}

/// The name of a role without its path, which is how IAM answers.
fn bare(role: &str) -> &str {
    role.rsplit('/').next().unwrap_or(role)
}

impl Provider {
    /// Name of the profile that is made for a class's role. It follows from the role, so that a
    /// changed role has a new profile while nodes still run with the old one, and a repeated attempt
    /// makes no second one.
    fn profile_name(&self, class: &EC2NodeClass, role: &str) -> String {
        let uid = class.metadata.uid.as_deref().unwrap_or_default();
        let name = class.metadata.name.as_deref().unwrap_or_default();
        let digest = hex(format!("{}\n{name}\n{uid}\n{role}", self.region), 8);
        // IAM allows 128 characters.
        let cluster: String = self.settings.cluster_name.chars().take(100).collect();
        format!("{cluster}_{digest}")
    }

    fn profile_path(&self, class: &EC2NodeClass) -> String {
        let uid = class.metadata.uid.as_deref().unwrap_or_default();
        format!("/harbinger/{}/{}/{uid}/", self.region, self.settings.cluster_name)
    }

    /// The profile of a class's nodes; made where the class names a role. `None` means that the
    /// role does not exist.
    pub(super) async fn instance_profile(
        &self,
        class: &EC2NodeClass,
        now: Timestamp,
    ) -> Result<Option<String>, CloudError> {
        if let Some(own) = class.spec.instance_profile.as_ref().filter(|name| !name.is_empty()) {
            return Ok(Some(own.clone()));
        }
        let Some(role) = class.spec.role.as_deref().map(bare).filter(|role| !role.is_empty())
        else {
            return Ok(None);
        };
        let name = self.profile_name(class, role);
        if self.profiles.seen.get(&name, now).is_some() {
            return Ok(Some(name));
        }
        if self.profiles.missing_roles.get(&role.to_owned(), now).is_some() {
            return Ok(None);
        }
        if !self.ensure_profile(class, &name, role).await? {
            self.profiles.missing_roles.put(role.to_owned(), (), now);
            return Ok(None);
        }
        self.profiles.seen.put(name.clone(), (), now);
        Ok(Some(name))
    }

    /// Makes sure that the profile exists with the role in it; `false` when the role does not exist.
    async fn ensure_profile(
        &self,
        class: &EC2NodeClass,
        name: &str,
        role: &str,
    ) -> Result<bool, CloudError> {
        let roles: Vec<String> =
            match self.iam.get_instance_profile().instance_profile_name(name).send().await {
                Ok(answer) => answer
                    .instance_profile
                    .map(|profile| profile.roles.into_iter().map(|role| role.role_name).collect())
                    .unwrap_or_default(),
                Err(error) if is_missing(code(&error)) => {
                    self.create_profile(class, name).await?;
                    Vec::new()
                }
                Err(error) => return Err(from_sdk(&error)),
            };
        if roles.iter().any(|known| known == role) {
            return Ok(true);
        }
        for other in roles {
            self.iam
                .remove_role_from_instance_profile()
                .instance_profile_name(name)
                .role_name(other)
                .send()
                .await
                .map_err(|error| from_sdk(&error))?;
        }
        let added = self
            .iam
            .add_role_to_instance_profile()
            .instance_profile_name(name)
            .role_name(role)
            .send()
            .await;
        match added {
            Ok(_) => Ok(true),
            Err(error) if is_missing(code(&error)) => Ok(false),
            // Another replica was faster.
            Err(error) if code(&error).starts_with("LimitExceeded") => Ok(true),
            Err(error) => Err(from_sdk(&error)),
        }
    }

    async fn create_profile(&self, class: &EC2NodeClass, name: &str) -> Result<(), CloudError> {
        let mut all = tags::of_class(class, &self.settings.cluster_name, None);
        all.insert(labels::REGION.to_owned(), self.region.clone());
        let mut request = self
            .iam
            .create_instance_profile()
            .instance_profile_name(name)
            .path(self.profile_path(class));
        for (key, value) in all {
            let tag = aws_sdk_iam::types::Tag::builder().key(key).value(value).build();
            request = request.tags(tag.map_err(|error| CloudError::ClassNotReady {
                message: format!("a tag of the class cannot be used: {error}"),
            })?);
        }
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error).starts_with("EntityAlreadyExists") => Ok(()),
            Err(error) => Err(from_sdk(&error)),
        }
    }

    /// Removes the profiles that were made for a class.
    pub(super) async fn delete_profiles(&self, class: &EC2NodeClass) -> Result<(), CloudError> {
        if class.spec.role.is_none() || class.metadata.uid.is_none() {
            return Ok(());
        }
        let path = self.profile_path(class);
        let mut pages =
            self.iam.list_instance_profiles().path_prefix(&path).into_paginator().items().send();
        while let Some(profile) = pages.next().await {
            let profile = profile.map_err(|error| from_sdk(&error))?;
            // Not every endpoint minds the prefix.
            if profile.path != path {
                continue;
            }
            let name = profile.instance_profile_name;
            for role in profile.roles {
                let removed = self
                    .iam
                    .remove_role_from_instance_profile()
                    .instance_profile_name(&name)
                    .role_name(role.role_name)
                    .send()
                    .await;
                gone_is_fine(removed.map(drop).map_err(|error| from_sdk(&error)))?;
            }
            let deleted =
                self.iam.delete_instance_profile().instance_profile_name(&name).send().await;
            gone_is_fine(deleted.map(drop).map_err(|error| from_sdk(&error)))?;
            self.profiles.seen.remove(&name);
        }
        Ok(())
    }
}

fn is_missing(code: &str) -> bool {
    code.starts_with("NoSuchEntity")
}

/// What should be deleted may be gone already.
pub(super) fn gone_is_fine(result: Result<(), CloudError>) -> Result<(), CloudError> {
    match result {
        Err(CloudError::NotFound { .. }) => Ok(()),
        other => other,
    }
}
