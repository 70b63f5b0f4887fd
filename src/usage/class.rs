//! What containers of well-known images need where nothing else is known: a prior, no more.

use super::key::repository;
use super::scale::Measure;

/// A class of images.
#[derive(Debug)]
pub(super) struct Class {
    /// How messages call it.
    pub(super) name: &'static str,
    /// Parts of the last word of a repository that tell it.
    parts: &'static [&'static str],
    /// Millicores and bytes.
    amounts: [i64; 2],
    /// How far it is believed: a sidecar of one make is like the next, a runtime says little about the
    /// program that it runs.
    pub(super) weight: f64,
}

impl Class {
    /// The prior; millicores or bytes.
    pub(super) const fn amount(&self, measure: Measure) -> i64 {
        match measure {
            Measure::Cpu => self.amounts[0],
            Measure::Memory => self.amounts[1],
        }
    }
}

const fn class(
    name: &'static str,
    parts: &'static [&'static str],
    cpu: i64,
    mebibytes: i64,
    weight: f64,
) -> Class {
    Class { name, parts, amounts: [cpu, mebibytes << 20], weight }
}

/// Sidecars with the requests that their own charts and injectors set (Istio `global.proxy.resources`,
/// vault-k8s `agent-requests-*`, Dapr's sidecar guide); runtimes and servers with what their
/// smallest useful settings take, a judgement.
const CLASSES: [Class; 9] = [
    class("istio-proxy", &["proxyv2", "istio-proxy"], 100, 128, 0.8),
    class("vault-agent", &["vault"], 250, 64, 0.6),
    class("dapr", &["daprd"], 100, 250, 0.8),
    class("linkerd-proxy", &["linkerd-proxy", "linkerd2-proxy"], 100, 64, 0.8),
    class("log shipper", &["fluent-bit", "fluentbit", "promtail", "vector"], 50, 64, 0.7),
    class(
        "JVM",
        &[
            "openjdk",
            "temurin",
            "corretto",
            "-jre",
            "-jdk",
            "java",
            "tomcat",
            "jetty",
            "spring",
            "keycloak",
            "kafka",
            "cassandra",
            "elasticsearch",
        ],
        250,
        768,
        0.5,
    ),
    class("database", &["postgres", "mysql", "mariadb", "mongo", "clickhouse"], 250, 384, 0.5),
    class("node.js or Python", &["node", "python", "django", "rails", "ruby"], 100, 192, 0.4),
    class("static server", &["nginx", "httpd", "caddy", "haproxy"], 50, 48, 0.5),
];

/// The class of an image, by the last word of its repository.
pub(super) fn of(image: &str) -> Option<&'static Class> {
    let (repository, _) = repository(image);
    let word = repository.rsplit('/').next().unwrap_or(repository);
    CLASSES.iter().find(|class| class.parts.iter().any(|part| word.contains(part)))
}
