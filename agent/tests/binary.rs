//! The binary, for what only a process shows: its exit code, its streams, its environment.

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};

#[test]
fn alone_it_teaches_the_way_in() {
    let output = peerage(&[], &[]);
    assert_eq!(output.status.code(), Some(0));
    for words in ["  peerage create NAME ", "  peerage invite ", "  peerage join "] {
        assert!(out(&output).contains(words), "{}", out(&output));
        assert!(out(&peerage(&["--help"], &[])).contains(words));
    }
}

#[test]
fn wrong_words_with_json_are_told_as_json() {
    for words in [["--json", "nonsense"], ["create", "--json"]] {
        let output = peerage(&words, &[]);
        assert_eq!(output.status.code(), Some(2));
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(error["code"], "bad_request", "{error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn the_socket_comes_from_the_flag_or_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (flag, variable) = (path("flag.sock"), path("env.sock"));
    let output = peerage(&["status"], &[("PEERAGE_SOCKET", &variable)]);
    assert_eq!(output.status.code(), Some(5));
    assert!(err(&output).contains(&variable), "{}", err(&output));
    let output = peerage(&["status", "--socket", &flag], &[("PEERAGE_SOCKET", &variable)]);
    assert!(err(&output).contains(&flag), "{}", err(&output));
}

#[test]
fn the_configuration_is_shown_with_its_sources() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("peerage.toml");
    let name = file.display().to_string();
    fs::write(&file, "group = \"wheel\"\n").unwrap();
    let words = ["config", "show", "--json", "--config", &name];
    let output = peerage(&words, &[("PEERAGE_LOG", "debug")]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let setting = |key: &str| {
        let found = shown.as_array().unwrap().iter().find(|setting| setting["key"] == key);
        found.unwrap_or_else(|| panic!("no {key} in {shown}")).clone()
    };
    assert_eq!(setting("group"), json!({"key": "group", "value": "wheel", "source": name}));
    assert_eq!(setting("log")["source"], "the environment variable PEERAGE_LOG");
    assert_eq!(setting("advertise")["value"], json!([]));

    fs::write(&file, "groop = \"wheel\"\n").unwrap();
    let output = peerage(&words[..2], &[("PEERAGE_CONFIG", &name)]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("\"groop\"") && err(&output).contains(&name), "{}", err(&output));
}

#[test]
fn a_variable_of_another_program_is_warned_of_and_stops_nothing() {
    let variables = [("PEERAGE_PORT_4747_UDP", "udp://10.96.0.7:4747"), ("PEERAGE_LOG", "debug")];
    let output = peerage(&["config", "show", "--json", "--config", "/dev/null"], &variables);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(err(&output).contains("PEERAGE_PORT_4747_UDP"), "{}", err(&output));
    assert!(!err(&output).contains("PEERAGE_LOG"), "{}", err(&output));
    assert!(out(&output).contains("\"debug\""), "{}", out(&output));
}

/// Runs the binary with these variables of ours and no other.
fn peerage(words: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peerage"));
    command.args(words).env_clear().envs(variables.iter().copied());
    command.output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
