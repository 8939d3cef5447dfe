//! JSON patch (RFC 6902) and JSON merge patch (RFC 7386), failing in the words Kubernetes uses.

use serde_json::Value;

use crate::decode::go_kind;

/// The most operations one JSON patch may have, as in Kubernetes.
pub const MAX_OPERATIONS: usize = 10_000;

/// The most bytes that the `copy` operations of one JSON patch may add, as in Kubernetes: a few of them double an
/// object often enough to fill any memory.
pub const MAX_COPIED_BYTES: usize = 3 << 20;

/// Why a patch cannot be applied; the variant decides the HTTP status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is no JSON of the right shape: 400 `BadRequest`.
    #[error("error decoding patch: {0}")]
    Malformed(String),
    /// The operations do not fit the object or a `test` failed: 422 `Invalid`, with this generic message.
    /// `cause` says more and goes to the log.
    #[error("the server rejected our request due to an error in our request")]
    Rejected {
        /// What exactly failed.
        cause: String,
    },
    /// Too many operations: 413 `RequestEntityTooLarge`.
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
}

impl PatchError {
    /// The HTTP status code of the answer.
    pub fn code(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::Rejected { .. } => 422,
            Self::TooManyOperations(_) => 413,
        }
    }

    /// The `reason` of the answer.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "BadRequest",
            Self::Rejected { .. } => "Invalid",
            Self::TooManyOperations(_) => "RequestEntityTooLarge",
        }
    }
}

/// Applies the JSON patch in `patch` (the request's bytes) to `object`. On error `object` is unchanged.
pub fn apply_json_patch(object: &mut Value, patch: &[u8]) -> Result<(), PatchError> {
    let parsed: Value =
        serde_json::from_slice(patch).map_err(|error| PatchError::Malformed(error.to_string()))?;
    let Value::Array(operations) = &parsed else {
        let kind = go_kind(&parsed);
        return Err(PatchError::Malformed(format!(
            "json: cannot unmarshal {kind} into Go value of type jsonpatch.Patch"
        )));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    let mut patched = object.clone();
    let mut copied = 0;
    for operation in operations {
        copied += copied_bytes(&patched, operation);
        if copied > MAX_COPIED_BYTES {
            let cause = format!("the copies of the patch exceed {MAX_COPIED_BYTES} bytes");
            return Err(PatchError::Rejected { cause });
        }
        apply_operation(&mut patched, operation)?;
    }
    *object = patched;
    Ok(())
}

/// What a `copy` adds to the object.
fn copied_bytes(object: &Value, operation: &Value) -> usize {
    let text = |key: &str| operation.get(key).and_then(Value::as_str);
    let from = text("from").filter(|_| text("op") == Some("copy"));
    from.and_then(|from| object.pointer(from)).map_or(0, |value| value.to_string().len())
}

/// Applies one operation. A `test` for null also holds for an absent field, which clients rely on
/// when they add the first finalizer.
fn apply_operation(object: &mut Value, operation: &Value) -> Result<(), PatchError> {
    if operation.get("op").and_then(Value::as_str) == Some("test")
        && operation.get("value").is_none_or(Value::is_null)
        && let Some(path) = operation.get("path").and_then(Value::as_str)
        && object.pointer(path).is_none()
    {
        return Ok(());
    }
    let rejected = |cause: String| PatchError::Rejected { cause };
    let one = Value::Array(vec![operation.clone()]);
    let patch: json_patch::Patch =
        serde_json::from_value(one).map_err(|error| rejected(error.to_string()))?;
    json_patch::patch(object, &patch).map_err(|error| rejected(error.to_string()))
}

/// Applies the JSON merge patch in `patch` (the request's bytes) to `object`.
pub fn apply_merge_patch(object: &mut Value, patch: &[u8]) -> Result<(), PatchError> {
    let patch: Value =
        serde_json::from_slice(patch).map_err(|error| PatchError::Malformed(error.to_string()))?;
    if !patch.is_object() {
        let kind = go_kind(&patch);
        return Err(PatchError::Malformed(format!(
            "json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
        )));
    }
    json_patch::merge(object, &patch);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn copies_cannot_fill_the_memory() {
        let mut object = json!({"data": {"a": "x".repeat(1000)}});
        let before = object.clone();
        let double = |turn| json!({"op": "copy", "from": "/data", "path": format!("/data/more{turn}")});
        let patch = Value::Array((0..40).map(double).collect()).to_string();
        let refused = apply_json_patch(&mut object, patch.as_bytes()).unwrap_err();
        assert_eq!((refused.code(), &object), (422, &before));
        let once = json!([{"op": "copy", "from": "/data/a", "path": "/data/b"}]).to_string();
        apply_json_patch(&mut object, once.as_bytes()).unwrap();
        assert_eq!(object["data"]["b"], object["data"]["a"]);
    }

    #[test]
    fn failed_test_and_unknown_operation_are_rejected_and_change_nothing() {
        for patch in [
            json!([{"op": "test", "path": "/data/b", "value": "9"}, {"op": "remove", "path": "/data/b"}]),
            json!([{"op": "remove", "path": "/data/b"}, {"op": "remove", "path": "/data/nope"}]),
            json!([{"op": "bogus", "path": "/"}]),
        ] {
            let mut object = json!({"data": {"b": "2"}});
            let error = apply_json_patch(&mut object, patch.to_string().as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), "the server rejected our request due to an error in our request");
            assert_eq!((error.code(), error.reason()), (422, "Invalid"));
            assert_eq!(object, json!({"data": {"b": "2"}}));
        }
    }

    #[test]
    fn test_for_null_holds_for_an_absent_field() {
        let mut object = json!({"metadata": {}});
        let patch = json!([
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": ["a"]}
        ]);
        apply_json_patch(&mut object, patch.to_string().as_bytes()).unwrap();
        assert_eq!(object, json!({"metadata": {"finalizers": ["a"]}}));
    }

    #[test]
    fn merge_patch_wants_an_object() {
        let mut object = json!({"a": 1});
        let error = apply_merge_patch(&mut object, b"[]").unwrap_err();
        assert_eq!(
            error.to_string(),
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        );
        apply_merge_patch(&mut object, br#"{"a":null,"c":3}"#).unwrap();
        assert_eq!(object, json!({"c": 3}));
    }
}
