//! Once more after the connection broke: the pool makes another one.

use std::time::Duration;

use crate::location::Result;

/// How often something is tried.
pub(super) const TRIES: u32 = 3;
/// How long to wait before it is tried again, for each time that it failed.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// Does what may be done twice, and does it again where the connection broke.
///
/// # Errors
/// The last one, or the first that no other try makes better.
pub(super) async fn again<T, F: Future<Output = Result<T>>>(work: impl Fn() -> F) -> Result<T> {
    for failed in 1..TRIES {
        match work().await {
            Err(error) if error.is_transient() => tokio::time::sleep(PAUSE * failed).await,
            done => return done,
        }
    }
    work().await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;
    use crate::location::{LocationError, Op, Reason};

    #[tokio::test]
    async fn only_what_may_pass_is_tried_again() {
        for (reason, fails, tried, succeeds) in [
            (Reason::Lost, 1, 2, true),
            (Reason::Lost, 9, TRIES, false),
            (Reason::Denied, 1, 1, false),
        ] {
            let count = AtomicU32::new(0);
            let done = again(|| async {
                let failed = count.fetch_add(1, Relaxed) < fails;
                let error = || LocationError::new("p", Op::List, b"x", reason, "so it is");
                if failed { Err(error()) } else { Ok(()) }
            });
            assert_eq!(done.await.is_ok(), succeeds, "{reason:?}");
            assert_eq!(count.load(Relaxed), tried, "{reason:?}");
        }
    }
}
