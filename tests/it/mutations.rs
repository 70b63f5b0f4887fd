//! Files that were damaged at random: the loader answers, and never panics.

use harbinger::api::convert;
use harbinger::cloud::catalog::{Catalog, SpotPrices};
use harbinger::simulate::{Settings, cross, engine, input, load, upgrade};
use proptest::prelude::*;
use serde_json::{Value, json};

const TEXTS: &[&str] = &[
    include_str!("../../examples/web-shop/shop.yaml"),
    include_str!("../../examples/web-shop/nodepool.yaml"),
    include_str!("../../examples/web-shop/requestpolicy.yaml"),
    include_str!("../../examples/batch-farm/farm.yaml"),
    include_str!("../../examples/gpu-service/gpu.yaml"),
    include_str!("../fixtures/convert/provisioner_full.yaml"),
    include_str!("../fixtures/convert/kubelet_split.yaml"),
    include_str!("../fixtures/convert/beta_full.yaml"),
    include_str!("../fixtures/convert/workloads.yaml"),
];

/// What editors, templates and tired people leave in files.
const SPLINTERS: &[&str] = &[
    "",
    " ",
    "  ",
    "\t",
    "\n",
    "\n---\n",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "'",
    "\"",
    "#",
    "&a ",
    "*a",
    "!!binary ",
    "|",
    ">-",
    "null",
    "~",
    "true",
    "-1",
    "1e309",
    "0x7f",
    "9223372036854775808",
    "é",
    "\u{0}",
    "\u{feff}",
    "{{ x }}",
    "<<: ",
    "kind: List\nitems:\n",
    "%YAML 1.1\n",
];

/// A text as a manifest: fixtures keep their objects in a list of another name.
fn manifest(text: &str) -> String {
    text.replace("objects:\n", "apiVersion: v1\nkind: List\nitems:\n")
}

/// Reads a text the way `simulate` and `convert` do.
fn load(text: &str) -> (Option<input::Input>, usize) {
    let Ok(objects) = load::parse_text("a.yaml", text) else { return (None, 1) };
    sorted(objects)
}

fn sorted(objects: Vec<(load::Origin, Value)>) -> (Option<input::Input>, usize) {
    let plain = objects.iter().map(|(_, object)| object.clone()).collect();
    drop(convert::convert(plain, &convert::Options::default()));
    let upgraded = upgrade::upgrade(objects, "us-east-1");
    let (input, errors) = input::sort(upgraded.objects);
    let types = Catalog::built_in().unwrap().names().collect();
    let wrong = cross::check(&input, &types, false);
    let all = upgraded.errors.iter().chain(&errors).chain(&wrong);
    let messages: Vec<String> = all.map(ToString::to_string).collect();
    assert!(messages.iter().all(|message| message.starts_with("a.yaml")), "{messages:?}");
    (Some(input), messages.len())
}

/// A text with some places of it cut out, replaced or repeated.
fn damaged() -> impl Strategy<Value = String> {
    let wound = (any::<prop::sample::Index>(), 0_usize..12, 0..SPLINTERS.len(), any::<bool>());
    (0..TEXTS.len(), prop::collection::vec(wound, 1..6)).prop_map(|(text, wounds)| {
        let mut text: Vec<char> = manifest(TEXTS[text]).chars().collect();
        for (at, cut, splinter, again) in wounds {
            let at = at.index(text.len() + 1);
            let end = (at + cut).min(text.len());
            let mut piece: Vec<char> = SPLINTERS[splinter].chars().collect();
            if again {
                piece.extend(&text[at..end]);
                piece.extend(&text[at..end]);
            }
            text.splice(at..end, piece);
        }
        text.into_iter().collect()
    })
}

/// A value that no author of a schema thought of.
fn strange() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e300),
        json!(0.5),
        json!(""),
        json!("x"),
        json!("-1"),
        json!("9E"),
        json!("m5.large"),
        json!("2026-99-99"),
        json!([]),
        json!({}),
        json!([null]),
        json!([[]]),
        json!({"": null}),
        json!({"a": {"b": [1, "c"]}}),
    ])
}

/// Puts `value` in the place of one of the nodes of a tree, counted from the top.
fn put(tree: &mut Value, count: &mut usize, value: &Value) {
    if *count == 0 {
        tree.clone_from(value);
    }
    *count = count.wrapping_sub(1);
    match tree {
        Value::Array(items) => items.iter_mut().for_each(|item| put(item, count, value)),
        Value::Object(map) => map.values_mut().for_each(|item| put(item, count, value)),
        _ => {}
    }
}

fn size(tree: &Value) -> usize {
    1 + match tree {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(map) => map.values().map(size).sum(),
        _ => 0,
    }
}

/// Objects of an example with strange values in some places.
fn strange_objects() -> impl Strategy<Value = Vec<(load::Origin, Value)>> {
    let change = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), strange());
    (0..TEXTS.len(), prop::collection::vec(change, 1..4)).prop_map(|(text, changes)| {
        let mut objects = load::parse_text("a.yaml", &manifest(TEXTS[text])).unwrap();
        for (object, at, value) in changes {
            let tree = &mut object.get_mut(&mut objects).1;
            let mut at = at.index(size(tree));
            put(tree, &mut at, &value);
        }
        objects
    })
}

#[test]
fn what_is_damaged_was_whole() {
    // Of the fixtures one is whole only with a setting, and one leaves out containers.
    let whole = |text: &&&str| {
        !text.contains("default_instance_profile") && !text.contains("do-not-consolidate")
    };
    for text in TEXTS.iter().filter(whole) {
        let (input, errors) = load(&manifest(text));
        assert!(input.is_some());
        assert_eq!(errors, 0, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn damaged_texts_are_answered(text in damaged()) {
        load(&text);
    }

    #[test]
    fn strange_values_are_answered(objects in strange_objects()) {
        sorted(objects);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What the loader lets through, the planner can plan, and the checker finds nothing.
    #[test]
    fn strange_values_are_planned(objects in strange_objects()) {
        let (input, errors) = sorted(objects);
        let input = input.filter(|_| errors == 0);
        let few = |input: &input::Input| {
            let wanted: u64 = input
                .workloads
                .iter()
                .map(|(kind, workload)| u64::from(workload.desired(*kind)))
                .sum();
            wanted < 2000
        };
        if let Some(input) = input.filter(few) {
            let settings = Settings {
                region: "us-east-1".to_owned(),
                spot: SpotPrices::Discount(600),
                catalog: None,
                explain: None,
                now: "2026-06-01T00:00:00Z".parse().unwrap(),
            };
            let report = engine::simulate(input, &settings);
            prop_assert!(report.is_ok(), "{:?}", report.err());
        }
    }
}
