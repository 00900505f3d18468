//! The routes: one line for each operation, and one way through all of them.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, ETAG, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use peerage_proto::access::{Action, Caller};
use peerage_proto::api::events::{FollowEvents, WatchSettings};
use peerage_proto::api::invites::{CreateInvite, Inspect, ListInvites, RevokeInvite};
use peerage_proto::api::links::{GetLinks, GetNodeLinks, ResetLinks, SetLinks};
use peerage_proto::api::members::{AcceptMember, ListLag, ListMembers, RemoveMember, RenameMember};
use peerage_proto::api::node::{Create, GetStatus, Join, Leave, Meet, ResetIdentity};
use peerage_proto::api::settings::{
    CompactSettings, GetDocument, GetHistory, ListConflicts, ListDocuments, RemoveDocument, Revert,
    SetFields,
};
use peerage_proto::api::{ApiError, ErrorCode, Method, Operation, ROOT, StreamOperation};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::request::{Received, receive};
use super::room::{Room, json};
use super::stream::Streams;
use crate::api::{Answer, Due, Items, List, Service};

/// The routes over this service. Streams end at `shutdown`.
///
/// A request must carry its caller as an extension, which [`serve`](super::serve) sees to.
pub fn router<S: Service>(service: Arc<S>, shutdown: CancellationToken) -> Router {
    let room = Room::new();
    let streams = Streams::new(room.clone(), shutdown);
    Routes { router: Router::new(), service, room, streams }
        .answer(|s, by, r: GetStatus| async move { s.status(&by, r).await })
        .answer(|s, by, r: Create| async move { s.create(&by, r).await })
        .answer(|s, by, r: Join| async move { s.join(&by, r).await })
        .answer(|s, by, r: Meet| async move { s.meet(&by, r).await })
        .answer(|s, by, r: Leave| async move { s.leave(&by, r).await })
        .answer(|s, by, r: ResetIdentity| async move { s.reset_identity(&by, r).await })
        .list(|s, by, r: ListMembers| async move { s.members(&by, r).await })
        .answer(|s, by, r: RenameMember| async move { s.rename(&by, r).await })
        .answer(|s, by, r: AcceptMember| async move { s.accept(&by, r).await })
        .answer(|s, by, r: RemoveMember| async move { s.remove(&by, r).await })
        .list(|s, by, r: ListLag| async move { s.lag(&by, r).await })
        .answer(|s, by, r: GetLinks| async move { s.links(&by, r).await })
        .answer(|s, by, r: GetNodeLinks| async move { s.node_links(&by, r).await })
        .answer(|s, by, r: SetLinks| async move { s.set_links(&by, r).await })
        .answer(|s, by, r: ResetLinks| async move { s.reset_links(&by, r).await })
        .answer(|s, by, r: CreateInvite| async move { s.invite(&by, r).await })
        .list(|s, by, r: ListInvites| async move { s.invites(&by, r).await })
        .answer(|s, by, r: RevokeInvite| async move { s.revoke(&by, r).await })
        .answer(|s, by, r: Inspect| async move { s.inspect(&by, r).await })
        .list(|s, by, r: ListDocuments| async move { s.documents(&by, r).await })
        .one(|s, by, r: GetDocument| async move { s.document(&by, r).await })
        .answer(|s, by, r: SetFields| async move { s.set(&by, r).await })
        .answer(|s, by, r: RemoveDocument| async move { s.remove_document(&by, r).await })
        .answer(|s, by, r: Revert| async move { s.revert(&by, r).await })
        .list(|s, by, r: GetHistory| async move { s.history(&by, r).await })
        .list(|s, by, r: ListConflicts| async move { s.conflicts(&by, r).await })
        .answer(|s, by, r: CompactSettings| async move { s.compact(&by, r).await })
        .stream(|s, by, r: FollowEvents| async move { s.events(&by, r).await })
        .stream(|s, by, r: WatchSettings| async move { s.watch(&by, r).await })
        .router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
}

struct Routes<S> {
    router: Router,
    service: Arc<S>,
    room: Room,
    streams: Streams,
}

impl<S: Service> Routes<S> {
    /// Answers an operation with what `call` makes of it, which is small.
    fn answer<O, C, F>(self, call: C) -> Self
    where
        O: Operation,
        C: Fn(Arc<S>, Caller, O) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer<O::Output>> + Send,
    {
        let (service, room) = (self.service.clone(), self.room.clone());
        self.on::<O, _, _>(move |request| {
            let (service, room, call) = (service.clone(), room.clone(), call.clone());
            async move {
                let received = receive::<O>(request, &room).await?;
                let Received { caller, operation, .. } = received;
                let uid = caller.uid;
                let output = call(service, caller, operation).await?;
                let mut bytes = json(&output);
                // For those who read it in a terminal.
                bytes.push(b'\n');
                // What was done is told, however large the answer is.
                let body = match O::ACTION {
                    Action::Read => room.whole(uid, bytes)?,
                    Action::Write => Body::from(bytes),
                };
                Ok(answered::<O>(&output, body))
            }
        })
    }

    /// Answers an operation with one thing that may be large.
    fn one<O, C, F>(self, call: C) -> Self
    where
        O: Operation,
        C: Fn(Arc<S>, Caller, O) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer<Due<O::Output>>> + Send,
    {
        let (service, room) = (self.service.clone(), self.room.clone());
        self.on::<O, _, _>(move |request| {
            let (service, room, call) = (service.clone(), room.clone(), call.clone());
            async move {
                let received = receive::<O>(request, &room).await?;
                let Received { caller, operation, .. } = received;
                let uid = caller.uid;
                let due = call(service, caller, operation).await?;
                let (body, output) = room.one(uid, due).await?;
                Ok(answered::<O>(&output, body))
            }
        })
    }

    /// Answers an operation with a list, piece by piece.
    fn list<O, T, C, F>(self, call: C) -> Self
    where
        O: Operation<Output = Vec<T>>,
        T: Serialize + 'static,
        C: Fn(Arc<S>, Caller, O) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer<List<T>>> + Send,
    {
        let (service, room) = (self.service.clone(), self.room.clone());
        self.on::<O, _, _>(move |request| {
            let (service, room, call) = (service.clone(), room.clone(), call.clone());
            async move {
                let received = receive::<O>(request, &room).await?;
                let Received { caller, operation, .. } = received;
                let uid = caller.uid;
                let looking = room.look().await;
                let list = call(service, caller, operation).await?;
                let held = room.take(uid, list.held_bytes())?;
                drop(looking);
                let body = room.list(uid, list, held).await?;
                Ok(in_json(StatusCode::OK, body))
            }
        })
    }

    /// Answers an operation with the stream that `call` opens.
    fn stream<O, C, F>(self, call: C) -> Self
    where
        O: StreamOperation,
        C: Fn(Arc<S>, Caller, O) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer<Items<O::Output>>> + Send,
    {
        let (service, room) = (self.service.clone(), self.room.clone());
        let streams = self.streams.clone();
        self.on::<O, _, _>(move |request| {
            let (service, room, call) = (service.clone(), room.clone(), call.clone());
            let streams = streams.clone();
            async move {
                let received = receive::<O>(request, &room).await?;
                let Received { caller, operation, .. } = received;
                let uid = caller.uid;
                let place = streams.place(uid)?;
                let items = call(service, caller, operation).await?;
                Ok(streams.response::<O>(uid, place, items))
            }
        })
    }

    fn on<O, H, F>(mut self, handle: H) -> Self
    where
        O: Operation,
        H: Fn(Request) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response, ApiError>> + Send,
    {
        let filter = match O::METHOD {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Patch => MethodFilter::PATCH,
            Method::Delete => MethodFilter::DELETE,
        };
        let handler = move |request: Request| {
            let response = handle(request);
            async move { response.await.unwrap_or_else(|error| refused(&error)) }
        };
        self.router = self.router.route(&format!("{ROOT}{}", O::PATH), on(filter, handler));
        self
    }
}

fn answered<O: Operation>(output: &O::Output, body: Body) -> Response {
    let status = StatusCode::from_u16(O::status(output)).expect("the api names only real statuses");
    let mut response = in_json(status, body);
    // A stamp is ASCII; one that could not stand in a header is better left out than refused.
    if let Some(tag) =
        O::stamp(output).and_then(|stamp| HeaderValue::try_from(format!("\"{stamp}\"")).ok())
    {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

pub(super) fn refused(error: &ApiError) -> Response {
    let mut bytes = json(error);
    bytes.push(b'\n');
    let status = StatusCode::from_u16(error.code.http_status());
    in_json(status.expect("the api names only real statuses"), Body::from(bytes))
}

fn in_json(status: StatusCode, body: Body) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

async fn no_such_path(uri: Uri) -> Response {
    let message = format!("there is nothing at {}", uri.path());
    let hint = format!("try {ROOT}status, {ROOT}members or {ROOT}settings");
    refused(&ApiError::new(ErrorCode::NotFound, message).hint(hint))
}

async fn no_such_method(request: Request) -> Response {
    let message = format!("{} cannot be used on {}", request.method(), request.uri().path());
    let hint = "GET looks, POST does, PATCH changes, DELETE takes away";
    refused(&ApiError::new(ErrorCode::MethodNotAllowed, message).hint(hint))
}
