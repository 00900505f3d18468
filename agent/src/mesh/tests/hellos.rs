//! Who is let in, and what hellos tell of clocks.

use super::*;

#[tokio::test]
async fn a_clock_that_is_ahead_is_seen_from_both_sides() {
    let world = World::default();
    let (a, b) = (world.member(1), world.member(2));
    b.gate.change(|hello| hello.wall_ms += 5000);
    soon(a.mesh.connect(b.id)).await.unwrap();
    until("b knows a", || b.mesh.is_connected(a.id)).await;
    let ahead = a.mesh.peer(b.id).unwrap().clock_ahead_ms.unwrap();
    let behind = b.mesh.peer(a.id).unwrap().clock_ahead_ms.unwrap();
    assert!((4000..=6000).contains(&ahead), "{ahead}");
    assert!((-6000..=-4000).contains(&behind), "{behind}");
}

/// A node that was just joining kept the hello of another waiting. The clock of one of them then
/// seemed to be off by the length of the wait.
#[tokio::test]
async fn the_clocks_in_hellos_that_were_kept_waiting_are_not_compared() {
    let world = World::default();
    let (a, b) = (world.member(1), world.member(2));
    *b.gate.settles_in.lock().unwrap() = Duration::from_millis(1500);
    soon(a.mesh.connect(b.id)).await.unwrap();
    until("b knows a", || b.mesh.is_connected(a.id)).await;
    assert_eq!(a.mesh.peer(b.id).unwrap().clock_ahead_ms, None);
    assert_eq!(b.mesh.peer(a.id).unwrap().clock_ahead_ms, None);
}

#[tokio::test]
async fn a_stranger_is_refused_with_the_cause_and_its_streams_reach_nobody() {
    let world = World::default();
    let (mut a, stranger) = (world.member(1), world.stranger(9));

    let error = soon(stranger.mesh.connect(a.id)).await.unwrap_err();
    let DialError::Refused(refusal) = error else { panic!("{error:?}") };
    assert_eq!(
        (refusal.code, refusal.message.as_str()),
        (RefusalCode::NotMember, "not in the roster")
    );
    assert_eq!(refusal.evidence, vec![ByteBuf::from(b"evidence".to_vec())]);
    assert_eq!(*stranger.gate.refused.lock().unwrap(), vec![(a.id, refusal)]);

    // The stranger now sends at once, without waiting for an answer.
    let connection = stranger.raw(&a).await;
    connection.send_datagram(Bytes::from_static(b"early")).unwrap();
    let hello = stranger.gate.hello().unwrap().encode();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    write_frame(&mut send, &hello, usize::MAX).await.unwrap();
    // A caller may open no more streams until it is welcome, and the stranger never is.
    assert!(soon(connection.open_uni()).await.is_err());
    assert!(soon(connection.open_bi()).await.is_err());
    assert_eq!(closed_with(&connection).await, CloseCode::Refused);
    assert!(!a.mesh.is_connected(stranger.id));
    assert!(a.datagrams.try_recv().is_err());
    assert!(a.messages.try_recv().is_err());
    assert!(a.sessions.try_recv().is_err());
    assert_eq!(a.mesh.totals().refused, 2);
}

#[tokio::test]
async fn one_that_says_nothing_or_nonsense_is_closed() {
    let world = World::default();
    let (a, b) = (world.member(1), world.member(2));
    let silent = b.raw(&a).await;
    let claims = b.raw(&a).await;
    let (mut send, _recv) = claims.open_bi().await.unwrap();
    send.write_all(&[0xff; 8]).await.unwrap();
    assert_eq!(closed_with(&claims).await, CloseCode::Protocol);
    let babbles = b.raw(&a).await;
    let (mut send, mut recv) = babbles.open_bi().await.unwrap();
    write_frame(&mut send, b"hi", 100).await.unwrap();
    let answer = soon(read_frame(&mut recv, 1000)).await.unwrap().unwrap();
    let answer = peerage_proto::wire::Answer::decode(&answer).unwrap();
    let peerage_proto::wire::Answer::Refusal(refusal) = answer else { panic!("{answer:?}") };
    assert_eq!(refusal.code, RefusalCode::Malformed);
    drop(recv);
    assert_eq!(closed_with(&babbles).await, CloseCode::Refused);
    assert_eq!(closed_with(&silent).await, CloseCode::TooSlow);
    assert!(!a.mesh.is_connected(b.id));
}

#[tokio::test]
async fn nodes_of_different_data_centers_and_standalone_ones_refuse_each_other() {
    let world = World::default();
    let (a, b) = (world.member(1), world.member(2));
    let refused_with = async |from: &Node, to: &Node| match soon(from.mesh.connect(to.id)).await {
        Err(DialError::Refused(refusal)) => refusal.code,
        other => panic!("{other:?}"),
    };
    b.gate.change(|hello| hello.datacenter = DataCenterId([8; 16]));
    assert_eq!(refused_with(&a, &b).await, RefusalCode::WrongDataCenter);
    assert_eq!(refused_with(&b, &a).await, RefusalCode::WrongDataCenter);

    *b.gate.hello.lock().unwrap() = None;
    assert_eq!(refused_with(&a, &b).await, RefusalCode::Standalone);
    assert!(matches!(soon(b.mesh.connect(a.id)).await, Err(DialError::Standalone)));

    let c = world.member(3);
    c.gate.change(|hello| hello.wire_version = 0);
    assert_eq!(refused_with(&c, &a).await, RefusalCode::Version);
    assert!(matches!(soon(a.mesh.connect(c.id)).await, Err(DialError::RefusedHere(refusal))
        if refusal.code == RefusalCode::Version));
}
