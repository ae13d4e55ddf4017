package scopewardtoolhive

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/token/hmac"
	"github.com/stacklok/toolhive/pkg/authserver/server/registration"
	"github.com/stacklok/toolhive/pkg/authserver/server/session"
	"github.com/stacklok/toolhive/pkg/authserver/storage"

	"github.com/scopeward/scopeward/integrations/go/scopeward"
)

// grant is what was decided for the request in whose context it is, or where that is to be found.
type grant struct {
	clientID string
	scope    string
	denial   scopeward.Failure

	// Of a refresh, whose grant the storage looks up.
	refreshToken string
}

type grantKey struct{}

func with(ctx context.Context, decided *grant) context.Context {
	return context.WithValue(ctx, grantKey{}, decided)
}

// askingStorage gives clients with the scopes that were decided, since ToolHive and fosite compare with those of the client.
type askingStorage struct {
	storage.Storage
	asker asker
}

var _ storage.AssertionJWTConsumer = askingStorage{}

// Unwrap is what storage.Unwrap looks for.
func (s askingStorage) Unwrap() storage.Storage { return s.Storage }

// ConsumeAssertionJWT is not part of storage.Storage, and has to be there if the storage has it.
func (s askingStorage) ConsumeAssertionJWT(ctx context.Context, purpose, issuer, id string, expires time.Time) error {
	consumer, isOne := s.Storage.(storage.AssertionJWTConsumer)
	if !isOne {
		return errors.New("the storage does not keep assertions")
	}
	return consumer.ConsumeAssertionJWT(ctx, purpose, issuer, id, expires)
}

// LoadPendingAuthorization notes what was decided before the user went to log in.
func (s askingStorage) LoadPendingAuthorization(ctx context.Context, state string) (*storage.PendingAuthorization, error) {
	pending, err := s.Storage.LoadPendingAuthorization(ctx, state)
	if decided, isThere := ctx.Value(grantKey{}).(*grant); isThere && err == nil {
		decided.clientID, decided.scope = pending.ClientID, strings.Join(pending.Scopes, " ")
	}
	return pending, err
}

// GetClient returns the client with what was decided for this request, and not more than that after a denial. Elsewhere it is the
// client as stored.
func (s askingStorage) GetClient(ctx context.Context, id string) (fosite.Client, error) {
	client, err := s.Storage.GetClient(ctx, id)
	decided, isThere := ctx.Value(grantKey{}).(*grant)
	if err != nil || !isThere {
		return client, err
	}
	switch {
	case decided.refreshToken != "":
		return withScopes(client, s.granted(ctx, client, decided.refreshToken)), nil
	case decided.clientID != id:
		return client, nil
	case decided.denial != nil:
		return withScopes(client, nil), nil
	default:
		return withScopes(client, strings.Fields(decided.scope)), nil
	}
}

// granted returns the scopes of the grant that a refresh token is of, together with those of the client; those of the client alone
// for a token that is unknown or of another client, which fosite then refuses.
func (s askingStorage) granted(ctx context.Context, client fosite.Client, token string) []string {
	scopes := slices.Clone(client.GetScopes())
	// The signature does not depend on secrets.
	signature := (&hmac.HMACStrategy{}).Signature(token)
	request, err := s.Storage.GetRefreshTokenSession(ctx, signature, session.New("", "", "", session.UserClaims{}))
	if err != nil || request.GetClient().GetID() != client.GetID() {
		return scopes
	}
	for _, scope := range request.GetGrantedScopes() {
		if !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	return scopes
}

// GetRefreshTokenSession returns a grant with what the policy leaves of its scopes. Nobody is asked for one that fosite refuses: it is
// expired, or of another client than the one that was authenticated. A token request that [server.Handler] did not see gets an error.
// Revocation and introspection are no token requests, and get the grant as stored.
func (s askingStorage) GetRefreshTokenSession(ctx context.Context, signature string, session fosite.Session) (fosite.Requester, error) {
	request, err := s.Storage.GetRefreshTokenSession(ctx, signature, session)
	refreshed, isThere := ctx.Value(grantKey{}).(*grant)
	access, isAccess := ctx.Value(fosite.AccessRequestContextKey).(fosite.AccessRequester)
	if err != nil || !isAccess {
		return request, err
	}
	if !isThere {
		return nil, errors.New("the scope policy was not asked for this refresh")
	}
	if len(request.GetGrantedScopes()) == 0 || request.GetClient().GetID() != access.GetClient().GetID() {
		return request, nil
	}
	if expires := request.GetSession().GetExpiresAt(fosite.RefreshToken); !expires.IsZero() && expires.Before(time.Now()) {
		return request, nil
	}
	scopes, err := s.asker.refresh(ctx, request, access.GetRequestForm())
	if err != nil {
		refreshed.denial = asFailure(err)
		if refreshed.denial.HTTPStatus() < http.StatusInternalServerError {
			return nil, fmt.Errorf("%w: %w", fosite.ErrNotFound, err) // ToolHive logs other errors as those of a server
		}
		return nil, err
	}
	return narrowed{request, scopes}, nil
}

// narrowed is a grant with less than it stands for.
type narrowed struct {
	fosite.Requester
	scopes fosite.Arguments
}

func (n narrowed) GetGrantedScopes() fosite.Arguments { return n.scopes }

// withScopes returns a copy of a client that may log in. One that may not has no such scopes: it is returned as it is.
func withScopes(client fosite.Client, scopes []string) fosite.Client {
	if registration.BackChannelOnly(client) || len(client.GetResponseTypes()) == 0 {
		return client
	}
	plain := &fosite.DefaultClient{
		ID:            client.GetID(),
		Secret:        client.GetHashedSecret(),
		RedirectURIs:  client.GetRedirectURIs(),
		GrantTypes:    client.GetGrantTypes(),
		ResponseTypes: client.GetResponseTypes(),
		Scopes:        scopes,
		Audience:      client.GetAudience(),
		Public:        client.IsPublic(),
	}
	if rotating, isOne := client.(fosite.ClientWithSecretRotation); isOne {
		plain.RotatedSecrets = rotating.GetRotatedHashes()
	}
	copied := fosite.Client(plain)
	if open, isOne := client.(fosite.OpenIDConnectClient); isOne {
		copied = &fosite.DefaultOpenIDConnectClient{
			DefaultClient:                     plain,
			JSONWebKeysURI:                    open.GetJSONWebKeysURI(),
			JSONWebKeys:                       open.GetJSONWebKeys(),
			TokenEndpointAuthMethod:           open.GetTokenEndpointAuthMethod(),
			RequestURIs:                       open.GetRequestURIs(),
			RequestObjectSigningAlgorithm:     open.GetRequestObjectSigningAlgorithm(),
			TokenEndpointAuthSigningAlgorithm: open.GetTokenEndpointAuthSigningAlgorithm(),
		}
	}
	if registration.DCRIssued(client) {
		copied = registration.MarkDCRIssued(copied)
	}
	return copied
}
