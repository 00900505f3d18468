//! `peerage leave`.

use peerage_proto::api::node::Leave;

use super::{Client, Console, Outcome};

pub(super) async fn leave(client: &Client, console: &mut Console) -> Outcome {
    let departure = console.attend("leaving", client.call(&Leave {})).await?;
    if console.wants_json() {
        return console.json(&departure);
    }
    console.say(format_args!("left {}; this node is standalone now", departure.datacenter.name));
    if !departure.told.is_empty() {
        console.say(format_args!("told: {}", departure.told.join(", ")));
    }
    if let Some(notice) = &departure.notice {
        console.say(&notice.message);
        if let Some(hint) = &notice.hint {
            console.say(format_args!("  {hint}"));
        }
    }
    console.say(format_args!("what it had is kept in {}", departure.backup));
    Ok(())
}
