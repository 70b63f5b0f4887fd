fn main() {
    for (n, y) in harbinger::api::crds::crds_yaml().unwrap() {
        std::fs::write(format!("manifests/crds/{n}"), y).unwrap();
    }
}
