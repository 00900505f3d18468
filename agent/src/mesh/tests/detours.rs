//! Two nodes that cannot reach each other, and others in between.

use std::time::Duration;

use super::paths::{frames_pass, path};
use super::*;
use crate::mesh::endpoint::endpoint;

/// The design says two seconds; the rest is for a machine that runs many tests at once.
const MOVED_WITHIN: Duration = Duration::from_secs(6);

#[tokio::test]
async fn two_that_cannot_reach_each_other_talk_through_a_third_and_directly_when_that_heals() {
    let world = World::default();
    let (a, mut b, mut c) = (world.member(1), world.member(2), world.member(3));
    meet(&c, &[&a, &b]).await;
    world.cuts.cut_between(a.address(), b.address());
    soon(a.mesh.connect(b.id)).await.unwrap();
    until("b knows a", || b.mesh.is_connected(a.id)).await;
    assert_eq!(path(&a, &b), Some(Path::Through(c.id)));
    assert_eq!(path(&b, &a), Some(Path::Through(c.id)));

    a.mesh.send_datagram(b.id, Bytes::from_static(b"ping"));
    assert_eq!(soon(b.datagrams.recv()).await.unwrap().from, a.id);
    let whole = Bytes::from(vec![7; StreamKind::Chitchat.frame_bytes_max()]);
    a.mesh.send_message(b.id, StreamKind::Chitchat, whole.clone());
    let message = soon(b.messages.recv()).await.unwrap();
    assert_eq!((message.from, message.bytes), (a.id, whole));
    for number in 0..500u32 {
        assert!(a.mesh.push(b.id, Bytes::copy_from_slice(&number.to_be_bytes())));
    }
    for number in 0..500u32 {
        let frame = soon(b.frames.recv()).await.unwrap();
        assert_eq!((frame.from, &frame.bytes[..]), (a.id, number.to_be_bytes().as_slice()));
    }
    let (mut send, mut recv) = soon(b.mesh.open(a.id, StreamKind::Sync)).await.unwrap();
    let mut a = a;
    let mut session = soon(a.sessions.recv()).await.unwrap();
    assert_eq!(session.from, b.id);
    soon(write_frame(&mut send, b"question", 100)).await.unwrap();
    assert_eq!(soon(read_frame(&mut session.recv, 100)).await.unwrap().unwrap(), "question");
    soon(write_frame(&mut session.send, b"answer", 100)).await.unwrap();
    assert_eq!(soon(read_frame(&mut recv, 100)).await.unwrap().unwrap(), "answer");

    // c carried all of that, and nothing of it was delivered at c.
    assert!(c.mesh.totals().carried > 50, "{:?}", c.mesh.totals());
    assert!(c.datagrams.try_recv().is_err() && c.messages.try_recv().is_err());
    assert!(c.frames.try_recv().is_err() && c.sessions.try_recv().is_err());

    world.cuts.heal();
    until("it is direct again", || {
        path(&a, &b) == Some(Path::Direct(b.address()))
            && path(&b, &a) == Some(Path::Direct(a.address()))
    })
    .await;
    frames_pass(&a, &mut b, 9, MOVED_WITHIN).await;
}

#[tokio::test]
async fn who_comes_by_a_detour_is_said_to_come_through_the_member_in_between() {
    let world = World::default();
    let (a, b, c) = (world.member(1), world.member(2), world.member(3));
    meet(&c, &[&a, &b]).await;
    world.cuts.cut_between(a.address(), b.address());
    soon(a.mesh.connect(b.id)).await.unwrap();
    until("b knows a", || b.mesh.is_connected(a.id)).await;

    let spoke_from = |node: NodeId| b.gate.heard.lock().unwrap()[&node];
    let (by_detour, direct) = (spoke_from(a.id), spoke_from(c.id));

    assert_eq!(b.mesh.path_of(by_detour), Path::Through(c.id));
    assert_eq!(format!("{:#}", b.mesh.path_of(by_detour)), format!("through {}", c.id.short()));
    assert_eq!(format!("{:#}", b.mesh.path_of(direct)), format!("at {}", c.address()));
}

#[tokio::test]
async fn a_failure_of_one_direction_is_gone_around_by_either_end() {
    for a_is_cut in [true, false] {
        let world = World::default();
        let (mut a, mut b, c) = (world.member(1), world.member(2), world.member(3));
        meet(&c, &[&a, &b]).await;
        soon(a.mesh.connect(b.id)).await.unwrap();
        until("b knows a", || b.mesh.is_connected(a.id)).await;
        let (from, to) = if a_is_cut { (&a, &b) } else { (&b, &a) };
        world.cuts.cut_one_way(from.address(), to.address());
        frames_pass(&a, &mut b, 1, MOVED_WITHIN).await;
        frames_pass(&b, &mut a, 2, MOVED_WITHIN).await;
        until("both know of it", || {
            path(&a, &b) == Some(Path::Through(c.id)) && path(&b, &a) == Some(Path::Through(c.id))
        })
        .await;
    }
}

#[tokio::test]
async fn when_the_one_in_between_dies_the_two_find_another() {
    let world = World::default();
    let (a, mut b) = (world.member(1), world.member(2));
    let between = [world.member(3), world.member(4)];
    for other in &between {
        meet(other, &[&a, &b]).await;
    }
    world.cuts.cut_between(a.address(), b.address());
    soon(a.mesh.connect(b.id)).await.unwrap();
    frames_pass(&a, &mut b, 1, MOVED_WITHIN).await;
    let Some(Path::Through(first)) = path(&a, &b) else { panic!("{:?}", path(&a, &b)) };
    let (dead, left) = match between {
        [c, d] if c.id == first => (c, d),
        [c, d] => (d, c),
    };
    for other in [&a, &b] {
        world.cuts.cut_between(dead.address(), other.address());
    }
    frames_pass(&a, &mut b, 2, MOVED_WITHIN).await;
    assert_eq!(path(&a, &b), Some(Path::Through(left.id)));
}

#[tokio::test]
async fn one_that_does_not_reach_the_other_says_so_and_the_next_is_asked() {
    let world = World::default();
    let (a, b) = (world.member(1), world.member(2));
    let (useless, useful) = (world.member(3), world.member(4));
    meet(&useless, &[&a]).await;
    meet(&useful, &[&a, &b]).await;
    world.cuts.cut_between(a.address(), b.address());
    world.cuts.cut_between(useless.address(), b.address());
    // That holds even if `useless` seems to be the member that hears b.
    a.mesh.heard_through(b.id, useless.id);
    soon(a.mesh.connect(b.id)).await.unwrap();
    assert_eq!(path(&a, &b), Some(Path::Through(useful.id)));
    assert_eq!(useless.mesh.totals().carried, 0);
}

#[tokio::test]
async fn nothing_is_carried_over_two_hops_or_for_those_who_are_no_members() {
    let world = World::default();
    let (a, b, c, d) = (world.member(1), world.member(2), world.member(3), world.member(4));
    // a - c - d - b would be a way, with two nodes in between.
    meet(&c, &[&a, &d]).await;
    meet(&d, &[&b]).await;
    for (one, other) in [(&a, &b), (&a, &d), (&b, &c)] {
        world.cuts.cut_between(one.address(), other.address());
    }
    soon(a.mesh.connect(d.id)).await.unwrap();
    assert_eq!(path(&a, &d), Some(Path::Through(c.id)));
    assert!(matches!(soon(a.mesh.connect(b.id)).await, Err(DialError::Unreachable { .. })));
    // c may have found a detour to b by now, but it carries nothing for others over a detour.
    assert!(!a.mesh.is_connected(b.id) && !b.mesh.is_connected(a.id));

    // c says that a packet is from a node that nobody knows.
    let (stranger, at_c) = (NodeId([9; 32]), c.mesh.pool.peer(a.id).unwrap());
    let claim = peerage_proto::wire::Detour::Carried { from: stranger, packet: b"let me in" };
    let seen = a.mesh.totals().messages_in;
    at_c.send_detour(claim.encode());
    until("it came", || a.mesh.totals().messages_in > seen).await;
    a.mesh.send_datagram(c.id, Bytes::from_static(b"after it"));
    assert!(!a.mesh.pool.detours.knows(stranger, c.id));
}

#[tokio::test]
async fn a_flood_over_a_detour_is_bounded_and_holds_up_nobody() {
    let world = World::default();
    let (a, mut b, mut c) = (world.member(1), world.member(2), world.member(3));
    meet(&c, &[&a, &b]).await;
    world.cuts.cut_between(a.address(), b.address());
    a.mesh.heard_through(b.id, c.id);
    soon(a.mesh.connect(b.id)).await.unwrap();
    let at_a = a.mesh.pool.peer(c.id).unwrap();
    let junk = vec![0x40; 1200];
    for _ in 0..20_000 {
        let carry = peerage_proto::wire::Detour::Carry { to: b.id, packet: &junk };
        at_a.send_detour(carry.encode());
    }
    assert!(a.mesh.totals().carried_dropped > 10_000, "{:?}", a.mesh.totals());
    // A message from a to c itself passes, and so do frames from a to b over the detour.
    a.mesh.send_message(c.id, StreamKind::Chitchat, Bytes::from_static(b"mine"));
    assert_eq!(soon(c.messages.recv()).await.unwrap().bytes, "mine");
    frames_pass(&a, &mut b, 1, MOVED_WITHIN).await;
}

#[tokio::test]
async fn one_of_a_version_without_detours_is_not_asked_to_carry() {
    let world = World::default();
    let (a, b, old) = (world.member(1), world.member(2), world.member(3));
    old.gate.change(|hello| hello.carries = false);
    meet(&old, &[&a, &b]).await;
    world.cuts.cut_between(a.address(), b.address());
    a.mesh.heard_through(b.id, old.id);
    assert!(matches!(soon(a.mesh.connect(b.id)).await, Err(DialError::Unreachable { .. })));
    assert_eq!(old.mesh.totals().messages_in, 0);
    let new = world.member(4);
    meet(&new, &[&a, &b]).await;
    soon(a.mesh.connect(b.id)).await.unwrap();
    assert_eq!(path(&a, &b), Some(Path::Through(new.id)));
}

/// The test itself is the member in between, and looks at the packets that it carries.
#[tokio::test]
async fn whoever_carries_sees_nothing_of_what_is_said() {
    let [mut a, mut b] = [1, 2].map(|number| {
        let keypair = Keypair::from_seed([number; 32]);
        let identity = Identity::new(&keypair).unwrap();
        let underlay = Underlay::bind(LOCAL).unwrap();
        let (socket, packets) = DetourSocket::over(underlay.socket.clone()).unwrap();
        let detours = socket.detours.clone();
        let underlay = Underlay { socket, ..underlay };
        let names = underlay.names.clone();
        let (endpoint, transport, _) = endpoint(underlay, &keypair, &identity).unwrap();
        let detour_transport = Arc::new(super::super::endpoint::transport(false));
        let dialler = Dialler { endpoint, transport, detour_transport, identity, names };
        (keypair.node_id(), dialler, detours, packets)
    });
    let between = NodeId([3; 32]);
    let secret = b"nobody but the two of us may read this";
    let (from_a, to_b) = (a.2.to(b.0, between).unwrap(), b.2.clone());
    let (id_of_a, id_of_b) = (a.0, b.0);
    let to_a = a.2.clone();
    let carrying = tokio::spawn(async move {
        let mut count = 0;
        loop {
            let packet = tokio::select! {
                packet = a.3.recv() => {
                    let packet = packet.unwrap().bytes;
                    to_b.inject(id_of_a, between, packet.clone());
                    packet
                }
                packet = b.3.recv() => {
                    let packet = packet.unwrap().bytes;
                    to_a.inject(id_of_b, between, packet.clone());
                    packet
                }
            };
            count += 1;
            assert!(packet.len() <= 1200);
            for part in secret.windows(8) {
                assert!(!packet.windows(8).any(|window| window == part), "packet {count}");
            }
        }
    });
    let listening = b.1.clone();
    let heard = tokio::spawn(async move {
        let connection = listening.endpoint.accept().await.unwrap().await.unwrap();
        let said = connection.read_datagram().await.unwrap();
        (tls::peer_of(&connection), said)
    });
    let pace = super::super::dial::Pace { timeout: BOUND, detours_after: Duration::ZERO };
    let ways = [super::super::ways::Way::Detour(from_a)];
    let connection = soon(a.1.race_over(b.0, ALPN_MEMBER, &ways, pace)).await.unwrap();
    connection.send_datagram(Bytes::from_static(secret)).unwrap();
    let (who, said) = soon(heard).await.unwrap();
    assert_eq!((who, &said[..]), (Some(a.0), secret.as_slice()));
    assert!(!carrying.is_finished(), "{:?}", carrying.await);
    carrying.abort();
}

/// Connects one node with others.
async fn meet(one: &Node, others: &[&Node]) {
    for other in others {
        soon(one.mesh.connect(other.id)).await.unwrap();
        until("both know", || other.mesh.is_connected(one.id)).await;
    }
}
