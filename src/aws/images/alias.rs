//! Aliases such as `al2023@latest`: where AWS publishes the image ids of each family, and which
//! instance types each variant boots.

use jiff::Timestamp;

use super::{Candidate, arch, filter};
use crate::aws::Provider;
use crate::cloud::CloudError;
use crate::model::labels::AWS_DOMAIN;
use crate::model::requirement::{Expression, Operator};

/// What a variant of an image has drivers for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Variant {
    /// Neither GPUs nor accelerators.
    Standard,
    /// NVIDIA GPUs.
    Nvidia,
    /// Neuron devices.
    Neuron,
}

impl Variant {
    /// Which instance types the variant boots.
    fn requirements(self, cpu: &str) -> Vec<Expression> {
        let count = |device: &str, operator| Expression {
            key: format!("{AWS_DOMAIN}instance-{device}-count"),
            operator,
            values: Vec::new(),
            min_values: None,
        };
        let mut all = vec![arch(cpu)];
        match self {
            Self::Standard => all.extend([
                count("accelerator", Operator::DoesNotExist),
                count("gpu", Operator::DoesNotExist),
            ]),
            Self::Nvidia => all.push(count("gpu", Operator::Exists)),
            Self::Neuron => all.push(count("accelerator", Operator::Exists)),
        }
        all
    }
}

/// A parameter that holds an image id, and the variants that the image serves.
#[derive(Debug, Eq, PartialEq)]
struct Parameter {
    name: String,
    cpu: &'static str,
    variants: &'static [Variant],
}

/// Why an alias cannot be used with a Kubernetes version (its minor number): condition reason and
/// message.
pub(in crate::aws) fn alias_fault(family: &str, minor: u32) -> Option<(&'static str, String)> {
    let message = match family {
        "al2" if minor >= 33 => "AL2 has no images from Kubernetes 1.33 on; use al2023@latest",
        "windows2025" if minor < 35 => "windows2025 has images from Kubernetes 1.35 on only",
        _ => return None,
    };
    Some(("UnsupportedAlias", message.to_owned()))
}

/// The parameters of an alias; `version` is `latest` or a release.
fn parameters(family: &str, version: &str, kubernetes: &str) -> Vec<Parameter> {
    use Variant::{Neuron, Nvidia, Standard};
    let latest = version == "latest";
    let release = version.strip_prefix('v').unwrap_or(version);
    match family {
        "al2023" => [
            ("x86_64", "amd64", "standard", &[Standard][..]),
            ("arm64", "arm64", "standard", &[Standard]),
            ("x86_64", "amd64", "nvidia", &[Nvidia]),
            ("arm64", "arm64", "nvidia", &[Nvidia]),
            ("x86_64", "amd64", "neuron", &[Neuron]),
        ]
        .into_iter()
        .map(|(machine, cpu, variant, variants)| {
            let image = if latest {
                "recommended".to_owned()
            } else {
                format!("amazon-eks-node-al2023-{machine}-{variant}-{kubernetes}-{version}")
            };
            let name = format!(
                "/aws/service/eks/optimized-ami/{kubernetes}/amazon-linux-2023/{machine}/{variant}/{image}/image_id"
            );
            Parameter { name, cpu, variants }
        })
        .collect(),
        "al2" => [
            ("", "", "amd64", &[Standard][..]),
            ("-arm64", "arm64-", "arm64", &[Standard]),
            ("-gpu", "gpu-", "amd64", &[Nvidia, Neuron]),
        ]
        .into_iter()
        .map(|(suffix, infix, cpu, variants)| {
            let image = if latest {
                "recommended".to_owned()
            } else {
                format!("amazon-eks-{infix}node-{kubernetes}-{version}")
            };
            let name = format!(
                "/aws/service/eks/optimized-ami/{kubernetes}/amazon-linux-2{suffix}/{image}/image_id"
            );
            Parameter { name, cpu, variants }
        })
        .collect(),
        "bottlerocket" => [
            ("", "x86_64", "amd64", &[Standard, Neuron][..]),
            ("", "arm64", "arm64", &[Standard]),
            ("-nvidia", "x86_64", "amd64", &[Nvidia]),
            ("-nvidia", "arm64", "arm64", &[Nvidia]),
        ]
        .into_iter()
        .map(|(suffix, machine, cpu, variants)| {
            let name = format!(
                "/aws/service/bottlerocket/aws-k8s-{kubernetes}{suffix}/{machine}/{release}/image_id"
            );
            Parameter { name, cpu, variants }
        })
        .collect(),
        "windows2019" | "windows2022" | "windows2025" => {
            let year = &family["windows".len()..];
            let name = format!(
                "/aws/service/ami-windows-latest/Windows_Server-{year}-English-Core-EKS_Optimized-{kubernetes}/image_id"
            );
            vec![Parameter { name, cpu: "amd64", variants: &[Standard] }]
        }
        _ => Vec::new(),
    }
}

impl Provider {
    /// Images of an alias, with the variants' requirements.
    pub(super) async fn alias_images(
        &self,
        family: &str,
        version: &str,
        now: Timestamp,
    ) -> Result<Vec<Candidate>, CloudError> {
        let parameters = parameters(family, version, &self.settings.kubernetes_version);
        let read = parameters.iter().map(|parameter| self.parameter(&parameter.name, true, now));
        let ids = futures::future::try_join_all(read).await?;
        let mut candidates = Vec::new();
        for (parameter, id) in parameters.iter().zip(ids) {
            let Some(id) = id else { continue };
            let images =
                self.describe_images(vec![filter("image-id", &id)], Vec::new(), now).await?;
            for image in images {
                candidates.extend(parameter.variants.iter().map(|variant| Candidate {
                    image: image.clone(),
                    requirements: variant.requirements(parameter.cpu),
                }));
            }
        }
        Ok(candidates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_that_aws_publishes() {
        let names = |family: &str, version: &str| -> Vec<String> {
            parameters(family, version, "1.32").into_iter().map(|p| p.name).collect()
        };
        let al2023 = names("al2023", "latest");
        assert_eq!(al2023.len(), 5);
        assert_eq!(
            al2023[0],
            "/aws/service/eks/optimized-ami/1.32/amazon-linux-2023/x86_64/standard/recommended/image_id"
        );
        assert_eq!(
            names("al2023", "v20260915")[3],
            "/aws/service/eks/optimized-ami/1.32/amazon-linux-2023/arm64/nvidia/amazon-eks-node-al2023-arm64-nvidia-1.32-v20260915/image_id"
        );
        assert_eq!(
            names("al2", "v20240807")[2],
            "/aws/service/eks/optimized-ami/1.32/amazon-linux-2-gpu/amazon-eks-gpu-node-1.32-v20240807/image_id"
        );
        assert_eq!(
            names("bottlerocket", "v1.20.4")[2],
            "/aws/service/bottlerocket/aws-k8s-1.32-nvidia/x86_64/1.20.4/image_id"
        );
        assert_eq!(
            names("windows2022", "latest"),
            [
                "/aws/service/ami-windows-latest/Windows_Server-2022-English-Core-EKS_Optimized-1.32/image_id"
            ]
        );
        assert_eq!(alias_fault("al2", 33).unwrap().0, "UnsupportedAlias");
        assert!(alias_fault("al2", 32).is_none() && alias_fault("al2023", 34).is_none());
    }
}
