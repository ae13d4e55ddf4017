package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/storage"

	scopewardfosite "github.com/scopeward/scopeward/integrations/go/fosite"
	"github.com/scopeward/scopeward/integrations/go/scopeward"
)

// Server is an authorization server for MCP clients: registration (RFC 7591, RFC 7592), pushed requests (RFC 9126), authorization
// code with PKCE, refresh. It keeps everything in memory and approves every request; a real one shows a login and a consent page.
type Server struct {
	base     string
	store    *Store
	asker    *scopewardfosite.Asker
	client   *scopeward.Client
	provider fosite.OAuth2Provider
}

// NewServer returns a server whose issuer is base. It asks with the client.
func NewServer(base string, client *scopeward.Client, options scopewardfosite.Options) *Server {
	server := &Server{
		base: base, client: client, store: NewStore(), asker: scopewardfosite.NewAsker(client, options),
	}
	config := &fosite.Config{
		GlobalSecret:                []byte(rand.Text() + rand.Text()),
		AccessTokenLifespan:         time.Hour,
		RefreshTokenScopes:          []string{}, // every grant may be refreshed, not only those with offline_access
		EnforcePKCEForPublicClients: true,
		ScopeStrategy:               fosite.ExactScopeStrategy,
		AudienceMatchingStrategy:    fosite.DefaultAudienceMatchingStrategy,
	}
	server.provider = server.asker.Compose(
		config,
		server.store,
		compose.NewOAuth2HMACStrategy(config),
		compose.OAuth2AuthorizeExplicitFactory,
		compose.OAuth2RefreshTokenGrantFactory,
		compose.OAuth2ClientCredentialsGrantFactory,
		compose.OAuth2PKCEFactory,
		compose.PushedAuthorizeHandlerFactory,
	)
	return server
}

// Handler serves all endpoints.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", s.discovery)
	mux.HandleFunc("POST /oauth/register", s.register)
	mux.HandleFunc("GET /oauth/register/{id}", s.readRegistration)
	mux.HandleFunc("PUT /oauth/register/{id}", s.updateRegistration)
	mux.HandleFunc("POST /oauth/par", s.push)
	mux.HandleFunc("/oauth/authorize", s.authorize)
	mux.HandleFunc("POST /oauth/token", s.token)
	return mux
}

// discovery answers with the metadata of RFC 8414. The policy says which scopes to advertise; without an answer there are none.
func (s *Server) discovery(w http.ResponseWriter, r *http.Request) {
	document := map[string]any{
		"issuer":                                s.base,
		"registration_endpoint":                 s.base + "/oauth/register",
		"pushed_authorization_request_endpoint": s.base + "/oauth/par",
		"authorization_endpoint":                s.base + "/oauth/authorize",
		"token_endpoint":                        s.base + "/oauth/token",
		"response_types_supported":              []string{"code"},
		"grant_types_supported":                 []string{"authorization_code", "refresh_token", "client_credentials"},
		"code_challenge_methods_supported":      []string{"S256"},
		"token_endpoint_auth_methods_supported": []string{"none", "client_secret_basic"},
		"client_id_metadata_document_supported": true,
	}
	for audience, err := range s.client.DescribeAudiences(r.Context()) {
		if err == nil {
			document["scopes_supported"] = audience.GetAdvertisedScopes()
		}
		break
	}
	writeJSON(w, http.StatusOK, document)
}

func (s *Server) register(w http.ResponseWriter, r *http.Request) {
	metadata, err := readMetadata(w, r)
	if err == nil {
		err = s.asker.ExpandRegistration(r.Context(), metadata)
	}
	if err != nil {
		writeRegistrationError(w, err)
		return
	}
	client := &Client{ID: rand.Text(), AccessToken: rand.Text(), Metadata: metadata}
	s.store.Put(client)
	writeJSON(w, http.StatusCreated, s.information(client))
}

func (s *Server) readRegistration(w http.ResponseWriter, r *http.Request) {
	if client := s.authenticated(w, r); client != nil {
		writeJSON(w, http.StatusOK, s.information(client))
	}
}

func (s *Server) updateRegistration(w http.ResponseWriter, r *http.Request) {
	client := s.authenticated(w, r)
	if client == nil {
		return
	}
	metadata, err := readMetadata(w, r)
	if err == nil {
		err = s.asker.ExpandUpdate(r.Context(), client, metadata)
	}
	if err != nil {
		writeRegistrationError(w, err)
		return
	}
	updated := &Client{ID: client.ID, AccessToken: client.AccessToken, Metadata: metadata}
	s.store.Put(updated)
	writeJSON(w, http.StatusOK, s.information(updated))
}

// authenticated returns the client whose registration access token the request has, or answers 401.
func (s *Server) authenticated(w http.ResponseWriter, r *http.Request) *Client {
	client := s.store.Find(r.PathValue("id"))
	if client == nil || client.AccessToken == "" || r.Header.Get("Authorization") != "Bearer "+client.AccessToken {
		writeJSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_token"})
		return nil
	}
	return client
}

func (s *Server) information(client *Client) map[string]any {
	information := maps.Clone(client.Metadata)
	information["client_id"] = client.ID
	information["registration_client_uri"] = s.base + "/oauth/register/" + client.ID
	information["registration_access_token"] = client.AccessToken
	return information
}

// errMetadata is what is wrong with metadata besides its scope.
var errMetadata = errors.New("not client metadata with redirect_uris")

func readMetadata(w http.ResponseWriter, r *http.Request) (map[string]any, error) {
	var metadata map[string]any
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&metadata); err != nil {
		return nil, errMetadata
	}
	if len(scopeward.FromMetadata(metadata).RedirectURIs) == 0 {
		return nil, errMetadata
	}
	for _, name := range []string{"client_id", "client_secret", "registration_access_token", "registration_client_uri"} {
		delete(metadata, name) // the server's to say
	}
	return metadata, nil
}

func writeRegistrationError(w http.ResponseWriter, err error) {
	if errors.Is(err, errMetadata) {
		writeJSON(w, http.StatusBadRequest, scopeward.OAuthError{
			Error: "invalid_client_metadata", ErrorDescription: err.Error(),
		})
		return
	}
	scopeward.WriteRegistrationError(w, err)
}

func (s *Server) push(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	request, err := s.provider.NewPushedAuthorizeRequest(ctx, r)
	if err != nil {
		s.provider.WritePushedAuthorizeError(ctx, w, request, err)
		return
	}
	response, err := s.provider.NewPushedAuthorizeResponse(ctx, request, &fosite.DefaultSession{})
	if err != nil {
		s.provider.WritePushedAuthorizeError(ctx, w, request, err)
		return
	}
	s.provider.WritePushedAuthorizeResponse(ctx, w, request, response)
}

func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	request, err := s.provider.NewAuthorizeRequest(ctx, r)
	if err != nil {
		s.provider.WriteAuthorizeError(ctx, w, request, err)
		return
	}
	// Here the user logs in, and agrees to the requested scopes or to some of them.
	for _, scope := range request.GetRequestedScopes() {
		request.GrantScope(scope)
	}
	response, err := s.provider.NewAuthorizeResponse(ctx, request, &fosite.DefaultSession{Subject: "user"})
	if err != nil {
		s.provider.WriteAuthorizeError(ctx, w, request, err)
		return
	}
	s.provider.WriteAuthorizeResponse(ctx, w, request, response)
}

func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	request, err := s.provider.NewAccessRequest(ctx, r, &fosite.DefaultSession{})
	if err != nil {
		s.provider.WriteAccessError(ctx, w, request, err)
		return
	}
	if request.GetGrantTypes().ExactOne("client_credentials") {
		for _, scope := range request.GetRequestedScopes() {
			request.GrantScope(scope) // fosite has compared them with those of the client
		}
	}
	response, err := s.provider.NewAccessResponse(ctx, request)
	if err != nil {
		s.provider.WriteAccessError(ctx, w, request, err)
		return
	}
	s.provider.WriteAccessResponse(ctx, w, request, response)
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}

// Client is a stored client: its metadata, with the scope that was answered.
type Client struct {
	ID          string
	AccessToken string
	Secret      []byte
	Metadata    map[string]any
}

var _ scopewardfosite.MetadataClient = (*Client)(nil)

func (c *Client) GetID() string { return c.ID }

func (c *Client) GetHashedSecret() []byte { return c.Secret }

func (c *Client) GetRedirectURIs() []string { return scopeward.FromMetadata(c.Metadata).RedirectURIs }

func (c *Client) GetGrantTypes() fosite.Arguments {
	if types := scopeward.FromMetadata(c.Metadata).GrantTypes; len(types) > 0 {
		return types
	}
	return fosite.Arguments{"authorization_code"} // RFC 7591 section 2
}

func (c *Client) GetResponseTypes() fosite.Arguments { return fosite.Arguments{"code"} }

func (c *Client) GetScopes() fosite.Arguments {
	scope, _ := c.Metadata["scope"].(string)
	return strings.Fields(scope)
}

func (c *Client) IsPublic() bool { return c.Secret == nil }

func (c *Client) GetAudience() fosite.Arguments { return nil }

// GetMetadata tells the policy more than fosite knows of a client.
func (c *Client) GetMetadata() map[string]any { return c.Metadata }

// Store is the memory store of fosite, with clients that may come and change, and with metadata documents.
type Store struct {
	*storage.MemoryStore

	mutex   sync.RWMutex
	clients map[string]*Client

	// Fetch gets a metadata document. A real one refuses addresses of its own network, and keeps documents for a while.
	Fetch func(ctx context.Context, url string) (map[string]any, error)
}

// NewStore returns an empty store.
func NewStore() *Store {
	return &Store{MemoryStore: storage.NewMemoryStore(), clients: map[string]*Client{}, Fetch: fetch}
}

// Put stores a client, in the place of one with the same id.
func (s *Store) Put(client *Client) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.clients[client.ID] = client
}

// Find returns nil for a client that is not stored.
func (s *Store) Find(id string) *Client {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.clients[id]
}

// GetClient returns a stored client, or that of the metadata document at an https id.
func (s *Store) GetClient(ctx context.Context, id string) (fosite.Client, error) {
	if client := s.Find(id); client != nil {
		return client, nil
	}
	if scopeward.SourceOf(id) != scopeward.FromMetadataDocument {
		return nil, fosite.ErrNotFound
	}
	document, err := s.Fetch(ctx, id)
	if err != nil || document["client_id"] != id {
		return nil, fosite.ErrNotFound.WithWrap(err)
	}
	return &Client{ID: id, Metadata: document}, nil
}

func fetch(ctx context.Context, url string) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var document map[string]any
	return document, json.NewDecoder(io.LimitReader(response.Body, 64<<10)).Decode(&document)
}
