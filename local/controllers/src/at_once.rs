//! The same request for several objects.

use futures::{StreamExt as _, stream};

use crate::error::Result;

/// Requests that are under way at the same time.
const AT_ONCE: usize = 8;

/// Makes the request for all objects, a few at a time, also when one fails: a request that is given up might still be
/// granted, and nobody would know of it. Gives the first error.
pub(crate) async fn for_each<T, F: Future<Output = Result<()>>>(
    objects: impl IntoIterator<Item = T>,
    request: impl FnMut(T) -> F,
) -> Result<()> {
    let answers: Vec<Result<()>> =
        stream::iter(objects).map(request).buffer_unordered(AT_ONCE).collect().await;
    answers.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::Error;

    #[tokio::test]
    async fn all_requests_are_made_and_the_first_error_is_given() {
        let (made, under_way, most) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let request = async |index: usize| {
            under_way.set(under_way.get() + 1);
            most.set(most.get().max(under_way.get()));
            tokio::task::yield_now().await;
            under_way.set(under_way.get() - 1);
            made.set(made.get() + 1);
            if index == 3 { Err(Error::OwnerUnseen { owner: "job/a".into() }) } else { Ok(()) }
        };
        assert!(for_each(0..100, request).await.is_err());
        assert_eq!((made.get(), most.get()), (100, AT_ONCE));
        assert!(for_each(0..3, request).await.is_ok());
    }
}
