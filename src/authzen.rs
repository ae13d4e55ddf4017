//! OpenID AuthZEN: what an access evaluation asks about scopes, as functions from the bytes of a request to questions, and from their
//! answers to the bytes of a response.
//!
//! Standards: Authorization API 1.0, and its profile for OAuth 2.0 token issuance (Draft 1 of the OpenID AuthZEN working group) with its
//! binding for token exchange. The authorization server asks one *gate tuple* for each target (may there be a token of this kind, by
//! this grant, for this audience?) and one *scope tuple* for each scope that it would grant (section "The Batch Carries Only the Residue").
//! So what it asks about is what it vouches for: a scope is permitted if the policy supports it and does not forbid it, and nothing
//! comes in that was not asked about. Tuples are independent of one another (Authorization API section 7.1). Who the subject is makes no
//! difference: the policy knows clients and audiences, not users.

use thiserror::Error;

use crate::decision::MAX_CORRELATION_ID_BYTES;
use crate::escape::shown;
use crate::proto::v1;
use crate::strict_json::{StrictJson, StrictJsonError};

pub mod response;

/// The most evaluations of a request: as many scopes as a request may name, and as many gates again.
pub const MAX_EVALUATIONS: usize = 512;

/// The capability of the profile ("AuthZEN Policy Decision Point Capabilities Registry").
pub const TOKEN_ISSUANCE: &str = "urn:openid:authzen:capability:token-issuance";

/// Why a request is not answered. The message names the member.
#[derive(Debug, Error)]
pub enum EvaluationError {
    /// It is not JSON that all parsers read alike.
    #[error("the body is not valid JSON: {0}")]
    Json(#[from] StrictJsonError),
    /// It is not an object.
    #[error("the body must be a JSON object")]
    NotAnObject,
    /// A required member is missing.
    #[error("`{0}` is missing")]
    Missing(String),
    /// A member has another type than it must have.
    #[error("`{path}` must be {expected}")]
    Type {
        /// The member as a path from the body.
        path: String,
        /// What it must be.
        expected: &'static str,
    },
    /// There are too many evaluations.
    #[error("`evaluations` has {0} entries, the limit is {MAX_EVALUATIONS}")]
    TooMany(usize),
    /// The semantic is none of the standard.
    #[error(
        "`options.evaluations_semantic` is `{}`; it must be `execute_all`, `deny_on_first_deny` or `permit_on_first_permit`",
        shown(.0)
    )]
    Semantic(String),
}

/// Which evaluations are executed, and which results returned (Authorization API, "Evaluations semantics").
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum EvaluationsSemantic {
    /// All.
    #[default]
    ExecuteAll,
    /// Up to the first that is denied.
    DenyOnFirstDeny,
    /// Up to the first that is permitted.
    PermitOnFirstPermit,
}

impl EvaluationsSemantic {
    /// Returns `true` if nothing is executed after this decision.
    #[must_use]
    pub const fn ends_with(self, is_permitted: bool) -> bool {
        match self {
            Self::ExecuteAll => false,
            Self::DenyOnFirstDeny => !is_permitted,
            Self::PermitOnFirstPermit => is_permitted,
        }
    }
}

/// What a request asks.
#[derive(Debug)]
pub struct EvaluationRequest {
    /// Each tuple in the order asked, or what is wrong with it; never empty.
    pub tuples: Vec<Result<Tuple, EvaluationError>>,
    /// Which of them are executed.
    pub semantic: EvaluationsSemantic,
    /// Whether it is one evaluation, which is answered without an array.
    pub is_single: bool,
}

impl EvaluationRequest {
    /// Reads a request of the Access Evaluation API.
    ///
    /// # Errors
    /// [`EvaluationError`]; members that are not known are ignored.
    pub fn read_one(body: &[u8]) -> Result<Self, EvaluationError> {
        Self::single(&object(StrictJson::read(body)?)?)
    }

    /// Reads a request of the Access Evaluations API. Without evaluations it is one evaluation.
    ///
    /// # Errors
    /// [`EvaluationError`] about the whole; what is wrong inside of one evaluation is in its place.
    pub fn read_many(body: &[u8]) -> Result<Self, EvaluationError> {
        let body = object(StrictJson::read(body)?)?;
        let semantic = semantic(&body)?;
        let evaluations = match body.get("evaluations") {
            None => return Self::single(&body),
            Some(StrictJson::Array(evaluations)) if evaluations.is_empty() => return Self::single(&body),
            Some(StrictJson::Array(evaluations)) => evaluations,
            Some(_) => return Err(wrong("evaluations", "an array")),
        };
        if evaluations.len() > MAX_EVALUATIONS {
            return Err(EvaluationError::TooMany(evaluations.len()));
        }
        let defaults = Entities::read(&body, "")?;
        let tuples = evaluations.iter().enumerate().map(|(at, evaluation)| {
            let path = format!("evaluations[{at}]");
            if evaluation.members().is_none() {
                return Err(wrong(&path, "an object"));
            }
            let own = Entities::read(evaluation, &format!("{path}."));
            Ok(own.and_then(|own| own.or(&defaults).tuple(&format!("{path}."))))
        });
        Ok(Self { tuples: tuples.collect::<Result<_, _>>()?, semantic, is_single: false })
    }

    fn single(body: &StrictJson) -> Result<Self, EvaluationError> {
        let tuple = Entities::read(body, "")?.tuple("")?;
        Ok(Self { tuples: vec![Ok(tuple)], semantic: EvaluationsSemantic::default(), is_single: true })
    }
}

fn object(json: StrictJson) -> Result<StrictJson, EvaluationError> {
    if json.members().is_some() { Ok(json) } else { Err(EvaluationError::NotAnObject) }
}

fn wrong(path: &str, expected: &'static str) -> EvaluationError {
    EvaluationError::Type { path: path.to_owned(), expected }
}

fn semantic(body: &StrictJson) -> Result<EvaluationsSemantic, EvaluationError> {
    let Some(options) = body.get("options") else { return Ok(EvaluationsSemantic::default()) };
    if options.members().is_none() {
        return Err(wrong("options", "an object"));
    }
    let Some(named) = options.get("evaluations_semantic") else { return Ok(EvaluationsSemantic::default()) };
    match named.as_str() {
        Some("execute_all") => Ok(EvaluationsSemantic::ExecuteAll),
        Some("deny_on_first_deny") => Ok(EvaluationsSemantic::DenyOnFirstDeny),
        Some("permit_on_first_permit") => Ok(EvaluationsSemantic::PermitOnFirstPermit),
        Some(other) => Err(EvaluationError::Semantic(other.to_owned())),
        None => Err(wrong("options.evaluations_semantic", "a string")),
    }
}

/// The entities of an evaluation, as far as they are there. Each replaces its default as a whole ("Default values").
#[derive(Clone, Debug, Default)]
struct Entities<'j> {
    /// Type and id.
    subject: Option<(&'j str, &'j str)>,
    action: Option<&'j str>,
    resource: Option<(&'j str, &'j str)>,
    context: Option<&'j StrictJson>,
}

impl<'j> Entities<'j> {
    fn read(json: &'j StrictJson, path: &str) -> Result<Self, EvaluationError> {
        let entity = |name: &str| -> Result<Option<&'j StrictJson>, EvaluationError> {
            let Some(entity) = json.get(name) else { return Ok(None) };
            if entity.members().is_none() {
                return Err(wrong(&format!("{path}{name}"), "an object"));
            }
            if entity.get("properties").is_some_and(|properties| properties.members().is_none()) {
                return Err(wrong(&format!("{path}{name}.properties"), "an object"));
            }
            Ok(Some(entity))
        };
        let text = |entity: &'j StrictJson, name: &str, key: &str| -> Result<&'j str, EvaluationError> {
            let path = || format!("{path}{name}.{key}");
            let value = entity.get(key).ok_or_else(|| EvaluationError::Missing(path()))?;
            value.as_str().ok_or_else(|| wrong(&path(), "a string"))
        };
        let typed = |name: &str| -> Result<Option<(&'j str, &'j str)>, EvaluationError> {
            let Some(entity) = entity(name)? else { return Ok(None) };
            Ok(Some((text(entity, name, "type")?, text(entity, name, "id")?)))
        };
        let action = entity("action")?.map(|action| text(action, "action", "name")).transpose()?;
        let context = json.get("context");
        if context.is_some_and(|context| context.members().is_none()) {
            return Err(wrong(&format!("{path}context"), "an object"));
        }
        Ok(Self { subject: typed("subject")?, action, resource: typed("resource")?, context })
    }

    fn or(self, defaults: &Self) -> Self {
        Self {
            subject: self.subject.or(defaults.subject),
            action: self.action.or(defaults.action),
            resource: self.resource.or(defaults.resource),
            context: self.context.or(defaults.context),
        }
    }

    fn tuple(self, path: &str) -> Result<Tuple, EvaluationError> {
        let missing = |name: &str| EvaluationError::Missing(format!("{path}{name}"));
        let Self { subject, action, resource, context } = self;
        let (subject_type, subject_id) = subject.ok_or_else(|| missing("subject"))?;
        let action = action.ok_or_else(|| missing("action"))?;
        let (resource_type, target) = resource.ok_or_else(|| missing("resource"))?;
        let of_context = |name| context.and_then(|context| context.get(name)).and_then(StrictJson::as_str);
        // Advice that has another type than it must have is none.
        let client_id = of_context("client_id").or((subject_type == "client").then_some(subject_id));
        Ok(Tuple {
            action: action.to_owned(),
            resource_type: resource_type.to_owned(),
            target: target.to_owned(),
            client_id: client_id.unwrap_or_default().to_owned(),
            token_id: of_context("jti").unwrap_or_default().to_owned(),
        })
    }
}

/// One evaluation that has all that it must have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tuple {
    /// The name of the action.
    pub action: String,
    /// The type of the resource.
    pub resource_type: String,
    /// The id of the resource.
    pub target: String,
    /// `client_id` of the context, else the id of a subject that is a client; empty if there is none.
    pub client_id: String,
    /// `jti` of the context: the token that the server is about to issue. Empty if there is none.
    pub token_id: String,
}

/// What a tuple asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TupleMeaning<'t> {
    /// Whether there may be a token by this grant for the target.
    Gate(GateGrant),
    /// Whether it may have this scope.
    Scope(&'t str),
    /// Nothing that the policy knows: it is denied, for this reason.
    Unknown(&'static str),
}

/// The grant of a gate tuple, as far as questions differ by it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GateGrant {
    /// What was granted at authorize is being issued.
    Authorized,
    /// One that `CheckTokenScopes` knows.
    Token(v1::TokenGrant),
}

impl Tuple {
    /// What it asks. A gate tuple is one about an `audience`; so is a scope tuple in Draft 1, unless its action has the reserved prefix,
    /// and one about a `protected_resource` in what follows it.
    #[must_use]
    pub fn meaning(&self) -> TupleMeaning<'_> {
        let action = self.action.as_str();
        let gate = action.strip_prefix(GATE_PREFIX);
        match (self.resource_type.as_str(), gate) {
            ("audience" | "protected_resource", _) if self.target.is_empty() => {
                TupleMeaning::Unknown("the resource has no id")
            }
            ("audience", Some(gate)) => match grant(gate) {
                Some(grant) => TupleMeaning::Gate(grant),
                None => TupleMeaning::Unknown("the action is not a registered gate"),
            },
            ("audience", None) | ("protected_resource", _) => {
                // More than one scope, or none, is another question.
                if action.is_empty() || action.contains(' ') {
                    return TupleMeaning::Unknown("the action is not one scope");
                }
                TupleMeaning::Scope(action)
            }
            _ => TupleMeaning::Unknown(
                "the policy knows resources of the types audience and protected_resource",
            ),
        }
    }
}

/// The grant of `<token type>:<grant type>`, if both are registered.
fn grant(gate: &str) -> Option<GateGrant> {
    let (token_type, grant) = gate.split_once(':')?;
    if !TOKEN_TYPES.contains(&token_type) {
        return None;
    }
    Some(match grant {
        "authorization_code" | "device_code" => GateGrant::Authorized,
        "client_credentials" => GateGrant::Token(v1::TokenGrant::ClientCredentials),
        "refresh_token" => GateGrant::Token(v1::TokenGrant::Refresh),
        "token_exchange" => GateGrant::Token(v1::TokenGrant::TokenExchange),
        "jwt_bearer" | "saml2_bearer" => GateGrant::Token(v1::TokenGrant::JwtBearer),
        _ => return None,
    })
}

/// What the policy is asked about a tuple.
#[derive(Clone, Debug, PartialEq)]
pub enum TupleQuestion {
    /// At the token endpoint.
    Token(v1::CheckTokenScopesRequest),
    /// Of what was granted at authorize.
    Authorize(v1::CheckAuthorizeScopesRequest),
}

/// The gates of a request: their targets and grants, in the order asked.
#[must_use]
pub fn gates(tuples: &[Result<Tuple, EvaluationError>]) -> Vec<(&str, GateGrant)> {
    let of = |tuple: &'_ Tuple| match tuple.meaning() {
        TupleMeaning::Gate(grant) => Some(grant),
        _ => None,
    };
    tuples.iter().flatten().filter_map(|tuple| Some((tuple.target.as_str(), of(tuple)?))).collect()
}

/// The grant that the scope tuples for a target belong to: that of its gate, else of the first gate, as where a grant is for one party
/// and the access behind it ("Two-Level Evaluation").
#[must_use]
pub fn grant_of(gates: &[(&str, GateGrant)], target: &str) -> GateGrant {
    let own = gates.iter().find(|(gate, _)| *gate == target).or(gates.first());
    own.map_or(GateGrant::Authorized, |(_, grant)| *grant)
}

impl Tuple {
    /// The question of a scope tuple: may the token have this scope, if it is granted? With `None`, that of a gate tuple whose audience is
    /// not known: its answer is the denial, which has a record.
    #[must_use]
    pub fn question(&self, scope: Option<&str>, grant: GateGrant, correlation_id: &str) -> TupleQuestion {
        let audiences = vec![self.target.clone()];
        // What the server would grant, and nothing if it does not ask about a scope.
        let vouched = Some(scope.unwrap_or_default().to_owned());
        let scope = scope.map(str::to_owned);
        let client = (!self.client_id.is_empty())
            .then(|| v1::Client { client_id: self.client_id.clone(), ..Default::default() });
        let correlation_id = correlation_id.to_owned();
        match grant {
            GateGrant::Token(grant) => TupleQuestion::Token(v1::CheckTokenScopesRequest {
                audiences,
                scope,
                granted_scope: vouched,
                registered_scope: None,
                client,
                grant: grant.into(),
                correlation_id,
            }),
            GateGrant::Authorized => TupleQuestion::Authorize(v1::CheckAuthorizeScopesRequest {
                audiences,
                scope,
                registered_scope: vouched,
                client,
                correlation_id,
            }),
        }
    }
}

/// The first of these that can be the id of a login: at most 128 bytes of printable ASCII. Empty if none can.
#[must_use]
pub fn correlation_id<'t>(candidates: &[&'t str]) -> &'t str {
    let fits = |text: &&&str| {
        (1..=MAX_CORRELATION_ID_BYTES).contains(&text.len())
            && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
    };
    candidates.iter().find(fits).copied().unwrap_or_default()
}

const GATE_PREFIX: &str = "issue:";
/// Those of the profile, and of the binding for token exchange ("AuthZEN Token Issuance Action Names Registry").
const TOKEN_TYPES: [&str; 8] =
    ["access_token", "refresh_token", "id_token", "id_jag", "txn_token", "jwt", "saml1", "saml2"];

#[cfg(test)]
mod tests;
