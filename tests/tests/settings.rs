//! Settings: written on any node, read on every one.

use std::fs;
use std::thread;

use peerage_tests::patience::{LATER, SOON, eventually, until};
use peerage_tests::{Agent, Fleet};
use serde_json::{Value, json};

/// The exit code of a command that was done here, but did not reach all nodes that it waited for.
const NOT_REACHED: i32 = 6;

/// The exit code of a command that found nothing.
const NOT_FOUND: i32 = 3;

/// Documents of a kilobyte that do not fit into one frame, nor into ten.
const MANY: usize = 800;

/// More than a document may take.
const TOO_LARGE: usize = 1 << 20;

#[test]
fn what_is_set_on_one_node_is_read_on_every_node() {
    let fleet = Fleet::found(3);
    for (i, agent) in fleet.iter().enumerate() {
        agent.cli(&["settings", "set", &format!("docs/{i}"), &format!("from={i}")]).exits(0);
    }
    for i in 0..fleet.len() {
        fleet.all_read(&format!("docs/{i}"), &json!({ "from": i }));
    }
    fleet.converged();
}

#[test]
fn a_value_is_json_where_it_reads_as_json_and_else_a_string() {
    let node = founder();
    let given = ["n=7", "flag=true", "list=[1,2]", "text=plain", "quoted=\"7\"", "with=a=b"];
    node.cli(&[&["settings", "set", "a/b"], &given[..]].concat()).exits(0);
    assert_eq!(
        node.fields("a/b"),
        json!({"n": 7, "flag": true, "list": [1, 2], "text": "plain", "quoted": "7", "with": "a=b"})
    );
    // A field prints its bare value, so that a script can take it as it is.
    assert_eq!(node.cli(&["settings", "get", "a/b", "text"]).exits(0).stdout, "plain\n");
    assert_eq!(node.cli(&["settings", "get", "a/b", "n"]).exits(0).stdout, "7\n");
}

#[test]
fn what_is_not_there_ends_with_three() {
    let node = founder();
    node.set("a/b", json!({"x": 1}));
    node.cli(&["settings", "get", "a/c"]).exits(NOT_FOUND).says(&["a/c"]);
    node.cli(&["settings", "get", "a/b", "y"]).exits(NOT_FOUND).says(&["y"]);
    node.cli(&["settings", "get", "a/b", "x"]).exits(0);
}

#[test]
fn a_list_is_in_order_and_can_be_cut_to_a_prefix() {
    let node = founder();
    for path in ["storage/nas2", "network/lan", "storage/nas1"] {
        node.set(path, json!({"of": path}));
    }
    let paths = |prefix: &[&str]| {
        let listed = node.cli(&[&["--json", "settings", "list"], prefix].concat()).exits(0).json();
        let paths = listed.as_array().unwrap().iter().map(|document| document["path"].clone());
        paths.collect::<Vec<_>>()
    };
    assert_eq!(paths(&[]), ["network/lan", "storage/nas1", "storage/nas2"]);
    assert_eq!(paths(&["storage/"]), ["storage/nas1", "storage/nas2"]);
    // A prefix counts letter by letter, as the help says.
    assert_eq!(paths(&["s"]), ["storage/nas1", "storage/nas2"]);
    assert_eq!(paths(&["storage/nas1"]), ["storage/nas1"]);
    assert_eq!(paths(&["torage"]), Vec::<Value>::new());
    let over_http = node.client().get("settings?prefix=n").unwrap();
    assert_eq!(over_http[0]["path"], "network/lan");
    let mut watch = node.events("watch?prefix=sto");
    node.set("network/lan", json!({"of": 1}));
    node.set("storage/nas2", json!({"of": 2}));
    assert_eq!(watch.next(SOON).expect("it begins so").data["path"], "storage/nas2");
    let full = node.cli(&["settings", "list", "--full", "--json"]).exits(0).json();
    assert_eq!(full[0]["meta"]["of"]["writer"], "pve-1");
}

#[test]
fn a_name_is_the_same_however_it_was_typed_and_may_be_of_any_script() {
    let fleet = Fleet::found(2);
    let (whole, apart) = ("caf\u{e9}/t\u{ea}te", "cafe\u{301}/te\u{302}te");
    fleet[0].cli(&["settings", "set", apart, "cle\u{301}=1"]).exits(0);
    fleet.all_read(whole, &json!({"cl\u{e9}": 1}));
    fleet[1].cli(&["settings", "set", whole, "cl\u{e9}=2"]).exits(0);
    fleet.all_read(whole, &json!({"cl\u{e9}": 2}));
    let get = fleet[0].cli(&["settings", "get", apart, "cle\u{301}"]).exits(0);
    assert_eq!(get.stdout, "2\n");
    let listed = fleet[0].cli(&["--json", "settings", "list", "cafe\u{301}"]).exits(0).json();
    assert_eq!(listed.as_array().unwrap().len(), 1);

    // HTTP does as the command does: two spellings of one field's name are not two fields.
    let twice = fleet[0].try_set("a/b", json!({"cl\u{e9}": 1, "cle\u{301}": 2})).unwrap_err();
    assert!(format!("{twice:?}").contains("twice"), "{twice:?}");
    for path in ["ห้องเซิร์ฟเวอร์/ตู้1", "सर्वर/दिल्ली"]
    {
        fleet[0].cli(&["settings", "set", path, "x=1"]).exits(0);
        fleet.all_read(path, &json!({"x": 1}));
    }
    for invisible in ["a\u{200b}b", "a\u{202e}b", "a\u{ad}b", "a\u{200d}b", "a\u{3164}b"] {
        let refused = fleet[0].cli(&["settings", "set", invisible, "x=1"]).exits(2);
        refused.says(&["invisible", "U+"]);
    }
}

#[test]
fn fields_and_documents_are_taken_away_everywhere() {
    let fleet = Fleet::found(2);
    fleet[0].set("a/b", json!({"x": 1, "y": 2}));
    fleet.all_read("a/b", &json!({"x": 1, "y": 2}));

    fleet[1].cli(&["settings", "unset", "a/b", "x"]).exits(0);
    fleet.all_read("a/b", &json!({"y": 2}));

    fleet[0].cli(&["settings", "unset", "a/b"]).exits(0);
    fleet.all_read("a/b", &Value::Null);
    fleet.converged();
    fleet[1].cli(&["settings", "get", "a/b"]).exits(NOT_FOUND);
}

#[test]
fn watching_tells_each_change_once_and_in_order() {
    let fleet = Fleet::found(2);
    let mut watch = fleet[1].events("watch?prefix=w/");
    for i in 0..30 {
        fleet[0].set("w/a", json!({ "i": i }));
        fleet[0].set("other/a", json!({ "i": i }));
    }
    let mut ids = Vec::new();
    for i in 0..30 {
        let event = watch.next(SOON).unwrap_or_else(|| panic!("change {i} was not told"));
        assert_eq!(event.data["path"], "w/a");
        assert_eq!(event.data["set"], json!({ "i": i }));
        assert_eq!(event.data["writer"], "pve-1");
        ids.push(event.id);
    }

    let mut resumed = fleet[1].client().events("watch?prefix=w/", Some(&ids[24])).unwrap();

    for (i, id) in ids.iter().enumerate().skip(25) {
        let event = resumed.next(SOON).unwrap_or_else(|| panic!("change {i} was not told again"));
        assert_eq!((&event.id, &event.data["set"]), (id, &json!({ "i": i })));
    }
}

#[test]
fn an_export_applied_elsewhere_makes_the_same_documents() {
    let (here, there) = (founder(), founder());
    for i in 0..5 {
        here.set(&format!("docs/{i}"), json!({"i": i, "text": "ä\n\"", "deep": {"a": [1, null]}}));
    }
    let export = here.cli(&["settings", "export"]).exits(0).stdout;
    let file = there.file("export.json");
    fs::write(&file, &export).unwrap();

    there.cli(&["settings", "apply", "-f", file.to_str().unwrap()]).exits(0);

    assert_eq!(there.documents(), here.documents());
    let before = there.status()["settings"]["digest"].clone();
    there.cli(&["settings", "apply", "-f", file.to_str().unwrap()]).exits(0);
    assert_eq!(there.status()["settings"]["digest"], before, "nothing was to be done");
}

/// Documents that were applied with one command once came to the other nodes one by one, and the
/// watchers there acted on a part of them.
#[test]
fn what_is_applied_is_told_on_another_node_when_all_of_it_is_there() {
    let fleet = Fleet::found(2);
    let mut watch = fleet[1].events("watch?prefix=many/");
    for round in 0..3 {
        let document = |i| json!({"path": format!("many/{i}"), "fields": {"n": round, "text": "x".repeat(1000)}});
        let all = json!((0..MANY).map(document).collect::<Vec<_>>()).to_string();
        let said =
            fleet[0].cli_with(&["settings", "apply", "-f", "-", "--json"], &all).exits(0).json();
        assert_eq!(said["changed"], MANY);
        for i in 0..MANY {
            let event =
                watch.next(SOON).unwrap_or_else(|| panic!("{i} of round {round} was not told"));
            assert_eq!(event.data["set"]["n"], round);
            if i == 0 {
                let there = fleet[1].documents();
                assert!(
                    there.as_array().unwrap().iter().all(|d| d["fields"]["n"] == round),
                    "{event:?}"
                );
                assert_eq!(there.as_array().unwrap().len(), MANY);
            }
        }
    }
}

#[test]
fn history_tells_who_wrote_what_and_an_earlier_state_can_be_had_back() {
    let fleet = Fleet::found(2);
    fleet[0].set("a/b", json!({"x": 1}));
    fleet.all_read("a/b", &json!({"x": 1}));
    fleet[1].set("a/b", json!({"x": 2, "y": 3}));
    fleet.all_read("a/b", &json!({"x": 2, "y": 3}));
    let history = fleet[0].cli(&["settings", "history", "a/b", "--json"]).exits(0).json();
    let said: Vec<_> = (0..2).map(|i| (&history[i]["writer"], &history[i]["set"]["x"])).collect();
    assert_eq!(said, [(&json!("pve-2"), &json!(2)), (&json!("pve-1"), &json!(1))]);

    let first = history[1]["stamp"].as_str().unwrap();
    fleet[0].cli(&["settings", "revert", "a/b", first]).exits(0);

    fleet.all_read("a/b", &json!({"x": 1}));
}

#[test]
fn a_write_that_waits_tells_on_how_many_nodes_it_is() {
    let mut fleet = Fleet::found(3);
    for (wait, reached) in [("local", 1), ("2", 2), ("majority", 2), ("all", 3)] {
        let set = ["settings", "set", "w/a", &format!("x={wait}"), "--wait", wait, "--json"];
        let answer = fleet[0].cli(&set).exits(0).json();
        assert!(answer["wait"]["reached"].as_u64() >= Some(reached), "{wait}: {answer}");
        assert_eq!(answer["wait"]["of"], 3);
    }
    for agent in fleet.iter() {
        assert_eq!(agent.fields("w/a"), json!({"x": "all"}), "all means all, now");
    }
    fleet.kill(&[2]);

    let set = ["settings", "set", "w/a", "x=late", "--json", "--wait"];
    let all = [&set[..], &["all", "--timeout", "5s"]].concat();
    let answer = fleet[0].cli(&all).exits(NOT_REACHED).json();

    assert_eq!(answer["wait"]["missing"], json!(["pve-3"]));
    assert_eq!(fleet[0].fields("w/a"), json!({"x": "late"}), "it is done here");
    fleet[0].cli(&[&set[..], &["majority"]].concat()).exits(0);
    fleet[2].restart();
    fleet.all_read("w/a", &json!({"x": "late"}));
}

#[test]
fn a_write_on_what_has_changed_since_is_refused() {
    let node = founder();
    let etag = node.set("a/b", json!({"x": 1}))["etag"].as_str().unwrap().to_owned();
    let write = |x: u64| {
        let (body, quoted) = (json!({"set": {"x": x}}), format!("\"{etag}\""));
        let headers = [("If-Match", quoted.as_str())];
        node.client().ask_with("PATCH", "settings/a/b", Some(&body), &headers).unwrap()
    };
    let read = node.client().ask("GET", "settings/a/b", None).unwrap();
    assert_eq!(read.headers["etag"].trim_matches('"'), etag);
    assert_eq!(write(2).status, 200);
    let answer = write(3);
    assert_eq!((answer.status, &answer.body["code"]), (412, &json!("changed")));
    assert_eq!(node.fields("a/b"), json!({"x": 2}));
}

#[test]
fn a_document_that_is_too_large_is_refused_whole() {
    let node = founder();
    node.set("a/b", json!({"x": 1}));
    let failure = node.try_set("a/b", json!({"y": "x".repeat(TOO_LARGE)})).unwrap_err();
    assert_eq!(failure.code(), "too_large", "{failure}");
    assert_eq!(node.fields("a/b"), json!({"x": 1}));
    for path in ["", "/a", "a//b", "a/../b"] {
        assert!(node.try_set(path, json!({"x": 1})).is_err(), "{path:?} is no path");
    }
}

#[test]
fn edits_to_different_fields_both_survive() {
    let mut fleet = Fleet::found(2);
    fleet[0].set("a/b", json!({"x": 0, "y": 0}));
    fleet.all_read("a/b", &json!({"x": 0, "y": 0}));
    apart(
        &mut fleet,
        |here| here.set("a/b", json!({"x": 1})),
        |there| there.set("a/b", json!({"y": 2})),
    );
    fleet.all_read("a/b", &json!({"x": 1, "y": 2}));
    fleet.converged();
    assert_eq!(fleet[0].client().get("conflicts").unwrap(), json!([]));
}

#[test]
fn edits_to_one_field_leave_a_conflict_that_all_see_until_it_is_settled() {
    let mut fleet = Fleet::found(3);
    fleet[0].set("a/b", json!({"x": 0}));
    fleet.all_read("a/b", &json!({"x": 0}));
    apart(
        &mut fleet,
        |here| here.set("a/b", json!({"x": "here"})),
        |there| there.set("a/b", json!({"x": "there", "y": 1})),
    );
    fleet.converged();
    // The edits were made one after the other, so the clocks decide, and the same way everywhere.
    fleet.all_read("a/b", &json!({"x": "there", "y": 1}));
    for agent in fleet.iter() {
        let listed = agent.cli(&["settings", "conflicts", "--json"]).exits(0).json();
        assert_eq!(listed[0]["path"], "a/b");
        assert_eq!(listed[0]["field"], "x");
        assert_eq!(listed[0]["winner"]["value"], "there");
        assert_eq!(listed[0]["losers"][0]["value"], "here");
        assert_eq!(listed[0]["losers"][0]["writer"], "pve-1");
        assert_eq!(agent.status()["settings"]["conflicts"], 1);
    }

    fleet[2].set("a/b", json!({"x": "settled"}));

    fleet.all_read("a/b", &json!({"x": "settled", "y": 1}));
    for agent in fleet.iter() {
        let conflicts = || agent.client().get("conflicts").unwrap();
        until("nobody sees a conflict", LATER, conflicts, |listed| *listed == json!([]));
    }
}

#[test]
fn many_writers_on_all_nodes_end_with_the_same_everywhere() {
    let fleet = Fleet::found(3);
    thread::scope(|scope| {
        for (i, agent) in fleet.iter().enumerate() {
            scope.spawn(move || {
                for round in 0..60 {
                    agent.set("shared/a", json!({format!("of-{i}"): round, "all": i}));
                    agent.set(&format!("own/{i}"), json!({ "round": round }));
                }
            });
        }
    });
    fleet.converged();
    for i in 0..3 {
        fleet.all_read(&format!("own/{i}"), &json!({"round": 59}));
        assert_eq!(fleet[0].fields("shared/a")[format!("of-{i}")], 59);
    }
}

#[test]
fn a_node_that_is_alone_reads_and_writes() {
    let mut fleet = Fleet::found(3);
    fleet[0].set("a/b", json!({"x": 1}));
    fleet.all_read("a/b", &json!({"x": 1}));
    fleet.kill(&[0, 1]);
    assert_eq!(fleet[2].fields("a/b"), json!({"x": 1}));
    fleet[2].set("a/b", json!({"y": 2}));
    fleet[0].restart();
    fleet[1].restart();
    fleet.all_read("a/b", &json!({"x": 1, "y": 2}));
}

/// A standalone founder of a Data Center.
fn founder() -> Agent {
    let node = Agent::start("pve-1");
    node.create("north");
    node
}

/// Lets the first node make an edit while no other runs, and the second one while the first does
/// not run; then all run again.
fn apart<T>(fleet: &mut Fleet, here: impl Fn(&Agent) -> T, there: impl Fn(&Agent) -> T) {
    for i in 1..fleet.len() {
        fleet[i].stop();
    }
    here(&fleet[0]);
    fleet[0].stop();
    for i in 1..fleet.len() {
        fleet[i].restart();
    }
    there(&fleet[1]);
    eventually("the others have the second edit", LATER, || {
        let wrong = fleet[2..].iter().find(|agent| agent.digest() != fleet[1].digest());
        wrong.map_or(Ok(()), |agent| Err(agent.name().to_owned()))
    });
    fleet[0].restart();
    fleet.all_see_all();
}
