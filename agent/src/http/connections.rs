//! The connections to the socket: taken in, bounded, and ended.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::peer::Peer;
use super::socket::Socket;

/// How many connections are open at once. One more is closed as soon as it is made.
const CONNECTIONS_MAX: usize = 512;

/// How many of them one user other than root has, so that no user keeps the others out.
const CONNECTIONS_PER_USER_MAX: usize = 128;

/// How long a request's head may take to arrive, and a connection may idle between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long requests under way may take to end once the agent stops.
const GRACE: Duration = Duration::from_secs(5);

/// How long to pause when the host has no more files to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the router on the socket until `shutdown`, then lets requests under way end, for five
/// seconds at most, and takes the socket's file away. `group` is the name of the group whose
/// members may write.
pub async fn serve(socket: Socket, router: Router, group: String, shutdown: CancellationToken) {
    let places = Places::default();
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = socket.accept() => accepted,
        };
        match stream.and_then(|stream| Peer::of(&stream, &group).map(|peer| (stream, peer))) {
            Ok((stream, peer)) => match places.take(peer.caller.uid) {
                Some(place) => {
                    let serving = serve_one(stream, peer, router.clone(), shutdown.clone());
                    connections.spawn(async move {
                        serving.await;
                        drop(place);
                    });
                }
                None => warn!(caller = %peer.caller, "too many connections: one more is closed"),
            },
            Err(error) => {
                // That the descriptors are used up is told as a notice.
                debug!(%error, "a connection could not be taken in");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(socket);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_ended).await.is_err() {
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
        .serve_connection(TokioIo::new(stream), with_caller);
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

/// Who holds how many connections.
#[derive(Debug, Clone, Default)]
struct Places {
    taken: Arc<Mutex<HashMap<u32, usize>>>,
}

impl Places {
    /// A place for this user, given back when it is dropped; `None` when there is none left.
    fn take(&self, uid: u32) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(&uid).copied().unwrap_or(0);
        if all >= CONNECTIONS_MAX || (uid != 0 && own >= CONNECTIONS_PER_USER_MAX) {
            return None;
        }
        taken.insert(uid, own + 1);
        Some(Place { places: self.clone(), uid })
    }
}

#[derive(Debug)]
struct Place {
    places: Places,
    uid: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.uid) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.remove(&self.uid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_keeps_the_others_out() {
        let places = Places::default();
        let mut held: Vec<_> =
            (0..CONNECTIONS_PER_USER_MAX).map(|_| places.take(1000).unwrap()).collect();
        assert!(places.take(1000).is_none());
        assert!(places.take(1001).is_some());
        held.pop();
        assert!(places.take(1000).is_some());
    }

    #[test]
    fn places_are_given_back() {
        let places = Places::default();
        let held: Vec<_> = (0..CONNECTIONS_MAX).map(|_| places.take(0).unwrap()).collect();
        assert!(places.take(0).is_none() && places.take(7).is_none());
        drop(held);
        assert!(places.taken.lock().unwrap().is_empty());
    }
}
