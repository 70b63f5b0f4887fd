//! The cost of one review: the decision alone and the whole handler, from body to body.
//!
//! Run with `cargo bench --no-default-features --bench admission`. After criterion's own figures it
//! prints the median and the 99th percentile of the handler, which an average hides, and those of pods
//! that select nodes, for which the largest node that takes them is looked for among all types of ten
//! pools.

#![expect(clippy::print_stdout, reason = "the percentiles are the result")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

#[path = "shared/payload.rs"]
mod payload;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use harbinger::admission::{Clock, Endpoint, PolicySource, Reviewer};
use harbinger::api::ec2nodeclass::EC2NodeClassSpec;
use harbinger::cloud::catalog::{Catalog, PRICED_REGION, SpotPrices};
use harbinger::cloud::settings::ClassSettings;
use harbinger::model::money::MicroDollarsPerHour;
use harbinger::model::pool::Pool;
use harbinger::model::room::PoolRooms;
use harbinger::policy::{PodView, RequestMeta, User, decide};
use harbinger::schedule::{self, PoolSlot};
use payload::{now, pod, review, snapshot};

/// What new nodes of ten pools leave, each of any type that the region has.
fn rooms() -> Arc<[PoolRooms]> {
    let catalog = Catalog::built_in().expect("the catalog is part of the program");
    let settings = ClassSettings::of(&EC2NodeClassSpec::default());
    let types = catalog
        .instance_types(PRICED_REGION, &settings, &SpotPrices::Discount(0))
        .expect("the region is known");
    let types: Arc<[_]> = types.into();
    let slot = |index: usize| PoolSlot {
        pool: Arc::new(Pool { name: format!("p{index}").into(), ready: true, ..Pool::default() }),
        types: Arc::clone(&types),
        remaining: BTreeMap::new(),
        volume_price: MicroDollarsPerHour::ZERO,
    };
    schedule::rooms((0..10).map(slot).collect(), Vec::new()).into()
}

/// The median and the 99th percentile of the handler's time, microseconds.
fn percentiles(reviewer: &Reviewer, review: &str) -> (f64, f64) {
    let time = |_| {
        let start = Instant::now();
        black_box(reviewer.answer(Endpoint::Mutate, black_box(review.as_bytes())));
        start.elapsed().as_secs_f64() * 1e6
    };
    let mut times: Vec<f64> = (0..5000).map(time).collect();
    times.sort_by(f64::total_cmp);
    (times[2500], times[4950])
}

/// Pods that say where they may be, from what every node has to what none has.
const SELECTORS: [(&str, &str); 5] = [
    ("any node", "{}"),
    ("linux", r#"{"kubernetes.io/os":"linux"}"#),
    (
        "arm64 in a zone",
        r#"{"kubernetes.io/arch":"arm64","topology.kubernetes.io/zone":"us-east-1a"}"#,
    ),
    ("t3.nano", r#"{"node.kubernetes.io/instance-type":"t3.nano"}"#),
    ("a label of no node", r#"{"team":"nobody"}"#),
];

fn bench(criterion: &mut Criterion) {
    let snapshot = snapshot();
    let policies: PolicySource = Arc::new(ArcSwap::from_pointee(snapshot.clone()));
    let clock: Clock = Arc::new(now);
    let reviewer = Reviewer::new(policies, None, Arc::default(), Arc::default(), clock, false);
    let mut told = Vec::new();
    for (size, bytes) in [("4KB", 4 << 10), ("60KB", 60 << 10)] {
        for (state, complete) in [("complete", true), ("patched", false)] {
            let pod = pod(bytes, complete);
            let review = review(&pod);
            let mut group = criterion.benchmark_group(format!("{size}/{state}"));
            group.throughput(Throughput::Bytes(review.len() as u64));
            group.bench_function("decide", |bencher| {
                let view = PodView::parse(&pod).expect("the pod is valid");
                let meta = RequestMeta { namespace: "shop", now: now(), user: User::default() };
                bencher.iter(|| black_box(decide(black_box(&view), &meta, &snapshot)));
            });
            group.bench_function("handler", |bencher| {
                bencher.iter(|| reviewer.answer(Endpoint::Mutate, black_box(review.as_bytes())));
            });
            group.finish();
            told.push((size, state, review.len(), percentiles(&reviewer, &review)));
        }
    }
    for (size, state, bytes, (median, high)) in told {
        println!("handler {size} {state} ({bytes} bytes): p50 {median:.1} µs, p99 {high:.1} µs");
    }
    let policies = Arc::new(ArcSwap::from_pointee(snapshot.with_rooms(rooms())));
    let clock: Clock = Arc::new(now);
    let reviewer = Reviewer::new(policies, None, Arc::default(), Arc::default(), clock, false);
    for (name, selector) in SELECTORS {
        let with = format!(r#""nodeSelector":{selector},"restartPolicy":"Always""#);
        let pod = pod(4 << 10, false).replace(r#""restartPolicy":"Always""#, &with);
        let (median, high) = percentiles(&reviewer, &review(&pod));
        println!("handler 4KB patched, nodes: {name}: p50 {median:.1} µs, p99 {high:.1} µs");
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
