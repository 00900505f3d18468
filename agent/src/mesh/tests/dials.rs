//! Whom a node dials, how many at once, and how long it rests after a failure.

use super::*;
use crate::mesh::dial::{BACKOFF_MAX, BACKOFF_MIN, DIAL_TIMEOUT};

#[tokio::test]
async fn another_key_at_the_address_is_refused_at_the_handshake() {
    let world = World::default();
    let (a, b, c) = (world.member(1), world.member(2), world.member(3));
    let address = c.address();
    world.place(b.id, vec![address]);
    let error = soon(a.mesh.connect(b.id)).await.unwrap_err();
    let DialError::WrongKey { at, found, .. } = error else { panic!("{error:?}") };
    assert_eq!((at, found), (Path::Direct(address), c.id));
    assert_eq!(c.mesh.totals().connections, 0);

    // A second address that is right is found behind the wrong one.
    world.place(b.id, vec![address, b.address()]);
    soon(a.mesh.connect(b.id)).await.unwrap();
    assert_eq!(a.mesh.peer(b.id).unwrap().path, Path::Direct(b.address()));
}

#[tokio::test]
async fn a_host_that_is_late_makes_few_connections_at_once() {
    let world = World::default();
    let a = world.member(1);
    // Nobody reads what comes there, so a dial waits for its answer.
    let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let others: Vec<NodeId> = (10..20).map(|n| Keypair::from_seed([n; 32]).node_id()).collect();
    a.mesh.slow_down(7);
    for other in &others {
        world.place(*other, vec![silent.local_addr().unwrap()]);
        a.mesh.send_datagram(*other, Bytes::from_static(b"is anybody there?"));
    }
    let dials = || a.mesh.totals().dials;
    until("two are dialled", || dials() == 2).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(dials(), 2, "the others wait");
    let began = Instant::now();
    until("those that wait for an answer make room for two more", || dials() == 4).await;
    a.mesh.slow_down(1);
    until("and all that wait go on once it is on time", || dials() == 10).await;
    assert!(began.elapsed() < DIAL_TIMEOUT, "not only when the first had failed");
}

#[tokio::test]
async fn a_node_that_fails_rests_longer_each_time_and_a_connection_ends_the_rest() {
    let world = World::default();
    let (mut a, b, other) = (world.member(1), world.member(2), world.member(3));
    // Another key at the address fails without a wait for a timeout.
    world.place(b.id, vec![other.address()]);
    let mut longest = Vec::new();
    for _ in 0..4 {
        let wait = soon(async {
            loop {
                match a.mesh.open(b.id, StreamKind::Sync).await {
                    Err(DialError::WrongKey { .. }) => continue,
                    Err(DialError::Resting { wait, last }) => {
                        assert!(matches!(*last, DialError::WrongKey { .. }));
                        return wait;
                    }
                    other => panic!("{other:?}"),
                }
            }
        })
        .await;
        longest.push(wait);
        a.mesh.send_datagram(b.id, Bytes::from_static(b"dropped, not kept for later"));
        tokio::time::sleep(wait).await;
    }
    assert!(longest[0] <= BACKOFF_MIN && longest[3] > 2 * BACKOFF_MIN, "{longest:?}");
    assert!(longest.iter().all(|wait| *wait <= BACKOFF_MAX));
    assert_eq!(a.mesh.totals().datagrams_dropped, 4);
    assert!(
        matches!(a.events.try_recv(), Ok(Event::Unreachable { addresses, error: DialError::WrongKey { .. }, .. })
        if addresses == [other.address().into()])
    );

    // An explicit connect does not wait for the rest.
    world.place(b.id, vec![b.address()]);
    let _ = a.mesh.open(b.id, StreamKind::Sync).await;
    soon(a.mesh.connect(b.id)).await.unwrap();

    // The rest also ends when the node that was not reached connects to a itself.
    let c = world.member(4);
    world.place(c.id, vec![other.address()]);
    soon(async {
        loop {
            match a.mesh.open(c.id, StreamKind::Sync).await {
                Err(DialError::Resting { wait, .. }) if wait > 3 * BACKOFF_MIN => break,
                Err(DialError::Resting { wait, .. }) => tokio::time::sleep(wait).await,
                _ => {}
            }
        }
    })
    .await;
    world.place(c.id, vec![c.address()]);
    soon(c.mesh.connect(a.id)).await.unwrap();
    until("a knows c", || a.mesh.is_connected(c.id)).await;
    a.mesh.close(c.id, CloseCode::Done, "");
    until("a forgets c", || !a.mesh.is_connected(c.id)).await;
    soon(a.mesh.open(c.id, StreamKind::Sync)).await.unwrap();
}

#[tokio::test]
async fn a_socket_of_both_families_is_reached_and_shown_by_ipv4() {
    let world = World::default();
    let a = world.start(1, (Ipv6Addr::UNSPECIFIED, 0).into(), 1);
    let b = world.start(2, (Ipv6Addr::UNSPECIFIED, 0).into(), 1);
    let port = b.mesh.local_address().unwrap().port();
    let known = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    world.place(b.id, vec![known]);
    soon(a.mesh.connect(b.id)).await.unwrap();
    assert_eq!(a.mesh.peer(b.id).unwrap().path, Path::Direct(known));
}

#[tokio::test]
async fn nobody_dials_itself_or_one_without_an_address() {
    let world = World::default();
    let a = world.member(1);
    assert!(matches!(soon(a.mesh.connect(a.id)).await, Err(DialError::Own)));
    let unknown = NodeId([9; 32]);
    assert!(matches!(soon(a.mesh.connect(unknown)).await, Err(DialError::NoAddress)));
    a.mesh.send_datagram(a.id, Bytes::from_static(b"me"));
    assert_eq!(a.mesh.totals().datagrams_dropped, 1);
}
