use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{
    Config, ConfigError, Environment, Flags, JoinSource, Listen, client_socket, short_name,
};

#[test]
fn the_later_layer_wins_value_by_value() {
    let (_folder, file) = written("name = 'from-file'\ngroup = 'wheel'\nlisten = '0.0.0.0:1'\n");
    let environment = environment(&[("PEERAGE_NAME", "from-env"), ("PEERAGE_LISTEN", "[::1]:2")]);
    let flags = Flags { config: Some(file), listen: Some("[::1]:3".into()), ..Flags::default() };
    let config = Config::load(&flags, &environment).unwrap();
    assert_eq!(config.group, "wheel");
    assert_eq!(config.name, Some("from-env".parse().unwrap()));
    assert_eq!(config.listen, Listen::At("[::1]:3".parse().unwrap()));
    assert_eq!(config.data_dir, Path::new("/var/lib/peerage"));
}

#[test]
fn each_value_tells_its_source() {
    let (_folder, file) =
        written("group = 'wheel'\nadvertise = ['192.0.2.7', '[2001:db8::7]:9']\n");
    let source = file.display().to_string();
    let flags = Flags { config: Some(file), name: Some("n".into()), ..Flags::default() };
    let config = Config::load(&flags, &environment(&[("PEERAGE_JOIN", "peerage1-x")])).unwrap();
    let shown = |key| config.shown().iter().find(|shown| shown.key == key).unwrap().clone();
    assert_eq!(shown("group").source, source);
    assert_eq!(shown("advertise").value, ["192.0.2.7", "[2001:db8::7]:9"]);
    assert_eq!(shown("name").source, "the flag --name");
    assert_eq!(shown("log").source, "default");
    assert_eq!(shown("join").source, "the environment variable PEERAGE_JOIN");
    assert_eq!(shown("join").value, ["(given, not shown)"], "a token is a secret");
    assert!(!format!("{config:?}").contains("peerage1-x"));
    assert_eq!(config.join, Some(JoinSource::Token("peerage1-x".into())));
}

#[test]
fn an_unknown_key_is_an_error_that_names_it_and_its_file() {
    let (_folder, file) = written("data-dir = '/x'\n");
    let name = file.display().to_string();
    let error = load(file, &[]).unwrap_err();
    assert!(error.contains("\"data-dir\"") && error.contains(&name), "{error}");
    assert!(error.contains("data_dir"), "{error}");
}

#[test]
fn a_variable_that_names_no_key_is_warned_of_and_changes_nothing() {
    let given = [
        ("PEERAGE_LISTN", "x"),
        ("PEERAGE_PORT", "tcp://10.96.0.7:4747"),
        ("PEERAGE_SERVICE_HOST", "10.96.0.7"),
        ("PEERAGE_NAME", "pve-7"),
        ("PEERAGE_CONFIG", ""),
        ("PEERAGES", "x"),
    ];
    let (_folder, file) = written("");
    let flags = Flags { config: Some(file), ..Flags::default() };
    let config = Config::load(&flags, &environment(&given)).unwrap();
    assert_eq!(config.name, Some("pve-7".parse().unwrap()));
    let warning = config.warning().unwrap();
    assert!(
        warning.contains(": PEERAGE_LISTN, PEERAGE_PORT, PEERAGE_SERVICE_HOST;"),
        "all are named, and no other: {warning}"
    );
    assert!(warning.contains("peerage config show"), "{warning}");
    assert_eq!(Config::load(&flags, &environment(&given[3..])).unwrap().warning(), None);

    let many: Vec<String> = (10..30).map(|n| format!("PEERAGE_{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "")).collect();
    let warning = Config::load(&flags, &environment(&many)).unwrap().warning().unwrap();
    assert!(warning.contains("PEERAGE_17 and 12 more"), "{warning}");
}

#[test]
fn a_file_that_a_failing_disk_keeps_back_is_no_wrong_configuration() {
    let error = |source: io::Error| ConfigError::Unreadable { file: "/x".into(), source };
    assert!(!error(io::Error::from_raw_os_error(5)).is_final(), "EIO passes");
    assert!(error(io::ErrorKind::PermissionDenied.into()).is_final());
    let missing = Flags { config: Some("/no/such/file".into()), ..Flags::default() };
    assert!(Config::load(&missing, &environment(&[])).unwrap_err().is_final());
}

#[test]
fn a_file_of_another_system_is_read_as_it_is_meant() {
    let text = "\u{feff}# mine\r\nname = 'pve-7'\r\n[[link]]\r\naddress = '10.0.1.5' # storage\r\n";
    let (_folder, file) = written(text);
    let read =
        |file| Config::load(&Flags { config: Some(file), ..Flags::default() }, &environment(&[]));
    assert_eq!(read(file.clone()).unwrap().name, Some("pve-7".parse().unwrap()));
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(&file, wide).unwrap();
    assert_eq!(read(file.clone()).unwrap().name, Some("pve-7".parse().unwrap()));
    fs::write(&file, b"name = '\xff'").unwrap();
    let error = read(file.clone()).unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()) && error.contains("UTF-8"), "{error}");
}

#[test]
fn what_changed_is_told_with_when_it_holds() {
    let (_folder, file) = written("log = 'info'\njoin = 'peerage1-x'\n");
    let flags = Flags { config: Some(file.clone()), ..Flags::default() };
    let load = || Config::load(&flags, &environment(&[])).unwrap();
    let before = load();
    assert_eq!(before.told_of(&load()), "the log stays at \"info\"; nothing else has changed");
    fs::write(&file, "log = 'debug'\njoin = 'peerage1-y'\nname = 'pve-7'\n").unwrap();
    assert_eq!(
        before.told_of(&load()),
        "the log is at \"debug\" now; what changed of name, join holds from the next start"
    );
}

#[test]
fn a_nodes_name_is_the_first_label_of_its_hosts_and_never_a_part_of_an_address() {
    for (host, name) in [
        ("web1", "web1"),
        ("web1.example.org", "web1"),
        ("Web1.", "Web1"),
        ("localhost.localdomain", "localhost"),
        ("10.0.0.1", "10.0.0.1"),
        ("fd00::1", "fd00::1"),
        ("", ""),
    ] {
        assert_eq!(short_name(host), name);
    }
}

#[test]
fn a_socket_whose_path_is_too_long_is_told_by_its_length_and_its_source() {
    let text = format!("socket = '/{}'\n", "x".repeat(107));
    let (_folder, file) = written(&text);
    let name = file.display().to_string();
    let error = load(file, &[]).unwrap_err();
    for word in ["socket", &name, "108 bytes", "107 at most", "--socket"] {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
    let long = text.trim_start_matches("socket = '").trim_end_matches("'\n").to_owned();
    let error = Config::load(&Flags::default(), &environment(&[("PEERAGE_SOCKET", &long)]));
    assert!(error.unwrap_err().to_string().contains("PEERAGE_SOCKET"));
    let fits = Flags { socket: Some(long[..107].into()), ..Flags::default() };
    assert!(Config::load(&fits, &Environment::new()).is_ok());
}

#[test]
fn a_wrong_value_is_an_error_that_says_what_is_expected() {
    for (text, words) in [
        ("name = 5\n", ["name", "string"]),
        ("listen = 'here'\n", ["listen", "ADDRESS:PORT"]),
        ("advertise = ['0.0.0.0']\n", ["advertise", "nobody can be found"]),
        ("advertise = '192.0.2.7'\n", ["advertise", "sequence"]),
        ("socket = ''\n", ["socket", "empty"]),
        ("name = \n", ["not TOML", "line 1"]),
    ] {
        let (_folder, file) = written(text);
        let name = file.display().to_string();
        let error = load(file, &[]).unwrap_err();
        assert!(error.contains(&name), "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}

#[test]
fn a_file_that_was_named_must_exist() {
    let error = load("/no/such/file.toml".into(), &[]).unwrap_err();
    assert!(error.contains("/no/such/file.toml"), "{error}");
}

#[test]
fn one_way_to_join_is_enough() {
    let (_folder, file) = written("join_file = '/x'\n");
    let error = load(file, &[("PEERAGE_JOIN", "peerage1-x")]).unwrap_err();
    assert!(error.contains("PEERAGE_JOIN") && error.contains("join_file"), "{error}");
    assert!(!error.contains("peerage1-x"), "{error}");
}

#[test]
fn a_list_in_the_environment_is_divided_by_commas() {
    let environment =
        environment(&[("PEERAGE_ADVERTISE", "192.0.2.7, 192.0.2.8:5"), ("PEERAGE_LOG", "")]);
    let config = Config::load(&Flags::default(), &environment).unwrap();
    assert_eq!(config.links.unwrap().0.len(), 2);
    assert_eq!(config.log, "info", "an empty variable says nothing");
}

#[test]
fn links_are_taken_by_priority_and_equal_ones_as_they_stand() {
    let (_folder, file) = written(
        "[[link]]\naddress = 'PVE-1.example.org'\npriority = 2\n\
         [[link]]\naddress = '10.0.2.5:99'\nname = 'storage'\n\
         [[link]]\naddress = '[2001:db8::5]:99'\npriority = 2\n",
    );
    let flags = Flags { config: Some(file.clone()), ..Flags::default() };
    let config = Config::load(&flags, &environment(&[])).unwrap();
    let (links, source) = config.links.clone().unwrap();
    let links: Vec<String> = links.iter().map(ToString::to_string).collect();
    assert_eq!(links, ["10.0.2.5:99@1 (storage)", "pve-1.example.org@2", "[2001:db8::5]:99@2"]);
    assert_eq!(source, file.display().to_string());
    let shown = config.shown().iter().find(|shown| shown.key == "link").unwrap();
    assert_eq!(
        shown.value,
        ["pve-1.example.org@2", "10.0.2.5:99@1 (storage)", "[2001:db8::5]:99@2"]
    );
    assert_eq!(shown.source, source);
}

#[test]
fn what_is_advertised_is_in_order_and_a_later_layer_overrules_the_links_of_a_file() {
    let (_folder, file) = written("[[link]]\naddress = '10.0.1.5'\n");
    let advertise = vec!["10.0.9.9".to_owned(), "10.0.3.3:7".to_owned()];
    let flags = Flags { config: Some(file), advertise, ..Flags::default() };
    let (links, source) = Config::load(&flags, &environment(&[])).unwrap().links.unwrap();
    let links: Vec<String> = links.iter().map(ToString::to_string).collect();
    assert_eq!(
        (links, source.as_str()),
        (vec!["10.0.9.9@1".into(), "10.0.3.3:7@2".into()], "the flag --advertise")
    );
}

#[test]
fn links_that_are_wrong_are_told_with_their_key_and_the_reason() {
    for (text, words) in [
        ("[[link]]\naddress = '10.0.0.300'\n", ["link", "four numbers from 0 to 255"]),
        ("[[link]]\naddress = 'pve_1..lan'\n", ["link", "nothing before one of its dots"]),
        ("[[link]]\naddress = 'fe80::1'\n", ["link", "one cable"]),
        ("[[link]]\naddress = '10.0.1.5'\npriority = 0\n", ["link", "from 1 (the best) to 255"]),
        ("[[link]]\naddress = '10.0.1.5'\npriority = -1\n", ["link", "from 1 (the best) to 255"]),
        ("[[link]]\naddress = '10.0.1.5'\nprio = 1\n", ["prio", "priority"]),
        ("[[link]]\npriority = 1\n", ["link", "address"]),
        ("[link]\naddress = '10.0.1.5'\n", ["link", "sequence"]),
        ("[[link]]\naddress = '10.0.1.5'\n[[link]]\naddress = '10.0.1.5'\n", ["link", "twice"]),
        ("advertise = ['10.0.1.5']\n[[link]]\naddress = '10.0.1.6'\n", ["[[link]]", "one way"]),
    ] {
        let (_folder, file) = written(text);
        let name = file.display().to_string();
        let error = load(file, &[]).unwrap_err();
        assert!(error.contains(&name), "{text}: {error}");
        assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
    }
    let error = Config::load(&Flags::default(), &environment(&[("PEERAGE_LINK", "10.0.1.5")]));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("PEERAGE_LINK") && error.contains("PEERAGE_ADVERTISE"), "{error}");
}

#[test]
fn a_client_finds_the_socket_where_the_agent_does() {
    let (_folder, file) = written("socket = '/from/file'\n");
    let file = file.display().to_string();
    let both = environment(&[("PEERAGE_CONFIG", &file), ("PEERAGE_SOCKET", "/from/env")]);
    let only_file = environment(&[("PEERAGE_CONFIG", &file)]);
    let none = environment(&[("PEERAGE_CONFIG", "/no/such/file")]);
    assert_eq!(client_socket(Some("/flag".into()), &both), Path::new("/flag"));
    assert_eq!(client_socket(None, &both), Path::new("/from/env"));
    assert_eq!(client_socket(None, &only_file), Path::new("/from/file"));
    assert_eq!(client_socket(None, &none), Path::new(super::SOCKET));
    assert_eq!(super::named_file(&environment(&[("PEERAGE_CONFIG", "")])), None);
}

fn load(file: PathBuf, variables: &[(&str, &str)]) -> Result<Config, String> {
    let flags = Flags { config: Some(file), ..Flags::default() };
    Config::load(&flags, &environment(variables)).map_err(|error| error.to_string())
}

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("peerage.toml");
    fs::write(&file, text).unwrap();
    (folder, file)
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
