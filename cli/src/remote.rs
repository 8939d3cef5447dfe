//! Commands that run in containers, by the API server's `exec`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::error::Error;

/// Copies until one side ends.
pub(crate) async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    // Who has gone away no longer wants the rest.
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

/// The exit code that the server tells of; an error if the command was not run.
pub(crate) fn exit_code(status: &Status) -> Result<u8, Error> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
    let code = causes.into_iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let code = code.and_then(|cause| cause.message.as_ref()?.parse::<u8>().ok());
    code.ok_or_else(|| {
        Error::new(status.message.clone().unwrap_or_else(|| "the command was not run".to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_exit_code_is_the_command_s() {
        let code = |status| exit_code(&serde_json::from_value(status).unwrap());
        assert_eq!(code(json!({"status": "Success"})).unwrap(), 0);
        let failed = json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated with non-zero exit code",
            "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}});
        assert_eq!(code(failed).unwrap(), 7);
        let broken = code(json!({"status": "Failure", "message": "no such container"})).unwrap_err();
        assert_eq!(broken.message(), "no such container");
    }
}
