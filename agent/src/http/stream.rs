//! Streams of items as server-sent events (the HTML standard, section 9.2).

use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use peerage_proto::api::events::{HEARTBEAT, Told};
use peerage_proto::api::{ApiError, ErrorCode, Item};
use tokio_util::sync::CancellationToken;

use super::peer::agent_uid;
use super::places::{Place, Places, Size};
use super::request::By;
use super::room::Room;
use crate::api::{Items, Step};

/// How many streams are open at once: 128.
const STREAMS: Size = Size { own: 16, rest: 96 };

/// The places for streams, and the signal that ends all of them.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    places: Places,
    room: Room,
    shutdown: CancellationToken,
}

impl Streams {
    /// Places for streams that end at `shutdown`, and whose items take from this room.
    pub(super) fn new(room: Room, shutdown: CancellationToken) -> Self {
        Self { places: Places::new(STREAMS, agent_uid()), room, shutdown }
    }

    /// Takes a place for this user, which its holder keeps while the stream is open.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`]; the user has as many streams as it may have now.
    pub(super) fn place(&self, uid: u32) -> Result<Place, ApiError> {
        self.places.take(uid, 1).map_err(|taken| {
            let message = match taken.held {
                0 => "all places for streams are taken".to_owned(),
                held => format!("you follow {held} streams of the agent, and may follow no more now"),
            };
            let hint = "end some of them (`settings watch`, `events --follow`), or try again: places \
                        are shared out among the users of the host";
            ApiError::new(ErrorCode::Busy, message).hint(hint)
        })
    }

    /// The response that tells the items. It ends when the service, the reader or the agent ends
    /// it, or when there is no room for the next item.
    pub(super) fn response<T: Item>(&self, by: By, place: Place, items: Items<T>) -> Response {
        let telling = Telling { items, by, room: self.room.clone(), current: None, _place: place };
        let events = stream::unfold(telling, |mut telling| async move {
            let event = telling.next().await?;
            Some((Ok::<_, Infallible>(event), telling))
        });
        let events = events.take_until(self.shutdown.clone().cancelled_owned());
        Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
    }
}

/// A stream that is being told.
struct Telling<T> {
    items: Items<T>,
    by: By,
    room: Room,
    /// The room of the item that is being written out.
    current: Option<Place>,
    _place: Place,
}

impl<T: Item> Telling<T> {
    async fn next(&mut self) -> Option<Event> {
        // The connection asks for the next item once it has written the one before.
        self.current = None;
        let Step { id, told } = self.items.recv().await?;
        // A line break in an id would end the line early; ours have none, but a panic is no answer.
        let event = Event::default().id(id.replace(|c: char| c.is_control(), ""));
        let told = match told {
            // A reader ignores an event without data, but keeps its id.
            None => return Some(event),
            Some(Told::Gap(gap)) => Told::<T>::Gap(gap),
            Some(Told::Item(due)) => {
                self.current = Some(self.room.wait_for(self.by.uid, due.bytes()).await.ok()?);
                let item = due.make();
                // Rights may be taken away while the stream is open.
                if !self.by.sight().shows(&item) {
                    return Some(event);
                }
                Told::Item(item)
            }
        };
        Some(event.data(serde_json::to_string(&told).expect("outputs are maps with text keys")))
    }
}
