//! The same request for several objects.

use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{StreamExt as _, stream};

use crate::error::Result;

/// Requests that are under way at the same time.
const AT_ONCE: usize = 8;

/// Makes the request for all objects, a few at a time. Once one fails no other is begun, but those under way are waited
/// for: a request that is given up might still be granted, and nobody would know of it. Gives the first error.
pub(crate) async fn for_each<T, F: Future<Output = Result<()>>>(
    objects: impl IntoIterator<Item = T>,
    request: impl FnMut(T) -> F,
) -> Result<()> {
    let has_failed = AtomicBool::new(false);
    let begun = stream::iter(objects).take_while(|_| ready(!has_failed.load(Ordering::Relaxed)));
    let answers = begun.map(request).buffer_unordered(AT_ONCE);
    let answers = answers.inspect(|answer| {
        if answer.is_err() {
            has_failed.store(true, Ordering::Relaxed);
        }
    });
    answers.collect::<Vec<Result<()>>>().await.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::Error;

    #[tokio::test]
    async fn requests_are_made_until_one_fails_and_all_are_waited_for() {
        let (made, under_way, most) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let request = async |index: usize| {
            under_way.set(under_way.get() + 1);
            most.set(most.get().max(under_way.get()));
            tokio::task::yield_now().await;
            under_way.set(under_way.get() - 1);
            made.set(made.get() + 1);
            if index == 3 { Err(Error::OwnerUnseen { owner: "job/a".into() }) } else { Ok(()) }
        };
        assert!(for_each(4..100, request).await.is_ok());
        assert_eq!((made.take(), most.get()), (96, AT_ONCE));
        assert!(for_each(0..100, request).await.is_err());
        assert!((4..100).contains(&made.get()) && under_way.get() == 0, "{}", made.get());
    }
}
