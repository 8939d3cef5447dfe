//! How a stream ended, as the `Status` object that clients expect on its last channel.

use serde_json::json;

/// Exit code 0.
pub(crate) fn success() -> String {
    json!({ "metadata": {}, "status": "Success" }).to_string()
}

/// How a command ended by its exit code.
pub(crate) fn exited(code: i32) -> String {
    if code == 0 {
        return success();
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit code {code}"),
        "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
    .to_string()
}

/// The stream could not be, or broke off.
pub(crate) fn failed(why: &str) -> String {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {why}"),
        "reason": "InternalError",
        "details": { "causes": [{ "message": why }] },
        "code": 500,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

    use super::*;

    #[test]
    fn clients_find_the_exit_code() {
        let status: Status = serde_json::from_str(&exited(3)).unwrap();
        let causes = status.details.unwrap().causes.unwrap();
        assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
        assert_eq!(causes[0].reason.as_deref(), Some("ExitCode"));
        assert_eq!(causes[0].message.as_deref(), Some("3"));
        let status: Status = serde_json::from_str(&exited(0)).unwrap();
        assert_eq!(status.status.as_deref(), Some("Success"));
    }
}
