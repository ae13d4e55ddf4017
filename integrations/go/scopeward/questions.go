package scopeward

import (
	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardv1"
)

// ClientSource says where the authorization server knows a client from. The zero value says nothing.
type ClientSource = scopewardv1.ClientSource

// The sources of clients.
const (
	// FromRegistration is a client that registered itself (RFC 7591).
	FromRegistration = scopewardv1.ClientSource_CLIENT_SOURCE_DCR

	// FromMetadataDocument is a client whose id is the https URL of its metadata.
	FromMetadataDocument = scopewardv1.ClientSource_CLIENT_SOURCE_CIMD

	// FromOperator is a client that an operator configured.
	FromOperator = scopewardv1.ClientSource_CLIENT_SOURCE_STATIC
)

// TokenGrant says what a client presents at the token endpoint. The zero value is an error of the caller, which the service names.
type TokenGrant = scopewardv1.TokenGrant

// What clients present at the token endpoint. An authorization code is not among them: its scopes were decided before.
const (
	// GrantRefresh is a refresh token (RFC 6749 section 6).
	GrantRefresh = scopewardv1.TokenGrant_TOKEN_GRANT_REFRESH

	// GrantClientCredentials is the client's own credentials (RFC 6749 section 4.4).
	GrantClientCredentials = scopewardv1.TokenGrant_TOKEN_GRANT_CLIENT_CREDENTIALS

	// GrantJWTBearer is a JWT as authorization grant (RFC 7523 section 2.1), such as an identity assertion (ID-JAG).
	GrantJWTBearer = scopewardv1.TokenGrant_TOKEN_GRANT_JWT_BEARER

	// GrantTokenExchange is another token (RFC 8693).
	GrantTokenExchange = scopewardv1.TokenGrant_TOKEN_GRANT_TOKEN_EXCHANGE
)

// OAuthClient is the OAuth client, as it registered or as its metadata document says (RFC 7591 section 2).
//
// Send the same each time: a rule of the policy holds only for what is sent.
type OAuthClient struct {
	// ClientID is empty for a client that registers and has none yet.
	ClientID        string
	Source          ClientSource
	ClientName      string
	SoftwareID      string
	SoftwareVersion string
	RedirectURIs    []string
	GrantTypes      []string
	ApplicationType string
}

// FromMetadata takes what matters from client metadata as received or stored (RFC 7591 section 2). Members that are not of
// their type are left out. ClientID and Source are left to the caller.
func FromMetadata(metadata map[string]any) *OAuthClient {
	text := func(name string) string {
		value, _ := metadata[name].(string)
		return value
	}
	texts := func(name string) []string {
		switch value := metadata[name].(type) {
		case []string:
			return value
		case []any:
			var items []string
			for _, item := range value {
				if item, isText := item.(string); isText {
					items = append(items, item)
				}
			}
			return items
		default:
			return nil
		}
	}
	return &OAuthClient{
		ClientName:      text("client_name"),
		SoftwareID:      text("software_id"),
		SoftwareVersion: text("software_version"),
		RedirectURIs:    texts("redirect_uris"),
		GrantTypes:      texts("grant_types"),
		ApplicationType: text("application_type"),
	}
}

// RegistrationQuestion asks which scopes a client holds after it registers or updates its registration.
type RegistrationQuestion struct {
	// Scope is the scope as received; nil if the client sent none.
	Scope *string

	// PreviousScope has the scopes stored so far at an update (RFC 7592 section 2.2); nil at a new registration. An update
	// without scope then keeps them instead of taking the defaults.
	PreviousScope *string

	// Audiences is empty if one policy serves all: RFC 7591 knows no resource. At most 16 of at most 2048 bytes each.
	Audiences []string

	// Client is the metadata that the server is about to store. Without it no client rule holds.
	Client *OAuthClient

	// CorrelationID is the server's own id of this registration, for the audit: at most 128 bytes of printable ASCII.
	CorrelationID string
}

// AuthorizeQuestion asks which scopes an authorize request gets. Not for the token endpoint: see [TokenQuestion].
type AuthorizeQuestion struct {
	// Scope is the parameter as received; nil if there was none.
	Scope *string

	// RegisteredScope is what was stored at registration. Nil means that the server does not know, as with a metadata document;
	// "" that the client registered with none. They get different answers.
	RegisteredScope *string

	// Audiences has each resource parameter (RFC 8707 section 2), in order. At most 16 of at most 2048 bytes each.
	Audiences []string

	// Client is the client as stored. Without it no client rule holds.
	Client *OAuthClient

	// CorrelationID is one id for all calls of this login, for the audit: at most 128 bytes of printable ASCII. See [LoginID].
	CorrelationID string
}

// TokenQuestion asks which scopes a token gets at the token endpoint, where nothing may be added.
type TokenQuestion struct {
	// Grant is what the client presents. Required.
	Grant TokenGrant

	// Scope is the parameter as received; nil if there was none.
	Scope *string

	// GrantedScope is what the grant stands for: the scopes of the refreshed grant, of the subject token, or of the assertion.
	// Required for GrantRefresh and GrantTokenExchange. Nil means that the grant says nothing of scopes, "" that it has none, of
	// which nothing can be had. Where it is set, RegisteredScope does not count.
	GrantedScope *string

	// RegisteredScope is what was stored at registration, as in [AuthorizeQuestion].
	RegisteredScope *string

	// Audiences has each resource parameter (RFC 8707 section 2) or audience parameter (RFC 8693 section 2.1), in order. At most
	// 16 of at most 2048 bytes each.
	Audiences []string

	// Client is the client as stored. Without it no client rule holds.
	Client *OAuthClient

	// CorrelationID is the id of the login that the grant is from, for the audit: at most 128 bytes of printable ASCII.
	CorrelationID string
}

// RegistrationAnswer is what the client holds from now on.
type RegistrationAnswer struct {
	// Scope is to be stored with the client and returned to it (RFC 7591 section 3.2.1): tokens separated by single spaces,
	// never empty.
	Scope string

	// Added has the scopes that the client got without asking, in the order of Scope. May be empty.
	Added []*scopewardv1.AddedScope

	// Refused has what was asked for and dropped; empty unless the policy drops.
	Refused []*scopewardv1.RefusedScope

	// Policy names the policy that decided.
	Policy *scopewardv1.PolicyVersion

	// DecisionID names this answer in the audit log.
	DecisionID string
}

// AuthorizeAnswer is what the authorize request gets.
type AuthorizeAnswer struct {
	// Scope is for the consent page and the code, and not for the stored client: tokens separated by single spaces, never empty.
	Scope string

	// Added has the granted scopes that were not asked for, or that the client does not hold. May be empty.
	Added []*scopewardv1.AddedScope

	// Refused has what was asked for and dropped; empty unless the policy drops.
	Refused []*scopewardv1.RefusedScope

	// AudienceGrants says which audience grants which scopes. A grant must not be used at another audience.
	AudienceGrants []*scopewardv1.AudienceGrant

	// EffectiveRegisteredScope is for a check of the server's own within this request. Never store it: a step-up would become a
	// registration.
	EffectiveRegisteredScope string

	// Policy names the policy that decided.
	Policy *scopewardv1.PolicyVersion

	// DecisionID names this answer in the audit log.
	DecisionID string
}

// AuthorizeResult is the outcome of one check of a batch: one of the two is set.
type AuthorizeResult struct {
	Answer *AuthorizeAnswer

	// Err is a [*Denied] or an [*Unavailable].
	Err error
}

// TokenAnswer is what a token gets: never more than was asked for, or than what the grant stands for.
type TokenAnswer struct {
	// Scope is for the token and the answer of the endpoint (RFC 6749 section 5.1): tokens separated by single spaces, in request
	// order, never empty. A new refresh token keeps the scopes of the old one (RFC 6749 section 6).
	Scope string

	// Refused has what was asked for and dropped, in request order.
	Refused []*scopewardv1.RefusedScope

	// AudienceGrants says which audience grants which scopes. A grant must not be used at another audience.
	AudienceGrants []*scopewardv1.AudienceGrant

	// Policy names the policy that decided.
	Policy *scopewardv1.PolicyVersion

	// DecisionID names this answer in the audit log.
	DecisionID string
}

// TokenResult is the outcome of one token check of a batch: one of the two is set.
type TokenResult struct {
	Answer *TokenAnswer

	// Err is a [*Denied] or an [*Unavailable].
	Err error
}
