//! `peerage leave`.

use peerage_proto::api::node::Leave;

use super::{Client, Console, Outcome};

pub(super) async fn leave(client: &Client, console: &mut Console) -> Outcome {
    let departure = console.attend("leaving", client.call(&Leave {})).await?;
    if console.wants_json() {
        return console.json(&departure);
    }
    console.say(format_args!("left {}; this node is standalone now", departure.datacenter.name));
    match departure.told.as_slice() {
        [] => console.say("no member could be told; they will see this node as down"),
        told => console.say(format_args!("told: {}", told.join(", "))),
    }
    console.say(format_args!("what it had is kept in {}", departure.backup));
    Ok(())
}
