//! Conditions in CEL, bounded: what an expression may cost is known before it runs.
//!
//! The interpreter cannot be stopped, so its cost is bounded from the expression: each part counts
//! once, inside a comprehension once per element of the longest collection of the object. One whose
//! cost would pass [`BUDGET`] is refused when its policy is read, or for the one object that is too
//! large. A condition that cannot be evaluated keeps its policy from judging the pod, as the API
//! server does for webhooks that may fail: the pod is let in, and the policy's status says so.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use cel::{Context, Env, Program, Value};
use serde::{Serialize, Serializer};
use serde_json::json;

use super::decide::User;
use crate::model::labels::Labels;

/// Steps that one expression may take; a step takes some hundred nanoseconds.
const BUDGET: u64 = 50_000;

/// Elements that collections are taken to have when a policy is read: a large pod's containers.
const USUAL_ELEMENTS: u64 = 32;

/// Bytes of an expression.
const EXPRESSION_LIMIT: usize = 2048;

/// Levels that an expression may nest; people write a handful.
const DEEPEST: usize = 24;

/// Bytes of the parser's stack; untouched pages cost nothing.
const PARSER_STACK: usize = 64 << 20;

/// Steps that a regular expression counts for: it is compiled each time.
const MATCHES_STEPS: u64 = 500;

/// Variables that expressions may use.
const VARIABLES: [&str; 3] = ["namespaceObject", "object", "request"];

/// A compiled condition.
#[derive(Clone, Debug)]
pub struct Condition {
    name: Arc<str>,
    program: Arc<Program>,
    /// Steps by how many comprehensions they are in.
    steps: Vec<u64>,
}

/// Why an expression is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// It is not CEL.
    #[error("is not CEL: {0}")]
    Syntax(String),
    /// It is too long.
    #[error("has {0} bytes, at most {EXPRESSION_LIMIT} are taken")]
    Long(usize),
    /// It nests too deep.
    #[error("nests too deep: at most {DEEPEST} levels are taken, four operators counting as one")]
    Deep,
    /// It uses a variable that is not there.
    #[error("uses {0:?}; there are object, request and namespaceObject")]
    Variable(String),
    /// It may cost too much.
    #[error(
        "may take {0} steps for lists of {USUAL_ELEMENTS} elements, at most {BUDGET} are taken: nest \
         fewer of all, exists, map and filter"
    )]
    Budget(u64),
}

/// A condition that could not be evaluated for an object.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("condition {condition:?}: {message}")]
pub struct ConditionError {
    /// The policy that has it.
    pub policy: Arc<str>,
    /// The condition.
    pub condition: Arc<str>,
    /// What is wrong.
    pub message: String,
}

fn env() -> &'static Arc<Env> {
    static ENV: OnceLock<Arc<Env>> = OnceLock::new();
    ENV.get_or_init(|| Arc::new(Env::stdlib()))
}

impl Condition {
    /// Compiles an expression.
    pub(super) fn compile(name: &str, expression: &str) -> Result<Self, Refused> {
        if expression.len() > EXPRESSION_LIMIT {
            return Err(Refused::Long(expression.len()));
        }
        if depth(expression) > DEEPEST {
            return Err(Refused::Deep);
        }
        let program = parse(expression).map_err(Refused::Syntax)?;
        let mut free = Vec::new();
        let mut steps = Vec::new();
        weigh(program.expression(), 0, &mut Vec::new(), &mut steps, &mut free);
        if let Some(name) = free.into_iter().find(|name| !VARIABLES.contains(&&**name)) {
            return Err(Refused::Variable(name));
        }
        let cost = cost(&steps, USUAL_ELEMENTS);
        if cost > BUDGET {
            return Err(Refused::Budget(cost));
        }
        Ok(Self { name: name.into(), program: Arc::new(program), steps })
    }
}

/// Parses on a stack of its own: the parser takes up to 100 KB of it for each bracket.
fn parse(expression: &str) -> Result<Program, String> {
    let text = expression.to_owned();
    let parser = std::thread::Builder::new()
        .stack_size(PARSER_STACK)
        .spawn(move || env().compile(&text).map_err(|errors| first_line(&errors.to_string())));
    let parsed = parser.ok().and_then(|parser| parser.join().ok());
    parsed.unwrap_or_else(|| Err("the parser gave up".to_owned()))
}

/// How deep an expression can nest, from above: brackets that are open at once, and signs, choices and
/// operators, each of which may add a level. The parser and the evaluation recurse by it, and a stack
/// that overflows ends the process.
fn depth(expression: &str) -> usize {
    let (mut open, mut deepest, mut others) = (0_usize, 0, 0);
    for byte in expression.bytes() {
        match byte {
            b'(' | b'[' | b'{' => {
                open += 1;
                deepest = deepest.max(open);
            }
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            b'.' | b'!' | b'-' | b'?' | b'+' | b'*' | b'/' | b'%' | b'&' | b'|' | b'<' | b'>'
            | b'=' => {
                others += 1;
            }
            _ => {}
        }
    }
    // Operators come in ones and twos.
    deepest + others / 4
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().chars().take(200).collect()
}

fn cost(steps: &[u64], elements: u64) -> u64 {
    let mut factor = 1_u64;
    let mut total = 0_u64;
    for count in steps {
        total = total.saturating_add(count.saturating_mul(factor));
        factor = factor.saturating_mul(elements.max(1));
    }
    total
}

/// Counts the parts of an expression by depth of comprehensions, and finds names that nothing binds.
fn weigh(
    expr: &IdedExpr,
    depth: usize,
    bound: &mut Vec<String>,
    steps: &mut Vec<u64>,
    free: &mut Vec<String>,
) {
    if steps.len() <= depth {
        steps.resize(depth + 1, 0);
    }
    steps[depth] += 1;
    match &expr.expr {
        Expr::Ident(name) => {
            // The names of types are identifiers too.
            let known = bound.contains(name) || is_type(name);
            if !known {
                free.push(name.clone());
            }
        }
        Expr::Call(call) => {
            if call.func_name == "matches" {
                steps[depth] += MATCHES_STEPS;
            }
            for part in call.target.iter().map(|target| &**target).chain(&call.args) {
                weigh(part, depth, bound, steps, free);
            }
        }
        Expr::Comprehension(over) => {
            weigh(&over.iter_range, depth, bound, steps, free);
            weigh(&over.accu_init, depth, bound, steps, free);
            let before = bound.len();
            bound.push(over.accu_var.clone());
            weigh(&over.result, depth, bound, steps, free);
            bound.push(over.iter_var.clone());
            bound.extend(over.iter_var2.clone());
            weigh(&over.loop_cond, depth + 1, bound, steps, free);
            weigh(&over.loop_step, depth + 1, bound, steps, free);
            bound.truncate(before);
        }
        Expr::List(list) => {
            for part in &list.elements {
                weigh(part, depth, bound, steps, free);
            }
        }
        Expr::Map(map) => entries(&map.entries, depth, bound, steps, free),
        Expr::Struct(object) => entries(&object.entries, depth, bound, steps, free),
        Expr::Select(select) => weigh(&select.operand, depth, bound, steps, free),
        Expr::Literal(_) | Expr::Unspecified => {}
    }
}

fn entries(
    entries: &[cel::common::ast::IdedEntryExpr],
    depth: usize,
    bound: &mut Vec<String>,
    steps: &mut Vec<u64>,
    free: &mut Vec<String>,
) {
    for entry in entries {
        match &entry.expr {
            EntryExpr::StructField(field) => weigh(&field.value, depth, bound, steps, free),
            EntryExpr::MapEntry(entry) => {
                weigh(&entry.key, depth, bound, steps, free);
                weigh(&entry.value, depth, bound, steps, free);
            }
        }
    }
}

fn is_type(name: &str) -> bool {
    matches!(
        name,
        "bool"
            | "bytes"
            | "double"
            | "int"
            | "list"
            | "map"
            | "null_type"
            | "string"
            | "type"
            | "uint"
    )
}

/// The facts of a request that expressions may read.
pub(super) struct Request<'a> {
    pub(super) namespace: &'a str,
    /// Labels of the namespace, where they are known.
    pub(super) labels: Option<&'a Labels>,
    pub(super) user: User<'a>,
}

/// What expressions read.
pub(super) struct Inputs {
    context: Context<'static, 'static>,
    /// Elements of the longest collection.
    elements: u64,
}

impl Inputs {
    /// Inputs for conditions about `object`.
    pub(super) fn new(object: Option<serde_json::Value>, request: &Request<'_>) -> Self {
        let mut elements = 1;
        let mut context = Context::with_env(Arc::clone(env()));
        let object = object.unwrap_or_default();
        let namespace =
            json!({ "metadata": { "name": request.namespace, "labels": request.labels } });
        let request = json!({
            "operation": "CREATE",
            "namespace": request.namespace,
            "userInfo": { "username": request.user.name, "groups": request.user.groups },
        });
        for (name, mut value) in
            [("object", object), ("request", request), ("namespaceObject", namespace)]
        {
            prune(&mut value, &mut elements);
            let value = cel::to_value(Signed(&value)).unwrap_or(Value::Null);
            context.add_variable_from_value(name, value);
        }
        Self { context, elements }
    }

    /// Whether all conditions hold. One that does not hold outweighs those that fail.
    pub(super) fn hold(&self, conditions: &[Condition]) -> Result<bool, ConditionError> {
        let mut failed = None;
        for condition in conditions {
            match self.holds(condition) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(message) => {
                    failed.get_or_insert(ConditionError {
                        policy: Arc::from(""),
                        condition: Arc::clone(&condition.name),
                        message: message.chars().take(200).collect(),
                    });
                }
            }
        }
        failed.map_or(Ok(true), Err)
    }

    fn holds(&self, condition: &Condition) -> Result<bool, String> {
        let cost = cost(&condition.steps, self.elements);
        if cost > BUDGET {
            return Err(format!(
                "may take {cost} steps for a list of {} elements, at most {BUDGET} are taken",
                self.elements
            ));
        }
        let run = AssertUnwindSafe(|| condition.program.execute(&self.context));
        match catch_unwind(run) {
            Ok(Ok(Value::Bool(holds))) => Ok(holds),
            Ok(Ok(other)) => Err(format!("is {}, not true or false", other.type_of())),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the interpreter gave up".to_owned()),
        }
    }
}

/// Whole numbers as CEL's `int`, as the API server has them; by itself JSON's positive numbers become
/// `uint`, which does not add to an `int`.
struct Signed<'a>(&'a serde_json::Value);

impl Serialize for Signed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(number) => serializer.serialize_i64(number),
                None => number.serialize(serializer),
            },
            serde_json::Value::Array(items) => serializer.collect_seq(items.iter().map(Signed)),
            serde_json::Value::Object(map) => {
                serializer.collect_map(map.iter().map(|(key, value)| (key, Signed(value))))
            }
            other => other.serialize(serializer),
        }
    }
}

/// Removes nulls, which the API takes as absent, and measures collections. Long texts count as
/// collections, since comparing them takes as long.
fn prune(value: &mut serde_json::Value, longest: &mut u64) {
    let length = match value {
        serde_json::Value::Array(items) => {
            for item in items.iter_mut() {
                prune(item, longest);
            }
            items.len()
        }
        serde_json::Value::Object(map) => {
            map.retain(|_, item| !item.is_null());
            for item in map.values_mut() {
                prune(item, longest);
            }
            map.len()
        }
        serde_json::Value::String(text) => text.len() / 256,
        _ => 0,
    };
    *longest = (*longest).max(u64::try_from(length).unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> serde_json::Value {
        json!({
            "metadata": { "name": "p", "labels": { "tier": "batch" }, "annotations": null },
            "spec": {
                "containers": [{ "name": "a", "image": "r/a:1" }, { "name": "b" }],
                "priority": 7,
            },
        })
    }

    fn run(expression: &str, object: serde_json::Value) -> Result<bool, String> {
        let condition = Condition::compile("c", expression).map_err(|error| error.to_string())?;
        let labels = Labels::from([("team".to_owned(), "web".to_owned())]);
        let groups = ["system:authenticated".into()];
        let user = User { name: "jane", groups: &groups };
        let request = Request { namespace: "shop", labels: Some(&labels), user };
        Inputs::new(Some(object), &request).hold(&[condition]).map_err(|error| error.message)
    }

    #[test]
    fn expressions_read_the_object_the_namespace_and_the_request() {
        for (expression, holds) in [
            ("object.metadata.labels.tier == 'batch'", true),
            ("object.metadata.labels['tier'] == 'web'", false),
            ("has(object.metadata.annotations)", false),
            ("object.spec.containers.exists(c, c.name == 'b')", true),
            ("object.spec.containers.all(c, has(c.image))", false),
            ("size(object.spec.containers) == 2", true),
            ("namespaceObject.metadata.labels.team.startsWith('w')", true),
            ("namespaceObject.metadata.name == 'shop' && request.namespace == 'shop'", true),
            ("request.userInfo.username == 'jane'", true),
            ("'system:authenticated' in request.userInfo.groups", true),
            ("object.metadata.name.matches('^p$')", true),
            ("object.spec.priority + 1 == 8", true),
            ("!(type(object.metadata.name) == string)", false),
        ] {
            assert_eq!(run(expression, pod()), Ok(holds), "{expression}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_when_it_is_read() {
        for (expression, part) in [
            ("object.metadata.", "is not CEL"),
            ("pod.metadata.name == 'a'", "uses \"pod\"; there are object, request and"),
            (&"x".repeat(3000), "has 3000 bytes"),
            (&"(".repeat(1500), "nests too deep"),
            (&"!".repeat(1500), "nests too deep"),
            (&"object.a".repeat(250), "nests too deep"),
            (&"(".repeat(20), "is not CEL"),
            (
                "object.a.all(a, object.a.all(b, object.a.all(c, object.a.all(d, a == d))))",
                "steps for lists of 32 elements",
            ),
        ] {
            let error = run(expression, pod()).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_fails_on_an_object_says_so_and_a_false_outweighs_it() {
        for (expression, part) in [
            ("object.metadata.labels.app == 'a'", "No such key: app"),
            ("size(object.spec.containers)", "not true or false"),
            ("object.metadata.labels.tier < 3", ""),
        ] {
            let error = run(expression, pod()).unwrap_err();
            assert!(error.contains(part), "{expression}: {error}");
        }
        let deep = format!("{}true{}", "(".repeat(DEEPEST), ")".repeat(DEEPEST));
        assert_eq!(run(&deep, pod()), Ok(true));
        assert_eq!(run(&("!".repeat(DEEPEST * 4) + "true"), pod()), Ok(true));
        let twice = "object.l.all(a, object.l.all(b, a == b))";
        assert_eq!(run(twice, json!({ "l": [1, 1] })), Ok(true));
        let long: Vec<u32> = vec![1; 1000];
        let error = run(twice, json!({ "l": long })).unwrap_err();
        assert!(error.contains("for a list of 1000 elements, at most"), "{error}");

        let compile = |expression| Condition::compile("c", expression).unwrap();
        let both = [compile("object.nothing == 1"), compile("false")];
        let request = Request { namespace: "shop", labels: None, user: User::default() };
        let inputs = Inputs::new(Some(pod()), &request);
        assert_eq!(inputs.hold(&both), Ok(false));
        assert_eq!(inputs.hold(&both[..1]).unwrap_err().condition, Arc::from("c"));
    }
}
