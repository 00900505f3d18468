//! What members exchange: datagrams, messages, frames and sessions, each within its bound.

use quinn::VarInt;

use peerage_proto::wire::StreamCode;

use super::*;

#[tokio::test]
async fn two_peers_exchange_a_datagram_a_message_a_session_and_frames() {
    let world = World::default();
    let (a, mut b) = (world.member(1), world.member(2));

    a.mesh.send_datagram(b.id, Bytes::from_static(b"ping"));
    let datagram = soon(b.datagrams.recv()).await.unwrap();
    assert_eq!((datagram.from, &datagram.bytes[..]), (a.id, b"ping".as_slice()));

    let whole = Bytes::from(vec![7; StreamKind::Chitchat.frame_bytes_max()]);
    a.mesh.send_message(b.id, StreamKind::Chitchat, whole.clone());
    let message = soon(b.messages.recv()).await.unwrap();
    assert_eq!((message.from, message.bytes), (a.id, whole));

    for number in 0..1000u32 {
        assert!(a.mesh.push(b.id, Bytes::copy_from_slice(&number.to_be_bytes())));
    }
    for number in 0..1000u32 {
        let frame = soon(b.frames.recv()).await.unwrap();
        assert_eq!((frame.from, &frame.bytes[..]), (a.id, number.to_be_bytes().as_slice()));
    }

    let (mut send, mut recv) = soon(a.mesh.open(b.id, StreamKind::Sync)).await.unwrap();
    let mut session = soon(b.sessions.recv()).await.unwrap();
    assert_eq!(session.from, a.id);
    soon(write_frame(&mut send, b"question", 100)).await.unwrap();
    let question = soon(read_frame(&mut session.recv, 100)).await.unwrap().unwrap();
    soon(write_frame(&mut session.send, &question, 100)).await.unwrap();
    session.send.finish().unwrap();
    assert_eq!(soon(read_frame(&mut recv, 100)).await.unwrap().unwrap(), "question");
    assert!(soon(read_frame(&mut recv, 100)).await.unwrap().is_none());

    let status = b.mesh.peer(a.id).unwrap();
    assert_eq!((status.boot, status.dialled), (a.boot, false));
    assert_eq!(status.path.address().unwrap().port(), a.mesh.local_address().unwrap().port());
    assert!(status.clock_ahead_ms.unwrap_or_default().abs() < 1000, "{status:?}");
    let (out, into) = (a.mesh.totals(), b.mesh.totals());
    assert_eq!((out.dials, out.connections, into.connections), (1, 1, 1));
    assert_eq!((out.frames_out, into.frames_in), (1000, 1000));
    assert!(into.bytes_in > 64 * 1024 && out.bytes_out > 64 * 1024);
}

#[tokio::test]
async fn a_stream_of_an_unknown_kind_is_refused_and_nothing_else() {
    let world = World::default();
    let (a, mut b) = (world.member(1), world.member(2));
    soon(a.mesh.connect(b.id)).await.unwrap();
    let connection = a.mesh.pool.peer(b.id).unwrap().connection.clone();
    let unknown = VarInt::from_u32(StreamCode::UnknownKind.number());

    let mut uni = connection.open_uni().await.unwrap();
    uni.write_all(&[200, 1, 2, 3]).await.unwrap();
    assert_eq!(soon(uni.stopped()).await.unwrap(), Some(unknown));
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&[201]).await.unwrap();
    let error = soon(recv.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error, quinn::ReadError::Reset(unknown));
    // This kind is known, but nobody serves it at b.
    let (_send, mut recv) = soon(a.mesh.open(b.id, StreamKind::InviteUses)).await.unwrap();
    let error = soon(recv.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error, quinn::ReadError::Reset(unknown));

    let mut long = connection.open_uni().await.unwrap();
    let message = vec![StreamKind::Chitchat.byte(); StreamKind::Chitchat.frame_bytes_max() + 2];
    let _ = soon(long.write_all(&message)).await;
    let too_long = VarInt::from_u32(StreamCode::TooLong.number());
    assert_eq!(soon(long.stopped()).await.unwrap(), Some(too_long));
    assert!(b.messages.try_recv().is_err());

    a.mesh.send_datagram(b.id, Bytes::from_static(b"goes on"));
    assert_eq!(soon(b.datagrams.recv()).await.unwrap().bytes, "goes on");

    // A push stream cannot go on after a frame that is over its bound.
    let mut push = connection.open_uni().await.unwrap();
    push.write_all(&[StreamKind::Push.byte(), 0xff, 0xff, 0xff, 0xff]).await.unwrap();
    assert_eq!(closed_with(&connection).await, CloseCode::Protocol);
}

#[tokio::test]
async fn full_queues_drop_or_refuse_and_hold_up_nobody() {
    let world = World::default();
    let (a, mut b) = (world.member(1), world.member(2));
    soon(a.mesh.connect(b.id)).await.unwrap();
    for _ in 0..QUEUE + 10 {
        a.mesh.send_datagram(b.id, Bytes::from_static(b"x"));
        let peer = a.mesh.pool.peer(b.id).unwrap();
        until("it left", || peer.connection.datagram_send_buffer_space() > 60_000).await;
        a.mesh.send_message(b.id, StreamKind::Chitchat, Bytes::from_static(b"y"));
    }
    let seen = || b.mesh.totals();
    until("all messages came or were dropped at a", || {
        let at_b = seen();
        at_b.messages_in + a.mesh.totals().messages_dropped == (QUEUE + 10) as u64
            && at_b.datagrams_in > QUEUE as u64
    })
    .await;
    assert!(seen().datagrams_dropped > 0 && seen().datagrams_dropped < 20, "{:?}", seen());
    assert_eq!(seen().messages_dropped, seen().messages_in - QUEUE as u64);

    let mut open = Vec::new();
    for _ in 0..SESSIONS_WAITING {
        open.push(soon(a.mesh.open(b.id, StreamKind::Sync)).await.unwrap());
    }
    let (_send, mut recv) = soon(a.mesh.open(b.id, StreamKind::Sync)).await.unwrap();
    let busy = VarInt::from_u32(StreamCode::Busy.number());
    assert_eq!(soon(recv.read(&mut [0; 8])).await.unwrap_err(), quinn::ReadError::Reset(busy));
    assert!(a.mesh.push(b.id, Bytes::from_static(b"a frame")));
    assert_eq!(soon(b.frames.recv()).await.unwrap().bytes, "a frame");
}

#[tokio::test]
async fn what_is_over_its_bound_is_not_sent() {
    let world = World::default();
    let (a, mut b) = (world.member(1), world.member(2));
    let long = vec![0; StreamKind::Push.frame_bytes_max() + 1];
    assert!(!a.mesh.push(b.id, long.into()));
    a.mesh.send_message(b.id, StreamKind::Chitchat, vec![0; 65 * 1024].into());
    let whole = Bytes::from(vec![5; StreamKind::Push.frame_bytes_max()]);
    assert!(a.mesh.push(b.id, whole.clone()));
    assert_eq!(soon(b.frames.recv()).await.unwrap().bytes, whole);
    let totals = a.mesh.totals();
    assert_eq!((totals.frames_dropped, totals.messages_dropped), (1, 1));
}

#[tokio::test]
async fn a_peer_that_takes_no_frames_loses_its_connection_and_others_go_on() {
    let world = World::default();
    let (mut a, mut slow, mut good) = (world.member(1), world.member(2), world.member(3));
    soon(a.mesh.connect(slow.id)).await.unwrap();
    soon(a.mesh.connect(good.id)).await.unwrap();
    let _ = (a.events.try_recv(), a.events.try_recv(), slow.events.recv().await);

    let frame = Bytes::from(vec![1; 64 * 1024]);
    let most = (OUTBOX_BYTES_MAX + 16 * 1024 * 1024) / frame.len();
    let mut taken = 0;
    while taken < most && a.mesh.push(slow.id, frame.clone()) {
        taken += 1;
        assert!(a.mesh.push(good.id, frame.clone()));
        let got = soon(good.frames.recv()).await.unwrap();
        assert_eq!((got.from, got.bytes.len()), (a.id, frame.len()));
    }
    assert!(taken >= OUTBOX_BYTES_MAX / frame.len() - 1, "{taken}");
    assert!(taken < most, "the outbox has no bound");
    let lost = soon(a.events.recv()).await.unwrap();
    assert!(
        matches!(lost, Event::Disconnected { peer, reason: DisconnectReason::Here { code: CloseCode::Overrun, .. } }
        if peer == slow.id),
        "{lost:?}"
    );
    let told = soon(slow.events.recv()).await.unwrap();
    assert!(
        matches!(
            told,
            Event::Disconnected {
                reason: DisconnectReason::ByPeer { code: CloseCode::Overrun, .. },
                ..
            }
        ),
        "{told:?}"
    );
    assert!(a.mesh.is_connected(good.id));
    assert_eq!(a.mesh.totals().overruns, 1);
}
