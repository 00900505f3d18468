//! What people and their tools hand in: values as they are typed, files as they come.

use peerage_proto::api::Exit;
use serde_json::json;

use super::agent::Agent;
use super::commands::words_of;
use crate::cli::{CommandLine, Terminal};

#[tokio::test]
async fn a_value_is_set_as_it_was_typed() {
    let agent = Agent::founder().await;
    for typed in [
        "1.10",
        "7e10",
        "123456789012345678901234567890",
        "-0",
        "1e400",
        "0x10",
        "NaN",
        "1_000",
        "+1",
        "007",
        "1.5",
        "18446744073709551615",
        "[::]:4747",
        "{{name}}",
    ] {
        let said = agent.run(&format!("settings set a x={typed}")).await;
        assert_eq!(said.exit, Exit::Done, "{said:?}");
        assert_eq!(agent.run("settings get a x").await.out, format!("{typed}\n"));
        assert!(agent.run("settings get a").await.out.ends_with(&format!("  {typed}\n")));
    }
    assert_eq!(agent.run("settings get a x --json").await.out, "\"{{name}}\"\n");
    for wrong in ["settings set a x={\"vers\":4,}", "settings set a x=[\"a\",1.10]"] {
        assert_eq!(CommandLine::read(words_of(wrong)).unwrap_err(), Exit::Usage, "{wrong}");
    }
}

#[tokio::test]
async fn the_text_of_a_file_or_of_stdin_is_set_as_it_is() {
    let agent = Agent::founder().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text");
    let text = "\u{feff}# first\r\n1.10\n";
    std::fs::write(&file, text).unwrap();
    let by_file = agent.run(&format!("settings set a x=@{}", file.display())).await;
    assert_eq!(by_file.exit, Exit::Done, "{by_file:?}");
    let by_stdin = agent.run_with("settings set a y=-", text, Terminal::default()).await;
    assert_eq!(by_stdin.exit, Exit::Done, "{by_stdin:?}");
    let shown = agent.run("settings get a --json").await.json();
    assert_eq!(shown["fields"], json!({"x": text, "y": text}));

    let missing = agent.run("settings set a x=@/no/such/file").await;
    assert_eq!(missing.exit, Exit::Usage);
    assert!(missing.err.contains("/no/such/file"), "{missing:?}");
    assert_eq!(agent.run("settings set a x=- y=-").await.exit, Exit::Usage);
}

#[tokio::test]
async fn a_file_that_is_applied_may_have_comments_and_comes_from_any_system() {
    let agent = Agent::founder().await;
    let text = "\u{feff}# mine\r\n[{\"path\": \"dns\",\r\n # the name\r\n\"fields\": {\"x\": \"# 1\"}}]\r\n";
    let said = agent.run_with("settings apply -f -", text, Terminal::default()).await;
    assert_eq!(
        (said.exit, said.err.as_str()),
        (Exit::Done, "dns: changed\n1 document changed, 0 unchanged\n")
    );
    assert_eq!(agent.run("settings get dns x").await.out, "# 1\n");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.json");
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(&file, wide).unwrap();
    let apply = format!("settings apply -f {}", file.display());
    assert_eq!(agent.run(&apply).await.err, "nothing to change: 1 document is so already\n");

    for (number, words) in [
        ("0.10000000000000000001", "at [0].fields.x would become 0.1"),
        ("1e400", "at [0].fields.x is larger"),
    ] {
        std::fs::write(&file, format!(r#"[{{"path": "dns", "fields": {{"x": {number}}}}}]"#))
            .unwrap();
        let said = agent.run(&apply).await;
        assert_eq!(said.exit, Exit::Usage, "{said:?}");
        assert!(said.err.contains(words) && said.err.contains("all.json"), "{said:?}");
    }
    std::fs::write(&file, "# one\n[{\n}]").unwrap();
    assert!(agent.run(&apply).await.err.contains("line 3"), "the lines keep their numbers");
}
