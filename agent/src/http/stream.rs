//! Streams of items as server-sent events (the HTML standard, section 9.2).

use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use peerage_proto::api::events::HEARTBEAT;
use peerage_proto::api::{ApiError, ErrorCode, StreamOperation};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::peer::agent_uid;
use super::places::{Place, Places, Size};
use crate::api::{Items, Step};

/// How many streams are open at once: 128.
const STREAMS: Size = Size { own: 16, rest: 96 };

/// The places for streams, and the end of them all.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    places: Places,
    shutdown: CancellationToken,
}

impl Streams {
    /// Places for streams that end at `shutdown`.
    pub(super) fn new(shutdown: CancellationToken) -> Self {
        Self { places: Places::new(STREAMS, agent_uid()), shutdown }
    }

    /// Takes a place for this user, which its holder keeps while the stream is open.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`]; it follows as much as it may, as things stand.
    pub(super) fn place(&self, uid: u32) -> Result<Place, ApiError> {
        self.places.take(uid).map_err(|taken| {
            let message = match taken.held {
                0 => "all places for streams are taken".to_owned(),
                held => format!("you follow {held} streams of the agent, and may follow no more now"),
            };
            let hint = "end some of them (`settings watch`, `events --follow`), or try again: places \
                        are shared out among the users of the host";
            ApiError::new(ErrorCode::Busy, message).hint(hint)
        })
    }

    /// The response that tells the items until the service, the reader or the agent ends it.
    pub(super) fn response<O: StreamOperation>(
        &self,
        place: Place,
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
