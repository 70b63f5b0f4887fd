//! Fuzzing of what strangers send: reviews, policies, pods and manifests.
//!
//! `make fuzz` runs each target for ten minutes; `cargo test` a second. A failure prints the seed and
//! the input, and `HARBINGER_FUZZ_SEED` begins there again. Inputs are mutations of real ones: bytes
//! for what parses, values of the JSON tree for what decides.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests fail by panicking, and this one runs for a time"
)]

mod mutate;
mod plans;
mod seeds;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use harbinger::admission::{Endpoint, PolicySource, Reviewer};
use harbinger::api::requestpolicy::RequestPolicySpec;
use harbinger::model::requirement::Requirements;
use harbinger::model::resources::Resources;
use harbinger::model::room::{PoolRooms, Room};
use harbinger::model::taints::{Taint, TaintEffect};
use harbinger::policy::{self, Bounds, PodView, RequestMeta, Snapshot, User};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use mutate::Mutator;
use serde_json::{Value, json};

/// Inputs between two looks at the clock.
const ROUND: u64 = 256;
/// Inputs of one batch, which has a seed of its own.
const BATCH: u64 = 1 << 14;

fn seconds() -> u64 {
    std::env::var("HARBINGER_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn first_seed() -> u64 {
    std::env::var("HARBINGER_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Runs a target until its time is over. `one` makes an input, tries it, and gives it back as text
/// when something is wrong.
pub(crate) fn run(name: &str, mut one: impl FnMut(&mut Mutator) -> Result<(), (String, String)>) {
    let (start, time) = (Instant::now(), Duration::from_secs(seconds()));
    let mut seed = first_seed();
    let mut inputs = 0;
    while start.elapsed() < time {
        let mut mutator = Mutator::new(seed);
        for at in 0..BATCH {
            if at % ROUND == 0 && start.elapsed() >= time {
                break;
            }
            inputs += 1;
            if let Err((why, input)) = one(&mut mutator) {
                panic!("{name}: seed {seed}, input {at}: {why}\n{input}");
            }
        }
        seed += 1;
    }
    println!(
        "{name}: {inputs} inputs in {:.1} s, seeds up to {seed}",
        start.elapsed().as_secs_f64()
    );
}

pub(crate) fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn snapshot(specs: &[Value]) -> Snapshot {
    let compiled = specs.iter().enumerate().filter_map(|(index, spec)| {
        let spec: RequestPolicySpec = serde_json::from_value(spec.clone()).ok()?;
        policy::compile(&format!("p{index}"), &spec).ok()
    });
    let team = BTreeMap::from([("team".to_owned(), "web".to_owned())]);
    let namespaces = BTreeMap::from([("shop".to_owned(), team)]);
    Snapshot::new(
        "fuzz",
        compiled.collect(),
        Arc::new(namespaces),
        BTreeSet::from(["kube-system".to_owned()]),
    )
}

/// Puts a world around policies, as far as it can be read.
fn in_world(snapshot: Snapshot, world: &Value) -> Snapshot {
    fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
        serde_json::from_value(value.clone()).ok()
    }
    let range: Option<LimitRange> =
        read(&json!({ "metadata": { "name": "lr" }, "spec": { "limits": world["limits"] } }));
    let quotas = world["quotas"].as_array().into_iter().flatten().filter_map(|quota| {
        let status = json!({ "hard": quota["hard"], "used": quota["used"] });
        read(&json!({ "metadata": { "name": "q" }, "spec": quota, "status": status }))
    });
    let quotas: Vec<ResourceQuota> = quotas.collect();
    let nodes = world["nodes"].as_array().into_iter().flatten().filter_map(|node| {
        let left = Resources::new(node[0].as_i64()?, node[1].as_i64()?.checked_mul(1 << 20)?);
        Some(Room { left, ..Room::default() })
    });
    let labels = BTreeMap::from([("team".to_owned(), "web".to_owned())]);
    let taint = Taint::new("gpu", TaintEffect::NoSchedule);
    let open = PoolRooms::new(Vec::new(), Requirements::new(), nodes.clone().collect());
    let closed = PoolRooms::new(vec![taint], Requirements::from_labels(&labels), nodes.collect());
    snapshot
        .with_bounds(BTreeMap::from([("shop".into(), Arc::new(Bounds::new(&range, &quotas)))]))
        .with_rooms(Arc::new([open, closed]))
}

/// Worlds, and mutations of them.
fn worlds() -> Vec<Value> {
    let mut mutator = Mutator::new(first_seed());
    let mut worlds = seeds::worlds();
    for at in 0..200 {
        let mut world = worlds[at].clone();
        mutator.tree(&mut world);
        worlds.push(world);
    }
    worlds
}

/// Whatever comes in as a review, the answer is a review or a line of text, and nothing panics.
#[test]
fn reviews() {
    let policies: PolicySource = Arc::new(ArcSwap::from_pointee(snapshot(&seeds::policies())));
    let reviewer =
        Reviewer::new(policies, None, Arc::default(), Arc::default(), Arc::new(now), false);
    let corpus: Vec<Vec<u8>> =
        seeds::reviews().iter().map(|review| review.to_string().into_bytes()).collect();
    run("reviews", |mutator| {
        let mut body = mutator.pick(&corpus).clone();
        mutator.bytes(&mut body);
        let endpoint = *mutator.pick(&Endpoint::ALL);
        let input = || String::from_utf8_lossy(&body).into_owned();
        let answered = catch_unwind(AssertUnwindSafe(|| {
            drop(reviewer.question(&body));
            reviewer.answer(endpoint, &body)
        }));
        let answer = answered.map_err(|_| ("panic".to_owned(), input()))?;
        if answer.status == 200 {
            let review: Value = serde_json::from_slice(&answer.body)
                .map_err(|error| (format!("answer: {error}"), input()))?;
            let response = &review["response"];
            if !response["uid"].is_string() || !response["allowed"].is_boolean() {
                return Err((format!("answer {review}"), input()));
            }
        }
        Ok(())
    });
}

/// Any policy that can be read and compiled decides about any pod that can be read.
#[test]
fn policies() {
    let (specs, pods, worlds) = (seeds::policies(), seeds::pods(), worlds());
    run("policies", |mutator| {
        let mut spec = mutator.pick(&specs).clone();
        mutator.tree(&mut spec);
        let mut pod = mutator.pick(&pods).clone();
        mutator.tree(&mut pod);
        let world = mutator.pick(&worlds);
        let text = pod.to_string();
        let decided = catch_unwind(AssertUnwindSafe(|| {
            let snapshot = in_world(snapshot(std::slice::from_ref(&spec)), world);
            if let Ok(view) = PodView::parse(&text) {
                let meta = RequestMeta { namespace: "shop", now: now(), user: User::default() };
                let decision = policy::decide(&view, &meta, &snapshot);
                drop((decision.mutation_warnings(), decision.validation_warnings()));
            }
        }));
        decided.map_err(|_| ("panic".to_owned(), format!("{spec}\n{world}\n{pod}")))
    });
}

/// A patch applies, and what it leaves needs no other.
#[test]
fn patches() {
    let pods = seeds::pods();
    let mut snapshots: Vec<(Value, Snapshot)> = Vec::new();
    for spec in seeds::policies() {
        let all = worlds().into_iter();
        snapshots.extend(all.map(|world| {
            let snapshot = in_world(snapshot(std::slice::from_ref(&spec)), &world);
            (world, snapshot)
        }));
    }
    run("patches", |mutator| {
        let mut pod = mutator.pick(&pods).clone();
        mutator.tree(&mut pod);
        let (world, snapshot) = mutator.pick(&snapshots);
        let text = pod.to_string();
        let wrong = |why: String| (why, format!("{world}\n{text}"));
        let decide = |text: &str| -> Option<policy::Decision> {
            let view = PodView::parse(text).ok()?;
            let meta = RequestMeta { namespace: "shop", now: now(), user: User::default() };
            Some(policy::decide(&view, &meta, snapshot))
        };
        let Some(first) = decide(&text) else { return Ok(()) };
        if let Some(why) = &first.patch_dropped {
            return Err(wrong(format!("dropped: {why}")));
        }
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &first.patch)
            .map_err(|error| wrong(format!("does not apply: {error}")))?;
        let after = patched.to_string();
        let again = decide(&after).ok_or_else(|| wrong(format!("unreadable: {after}")))?;
        if !again.patch.is_empty() {
            let patch = serde_json::to_string(&again.patch).unwrap();
            return Err(wrong(format!("patched twice: {patch}\n{after}")));
        }
        Ok(())
    });
}
