//! A request of each operation, made of what its fields are called.

use peerage_proto::api::Operation;
use peerage_proto::api::settings::GetDocument;
use serde_json::{Map, Value, json};

use super::agent::Agent;

/// Values for the fields of the requests.
#[derive(Debug, Default)]
pub(super) struct Examples {
    /// Join Information.
    token: String,
    /// The id of an invitation.
    invite: String,
    /// A stamp of `storage/nas1`.
    stamp: String,
}

impl Examples {
    /// Makes these values on two members of one Data Center.
    pub(super) async fn of(first: &Agent, second: &Agent) -> Self {
        let token = second.do_it("invite --uses any").await.out.trim().to_owned();
        let invite = first.do_it("invite --json").await.json();
        first.do_it("settings set storage/nas1 size=1").await;
        let get = GetDocument { path: "storage/nas1".into(), full: false };
        let stamp = first.ask_inside(get).await.make().stamp;
        Self { token, invite: invite["id"].as_str().unwrap_or_default().to_owned(), stamp }
    }

    /// What a field of this name may be; `None` where its default will do.
    fn field(&self, name: &str) -> Option<Value> {
        Some(match name {
            "node" => json!("pve-2"),
            "name" => json!("pve-7"),
            "path" => json!("storage/nas1"),
            "set" => json!({"size": 2}),
            "stamp" => json!(self.stamp),
            "token" => json!(self.token),
            "id" => json!(self.invite),
            "links" => json!([{"address": "127.0.0.1"}]),
            "documents" => json!([{"path": "storage/nas1", "fields": {"size": 3}}]),
            "identity" => json!(true),
            "follow" => json!(false),
            _ => return None,
        })
    }
}

/// A request of this operation.
pub(super) fn example<O: Operation>(examples: &Examples) -> O {
    let mut fields = Map::new();
    let least: O = loop {
        match serde_json::from_value(Value::Object(fields.clone())) {
            Ok(operation) => break operation,
            Err(error) => {
                let words = error.to_string();
                let name = words.strip_prefix("missing field `").and_then(|w| w.split('`').next());
                let name = name.unwrap_or_else(|| panic!("{}: {words}", O::PATH));
                let value = examples.field(name);
                let value = value.unwrap_or_else(|| panic!("no example of the field {name} yet"));
                fields.insert(name.to_owned(), value);
            }
        }
    };
    let mut all = serde_json::to_value(&least).unwrap();
    for (name, value) in all.as_object_mut().unwrap() {
        if let Some(example) = examples.field(name) {
            *value = example;
        }
    }
    serde_json::from_value(all).unwrap_or_else(|error| panic!("{}: {error}", O::PATH))
}
