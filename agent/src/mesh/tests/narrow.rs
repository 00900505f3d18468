//! Paths that take small packets and lose all large ones.

use super::*;

const NARROW_BYTES: usize = 1100;

/// Two members. The first has found that nothing large gets through to the second.
async fn held_back(world: &World) -> (Node, Node) {
    let (a, mut b) = (world.member(1), world.member(2));
    soon(a.mesh.connect(b.id)).await.unwrap();
    world.cuts.narrow_one_way(a.address(), b.address(), NARROW_BYTES);
    assert!(a.mesh.push(b.id, vec![7; 100_000].into()));
    let heard = async {
        while !is_held_back(&a.mesh, b.id) {
            a.mesh.send_datagram(b.id, Bytes::from_static(b"ping"));
            // b sends to a as well, as nodes do that probe each other. Packets of any size pass in
            // this direction.
            b.mesh.send_datagram(a.id, Bytes::from_static(b"ping"));
            let _ = timeout(Duration::from_millis(50), b.datagrams.recv()).await;
        }
    };
    soon(heard).await;
    (a, b)
}

/// All frames were dropped, even small receipts. So no other node heard that a write was on the
/// disk of this node.
#[tokio::test]
async fn small_frames_arrive_in_order_where_nothing_large_does() {
    let world = World::default();
    let (a, mut b) = held_back(&world).await;
    assert!(!a.mesh.push(b.id, vec![8; 2_000].into()));
    let sent: Vec<Bytes> = (0..30).map(|n| vec![n; 100].into()).collect();
    for frame in &sent {
        assert!(a.mesh.push(b.id, frame.clone()));
    }
    for frame in &sent {
        assert_eq!(soon(b.frames.recv()).await.unwrap().bytes, frame);
    }
    assert!(is_held_back(&a.mesh, b.id));

    world.cuts.heal();
    until("what is large gets through", || !is_held_back(&a.mesh, b.id)).await;
    let large = Bytes::from(vec![9; 100_000]);
    assert!(a.mesh.push(b.id, large.clone()));
    assert_eq!(soon(b.frames.recv()).await.unwrap().bytes, large);
}

/// Small messages that were lost were sent again together, in one packet that was large.
#[tokio::test]
async fn one_small_message_at_a_time_is_on_its_way_where_nothing_large_arrives() {
    let world = World::default();
    let (a, mut b) = held_back(&world).await;
    let peer = a.mesh.pool.peer(b.id).unwrap();
    let turn = soon(peer.bulk.turn()).await;
    let dropped = || a.mesh.totals().messages_dropped;
    let before = dropped();
    a.mesh.send_message(b.id, StreamKind::Chitchat, vec![1; 300].into());
    assert_eq!(dropped(), before + 1, "another one is on its way");
    drop(turn);
    a.mesh.send_message(b.id, StreamKind::Chitchat, vec![2; 900].into());
    assert_eq!(dropped(), before + 2, "it would fill a packet with what else there is");
    let arrives = async {
        loop {
            a.mesh.send_message(b.id, StreamKind::Chitchat, vec![3; 300].into());
            let come = timeout(Duration::from_millis(50), b.messages.recv()).await;
            if let Ok(message) = come {
                break message.unwrap();
            }
        }
    };
    assert_eq!(soon(arrives).await.bytes, vec![3; 300]);
}

/// Whether large data is held back from a peer now.
fn is_held_back(mesh: &Mesh, peer: NodeId) -> bool {
    mesh.pool.peer(peer).is_some_and(|peer| peer.bulk.is_held())
}
