//! The connections to the socket: taken in, bounded, and ended.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use peerage_proto::api::{ApiError, ErrorCode};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::patient::Patient;
use super::peer::{Peer, agent_uid};
use super::places::{Places, Size, Taken};
use super::request::REFUSED_BYTES_MAX;
use super::socket::Socket;
use super::tell::refused;

/// How many connections are open at once: 512.
const CONNECTIONS: Size = Size { own: 64, rest: 384 };

/// How many further callers are told at once that there is no place, and for how long each may
/// listen. A caller beyond those is disconnected without a word.
const REFUSALS: Size = Size { own: 4, rest: 32 };
const REFUSING_MAX: Duration = Duration::from_secs(2);

/// How often the log tells that callers were refused.
const REFUSED_TOLD_EVERY: Duration = Duration::from_secs(60);

/// How long a request's head may take to arrive, and a connection may idle between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a caller may read nothing of an answer that is there for it.
const STALL_MAX: Duration = Duration::from_secs(30);

/// How many bytes are buffered for each of the 512 connections.
const BUFFER_BYTES: usize = 32 * 1024;

/// How long requests under way may take to end once the agent stops.
const GRACE: Duration = Duration::from_secs(5);

/// How long to pause when the host has no more files to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the router on the socket until `shutdown`, then lets requests under way end, for five
/// seconds at most, and takes the socket's file away.
pub async fn serve(socket: Socket, router: Router, shutdown: CancellationToken) {
    let places = Places::new(CONNECTIONS, agent_uid());
    let refusals = Places::new(REFUSALS, agent_uid());
    let mut refused = Refused::default();
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = socket.accept() => accepted,
        };
        let caller = stream.and_then(|stream| Ok((stream.peer_cred()?.uid(), stream)));
        let (uid, stream) = match caller {
            Ok(caller) => caller,
            Err(error) => {
                // If the descriptors are used up, a notice tells so.
                debug!(%error, "a connection could not be taken in");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match places.take(uid, 1) {
            Ok(place) => {
                let (router, shutdown) = (router.clone(), shutdown.clone());
                connections.spawn(async move {
                    match Peer::of(&stream) {
                        Ok(peer) => serve_one(stream, peer, router, shutdown).await,
                        Err(error) => debug!(%error, "a caller is not known"),
                    }
                    drop(place);
                });
            }
            Err(taken) => {
                refused.note(uid);
                if let Ok(place) = refusals.take(uid, 1) {
                    connections.spawn(async move {
                        refuse_one(stream, no_place(taken)).await;
                        drop(place);
                    });
                }
            }
        }
    }
    drop(socket);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, all_ended).await.is_err() {
        debug!("requests under way are cut off");
    }
}

async fn serve_one(stream: UnixStream, peer: Peer, router: Router, shutdown: CancellationToken) {
    let router = TowerToHyperService::new(router);
    let with_caller = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(Patient::new(stream, STALL_MAX)), with_caller);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection broke");
    }
}

fn no_place(taken: Taken) -> ApiError {
    let message = match taken.held {
        0 => "all places for connections to the agent are taken".to_owned(),
        held => format!("you have {held} connections to the agent, and may have no more now"),
    };
    let hint =
        "close some of them, or try again: places are shared out among the users of the host";
    ApiError::new(ErrorCode::Busy, message).hint(hint)
}

/// Answers the first request with why there is no place, and ends the connection.
async fn refuse_one(stream: UnixStream, why: ApiError) {
    let refuse = service_fn(move |request: hyper::Request<Incoming>| {
        let response = refused(&why);
        async move {
            drain(request.into_body()).await;
            Ok::<Response, Infallible>(response)
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(REFUSING_MAX).keep_alive(false);
    let answering = builder.serve_connection(TokioIo::new(stream), refuse);
    if timeout(REFUSING_MAX, answering).await.is_err() {
        debug!("one that was refused did not listen");
    }
}

/// Throws away the body that the caller sends, so that the caller gets to read the answer.
async fn drain(mut body: Incoming) {
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, |data| data.len());
        if length > REFUSED_BYTES_MAX {
            return;
        }
    }
}

/// The callers that found no place since the log last told of some.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    told: Option<Instant>,
}

impl Refused {
    fn note(&mut self, uid: u32) {
        self.count += 1;
        if self.told.is_none_or(|told| told.elapsed() >= REFUSED_TOLD_EVERY) {
            let count = self.count;
            warn!(
                count,
                uid,
                "users of this host have as many connections as they may have; more are refused"
            );
            *self = Self { count: 0, told: Some(Instant::now()) };
        }
    }
}
