//! `compact`.

use peerage_proto::api::settings::{CompactSettings, Compacted, Room};

use super::super::table::Table;
use super::super::text::{count, size};
use super::{Client, Console, Outcome};

pub(super) async fn compact(client: &Client, console: &mut Console) -> Outcome {
    let work = client.call(&CompactSettings {});
    let compacted = console.attend("forgetting history and rewriting the journal", work).await?;
    if console.wants_json() {
        return console.json(&compacted);
    }
    console.table(&table(&compacted))?;
    console.say(format_args!("{} forgotten", count(compacted.forgotten, "change")));
    Ok(())
}

fn table(Compacted { before, after, .. }: &Compacted) -> Table {
    let mut table = Table::new(&["KEPT", "BEFORE", "AFTER"]);
    let mut row = |name: &str, of: fn(&Room) -> u64| {
        table.row([name, &size(of(before)), &size(of(after))]);
    };
    row("live", |room| room.live_bytes);
    row("history", |room| room.history_bytes);
    row("left by removals", |room| room.marker_bytes);
    row("own records", |room| room.record_bytes);
    row("journal", |room| room.journal_bytes);
    table
}
