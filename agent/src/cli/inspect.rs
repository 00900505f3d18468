//! `peerage inspect`, and what Join Information says.

use clap::Args;
use peerage_proto::api::invites::{Inspect, Inspection};

use super::table::Table;
use super::text::short;
use super::token::token_of;
use super::{Client, Console, Outcome};

/// Tell what Join Information says, without using it.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The Join Information; - reads it from stdin, and without it a terminal is asked
    token: Option<String>,
}

pub(super) async fn inspect(args: InspectArgs, client: &Client, console: &mut Console) -> Outcome {
    let token = token_of(args.token.as_deref(), None, console)?;
    let inspection = client.call(&Inspect { token }).await?;
    if console.wants_json() {
        return console.json(&inspection);
    }
    console.table(&table(&inspection))
}

/// What Join Information says, for people.
pub(super) fn table(inspection: &Inspection) -> Table {
    let datacenter = &inspection.datacenter;
    let mut table = Table::default();
    table.row(["Data Center", &format!("{} ({})", datacenter.name, datacenter.id)]);
    table.row(["Issuer", &inspection.issuer]);
    for (number, seed) in inspection.seeds.iter().enumerate() {
        let heading = if number == 0 { "Seeds" } else { "" };
        table.row([heading, &format!("{}  {}", short(&seed.id), seed.addresses.join(" "))]);
    }
    table.row(["Expires", &inspection.expires]);
    let uses = inspection.uses.map_or("any number".to_owned(), |uses| uses.to_string());
    let strict =
        if inspection.strict { ", and only while the node that made it answers" } else { "" };
    table.row(["Admits", &format!("{uses}{strict}")]);
    table.row(["Names", inspection.node_name.as_deref().unwrap_or("any")]);
    table.row(["Secret", if inspection.secret { "inside" } else { "asked for at joining" }]);
    let usable = match (&inspection.message, inspection.valid) {
        (None, true) => "yes, as far as can be told from here",
        (None, false) => "no",
        (Some(message), _) => message,
    };
    table.row(["Usable", usable]);
    table
}
