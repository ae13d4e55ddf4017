package scopewardtoolhive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/ory/fosite"
	"github.com/stacklok/toolhive/pkg/authserver"
	"github.com/stacklok/toolhive/pkg/authserver/server/handlers"
	"github.com/stacklok/toolhive/pkg/authserver/storage"

	"github.com/scopeward/scopeward/integrations/go/scopeward"
)

// Options say what is asked. The zero value is right for a policy of one audience.
type Options struct {
	// Audience is the resource that the server is for, if the policy has others as well: asked for at registration, and at
	// authorize for clients that send no resource (RFC 8707).
	Audience string
}

// New is authserver.New for a server that asks. Close the client when the server ends.
//
// ScopesSupported of the config has to name every scope that the policy may answer with: ToolHive refuses a registration with any
// other, and advertises these. An error says what in the config is against asking.
func New(
	ctx context.Context, config authserver.Config, store storage.Storage, client *scopeward.Client, options Options,
) (authserver.Server, error) {
	switch {
	case store == nil:
		return nil, errors.New("scopeward: the storage is nil")
	case client == nil:
		return nil, errors.New("scopeward: the client is nil")
	case len(config.BaselineClientScopes) > 0:
		return nil, errors.New("scopeward: BaselineClientScopes would be a second baseline; name these scopes in the policy, as baselineClientScopes")
	case config.CIMDEnabled:
		return nil, errors.New("scopeward: CIMDEnabled: ToolHive keeps clients with a metadata document where no question can be asked; set it to false")
	}
	asker := asker{client, options.Audience}
	inner, err := authserver.New(ctx, config, askingStorage{store, asker})
	if err != nil {
		return nil, err
	}
	return &server{Server: inner, store: store, asker: asker}, nil
}

type server struct {
	authserver.Server
	asker
	store storage.Storage
}

// asker has what every question needs.
type asker struct {
	client   *scopeward.Client
	audience string
}

// CloseIdleConnections is what authserver.CloseIdleConnections looks for.
func (s *server) CloseIdleConnections() { authserver.CloseIdleConnections(s.Server) }

// Handler serves all endpoints of ToolHive, and asks at those that decide about scopes.
func (s *server) Handler() http.Handler {
	next := s.Server.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case "POST /oauth/register":
			s.register(next, w, r)
		case "GET /oauth/authorize":
			s.authorize(next, w, r)
		case "GET /oauth/callback":
			next.ServeHTTP(w, r.WithContext(with(r.Context(), &grant{})))
		case "POST /oauth/token":
			token(next, w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// register puts the answer into the metadata. What ToolHive refuses anyway is not asked for, and refused in its words.
func (s *server) register(next http.Handler, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, handlers.MaxDCRBodySize))
	var metadata map[string]any
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err != nil || decoder.Decode(&metadata) != nil || metadata == nil || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		next.ServeHTTP(w, withBody(r, nil))
		return
	}
	scope, err := s.expand(r.Context(), metadata)
	if err != nil {
		scopeward.WriteRegistrationError(w, err)
		return
	}
	metadata["scope"] = scope
	changed, err := json.Marshal(metadata)
	if err != nil { // cannot be: it was decoded
		scopeward.WriteRegistrationError(w, refused{"invalid_client_metadata", err.Error()})
		return
	}
	next.ServeHTTP(w, withBody(r, changed))
}

func (s *server) expand(ctx context.Context, metadata map[string]any) (string, error) {
	question := scopeward.RegistrationQuestion{Client: scopeward.FromMetadata(metadata), Audiences: s.audiences(nil)}
	question.Client.Source = scopeward.FromRegistration
	for name := range metadata {
		// ToolHive reads member names without regard to case, and the last of several.
		if name != "scope" && strings.EqualFold(name, "scope") {
			return "", refused{"invalid_client_metadata", "scope is written in another way: " + name}
		}
	}
	switch scope := metadata["scope"].(type) {
	case nil:
	case string:
		question.Scope = &scope
	case []any: // ToolHive takes it
		tokens := make([]string, 0, len(scope))
		for _, token := range scope {
			text, isText := token.(string)
			if !isText {
				return "", refused{"invalid_client_metadata", "scope has a value that is not a string"}
			}
			tokens = append(tokens, text)
		}
		question.Scope = new(strings.Join(tokens, " "))
	default:
		return "", refused{"invalid_client_metadata", "scope is not a string"}
	}
	answer, err := s.client.ExpandRegistrationScopes(ctx, question)
	if err != nil {
		return "", err
	}
	if answer.Scope == "" {
		// ToolHive would give such a client its own defaults.
		return "", refused{"invalid_client_metadata", "the policy gives this client no scope"}
	}
	return answer.Scope, nil
}

// authorize lets ToolHive check client and redirect URI, with the scopes of the answer in the place of those that were asked for.
// After a denial it is asked for a scope that no client has, and its invalid_scope becomes what the denial says.
func (s *server) authorize(next http.Handler, w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	decided := s.decide(r.Context(), query)
	scope := decided.scope
	if decided.denial != nil {
		scope = deniedScope
		w = &denyingWriter{ResponseWriter: w, denial: decided.denial}
	}
	query.Set("scope", scope)
	// A request object would replace the scope. ToolHive advertises none.
	query.Del("request")
	query.Del("request_uri")
	r = withBody(r.WithContext(with(r.Context(), decided)), nil) // a body with a form would add to the query
	r.URL = new(*r.URL)
	r.URL.RawQuery = query.Encode()
	r.RequestURI = r.URL.RequestURI()
	next.ServeHTTP(w, r)
}

// deniedScope is asked for in the place of what was denied. The storage gives a client without scopes then.
const deniedScope = "scopeward:denied"

func (s *server) decide(ctx context.Context, query url.Values) *grant {
	id := query.Get("client_id")
	decided := &grant{clientID: id}
	for name, code := range map[string]string{"request": "request_not_supported", "request_uri": "request_uri_not_supported"} {
		if query.Has(name) {
			decided.denial = refused{code, name + " is not supported"}
			return decided
		}
	}
	stored, err := s.store.GetClient(ctx, id)
	if err != nil {
		// Of a client that is not there ToolHive says so.
		decided.denial = refused{"server_error", "the client could not be read"}
		return decided
	}
	question := scopeward.AuthorizeQuestion{
		Client: describe(stored), Audiences: s.audiences(query["resource"]),
		CorrelationID: scopeward.LoginID(
			id, query.Get("redirect_uri"), query.Get("state"), query.Get("code_challenge"), query.Get("nonce")),
	}
	if query.Has("scope") {
		question.Scope = new(query.Get("scope"))
	}
	if scopes := stored.GetScopes(); len(scopes) > 0 {
		question.RegisteredScope = new(strings.Join(scopes, " "))
	}
	answer, err := s.client.CheckAuthorizeScopes(ctx, question)
	if err != nil {
		decided.denial = asFailure(err)
	} else {
		decided.scope = answer.Scope
	}
	return decided
}

func asFailure(err error) scopeward.Failure {
	var failure scopeward.Failure
	if !errors.As(err, &failure) {
		failure = refused{"server_error", "the scope policy could not be asked"}
	}
	return failure
}

func describe(client fosite.Client) *scopeward.OAuthClient {
	return &scopeward.OAuthClient{
		ClientID: client.GetID(), Source: scopeward.SourceOf(client.GetID()),
		RedirectURIs: client.GetRedirectURIs(), GrantTypes: client.GetGrantTypes(),
	}
}

func (a asker) audiences(resources []string) []string {
	if len(resources) == 0 && a.audience != "" {
		return []string{a.audience}
	}
	return resources
}

// refresh asks what is left of a grant (RFC 6749 section 6). fosite issues the whole grant, and keeps what it issues for the next
// refresh. So a part of it is not asked for, since the rest would be lost; what is not in it is, and denied.
func (a asker) refresh(ctx context.Context, grant fosite.Requester, form url.Values) ([]string, error) {
	granted := grant.GetGrantedScopes()
	question := scopeward.TokenQuestion{
		Grant: scopeward.GrantRefresh, GrantedScope: new(strings.Join(granted, " ")), Client: describe(grant.GetClient()),
		Audiences: form["resource"], CorrelationID: grant.GetID(),
	}
	if len(question.Audiences) == 0 {
		question.Audiences = a.audiences(grant.GetGrantedAudience())
	}
	scope := form.Get("scope")
	isOutside := func(token string) bool { return !slices.Contains(granted, token) }
	if slices.ContainsFunc(strings.Fields(scope), isOutside) {
		question.Scope = &scope
	}
	answer, err := a.client.CheckTokenScopes(ctx, question)
	if err != nil {
		return nil, err
	}
	left := fosite.Arguments(strings.Fields(answer.Scope))
	if !left.HasOneOf("offline", "offline_access") {
		// fosite refreshes nothing without one of them. The user has to log in again.
		return nil, refused{"invalid_grant", "the policy does not grant offline_access any more"}
	}
	return left, nil
}

// token keeps a refresh within its own grant, whatever the client registered: the storage looks the grant up, and asks for it.
func token(next http.Handler, w http.ResponseWriter, r *http.Request) {
	// As fosite will: it reads both kinds of forms. After an error it would parse again and may get a form: of a body that was read
	// before an error of the query, or of what is left of the body.
	if err := r.ParseMultipartForm(1 << 20); err != nil && !errors.Is(err, http.ErrNotMultipart) {
		scopeward.WriteTokenError(w, refused{"invalid_request", "the query or the form is malformed"})
		return
	}
	if types := strings.Fields(r.PostForm.Get("grant_type")); len(types) == 1 && types[0] == "refresh_token" {
		refreshed := &grant{refreshToken: r.PostForm.Get("refresh_token")}
		r = r.WithContext(with(r.Context(), refreshed))
		w = &refusingWriter{ResponseWriter: w, grant: refreshed}
	}
	next.ServeHTTP(w, r)
}

func withBody(r *http.Request, body []byte) *http.Request {
	changed := r.Clone(r.Context())
	changed.Body, changed.ContentLength, changed.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	changed.Form, changed.PostForm, changed.MultipartForm = nil, nil, nil
	changed.Header.Del("Content-Length")
	if r.Method == http.MethodGet {
		changed.Header.Del("Content-Type")
	}
	return changed
}

// refused is a [scopeward.Failure] that nobody has to be asked for.
type refused struct {
	code        string
	description string
}

func (r refused) Error() string { return r.code + ": " + r.description }

func (r refused) HTTPStatus() int {
	if r.code == "server_error" {
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}

func (r refused) OAuthError() scopeward.OAuthError {
	return scopeward.OAuthError{Error: r.code, ErrorDescription: r.description}
}

// denyingWriter passes what ToolHive says of the client and of its redirect URI, and makes its invalid_scope the denial.
type denyingWriter struct {
	http.ResponseWriter
	denial scopeward.Failure
	hasEnd bool
}

func (d *denyingWriter) WriteHeader(status int) {
	location, err := url.Parse(d.Header().Get("Location"))
	if status < 300 || status >= 400 {
		d.ResponseWriter.WriteHeader(status)
		return
	}
	query := url.Values{}
	if err == nil {
		query = location.Query()
	}
	switch query.Get("error") {
	case "invalid_scope":
		answer := d.denial.OAuthError()
		query.Set("error", answer.Error)
		query.Set("error_description", answer.ErrorDescription)
		query.Del("error_hint")
		location.RawQuery = query.Encode()
		d.Header().Set("Location", location.String())
		d.ResponseWriter.WriteHeader(status)
	case "":
		// It would go on with a request that was denied.
		d.Header().Del("Location")
		d.hasEnd = true
		http.Error(d.ResponseWriter, "server_error", http.StatusInternalServerError)
	default:
		d.ResponseWriter.WriteHeader(status)
	}
}

func (d *denyingWriter) Write(body []byte) (int, error) {
	if d.hasEnd {
		return len(body), nil
	}
	return d.ResponseWriter.Write(body)
}

// refusingWriter passes what ToolHive answers to a refresh, unless the grant was denied meanwhile.
type refusingWriter struct {
	http.ResponseWriter
	grant     *grant
	isRefused bool
}

func (r *refusingWriter) WriteHeader(status int) {
	if r.grant.denial == nil {
		r.ResponseWriter.WriteHeader(status)
		return
	}
	r.isRefused = true
	scopeward.WriteTokenError(r.ResponseWriter, r.grant.denial)
}

func (r *refusingWriter) Write(body []byte) (int, error) {
	if r.isRefused {
		return len(body), nil
	}
	return r.ResponseWriter.Write(body)
}
