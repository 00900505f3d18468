//! Serves connections that other hosts begin, each from its first packet to its hello, or to the
//! end of a join. The door decides who gets a place for that.
//!
//! Until a caller has shown who it is, it may send only little before this node reads it.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Incoming, ServerConfig, VarInt};
use tokio::time::timeout;

use peerage_proto::id::NodeId;
use peerage_proto::links::canonical;
use peerage_proto::wire::{ALPN_JOIN, ALPN_MEMBER, CloseCode, RefusalCode};

use super::door::{Door, Open, Place};
use super::endpoint::{
    Accepting, RECEIVE_WINDOW_BYTES, SESSIONS_PER_PEER_MAX, STREAMS_IN_PER_PEER_MAX,
};
use super::hello::{GreetError, HELLO_TIMEOUT, welcome};
use super::peer::Peer;
use super::pool::Pool;
use super::router::IncomingJoin;
use super::tls;

/// Connections in all, those of members and others.
const CONNECTIONS_MAX: usize = 8192;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a join may last.
const JOIN_TIME_MAX: Duration = Duration::from_secs(60);

/// Accepts connections until the endpoint is closed.
pub(super) async fn accept(pool: Arc<Pool>, accepting: Accepting) {
    let door = Arc::new(Door::new());
    let endpoint = pool.dialler.endpoint.clone();
    while let Some(incoming) = endpoint.accept().await {
        let address = canonical(incoming.remote_address()).ip();
        let is_proven = incoming.remote_address_validated();
        if !is_proven && door.is_crowded(address) && incoming.may_retry() {
            // `may_retry` was checked above, so this cannot fail.
            let _ = incoming.retry();
            continue;
        }
        let room = endpoint.open_connections() < CONNECTIONS_MAX;
        // Only members bring packets over a detour.
        let is_detour = pool.detours.at(incoming.remote_address()).is_some();
        let is_members = || is_detour || pool.gate.is_members(address);
        match door.enter(address, is_members).filter(|_| room) {
            Some((place, open)) => {
                pool.counters.handshakes_in.add(1);
                let settings = accepting.one(open.clone());
                let handshake =
                    handshake(pool.clone(), door.clone(), incoming, settings, place, open);
                tokio::spawn(handshake);
            }
            None => {
                pool.counters.handshakes_shed.add(1);
                tracing::debug!(%address, "a handshake was turned away: too many");
                incoming.refuse();
            }
        }
    }
}

async fn handshake(
    pool: Arc<Pool>,
    door: Arc<Door>,
    incoming: Incoming,
    settings: Arc<ServerConfig>,
    place: Place,
    open: Arc<Open>,
) {
    let remote = canonical(incoming.remote_address());
    let connecting = async { incoming.accept_with(settings)?.await };
    let connected = place.hold(timeout(HANDSHAKE_TIMEOUT, connecting));
    let connection = match connected.await {
        Some(Ok(Ok(connection))) => connection,
        Some(Ok(Err(error))) => return tracing::debug!(%remote, %error, "a handshake failed"),
        Some(Err(_)) => return tracing::debug!(%remote, "a handshake took too long"),
        None => return tracing::debug!(%remote, "a handshake gave its place to another source"),
    };
    let Some(peer) = tls::peer_of(&connection) else {
        return connection.close(CloseCode::Protocol.number().into(), b"no key was shown");
    };
    match tls::alpn_of(&connection).as_deref() {
        Some(ALPN_MEMBER) => member(&pool, connection, peer, place, &open).await,
        Some(ALPN_JOIN) => {
            drop(place);
            join(&pool, &door, connection, peer, open).await;
        }
        _ => connection.close(CloseCode::Protocol.number().into(), b"no protocol was agreed"),
    }
}

/// Gives a peer that is welcome what a member may send at once.
fn trust(connection: &Connection) {
    connection.set_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES));
    connection.set_max_concurrent_bi_streams(SESSIONS_PER_PEER_MAX.into());
    connection.set_max_concurrent_uni_streams(STREAMS_IN_PER_PEER_MAX.into());
}

async fn member(pool: &Arc<Pool>, connection: Connection, peer: NodeId, place: Place, open: &Open) {
    let welcomed = place.hold(welcome(&connection, peer, pool.own, &*pool.gate, trust)).await;
    let Some(welcomed) = welcomed else {
        let reason = b"too many callers have not said who they are, try again";
        return connection.close(CloseCode::Busy.number().into(), reason);
    };
    drop(place);
    if welcomed.is_ok() {
        open.prove();
    }
    match welcomed {
        // The caller only wanted to know who is here, and hangs up.
        Ok(greeted) if greeted.hello.only_looks => {
            if timeout(HELLO_TIMEOUT, connection.closed()).await.is_err() {
                connection.close(CloseCode::TooSlow.number().into(), b"looked for long enough");
            }
        }
        Ok(greeted) => pool.install(Peer::new(
            peer,
            connection,
            greeted,
            false,
            pool.counters.clone(),
            pool.detours.clone(),
        )),
        Err(error) => {
            pool.counters.refused.add(1);
            let remote = pool.detours.path(connection.remote_address());
            let (id, peer) = (peer, peer.short());
            match error {
                // The peer gave this connection up for another one, or stopped, or this node is in
                // no Data Center.
                GreetError::Connection(_) | GreetError::Standalone => {
                    tracing::debug!(%peer, %remote, %error, "a peer hung up at the door");
                }
                // This node has left its Data Center, and a member that has not heard of that yet
                // dials it.
                GreetError::RefusedHere(refusal) if refusal.code == RefusalCode::Standalone => {
                    tracing::debug!(%peer, %remote, %refusal, "this node belongs nowhere");
                }
                _ => {
                    let told = pool.refusals.come((id, error.to_string()));
                    if let Some(repeated) = told {
                        tracing::info!("{peer} at {remote} was not let in: {error}{repeated}");
                    }
                }
            }
        }
    }
}

/// Hands a join connection over and sees to it that it ends.
async fn join(
    pool: &Arc<Pool>,
    door: &Arc<Door>,
    connection: Connection,
    peer: NodeId,
    open: Arc<Open>,
) {
    let busy = CloseCode::Busy.number().into();
    let remote = canonical(connection.remote_address());
    let Some(at_door) = door.enter_to_join(remote.ip(), open) else {
        return connection.close(busy, b"too many nodes join at once, try again");
    };
    let end = at_door.given_up();
    let handed = IncomingJoin { connection: connection.clone(), peer, remote, at_door };
    if pool.router.join(handed).is_err() {
        return connection.close(busy, b"joining is not served here now");
    }
    pool.counters.joins_in.add(1);
    let over = async {
        tokio::select! {
            _ = connection.closed() => {}
            () = end.cancelled() => connection.close(busy, b"too many nodes join at once, try again"),
        }
    };
    if timeout(JOIN_TIME_MAX, over).await.is_err() {
        tracing::debug!(peer = %peer.short(), %remote, "a join took too long and was closed");
        connection.close(CloseCode::TooSlow.number().into(), b"the join took too long");
    }
}
