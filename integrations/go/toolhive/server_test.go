package scopewardtoolhive_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stacklok/toolhive/pkg/authserver"
	"github.com/stacklok/toolhive/pkg/authserver/server/crypto"
	"github.com/stacklok/toolhive/pkg/authserver/server/registration"
	"github.com/stacklok/toolhive/pkg/authserver/storage"
	"github.com/stacklok/toolhive/pkg/authserver/upstream"

	"github.com/scopeward/scopeward/integrations/go/scopeward"
	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardtest"
	scopewardtoolhive "github.com/scopeward/scopeward/integrations/go/toolhive"
)

const (
	resource    = "https://mcp.example.com"
	redirectURI = "http://127.0.0.1:33418/callback"
	policy      = `audiences:
  https://mcp.example.com:
    scopesSupported: [openid, profile, offline_access, "mcp:read", "mcp:write", admin, root]
    baselineClientScopes: [offline_access]
    defaultClientScopes: [openid, "mcp:read"]
    privilegedScopes: [admin]
    forbiddenScopes: [root]
    authorization:
      stepUpScopes: ["mcp:write"]
`
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// everyone is the identity provider behind ToolHive: it lets everyone in at once.
type everyone struct{ callback string }

func (everyone) Type() upstream.ProviderType { return upstream.ProviderTypeOAuth2 }

func (e everyone) AuthorizationURL(state, _ string, _ ...upstream.AuthorizationOption) (string, error) {
	return e.callback + "?" + url.Values{"code": {"code"}, "state": {state}}.Encode(), nil
}

func (everyone) ExchangeCodeForIdentity(context.Context, string, string, string) (*upstream.Identity, error) {
	tokens := &upstream.Tokens{AccessToken: "token", ExpiresAt: time.Now().Add(time.Hour)}
	return &upstream.Identity{Tokens: tokens, Subject: "user"}, nil
}

func (everyone) RefreshTokens(context.Context, string, string) (*upstream.Tokens, error) {
	return nil, errors.New("not here")
}

// running is the authorization server of ToolHive, its Scopeward, and a client of it.
type running struct {
	t       *testing.T
	base    string
	store   storage.Storage
	decider *scopewardtest.Server
	http    *http.Client
}

func config(base string) authserver.Config {
	return authserver.Config{
		Issuer:      base,
		HMACSecrets: crypto.NewHMACSecrets([]byte(rand.Text() + rand.Text())),
		Upstreams: []authserver.UpstreamConfig{{
			Name: "everyone", Type: authserver.UpstreamProviderTypeOAuth2,
			OAuth2Config: &upstream.OAuth2Config{
				CommonOAuthConfig: upstream.CommonOAuthConfig{
					ClientID: "toolhive", ClientSecret: "secret", RedirectURI: base + "/oauth/callback",
				},
				AuthorizationEndpoint: base + "/nowhere", TokenEndpoint: base + "/nowhere",
			},
		}},
		UpstreamFactory: func(context.Context, *authserver.UpstreamConfig) (upstream.OAuth2Provider, error) {
			return everyone{base + "/oauth/callback"}, nil
		},
		ScopesSupported:     []string{"openid", "profile", "offline_access", "mcp:read", "mcp:write", "admin", "root"},
		AllowedAudiences:    []string{resource},
		InsecureAllowHTTP:   true,
		AccessTokenLifespan: time.Hour,
	}
}

func start(t *testing.T) *running {
	t.Helper()
	decider := scopewardtest.Start(t, scopewardtest.Options{Policy: policy})
	// A busy machine may take a second for an answer, and no test is about that.
	client, err := scopeward.New(scopeward.Config{Targets: []string{decider.Target}, Deadline: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewUnstartedServer(nil)
	base, store := "http://"+web.Listener.Addr().String(), storage.NewMemoryStorage()
	server, err := scopewardtoolhive.New(t.Context(), config(base), store, client, scopewardtoolhive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	web.Config.Handler = server.Handler()
	web.Start()
	t.Cleanup(func() {
		web.Close()
		_ = server.Close()
		_ = client.Close()
	})
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &running{t, base, store, decider, &http.Client{CheckRedirect: stay}}
}

// send sends a request, again for as long as ToolHive wants it slower.
func (r *running) send(method, to, kind, body string) *http.Response {
	r.t.Helper()
	for range 20 {
		request, err := http.NewRequestWithContext(r.t.Context(), method, to, strings.NewReader(body))
		if err != nil {
			r.t.Fatal(err)
		}
		request.Header.Set("Content-Type", kind)
		response, err := r.http.Do(request)
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { _ = response.Body.Close() })
		if response.StatusCode != http.StatusTooManyRequests {
			return response
		}
		time.Sleep(time.Second) // as its Retry-After says
	}
	r.t.Fatal("429 for 20 seconds")
	return nil
}

func object(t *testing.T, response *http.Response) map[string]any {
	t.Helper()
	text, err := io.ReadAll(response.Body)
	var answer map[string]any
	if err != nil || json.Unmarshal(text, &answer) != nil {
		t.Fatalf("%s: %q", response.Status, text)
	}
	return answer
}

func (r *running) registration(members string) (int, map[string]any) {
	r.t.Helper()
	body := `{"client_name":"Example Tool","redirect_uris":["` + redirectURI + `"],"token_endpoint_auth_method":"none"` + members + `}`
	response := r.send("POST", r.base+"/oauth/register", "application/json", body)
	return response.StatusCode, object(r.t, response)
}

// registers expects a client with this scope, and returns its id.
func (r *running) registers(members, want string) string {
	r.t.Helper()
	status, client := r.registration(members)
	if status != http.StatusCreated || client["scope"] != want {
		r.t.Fatalf("%d %v, and it was to be %q", status, client, want)
	}
	return client["client_id"].(string)
}

type login struct {
	query    url.Values
	verifier string
}

// newLogin leaves out parameters whose value is "-".
func newLogin(id, scope string, more url.Values) login {
	verifier := rand.Text() + rand.Text()
	challenge := sha256.Sum256([]byte(verifier))
	query := url.Values{
		"response_type": {"code"}, "client_id": {id}, "redirect_uri": {redirectURI}, "state": {rand.Text()}, "scope": {scope},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"}, "resource": {resource},
	}
	maps.Copy(query, more)
	maps.DeleteFunc(query, func(_ string, values []string) bool { return values[0] == "-" })
	return login{query, verifier}
}

// visits follows redirects within the server, and returns what came to the client's callback; nil and a status if nothing did.
func (r *running) visits(query string, form string) (url.Values, int) {
	r.t.Helper()
	kind := ""
	if form != "" {
		kind = multipartForm
	}
	response := r.send("GET", r.base+"/oauth/authorize?"+query, kind, form)
	for response.StatusCode/100 == 3 {
		to, err := url.Parse(response.Header.Get("Location"))
		if err != nil {
			r.t.Fatal(err)
		}
		if strings.HasPrefix(to.String(), redirectURI) {
			return to.Query(), response.StatusCode
		}
		response = r.send("GET", to.String(), "", "")
	}
	return nil, response.StatusCode
}

func (r *running) post(form url.Values) (int, map[string]any) {
	r.t.Helper()
	response := r.send("POST", r.base+"/oauth/token", "application/x-www-form-urlencoded", form.Encode())
	return response.StatusCode, object(r.t, response)
}

// gets expects tokens with this scope, and returns them.
func (r *running) gets(id, scope, want string) map[string]any {
	r.t.Helper()
	attempt := newLogin(id, scope, nil)
	return r.getsBy(attempt, attempt.query.Encode(), "", want)
}

func (r *running) getsBy(attempt login, query, form, want string) map[string]any {
	r.t.Helper()
	answer, status := r.visits(query, form)
	if answer == nil || !answer.Has("code") || answer.Get("state") != attempt.query.Get("state") {
		r.t.Fatalf("%d %v, and it was to be %q", status, answer, want)
	}
	status, tokens := r.post(url.Values{
		"grant_type": {"authorization_code"}, "code": {answer.Get("code")}, "client_id": {attempt.query.Get("client_id")},
		"redirect_uri": {redirectURI}, "code_verifier": {attempt.verifier}, "resource": {resource},
	})
	if status != http.StatusOK || tokens["scope"] != want {
		r.t.Fatalf("%d %v, and it was to be %q", status, tokens, want)
	}
	return tokens
}

// refuses expects that the client's callback gets this error, with its state.
func (r *running) refuses(id, scope, code, description string, more url.Values) {
	r.t.Helper()
	attempt := newLogin(id, scope, more)
	answer, status := r.visits(attempt.query.Encode(), "")
	if answer.Get("error") != code || answer.Get("state") != attempt.query.Get("state") || answer.Has("code") ||
		answer.Get("error_description") != description {
		r.t.Fatalf("%d %v, and it was to be %s: %s", status, answer, code, description)
	}
}

func (r *running) refresh(id string, tokens map[string]any, more url.Values) (int, map[string]any) {
	r.t.Helper()
	form := url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {fmt.Sprint(tokens["refresh_token"])}, "client_id": {id}, "resource": {resource},
	}
	maps.Copy(form, more)
	return r.post(form)
}

// refreshes expects new tokens with this scope, in the access token as well, and returns them.
func (r *running) refreshes(id string, tokens map[string]any, want string) map[string]any {
	r.t.Helper()
	status, fresh := r.refresh(id, tokens, nil)
	if status != http.StatusOK || fresh["scope"] != want {
		r.t.Fatalf("%d %v, and it was to be %q", status, fresh, want)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(fresh["access_token"].(string), ".")[1])
	var claims struct {
		Scopes []string `json:"scp"`
	}
	if err != nil || json.Unmarshal(payload, &claims) != nil || strings.Join(claims.Scopes, " ") != want {
		r.t.Fatalf("%s, and it was to be %q", payload, want)
	}
	return fresh
}

// doesNotRefresh expects this error.
func (r *running) doesNotRefresh(id string, tokens map[string]any, more url.Values, wantStatus int, code, description string) {
	r.t.Helper()
	status, answer := r.refresh(id, tokens, more)
	if status != wantStatus || answer["error"] != code || (description != "" && answer["error_description"] != description) {
		r.t.Fatalf("%d %v, and it was to be %s: %s", status, answer, code, description)
	}
}

func TestRegistrationStoresTheAnswer(t *testing.T) {
	r := start(t)
	for members, want := range map[string]string{
		`,"scope":"openid"`:              "openid offline_access",
		``:                               "openid mcp:read offline_access",
		`,"scope":""`:                    "openid mcp:read offline_access",
		`,"scope":["openid","mcp:read"]`: "openid mcp:read offline_access",
	} {
		id := r.registers(members, want)
		stored, err := r.store.GetClient(t.Context(), id)
		if err != nil || strings.Join(stored.GetScopes(), " ") != want {
			t.Fatalf("stored %v %v", stored, err)
		}
	}
}

func TestRegistrationIsRefused(t *testing.T) {
	r := start(t)
	for members, want := range map[string]string{
		`,"scope":"openid root"`:           "scope forbidden: root",
		`,"scope":"openid billing:read"`:   "scope not supported: billing:read",
		`,"scope":7`:                       "scope is not a string",
		`,"scope":["openid",7]`:            "scope has a value that is not a string",
		`,"scope":"openid","SCOPE":"root"`: "scope is written in another way: SCOPE",
		`,"ſcope":"root"`:                  "scope is written in another way: ſcope",
	} {
		status, answer := r.registration(members)
		if status != 400 || answer["error"] != "invalid_client_metadata" || answer["error_description"] != want {
			t.Fatalf("%s: %d %v", members, status, answer)
		}
	}
	// ToolHive's own refusals stay, and nobody is asked.
	status, answer := r.registration(`,"redirect_uris":["http://example.com/callback"]`)
	if status != 400 || answer["error"] != "invalid_redirect_uri" {
		t.Fatalf("%d %v", status, answer)
	}
}

func TestLoginsGetTheAnswer(t *testing.T) {
	r := start(t)
	id := r.registers(`,"scope":"openid"`, "openid offline_access")
	tokens := r.gets(id, "openid offline_access", "openid offline_access")
	r.refreshes(id, r.refreshes(id, tokens, "openid offline_access"), "openid offline_access")
	r.gets(id, "openid", "openid")

	// A step-up is of this grant, and changes no client.
	stepped := r.gets(id, "openid offline_access mcp:write", "openid offline_access mcp:write")
	r.refreshes(id, stepped, "openid offline_access mcp:write")
	stored, err := r.store.GetClient(t.Context(), id)
	if err != nil || strings.Join(stored.GetScopes(), " ") != "openid offline_access" {
		t.Fatalf("stored %v %v", stored, err)
	}

	silent := r.registers("", "openid mcp:read offline_access")
	attempt := newLogin(silent, "-", nil)
	r.getsBy(attempt, attempt.query.Encode(), "", "openid mcp:read offline_access")

	r.refuses(id, "openid root", "invalid_scope", "scope forbidden: root", nil)
	r.refuses(id, "openid profile", "invalid_scope", "scope not registered for this client: profile", nil)
	r.refuses(id, "billing:read", "invalid_scope", "scope not supported: billing:read", nil)
	r.refuses(id, "openid", "invalid_target", "audience unknown: https://other.example.com", url.Values{"resource": {"https://other.example.com"}})
}

func TestAClientFromBeforeTheBaseline(t *testing.T) {
	r := start(t)
	old, err := registration.New(registration.Config{
		ID: "old", RedirectURIs: []string{redirectURI}, TokenEndpointAuthMethod: "none", Scopes: []string{"openid"},
		GrantTypes: []string{"authorization_code", "refresh_token"}, Audience: []string{resource},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.store.RegisterClient(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	tokens := r.gets("old", "openid offline_access", "openid offline_access")
	r.refreshes("old", tokens, "openid offline_access")
}

func TestAnEditNarrowsARegisteredClient(t *testing.T) {
	r := start(t)
	id := r.registers(`,"scope":"openid mcp:read"`, "openid mcp:read offline_access")
	dropping := strings.Replace(policy, "authorization:", "authorization:\n      unsupportedScopes: drop", 1)
	dropping = strings.ReplaceAll(dropping, `, "mcp:read"`, ``)
	if err := r.decider.SetPolicy(t.Context(), dropping); err != nil {
		t.Fatal(err)
	}
	r.gets(id, "openid mcp:read", "openid")
}

func (r *running) serves(policy string) {
	r.t.Helper()
	if err := r.decider.SetPolicy(r.t.Context(), policy); err != nil {
		r.t.Fatal(err)
	}
}

func TestARefreshLosesWhatThePolicyTookAway(t *testing.T) {
	r := start(t)
	id := r.registers(`,"scope":"openid mcp:read"`, "openid mcp:read offline_access")
	tokens := r.gets(id, "openid mcp:read offline_access mcp:write", "openid mcp:read offline_access mcp:write")
	tokens = r.refreshes(id, tokens, "openid mcp:read offline_access mcp:write")
	r.serves(strings.ReplaceAll(policy, `, "mcp:read"`, ``))
	tokens = r.refreshes(id, tokens, "openid offline_access mcp:write")

	// The policy grants a scope to everyone now, and a refresh does not gain it.
	r.serves(strings.Replace(policy, "baselineClientScopes: [", "baselineClientScopes: [profile, ", 1))
	tokens = r.refreshes(id, tokens, "openid offline_access mcp:write")

	r.serves(`audiences: {"https://mcp.example.com": {scopesSupported: [profile]}}`)
	r.doesNotRefresh(id, tokens, nil, 400, "invalid_scope", "")
	r.serves(`audiences: {"https://mcp.example.com": {scopesSupported: [openid, "mcp:write"]}}`)
	r.doesNotRefresh(id, tokens, nil, 400, "invalid_grant", "the policy does not grant offline_access any more")
	// None of these took the token.
	r.serves(policy)
	r.refreshes(id, tokens, "openid offline_access mcp:write")
}

func TestARefreshTakesNothingMore(t *testing.T) {
	r := start(t)
	id := r.registers(`,"scope":"openid admin"`, "openid admin offline_access")
	tokens := r.gets(id, "openid offline_access", "openid offline_access")
	for _, scope := range []string{"openid admin", "root", "OpenID", `openid"`, "openid\nadmin"} {
		r.doesNotRefresh(id, tokens, url.Values{"scope": {scope}}, 400, "invalid_scope", "")
	}
	other := url.Values{"resource": {"https://other.example.com"}}
	r.doesNotRefresh(id, tokens, other, 400, "invalid_target", "audience unknown: https://other.example.com")
	status, fresh := r.refresh(id, tokens, url.Values{"scope": {"openid"}})
	if status != http.StatusOK || fresh["scope"] != "openid offline_access" {
		t.Fatalf("%d %v", status, fresh)
	}
	// The token was used: this is ToolHive's own answer.
	r.doesNotRefresh(id, tokens, nil, 400, "invalid_grant", "")
}

const multipartForm = "multipart/form-data; boundary=x"

func part(name, value string) string {
	return "--x\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
}

func TestAMalformedRefreshGetsNothing(t *testing.T) {
	r := start(t)
	id := r.registers(`,"scope":"openid mcp:read"`, "openid mcp:read offline_access")
	whole := "openid mcp:read offline_access"
	cases := []struct{ query, before string }{
		{"?%zz", ""},
		{"?a;b", ""},
		// A second parse would begin after what the first one has read.
		{"", "--x\r\nno header\r\n\r\n" + strings.Repeat("padding\r\n", 1000)},
	}
	var tokens []map[string]any
	for range cases {
		tokens = append(tokens, r.gets(id, whole, whole))
	}
	last := r.gets(id, whole, whole)
	body := func(tokens map[string]any) string {
		return part("grant_type", "refresh_token") + part("refresh_token", fmt.Sprint(tokens["refresh_token"])) +
			part("client_id", id) + part("resource", resource) + "--x--\r\n"
	}
	r.serves(strings.ReplaceAll(policy, `, "mcp:read"`, ``))
	for i, c := range cases {
		response := r.send("POST", r.base+"/oauth/token"+c.query, multipartForm, c.before+body(tokens[i]))
		answer := object(t, response)
		if response.StatusCode != 400 || answer["error"] != "invalid_request" {
			t.Errorf("%+.40v: %s %v", c, response.Status, answer)
			continue
		}
		// It did not take the token.
		r.refreshes(id, tokens[i], "openid offline_access")
	}
	// The same body without anything malformed is a refresh like any other.
	response := r.send("POST", r.base+"/oauth/token", multipartForm, body(last))
	if fresh := object(t, response); response.StatusCode != http.StatusOK || fresh["scope"] != "openid offline_access" {
		t.Fatalf("%s %v", response.Status, fresh)
	}
}

func TestWhatWouldGoAround(t *testing.T) {
	r := start(t)
	id := r.registers(`,"scope":"openid"`, "openid offline_access")
	// fosite adds a form in the body to the query, for GET as well.
	attempt := newLogin(id, "-", nil)
	r.getsBy(attempt, attempt.query.Encode(), part("scope", "openid admin")+"--x--\r\n", "openid offline_access")
	attempt = newLogin(id, "openid", nil)
	r.getsBy(attempt, attempt.query.Encode()+"&scope=openid+admin", "", "openid")

	object := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(`{"scope":"openid offline_access admin"}`)) + "."
	r.refuses(id, "openid", "request_not_supported", "request is not supported", url.Values{"request": {object}})
	r.refuses(id, "openid", "request_uri_not_supported", "request_uri is not supported", url.Values{"request_uri": {"urn:x"}})

	// A denial goes to no redirect URI that the client does not have, and says nothing of unknown clients.
	for _, more := range []url.Values{{"redirect_uri": {"http://127.0.0.1:1/other"}}, {"client_id": {"unknown"}}} {
		answer, status := r.visits(newLogin(id, "root", more).query.Encode(), "")
		if answer != nil || status/100 != 4 {
			t.Fatalf("%d %v", status, answer)
		}
	}

	// A refresh token of another client widens nobody.
	other := r.registers(`,"scope":"openid"`, "openid offline_access")
	tokens := r.gets(id, "openid offline_access mcp:write", "openid offline_access mcp:write")
	r.doesNotRefresh(other, tokens, nil, 400, "invalid_grant", "")
}

func TestWithoutScopewardNothingIsGranted(t *testing.T) {
	r := start(t)
	id := r.registers(`,"scope":"openid"`, "openid offline_access")
	tokens := r.gets(id, "openid offline_access", "openid offline_access")
	if err := r.decider.Stop(); err != nil {
		t.Fatal(err)
	}
	status, answer := r.registration(`,"scope":"openid"`)
	if status != http.StatusServiceUnavailable || answer["error"] != "server_error" {
		t.Fatalf("%d %v", status, answer)
	}
	r.refuses(id, "openid", "temporarily_unavailable", "the scope policy could not be asked; try again later", nil)
	r.doesNotRefresh(id, tokens, nil, 503, "temporarily_unavailable", "the scope policy could not be asked; try again later")
	if err := r.decider.Start(); err != nil {
		t.Fatal(err)
	}
	// The channel needs up to a second to find it again.
	for range 50 {
		attempt := newLogin(id, "openid", nil)
		if answer, _ := r.visits(attempt.query.Encode(), ""); answer.Has("code") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	r.gets(id, "openid", "openid")
	r.refreshes(id, tokens, "openid offline_access")
}

func TestConfigurationsThatCannotAsk(t *testing.T) {
	client, err := scopeward.New(scopeward.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	for want, change := range map[string]func(*authserver.Config){
		"baselineClientScopes": func(config *authserver.Config) { config.BaselineClientScopes = []string{"openid"} },
		"CIMDEnabled":          func(config *authserver.Config) { config.CIMDEnabled = true },
	} {
		config := config("http://127.0.0.1:1")
		change(&config)
		_, err := scopewardtoolhive.New(t.Context(), config, storage.NewMemoryStorage(), client, scopewardtoolhive.Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("%s: %v", want, err)
		}
	}
	if _, err := scopewardtoolhive.New(t.Context(), config("http://127.0.0.1:1"), storage.NewMemoryStorage(), nil, scopewardtoolhive.Options{}); err == nil {
		t.Fatal("without a client")
	}
}
