use super::*;
use crate::cloud::catalog::Catalog;
use crate::model::labels;

const MIB: i64 = 1 << 20;

fn of(name: &str, class: &ClassSettings) -> InstanceType {
    let facts = Catalog::built_in()
        .unwrap()
        .facts(name)
        .unwrap_or_else(|| panic!("{name} is in the table"));
    facts.instance_type("us-east-1", class, &[], Vec::new())
}

/// Allocatable values that the field's instance type reference publishes for AL2023 with all
/// defaults: name, cpu (m), memory (MiB), pods, extended resources.
type Golden = (&'static str, i64, i64, i64, &'static [(&'static str, i64)]);
const GOLDEN: [Golden; 14] = [
    ("a1.medium", 940, 1392, 8, &[("vpc.amazonaws.com/pod-eni", 10)]),
    ("a1.large", 1930, 3055, 29, &[]),
    ("t3.medium", 1930, 3246, 17, &[]),
    ("m5.large", 1930, 6903, 29, &[("vpc.amazonaws.com/pod-eni", 9)]),
    ("m6g.large", 1930, 6844, 29, &[("vpc.amazonaws.com/pod-eni", 9)]),
    ("c6a.4xlarge", 15890, 27381, 234, &[]),
    ("c7gn.16xlarge", 63770, 112_720, 737, &[]),
    ("m5.24xlarge", 95690, 355_262, 737, &[]),
    ("g4dn.xlarge", 3920, 14481, 29, &[("nvidia.com/gpu", 1)]),
    (
        "inf2.xlarge",
        3920,
        14162,
        58,
        &[("aws.amazon.com/neuron", 1), ("aws.amazon.com/neuroncore", 2)],
    ),
    ("p4d.24xlarge", 95690, 1_082_712, 737, &[("vpc.amazonaws.com/efa", 4), ("nvidia.com/gpu", 8)]),
    (
        "p5.48xlarge",
        191_450,
        1_938_410,
        100,
        &[("vpc.amazonaws.com/efa", 32), ("nvidia.com/gpu", 8)],
    ),
    (
        "trn1.32xlarge",
        127_610,
        481_894,
        247,
        &[
            ("aws.amazon.com/neuron", 16),
            ("aws.amazon.com/neuroncore", 32),
            ("vpc.amazonaws.com/efa", 8),
        ],
    ),
    ("u-6tb1.112xlarge", 446_810, 5_811_134, 737, &[]),
];

#[test]
fn allocatable_is_that_of_the_reference() {
    for (name, cpu, memory, pods, extended) in GOLDEN {
        let allocatable = of(name, &ClassSettings::default()).allocatable();
        assert_eq!(
            (allocatable.cpu, allocatable.memory / MIB, allocatable.pods),
            (cpu, memory, pods),
            "{name}"
        );
        assert_eq!(allocatable.memory % MIB, 0, "{name}");
        assert_eq!(allocatable.ephemeral_storage, 17 << 30, "{name}");
        for (resource, amount) in extended {
            assert_eq!(allocatable.get(resource), *amount, "{name} {resource}");
        }
    }
}

#[test]
fn pods_follow_the_class() {
    let kubelet = |max_pods, pods_per_core| crate::cloud::kubelet::Kubelet {
        max_pods,
        pods_per_core,
        ..Default::default()
    };
    let class = |family, kubelet, reserved_enis| ClassSettings {
        family,
        kubelet,
        reserved_enis,
        ..ClassSettings::default()
    };
    let none = kubelet(None, None);
    for (class, pods) in [
        (class(AmiFamily::AL2023, none.clone(), 1), 20),
        (class(AmiFamily::AL2023, kubelet(Some(110), None), 0), 110),
        (class(AmiFamily::AL2023, kubelet(Some(110), Some(10)), 0), 20),
        (class(AmiFamily::Bottlerocket, kubelet(None, Some(2)), 0), 29),
        (class(AmiFamily::Windows2022, none, 0), 110),
    ] {
        assert_eq!(of("m5.large", &class).capacity.pods, pods, "{class:?}");
    }
}

#[test]
fn windows_pods_take_addresses_of_one_interface() {
    let addresses = |family| {
        let class = ClassSettings { family, ..ClassSettings::default() };
        of("m5.large", &class).capacity.get("vpc.amazonaws.com/PrivateIPv4Address")
    };
    assert_eq!((addresses(AmiFamily::Windows2022), addresses(AmiFamily::AL2023)), (9, 0));
}

#[test]
fn kubelet_memory_follows_the_family() {
    let reserved = |family, max_pods| {
        let kubelet = crate::cloud::kubelet::Kubelet { max_pods, ..Default::default() };
        let class = ClassSettings { family, kubelet, ..ClassSettings::default() };
        // 35 pods by interfaces, less the eviction threshold of 100 MiB.
        of("t3.large", &class).overhead.memory / MIB - 100
    };
    assert_eq!(reserved(AmiFamily::AL2023, Some(10)), 640);
    assert_eq!(reserved(AmiFamily::Custom, Some(10)), 640);
    assert_eq!(reserved(AmiFamily::Bottlerocket, Some(10)), 365);
    assert_eq!(reserved(AmiFamily::Windows2022, None), 1465);
}

#[test]
fn reservations_override_key_by_key() {
    let raw = r#"{"kubeReserved":{"cpu":"1"},"systemReserved":{"memory":"1Gi"},"evictionHard":{"memory.available":"5%","nodefs.available":"100%"}}"#;
    let kubelet = super::super::kubelet::Kubelet::parse(
        &serde_json::from_str(raw).unwrap(),
        AmiFamily::AL2023,
    )
    .unwrap();
    let m5 = of("m5.large", &ClassSettings { kubelet, ..ClassSettings::default() });
    assert_eq!(m5.overhead.cpu, 1000);
    assert_eq!(m5.overhead.memory, (574 + 1024) * MIB + (m5.capacity.memory + 19) / 20);
    assert_eq!(m5.overhead.ephemeral_storage, 1 << 30);
}

#[test]
fn instance_stores_become_the_disk() {
    let class = ClassSettings { raid0: true, ..ClassSettings::default() };
    assert_eq!(of("m5d.large", &class).capacity.ephemeral_storage, 75_000_000_000);
    assert_eq!(of("m5.large", &class).capacity.ephemeral_storage, 20 << 30);
}

#[test]
fn labels_are_those_of_the_field() {
    let class = ClassSettings::default();
    for (name, expected) in [
        (
            "m5.large",
            &[
                ("instance-category", "m"),
                ("instance-generation", "5"),
                ("instance-family", "m5"),
                ("instance-size", "large"),
                ("instance-cpu", "2"),
                ("instance-memory", "8192"),
                ("instance-hypervisor", "nitro"),
                ("instance-cpu-manufacturer", "intel"),
                ("instance-network-bandwidth", "750"),
                ("instance-capability-flex", "false"),
                ("instance-gpu-count", ""),
            ][..],
        ),
        ("u-6tb1.112xlarge", &[("instance-category", "u"), ("instance-generation", "1")]),
        ("u7in-16tb.224xlarge", &[("instance-category", "u"), ("instance-generation", "7")]),
        (
            "g4dn.xlarge",
            &[
                ("instance-gpu-name", "t4"),
                ("instance-gpu-manufacturer", "nvidia"),
                ("instance-gpu-count", "1"),
                ("instance-gpu-memory", "16384"),
                ("instance-local-nvme", "125"),
            ],
        ),
        (
            "inf1.xlarge",
            &[
                ("instance-accelerator-name", "inferentia"),
                ("instance-accelerator-manufacturer", "aws"),
                ("instance-accelerator-count", "1"),
            ],
        ),
        (
            "c7i-flex.large",
            &[("instance-capability-flex", "true"), ("instance-family", "c7i-flex")],
        ),
        ("p6-b300.48xlarge", &[("instance-category", "p"), ("instance-generation", "6")]),
    ] {
        let requirements = of(name, &class).requirements;
        for (key, value) in expected {
            let found = requirements.get(&format!("{}{key}", labels::AWS_DOMAIN)).unwrap();
            if value.is_empty() {
                assert!(found.allows_absent() && found.is_empty(), "{name} {key}: {found}");
            } else {
                assert_eq!(found.single().map(|v| &**v), Some(*value), "{name} {key}");
            }
        }
        assert_eq!(requirements.get(labels::OS).unwrap().single().map(|v| &**v), Some("linux"));
    }
    assert_eq!(
        of("m6g.large", &class).requirements.get(labels::ARCH).unwrap().to_string(),
        "In [arm64]"
    );
}

#[test]
fn classes_that_a_type_cannot_serve() {
    let fits = |name: &str, class: &ClassSettings| {
        Catalog::built_in().unwrap().facts(name).unwrap().incompatibility(class).is_none()
    };
    let class = ClassSettings::default();
    assert!(fits("m5.large", &class) && !fits("a1.large", &class));
    let tracking = ClassSettings { connection_tracking: true, ..class.clone() };
    assert!(fits("m5.large", &tracking) && !fits("m4.large", &tracking));
    let nested = ClassSettings { nested_virtualization: true, ..class.clone() };
    assert!(fits("m8i.large", &nested) && !fits("m5.large", &nested));
    let nics = r#"[{"networkCardIndex":0,"deviceIndex":0,"interfaceType":"interface"},{"networkCardIndex":1,"deviceIndex":1,"interfaceType":"efa-only"}]"#;
    let fabric = ClassSettings { interfaces: serde_json::from_str(nics).unwrap(), ..class };
    assert!(fits("p5.48xlarge", &fabric) && !fits("m5.large", &fabric));
}
