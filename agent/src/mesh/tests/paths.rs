//! Paths that break, and heal, between two nodes with several addresses.

use super::*;

/// The design says two seconds; the rest is for a machine that runs many tests at once.
const MOVED_WITHIN: Duration = Duration::from_secs(5);

/// How often something is sent while a path breaks.
const SEND_EVERY: Duration = Duration::from_millis(20);

#[tokio::test]
async fn when_the_best_address_dies_traffic_moves_to_the_next_and_back_when_it_returns() {
    let world = World::default();
    let (mut a, mut b) = (world.member(1), world.of_two_addresses(2));
    let [best, second] = world.places_of(&b);
    soon(a.mesh.connect(b.id)).await.unwrap();
    assert_eq!(path(&a, &b), Some(Path::Direct(best)));
    assert!(matches!(soon(a.events.recv()).await, Ok(Event::Connected { .. })));

    world.cuts.cut_address(best);
    frames_pass(&a, &mut b, 1, MOVED_WITHIN).await;
    assert_eq!(path(&a, &b), Some(Path::Direct(second)));
    let moved = soon(a.events.recv()).await.unwrap();
    assert!(
        matches!(moved, Event::Moved { peer, from, to, lossy: true }
            if peer == b.id && from == Path::Direct(best) && to == Path::Direct(second)),
        "{moved:?}"
    );

    world.cuts.heal();
    until("it moved back", || path(&a, &b) == Some(Path::Direct(best))).await;
    let moved = soon(a.events.recv()).await.unwrap();
    assert!(matches!(moved, Event::Moved { lossy: false, .. }), "{moved:?}");
    frames_pass(&a, &mut b, 2, MOVED_WITHIN).await;
    let open = |node: &Node| node.mesh.pool.dialler.endpoint.open_connections();
    until("the others are closed", || open(&a) == 1 && open(&b) == 1).await;
}

#[tokio::test]
async fn one_that_was_reached_at_a_lesser_address_moves_to_the_best_when_that_answers() {
    let world = World::default();
    let (a, b) = (world.member(1), world.of_two_addresses(2));
    let [best, second] = world.places_of(&b);
    world.cuts.cut_address(best);
    soon(a.mesh.connect(b.id)).await.unwrap();
    assert_eq!(path(&a, &b), Some(Path::Direct(second)));
    world.cuts.heal();
    until("it moved", || path(&a, &b) == Some(Path::Direct(best))).await;
}

#[tokio::test]
async fn an_address_that_became_the_best_is_moved_to() {
    let world = World::default();
    let (a, b) = (world.member(1), world.of_two_addresses(2));
    let [best, second] = world.places_of(&b);
    soon(a.mesh.connect(b.id)).await.unwrap();
    assert_eq!(path(&a, &b), Some(Path::Direct(best)));
    world.place(b.id, vec![second, best]);
    a.mesh.review_paths();
    until("it moved", || path(&a, &b) == Some(Path::Direct(second))).await;
}

#[tokio::test]
async fn both_ends_that_dial_anew_at_once_end_on_one_connection() {
    let world = World::default();
    for round in 0..4 {
        let (a, b) = (world.of_two_addresses(2 * round + 1), world.of_two_addresses(2 * round + 2));
        let ([best_of_a, _], [best_of_b, _]) = (world.places_of(&a), world.places_of(&b));
        soon(a.mesh.connect(b.id)).await.unwrap();
        until("b knows a", || b.mesh.is_connected(a.id)).await;
        world.cuts.cut_address(best_of_a);
        world.cuts.cut_address(best_of_b);
        let (mut a, mut b) = (a, b);
        for number in 0..200u32 {
            a.mesh.push(b.id, Bytes::copy_from_slice(&number.to_be_bytes()));
            b.mesh.push(a.id, Bytes::copy_from_slice(&number.to_be_bytes()));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        frames_pass(&a, &mut b, 7, MOVED_WITHIN).await;
        frames_pass(&b, &mut a, 7, MOVED_WITHIN).await;
        world.cuts.heal();
        let open = |node: &Node| node.mesh.pool.dialler.endpoint.open_connections();
        let at_best = || match (a.mesh.peer(b.id), b.mesh.peer(a.id)) {
            (Some(at_a), Some(_)) if at_a.dialled => at_a.path == Path::Direct(best_of_b),
            (Some(_), Some(at_b)) => at_b.path == Path::Direct(best_of_a),
            _ => false,
        };
        until("one connection is left, on the best path", || {
            open(&a) == 1 && open(&b) == 1 && at_best()
        })
        .await;
        let (at_a, at_b) = (a.mesh.peer(b.id).unwrap(), b.mesh.peer(a.id).unwrap());
        assert_ne!(at_a.dialled, at_b.dialled, "they hold the same one");
    }
}

#[tokio::test]
async fn a_node_that_comes_back_elsewhere_is_found_where_it_said_in_its_hello() {
    let world = World::default();
    let (a, b) = (world.member(1), world.member(2));
    // The address of b in the roster leads nowhere, but b knows where a is.
    let nowhere = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), 9));
    world.place(b.id, vec![nowhere]);
    world.cuts.cut_address(nowhere);
    b.gate.change(|hello| hello.addresses = vec![b.address().into()]);
    soon(b.mesh.connect(a.id)).await.unwrap();
    until("a knows b", || a.mesh.is_connected(b.id)).await;
    a.mesh.close(b.id, CloseCode::Done, "");
    until("a forgets b", || !a.mesh.is_connected(b.id)).await;
    soon(a.mesh.connect(b.id)).await.unwrap();
    assert_eq!(path(&a, &b), Some(Path::Direct(b.address())));
}

#[tokio::test]
async fn a_connection_that_is_answered_is_looked_at_no_longer_and_costs_no_dial() {
    let world = World::default();
    let (a, mut b) = (world.member(1), world.member(2));
    frames_pass(&a, &mut b, 1, MOVED_WITHIN).await;
    let looked_at = || a.mesh.pool.peer(b.id).unwrap().watch.is_looked_at();
    assert!(looked_at(), "what was sent is looked at");
    until("nobody looks", || !looked_at()).await;
    let totals = a.mesh.totals();
    assert_eq!((totals.doubts, totals.dials), (0, 1));
}

#[tokio::test]
async fn one_that_is_held_to_be_dead_is_let_go_unless_it_answers() {
    let world = World::default();
    let (a, b) = (world.member(1), world.member(2));
    soon(a.mesh.connect(b.id)).await.unwrap();
    a.mesh.abandon(b.id);
    assert!(a.mesh.peer(b.id).is_some_and(|peer| !peer.doubted));
    a.mesh.forgive(b.id);
    world.cuts.cut_between(a.address(), b.address());
    until("it is in doubt", || {
        a.mesh.send_datagram(b.id, Bytes::from_static(b"there?"));
        a.mesh.peer(b.id).is_some_and(|peer| peer.doubted)
    })
    .await;
    a.mesh.abandon(b.id);
    until("it is let go", || !a.mesh.is_connected(b.id)).await;
    // The network heals, and the rest after a failed dial is over within seconds.
    let _ = soon(a.mesh.open(b.id, StreamKind::Sync)).await;
    world.cuts.heal();
    until("it is reached again", || {
        a.mesh.send_datagram(b.id, Bytes::from_static(b"there?"));
        a.mesh.is_connected(b.id)
    })
    .await;

    // b may be held to be dead before its connection is in doubt.
    a.mesh.abandon(b.id);
    world.cuts.cut_between(a.address(), b.address());
    until("it is let go when it does not answer", || {
        a.mesh.send_datagram(b.id, Bytes::from_static(b"there?"));
        !a.mesh.is_connected(b.id)
    })
    .await;
}

impl World {
    /// A node on all addresses of the loopback, known by two of them.
    fn of_two_addresses(&self, number: u8) -> Node {
        let node = self.start(number, (Ipv4Addr::UNSPECIFIED, 0).into(), 1);
        let port = node.address().port();
        let at = |last| SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
        self.place(node.id, vec![at(2), at(3)]);
        node
    }

    fn places_of(&self, node: &Node) -> [SocketAddr; 2] {
        let places = self.places.lock().unwrap()[&node.id].clone();
        let places: Vec<SocketAddr> = places.iter().filter_map(Address::ip).collect();
        places.try_into().unwrap()
    }
}

/// How one node reaches another.
pub(super) fn path(from: &Node, to: &Node) -> Option<Path> {
    from.mesh.peer(to.id).map(|peer| peer.path)
}

/// Sends frames with this mark until one arrives.
pub(super) async fn frames_pass(from: &Node, to: &mut Node, mark: u8, within: Duration) {
    let start = Instant::now();
    loop {
        from.mesh.push(to.id, Bytes::from(vec![mark]));
        match timeout(SEND_EVERY, to.frames.recv()).await {
            Ok(Some(frame)) if frame.from == from.id && frame.bytes[..] == [mark] => break,
            _ => assert!(start.elapsed() < within, "nothing came within {within:?}"),
        }
    }
    println!("frames pass after {:?}", start.elapsed());
}
