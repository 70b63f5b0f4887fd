//! Mutations: of bytes, and of the values of a JSON tree.

use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::{Map, Value, json};

/// Pieces that parsers trip over.
const TOKENS: &[&str] = &[
    "null",
    "true",
    "{}",
    "[]",
    "\"\"",
    "-1",
    "1e999",
    "9223372036854775808",
    "\\u0000",
    "\\ud800",
    "{\"a\":",
    "[[[[",
    "\"uid\":",
    "\"object\":",
    "\"spec\":",
    "\u{fffd}",
    "CREATE",
    "UPDATE",
];

/// Strings that mean something to a policy or a pod.
const WORDS: &[&str] = &[
    "",
    "0",
    "0.0",
    "100m",
    "64Mi",
    "1e3",
    "1e-30",
    "-5",
    "9223372036854775807",
    "18446744073709551616Ei",
    "1.0000000001",
    "cpu",
    "memory",
    "ephemeral-storage",
    "Always",
    "skip",
    "Default",
    "Deny",
    "In",
    "Exists",
    "Main",
    "Init",
    "Sidecar",
    "Deployment",
    "a/b~c",
    "ключ",
    "{container}",
    "{",
    "{pod",
    "nvidia.com/gpu",
    "2026-06-01T12:00:00Z",
    "harbinger.sh/request-policy",
    "topology.kubernetes.io/zone",
    "kubernetes.io/hostname",
    "a",
    "n",
    "team",
    "NotIn",
    "Gt",
    "DoNotSchedule",
    "ScheduleAnyway",
    "Honor",
    "NoSchedule",
];

/// Keys that mean something.
const KEYS: &[&str] = &[
    "name",
    "resources",
    "requests",
    "limits",
    "cpu",
    "memory",
    "ephemeral-storage",
    "restartPolicy",
    "annotations",
    "labels",
    "containers",
    "initContainers",
    "ownerReferences",
    "metadata",
    "spec",
    "harbinger.sh/default-requests",
    "harbinger.sh/request-policy",
    "kubernetes.io/config.mirror",
    "rules",
    "action",
    "default",
    "resource",
    "match",
    "containerKinds",
    "message",
    "priority",
    "nodeSelector",
    "topologyKey",
    "labelSelector",
    "matchLabels",
    "maxSkew",
    "minDomains",
    "whenUnsatisfiable",
    "operator",
    "values",
    "replicas",
    "minValues",
    "nodes",
    "claimName",
    "price",
];

/// Makes inputs from a seed.
pub(crate) struct Mutator {
    random: Pcg64Mcg,
}

impl Mutator {
    /// The same seed makes the same inputs.
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Pcg64Mcg::seed_from_u64(seed) }
    }

    fn below(&mut self, end: usize) -> usize {
        self.random.random_range(0..end.max(1))
    }

    /// One of them.
    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// Changes a few places of a body.
    pub(crate) fn bytes(&mut self, body: &mut Vec<u8>) {
        for _ in 0..=self.below(6) {
            let at = self.below(body.len() + 1);
            match self.below(7) {
                0 if !body.is_empty() => {
                    let at = self.below(body.len());
                    body[at] ^= 1 << self.below(8);
                }
                1 => {
                    let byte = (self.random.next_u32() & 0xff) as u8;
                    body.insert(at, byte);
                }
                2 => {
                    let end = (at + self.below(24)).min(body.len());
                    body.drain(at..end);
                }
                3 => {
                    let token = self.pick(TOKENS).as_bytes();
                    body.splice(at..at, token.iter().copied());
                }
                4 => {
                    // A piece of its own, again.
                    let end = (at + self.below(64)).min(body.len());
                    let piece = body[at..end].to_vec();
                    body.splice(end..end, piece);
                }
                5 if self.below(8) == 0 => body.truncate(at),
                _ => self.replace_value(body),
            }
        }
    }

    /// Puts a token in the place of a value.
    fn replace_value(&mut self, body: &mut Vec<u8>) {
        let colons: Vec<usize> =
            body.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at).collect();
        if colons.is_empty() {
            return;
        }
        let from = *self.pick(&colons) + 1;
        let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']');
        let to = body[from..].iter().position(ends).map_or(body.len(), |at| from + at);
        let token = self.pick(TOKENS).as_bytes();
        body.splice(from..to, token.iter().copied());
    }

    /// Changes a few values of a tree.
    pub(crate) fn tree(&mut self, value: &mut Value) {
        for _ in 0..=self.below(4) {
            let depth = self.below(9);
            self.descend(value, depth);
        }
    }

    fn descend(&mut self, value: &mut Value, depth: usize) {
        match value {
            Value::Object(map) if depth > 0 && !map.is_empty() => {
                let keys: Vec<String> = map.keys().cloned().collect();
                let key = self.pick(&keys).clone();
                if let Some(child) = map.get_mut(&key) {
                    self.descend(child, depth - 1);
                }
            }
            Value::Array(list) if depth > 0 && !list.is_empty() => {
                let at = self.below(list.len());
                self.descend(&mut list[at], depth - 1);
            }
            Value::Object(map) => self.change_map(map),
            Value::Array(list) => match self.below(3) {
                0 if !list.is_empty() => {
                    let at = self.below(list.len());
                    list.remove(at);
                }
                1 if !list.is_empty() => {
                    let copy = self.pick(list).clone();
                    list.push(copy);
                }
                _ => list.push(self.value(2)),
            },
            other => *other = self.value(2),
        }
    }

    fn change_map(&mut self, map: &mut Map<String, Value>) {
        let keys: Vec<String> = map.keys().cloned().collect();
        match self.below(3) {
            0 if !keys.is_empty() => drop(map.remove(self.pick(&keys).as_str())),
            1 if !keys.is_empty() => {
                let value = self.value(2);
                map.insert(self.pick(&keys).clone(), value);
            }
            _ => {
                let value = self.value(2);
                map.insert((*self.pick(KEYS)).to_owned(), value);
            }
        }
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 5 } else { 7 }) {
            0 => Value::Null,
            1 => self.random.random::<bool>().into(),
            2 => json!(*self.pick(&[0_i64, 1, -1, 7, 1 << 40, i64::MAX, i64::MIN])),
            3 | 4 => (*self.pick(WORDS)).into(),
            5 => (0..self.below(3)).map(|_| self.value(depth - 1)).collect::<Vec<_>>().into(),
            _ => {
                let entry =
                    |this: &mut Self| ((*this.pick(KEYS)).to_owned(), this.value(depth - 1));
                let map: Map<String, Value> = (0..self.below(3)).map(|_| entry(self)).collect();
                map.into()
            }
        }
    }
}
