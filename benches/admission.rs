//! The cost of one review: the decision alone and the whole handler, from body to body.
//!
//! Run with `cargo bench --no-default-features --bench admission`. After criterion's own figures it
//! prints the median and the 99th percentile of the handler, which an average hides.

#![expect(clippy::print_stdout, reason = "the percentiles are the result")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

#[path = "shared/payload.rs"]
mod payload;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use harbinger::admission::{Clock, Endpoint, PolicySource, Reviewer};
use harbinger::policy::{PodView, RequestMeta, User, decide};
use payload::{now, pod, review, snapshot};

fn bench(criterion: &mut Criterion) {
    let snapshot = snapshot();
    let policies: PolicySource = Arc::new(ArcSwap::from_pointee(snapshot.clone()));
    let clock: Clock = Arc::new(now);
    let reviewer = Reviewer::new(policies, None, Arc::default(), Arc::default(), clock, false);
    let mut percentiles = Vec::new();
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
            let mut times: Vec<f64> = (0..5000)
                .map(|_| {
                    let start = Instant::now();
                    black_box(reviewer.answer(Endpoint::Mutate, black_box(review.as_bytes())));
                    start.elapsed().as_secs_f64() * 1e6
                })
                .collect();
            times.sort_by(f64::total_cmp);
            percentiles.push((size, state, review.len(), times[2500], times[4950]));
        }
    }
    for (size, state, bytes, median, high) in percentiles {
        println!("handler {size} {state} ({bytes} bytes): p50 {median:.1} µs, p99 {high:.1} µs");
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
