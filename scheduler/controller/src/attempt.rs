//! One request to the API server: done, refused, or nobody knows.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

/// Longest that one request may take. What it asked for may still happen later.
const LONGEST: Duration = Duration::from_secs(10);

/// Why a request was not answered as wished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The server's answer, or the connection's end.
    #[error("{}", muster_machinery::hint::chain(.0))]
    Kube(#[from] kube::Error),
    /// No answer in time.
    #[error("the api server did not answer in time")]
    Late,
}

impl Failure {
    /// The status that the server answered.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Kube(kube::Error::Api(status)) => Some(status.code),
            Self::Kube(_) | Self::Late => None,
        }
    }

    /// Whether the server refused it: nothing has happened, nor will. Otherwise it may have, or may yet.
    pub(crate) fn is_refusal(&self) -> bool {
        // 408 is a server's or a proxy's own timeout; with 429 it asks to be asked again.
        self.code().is_some_and(|code| (400..500).contains(&code) && !matches!(code, 408 | 429))
    }
}

/// Makes a request with a deadline.
pub(crate) async fn attempt<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Failure> {
    match timeout(LONGEST, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Failure::Late),
    }
}
