//! What an administrator prepares in an account before a node autoscaler can work: network, security
//! group, node role.

use std::collections::BTreeMap;

use anyhow::Result;

use super::client::AwsClient;

/// The tag by which EC2NodeClasses usually find subnets and security groups.
const DISCOVERY: &str = "karpenter.sh/discovery";
const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;

/// Names and ids of what was made.
#[derive(Clone, Debug)]
pub struct Seed {
    pub cluster: String,
    pub vpc_id: String,
    /// Subnet id by zone name: three zones, one /18 each.
    pub subnets: BTreeMap<String, String>,
    pub security_group_id: String,
    /// The nodes' IAM role; its instance profile has the same name.
    pub role: String,
}

impl Seed {
    /// Makes all of it, in the range `10.octet.0.0/16`.
    pub(super) async fn plant(aws: &AwsClient, cluster: &str, octet: u32) -> Result<Self> {
        let block = format!("10.{octet}.0.0/16");
        let vpc = aws.query("ec2", "CreateVpc", &[("CidrBlock", &block)]).await?;
        let vpc_id = vpc.text_at("vpc/vpcId").to_owned();
        let mut subnets = BTreeMap::new();
        for (index, letter) in ["a", "b", "c"].into_iter().enumerate() {
            let zone = format!("{}{letter}", aws.region());
            let block = format!("10.{octet}.{}.0/18", index * 64);
            let params =
                [("VpcId", vpc_id.as_str()), ("CidrBlock", &block), ("AvailabilityZone", &zone)];
            let subnet =
                aws.query("ec2", "CreateSubnet", &with_tag(&params, "subnet", cluster)).await?;
            subnets.insert(zone, subnet.text_at("subnet/subnetId").to_owned());
        }
        let params = [
            ("VpcId", vpc_id.as_str()),
            ("GroupName", "nodes"),
            ("GroupDescription", "Nodes of the cluster"),
        ];
        let params = with_tag(&params, "security-group", cluster);
        let group = aws.query("ec2", "CreateSecurityGroup", &params).await?;
        let role = "node".to_owned();
        let name = ("RoleName", role.as_str());
        let profile = ("InstanceProfileName", role.as_str());
        aws.query("iam", "CreateRole", &[name, ("AssumeRolePolicyDocument", TRUST)]).await?;
        aws.query("iam", "CreateInstanceProfile", &[profile]).await?;
        aws.query("iam", "AddRoleToInstanceProfile", &[profile, name]).await?;
        Ok(Self {
            cluster: cluster.to_owned(),
            vpc_id,
            subnets,
            security_group_id: group.text_at("groupId").to_owned(),
            role,
        })
    }
}

fn with_tag<'a>(
    params: &[(&'a str, &'a str)],
    resource: &'a str,
    cluster: &'a str,
) -> Vec<(&'a str, &'a str)> {
    let mut params = params.to_vec();
    params.extend([
        ("TagSpecification.1.ResourceType", resource),
        ("TagSpecification.1.Tag.1.Key", DISCOVERY),
        ("TagSpecification.1.Tag.1.Value", cluster),
    ]);
    params
}
