//! Bottlerocket: settings in TOML; the user's settings with ours laid over them.

use toml::{Table, Value};

use super::{Node, UserDataError};

pub(super) fn text(node: &Node<'_>) -> Result<String, UserDataError> {
    let mut document: Table =
        node.custom.unwrap_or_default().parse().map_err(|error| {
            UserDataError::invalid(format!("spec.userData is not TOML: {error}"))
        })?;
    let settings = table(&mut document, "settings")?;
    let kubernetes = table(settings, "kubernetes")?;
    fill(node, kubernetes)?;
    if node.raid0 {
        let commands = table(settings, "bootstrap-commands")?;
        commands.insert("000-mount-instance-storage".to_owned(), mount_instance_storage());
    }
    toml::to_string(&document)
        .map_err(|error| UserDataError::invalid(format!("cannot write TOML: {error}")))
}

/// The table under a key, made if it is not there.
fn table<'a>(parent: &'a mut Table, key: &str) -> Result<&'a mut Table, UserDataError> {
    let entry = parent.entry(key).or_insert_with(|| Value::Table(Table::new()));
    entry
        .as_table_mut()
        .ok_or_else(|| UserDataError::invalid(format!("{key} in spec.userData must be a table")))
}

fn fill(node: &Node<'_>, kubernetes: &mut Table) -> Result<(), UserDataError> {
    let cluster = node.cluster;
    let mut set = |key: &str, value: Value| kubernetes.insert(key.to_owned(), value);
    set("cluster-name", cluster.cluster_name.clone().into());
    set("api-server", cluster.cluster_endpoint.clone().into());
    if !cluster.ca_bundle.is_empty() {
        set("cluster-certificate", cluster.ca_bundle.clone().into());
    }
    if let Some(dns) = node.dns().first() {
        set("cluster-dns-ip", (*dns).into());
    }
    set("max-pods", node.max_pods.into());
    for (key, field) in [
        ("system-reserved", "systemReserved"),
        ("kube-reserved", "kubeReserved"),
        ("eviction-hard", "evictionHard"),
        ("eviction-soft", "evictionSoft"),
        ("eviction-soft-grace-period", "evictionSoftGracePeriod"),
    ] {
        let map = node.map(field);
        if !map.is_empty() {
            let map: Table =
                map.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
            set(key, map.into());
        }
    }
    for (key, field) in [
        ("eviction-max-pod-grace-period", "evictionMaxPodGracePeriod"),
        ("image-gc-high-threshold-percent", "imageGCHighThresholdPercent"),
        ("image-gc-low-threshold-percent", "imageGCLowThresholdPercent"),
        ("cpu-cfs-quota-enforced", "cpuCFSQuota"),
    ] {
        let Some(text) = node.scalar(field) else { continue };
        let value = match key {
            // Bottlerocket wants the percentages as texts.
            key if key.ends_with("-percent") => text.into(),
            "cpu-cfs-quota-enforced" => (text == "true").into(),
            _ => text.parse::<i64>().unwrap_or(0).into(),
        };
        set(key, value);
    }
    let labels = table(kubernetes, "node-labels")?;
    for (key, value) in node.own_labels() {
        labels.insert(key.to_owned(), value.into());
    }
    let mut taints = Table::new();
    for taint in node.taints {
        let text = format!("{}:{}", taint.value, taint.effect);
        let list = taints.entry(taint.key.clone()).or_insert_with(|| Value::Array(Vec::new()));
        if let Some(list) = list.as_array_mut() {
            list.push(text.into());
        }
    }
    kubernetes.insert("node-taints".to_owned(), taints.into());
    Ok(())
}

/// The command that makes one array of the instance stores and moves the pods' data there.
fn mount_instance_storage() -> Value {
    let command = |words: &[&str]| -> Value {
        Value::Array(words.iter().map(|word| Value::from(*word)).collect())
    };
    let mut entry = Table::new();
    entry.insert(
        "commands".to_owned(),
        Value::Array(vec![
            command(&["apiclient", "ephemeral-storage", "init"]),
            command(&[
                "apiclient",
                "ephemeral-storage",
                "bind",
                "--dirs",
                "/var/lib/containerd",
                "/var/lib/kubelet",
                "/var/log/pods",
            ]),
        ]),
    );
    entry.insert("mode".to_owned(), "always".into());
    entry.insert("essential".to_owned(), true.into());
    entry.into()
}
