//! The tasks of a membership, which all end with it.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

/// How long [`Tasks::stop`] waits for the tasks to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the tasks of one membership are spawned.
#[derive(Debug, Clone, Default)]
pub(super) struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// Runs a task for as long as the membership goes on.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            stop.run_until_cancelled_owned(task).await;
        });
    }

    /// Ends all tasks, and waits for them, up to [`STOP_TIMEOUT`].
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        if timeout(STOP_TIMEOUT, self.tracker.wait()).await.is_err() {
            warn!("some tasks of the membership are slow to end");
        }
    }
}
