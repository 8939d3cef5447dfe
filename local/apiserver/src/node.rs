//! What the node answers: logs and streams of containers, through its unix socket.

use crate::app::Call;
use crate::read;
use crate::respond::Reply;
use crate::status::{ApiError, ApiResult};

/// Forwards a request to the node that runs the pod.
pub(crate) async fn answer(call: &mut Call, subresource: &str) -> ApiResult<Reply> {
    read::find(call)?;
    Err(ApiError::unavailable(format!("no node serves {subresource}")))
}
