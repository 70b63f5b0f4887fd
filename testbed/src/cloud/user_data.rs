//! What a kubelet learns from its instance's user data: labels, taints and the number of pods.
//!
//! Understood are nodeadm's NodeConfig (alone or in a MIME archive), the AL2 bootstrap script, any
//! other text with kubelet flags, and Bottlerocket's settings. Later parts win, as at boot.

use std::collections::BTreeMap;

use serde_json::Value;

/// The settings found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Registration {
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub max_pods: Option<u32>,
    /// False when nothing in the text speaks to a kubelet.
    pub understood: bool,
}

/// A taint to register with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: String,
}

impl Taint {
    /// Reads `key=value:Effect` or `key:Effect`.
    fn parse(text: &str) -> Option<Self> {
        let (pair, effect) = text.trim().rsplit_once(':')?;
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some(Self { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() })
    }
}

impl Registration {
    /// Reads decoded user data.
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for part in parts(text) {
            if part.contains("node.eks.aws/") {
                found.read_node_config(part);
            } else if part.contains("[settings") {
                found.read_bottlerocket(part);
            } else {
                found.read_flags(part);
            }
        }
        found
    }

    fn read_node_config(&mut self, text: &str) {
        let Ok(config) = serde_saphyr::from_str::<Value>(text) else { return };
        self.understood = true;
        let kubelet = &config["spec"]["kubelet"];
        for flag in kubelet["flags"].as_array().into_iter().flatten() {
            self.read_flags(flag.as_str().unwrap_or_default());
        }
        if let Some(taints) = kubelet["config"]["registerWithTaints"].as_array() {
            let text =
                |taint: &Value, key: &str| taint[key].as_str().unwrap_or_default().to_owned();
            self.taints = taints
                .iter()
                .map(|taint| Taint {
                    key: text(taint, "key"),
                    value: text(taint, "value"),
                    effect: text(taint, "effect"),
                })
                .collect();
        }
        if let Some(pods) = kubelet["config"]["maxPods"].as_u64() {
            self.max_pods = u32::try_from(pods).ok();
        }
    }

    fn read_flags(&mut self, text: &str) {
        if let Some(labels) = flag(text, "--node-labels") {
            self.understood = true;
            let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
            self.labels.extend(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
        }
        if let Some(taints) = flag(text, "--register-with-taints") {
            self.understood = true;
            self.taints = taints.split(',').filter_map(Taint::parse).collect();
        }
        if let Some(pods) = flag(text, "--max-pods") {
            self.understood = true;
            self.max_pods = pods.parse().ok();
        }
    }

    /// Bottlerocket's TOML, as far as tables of strings and lists of strings go.
    fn read_bottlerocket(&mut self, text: &str) {
        self.understood = true;
        let mut table = "";
        let mut list_key = None;
        for line in text.lines().map(str::trim) {
            if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
                && list_key.is_none()
            {
                table = header;
                continue;
            }
            let (key, value) = match (&list_key, line.split_once(" = ").or(line.split_once('='))) {
                (Some(key), _) => (String::clone(key), line),
                (None, Some((key, value))) => {
                    (key.trim().trim_matches(['"', '\'']).to_owned(), value.trim())
                }
                (None, None) => continue,
            };
            let strings = value.split(['"', '\'']).skip(1).step_by(2);
            match table {
                "settings.kubernetes" if key == "max-pods" => self.max_pods = value.parse().ok(),
                "settings.kubernetes.node-labels" => {
                    self.labels.extend(strings.map(|value| (key.clone(), value.to_owned())));
                }
                "settings.kubernetes.node-taints" => {
                    self.taints.extend(strings.filter_map(|text| {
                        let (value, effect) = text.rsplit_once(':')?;
                        let (value, effect) = (value.to_owned(), effect.to_owned());
                        Some(Taint { key: key.clone(), value, effect })
                    }));
                }
                _ => {}
            }
            let open = value.starts_with('[') || list_key.is_some();
            list_key = (open && !value.ends_with(']')).then_some(key);
        }
    }
}

/// The bodies of a MIME archive, or the text itself.
fn parts(text: &str) -> Vec<&str> {
    let boundary = text
        .split_once("boundary=")
        .filter(|_| text.contains("multipart/"))
        .and_then(|(_, rest)| rest.lines().next())
        .map(|rest| rest.split(';').next().unwrap_or(rest).trim().trim_matches('"'));
    let Some(boundary) = boundary else { return vec![text] };
    let delimiter = format!("--{boundary}");
    let bodies = text.split(delimiter.as_str()).skip(1).filter_map(|part| {
        // Headers end at the first empty line.
        part.split_once("\n\n").or_else(|| part.split_once("\r\n\r\n")).map(|(_, body)| body)
    });
    bodies.collect()
}

/// The value of a flag, with or without quotes.
fn flag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let rest = &text[text.find(name)? + name.len()..];
    let rest = rest.strip_prefix(['=', ' '])?.trim_start_matches(['"', '\'']);
    rest.split(|c: char| c.is_whitespace() || c == '"' || c == '\'').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, value: &str, effect: &str) -> Taint {
        Taint { key: key.into(), value: value.into(), effect: effect.into() }
    }

    #[test]
    fn node_config_in_a_mime_archive() {
        let text = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"//\"\n\n--//\n\
            Content-Type: text/x-shellscript\n\n#!/bin/sh\necho hello\n\n--//\n\
            Content-Type: application/node.eks.aws\n\n# Made by hand\napiVersion: node.eks.aws/v1alpha1\n\
            kind: NodeConfig\nspec:\n  kubelet:\n    config:\n      maxPods: 29\n      registerWithTaints:\n      \
            - key: karpenter.sh/unregistered\n        effect: NoExecute\n    flags:\n    \
            - --node-labels=\"a=b,karpenter.sh/nodepool=default\"\n\n--//--\n";
        let found = Registration::parse(text);
        assert!(found.understood);
        assert_eq!(found.labels["karpenter.sh/nodepool"], "default");
        assert_eq!(found.labels["a"], "b");
        assert_eq!(found.taints, [taint("karpenter.sh/unregistered", "", "NoExecute")]);
        assert_eq!(found.max_pods, Some(29));
    }

    #[test]
    fn bootstrap_script() {
        let found = Registration::parse(
            "#!/bin/bash -xe\n/etc/eks/bootstrap.sh 'c1' --kubelet-extra-args '--node-labels=\"a=b\" \
             --register-with-taints=\"k=v:NoSchedule,u:NoExecute\" --max-pods=17'",
        );
        assert_eq!(found.labels["a"], "b");
        assert_eq!(found.taints, [taint("k", "v", "NoSchedule"), taint("u", "", "NoExecute")]);
        assert_eq!(found.max_pods, Some(17));
    }

    #[test]
    fn bottlerocket_settings() {
        let found = Registration::parse(
            "[settings]\n[settings.kubernetes]\nmax-pods = 58\ncluster-name = \"c1\"\n\
             [settings.kubernetes.node-labels]\n'a' = 'b'\n\"karpenter.sh/nodepool\" = \"default\"\n\
             [settings.kubernetes.node-taints]\n\"k\" = [\"v:NoSchedule\"]\n\"u\" = [\n  \":NoExecute\",\n]\n",
        );
        assert_eq!(found.labels.len(), 2);
        assert_eq!(found.taints, [taint("k", "v", "NoSchedule"), taint("u", "", "NoExecute")]);
        assert_eq!(found.max_pods, Some(58));
    }

    #[test]
    fn other_text_says_nothing() {
        assert_eq!(Registration::parse("#!/bin/sh\necho hi"), Registration::default());
    }
}
