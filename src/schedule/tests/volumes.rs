//! Volumes: where they let pods be, how many a node attaches, and what keeps a pod from every node.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::rules::{ZONE, by, node, of, spread};
use super::*;
use crate::model::volume::Volumes;
use crate::model::wire::volume::{ClaimWire, ClassWire, CsiNodeWire, VolumeObjectWire};

const DRIVER: &str = "ebs.csi.aws.com";

/// Objects as an API server shows them, folded as watches fold them.
fn book(objects: &[Value]) -> Volumes {
    fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
        serde_json::from_value(value.clone()).unwrap()
    }
    let mut book = Volumes::default();
    for value in objects {
        match value["kind"].as_str().unwrap() {
            "PersistentVolumeClaim" => {
                let claim = Arc::new(read::<ClaimWire>(value).to_claim());
                let key = (Arc::clone(&claim.namespace), Arc::clone(&claim.name));
                Arc::make_mut(&mut book.claims).insert(key, claim);
            }
            "PersistentVolume" => {
                let volume = Arc::new(read::<VolumeObjectWire>(value).to_volume());
                Arc::make_mut(&mut book.volumes).insert(Arc::clone(&volume.name), volume);
            }
            "StorageClass" => {
                let class = Arc::new(read::<ClassWire>(value).to_class());
                Arc::make_mut(&mut book.classes).insert(Arc::clone(&class.name), class);
            }
            _ => {
                let node = Arc::new(read::<CsiNodeWire>(value).to_csi_node());
                Arc::make_mut(&mut book.nodes).insert(Arc::clone(&node.name), node);
            }
        }
    }
    book
}

/// Affinity of a volume: one term for each text, which names one zone or several.
fn zones(terms: &[&str]) -> Value {
    let term = |zones: &&str| {
        json!({"matchExpressions": [{"key": "topology.ebs.csi.aws.com/zone", "operator": "In",
            "values": zones.split(' ').collect::<Vec<_>>()}]})
    };
    json!({"required": {"nodeSelectorTerms": terms.iter().map(term).collect::<Vec<_>>()}})
}

/// A volume that is bound to the claim of its name.
fn volume(name: &str, terms: &[&str]) -> Value {
    let mut spec = json!({"csi": {"driver": DRIVER, "volumeHandle": format!("vol-{name}")},
        "accessModes": ["ReadWriteOnce"], "claimRef": {"namespace": "n", "name": name}});
    if !terms.is_empty() {
        spec["nodeAffinity"] = zones(terms);
    }
    json!({"kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec,
        "status": {"phase": "Bound"}})
}

fn bound(name: &str) -> Value {
    json!({"kind": "PersistentVolumeClaim", "status": {"phase": "Bound"},
        "metadata": {"name": name, "namespace": "n",
            "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": name, "accessModes": ["ReadWriteOnce"], "storageClassName": "wait"}})
}

fn unbound(name: &str, class: Option<&str>) -> Value {
    json!({"kind": "PersistentVolumeClaim", "status": {"phase": "Pending"},
        "metadata": {"name": name, "namespace": "n"},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "5Gi"}}}})
}

fn class(name: &str, mode: &str, provisioner: &str, terms: &[&str]) -> Value {
    let term = |zones: &&str| {
        json!({"matchLabelExpressions": [{"key": ZONE,
            "values": zones.split(' ').collect::<Vec<_>>()}]})
    };
    json!({"kind": "StorageClass", "metadata": {"name": name}, "provisioner": provisioner,
        "volumeBindingMode": mode,
        "allowedTopologies": terms.iter().map(term).collect::<Vec<_>>()})
}

fn waiting(name: &str, terms: &[&str]) -> Value {
    class(name, "WaitForFirstConsumer", DRIVER, terms)
}

/// A volume made by hand.
fn free(name: &str, gib: u32, terms: &[&str]) -> Value {
    json!({"kind": "PersistentVolume", "metadata": {"name": name}, "status": {"phase": "Available"},
        "spec": {"nodeAffinity": zones(terms), "storageClassName": "hand", "local": {"path": "/d"},
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": format!("{gib}Gi")}}})
}

fn by_hand() -> Value {
    class("hand", "WaitForFirstConsumer", "kubernetes.io/no-provisioner", &[])
}

fn attach(node: &str, count: u32) -> Value {
    json!({"kind": "CSINode", "metadata": {"name": node},
        "spec": {"drivers": [{"name": DRIVER, "nodeID": node, "allocatable": {"count": count}}]}})
}

/// A pod of 1 cpu that mounts claims; `more` is further spec.
fn mounts(claims: &[&str], more: &str) -> Arc<PodShape> {
    let volumes: Vec<Value> = claims
        .iter()
        .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    let comma = if more.is_empty() { "" } else { "," };
    let spec = format!(
        "{}{comma}{more},\"volumes\":{}",
        requests("1", "1Gi"),
        serde_json::to_string(&volumes).unwrap()
    );
    pod(&spec, r#""labels":{"app":"w"},"#)
}

fn in_zones(zones: &[&str]) -> String {
    let term = |zone: &&str| json!({"matchExpressions": [{"key": ZONE, "operator": "In", "values": [zone]}]});
    let terms: Vec<Value> = zones.iter().map(term).collect();
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": terms}}});
    format!("\"affinity\":{affinity}")
}

fn with(objects: &[Value], demands: &[(u32, Arc<PodShape>)]) -> Problem {
    Problem { volumes: book(objects), ..problem(demands, vec![on_demand()]) }
}

fn shown(problem: &Problem) -> String {
    show(problem, &solved(problem))
}

#[test]
fn pods_go_where_their_volumes_are() {
    let two = [volume("x", &["a", "c"]), volume("y", &["b c"]), bound("x"), bound("y")];
    let made = [waiting("wait", &["b", "c"]), unbound("x", Some("wait"))];
    let kept = |mut volume: Value| {
        volume["spec"]["claimRef"] = json!({"namespace": "n", "name": "x"});
        volume
    };
    let rows: &[(&str, Vec<Value>, Arc<PodShape>, &str)] = &[
        ("one zone", vec![volume("x", &["b"]), bound("x")], mounts(&["x"], ""), "b"),
        ("everywhere", vec![volume("x", &[]), bound("x")], mounts(&["x"], ""), "a"),
        ("terms are alternatives", two.to_vec(), mounts(&["x", "y"], ""), "c"),
        ("with affinity", two.to_vec(), mounts(&["x"], &in_zones(&["b", "c"])), "c"),
        ("allowed topologies", made.to_vec(), mounts(&["x"], ""), "b"),
        ("made where affinity is", made.to_vec(), mounts(&["x"], &in_zones(&["a", "c"])), "c"),
        (
            "made anywhere",
            vec![waiting("wait", &[]), unbound("x", Some("wait"))],
            mounts(&["x"], ""),
            "a",
        ),
        (
            "kept for the claim",
            vec![by_hand(), kept(free("v", 9, &["c"])), unbound("x", Some("hand"))],
            mounts(&["x"], ""),
            "c",
        ),
        (
            "the smallest that suits",
            vec![
                by_hand(),
                free("s", 1, &["a"]),
                free("l", 9, &["c"]),
                free("m", 6, &["b"]),
                unbound("x", Some("hand")),
            ],
            mounts(&["x"], ""),
            "b",
        ),
        (
            "one where affinity is",
            vec![by_hand(), free("l", 9, &["c"]), free("m", 6, &["b"]), unbound("x", Some("hand"))],
            mounts(&["x"], &in_zones(&["c"])),
            "c",
        ),
    ];
    for (name, objects, pod, zone) in rows {
        let problem = with(objects, &[(1, Arc::clone(pod))]);
        assert_eq!(shown(&problem), format!("1 c.large/{zone}/on-demand[0x1]"), "{name}");
    }
}

#[test]
fn claims_that_keep_their_pod_away_are_named() {
    let lost = |name: &str| {
        let mut claim = bound(name);
        claim["status"]["phase"] = json!("Lost");
        claim
    };
    let deleting = |name: &str| {
        let mut claim = bound(name);
        claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        claim
    };
    let half = |name: &str| {
        let mut claim = bound(name);
        claim["metadata"]["annotations"] = json!({});
        claim
    };
    let at = class("now", "Immediate", DRIVER, &[]);
    let rows: &[(Vec<Value>, Arc<PodShape>, &str)] = &[
        (vec![], mounts(&["x"], ""), "x does not exist"),
        (vec![volume("x", &["a"]), lost("x")], mounts(&["x"], ""), "x has lost its volume"),
        (vec![volume("x", &["a"]), deleting("x")], mounts(&["x"], ""), "x is being deleted"),
        (vec![bound("x")], mounts(&["x"], ""), "x is bound to PersistentVolume x, which does not"),
        (
            vec![at.clone(), unbound("x", Some("now"))],
            mounts(&["x"], ""),
            "x is not bound to a volume, and StorageClass now does not wait",
        ),
        (
            vec![waiting("wait", &[]), volume("x", &["a"]), half("x")],
            mounts(&["x"], ""),
            "x waits to be bound to PersistentVolume x",
        ),
        (vec![unbound("x", None)], mounts(&["x"], ""), "x is not bound to a volume and has no"),
        (vec![unbound("x", Some(""))], mounts(&["x"], ""), "x is not bound to a volume and has no"),
        (vec![unbound("x", Some("gone"))], mounts(&["x"], ""), "x is of StorageClass gone, which"),
        (
            vec![by_hand(), free("v", 1, &["a"]), unbound("x", Some("hand"))],
            mounts(&["x"], ""),
            "x finds no free PersistentVolume of StorageClass hand",
        ),
        (
            vec![volume("x", &["a"]), bound("x")],
            mounts(&["x"], &in_zones(&["b"])),
            "x has a volume that cannot be where the pod's node affinity",
        ),
        (
            vec![volume("x", &["a"]), bound("x"), volume("y", &["b"]), bound("y")],
            mounts(&["x", "y"], ""),
            "y has a volume that cannot be where the pod's others are",
        ),
    ];
    for (objects, pod, expected) in rows {
        let text = shown(&with(objects, &[(1, Arc::clone(pod))]));
        assert!(text.starts_with(&format!("left 0x1: PersistentVolumeClaim {expected}")), "{text}");
    }
    // A default class is as good as a named one.
    let mut default = waiting("any", &["c"]);
    default["metadata"]["annotations"] =
        json!({"storageclass.kubernetes.io/is-default-class": "true"});
    let problem = with(&[default, unbound("x", None)], &[(1, mounts(&["x"], ""))]);
    assert_eq!(shown(&problem), "1 c.large/c/on-demand[0x1]");
}

#[test]
fn claims_that_pods_bring_are_made_from_their_templates() {
    let pod = |class: &str| {
        let volumes = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": {
            "spec": {"storageClassName": class, "accessModes": ["ReadWriteOncePod"]}}}}]);
        super::pod(&format!("{},\"volumes\":{volumes}", requests("1", "1Gi")), "")
    };
    let problem = with(&[waiting("wait", &["b"])], &[(1, pod("wait"))]);
    assert_eq!(shown(&problem), "1 c.large/b/on-demand[0x1]");
    let text = shown(&with(&[], &[(1, pod("wait"))]));
    assert!(text.contains("PersistentVolumeClaim p-v is of StorageClass wait"), "{text}");
    // A pod that has no name yet makes a claim of its own each time.
    let mut nameless = (*pod("wait")).clone();
    nameless.claims[0].claim = "".into();
    let mut problem = with(&[waiting("wait", &["b"])], &[(4, Arc::new(nameless))]);
    assert_eq!(by(ZONE, &problem, &solved(&problem), 0), [("b".to_owned(), 4)]);
    limit(&mut problem, 1);
    assert_eq!(solved(&problem).new_nodes.len(), 4);
}

#[test]
fn spread_does_not_see_where_volumes_are() {
    let there = of("w", "1", "");
    let nodes = vec![node("n1", "a", 8, &[(Arc::clone(&there), 1)]), node("n2", "b", 8, &[])];
    let objects = [volume("x", &["a"]), bound("x")];
    // The scheduler counts n2 as well, whatever the volume: a second pod in zone a is one too many.
    let rule = spread(ZONE, "w", "");
    let mut problem = with(&objects, &[(1, mounts(&["x"], &rule))]);
    problem.nodes = nodes.clone();
    let text = shown(&problem);
    assert!(
        text.contains("the topology spread constraint on topology.kubernetes.io/zone"),
        "{text}"
    );
    // The pod's own selector is what it honours.
    let own = format!("{rule},\"nodeSelector\":{{\"{ZONE}\":\"a\"}}");
    let mut problem = with(&objects, &[(1, mounts(&["x"], &own))]);
    problem.nodes = nodes;
    assert!(solved(&problem).unplaced.is_empty());
}

#[test]
fn replicas_with_volumes_of_their_own_spread_over_their_zones() {
    let rule = spread(ZONE, "w", "");
    let mut objects = Vec::new();
    let mut demands = Vec::new();
    for (name, zone) in [("x", "a"), ("y", "b"), ("z", "c"), ("u", "a"), ("v", "b"), ("w", "c")] {
        objects.extend([volume(name, &[zone]), bound(name)]);
        demands.push((1, mounts(&[name], &rule)));
    }
    let problem = with(&objects, &demands);
    let solution = solved(&problem);
    assert!(solution.unplaced.is_empty(), "{}", show(&problem, &solution));
}

#[test]
fn one_pod_at_a_time_uses_its_claim() {
    let one_pod = |mut claim: Value| {
        claim["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
        claim
    };
    let objects = [volume("x", &["a"]), one_pod(bound("x"))];
    let problem = with(&objects, &[(3, mounts(&["x"], ""))]);
    let text = shown(&problem);
    let left = "left 0x2: PersistentVolumeClaim x is ReadWriteOncePod, and another pod uses it";
    assert_eq!(text, format!("1 c.large/a/on-demand[0x1]; {left}"));
    let mut held = with(&objects, &[(1, mounts(&["x"], ""))]);
    held.nodes = vec![node("n", "a", 8, &[(mounts(&["x"], "\"priority\":1"), 1)])];
    assert!(shown(&held).starts_with("left 0x1: PersistentVolumeClaim x is ReadWriteOncePod"));
}

#[test]
fn volumes_made_by_hand_are_given_once() {
    let claims = ["x", "y", "z"].map(|name| unbound(name, Some("hand")));
    let volumes = [by_hand(), free("v", 9, &["a"]), free("w", 9, &["b"])];
    let objects = [&claims[..], &volumes[..]].concat();
    let demands = ["x", "y", "z"].map(|name| (1, mounts(&[name], "")));
    let problem = with(&objects, &demands);
    let solution = solved(&problem);
    assert_eq!((solution.new_nodes.len(), solution.unplaced.len()), (2, 1));
    // The judge sees through a plan that gives one volume twice.
    let mut wrong = problem.clone();
    Arc::make_mut(&mut wrong.volumes.volumes).remove("w");
    let all = check::check(&wrong, &solution);
    assert!(all.iter().any(|v| v.message == "no volume is left for it"), "{all:?}");
}

#[test]
fn a_chosen_node_is_the_only_one() {
    let mut claim = unbound("x", Some("wait"));
    claim["metadata"]["annotations"] = json!({"volume.kubernetes.io/selected-node": "n2"});
    let mut problem = with(&[waiting("wait", &[]), claim], &[(1, mounts(&["x"], ""))]);
    problem.nodes = vec![node("n1", "a", 8, &[]), node("n2", "b", 8, &[])];
    let solution = solved(&problem);
    assert_eq!(solution.placements, [Placement { node: 1, demand: 0, count: 1 }]);
    problem.nodes.pop();
    assert_eq!(solved(&problem).unplaced.len(), 1);
}

/// Lets nodes of every type attach so many volumes.
fn limit(problem: &mut Problem, limit: i64) {
    for slot in &mut problem.pools {
        let limited = slot.types.iter().map(|instance| {
            let attach_limits = vec![(DRIVER.into(), limit)];
            Arc::new(InstanceType { attach_limits, ..(**instance).clone() })
        });
        slot.types = limited.collect();
    }
}

#[test]
fn new_nodes_attach_no_more_than_they_can() {
    let mut objects = Vec::new();
    let mut demands = Vec::new();
    for index in 0..30 {
        let name = format!("c{index}");
        objects.extend([volume(&name, &[]), bound(&name)]);
        demands.push((1, mounts(&[&name], "")));
    }
    let mut problem = with(&objects, &demands);
    let free = solved(&problem).new_nodes.len();
    limit(&mut problem, 5);
    let solution = solved(&problem);
    assert!(free < 6 && solution.new_nodes.len() >= 6, "{free} {}", show(&problem, &solution));
    assert!(solution.unplaced.is_empty());
    // What no node can attach has a reason.
    let many: Vec<&str> = ["c0", "c1", "c2", "c3", "c4", "c5"].to_vec();
    let mut problem = with(&objects, &[(1, mounts(&many, ""))]);
    limit(&mut problem, 5);
    let text = shown(&problem);
    let short = "attachable-volumes-csi-ebs.csi.aws.com 6 is asked, the most is 5";
    assert!(text.contains(short), "{text}");
}

#[test]
fn nodes_that_exist_attach_what_they_say_less_what_they_hold() {
    let names = ["x", "y", "z"];
    let mut objects: Vec<Value> =
        names.iter().flat_map(|name| [volume(name, &["a"]), bound(name)]).collect();
    objects.push(attach("n", 1));
    let mut problem = with(&objects, &[(1, mounts(&["x"], "")), (1, mounts(&["y"], ""))]);
    problem.nodes = vec![node("n", "a", 8, &[])];
    let solution = solved(&problem);
    assert_eq!((solution.placements.len(), solution.new_nodes.len()), (1, 1));
    // The volume that is there already costs nothing, however many pods share it.
    let mut shared = with(&objects, &[(3, mounts(&["x"], "")), (1, mounts(&["y"], ""))]);
    shared.nodes = vec![node("n", "a", 8, &[(mounts(&["x"], "\"priority\":1"), 1)])];
    let solution = solved(&shared);
    assert_eq!(solution.placements, [Placement { node: 0, demand: 0, count: 3 }]);
    // Full without new nodes: the reason names the limit.
    shared.pools.clear();
    let text = shown(&shared);
    assert!(text.contains("1 node: not enough attachable-volumes-csi-ebs.csi.aws.com"), "{text}");
    // A node without a limit takes all.
    problem.volumes.nodes = Arc::default();
    assert_eq!(solved(&problem).placements.len(), 2);
}

#[test]
fn a_node_on_its_way_attaches_what_its_type_can() {
    let objects = ["x", "y"].map(|name| [volume(name, &["a"]), bound(name)]).concat();
    let mut problem = with(&objects, &[(1, mounts(&["x"], "")), (1, mounts(&["y"], ""))]);
    limit(&mut problem, 1);
    let mut coming = node("n", "a", 8, &[]);
    coming.labels.insert(labels::INSTANCE_TYPE.to_owned(), "c.2xlarge".to_owned());
    (coming.initialized, coming.pool) = (false, Some(0));
    problem.nodes = vec![coming];
    assert_eq!(solved(&problem).placements.len(), 1);
    problem.nodes[0].initialized = true;
    assert_eq!(solved(&problem).placements.len(), 2);
}

#[test]
fn many_pods_of_one_volume_share_a_node() {
    let objects = [volume("x", &["a"]), bound("x"), volume("y", &["a"]), bound("y")];
    let mut problem = with(&objects, &[(6, mounts(&["x"], "")), (1, mounts(&["y"], ""))]);
    limit(&mut problem, 2);
    let solution = solved(&problem);
    assert_eq!(solution.new_nodes.len(), 1, "{}", show(&problem, &solution));
}

#[test]
fn a_pod_without_a_volume_keeps_its_gang_away() {
    let mut problem = with(&[], &[(1, mounts(&["x"], "")), (2, of("g", "1", ""))]);
    for demand in &mut problem.demands {
        demand.gang = Some(1);
    }
    let text = shown(&problem);
    assert!(text.contains("PersistentVolumeClaim x does not exist"), "{text}");
    assert!(text.contains("left 1x2: the gang does not fit as a whole"), "{text}");
}

type Change = fn(&mut Problem);

#[test]
fn the_judge_objects_to_what_volumes_forbid() {
    let objects = [volume("x", &["a"]), bound("x"), volume("y", &["a"]), bound("y")];
    let mut problem = with(&objects, &[(1, mounts(&["x"], "")), (1, mounts(&["y"], ""))]);
    limit(&mut problem, 2);
    let solution = solved(&problem);
    assert_eq!(solution.new_nodes.len(), 1);
    let changes: [(&str, Change); 5] = [
        ("a pod's volumes cannot be here", |p| {
            p.volumes = book(&[volume("x", &["b"]), bound("x"), volume("y", &["a"]), bound("y")]);
        }),
        ("claim x does not exist", |p| {
            Arc::make_mut(&mut p.volumes.claims).remove(&("n".into(), "x".into()));
        }),
        ("volume y does not exist", |p| {
            Arc::make_mut(&mut p.volumes.volumes).remove("y");
        }),
        ("attaches 2 volumes of ebs.csi.aws.com, but can attach 1", |p| limit(p, 1)),
        ("is for one pod, and 2 use it", |p| {
            let mut one_pod = bound("x");
            one_pod["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
            p.volumes = book(&[volume("x", &["a"]), one_pod]);
            p.demands[1].shape = mounts(&["x"], "");
        }),
    ];
    for (expected, change) in changes {
        let mut changed = problem.clone();
        change(&mut changed);
        let all = check::check(&changed, &solution);
        assert!(all.iter().any(|v| v.message == expected), "{expected}: {all:?}");
    }
}

fn any_objects() -> impl Strategy<Value = Vec<Value>> {
    let place = || prop::sample::select(vec!["a", "b", "c", "a b", "b c"]);
    let volume_of = |name: &'static str| {
        (0..8_u8, place(), place()).prop_map(move |(kind, one, other)| match kind {
            0 => vec![volume(name, &[one]), bound(name)],
            1 | 2 => vec![volume(name, &[one, other]), bound(name)],
            3 => vec![volume(name, &[]), bound(name)],
            4 => vec![unbound(name, Some("wait"))],
            5 => vec![unbound(name, Some("hand"))],
            6 => {
                let mut claim = bound(name);
                claim["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
                vec![volume(name, &[one]), claim]
            }
            _ => vec![unbound(name, Some("gone"))],
        })
    };
    let names = ["x", "y", "z", "u"].map(volume_of);
    let class = prop::collection::vec(place(), 0..3).prop_map(|terms| waiting("wait", &terms));
    let made = prop::collection::vec((1..9_u32, place()), 0..3).prop_map(|volumes| {
        let named = volumes.iter().enumerate();
        named.map(|(at, (gib, zone))| free(&format!("f{at}"), *gib, &[*zone])).collect::<Vec<_>>()
    });
    let limits = prop::collection::vec(1..4_u32, 0..3).prop_map(|limits| {
        let named = limits.into_iter().enumerate();
        named.map(|(at, count)| attach(&format!("n{at}"), count)).collect::<Vec<_>>()
    });
    (names, class, made, limits).prop_map(|(names, class, made, limits)| {
        let mut all = [names.concat(), made, limits].concat();
        all.extend([class, by_hand()]);
        all
    })
}

fn any_pod() -> impl Strategy<Value = Arc<PodShape>> {
    let claims = prop::sample::subsequence(vec!["x", "y", "z", "u"], 0..3);
    (claims, 0..6_u8).prop_map(|(claims, rule)| {
        let rule = match rule {
            0 => in_zones(&["a"]),
            1 => in_zones(&["b", "c"]),
            2 => spread(ZONE, "w", ""),
            3 => "\"priority\":3".to_owned(),
            _ => String::new(),
        };
        mounts(&claims, &rule)
    })
}

fn any_cluster(pods: std::ops::Range<usize>) -> impl Strategy<Value = Problem> {
    let demands = prop::collection::vec((1..4_u32, any_pod()), pods);
    let there = prop::collection::vec((0..3_usize, prop::option::of(any_pod()), 0..5_i64), 0..3);
    (any_objects(), demands, there, prop::option::of(1..4_i64)).prop_map(
        |(objects, demands, there, most)| {
            let mut problem = with(&objects, &demands);
            for (at, (zone, pod, cores)) in there.into_iter().enumerate() {
                let pods: Vec<_> = pod.into_iter().map(|pod| (pod, 1)).collect();
                let zone = ["a", "b", "c"][zone];
                problem.nodes.push(node(&format!("n{at}"), zone, cores, &pods));
            }
            if let Some(most) = most {
                limit(&mut problem, most);
            }
            problem.options.bound = false;
            problem
        },
    )
}

/// Every way to place one pod alone.
fn ways(problem: &Problem) -> Vec<Solution> {
    let placed = |placements, new_nodes: Vec<NewNode>| Solution {
        cost: new_nodes.iter().map(|node| node.price).sum(),
        placements,
        new_nodes,
        ..Solution::default()
    };
    let mut all = Vec::new();
    for node in 0..problem.nodes.len() {
        all.push(placed(vec![Placement { node, demand: 0, count: 1 }], Vec::new()));
    }
    let slot = &problem.pools[0];
    for (type_index, instance) in slot.types.iter().enumerate() {
        for (offering_index, bought) in instance.offerings.iter().enumerate() {
            let choice = OfferingRef { type_index, offering_index };
            all.push(placed(
                Vec::new(),
                vec![NewNode {
                    pool: 0,
                    choice,
                    price: bought.price + slot.volume_price,
                    acceptable: vec![choice],
                    requirements: slot.pool.requirements.clone(),
                    pods: vec![(0, 1)],
                    requested: problem.demands[0].shape.requests.clone(),
                }],
            ));
        }
    }
    all
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn volumes_hold_in_random_clusters(problem in any_cluster(1..6), by in 0..5_usize) {
        let solution = solve::solve(&problem);
        let violations = check::check(&problem, &solution);
        prop_assert!(violations.is_empty(), "{:?}\n{}", violations, show(&problem, &solution));
        let mut turned = problem.clone();
        let by = by % turned.demands.len();
        turned.demands.rotate_left(by);
        let other = solve::solve(&turned);
        prop_assert_eq!(
            other.cost, solution.cost,
            "{}\nturned:\n{}", show(&problem, &solution), show(&turned, &other)
        );
    }

    /// What the engine refuses, the judge refuses on every node and offering that there is.
    #[test]
    fn a_pod_that_is_refused_has_no_place(mut problem in any_cluster(1..2)) {
        problem.demands[0].count = 1;
        let solution = solve::solve(&problem);
        let possible = ways(&problem).into_iter().find(|way| check::check(&problem, way).is_empty());
        if let Some(way) = possible {
            prop_assert!(
                solution.unplaced.is_empty(),
                "{}\nbut {}", show(&problem, &solution), show(&problem, &way)
            );
        } else {
            prop_assert_eq!(solution.unplaced.len(), 1);
        }
    }
}
