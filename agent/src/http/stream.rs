//! Streams of items as server-sent events (the HTML standard, section 9.2).

use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use peerage_proto::api::events::HEARTBEAT;
use peerage_proto::api::{ApiError, ErrorCode, StreamOperation};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::api::{Items, Step};

/// How many streams are open at once.
const STREAMS_MAX: usize = 128;

/// The places for streams, and the end of them all.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Streams {
    /// Places for streams that end at `shutdown`.
    pub(super) fn new(shutdown: CancellationToken) -> Self {
        Self { places: Arc::new(Semaphore::new(STREAMS_MAX)), shutdown }
    }

    /// Takes a place, which its holder keeps while the stream is open.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.places.clone().try_acquire_owned().map_err(|_| {
            let message = format!("all {STREAMS_MAX} places for streams are taken");
            ApiError::new(ErrorCode::Busy, message).hint("close another stream, or try later")
        })
    }

    /// The response that tells the items until the service, the reader or the agent ends it.
    pub(super) fn response<O: StreamOperation>(
        &self,
        place: OwnedSemaphorePermit,
        items: Items<O::Output>,
    ) -> Response {
        let events = stream::unfold((items, place), |(mut items, place)| async move {
            let step = items.recv().await?;
            Some((Ok::<_, Infallible>(event(&step)), (items, place)))
        });
        let events = events.take_until(self.shutdown.clone().cancelled_owned());
        Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
    }
}

fn event<T: Serialize>(step: &Step<T>) -> Event {
    // A line break in an id would end the line early; ours have none, but a panic is no answer.
    let event = Event::default().id(step.id.replace(|c: char| c.is_control(), ""));
    match &step.told {
        // An event without data is none to its reader, who keeps the id all the same.
        None => event,
        Some(told) => {
            event.data(serde_json::to_string(told).expect("outputs are maps with text keys"))
        }
    }
}
