"""Starts moto's server with what our tests need and stock moto lacks.

- SSM_SEED names a JSON object of parameters under /aws/service, which cannot be written through
  the API.
- Tags of a resource are looked up by its id: stock moto matches a pattern against the tags of every
  resource, which makes a filtered DescribeInstances quadratic.
- An instance that a fleet launches gets the security groups and metadata options of its launch
  template, the tags that EC2 adds, and its region's DNS name.
"""

import json
import os
import sys

import moto.server
from moto.ec2.models import core, ec2_backends
from moto.ec2.models.fleets import FleetsBackend
from moto.ec2.models.instances import MetadataOptions
from moto.ec2.utils import EC2_PREFIX_TO_RESOURCE, get_prefix
from moto.ssm.models import Parameter, ParameterDict


def get_tags(resource):
    if not resource.id:
        return []
    kind = EC2_PREFIX_TO_RESOURCE.get(get_prefix(resource.id), "")
    tags = resource.ec2_backend.tags.get(resource.id, {})
    return [
        {"resource_id": resource.id, "key": key, "value": value, "resource_type": kind}
        for key, value in list(tags.items())
    ]


core.TaggedEC2Resource.get_tags = get_tags

create_fleet = FleetsBackend.create_fleet


def create_whole_fleet(backend, *args, **kwargs):
    fleet = create_fleet(backend, *args, **kwargs)
    for launched in fleet.instances or []:
        spec = launched["LaunchTemplateAndOverrides"]["LaunchTemplateSpecification"]
        template = backend.get_launch_template(spec["LaunchTemplateId"])
        version = spec.get("Version", template.default_version_number)
        data = template.get_version(version).data
        for instance in map(backend.get_instance, launched["InstanceIds"]):
            instance.region_name = backend.region_name
            instance.metadata_options = MetadataOptions(data.get("MetadataOptions"))
            instance.add_tags(
                {
                    "aws:ec2:fleet-id": fleet.id,
                    "aws:ec2launchtemplate:id": template.id,
                    "aws:ec2launchtemplate:version": str(version),
                }
            )
            if groups := data.get("SecurityGroupIds"):
                backend.modify_instance_security_groups(instance.id, groups)
    return fleet


FleetsBackend.create_fleet = create_whole_fleet

with open(os.environ["SSM_SEED"], encoding="utf-8") as file:
    SEED = json.load(file)
load_stock = ParameterDict._check_loading_status


def load(parameters, key):
    load_stock(parameters, key)
    if getattr(parameters, "seeded", False):
        return
    parameters.seeded = True
    for name, value in SEED.items():
        # The parent's method: ours would come back here.
        dict.setdefault(parameters, name, []).append(
            Parameter(
                account_id=parameters.account_id,
                name=name,
                value=value,
                parameter_type="String",
                description=None,
                allowed_pattern=None,
                keyid=None,
                last_modified_date=0,
                version=1,
                data_type="text",
            )
        )


ParameterDict._check_loading_status = load

# The first use of EC2 in a process imports every instance type, a second of work.
ec2_backends["000000000000"]["us-west-2"].describe_vpcs()

moto.server.main(sys.argv[1:])
