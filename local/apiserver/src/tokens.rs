//! Tokens of service accounts.

use crate::app::Call;
use crate::respond::Reply;
use crate::status::{ApiError, ApiResult};

/// `POST serviceaccounts/NAME/token`.
pub(crate) async fn request(_call: &mut Call) -> ApiResult<Reply> {
    Err(ApiError::method_not_allowed())
}
