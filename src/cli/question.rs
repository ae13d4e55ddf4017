//! The flags that ask a question, and the message that asks it.

use clap::{Args, ValueEnum};

use crate::rpc::v1;

/// What a registration asks.
#[derive(Args, Debug)]
pub(super) struct ExpandArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// At an update of a registration (RFC 7592), the scopes that the client holds so far; leaving it out means a new one
    #[arg(long, value_name = "SCOPES", allow_hyphen_values = true)]
    previous_scope: Option<String>,
}

/// What an authorize request asks.
#[derive(Args, Debug)]
pub(super) struct AuthorizeArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// What the client registered; leaving it out means unknown, "" means registered with no scope
    #[arg(long, value_name = "SCOPES", allow_hyphen_values = true)]
    registered_scope: Option<String>,
}

/// What a request for a token asks.
#[derive(Args, Debug)]
pub(super) struct TokenArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// What the client presents for the token
    #[arg(long, value_enum)]
    grant: QuestionGrant,
    /// What the grant stands for: the scopes of the grant that is refreshed, of the subject token or of the assertion; "" means
    /// none. Required with refresh and token-exchange
    #[arg(long, value_name = "SCOPES", allow_hyphen_values = true)]
    granted_scope: Option<String>,
    /// What the client registered, which counts without --granted-scope; leaving it out means unknown, "" means registered with no
    /// scope
    #[arg(long, value_name = "SCOPES", allow_hyphen_values = true)]
    registered_scope: Option<String>,
}

/// What every question has.
#[derive(Args, Debug)]
struct CommonArgs {
    /// Audience that the scopes are for, such as https://mcp.example.com; may be given several times
    #[arg(long = "audience", value_name = "URI", allow_hyphen_values = true)]
    audiences: Vec<String>,
    /// The scope parameter as received; leaving it out and "" both mean that the client omitted it
    #[arg(long, value_name = "SCOPES", allow_hyphen_values = true)]
    scope: Option<String>,
    /// The id of the login or registration that this is part of; recorded in the audit event
    #[arg(
        long,
        value_name = "ID",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    correlation_id: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// What the client says of itself.
#[derive(Args, Debug)]
#[command(next_help_heading = "Client")]
pub(super) struct ClientArgs {
    /// The client id; the https URL of the metadata document of a CIMD client
    #[arg(
        long,
        value_name = "ID",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    client_id: String,
    /// The name that the client gave itself
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    client_name: String,
    /// Where the authorization server knows the client from
    #[arg(long, value_enum)]
    source: Option<QuestionSource>,
    /// A redirect URI; may be given several times
    #[arg(long = "redirect-uri", value_name = "URI")]
    redirect_uris: Vec<String>,
    /// A grant type; may be given several times, none means authorization_code
    #[arg(long = "grant-type", value_name = "TYPE")]
    grant_types: Vec<String>,
    /// The software id
    #[arg(
        long,
        value_name = "ID",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    software_id: String,
    /// The software version; recorded, never matched
    #[arg(long, value_name = "VERSION", default_value = "", hide_default_value = true)]
    software_version: String,
    /// The application type: web or native
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    application_type: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum QuestionSource {
    /// Dynamic registration (RFC 7591)
    Dcr,
    /// A client id metadata document
    Cimd,
    /// Configured by an operator
    Static,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum QuestionGrant {
    /// A refresh token (RFC 6749 section 6)
    Refresh,
    /// The client's own credentials (RFC 6749 section 4.4)
    ClientCredentials,
    /// A JWT as authorization grant (RFC 7523), such as an identity assertion
    JwtBearer,
    /// Another token (RFC 8693)
    TokenExchange,
}

impl QuestionGrant {
    const fn to_wire(self) -> v1::TokenGrant {
        match self {
            Self::Refresh => v1::TokenGrant::Refresh,
            Self::ClientCredentials => v1::TokenGrant::ClientCredentials,
            Self::JwtBearer => v1::TokenGrant::JwtBearer,
            Self::TokenExchange => v1::TokenGrant::TokenExchange,
        }
    }
}

impl QuestionSource {
    const fn to_wire(self) -> v1::ClientSource {
        match self {
            Self::Dcr => v1::ClientSource::Dcr,
            Self::Cimd => v1::ClientSource::Cimd,
            Self::Static => v1::ClientSource::Static,
        }
    }
}

impl ExpandArgs {
    pub(super) fn to_wire(&self) -> v1::ExpandRegistrationScopesRequest {
        let Self { common: CommonArgs { audiences, scope, correlation_id, client }, previous_scope } = self;
        v1::ExpandRegistrationScopesRequest {
            audiences: audiences.clone(),
            scope: scope.clone(),
            client: client.to_wire(),
            previous_scope: previous_scope.clone(),
            correlation_id: correlation_id.clone(),
        }
    }
}

impl AuthorizeArgs {
    pub(super) fn to_wire(&self) -> v1::CheckAuthorizeScopesRequest {
        let Self { common: CommonArgs { audiences, scope, correlation_id, client }, registered_scope } = self;
        v1::CheckAuthorizeScopesRequest {
            audiences: audiences.clone(),
            scope: scope.clone(),
            registered_scope: registered_scope.clone(),
            client: client.to_wire(),
            correlation_id: correlation_id.clone(),
        }
    }
}

impl TokenArgs {
    pub(super) fn to_wire(&self) -> v1::CheckTokenScopesRequest {
        let Self {
            common: CommonArgs { audiences, scope, correlation_id, client },
            grant,
            granted_scope,
            registered_scope,
        } = self;
        v1::CheckTokenScopesRequest {
            audiences: audiences.clone(),
            scope: scope.clone(),
            granted_scope: granted_scope.clone(),
            registered_scope: registered_scope.clone(),
            client: client.to_wire(),
            grant: grant.to_wire().into(),
            correlation_id: correlation_id.clone(),
        }
    }
}

impl ClientArgs {
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
            source: source.map_or(v1::ClientSource::Unspecified, QuestionSource::to_wire).into(),
            client_name: client_name.clone(),
            software_id: software_id.clone(),
            software_version: software_version.clone(),
            redirect_uris: redirect_uris.clone(),
            grant_types: grant_types.clone(),
            application_type: application_type.clone(),
        };
        (client != v1::Client::default()).then_some(client)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::proto::json;

    #[derive(Parser)]
    enum TestQuestion {
        Expand(ExpandArgs),
        Authorize(AuthorizeArgs),
        Token(TokenArgs),
    }

    /// The question in JSON, as `explain` prints it for other tools.
    #[track_caller]
    fn check(flags: &[&str], expected: &str) {
        let question = TestQuestion::parse_from([&["test"], flags].concat());
        let json = match question {
            TestQuestion::Expand(args) => json::to_string_of_set(&args.to_wire()),
            TestQuestion::Authorize(args) => json::to_string_of_set(&args.to_wire()),
            TestQuestion::Token(args) => json::to_string_of_set(&args.to_wire()),
        };
        assert_eq!(json.unwrap(), expected, "{flags:?}");
    }

    #[test]
    fn the_flags_make_the_question() {
        check(&["expand"], "{}");
        check(&["authorize"], "{}");
        check(
            &["expand", "--scope", "", "--previous-scope", "-x", "--correlation-id=login 1"],
            r#"{"scope":"","previousScope":"-x","correlationId":"login 1"}"#,
        );
        check(
            &[
                "authorize",
                "--audience",
                "a",
                "--audience",
                "-b",
                "--scope",
                "-x --y",
                "--registered-scope",
                "",
            ],
            r#"{"audiences":["a","-b"],"scope":"-x --y","registeredScope":""}"#,
        );
        check(
            &[
                "authorize",
                "--client-id=https://c.example/x",
                "--source=cimd",
                "--client-name",
                "-N",
                "--redirect-uri=http://localhost/",
                "--redirect-uri=http://127.0.0.1/",
                "--grant-type=refresh_token",
                "--software-id=s",
                "--software-version=1",
                "--application-type=native",
            ],
            "{\"client\":{\"clientId\":\"https://c.example/x\",\"source\":\"CLIENT_SOURCE_CIMD\",\
             \"clientName\":\"-N\",\"softwareId\":\"s\",\"softwareVersion\":\"1\",\
             \"redirectUris\":[\"http://localhost/\",\"http://127.0.0.1/\"],\"grantTypes\":[\"refresh_token\"],\
             \"applicationType\":\"native\"}}",
        );
        check(
            &["token", "--grant=refresh", "--scope=a", "--granted-scope", "a b", "--correlation-id=7"],
            r#"{"scope":"a","grantedScope":"a b","grant":"TOKEN_GRANT_REFRESH","correlationId":"7"}"#,
        );
        for (word, grant) in [
            ("client-credentials", "CLIENT_CREDENTIALS"),
            ("jwt-bearer", "JWT_BEARER"),
            ("token-exchange", "TOKEN_EXCHANGE"),
        ] {
            let json = format!(r#"{{"registeredScope":"","grant":"TOKEN_GRANT_{grant}"}}"#);
            check(&["token", "--grant", word, "--registered-scope="], &json);
        }
        check(&["expand", "--source=dcr"], r#"{"client":{"source":"CLIENT_SOURCE_DCR"}}"#);
        check(&["expand", "--source=static"], r#"{"client":{"source":"CLIENT_SOURCE_STATIC"}}"#);
    }
}
