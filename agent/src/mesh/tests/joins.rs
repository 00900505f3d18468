//! Connections on the join protocol.

use super::*;
use crate::mesh::door::SILENT_JOINS_MAX;

#[tokio::test]
async fn joiners_reach_the_join_queue_and_nothing_else_within_bounds() {
    let world = World::default();
    let (mut seed, joiner) = (world.member(1), world.stranger(9));
    *joiner.gate.hello.lock().unwrap() = None;
    let at = [seed.address().into()];
    let wrong = soon(joiner.mesh.dial_join(NodeId([3; 32]), &at)).await.unwrap_err();
    assert!(matches!(wrong, DialError::WrongKey { found, .. } if found == seed.id));

    let mut held = Vec::new();
    for _ in 0..SILENT_JOINS_MAX {
        let connection = soon(joiner.mesh.dial_join(seed.id, &at)).await.unwrap();
        let join = soon(seed.joins.recv()).await.unwrap();
        assert_eq!((join.peer, join.remote), (joiner.id, joiner.address()));
        assert!(joining_binding(&connection).is_some());
        assert_eq!(joining_binding(&connection), joining_binding(&join.connection));
        held.push((connection, join));
    }
    assert_ne!(joining_binding(&held[0].0), joining_binding(&held[1].0));
    let (connection, join) = held.last().unwrap();
    connection.send_datagram(Bytes::from_static(b"sneaky")).unwrap();
    let (mut stream, _) = connection.open_bi().await.unwrap();
    stream.write_all(&[StreamKind::Chitchat.byte(), 1]).await.unwrap();
    stream.finish().unwrap();
    let (_, mut at_seed) = soon(join.connection.accept_bi()).await.unwrap();
    assert_eq!(soon(at_seed.read_to_end(10)).await.unwrap(), [StreamKind::Chitchat.byte(), 1]);
    assert!(seed.messages.try_recv().is_err() && seed.datagrams.try_recv().is_err());
    assert!(!seed.mesh.is_connected(joiner.id));

    let many = soon(joiner.mesh.dial_join(seed.id, &at)).await.unwrap();
    assert_eq!(closed_with(&many).await, CloseCode::Busy);
    // A join that ends makes room for another. A seed dials back in the same way.
    held.pop().unwrap().1.connection.close(CloseCode::Done.number().into(), b"");
    soon(async {
        loop {
            let next = joiner.mesh.dial_join(seed.id, &at).await.unwrap();
            if timeout(Duration::from_millis(50), next.closed()).await.is_err() {
                break;
            }
        }
    })
    .await;
    let back = soon(seed.mesh.dial_join(joiner.id, &[joiner.address().into()])).await.unwrap();
    assert_eq!(tls::peer_of(&back), Some(joiner.id));
}
