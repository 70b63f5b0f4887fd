//! Fills in what an object does not say, as an API server does before it stores the object.
//!
//! The defaults are those of the schemas, so that an object from a file and the same object from a cluster are equal.

use serde_json::Value;

use super::crd::schema_of;
use super::schema::properties;

/// Removes nulls, which an API server treats as absent, and fills in the defaults of the kind's schema.
pub fn complete(kind: &str, object: &mut Value) {
    prune_nulls(object);
    if let Some(schema) = schema_of(kind) {
        set_defaults(schema, object);
    }
}

fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, v| !v.is_null());
            object.values_mut().for_each(prune_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}

fn set_defaults(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (name, nested) in properties(schema) {
                if let Some(default) = nested.get("default").filter(|_| !object.contains_key(name))
                {
                    object.insert(name.clone(), default.clone());
                }
                if let Some(field) = object.get_mut(name) {
                    set_defaults(nested, field);
                }
            }
            if let Some(nested) = schema.get("additionalProperties") {
                object.values_mut().for_each(|v| set_defaults(nested, v));
            }
        }
        Value::Array(list) => {
            if let Some(nested) = schema.get("items") {
                for item in list {
                    set_defaults(nested, item);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn completed(kind: &str, mut object: Value) -> Value {
        complete(kind, &mut object);
        object
    }

    #[test]
    fn an_empty_object_gets_the_top_level_defaults() {
        let budgets = json!([{"nodes": "10%"}]);
        let disruption = json!({
            "budgets": budgets, "consolidateAfter": "0s", "consolidationPolicy": "WhenEmptyOrUnderutilized",
        });
        assert_eq!(
            completed("NodePool", json!({"spec": {}})),
            json!({"spec": {"disruption": disruption}})
        );
    }

    #[test]
    fn defaults_reach_into_lists_and_replace_nulls() {
        let claim = json!({"spec": {"expireAfter": null, "taints": [{"key": "a", "value": null}]}});
        let expected = json!({"spec": {"expireAfter": "720h", "taints": [{"key": "a"}]}});
        assert_eq!(completed("NodeClaim", claim), expected);
        let pool = json!({"spec": {"disruption": {"consolidateAfter": "Never", "budgets": [{}, {"nodes": "0"}]}}});
        let pool = completed("NodePool", pool);
        assert_eq!(
            pool["spec"]["disruption"]["budgets"],
            json!([{"nodes": "10%"}, {"nodes": "0"}])
        );
        assert_eq!(pool["spec"]["disruption"]["consolidateAfter"], "Never");
    }

    #[test]
    fn what_is_written_stays() {
        let class = json!({"spec": {"metadataOptions": {"httpPutResponseHopLimit": 2}}});
        let class = completed("EC2NodeClass", class);
        let expected = json!({
            "httpEndpoint": "enabled", "httpProtocolIPv6": "disabled", "httpPutResponseHopLimit": 2,
            "httpTokens": "required",
        });
        assert_eq!(class["spec"]["metadataOptions"], expected);
        assert_eq!(completed("Deployment", json!({"a": 1})), json!({"a": 1}));
    }
}
