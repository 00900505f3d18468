//! The mesh over real QUIC on loopback, with a gate in memory.

mod cuts;
mod detours;
mod named;
mod narrow;
mod paths;

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quinn::{ConnectionError, VarInt};
use serde_bytes::ByteBuf;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, timeout};

use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::identity::Keypair;
use peerage_proto::wire::{
    ALPN_MEMBER, CloseCode, Hello, Refusal, RefusalCode, StreamCode, StreamKind, WIRE_VERSION,
};

use super::dial::{BACKOFF_MAX, BACKOFF_MIN, DIAL_TIMEOUT};
use super::door::SILENT_JOINS_MAX;
use super::hello::greet;
use super::*;
use crate::resolver::tests::Zone;
use cuts::Cuts;

/// How long anything here may take; far above what it does take.
const BOUND: Duration = Duration::from_secs(10);

const QUEUE: usize = 64;

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

/// The one was just joining and kept the other waiting: its clock passed for one that is off by the
/// length of the wait.
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

    // One that does not wait for the answer, nor for its turn.
    let connection = stranger.raw(&a).await;
    connection.send_datagram(Bytes::from_static(b"early")).unwrap();
    let hello = stranger.gate.hello().unwrap().encode();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    write_frame(&mut send, &hello, usize::MAX).await.unwrap();
    // It may open nothing more until it is welcome, and it never is.
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
        // One that finds the other's connection there before it has said hello gives way.
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
    assert!(raced >= 12, "only {raced} of 24 pairs dialled each other at once");
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
    // Its port may refuse while it is away.
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
async fn a_connection_that_is_given_up_is_no_goodbye() {
    let world = World::default();
    let (a, mut b) = (world.member(1), world.member(2));
    let connection = a.raw(&b).await;
    let dial = greet(&connection, b.id, None, &*a.mesh.pool.gate);
    soon(dial).await.unwrap();
    assert!(matches!(soon(b.events.recv()).await.unwrap(), Event::Connected { .. }));
    // As a dial does that is overtaken by another one.
    drop(connection);
    let event = soon(b.events.recv()).await.unwrap();
    let Event::Disconnected { reason: DisconnectReason::ByPeer { code, .. }, .. } = event else {
        panic!("{event:?}")
    };
    assert_eq!(code, CloseCode::Dropped);
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

    // Nor does the node have to rest once it was dialled by the one that it could not reach.
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
    // Known, but served by nobody here.
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
    // One that ends makes room; and a seed dials back the same way.
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

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

const SESSIONS_WAITING: usize = 4;

/// All nodes of a test, who is a member, and where they are.
#[derive(Default, Clone)]
struct World {
    members: Arc<Mutex<HashSet<NodeId>>>,
    places: Arc<Mutex<HashMap<NodeId, Vec<Address>>>>,
    cuts: Cuts,
    names: Zone,
}

struct Node {
    id: NodeId,
    boot: u64,
    mesh: Mesh,
    gate: Arc<TestGate>,
    datagrams: mpsc::Receiver<Datagram>,
    messages: mpsc::Receiver<Message>,
    frames: mpsc::Receiver<Frame>,
    sessions: mpsc::Receiver<Session>,
    joins: mpsc::Receiver<IncomingJoin>,
    events: broadcast::Receiver<Event>,
}

impl World {
    fn member(&self, number: u8) -> Node {
        let node = self.start(number, LOCAL, 1);
        self.place(node.id, vec![node.address()]);
        node
    }

    fn stranger(&self, number: u8) -> Node {
        let node = self.member(number);
        self.members.lock().unwrap().remove(&node.id);
        node
    }

    fn start(&self, number: u8, address: SocketAddr, boot: u64) -> Node {
        let keypair = Keypair::from_seed([number; 32]);
        let id = keypair.node_id();
        self.members.lock().unwrap().insert(id);
        let hello = Hello {
            wire_version: WIRE_VERSION,
            datacenter: DataCenterId([1; 16]),
            name: format!("node{number}"),
            boot,
            wall_ms: 0,
            addresses: Vec::new(),
            proof: Vec::new(),
            supersedes: None,
            carries: true,
            instance: Some(boot),
            machine: None,
            only_looks: false,
            digest: None,
            version: None,
        };
        let gate = Arc::new(TestGate {
            hello: Mutex::new(Some(hello)),
            members: self.members.clone(),
            refused: Mutex::default(),
            settles_in: Mutex::default(),
            heard: Mutex::default(),
        });
        let mut router = Router::new();
        let datagrams = router.datagrams(QUEUE);
        let messages = router.messages(StreamKind::Chitchat, QUEUE);
        let frames = router.frames(QUEUE);
        let sessions = router.sessions(StreamKind::Sync, SESSIONS_WAITING);
        let joins = router.joins(QUEUE);
        let places = self.places.clone();
        let addresses =
            move |peer: NodeId| places.lock().unwrap().get(&peer).cloned().unwrap_or_default();
        let underlay = self.cuts.under(Underlay::bind(address).unwrap());
        let underlay = Underlay { names: self.names.resolver(), ..underlay };
        let mesh = Mesh::start(&keypair, underlay, gate.clone(), addresses, router).unwrap();
        let events = mesh.events();
        Node { id, boot, mesh, gate, datagrams, messages, frames, sessions, joins, events }
    }

    fn place(&self, node: NodeId, addresses: Vec<SocketAddr>) {
        self.tell(node, addresses.into_iter().map(Address::Ip).collect());
    }

    fn tell(&self, node: NodeId, addresses: Vec<Address>) {
        self.places.lock().unwrap().insert(node, addresses);
    }
}

impl Node {
    fn address(&self) -> SocketAddr {
        self.mesh.local_address().unwrap()
    }

    /// A connection to a node past the handshake, on which nothing was said.
    async fn raw(&self, to: &Self) -> quinn::Connection {
        let dialler = &self.mesh.pool.dialler;
        soon(dialler.race(to.id, ALPN_MEMBER, &[to.address().into()])).await.unwrap()
    }
}

/// A roster in memory.
struct TestGate {
    hello: Mutex<Option<Hello>>,
    members: Arc<Mutex<HashSet<NodeId>>>,
    refused: Mutex<Vec<(NodeId, Refusal)>>,
    settles_in: Mutex<Duration>,
    /// From where each node spoke last.
    heard: Mutex<HashMap<NodeId, SocketAddr>>,
}

impl TestGate {
    fn change(&self, change: impl FnOnce(&mut Hello)) {
        change(self.hello.lock().unwrap().as_mut().unwrap());
    }
}

impl Gate for TestGate {
    async fn settled(&self) {
        let wait = *self.settles_in.lock().unwrap();
        tokio::time::sleep(wait).await;
    }

    fn hello(&self) -> Option<Hello> {
        // In a test `wall_ms` is how far the clock is ahead.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let mut hello = self.hello.lock().unwrap().clone()?;
        hello.wall_ms += now.as_millis() as u64;
        Some(hello)
    }

    async fn judge(&self, peer: NodeId, hello: &Hello, remote: SocketAddr) -> Verdict {
        self.heard.lock().unwrap().insert(peer, remote);
        let ours = self.hello.lock().unwrap().as_ref().map(|ours| ours.datacenter);
        if ours.is_none() {
            return Verdict::Refuse(Refusal::new(RefusalCode::Standalone, "nowhere"));
        }
        if ours != Some(hello.datacenter) {
            return Verdict::Refuse(Refusal::new(RefusalCode::WrongDataCenter, "elsewhere"));
        }
        if !self.members.lock().unwrap().contains(&peer) {
            let mut refusal = Refusal::new(RefusalCode::NotMember, "not in the roster");
            refusal.evidence.push(ByteBuf::from(b"evidence".to_vec()));
            return Verdict::Refuse(refusal);
        }
        Verdict::Welcome
    }

    fn refused(&self, peer: NodeId, refusal: Refusal) {
        self.refused.lock().unwrap().push((peer, refusal));
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(BOUND, future).await.expect("it took too long")
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < BOUND, "never true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn closed_with(connection: &quinn::Connection) -> CloseCode {
    match soon(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => CloseCode::from(close.error_code.into_inner()),
        other => panic!("{other:?}"),
    }
}
