//! Images that a class selects: by alias, id, name, tags or SSM parameter.

mod alias;

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{ArchitectureValues, Filter, Image};
use jiff::{SignedDuration, Timestamp};

pub(super) use alias::alias_fault;

use super::Provider;
use super::cache::Cache;
use super::error::{code, from_sdk};
use super::network::tag_filter;
use crate::api::common::Requirement;
use crate::api::ec2nodeclass::{AmiStatus, EC2NodeClassSpec};
use crate::cloud::CloudError;
use crate::cloud::settings;
use crate::model::labels;
use crate::model::requirement::{Expression, Operator};

/// Parameters of AWS change with releases of images, those of users when they say so.
const PARAMETER_TTL: SignedDuration = SignedDuration::from_hours(24);
const USER_PARAMETER_TTL: SignedDuration = SignedDuration::from_mins(5);
/// Images are looked up once a minute for each question.
const IMAGES_TTL: SignedDuration = SignedDuration::from_mins(1);

/// What was looked up.
#[derive(Debug)]
pub(super) struct Images {
    parameters: Cache<String, Option<String>>,
    user_parameters: Cache<String, Option<String>>,
    answers: Cache<String, Vec<Found>>,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            parameters: Cache::new(PARAMETER_TTL),
            user_parameters: Cache::new(USER_PARAMETER_TTL),
            answers: Cache::new(IMAGES_TTL),
        }
    }
}

/// An image as EC2 describes it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Found {
    id: String,
    name: String,
    created_at: String,
    deprecated_at: Option<String>,
    arch: String,
}

/// An image and the instance types that it boots.
#[derive(Clone, Debug)]
struct Candidate {
    image: Found,
    requirements: Vec<Expression>,
}

impl Provider {
    /// The images of a class, newest first: for each kind of instance type the newest one that is
    /// not deprecated.
    pub(super) async fn images(
        &self,
        spec: &EC2NodeClassSpec,
        now: Timestamp,
    ) -> Result<Vec<AmiStatus>, CloudError> {
        let mut candidates = Vec::new();
        if let Some((family, version)) = settings::alias(spec) {
            candidates.extend(self.alias_images(family, version, now).await?);
        }
        for term in &spec.ami_selector_terms {
            let mut filters: Vec<Filter> = Vec::new();
            let mut owners: Vec<String> = term.owner.iter().cloned().collect();
            if let Some(id) = &term.id {
                filters.push(filter("image-id", id));
            } else if let Some(parameter) = &term.ssm_parameter {
                match self.parameter(parameter, false, now).await? {
                    Some(id) if id.starts_with("ami-") => filters.push(filter("image-id", &id)),
                    _ => continue,
                }
            } else {
                if let Some(name) = &term.name {
                    filters.push(filter("name", name));
                    if owners.is_empty() {
                        // A name alone could be anybody's.
                        owners = vec!["self".to_owned(), "amazon".to_owned()];
                    }
                }
                filters.extend(term.tags.iter().map(|(k, v)| tag_filter(k, v)));
            }
            if filters.is_empty() {
                continue;
            }
            let found = self.describe_images(filters, owners, now).await?;
            candidates.extend(
                found
                    .into_iter()
                    .map(|image| Candidate { requirements: vec![arch(&image.arch)], image }),
            );
        }
        Ok(newest(candidates, now))
    }

    /// The value of an SSM parameter; `None` when there is none.
    async fn parameter(
        &self,
        name: &str,
        of_aws: bool,
        now: Timestamp,
    ) -> Result<Option<String>, CloudError> {
        let cache = if of_aws { &self.images.parameters } else { &self.images.user_parameters };
        if let Some(known) = cache.get(&name.to_owned(), now) {
            return Ok(known);
        }
        let value = match self.ssm.get_parameter().name(name).send().await {
            Ok(answer) => answer.parameter.and_then(|parameter| parameter.value),
            Err(error) if code(&error) == "ParameterNotFound" => None,
            Err(error) => return Err(from_sdk(&error)),
        };
        // What is not there yet may come any minute.
        if value.is_some() {
            cache.put(name.to_owned(), value.clone(), now);
        }
        Ok(value)
    }

    async fn describe_images(
        &self,
        mut filters: Vec<Filter>,
        owners: Vec<String>,
        now: Timestamp,
    ) -> Result<Vec<Found>, CloudError> {
        let question = format!("{filters:?} {owners:?}");
        if let Some(known) = self.images.answers.get(&question, now) {
            return Ok(known);
        }
        filters.push(filter("state", "available"));
        let mut pages = self
            .ec2
            .describe_images()
            .include_deprecated(true)
            .set_filters(Some(filters))
            .set_owners((!owners.is_empty()).then_some(owners))
            .into_paginator()
            .page_size(1000)
            .items()
            .send();
        let mut all = Vec::new();
        while let Some(image) = pages.next().await {
            all.extend(found(&image.map_err(|error| from_sdk(&error))?));
        }
        self.images.answers.put(question, all.clone(), now);
        Ok(all)
    }
}

fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

/// Images of architectures that no node has are passed over.
fn found(image: &Image) -> Option<Found> {
    let arch = match image.architecture()? {
        ArchitectureValues::X8664 => "amd64",
        ArchitectureValues::Arm64 => "arm64",
        _ => return None,
    };
    Some(Found {
        id: image.image_id()?.to_owned(),
        name: image.name().unwrap_or_default().to_owned(),
        created_at: image.creation_date().unwrap_or_default().to_owned(),
        deprecated_at: image.deprecation_time().map(str::to_owned),
        arch: arch.to_owned(),
    })
}

fn arch(value: &str) -> Expression {
    Expression {
        key: labels::ARCH.to_owned(),
        operator: Operator::In,
        values: vec![value.to_owned()],
        min_values: None,
    }
}

/// For each set of requirements the best image: not deprecated, then newest, then by name; all
/// sorted newest first.
fn newest(candidates: Vec<Candidate>, now: Timestamp) -> Vec<AmiStatus> {
    // ISO 8601 in UTC sorts as text.
    let deprecated = |image: &Found| {
        let at = image.deprecated_at.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        at.is_some_and(|at| at <= now)
    };
    let rank = |image: &Found| (!deprecated(image), image.created_at.clone(), image.name.clone());
    let mut best: BTreeMap<Vec<Expression>, Found> = BTreeMap::new();
    for candidate in candidates {
        match best.get_mut(&candidate.requirements) {
            Some(known) if rank(known) >= rank(&candidate.image) => {}
            Some(known) => *known = candidate.image,
            None => {
                best.insert(candidate.requirements, candidate.image);
            }
        }
    }
    let mut chosen: Vec<(Found, Vec<Expression>)> =
        best.into_iter().map(|(requirements, image)| (image, requirements)).collect();
    chosen.sort_by(|(a, _), (b, _)| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
    chosen
        .into_iter()
        .map(|(image, requirements)| AmiStatus {
            deprecated: deprecated(&image).then_some(true),
            requirements: requirements.into_iter().map(Requirement::from).collect(),
            id: image.id,
            name: Some(image.name),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_image_that_is_not_deprecated() {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let candidate = |id: &str, created: &str, deprecated: Option<&str>, cpu: &str| Candidate {
            image: Found {
                id: id.to_owned(),
                name: id.to_owned(),
                created_at: created.to_owned(),
                deprecated_at: deprecated.map(str::to_owned),
                arch: cpu.to_owned(),
            },
            requirements: vec![arch(cpu)],
        };
        let chosen = newest(
            vec![
                candidate("old", "2026-01-01T00:00:00.000Z", None, "amd64"),
                candidate("new", "2026-03-01T00:00:00.000Z", None, "amd64"),
                candidate(
                    "gone",
                    "2026-05-01T00:00:00.000Z",
                    Some("2026-05-02T00:00:00Z"),
                    "amd64",
                ),
                candidate("arm", "2026-04-01T00:00:00.000Z", Some("2026-05-02T00:00:00Z"), "arm64"),
                candidate(
                    "arm2",
                    "2026-02-01T00:00:00.000Z",
                    Some("2027-01-01T00:00:00Z"),
                    "arm64",
                ),
            ],
            now,
        );
        let ids: Vec<_> = chosen.iter().map(|ami| (&*ami.id, ami.deprecated)).collect();
        assert_eq!(ids, [("new", None), ("arm2", None)]);
    }
}
