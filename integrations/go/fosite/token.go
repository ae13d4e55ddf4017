package scopewardfosite

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/ory/fosite"

	"github.com/scopeward/scopeward/integrations/go/scopeward"
)

// NewAccessRequest asks for what fosite found to be valid: for a refresh (RFC 6749 section 6), client credentials (section 4.4) and
// a JWT grant (RFC 7523 section 2.1). The scopes of a code were decided at authorize.
func (p *provider) NewAccessRequest(ctx context.Context, r *http.Request, session fosite.Session) (fosite.AccessRequester, error) {
	request, err := p.OAuth2Provider.NewAccessRequest(ctx, r, session)
	if err != nil {
		return request, err
	}
	return request, p.asker.decideToken(ctx, request)
}

// decideToken takes out of the request what the answer does not have, or returns the error for fosite to write.
func (a *Asker) decideToken(ctx context.Context, request fosite.AccessRequester) error {
	access, isOne := request.(*fosite.AccessRequest)
	if !isOne {
		return fosite.ErrServerError.WithWrap(fmt.Errorf("cannot ask for a %T", request))
	}
	question, narrow := tokenQuestion(access)
	if question == nil {
		return nil
	}
	stored, form := access.GetClient(), access.GetRequestForm()
	question.Client = a.describe(stored)
	question.CorrelationID = access.GetID()
	// What a metadata document says of scopes is no registration.
	if question.Client.Source == scopeward.FromMetadataDocument {
		question.RegisteredScope = nil
	}
	for _, audiences := range [][]string{form["resource"], access.GetGrantedAudience(), a.audiences()} {
		if len(question.Audiences) == 0 {
			question.Audiences = audiences
		}
	}
	answer, err := a.client.CheckTokenScopes(ctx, *question)
	if err != nil {
		return asRFC6749(err)
	}
	narrow(strings.Split(answer.Scope, " "))
	return nil
}

// tokenQuestion returns what to ask for a request, and what to do with the answer; nil if there is nothing to ask.
func tokenQuestion(access *fosite.AccessRequest) (*scopeward.TokenQuestion, func(scopes []string)) {
	scope := requestedScope(access)
	setGranted := func(scopes []string) { access.GrantedScope = scopes }
	switch types := access.GetGrantTypes(); {
	case types.ExactOne(string(fosite.GrantTypeRefreshToken)):
		granted := access.GetGrantedScopes()
		if len(granted) == 0 {
			return nil, nil // the token will have none
		}
		// fosite issues the whole grant, and keeps what it issues for the next refresh. So a part of it is not asked for, since the
		// rest would be lost (RFC 6749 section 6); what is not in it is, and denied.
		if scope != nil && isWithin(strings.Fields(*scope), granted) {
			scope = nil
		}
		return &scopeward.TokenQuestion{
			Grant: scopeward.GrantRefresh, Scope: scope, GrantedScope: new(strings.Join(granted, " ")),
		}, setGranted
	case types.ExactOne(string(fosite.GrantTypeClientCredentials)):
		return &scopeward.TokenQuestion{
			Grant: scopeward.GrantClientCredentials, Scope: scope, RegisteredScope: registeredScope(access.GetClient()),
		}, func(scopes []string) { access.SetRequestedScopes(scopes) }
	case types.ExactOne(string(fosite.GrantTypeJWTBearer)):
		// What is asked for and what the key of the assertion may have. There may be no client.
		granted := access.GetGrantedScopes()
		if len(granted) == 0 {
			return nil, nil
		}
		return &scopeward.TokenQuestion{
			Grant: scopeward.GrantJWTBearer, Scope: scope, GrantedScope: new(strings.Join(granted, " ")),
		}, setGranted
	default:
		return nil, nil
	}
}

func isWithin(scopes, granted []string) bool {
	return !slices.ContainsFunc(scopes, func(scope string) bool { return !slices.Contains(granted, scope) })
}
