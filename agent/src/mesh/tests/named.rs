//! Nodes whose address is a host name, and hosts that have each other's addresses.

use super::*;

fn named(name: &str, node: &Node) -> Address {
    format!("{name}:{}", node.address().port()).parse().unwrap()
}

#[tokio::test]
async fn a_node_is_reached_where_its_name_leads_and_found_again_when_that_changes() {
    let world = World::default();
    let (a, b) = (world.member(1), world.member(2));
    world.names.set("b.lan", &["127.0.0.1"]);
    world.tell(b.id, vec![named("b.lan", &b)]);
    soon(a.mesh.connect(b.id)).await.unwrap();
    assert_eq!(a.mesh.peer(b.id).unwrap().path, Path::Direct(b.address()));

    // b comes back at another address, with the same port, and its name then leads there.
    let port = b.address().port();
    b.mesh.shutdown(CloseCode::Shutdown, "").await;
    drop(b);
    let b = world.start(2, (Ipv4Addr::new(127, 0, 0, 3), port).into(), 2);
    until("a forgot b", || !a.mesh.is_connected(b.id)).await;
    world.names.set("b.lan", &["127.0.0.3"]);

    let found = async {
        while let Err(error) = a.mesh.connect(b.id).await {
            assert!(matches!(error, DialError::Unreachable { .. }), "{error}");
        }
    };
    timeout(2 * BOUND, found).await.unwrap();

    assert_eq!(a.mesh.peer(b.id).unwrap().path, Path::Direct(b.address()));
}

#[tokio::test]
async fn a_name_that_leads_nowhere_holds_up_no_other_address() {
    let world = World::default();
    let (a, b) = (world.member(1), world.member(2));
    world.names.take(Duration::from_secs(3600));
    world.tell(b.id, vec![named("b.lan", &b), b.address().into()]);
    let before = Instant::now();
    soon(a.mesh.connect(b.id)).await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    assert_eq!(a.mesh.peer(b.id).unwrap().path, Path::Direct(b.address()));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_said() {
    let world = World::default();
    let (a, b) = (world.member(1), world.member(2));
    world.tell(b.id, vec![named("b.lan", &b)]);
    let error = soon(a.mesh.connect(b.id)).await.unwrap_err();
    assert!(matches!(error, DialError::Unresolved(_)), "{error:?}");
    let told = error.to_string();
    assert!(told.starts_with("b.lan does not resolve: Name or service not known"), "{told}");
    assert!(told.contains("/etc/hosts"), "{told}");

    // If there is a silent address as well, the error tells of both.
    let nowhere = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), 9));
    world.cuts.cut_address(nowhere);
    world.tell(b.id, vec![named("b.lan", &b), nowhere.into()]);
    let error = soon(a.mesh.connect(b.id)).await.unwrap_err().to_string();
    assert!(
        error.contains("does not resolve") && error.contains("127.0.0.9:9 (silent)"),
        "{error}"
    );
}

#[tokio::test]
async fn a_joiner_dials_its_seed_where_its_name_leads() {
    let world = World::default();
    let (seed, joiner) = (world.member(1), world.stranger(9));
    // Nobody is at the first address of the name.
    world.names.set("seed.lan", &["127.0.0.9", "127.0.0.1"]);
    let silent = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), seed.address().port()));
    world.cuts.cut_address(silent);
    let at = [named("seed.lan", &seed)];
    let connection = soon(joiner.mesh.dial_join(seed.id, &at)).await.unwrap();
    assert_eq!(connection.remote_address(), seed.address());
    // The error tells with each address which name led to it.
    let error = soon(joiner.mesh.dial_join(NodeId([3; 32]), &at)).await.unwrap_err();
    assert!(matches!(error, DialError::WrongKey { is_self: false, .. }), "{error}");
    world.names.set("other.lan", &["127.0.0.9"]);
    let at = [format!("other.lan:{}", silent.port()).parse().unwrap()];
    let error = soon(joiner.mesh.dial_join(NodeId([3; 32]), &at)).await.unwrap_err().to_string();
    assert!(error.contains(&format!("{silent} of other.lan (silent)")), "{error}");
}

/// A host had the address of a member on a bridge of its own, so its dial of that address reached
/// itself. It then believed that the member had another identity, and nobody dialled the member any
/// more.
#[tokio::test]
async fn that_an_address_is_this_hosts_own_tells_nothing_of_the_node() {
    let world = World::default();
    let (a, b) = (world.member(1), world.member(2));
    let nowhere = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), 9));
    world.cuts.cut_address(nowhere);
    for places in [vec![a.address(), nowhere], vec![nowhere, a.address()]] {
        world.place(b.id, places);
        let error = soon(a.mesh.connect(b.id)).await.unwrap_err();
        let DialError::Unreachable { .. } = &error else { panic!("{error:?}") };
        let told = error.to_string();
        assert!(told.contains(&format!("{} (that address is this very host's)", a.address())));
        assert!(told.contains("127.0.0.9:9 (silent)"), "{told}");
    }
    // If that is the only address, the error says only that.
    world.place(b.id, vec![a.address()]);
    let error = soon(a.mesh.connect(b.id)).await.unwrap_err();
    assert!(matches!(error, DialError::WrongKey { is_self: true, .. }), "{error:?}");
    assert_eq!(error.to_string(), "that address is this very host's");
    // If another host answers at one of the addresses, the error tells that.
    let c = world.member(3);
    world.place(b.id, vec![c.address(), a.address()]);
    let error = soon(a.mesh.connect(b.id)).await.unwrap_err();
    assert!(matches!(error, DialError::WrongKey { is_self: false, .. }), "{error:?}");
}
