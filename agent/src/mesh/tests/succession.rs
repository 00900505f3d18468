//! Which connection counts if two nodes dial each other or one starts again, and how a connection
//! ends.

use super::*;
use crate::mesh::hello::greet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simultaneous_dials_end_in_one_connection_on_both_sides() {
    let world = World::default();
    let pairs: Vec<_> =
        (0..24).map(|n| (world.member(2 * n + 1), world.member(2 * n + 2))).collect();
    for (a, b) in &pairs {
        // Neither waits for the other, and something is under way on each.
        assert!(a.mesh.push(b.id, Bytes::from_static(b"from a")));
        assert!(b.mesh.push(a.id, Bytes::from_static(b"from b")));
    }
    let mut raced = 0;
    for (mut a, mut b) in pairs {
        assert_eq!(soon(a.frames.recv()).await.unwrap().bytes, "from b");
        assert_eq!(soon(b.frames.recv()).await.unwrap().bytes, "from a");
        let open = |node: &Node| node.mesh.pool.dialler.endpoint.open_connections();
        until("one connection is left", || open(&a) == 1 && open(&b) == 1).await;
        let (at_a, at_b) = (a.mesh.peer(b.id).unwrap(), b.mesh.peer(a.id).unwrap());
        assert_ne!(at_a.dialled, at_b.dialled, "they hold the same one");
        // A node that finds the connection of the other before it has said hello gives up its own
        // dial. Only four connections in all show that both dials met.
        if a.mesh.totals().connections + b.mesh.totals().connections == 4 {
            raced += 1;
            assert_eq!(at_a.dialled, a.id < b.id, "the lower key's dial is kept");
        }
        a.mesh.send_datagram(b.id, Bytes::from_static(b"still there"));
        soon(b.datagrams.recv()).await.unwrap();
        for node in [&mut a, &mut b] {
            assert!(matches!(node.events.try_recv(), Ok(Event::Connected { .. })));
            assert!(node.events.try_recv().is_err(), "a superseded connection is no event");
        }
    }
    // On a busy host most pairs find the other's connection there before they say hello.
    assert!(raced > 0, "none of 24 pairs dialled each other at once");
}

#[test]
fn a_peer_that_was_killed_and_restarts_on_its_port_is_reached_again_at_once() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let ours = runtime().unwrap();
    let world = World::default();
    let mut a = ours.block_on(async { world.member(1) });

    let theirs = runtime().unwrap();
    let b = theirs.block_on(async { world.member(2) });
    let (id, address) = (b.id, b.address());
    ours.block_on(soon(a.mesh.connect(id))).unwrap();
    // A runtime that is torn down sends nothing more, as a killed process does not.
    drop(b);
    theirs.shutdown_timeout(BOUND);
    assert!(a.mesh.is_connected(id));

    let theirs = runtime().unwrap();
    let mut b = theirs.block_on(async { world.start(2, address, 2) });
    let (took, first) = ours.block_on(async {
        let start = Instant::now();
        let first = soon(async {
            loop {
                a.mesh.send_datagram(id, Bytes::from_static(b"are you there"));
                if let Ok(first) = timeout(Duration::from_millis(10), b.datagrams.recv()).await {
                    return first.unwrap();
                }
            }
        })
        .await;
        (start.elapsed(), first)
    });
    assert_eq!(first.from, a.id);
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(a.mesh.peer(id).unwrap().boot, 2);
    // The port of b may refuse packets while b is away.
    let refused = |event: &Event| matches!(event, Event::Refused { .. });
    let seen = std::iter::from_fn(|| a.events.try_recv().ok());
    let seen: Vec<_> = seen.filter(|event| !refused(event)).collect();
    let [
        Event::Connected { .. },
        Event::Disconnected { reason, .. },
        Event::Connected { hello, .. },
    ] = seen.as_slice()
    else {
        panic!("{seen:?}")
    };
    assert_eq!((reason, hello.boot), (&DisconnectReason::Reset, 2));
    theirs.shutdown_timeout(BOUND);
}

#[tokio::test]
async fn a_later_start_replaces_a_connection_and_an_earlier_one_does_not() {
    let world = World::default();
    let (mut a, b) = (world.member(1), world.member(2));
    soon(b.mesh.connect(a.id)).await.unwrap();
    until("a knows b", || a.mesh.is_connected(b.id)).await;

    // The same key from another socket: first as a later start, then as an earlier one.
    let again = world.start(2, LOCAL, 7);
    soon(again.mesh.connect(a.id)).await.unwrap();
    until("the later start counts", || a.mesh.peer(b.id).is_some_and(|p| p.boot == 7)).await;
    until("the old connection is closed", || !b.mesh.is_connected(a.id)).await;
    assert!(matches!(a.events.try_recv(), Ok(Event::Connected { hello, .. }) if hello.boot == 1));
    assert!(matches!(a.events.try_recv(), Ok(Event::Disconnected { .. })));
    assert!(matches!(a.events.try_recv(), Ok(Event::Connected { hello, .. }) if hello.boot == 7));

    let _ = soon(b.mesh.connect(a.id)).await;
    until("the earlier start is turned away", || !b.mesh.is_connected(a.id)).await;
    assert_eq!(a.mesh.peer(b.id).unwrap().boot, 7);
    assert!(again.mesh.is_connected(a.id));
}

#[tokio::test]
async fn the_reason_of_a_close_reaches_the_other_side() {
    let world = World::default();
    let (a, mut b) = (world.member(1), world.member(2));
    soon(a.mesh.connect(b.id)).await.unwrap();
    assert!(matches!(soon(b.events.recv()).await, Ok(Event::Connected { .. })));
    a.mesh.close(b.id, CloseCode::Removed, "removed by an operator");
    let Ok(Event::Disconnected { peer, reason }) = soon(b.events.recv()).await else { panic!() };
    let message = "removed by an operator".to_owned();
    assert_eq!(peer, a.id);
    assert_eq!(reason, DisconnectReason::ByPeer { code: CloseCode::Removed, message });
    until("a forgets b", || !a.mesh.is_connected(b.id)).await;

    // The mesh goes on after that, until it is shut down.
    soon(a.mesh.connect(b.id)).await.unwrap();
    let start = Instant::now();
    a.mesh.shutdown(CloseCode::Leaving, "so long").await;
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(matches!(soon(b.events.recv()).await, Ok(Event::Connected { .. })));
    let Ok(Event::Disconnected { reason, .. }) = soon(b.events.recv()).await else { panic!() };
    let message = "so long".to_owned();
    assert_eq!(reason, DisconnectReason::ByPeer { code: CloseCode::Leaving, message });
    assert!(matches!(soon(a.mesh.connect(b.id)).await, Err(DialError::Stopped)));
}

#[tokio::test]
async fn a_connection_that_is_given_up_is_no_goodbye() {
    let world = World::default();
    let (a, mut b) = (world.member(1), world.member(2));
    let connection = a.raw(&b).await;
    let dial = greet(&connection, b.id, None, &*a.mesh.pool.gate);
    soon(dial).await.unwrap();
    assert!(matches!(soon(b.events.recv()).await.unwrap(), Event::Connected { .. }));
    // A dial drops its connection like this when another one was faster.
    drop(connection);
    let event = soon(b.events.recv()).await.unwrap();
    let Event::Disconnected { reason: DisconnectReason::ByPeer { code, .. }, .. } = event else {
        panic!("{event:?}")
    };
    assert_eq!(code, CloseCode::Dropped);
}
