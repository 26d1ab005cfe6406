//! Ends a session on which nothing moves any more.

use std::sync::Arc;
use std::time::Duration;

use super::SessionError;
use super::core::Shared;

/// Looks again and again, until the session has to end.
pub(super) async fn watch(shared: &Arc<Shared>) -> SessionError {
    let shortest = shared.options.watchdog.min(shared.options.request);
    let pause = (shortest / 8).clamp(Duration::from_millis(1), Duration::from_secs(1));
    loop {
        tokio::time::sleep(pause).await;
        if let Err(error) = shared.check() {
            return error;
        }
    }
}
