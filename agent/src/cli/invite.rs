//! `peerage invite`, with its list and its end.

use clap::{Args, Subcommand};
use peerage_proto::api::invites::{
    CreateInvite, CreatedInvite, Invite, ListInvites, RevokeInvite, Uses,
};
use peerage_proto::api::{ApiError, ErrorCode, Span};

use super::qr::Picture;
use super::table::Table;
use super::text::{or_unknown, short};
use super::{Client, Console, Outcome};

/// Print Join Information for another node.
#[derive(Debug, Args)]
pub struct InviteArgs {
    #[command(subcommand)]
    command: Option<InviteCommand>,
    /// For how long it admits, such as 90s, 15m, 24h, 7d [default: 24h]
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    /// How many nodes it admits; whoever sees a string with uses left can join with it
    #[arg(long, value_name = "N|any", default_value_t)]
    uses: Uses,
    /// The names that it admits, with * and ? [default: any name]
    #[arg(long, value_name = "GLOB")]
    node_name: Option<String>,
    /// Only this node's own confirmation admits: --uses then holds in a partition too
    #[arg(long)]
    strict: bool,
    /// Leave the secret out of the string, and print it apart, as a password
    #[arg(long)]
    no_secret: bool,
    /// Show the string as a QR code too, on stderr, for a camera before the screen
    #[arg(long)]
    qr: bool,
}

#[derive(Debug, Subcommand)]
enum InviteCommand {
    /// List the invitations, without their secrets
    List,
    /// Make an invitation void
    Revoke {
        /// Its id, or the beginning of it
        id: String,
    },
}

pub(super) async fn invite(args: InviteArgs, client: &Client, console: &mut Console) -> Outcome {
    let request = CreateInvite {
        ttl: args.ttl,
        uses: args.uses,
        node_name: args.node_name,
        strict: args.strict,
        no_secret: args.no_secret,
    };
    match args.command {
        None => create(request, args.qr, client, console).await,
        Some(_) if request != CreateInvite::default() || args.qr => {
            let message = "the options of `peerage invite` make a new invitation";
            let hint = "use `peerage invite list` and `peerage invite revoke ID` without them";
            Err(ApiError::new(ErrorCode::BadRequest, message).hint(hint).into())
        }
        Some(InviteCommand::List) => list(client, console).await,
        Some(InviteCommand::Revoke { id }) => revoke(id, client, console).await,
    }
}

async fn create(
    request: CreateInvite,
    qr: bool,
    client: &Client,
    console: &mut Console,
) -> Outcome {
    let invite = console.attend("asking the agent", client.call(&request)).await?;
    invite.warnings.iter().for_each(|warning| console.warn(warning));
    let picture = qr.then(|| Picture::of(&invite.token));
    if console.wants_json() {
        console.json(&invite)?;
        picture.transpose()?.iter().for_each(|picture| console.show(picture));
        return Ok(());
    }
    console.line(&invite.token)?;
    if let Some(picture) = picture {
        console.say("");
        console.show(&picture?);
    }
    console.say(format_args!("\non {}, until {}:\n", whom(&invite), invite.expires));
    console.say(format_args!("  {}\n", invite.command));
    if !invite.command.contains(&invite.token) {
        console
            .say("and paste the string above when it asks: as an argument, all users would see it");
    }
    if let Some(password) = &invite.password {
        console.say(format_args!("it will ask for this password: {password}"));
    }
    Ok(())
}

/// For which hosts the invitation is.
fn whom(invite: &CreatedInvite) -> String {
    match invite.uses {
        Some(1) => "the new node".to_owned(),
        Some(uses) => format!("each of {uses} new nodes"),
        None => "each new node".to_owned(),
    }
}

async fn list(client: &Client, console: &mut Console) -> Outcome {
    let invites = client.call(&ListInvites {}).await?;
    if console.wants_json() {
        return console.json(&invites);
    }
    if invites.is_empty() {
        console.say("no invitations");
        return Ok(());
    }
    console.table(&listed(&invites))
}

fn listed(invites: &[Invite]) -> Table {
    let mut table = Table::new(&["ID", "STATE", "USED", "NAMES", "EXPIRES", "ISSUER"]);
    for invite in invites {
        table.row([
            short(&invite.id),
            &invite.state,
            &used(invite),
            invite.node_name.as_deref().unwrap_or("any"),
            or_unknown(invite.expires.as_deref()),
            &invite.issuer,
        ]);
    }
    table
}

fn used(invite: &Invite) -> String {
    match invite.uses {
        Some(uses) => format!("{} of {uses}", invite.used),
        None => invite.used.to_string(),
    }
}

async fn revoke(id: String, client: &Client, console: &mut Console) -> Outcome {
    let invite = client.call(&RevokeInvite { id }).await?;
    if console.wants_json() {
        return console.json(&invite);
    }
    console.say(format_args!("invitation {} is {}", short(&invite.id), invite.state));
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_of_invitations_lines_up_and_the_unknown_is_a_dash() {
        let invites: Vec<Invite> = serde_json::from_value(json!([
            {"id": "abcdef0123456789", "issuer": "pve-1", "created": null,
             "expires": "2026-01-02T03:04:05Z", "uses": 3, "used": 1, "node_name": null,
             "state": "open"},
            {"id": "0123456789abcdef", "issuer": "", "created": null, "expires": null,
             "uses": null, "used": 7, "node_name": "pve-*", "state": "unknown"},
        ]))
        .unwrap();
        let expected = "\
ID        STATE    USED    NAMES  EXPIRES               ISSUER
abcdef01  open     1 of 3  any    2026-01-02T03:04:05Z  pve-1
01234567  unknown  7       pve-*  -
";
        assert_eq!(listed(&invites).to_string(), expected);
    }
}
