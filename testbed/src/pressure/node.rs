//! What one kubelet does, on plain data.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;

use super::{THRESHOLD, USE_MEMORY};

/// A pod on a node.
#[derive(Clone, Debug)]
pub(super) struct Occupant {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) node: String,
    /// Since when it runs, as seen from here.
    pub(super) since: Option<Instant>,
    priority: i32,
    /// Whether no container asks for or is limited in cpu or memory.
    best_effort: bool,
    containers: Vec<Container>,
}

#[derive(Clone, Debug)]
struct Container {
    name: String,
    /// Bytes.
    used: i64,
    /// Bytes.
    request: i64,
    request_text: String,
}

/// A node that says that it is under pressure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pressed {
    /// Since when.
    pub(super) began: Instant,
    /// When its pods last used more than it has.
    pub(super) last: Instant,
}

/// What is done after one look.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Nothing: the node has room.
    Calm,
    /// The pressure is over, and has been for long enough.
    Relieved,
    /// The node is or was under pressure. `over` says whether it is now.
    Pressed { over: bool, evict: Option<(Occupant, String)>, reject: Vec<(Occupant, String)> },
}

impl Occupant {
    /// A pod that is bound and not being deleted. `since` is when it was first seen to run.
    pub(super) fn of(pod: &Pod, since: Option<Instant>) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let node = spec.node_name.clone()?;
        if pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let uses =
            pod.annotations().get(USE_MEMORY).and_then(|text| bytes(&Quantity(text.clone())));
        let mut best_effort = true;
        let containers = spec.containers.iter().map(|container| {
            let resources = container.resources.clone().unwrap_or_default();
            let (requests, limits) =
                (resources.requests.unwrap_or_default(), resources.limits.unwrap_or_default());
            let positive = |quantity: &Quantity| !matches!(&*quantity.0, "0" | "0m");
            for name in ["cpu", "memory"] {
                best_effort &=
                    ![&requests, &limits].iter().any(|l| l.get(name).is_some_and(positive));
            }
            let asked = requests.get("memory");
            let request = asked.and_then(bytes).unwrap_or(0);
            Container {
                name: container.name.clone(),
                used: uses.unwrap_or(request),
                request,
                request_text: asked.map_or("0", |quantity| &quantity.0).to_owned(),
            }
        });
        let containers = containers.collect();
        Some(Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            node,
            since: since.or_else(|| (phase == Some("Running")).then(Instant::now)),
            priority: spec.priority.unwrap_or(0),
            best_effort,
            containers,
        })
    }

    /// Whether it is the very pod.
    pub(super) fn is(&self, pod: &Pod) -> bool {
        pod.metadata.uid.as_ref() == Some(&self.uid)
    }

    /// Bytes.
    pub(super) fn used(&self) -> i64 {
        self.containers.iter().map(|container| container.used).sum()
    }

    /// Bytes beyond its requests.
    fn beyond(&self) -> i64 {
        self.used() - self.containers.iter().map(|container| container.request).sum::<i64>()
    }
}

/// Looks at a node with this much allocatable memory.
pub(super) fn judge(
    allocatable: i64,
    pods: &[&Occupant],
    pressed: Option<Pressed>,
    now: Instant,
    transition: Duration,
) -> Verdict {
    // Pods that came while the node said that it was under pressure; it evicts among the others.
    let is_late = |pod: &&Occupant| {
        let came = |pressed: Pressed| pod.since.is_some_and(|since| since > pressed.began);
        pod.best_effort && pressed.is_some_and(came)
    };
    let (late, stay): (Vec<&Occupant>, Vec<&Occupant>) = pods.iter().copied().partition(is_late);
    let used: i64 = stay.iter().map(|pod| pod.used()).sum();
    let over = used > allocatable;
    if !over {
        match pressed {
            None => return Verdict::Calm,
            Some(pressed) if now.duration_since(pressed.last) >= transition => {
                return Verdict::Relieved;
            }
            Some(_) => {}
        }
    }
    let reject = late
        .into_iter()
        .map(|pod| (pod.clone(), "The node had condition: [MemoryPressure]. ".to_owned()));
    // Pods within their requests go too when nothing else is left, as with the kubelet.
    let worst = stay.iter().max_by_key(|pod| {
        let beyond = pod.beyond();
        (beyond > 0, Reverse(pod.priority), beyond, Reverse(&pod.name))
    });
    let evict =
        worst.filter(|_| over).map(|pod| ((**pod).clone(), message(pod, allocatable - used)));
    Verdict::Pressed { over, evict, reject: reject.collect() }
}

/// What the kubelet writes, with the use of each container beyond its request. `left` is negative:
/// more than the threshold is gone.
fn message(pod: &Occupant, left: i64) -> String {
    let threshold = bytes(&Quantity(THRESHOLD.to_owned())).unwrap_or(0);
    let available = (threshold + left).max(0) >> 10;
    let mut text = format!(
        "The node was low on resource: memory. Threshold quantity: {THRESHOLD}, available: \
         {available}Ki. "
    );
    for Container { name, used, request, request_text } in &pod.containers {
        if used > request {
            let used = binary(*used);
            text.extend([
                "Container ",
                name,
                " was using ",
                &used,
                ", request is ",
                request_text,
                ", has larger consumption of memory. ",
            ]);
        }
    }
    text
}

/// Bytes in the largest binary unit that divides them.
fn binary(bytes: i64) -> String {
    for (unit, shift) in [("Gi", 30), ("Mi", 20), ("Ki", 10)] {
        if bytes > 0 && bytes % (1 << shift) == 0 {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// A quantity of memory in bytes; whole numbers with the usual units.
pub(super) fn bytes(quantity: &Quantity) -> Option<i64> {
    let text = &*quantity.0;
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor: i64 = match &text[end..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    text[..end].parse::<i64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GIB: i64 = 1 << 30;

    fn pod(name: &str, uses: &str, request: Option<&str>, priority: i32) -> Occupant {
        let requests = request.map_or(json!({}), |request| json!({"memory": request}));
        let pod = json!({
            "metadata": {"name": name, "namespace": "n", "uid": name, "annotations": {USE_MEMORY: uses}},
            "spec": {
                "nodeName": "a", "priority": priority,
                "containers": [{"name": "app", "image": "a", "resources": {"requests": requests}}],
            },
            "status": {"phase": "Running"},
        });
        Occupant::of(&serde_json::from_value(pod).unwrap(), None).unwrap()
    }

    fn evicted(pods: &[Occupant], allocatable: i64) -> Option<(String, String)> {
        let pods: Vec<&Occupant> = pods.iter().collect();
        match judge(allocatable, &pods, None, Instant::now(), Duration::from_mins(5)) {
            Verdict::Pressed { evict, .. } => evict.map(|(pod, message)| (pod.name, message)),
            _ => None,
        }
    }

    #[test]
    fn who_uses_most_beyond_its_request_goes_first() {
        let pods = [
            pod("large", "3Gi", Some("3Gi"), 0),
            pod("over", "2Gi", Some("1Gi"), 0),
            pod("bare", "1536Mi", None, 0),
            pod("dear", "3Gi", None, 100),
        ];
        assert_eq!(evicted(&pods, 10 * GIB), None);
        let (name, message) = evicted(&pods, 9 * GIB).unwrap();
        assert_eq!(name, "bare", "of lower priority, and furthest beyond");
        assert_eq!(
            message,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 0Ki. \
             Container app was using 1536Mi, request is 0, has larger consumption of memory. "
        );
        // With none beyond its request one that keeps to it goes.
        let (name, message) = evicted(&pods[..1], GIB).unwrap();
        assert_eq!((&*name, message.contains("Container")), ("large", false));
    }

    #[test]
    fn a_node_under_pressure_turns_bare_pods_away_until_it_has_been_calm() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let mut pods = [
            pod("old", "1Gi", None, 0),
            pod("new", "1Gi", None, 0),
            pod("asks", "1Gi", Some("1Gi"), 0),
        ];
        pods[0].since = Some(start);
        pods[1].since = Some(later + Duration::from_secs(1));
        pods[2].since = Some(later + Duration::from_secs(1));
        let all: Vec<&Occupant> = pods.iter().collect();
        let pressed = Some(Pressed { began: later, last: later });
        let judge = |pressed, after: u64| {
            let now = later + Duration::from_secs(after);
            judge(9 * GIB, &all, pressed, now, Duration::from_mins(1))
        };
        assert!(matches!(judge(None, 5), Verdict::Calm));
        let Verdict::Pressed { over, evict, reject } = judge(pressed, 5) else { panic!() };
        assert!(!over && evict.is_none());
        let names: Vec<&str> = reject.iter().map(|(pod, _)| &*pod.name).collect();
        assert_eq!(names, ["new"]);
        assert!(matches!(judge(pressed, 60), Verdict::Relieved));
    }

    #[test]
    fn quantities_of_memory() {
        for (text, expected) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("3Ki", Some(3072)),
            ("2G", Some(2_000_000_000)),
            ("1.5Gi", None),
        ] {
            assert_eq!(bytes(&Quantity(text.to_owned())), expected, "{text}");
        }
        assert_eq!(
            (binary(1536 << 20), binary(GIB), binary(1000)),
            ("1536Mi".into(), "1Gi".into(), "1000".into())
        );
    }
}
