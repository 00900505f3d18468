//! The agent that front ends ask.

use std::sync::Arc;

use peerage_proto::api::{ApiError, ErrorCode};

use super::Answer;
use crate::host::links::LinksHandle;
use crate::node::Node;

/// What the operations of one node are served with.
#[derive(Clone)]
pub struct Agent {
    pub(super) node: Arc<Node>,
    pub(super) links: LinksHandle,
}

impl Agent {
    /// The operations of this node, with its links.
    pub fn new(node: Arc<Node>, links: LinksHandle) -> Self {
        Self { node, links }
    }
}

/// Runs work that must be finished once it is begun, also when the caller hangs up.
pub(super) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Answer<T>> + Send + 'static,
) -> Answer<T> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| {
        Err(ApiError::new(ErrorCode::Internal, format!("the agent failed at it: {error}"))
            .hint("its journal tells more"))
    })
}
