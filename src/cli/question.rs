//! The flags that ask a question, and the question in the forms in which it is asked: of the core, of
//! a server, and as JSON for other tools.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use crate::decision::{Client, authorize, registration};
use crate::policy::ClientSource;
use crate::rpc::v1;

/// What a registration asks.
#[derive(Args, Debug)]
pub(super) struct ExpandArgs {
    /// Audience that the scopes are for, such as https://mcp.example.com; may be given several times
    #[arg(long = "audience", value_name = "URI")]
    pub(super) audiences: Vec<String>,
    /// The scope parameter as received; leaving it out and "" both mean that the client omitted it
    #[arg(long, value_name = "SCOPES")]
    pub(super) scope: Option<String>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

/// What an authorize request asks.
#[derive(Args, Debug)]
pub(super) struct AuthorizeArgs {
    #[command(flatten)]
    pub(super) common: ExpandArgs,
    /// What the client registered; leaving it out means unknown, "" means registered with no scope
    #[arg(long, value_name = "SCOPES")]
    pub(super) registered_scope: Option<String>,
}

/// What the client says of itself.
#[derive(Args, Debug)]
#[command(next_help_heading = "Client")]
pub(super) struct ClientArgs {
    /// The client id; the https URL of the metadata document of a CIMD client
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    client_id: String,
    /// The name that the client gave itself
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    client_name: String,
    /// Where the authorization server knows the client from
    #[arg(long, value_enum)]
    source: Option<Source>,
    /// A redirect URI; may be given several times
    #[arg(long = "redirect-uri", value_name = "URI")]
    redirect_uris: Vec<String>,
    /// A grant type; may be given several times, none means authorization_code
    #[arg(long = "grant-type", value_name = "TYPE")]
    grant_types: Vec<String>,
    /// The software id
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    software_id: String,
    /// The software version; recorded, never matched
    #[arg(long, value_name = "VERSION", default_value = "", hide_default_value = true)]
    software_version: String,
    /// The application type: web or native
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    application_type: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Source {
    /// Dynamic registration (RFC 7591)
    Dcr,
    /// A client id metadata document
    Cimd,
    /// Configured by an operator
    Static,
}

impl Source {
    const fn to_core(self) -> ClientSource {
        match self {
            Self::Dcr => ClientSource::Dcr,
            Self::Cimd => ClientSource::Cimd,
            Self::Static => ClientSource::Static,
        }
    }

    const fn to_wire(self) -> v1::ClientSource {
        match self {
            Self::Dcr => v1::ClientSource::Dcr,
            Self::Cimd => v1::ClientSource::Cimd,
            Self::Static => v1::ClientSource::Static,
        }
    }
}

impl ExpandArgs {
    pub(super) fn to_core(&self) -> registration::Question<'_> {
        let Self { audiences, scope, client } = self;
        registration::Question { audiences, scope: scope.as_deref(), client: client.to_core() }
    }

    pub(super) fn to_wire(&self) -> v1::ExpandRegistrationScopesRequest {
        let Self { audiences, scope, client } = self;
        v1::ExpandRegistrationScopesRequest {
            audiences: audiences.clone(),
            scope: scope.clone(),
            client: client.to_wire(),
            ..v1::ExpandRegistrationScopesRequest::default()
        }
    }

    /// The request in the JSON mapping, without what is not set.
    pub(super) fn to_json(&self) -> Value {
        Value::Object(self.members(None))
    }

    fn members(&self, registered_scope: Option<&str>) -> Map<String, Value> {
        let Self { audiences, scope, client } = self;
        let mut members = Map::new();
        put(&mut members, "audiences", audiences);
        // Empty and unset differ for these two.
        for (name, value) in [("scope", scope.as_deref()), ("registeredScope", registered_scope)] {
            members.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        let client = client.members();
        if !client.is_empty() {
            members.insert("client".to_owned(), client.into());
        }
        members
    }
}

impl AuthorizeArgs {
    pub(super) fn to_core(&self) -> authorize::Question<'_> {
        let Self { common: ExpandArgs { audiences, scope, client }, registered_scope } = self;
        authorize::Question {
            audiences,
            scope: scope.as_deref(),
            registered_scope: registered_scope.as_deref(),
            client: client.to_core(),
        }
    }

    pub(super) fn to_wire(&self) -> v1::CheckAuthorizeScopesRequest {
        let Self { common: ExpandArgs { audiences, scope, client }, registered_scope } = self;
        v1::CheckAuthorizeScopesRequest {
            audiences: audiences.clone(),
            scope: scope.clone(),
            registered_scope: registered_scope.clone(),
            client: client.to_wire(),
            ..v1::CheckAuthorizeScopesRequest::default()
        }
    }

    /// The request in the JSON mapping, without what is not set.
    pub(super) fn to_json(&self) -> Value {
        Value::Object(self.common.members(self.registered_scope.as_deref()))
    }
}

impl ClientArgs {
    fn to_core(&self) -> Client<'_> {
        let Self {
            client_id,
            client_name,
            source,
            redirect_uris,
            grant_types,
            software_id,
            // No rule looks at it.
            software_version: _,
            application_type,
        } = self;
        Client {
            client_id,
            source: source.map(Source::to_core),
            client_name,
            software_id,
            redirect_uris,
            grant_types,
            application_type,
        }
    }

    /// The client, if anything is said of it.
    fn to_wire(&self) -> Option<v1::Client> {
        let Self {
            client_id,
            client_name,
            source,
            redirect_uris,
            grant_types,
            software_id,
            software_version,
            application_type,
        } = self;
        let client = v1::Client {
            client_id: client_id.clone(),
            source: source.map_or(v1::ClientSource::Unspecified, Source::to_wire).into(),
            client_name: client_name.clone(),
            software_id: software_id.clone(),
            software_version: software_version.clone(),
            redirect_uris: redirect_uris.clone(),
            grant_types: grant_types.clone(),
            application_type: application_type.clone(),
        };
        (client != v1::Client::default()).then_some(client)
    }

    fn members(&self) -> Map<String, Value> {
        let Self {
            client_id,
            client_name,
            source,
            redirect_uris,
            grant_types,
            software_id,
            software_version,
            application_type,
        } = self;
        let mut members = Map::new();
        for (name, text) in [
            ("clientId", &**client_id),
            ("source", source.map_or("", |source| source.to_wire().as_str_name())),
            ("clientName", client_name),
            ("softwareId", software_id),
            ("softwareVersion", software_version),
            ("applicationType", application_type),
        ] {
            if !text.is_empty() {
                members.insert(name.to_owned(), text.into());
            }
        }
        put(&mut members, "redirectUris", redirect_uris);
        put(&mut members, "grantTypes", grant_types);
        members
    }
}

fn put(members: &mut Map<String, Value>, name: &str, list: &[String]) {
    if !list.is_empty() {
        members.insert(name.to_owned(), list.into());
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use prost::{Message, Name};
    use prost_reflect::{DescriptorPool, DynamicMessage};

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        args: AuthorizeArgs,
    }

    /// The JSON of a question must be the question: read back by its description.
    #[track_caller]
    fn check(flags: &[&str]) {
        let args = Flags::parse_from([&["test"], flags].concat()).args;
        let read = |name: &str, json: &Value| {
            let pool = DescriptorPool::decode(crate::rpc::FILE_DESCRIPTOR_SET).unwrap();
            let message = DynamicMessage::deserialize(pool.get_message_by_name(name).unwrap(), json).unwrap();
            message.encode_to_vec()
        };
        let wire = args.to_wire();
        let back = read(&v1::CheckAuthorizeScopesRequest::full_name(), &args.to_json());
        assert_eq!(v1::CheckAuthorizeScopesRequest::decode(&*back).unwrap(), wire);
        let wire = args.common.to_wire();
        let back = read(&v1::ExpandRegistrationScopesRequest::full_name(), &args.common.to_json());
        assert_eq!(v1::ExpandRegistrationScopesRequest::decode(&*back).unwrap(), wire);
    }

    #[test]
    fn the_json_of_a_question_is_the_question() {
        check(&[]);
        check(&["--scope", "", "--registered-scope", ""]);
        check(&["--audience", "a", "--audience", "b", "--scope", "x y"]);
        check(&[
            "--client-id=https://c.example/x",
            "--source=cimd",
            "--client-name=N",
            "--redirect-uri=http://localhost/",
            "--redirect-uri=http://127.0.0.1/",
            "--grant-type=refresh_token",
            "--software-id=s",
            "--software-version=1",
            "--application-type=native",
        ]);
        check(&["--source=dcr"]);
        check(&["--source=static"]);
    }
}
