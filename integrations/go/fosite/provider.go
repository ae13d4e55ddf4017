package scopewardfosite

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"

	"github.com/scopeward/scopeward/integrations/go/scopeward"
)

// Options say what is asked. The zero value is right for a server of one policy.
type Options struct {
	// Audience is the resource that the server is for, if the policy has others as well: asked for at registration, and at
	// authorize and at the token endpoint for clients that send no resource (RFC 8707) and grants that have no audience.
	Audience string

	// Source says where a stored client is from. By default an https id is a metadata document, and any other a registration.
	Source func(client fosite.Client) scopeward.ClientSource
}

// MetadataClient is a stored client that knows its metadata (RFC 7591 section 2). Of another client the policy is told its id,
// redirect URIs and grant types alone, so that no rule on its name or software holds.
type MetadataClient interface {
	fosite.Client

	// GetMetadata returns the metadata as stored.
	GetMetadata() map[string]any
}

// Asker asks all three questions in the words of fosite.
type Asker struct {
	client  *scopeward.Client
	options Options
}

// NewAsker returns an asker. Close the client when the server ends.
func NewAsker(client *scopeward.Client, options Options) *Asker {
	if options.Source == nil {
		options.Source = func(client fosite.Client) scopeward.ClientSource { return scopeward.SourceOf(client.GetID()) }
	}
	return &Asker{client, options}
}

// Compose is compose.Compose for a provider that asks: the config gets the handlers of the factories, and a storage has to have
// what they need. The scope strategy of the config counts where nothing is asked, such as for a password, and for the keys of JWT
// grants.
//
// Give the config to nothing else: handlers of another provider would be kept. An AuthorizeRequester that did not come from
// NewAuthorizeRequest of this provider, such as one that was restored after a login elsewhere, is issued its requested scopes
// without another question; restore those of an answer.
func (a *Asker) Compose(
	config *fosite.Config, storage fosite.Storage, strategy any, factories ...compose.Factory,
) fosite.OAuth2Provider {
	asking := askingConfig{config}
	for _, factory := range factories {
		handler := factory(asking, storage, strategy)
		if handler, isOne := handler.(fosite.AuthorizeEndpointHandler); isOne {
			config.AuthorizeEndpointHandlers.Append(handler)
		}
		if handler, isOne := handler.(fosite.TokenEndpointHandler); isOne {
			config.TokenEndpointHandlers.Append(handler)
		}
		if handler, isOne := handler.(fosite.TokenIntrospector); isOne {
			config.TokenIntrospectionHandlers.Append(handler)
		}
		if handler, isOne := handler.(fosite.RevocationHandler); isOne {
			config.RevocationHandlers.Append(handler)
		}
		if handler, isOne := handler.(fosite.PushedAuthorizeEndpointHandler); isOne {
			config.PushedAuthorizeEndpointHandlers.Append(handler)
		}
	}
	return &provider{fosite.NewOAuth2Provider(storage, asking), a, config}
}

// askingConfig leaves scopes to the answer where the provider asks. It embeds the struct: the interfaces of fosite for pushed
// requests are not part of fosite.Configurator, and without them those are silently off.
type askingConfig struct {
	*fosite.Config
}

var (
	_ fosite.Configurator                           = askingConfig{}
	_ fosite.PushedAuthorizeRequestConfigProvider   = askingConfig{}
	_ fosite.PushedAuthorizeRequestHandlersProvider = askingConfig{}
)

// GetScopeStrategy allows everything within an authorize request and for client credentials, which are decided by an answer, and for
// a refresh, which walks over the scopes of its own grant and is then decided. Everywhere else it is the strategy of the config.
func (c askingConfig) GetScopeStrategy(ctx context.Context) fosite.ScopeStrategy {
	if access, isAccess := ctx.Value(fosite.AccessRequestContextKey).(fosite.AccessRequester); isAccess {
		types := access.GetGrantTypes()
		if types.ExactOne("refresh_token") || types.ExactOne("client_credentials") {
			return allowAll
		}
		return c.Config.GetScopeStrategy(ctx)
	}
	if _, isAuthorize := ctx.Value(fosite.AuthorizeRequestContextKey).(fosite.AuthorizeRequester); isAuthorize {
		return allowAll
	}
	return c.Config.GetScopeStrategy(ctx)
}

func allowAll([]string, string) bool { return true }

type provider struct {
	fosite.OAuth2Provider
	asker  *Asker
	config *fosite.Config
}

// NewAuthorizeRequest asks for what fosite found to be valid.
func (p *provider) NewAuthorizeRequest(ctx context.Context, r *http.Request) (fosite.AuthorizeRequester, error) {
	isPushed, err := p.takesPushed(ctx, r)
	if err != nil {
		return fosite.NewAuthorizeRequest(), err
	}
	request, err := p.OAuth2Provider.NewAuthorizeRequest(ctx, r)
	if err != nil {
		return request, err
	}
	scope := requestedScope(request)
	if isPushed {
		scope = new(strings.Join(request.GetRequestedScopes(), " "))
	}
	return request, p.asker.decide(ctx, request, scope)
}

// NewPushedAuthorizeRequest asks before the request is stored, so that the client hears of a denial at once.
func (p *provider) NewPushedAuthorizeRequest(ctx context.Context, r *http.Request) (fosite.AuthorizeRequester, error) {
	request, err := p.OAuth2Provider.NewPushedAuthorizeRequest(ctx, r)
	if err != nil {
		return request, err
	}
	return request, p.asker.decide(ctx, request, requestedScope(request))
}

// takesPushed returns true for an authorize request that refers to a pushed one, and takes out of it what only the pushed one may
// say (RFC 9126 section 4): fosite merges both. After an error fosite would parse again and may get a form: of a body that was read
// before an error of the query, or of what is left of the body.
func (p *provider) takesPushed(ctx context.Context, r *http.Request) (bool, error) {
	if err := r.ParseMultipartForm(1 << 20); err != nil && !errors.Is(err, http.ErrNotMultipart) {
		return false, fosite.ErrInvalidRequest.WithHint("The query or the form is malformed.").WithWrap(err)
	}
	uri := r.Form.Get("request_uri")
	if uri == "" || !strings.HasPrefix(uri, p.config.GetPushedAuthorizeRequestURIPrefix(ctx)) {
		return false, nil
	}
	r.Form.Del("scope")
	r.Form.Del("resource")
	return true, nil
}

// requestedScope returns the parameter as received, that of a request object included; nil if there was none.
func requestedScope(request fosite.Requester) *string {
	form := request.GetRequestForm()
	if !form.Has("scope") {
		return nil
	}
	return new(form.Get("scope"))
}

// decide puts the answer into the request, or returns the error for fosite to write.
func (a *Asker) decide(ctx context.Context, request fosite.AuthorizeRequester, scope *string) error {
	stored, form := request.GetClient(), request.GetRequestForm()
	tool := a.describe(stored)
	question := scopeward.AuthorizeQuestion{
		Scope:         scope,
		Audiences:     form["resource"],
		Client:        tool,
		CorrelationID: loginID(stored.GetID(), form),
	}
	// What a metadata document says of scopes is no registration, and servers fill it in as they like.
	if tool.Source != scopeward.FromMetadataDocument {
		question.RegisteredScope = registeredScope(stored)
	}
	if len(question.Audiences) == 0 {
		question.Audiences = a.audiences()
	}
	answer, err := a.client.CheckAuthorizeScopes(ctx, question)
	if err != nil {
		return asRFC6749(err)
	}
	request.SetRequestedScopes(strings.Split(answer.Scope, " "))
	return nil
}

// loginID is the same for a pushed request, the authorize request that uses it, and each page of a login.
func loginID(clientID string, form url.Values) string {
	return scopeward.LoginID(
		clientID, form.Get("redirect_uri"), form.Get("state"), form.Get("code_challenge"), form.Get("nonce"))
}

func (a *Asker) audiences() []string {
	if a.options.Audience == "" {
		return nil
	}
	return []string{a.options.Audience}
}

// describe returns what the policy is told of a stored client: the same as at its registration.
func (a *Asker) describe(client fosite.Client) *scopeward.OAuthClient {
	tool := &scopeward.OAuthClient{RedirectURIs: client.GetRedirectURIs(), GrantTypes: client.GetGrantTypes()}
	if client, hasMetadata := client.(MetadataClient); hasMetadata {
		tool = scopeward.FromMetadata(client.GetMetadata())
	}
	tool.ClientID, tool.Source = client.GetID(), a.options.Source(client)
	return tool
}

// registeredScope returns nil for a client that was stored without scopes: what it may have is then for the policy to say.
func registeredScope(client fosite.Client) *string {
	scopes := client.GetScopes()
	if len(scopes) == 0 {
		return nil
	}
	return new(strings.Join(scopes, " "))
}

// asRFC6749 is a failure in the words of fosite. The cause is in it for errors.As and not for the client.
func asRFC6749(err error) error {
	var failure scopeward.Failure
	if !errors.As(err, &failure) {
		return fosite.ErrServerError.WithWrap(err)
	}
	answer := &fosite.RFC6749Error{
		ErrorField:       failure.OAuthError().Error,
		DescriptionField: failure.OAuthError().ErrorDescription,
		CodeField:        failure.HTTPStatus(),
	}
	return answer.WithWrap(err)
}
