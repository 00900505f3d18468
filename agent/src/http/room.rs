//! The room that bodies and answers take in memory, bounded together, whether or not anybody reads
//! them.
//!
//! A small answer is sent as it is. For an answer that can be large, room is taken before it is
//! made, and is given back once it was written out. A list is written piece by piece, so that it is
//! never in memory as a whole.

use std::io;
use std::iter::Peekable;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::{StreamExt, stream};
use peerage_proto::api::{ApiError, ErrorCode};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;

use super::peer::agent_uid;
use super::places::{Place, Places, Size, Taken};
use crate::api::{Due, List};

/// How many bytes of bodies and answers may be in memory at once: 96 MiB.
const BYTES: Size = Size { own: 16 << 20, rest: 64 << 20 };

/// How many bytes an answer may take without being counted: no more than its connection does.
const UNCOUNTED_BYTES: usize = 16 * 1024;

/// About how many bytes of a list are made at once; an item that is larger is made alone.
const PIECE_BYTES: usize = 16 * 1024;

/// How long an answer waits for room.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How many looks may be in memory at once that were not yet counted.
const LOOKS_MAX: usize = 4;

/// The room. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Room {
    bytes: Places,
    looks: Arc<Semaphore>,
}

impl Room {
    pub(super) fn new() -> Self {
        let looks = Arc::new(Semaphore::new(LOOKS_MAX));
        Self { bytes: Places::new(BYTES, agent_uid()), looks }
    }

    /// Takes room for so many bytes, at once or not at all.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`].
    pub(super) fn take(&self, uid: u32, bytes: usize) -> Result<Place, ApiError> {
        self.bytes.take(uid, bytes).map_err(no_room)
    }

    /// Takes more room beside what is held.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`]; what is held stays.
    pub(super) fn grow(&self, place: &mut Place, more: usize) -> Result<(), ApiError> {
        place.grow(more).map_err(no_room)
    }

    /// Takes room for so many bytes, as soon as there is some.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`], after five seconds.
    pub(super) async fn wait_for(&self, uid: u32, bytes: usize) -> Result<Place, ApiError> {
        self.bytes.take_within(WAIT_MAX, uid, bytes).await.map_err(no_room)
    }

    /// Waits for the permit to take a look. The caller counts what it saw before it gives the
    /// permit back.
    pub(super) async fn look(&self) -> OwnedSemaphorePermit {
        self.looks.clone().acquire_owned().await.expect("nobody closes it")
    }

    /// The body of an answer that is made already.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`], where it is large.
    pub(super) fn whole(&self, uid: u32, bytes: Vec<u8>) -> Result<Body, ApiError> {
        if bytes.len() <= UNCOUNTED_BYTES {
            return Ok(Body::from(bytes));
        }
        let place = self.take(uid, bytes.len())?;
        Ok(Body::from(counted(bytes, place)))
    }

    /// Makes one value, and the body that tells it; returns both.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`].
    pub(super) async fn one<T: Serialize>(
        &self,
        uid: u32,
        due: Due<T>,
    ) -> Result<(Body, T), ApiError> {
        let place = self.wait_for(uid, due.bytes()).await?;
        let mut bytes = Vec::with_capacity(due.bytes());
        let thing = due.make();
        write_json(&mut bytes, &thing);
        bytes.push(b'\n');
        Ok((Body::from(counted(bytes, place)), thing))
    }

    /// The body that tells those items of a list that `shows` admits, piece by piece. It breaks off
    /// where there is no room for the next piece for five seconds.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`], where there is no room for the first piece.
    pub(super) async fn list<T: Serialize + Send + 'static>(
        &self,
        uid: u32,
        list: List<T>,
        shows: impl Fn(&T) -> bool + Send + 'static,
        held: Place,
    ) -> Result<Body, ApiError> {
        let mut list = Writing {
            room: self.clone(),
            uid,
            items: list.into_iter().peekable(),
            shows,
            state: State::Before,
            _held: held,
        };
        let first = list.piece().await?;
        let rest = stream::try_unfold(list, |mut list| async move {
            let piece = list.piece().await.map_err(|error| io::Error::other(error.message))?;
            Ok::<_, io::Error>(piece.map(|piece| (piece, list)))
        });
        Ok(Body::from_stream(stream::iter(first.map(Ok)).chain(rest)))
    }
}

fn no_room(taken: Taken) -> ApiError {
    let message = match taken.held {
        0 => "the agent has as many answers in memory as it may, which nobody reads".to_owned(),
        held => format!(
            "{:.1} MB of what you asked for or sent are in the agent's memory, and there is no room \
             for more now",
            held as f64 / 1e6
        ),
    };
    let hint = "read the answers that are open, or close their connections; then try again";
    ApiError::new(ErrorCode::Busy, message).hint(hint)
}

/// How far a list was written.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Nothing was written.
    Before,
    /// Some items were written, and the end was not.
    Within,
    /// All of it was written.
    Behind,
}

/// A list that is being written.
struct Writing<T, F> {
    room: Room,
    uid: u32,
    items: Peekable<Box<dyn Iterator<Item = Due<T>> + Send>>,
    /// Whether an item is written.
    shows: F,
    state: State,
    /// The room of the items that were seen and not written yet.
    _held: Place,
}

impl<T: Serialize + Send, F: Fn(&T) -> bool> Writing<T, F> {
    /// The next piece; `None` after the last.
    async fn piece(&mut self) -> Result<Option<Bytes>, ApiError> {
        if self.state == State::Behind {
            return Ok(None);
        }
        let (mut bytes, mut place) = (Vec::new(), None::<Place>);
        let mut passed_over = 0;
        while let Some(due) = self.items.peek() {
            let more = due.bytes();
            let is_full = match &mut place {
                None => {
                    place = Some(self.room.wait_for(self.uid, more).await?);
                    false
                }
                Some(place) => bytes.len() + more > PIECE_BYTES || place.grow(more).is_err(),
            };
            if is_full {
                break;
            }
            let Some(due) = self.items.next() else { break };
            let item = due.make();
            if !(self.shows)(&item) {
                // An item that is not shown gives its room back.
                match &mut place {
                    Some(place) if !bytes.is_empty() => place.becomes(bytes.capacity()),
                    _ => place = None,
                }
                passed_over += more;
                if passed_over > PIECE_BYTES {
                    passed_over = 0;
                    // Other tasks get their turn, however many items are not shown.
                    yield_now().await;
                }
                continue;
            }
            // The JSON of an item takes a little more than the item itself.
            bytes.reserve(more + more / 16 + 64);
            bytes.push(if self.state == State::Before { b'[' } else { b',' });
            self.state = State::Within;
            write_json(&mut bytes, &item);
        }
        if self.items.peek().is_none() {
            bytes.extend_from_slice(if self.state == State::Before { b"[]\n" } else { b"]\n" });
            self.state = State::Behind;
        }
        Ok(Some(match place {
            Some(place) => counted(bytes, place),
            None => bytes.into(),
        }))
    }
}

/// Bytes that give their room back once they are written out.
fn counted(bytes: Vec<u8>, mut place: Place) -> Bytes {
    struct Counted {
        bytes: Vec<u8>,
        _place: Place,
    }
    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    // The room that was taken was an estimate.
    place.becomes(bytes.capacity());
    Bytes::from_owner(Counted { bytes, _place: place })
}

/// A value as JSON.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_json(&mut bytes, value);
    bytes
}

fn write_json(bytes: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(bytes, value).expect("outputs are maps with text keys");
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::time::Instant;

    use super::*;

    const USER: u32 = 1000;

    fn texts(count: usize, bytes: usize) -> List<String> {
        List::new(0, (0..count).map(move |_| Due::new(bytes, move || "x".repeat(bytes))))
    }

    async fn body_of(room: &Room, list: List<String>) -> Body {
        room.list(USER, list, |_| true, room.take(USER, 0).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_list_in_pieces_reads_as_one() {
        for (count, bytes) in [(0, 0), (1, 0), (1000, 100), (3, 1 << 20)] {
            let room = Room::new();
            let mut body = body_of(&room, texts(count, bytes)).await;
            let mut text = Vec::new();
            let mut largest = 0;
            while let Some(piece) = body.frame().await {
                let piece = piece.unwrap().into_data().unwrap();
                largest = largest.max(piece.len());
                text.extend_from_slice(&piece);
            }
            let read: Vec<String> = serde_json::from_slice(&text).unwrap();
            assert_eq!(read, vec!["x".repeat(bytes); count]);
            assert!(largest <= bytes + 2 * PIECE_BYTES, "{largest}");
            assert!(text.ends_with(b"\n"));
        }
    }

    #[tokio::test]
    async fn what_is_not_shown_is_left_out_and_takes_no_room() {
        let room = Room::new();
        // Together the large items take far more than there is room for.
        let large = (0..200).map(|_| Due::new(1 << 20, move || "x".repeat(1 << 20)));
        let [first, last] = ["first", "last"].map(|text| Due::made(text.to_owned()));
        let list = List::new(0, std::iter::once(first).chain(large).chain([last]));
        let shows = |text: &String| text.len() < 10;
        let body = room.list(USER, list, shows, room.take(USER, 0).unwrap()).await.unwrap();
        let text = body.collect().await.unwrap().to_bytes();
        assert_eq!(text, "[\"first\",\"last\"]\n".as_bytes());
        let list = texts(3, 100);
        let body = room.list(USER, list, |_| false, room.take(USER, 0).unwrap()).await.unwrap();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "[]\n".as_bytes());
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_that_nobody_reads_are_bounded_and_those_after_them_wait_and_break_off() {
        let room = Room::new();
        let mut unread = Vec::new();
        // A quarter of the rest holds fifteen such answers, with what each may take beside its
        // text.
        for _ in 0..14 {
            unread.push(body_of(&room, texts(9, 1 << 20)).await);
        }
        let began = Instant::now();
        let refused =
            room.list(USER, texts(9, 2 << 20), |_| true, room.take(USER, 0).unwrap()).await;
        let refused = refused.unwrap_err();
        assert_eq!((refused.code, began.elapsed()), (ErrorCode::Busy, WAIT_MAX));
        assert!(refused.message.starts_with("15."), "{refused}");
        assert!(room.take(0, 16 << 20).is_ok(), "root has its own");
        assert!(room.take(USER + 1, 8 << 20).is_ok(), "and another user what is left");

        // An answer that is read goes on.
        let mut reader = unread.pop().unwrap();
        drop(unread);
        let read = async {
            let mut length = 0;
            while let Some(frame) = reader.frame().await {
                length += frame.unwrap().into_data().unwrap().len();
            }
            length
        };
        assert!(read.await > 9 << 20);
    }
}
