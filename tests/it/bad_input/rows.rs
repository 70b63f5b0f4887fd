//! The table: files, and the errors that they lead to.

use crate::cli::pool;

/// A file and the errors that it must lead to, each a part of one line.
pub(super) struct Row {
    pub file: &'static str,
    pub content: Vec<u8>,
    pub expected: &'static [&'static str],
}

fn row(file: &'static str, content: impl Into<Vec<u8>>, expected: &'static [&'static str]) -> Row {
    Row { file, content: content.into(), expected }
}

fn pod(name: &str, inner: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{{inner}}}\n")
}

fn deployment(spec: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  template: {{spec: {{containers: [{{name: c}}]}}}}\n  {spec}\n"
    )
}

fn requirement(text: &str) -> String {
    pool(&format!("[{text}]"), "")
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: harbinger.sh/v1alpha1\nkind: RequestPolicy\nmetadata: {{name: r}}\nspec: {spec}\n"
    )
}

/// A file that grows without end: aliases of aliases.
pub(super) const SLOW: &str = "laughs.yaml";

const C: &str = "containers: [{name: c}]";

/// Objects that cannot be read, or say what cannot be.
pub(super) fn objects() -> Vec<Row> {
    [amounts(), requirements(), types(), kinds()].into_iter().flatten().collect()
}

/// Fields that do not exist, and amounts that are none.
fn amounts() -> Vec<Row> {
    vec![
        row(
            "field.yaml",
            pool("[]", "  wieght: 3"),
            &["field.yaml: NodePool p: spec.wieght: 3: unknown field; did you mean weight?"],
        ),
        row(
            "moved.yaml",
            pool("[]", "  disruption: {expireAfter: 720h}"),
            &[
                "spec.disruption.expireAfter: \"720h\": unknown field; it belongs to spec.template.spec.expireAfter",
            ],
        ),
        row(
            "pod-field.yaml",
            pod("x", "containers: [{name: c, resource: {requests: {cpu: 1}}}]"),
            &[
                "pod-field.yaml: Pod x: spec.containers[0].resource: unknown field; did you mean resources?",
            ],
        ),
        row(
            "quantity.yaml",
            pool("[]", "  limits: {cpu: 4 cores}"),
            &[
                "quantity.yaml: NodePool p: spec.limits.cpu: \"4 cores\": should match",
                "write an amount such as 500m, 2 or 4Gi",
            ],
        ),
        row(
            "pod-quantity.yaml",
            pod("x", "containers: [{name: c, resources: {requests: {cpu: 1 core, memory: 2gb}}}]"),
            &[
                "pod-quantity.yaml: Pod x: spec.containers[0].resources.requests.cpu: \"1 core\": is not an amount; write an amount such as 500m, 2 or 4Gi",
                "pod-quantity.yaml: Pod x: spec.containers[0].resources.requests.memory: \"2gb\": is not an amount",
            ],
        ),
        row(
            "negative-request.yaml",
            pod("x", "containers: [{name: c, resources: {requests: {cpu: -1}}}]"),
            &[
                "spec.containers[0].resources.requests.cpu: -1: must not be negative; write an amount",
            ],
        ),
        row(
            "negative.yaml",
            deployment("replicas: -3"),
            &[
                "negative.yaml: Deployment web: spec.replicas: -3: should be greater than or equal to 0",
            ],
        ),
        row(
            "huge.yaml",
            deployment("replicas: 99999999999999999999"),
            &["huge.yaml: Deployment web: spec.replicas: "],
        ),
        row(
            "large.yaml",
            deployment("replicas: 2147483647"),
            &[
                "large.yaml: Deployment web: spec: makes 2147483647 of the input's ",
                "lower its replicas: at most 1000000 pods can be simulated",
            ],
        ),
        row(
            "weight.yaml",
            pool("[]", "  weight: 1e30"),
            &["weight.yaml: NodePool p: spec.weight: 1e+30: must be of type integer"],
        ),
        row(
            "default.yaml",
            policy("{rules: [{resource: cpu, action: Default, default: lots}]}"),
            &["default.yaml: RequestPolicy r: spec.rules[0].default: \"lots\": should match"],
        ),
    ]
}

/// Requirements that no node can meet.
fn requirements() -> Vec<Row> {
    vec![
        row(
            "impossible.yaml",
            requirement(
                "{key: a, operator: In, values: [x]}, {key: a, operator: NotIn, values: [x]}",
            ),
            &[
                "impossible.yaml: NodePool p: spec.template.spec.requirements[1]: ",
                "exclude each other, so no node can meet them; remove one",
            ],
        ),
        row(
            "absent.yaml",
            requirement("{key: a, operator: In, values: [x]}, {key: a, operator: DoesNotExist}"),
            &[
                "requirements[1]: the requirements on a exclude each other, so no node can meet them",
            ],
        ),
        row(
            "label.yaml",
            requirement("{key: team, operator: In, values: [a, b]}")
                .replace("template:\n", "template:\n    metadata: {labels: {team: c}}\n"),
            &[
                "label.yaml: NodePool p: spec.template.metadata.labels: ",
                "every node is labelled team=c, which the requirement on team excludes, so no node can meet both; change one",
            ],
        ),
        row(
            "class-label.yaml",
            requirement("{key: karpenter.k8s.aws/ec2nodeclass, operator: In, values: [other]}"),
            &["requirements: ", "every node is labelled karpenter.k8s.aws/ec2nodeclass="],
        ),
        row(
            "operator.yaml",
            requirement("{key: a, operator: is, values: [x]}"),
            &["requirements[0].operator: \"is\": unsupported value: supported values: \"In\", "],
        ),
        row(
            "key.yaml",
            requirement("{key: karpenter.k8s.aws/instance-type, operator: In, values: [m5.large]}"),
            &[
                "requirements[0].key: \"karpenter.k8s.aws/instance-type\": ",
                "did you mean node.kubernetes.io/instance-type?",
            ],
        ),
        row(
            "bound.yaml",
            requirement("{key: karpenter.k8s.aws/instance-cpu, operator: Gt, values: [many]}"),
            &["bound.yaml: NodePool p: spec.template.spec.requirements[0]"],
        ),
        row(
            "type.yaml",
            requirement(
                "{key: node.kubernetes.io/instance-type, operator: In, values: [m5.large, m5.lrage]}",
            ),
            &[
                "type.yaml: NodePool p: spec.template.spec.requirements[0].values[1]: \"m5.lrage\": unknown instance type; did you mean m5.large?",
            ],
        ),
        row(
            "no-type.yaml",
            requirement(
                "{key: node.kubernetes.io/instance-type, operator: In, values: [mainframe]}",
            ),
            &[
                "\"mainframe\": unknown instance type; write one of the catalog, or give --catalog with it",
            ],
        ),
    ]
}

/// Wrong types and words.
fn types() -> Vec<Row> {
    vec![
        row(
            "list.yaml",
            pool("{key: a}", ""),
            &["list.yaml: NodePool p: spec.template.spec.requirements: must be of type array"],
        ),
        row(
            "text.yaml",
            pool("[]", "  weight: heavy"),
            &["text.yaml: NodePool p: spec.weight: \"heavy\": must be of type integer"],
        ),
        row(
            "label.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x, labels: {version: 1}}\nspec: {containers: [{name: c}]}\n",
            &[
                "label.yaml: Pod x: metadata.labels.version: 1: must be of type string; write it in quotes: \"1\"",
            ],
        ),
        row(
            "duration.yaml",
            pool("[]", "  disruption: {consolidateAfter: 30d}"),
            &[
                "duration.yaml: NodePool p: spec.disruption.consolidateAfter: \"30d\": ",
                "a duration such as 30s, 5m or 1h30m",
            ],
        ),
        row(
            "action.yaml",
            policy("{rules: [{resource: cpu, action: Refuse}]}"),
            &[
                "action.yaml: RequestPolicy r: spec.rules[0].action: \"Refuse\": unsupported value: supported values: ",
            ],
        ),
        row(
            "no-containers.yaml",
            pod("x", "containers: []"),
            &[
                "no-containers.yaml: Pod x: spec.containers: required value; a pod needs at least one container",
            ],
        ),
    ]
}

/// Kinds, versions and names, and what is wrong between objects.
fn kinds() -> Vec<Row> {
    vec![
        row(
            "kind.yaml",
            "metadata: {name: x}",
            &[
                "kind.yaml: (no kind) x: an object has no kind (add apiVersion and kind, or remove the document)",
            ],
        ),
        row(
            "scalar.yaml",
            "just some words",
            &["scalar.yaml: this is no object (write apiVersion"],
        ),
        row(
            "misspelt.yaml",
            "apiVersion: apps/v1\nkind: Deploymnet\nmetadata: {name: x}",
            &[
                "misspelt.yaml: Deploymnet x: kind: \"Deploymnet\": unknown kind; did you mean Deployment?",
            ],
        ),
        row(
            "group.yaml",
            "apiVersion: v1\nkind: Deployment\nmetadata: {name: x}",
            &[
                "group.yaml: Deployment x: apiVersion: \"v1\": Deployment is not of this group; write apps/v1",
            ],
        ),
        row(
            "version.yaml",
            "kind: NodePool\nmetadata: {name: x}",
            &["version.yaml: NodePool x: apiVersion: required value; write karpenter.sh/v1"],
        ),
        row(
            "nameless.yaml",
            "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: c}]}",
            &[
                "nameless.yaml: Pod (no name): metadata.name: required value; give the object a name",
            ],
        ),
        row(
            "old.yaml",
            "apiVersion: karpenter.sh/v1beta1\nkind: NodePool\nmetadata: {name: x}",
            &["old.yaml: NodePool x: spec.template.spec.nodeClassRef"],
        ),
        row(
            "future.yaml",
            "apiVersion: karpenter.sh/v2\nkind: NodePool\nmetadata: {name: x}\nspec: {template: {spec: {nodeClassRef: {group: g, kind: k, name: n}, requirements: []}}}",
            &["future.yaml: NodePool x: apiVersion: \"karpenter.sh/v2\": expected karpenter.sh/v1"],
        ),
        row(
            "twice.yaml",
            format!("{}---\n{}", pod("x", C), pod("x", "containers: [{name: d}]")),
            &[
                "twice.yaml (document 2): Pod x: metadata.name: \"x\": another object of this name is in ",
                "remove or rename one of them",
            ],
        ),
        row(
            "class.yaml",
            pool("[]", "").replace("name: c}\n      req", "name: cc}\n      req"),
            &[
                "class.yaml: NodePool p: spec.template.spec.nodeClassRef.name: \"cc\": no EC2NodeClass of the input has this name; did you mean c?",
            ],
        ),
        row(
            "item.yaml",
            format!(
                "apiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Pod, metadata: {{name: good}}, spec: {{{C}}}}}\n- {{apiVersion: v1, kind: Pod, metadata: {{name: bad}}, spec: {{containers: 3}}}}\n- 7\n"
            ),
            &[
                "item.yaml (item 2): Pod bad: spec.containers: 3: must be of type array",
                "item.yaml (item 3): this is no object",
            ],
        ),
        row(
            "several.yaml",
            pool(
                "[{key: a, operator: In}, {key: b, operator: Gt, values: [x]}]",
                "  wieght: 3\n  limits: {cpu: x}",
            ),
            &["requirements[0]", "requirements[1]", "spec.wieght: 3", "spec.limits.cpu: \"x\""],
        ),
    ]
}

/// Files that are no manifests at all.
pub(super) fn files() -> Vec<Row> {
    let utf16: Vec<u8> = "\u{feff}kind: Pod".encode_utf16().flat_map(u16::to_le_bytes).collect();
    vec![
        row(
            "empty.yaml",
            "",
            &["empty.yaml: the file has no objects; write some, or leave it out"],
        ),
        row("comment.yaml", "# nothing\n---\n", &["comment.yaml: the file has no objects"]),
        row("broken.yaml", "a: [1\nb: 2", &["broken.yaml: broken YAML at line", "mend that place"]),
        row("tab.yaml", "kind: Pod\n\tspec: {}", &["tab.yaml: broken YAML at line"]),
        row(
            "key-twice.yaml",
            "kind: Pod\nkind: Node\n",
            &["key-twice.yaml: broken YAML at line 2", "kind"],
        ),
        row(
            "template.yaml",
            "kind: Pod\nmetadata:\n{{ include \"x\" . }}",
            &["template.yaml: broken YAML at line"],
        ),
        row(
            "broken.json",
            "{\"kind\":",
            &["broken.json: broken JSON: ", "at line 1 column 8; mend that place"],
        ),
        row(
            "garbage.json",
            "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"x\"}} and more",
            &["garbage.json: broken JSON: ", "at line 1 column"],
        ),
        row(
            "latin1.yaml",
            b"kind: Pod\nmetadata: {name: caf\xe9}".to_vec(),
            &[
                "latin1.yaml: the file is not UTF-8 text: a byte in line 2 is none; save it as UTF-8",
            ],
        ),
        row("utf16.yaml", utf16, &["utf16.yaml: the file is UTF-16; save it as UTF-8"]),
        row(
            "gzip.yaml.gz",
            b"\x1f\x8bnonsense".to_vec(),
            &["gzip.yaml.gz: broken gzip: ", "pack it again"],
        ),
        row("deep.yaml", format!("a: {}", "[".repeat(100_000)), &["deep.yaml: broken YAML"]),
        row("deep.json", "[".repeat(100_000), &["deep.json: broken JSON: "]),
        row(
            SLOW,
            (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
                let before = n - 1;
                format!("{text}a{n}: &a{n} [*a{before}, *a{before}, *a{before}, *a{before}]\n")
            }),
            &["laughs.yaml: broken YAML"],
        ),
    ]
}
