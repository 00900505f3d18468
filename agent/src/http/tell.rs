//! How an answer of each shape is told over HTTP.

use std::future::Future;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, ETAG, HeaderValue};
use axum::response::{IntoResponse, Response};
use peerage_proto::api::{ApiError, Item, Large, Listed, Operation, Output, Part, Streamed, Whole};
use tokio::sync::OwnedSemaphorePermit;

use super::places::Place;
use super::request::By;
use super::room::{Room, json};
use super::stream::Streams;
use crate::api::{Due, Form, Items, List};

/// What it takes to tell answers: the room that all answers share, and the places for streams.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) room: Room,
    pub(super) streams: Streams,
}

/// An answer that can be told over HTTP.
pub(super) trait Tell: Form {
    /// What must be obtained before the operation is served.
    type Ready: Send;

    /// Obtains it from the share of this user of the host.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`](peerage_proto::api::ErrorCode::Busy).
    fn ready(means: &Means, uid: u32)
    -> impl Future<Output = Result<Self::Ready, ApiError>> + Send;

    /// The response.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`](peerage_proto::api::ErrorCode::Busy), where there is no room for it.
    fn tell<O: Operation<Answer = Self>>(
        means: &Means,
        by: &By,
        ready: Self::Ready,
        reply: Self::Reply,
    ) -> impl Future<Output = Result<Response, ApiError>> + Send;
}

impl<T: Part> Tell for Whole<T> {
    type Ready = ();

    async fn ready(_: &Means, _: u32) -> Result<(), ApiError> {
        Ok(())
    }

    async fn tell<O: Operation<Answer = Self>>(
        means: &Means,
        by: &By,
        (): (),
        output: T,
    ) -> Result<Response, ApiError> {
        let mut bytes = json(&output);
        // The line break is for readers in a terminal.
        bytes.push(b'\n');
        // The answer to a write is told, however large it is.
        let body = match O::METHOD.only_looks() {
            true => means.room.whole(by.uid, bytes)?,
            false => Body::from(bytes),
        };
        Ok(answered::<O>(&output, body))
    }
}

impl<T: Part> Tell for Large<T> {
    type Ready = ();

    async fn ready(_: &Means, _: u32) -> Result<(), ApiError> {
        Ok(())
    }

    async fn tell<O: Operation<Answer = Self>>(
        means: &Means,
        by: &By,
        (): (),
        due: Due<T>,
    ) -> Result<Response, ApiError> {
        let (body, output) = means.room.one(by.uid, due).await?;
        Ok(answered::<O>(&output, body))
    }
}

impl<T: Item> Tell for Listed<T> {
    /// The permit to look. It is kept until what was seen is counted.
    type Ready = OwnedSemaphorePermit;

    async fn ready(means: &Means, _: u32) -> Result<OwnedSemaphorePermit, ApiError> {
        Ok(means.room.look().await)
    }

    async fn tell<O: Operation<Answer = Self>>(
        means: &Means,
        by: &By,
        looking: OwnedSemaphorePermit,
        list: List<T>,
    ) -> Result<Response, ApiError> {
        let held = means.room.take(by.uid, list.held_bytes())?;
        drop(looking);
        let sight = by.sight();
        let shows = move |item: &T| sight.shows(item);
        let body = means.room.list(by.uid, list, shows, held).await?;
        Ok(in_json(StatusCode::OK, body))
    }
}

impl<T: Item> Tell for Streamed<T> {
    /// The place of the stream.
    type Ready = Place;

    async fn ready(means: &Means, uid: u32) -> Result<Place, ApiError> {
        means.streams.place(uid)
    }

    async fn tell<O: Operation<Answer = Self>>(
        means: &Means,
        by: &By,
        place: Place,
        items: Items<T>,
    ) -> Result<Response, ApiError> {
        Ok(means.streams.response(by.clone(), place, items))
    }
}

fn answered<O: Operation>(output: &Output<O>, body: Body) -> Response {
    let status = StatusCode::from_u16(O::status(output)).expect("the api names only real statuses");
    let mut response = in_json(status, body);
    // A stamp is ASCII. If it cannot stand in a header, leaving it out is better than refusing the
    // answer.
    if let Some(tag) =
        O::stamp(output).and_then(|stamp| HeaderValue::try_from(format!("\"{stamp}\"")).ok())
    {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// The response that tells why there is no answer.
pub(super) fn refused(error: &ApiError) -> Response {
    let mut bytes = json(error);
    bytes.push(b'\n');
    let status = StatusCode::from_u16(error.code.http_status());
    in_json(status.expect("the api names only real statuses"), Body::from(bytes))
}

fn in_json(status: StatusCode, body: Body) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}
