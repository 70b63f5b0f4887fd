//! What users get wrong, and what they are told: file, object, field and what to write instead.

mod rows;

use std::path::Path;
use std::process::Output;

use self::rows::{Row, SLOW, files, objects};
use super::cli::{Folder, harbinger, text};

/// Runs on paths, and holds what every refusal has: exit code 2, nothing on standard output, one
/// error a line, no panic.
fn refused(args: &[&str]) -> String {
    let output: Output = harbinger(&[&["simulate"], args].concat());
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
    assert!(output.stdout.is_empty(), "{args:?}: {}", text(&output.stdout));
    assert!(!message.contains("panicked"), "{message}");
    assert!(message.lines().all(|line| line.starts_with("error: ")), "{message}");
    message
}

#[test]
fn each_names_file_object_field_and_fix() {
    let folder = Folder::new();
    for Row { file, content, expected } in objects().into_iter().chain(files()) {
        let path = folder.bytes(file, &content);
        let message = refused(&[path.to_str().unwrap()]);
        for part in expected {
            assert!(message.contains(part), "{file}: {part:?} is not in\n{message}");
        }
        assert!(message.lines().all(|line| line.contains(file)), "{file} is not in\n{message}");
    }
    // All errors of all files at once, but for the one that takes seconds.
    std::fs::remove_file(folder.path().join(SLOW)).unwrap();
    let message = refused(&[folder.path().to_str().unwrap()]);
    for Row { file, .. } in objects().iter().chain(&files()).filter(|row| row.file != SLOW) {
        assert!(message.contains(file), "{file} is not in\n{message}");
    }
}

#[test]
fn places_that_are_not_there() {
    let folder = Folder::new();
    let missing = folder.path().join("none.yaml");
    let message = refused(&[missing.to_str().unwrap()]);
    assert!(message.contains("none.yaml: No such file or directory (os error 2); check the path"));
    let message = refused(&[folder.path().to_str().unwrap()]);
    assert!(message.contains("the folder has no manifests; give one with .yaml, .yml or .json"));
    let message = refused(&["--region", "mars-1", "examples/web-shop"]);
    assert!(message.contains("region \"mars-1\" is not in the built-in catalog; it has eu-west-1"));
}

#[test]
fn catalogs_name_entry_field_and_fix() {
    let offer =
        |offer: &str| format!(r#"[{{"name":"a","capacity":{{"cpu":1}},"offerings":[{offer}]}}]"#);
    let rows: Vec<(String, &[&str])> = vec![
        (String::new(), &["catalog: is not a JSON array of instance types: EOF"]),
        ("{}".to_owned(), &["catalog: is not a JSON array of instance types", "write [{\"name\""]),
        ("[]".to_owned(), &["catalog: has no instance types; write at least one"]),
        ("[] []".to_owned(), &["catalog: is not a JSON array of instance types: trailing characters"]),
        (r#"[{"name":"a"}]"#.to_owned(), &["entry 0 (\"a\"): .: missing field `capacity`"]),
        (r#"[{"name":"a","capacity":{"cpu":"4x"},"offerings":[]}]"#.to_owned(), &["entry 0 (\"a\"): capacity", "4x"]),
        (r#"[{"name":"a","capacity":{"cpu":-4},"offerings":[]}]"#.to_owned(), &["capacity.cpu: must not be negative; write an amount"]),
        (offer(r#"{"zone":"z","capacityType":"Spot","price":1}"#), &["offerings[0].capacityType", "not one of on-demand, spot, reserved"]),
        (offer(r#"{"zone":"z","capacityType":"spot","price":-1}"#), &["offerings[0].price: -1 is not a price", "write a number such as"]),
        (offer(r#"{"zone":"z","capacityType":"spot","price":1e300}"#), &["offerings[0].price"]),
        (offer(r#"{"zone":"z","capacityType":"spot","cost":1}"#), &["offerings[0].cost: unknown field `cost`"]),
        (
            r#"[{"name":"a","capacity":{},"offerings":[]},{"name":"a","capacity":{},"offerings":[]},{"name":"","capacity":{},"offerings":[]}]"#.to_owned(),
            &["entry 1 (\"a\"): name: another entry has the same name; remove or rename one", "entry 2: name: is empty; give it a name"],
        ),
    ];
    let folder = Folder::new();
    for (content, expected) in rows {
        let path = folder.file("types.json", &content);
        let message = refused(&["--catalog", path.to_str().unwrap(), "examples/web-shop"]);
        for part in expected.iter().chain(&["types.json: "]) {
            assert!(message.contains(part), "{content}: {part:?} is not in\n{message}");
        }
    }
}

#[test]
fn spot_prices_name_record_field_and_fix() {
    let record = |inner: &str| {
        format!(r#"{{"SpotPriceHistory":[{{"InstanceType":"a","AvailabilityZone":"b",{inner}}}]}}"#)
    };
    let rows: Vec<(String, &str)> = vec![
        (String::new(), "spot prices: EOF while parsing"),
        ("[]".to_owned(), "give what `aws ec2 describe-spot-price-history` prints"),
        ("{}".to_owned(), "missing field `SpotPriceHistory`"),
        (
            record(r#""SpotPrice":"cheap""#),
            "SpotPriceHistory[0].SpotPrice: \"cheap\" is not a price in dollars such as",
        ),
        (record(r#""SpotPrice":"-1""#), "SpotPriceHistory[0].SpotPrice: \"-1\" is not a price"),
        (
            record(r#""SpotPrice":"1","Timestamp":"noon""#),
            "SpotPriceHistory[0].Timestamp: \"noon\" is not a time such as",
        ),
        (record(r#""SpotPrice":1"#), "SpotPriceHistory[0].SpotPrice"),
        (r#"{"SpotPriceHistory":[]} x"#.to_owned(), "remove what follows the object"),
    ];
    let folder = Folder::new();
    for (content, expected) in rows {
        let path = folder.file("spot.json", &content);
        let message = refused(&["--spot-prices", path.to_str().unwrap(), "examples/web-shop"]);
        assert!(message.contains(expected), "{content}: {expected:?} is not in\n{message}");
        assert!(message.contains("spot.json: "), "{message}");
    }
}

#[test]
fn errors_of_all_sources_come_together() {
    let folder = Folder::new();
    let types = folder.file("types.json", "[]");
    let spot = folder.file("spot.json", "[]");
    let file = folder.file("a.yaml", "kind: 3");
    let paths = [&types, &spot, &file].map(|path: &std::path::PathBuf| path.to_str().unwrap());
    let message =
        refused(&["--catalog", paths[0], "--spot-prices", paths[1], paths[2], "/nowhere.yaml"]);
    for part in ["types.json: ", "spot.json: ", "a.yaml: ", "/nowhere.yaml: "] {
        assert!(message.contains(part), "{part:?} is not in\n{message}");
    }
}

#[test]
fn flags_are_refused_by_name() {
    for (args, part) in [
        (&["examples/web-shop", "--spot-discount", "1.5"][..], "--spot-discount"),
        (&["examples/web-shop", "-o", "xml"], "--output"),
        (&["examples/web-shop", "--spot-discount", "0.5", "--spot-prices", "x"], "--spot-prices"),
        (&[], "<PATH>"),
    ] {
        let output = harbinger(&[&["simulate"], args].concat());
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn convert_and_explain_refuse_alike() {
    let folder = Folder::new();
    let path = folder.file("broken.yaml", "a: [1\nb: 2");
    assert!(Path::new(&path).exists());
    for args in [&["convert"][..], &["explain", "x"]] {
        let output = harbinger(&[args, &[path.to_str().unwrap()]].concat());
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("broken.yaml: broken YAML at line"), "{message}");
    }
}
