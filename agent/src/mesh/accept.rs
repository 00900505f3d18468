//! The door: who may begin a handshake, and what becomes of it.
//!
//! A handshake costs this node about half a millisecond of CPU before it knows who asks, so they
//! are bounded: in all, per address, and per second.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Connection, Incoming};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use peerage_proto::id::NodeId;
use peerage_proto::links::canonical;
use peerage_proto::wire::{ALPN_JOIN, ALPN_MEMBER, CloseCode, RefusalCode};

use super::hello::{GreetError, HELLO_TIMEOUT, welcome};
use super::peer::Peer;
use super::pool::Pool;
use super::router::IncomingJoin;
use super::tls;

/// Connections in all, those of members and others.
const CONNECTIONS_MAX: usize = 8192;

/// Handshakes and hellos under way: in all, and with one address (many agents may share one).
const UNPROVEN_MAX: usize = 256;
const UNPROVEN_PER_ADDRESS_MAX: usize = 128;

/// Above so many, a caller must first show that it receives at the address it claims.
const UNPROVEN_TRUSTED_MAX: usize = 64;

/// Handshakes in one second, and how many may come at once after a calm.
const HANDSHAKES_PER_SECOND: f64 = 400.0;
const HANDSHAKES_BURST: f64 = 1000.0;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections on the join protocol at once, and how long one may last.
pub(super) const JOINS_MAX: usize = 128;
const JOIN_TIME_MAX: Duration = Duration::from_secs(60);

/// Counts who is at the door.
#[derive(Debug)]
pub(super) struct Door {
    state: Mutex<DoorState>,
    joins: Arc<Semaphore>,
}

#[derive(Debug)]
struct DoorState {
    unproven: usize,
    by_address: HashMap<IpAddr, usize>,
    /// Handshakes that may begin now; refilled by time, up to [`HANDSHAKES_BURST`].
    allowance: f64,
    refilled: Instant,
}

impl Door {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(DoorState {
                unproven: 0,
                by_address: HashMap::new(),
                allowance: HANDSHAKES_BURST,
                refilled: Instant::now(),
            }),
            joins: Arc::new(Semaphore::new(JOINS_MAX)),
        }
    }

    /// Lets one more handshake begin, counted until the answer is dropped; `None` if it is one too
    /// many.
    fn enter(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<AtDoor> {
        let mut state = self.lock();
        let passed = now.saturating_duration_since(state.refilled).as_secs_f64();
        state.allowance = (state.allowance + passed * HANDSHAKES_PER_SECOND).min(HANDSHAKES_BURST);
        state.refilled = now;
        let of_address = state.by_address.get(&address).copied().unwrap_or(0);
        if state.allowance < 1.0
            || state.unproven >= UNPROVEN_MAX
            || of_address >= UNPROVEN_PER_ADDRESS_MAX
        {
            return None;
        }
        state.allowance -= 1.0;
        state.unproven += 1;
        state.by_address.insert(address, of_address + 1);
        Some(AtDoor { door: self.clone(), address })
    }

    fn is_crowded(&self) -> bool {
        self.lock().unproven >= UNPROVEN_TRUSTED_MAX
    }

    fn lock(&self) -> MutexGuard<'_, DoorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One handshake or hello under way.
struct AtDoor {
    door: Arc<Door>,
    address: IpAddr,
}

impl Drop for AtDoor {
    fn drop(&mut self) {
        let mut state = self.door.lock();
        state.unproven -= 1;
        if let Some(count) = state.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                state.by_address.remove(&self.address);
            }
        }
    }
}

/// Accepts connections until the endpoint is closed.
pub(super) async fn accept(pool: Arc<Pool>) {
    let door = Arc::new(Door::new());
    let endpoint = pool.dialler.endpoint.clone();
    while let Some(incoming) = endpoint.accept().await {
        if door.is_crowded() && !incoming.remote_address_validated() && incoming.may_retry() {
            // An answer that cannot be sent is one more packet lost.
            let _ = incoming.retry();
            continue;
        }
        let address = canonical(incoming.remote_address()).ip();
        let room = endpoint.open_connections() < CONNECTIONS_MAX;
        match door.enter(address, Instant::now()).filter(|_| room) {
            Some(at_door) => {
                pool.counters.handshakes_in.add(1);
                tokio::spawn(handshake(pool.clone(), door.clone(), incoming, at_door));
            }
            None => {
                pool.counters.handshakes_shed.add(1);
                tracing::debug!(%address, "a handshake was turned away: too many");
                incoming.refuse();
            }
        }
    }
}

async fn handshake(pool: Arc<Pool>, door: Arc<Door>, incoming: Incoming, at_door: AtDoor) {
    let remote = canonical(incoming.remote_address());
    let connected = async { incoming.accept()?.await };
    let connection = match timeout(HANDSHAKE_TIMEOUT, connected).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%remote, %error, "a handshake failed"),
        Err(_) => return tracing::debug!(%remote, "a handshake took too long"),
    };
    let Some(peer) = tls::peer_of(&connection) else {
        return connection.close(CloseCode::Protocol.number().into(), b"no key was shown");
    };
    match tls::alpn_of(&connection).as_deref() {
        Some(ALPN_MEMBER) => {
            member(&pool, connection, peer).await;
            drop(at_door);
        }
        Some(ALPN_JOIN) => {
            drop(at_door);
            join(&pool, &door, connection, peer).await;
        }
        _ => connection.close(CloseCode::Protocol.number().into(), b"no protocol was agreed"),
    }
}

async fn member(pool: &Arc<Pool>, connection: Connection, peer: NodeId) {
    match welcome(&connection, peer, pool.own, &*pool.gate).await {
        // It only wanted to know who is here, and hangs up.
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
                // It dialled elsewhere at the same time, or stopped, or this node did.
                GreetError::Connection(_) | GreetError::Standalone => {
                    tracing::debug!(%peer, %remote, %error, "a peer hung up at the door");
                }
                // One that left is looked for until the others have heard that it did.
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
async fn join(pool: &Arc<Pool>, door: &Arc<Door>, connection: Connection, peer: NodeId) {
    let busy = CloseCode::Busy.number().into();
    let Ok(_slot) = door.joins.clone().try_acquire_owned() else {
        return connection.close(busy, b"too many nodes join at once, try again");
    };
    let remote = canonical(connection.remote_address());
    let handed = IncomingJoin { connection: connection.clone(), peer, remote };
    if pool.router.join(handed).is_err() {
        return connection.close(busy, b"joining is not served here now");
    }
    pool.counters.joins_in.add(1);
    if timeout(JOIN_TIME_MAX, connection.closed()).await.is_err() {
        tracing::info!(peer = %peer.short(), %remote, "a join took too long and was closed");
        connection.close(CloseCode::TooSlow.number().into(), b"the join took too long");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_bounds_each_address_and_all_and_the_rate() {
        let door = Arc::new(Door::new());
        let start = door.lock().refilled;
        let one = IpAddr::from([10, 0, 0, 1]);
        let enter = |address| door.enter(address, start);
        let mut inside: Vec<_> =
            (0..UNPROVEN_PER_ADDRESS_MAX).map(|_| enter(one).unwrap()).collect();
        assert!(enter(one).is_none());
        inside.pop();
        inside.push(enter(one).unwrap());
        for other in 2..=u8::MAX {
            match enter(IpAddr::from([10, 0, 0, other])) {
                Some(at_door) => inside.push(at_door),
                None => break,
            }
        }
        assert_eq!(inside.len(), UNPROVEN_MAX);
        inside.clear();
        assert!(door.lock().by_address.is_empty());
        // What is left of the burst, then nothing until time passes.
        let left = (0..).take_while(|_| enter(one).is_some()).count();
        assert!(left > 0 && left < HANDSHAKES_BURST as usize);
        assert!(enter(one).is_none());
        assert!(door.enter(one, start + Duration::from_millis(10)).is_some());
    }
}
