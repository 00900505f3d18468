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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacting_shows_what_was_kept_before_and_what_is_now() {
        let before = Room {
            live_bytes: 800_000,
            history_bytes: 350_000,
            marker_bytes: 1_000,
            record_bytes: 2_000,
            journal_bytes: 2_400_000,
            ..Room::default()
        };
        let after = Room { history_bytes: 0, journal_bytes: 1_000_000, ..before };
        let expected = "\
KEPT              BEFORE    AFTER
live              800.0 kB  800.0 kB
history           350.0 kB  0 B
left by removals  1.0 kB    1.0 kB
own records       2.0 kB    2.0 kB
journal           2.4 MB    1.0 MB
";
        assert_eq!(table(&Compacted { forgotten: 17, before, after }).to_string(), expected);
    }
}
