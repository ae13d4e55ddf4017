package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/ory/fosite"

	scopewardfosite "github.com/scopeward/scopeward/integrations/go/fosite"
	"github.com/scopeward/scopeward/integrations/go/scopeward"
	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardtest"
	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardv1"
)

const documentID = "https://app.example.com/client.json"

// running is an authorization server, its Scopeward, and a client of it.
type running struct {
	*Login
	t       *testing.T
	server  *Server
	decider *scopewardtest.Server
}

// start runs both. A busy machine may take a second for an answer, and most tests are not about that.
func start(t *testing.T) *running {
	t.Helper()
	return startWith(t, scopeward.Config{Deadline: 10 * time.Second}, scopewardfosite.Options{})
}

func startWith(t *testing.T, config scopeward.Config, options scopewardfosite.Options) *running {
	t.Helper()
	decider := scopewardtest.Start(t, scopewardtest.Options{Policy: policy})
	if config.Targets == nil {
		config.Targets = []string{decider.Target}
	}
	client, err := scopeward.New(config)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewUnstartedServer(nil)
	server := NewServer("http://"+web.Listener.Addr().String(), client, options)
	server.store.Fetch = func(context.Context, string) (map[string]any, error) {
		return map[string]any{
			"client_id": documentID, "client_name": "App", "redirect_uris": []any{redirectURI}, "scope": "admin root",
			"grant_types": []any{"authorization_code", "refresh_token"},
		}, nil
	}
	web.Config.Handler = server.Handler()
	web.Start()
	t.Cleanup(func() {
		web.Close()
		_ = client.Close()
	})
	return &running{NewLogin(server.base), t, server, decider}
}

func equal[T any](t *testing.T, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// registers returns the id and the scope of a new client.
func (r *running) registers(scope any) (string, string) {
	r.t.Helper()
	client, err := r.Register(r.t.Context(), scope, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return client["client_id"].(string), client["scope"].(string)
}

// gets expects a login with this scope; an empty one is of no interest.
func (r *running) gets(id, scope, want string, more url.Values) map[string]any {
	r.t.Helper()
	tokens, err := r.Login.Login(r.t.Context(), id, scope, more)
	if err != nil {
		r.t.Fatal(err)
	}
	if want != "" {
		equal(r.t, tokens["scope"], any(want))
	}
	return tokens
}

// refuses expects the client's callback to get this error.
func (r *running) refuses(id, scope, want string, more url.Values) string {
	r.t.Helper()
	attempt := NewAttempt(id, scope, more)
	_, err := r.Authorize(r.t.Context(), attempt.Query, attempt.Query.Get("state"))
	return failure(r.t, err, want)
}

// failure expects an OAuth error, and returns its description.
func failure(t *testing.T, err error, want string) string {
	t.Helper()
	var failure *OAuthFailure
	if !errors.As(err, &failure) || failure.Code() != want {
		t.Fatalf("not %s: %v", want, err)
	}
	description, _ := failure.Answer["error_description"].(string)
	return description
}

// events returns what was recorded after this sequence. The record of a denial may come a little later than its answer.
func (r *running) events(after uint64) []*scopewardv1.AuditEvent {
	r.t.Helper()
	records, err := r.decider.Audit(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	var events []*scopewardv1.AuditEvent
	for _, record := range records {
		if record.Position().Sequence > after {
			events = append(events, record.Event)
		}
	}
	return events
}

func (r *running) last() uint64 { return r.events(0)[len(r.events(0))-1].GetSequence() }

func TestRegistersNarrowAndAsksWide(t *testing.T) {
	r := start(t)
	id, scope := r.registers("openid")
	equal(t, scope, "openid offline_access")
	tokens := r.gets(id, "openid offline_access", "openid offline_access", nil)
	tokens, err := r.Refresh(t.Context(), id, tokens, nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, tokens["scope"], any("openid offline_access"))
}

func TestScopeIsAbsentAtBothEndpoints(t *testing.T) {
	r := start(t)
	for _, scope := range []any{nil, "", "   "} {
		id, registered := r.registers(scope)
		equal(t, registered, "openid mcp:read offline_access")
		sent, isText := scope.(string)
		if !isText {
			sent = "-"
		}
		r.gets(id, sent, "openid mcp:read offline_access", nil)
	}
	id, registered := r.registers(" openid  ")
	equal(t, registered, "openid offline_access")
	r.gets(id, " offline_access", "offline_access", nil)
}

func TestStepUpWithTheSameClientDoesNotStick(t *testing.T) {
	r := start(t)
	before := r.last()
	id, _ := r.registers("openid")
	for range 2 {
		tokens := r.gets(id, "openid mcp:write", "openid mcp:write", nil)
		tokens, err := r.Refresh(t.Context(), id, tokens, nil)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, tokens["scope"], any("openid mcp:write"))
	}
	r.gets(id, "-", "openid offline_access", nil)
	equal(t, r.server.store.Find(id).Metadata["scope"], any("openid offline_access"))
	steps := 0
	for _, event := range r.events(before) {
		if event.GetRequestedScope() == "openid mcp:write" {
			steps++
			equal(t, event.GetRegisteredScope(), "openid offline_access")
			equal(t, event.GetAdded()[0].GetOrigin(), scopewardv1.Origin_ORIGIN_STEP_UP)
		}
	}
	equal(t, steps, 2)
}

func TestOverAsksEverythingThatIsAdvertised(t *testing.T) {
	r := start(t)
	document, err := r.SendJSON(t.Context(), http.MethodGet, r.server.base+"/.well-known/oauth-authorization-server", nil, "")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, fmt.Sprint(document["scopes_supported"]), "[openid profile offline_access mcp:read]")
	everything := "openid profile offline_access mcp:read"
	id, _ := r.registers("openid")
	if description := r.refuses(id, everything, "invalid_scope", nil); !strings.Contains(description, "profile") {
		t.Fatal(description)
	}
	dropping := strings.Replace(policy, "authorization:\n", "authorization:\n      unregisteredScopes: drop\n", 1)
	if err := r.decider.SetPolicy(t.Context(), dropping); err != nil {
		t.Fatal(err)
	}
	tokens := r.gets(id, everything, "openid offline_access", nil)
	if _, err := r.Refresh(t.Context(), id, tokens, nil); err != nil {
		t.Fatal(err)
	}
}

func TestForbiddenAndPrivilegedScopes(t *testing.T) {
	r := start(t)
	_, err := r.Register(t.Context(), "root", nil)
	if description := failure(t, err, "invalid_client_metadata"); !strings.Contains(description, "root") {
		t.Fatal(description)
	}
	id, _ := r.registers("openid")
	r.refuses(id, "root", "invalid_scope", nil)
	r.refuses(id, "openid root", "invalid_scope", nil)
	r.refuses(id, "openid admin", "invalid_scope", nil)
	id, _ = r.registers("openid admin")
	r.gets(id, "admin", "admin", nil)
	r.refuses(id, "openid", "invalid_target", url.Values{"resource": {"https://other.example.com"}})
}

func TestHostileScopesAreRefused(t *testing.T) {
	r := start(t)
	var many []string
	for i := range 256 {
		many = append(many, fmt.Sprintf("scope%d", i))
	}
	id, _ := r.registers("openid")
	for _, scope := range []string{
		`mcp"read`, "openid\troot", "openid\nroot", "openid\x00root", "ópenid", "\xff\xfe", strings.Repeat("a", 600),
		strings.Join(many, " "), strings.Repeat("b", 100_000), "</script><script>alert(1)</script>",
	} {
		_, err := r.Register(t.Context(), scope, nil)
		if description := failure(t, err, "invalid_client_metadata"); len(description) > 512 {
			t.Fatal(description)
		}
		attempt := NewAttempt(id, scope, nil)
		if len(scope) > 50_000 {
			continue // fits no request line
		}
		_, err = r.Authorize(t.Context(), attempt.Query, attempt.Query.Get("state"))
		if description := failure(t, err, "invalid_scope"); len(description) > 512 {
			t.Fatal(description)
		}
	}
	for _, scope := range []any{[]string{"openid"}, map[string]bool{"openid": true}, 7, false} {
		_, err := r.Register(t.Context(), scope, nil)
		failure(t, err, "invalid_client_metadata")
	}
	_, err := r.call(t.Context(), http.MethodPost, r.server.base+"/oauth/register", "application/json", `[{]`, "")
	failure(t, err, "invalid_client_metadata")
}

func TestParametersOfOtherEndpointsOpenNothing(t *testing.T) {
	r := start(t)
	id, _ := r.registers("openid")
	for _, more := range []url.Values{
		{"grant_type": {"client_credentials"}}, {"grant_type": {"refresh_token"}}, {"scopes": {"root"}},
		{"scope": {"openid root", "openid"}}, {"scope": {"root", "openid"}}, {"request_uri": {"urn:other"}},
	} {
		attempt := NewAttempt(id, "openid root", more)
		if _, err := r.Authorize(t.Context(), attempt.Query, attempt.Query.Get("state")); err == nil {
			t.Fatal(more)
		}
	}
}

func TestARefreshTakesNothingMore(t *testing.T) {
	r := start(t)
	id, _ := r.registers("openid admin")
	tokens := r.gets(id, "openid", "openid", nil)
	for _, scope := range []string{"openid admin root", "admin", "root", `openid"`} {
		_, err := r.Refresh(t.Context(), id, tokens, url.Values{"scope": {scope}})
		failure(t, err, "invalid_scope")
	}
	_, err := r.Refresh(t.Context(), id, tokens, url.Values{"grant_type": {"refresh_token client_credentials"}})
	if err == nil {
		t.Fatal("two grants in one")
	}
	// None of these took the token.
	tokens, err = r.Refresh(t.Context(), id, tokens, url.Values{"scope": {"openid"}})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, tokens["scope"], any("openid"))
}

func TestARefreshLosesWhatThePolicyTookAway(t *testing.T) {
	r := start(t)
	id, _ := r.registers("openid mcp:read profile")
	tokens := r.gets(id, "openid mcp:read profile", "openid mcp:read profile", nil)
	if err := r.decider.SetPolicy(t.Context(), strings.Replace(policy, `profile, `, "", 1)); err != nil {
		t.Fatal(err)
	}
	tokens, err := r.Refresh(t.Context(), id, tokens, nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, tokens["scope"], any("openid mcp:read"))
	// The policy grants a scope to everyone now, and a refresh does not gain it.
	more := strings.Replace(policy, "baselineClientScopes: [", `baselineClientScopes: ["mcp:write", `, 1)
	if err := r.decider.SetPolicy(t.Context(), more); err != nil {
		t.Fatal(err)
	}
	if tokens, err = r.Refresh(t.Context(), id, tokens, nil); err != nil {
		t.Fatal(err)
	}
	equal(t, tokens["scope"], any("openid mcp:read"))
	none := strings.NewReplacer("[root]", `[root, openid, "mcp:read"]`, `[openid, "mcp:read"]`, "[profile]").Replace(policy)
	if err := r.decider.SetPolicy(t.Context(), none); err != nil {
		t.Fatal(err)
	}
	_, err = r.Refresh(t.Context(), id, tokens, nil)
	failure(t, err, "invalid_scope")
}

func TestAGrantWithoutScopesIsRefreshedWithoutAQuestion(t *testing.T) {
	r := start(t)
	provider := r.server.asker.Compose(&fosite.Config{}, r.server.store, nil, func(fosite.Configurator, any, any) any {
		return grantsWhatIsAsked{}
	})
	request := httptest.NewRequest(http.MethodPost, "/token", strings.NewReader("grant_type=refresh_token"))
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	before := r.last()
	answer, err := provider.NewAccessRequest(t.Context(), request, &fosite.DefaultSession{})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, len(answer.GetGrantedScopes()), 0)
	equal(t, r.last(), before)
}

// grantsWhatIsAsked is a token endpoint of another maker: each grant without a client, and with all scopes.
type grantsWhatIsAsked struct{}

func (grantsWhatIsAsked) CanHandleTokenEndpointRequest(context.Context, fosite.AccessRequester) bool {
	return true
}

func (grantsWhatIsAsked) CanSkipClientAuth(context.Context, fosite.AccessRequester) bool { return true }

func (grantsWhatIsAsked) HandleTokenEndpointRequest(_ context.Context, request fosite.AccessRequester) error {
	for _, scope := range request.GetRequestedScopes() {
		request.GrantScope(scope)
	}
	return nil
}

func (grantsWhatIsAsked) PopulateTokenEndpointResponse(context.Context, fosite.AccessRequester, fosite.AccessResponder) error {
	return nil
}

func TestAJWTGrantGetsWhatThePolicyGrants(t *testing.T) {
	r := start(t)
	provider := r.server.asker.Compose(&fosite.Config{}, r.server.store, nil, func(fosite.Configurator, any, any) any {
		return grantsWhatIsAsked{}
	})
	ask := func(scope string) ([]string, error) {
		form := url.Values{"grant_type": {string(fosite.GrantTypeJWTBearer)}, "scope": {scope}}
		request := httptest.NewRequest(http.MethodPost, "/token", strings.NewReader(form.Encode()))
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer, err := provider.NewAccessRequest(t.Context(), request, &fosite.DefaultSession{})
		return answer.GetGrantedScopes(), err
	}
	granted, err := ask("openid")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, granted, []string{"openid"})
	if granted, err = ask("openid root nonsense"); err != nil {
		t.Fatal(err)
	}
	equal(t, granted, []string{"openid"})
	for _, scope := range []string{"root", "nonsense", `root"`} {
		_, err := ask(scope)
		var denied *scopeward.Denied
		if !errors.As(err, &denied) || fosite.ErrorToRFC6749Error(err).ErrorField != "invalid_scope" {
			t.Fatal(err)
		}
	}
	if granted, err = ask(""); err != nil || len(granted) != 0 {
		t.Fatalf("%v, %v", granted, err)
	}
	if err := r.decider.Stop(); err != nil {
		t.Fatal(err)
	}
	var unavailable *scopeward.Unavailable
	if _, err = ask("openid"); !errors.As(err, &unavailable) {
		t.Fatal(err)
	}
}

func TestClientCredentialsGetWhatThePolicyGrants(t *testing.T) {
	r := start(t)
	secret, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	metadata := map[string]any{"scope": "openid mcp:read root", "grant_types": []any{"client_credentials", "refresh_token"}}
	r.server.store.Put(&Client{ID: "service", Secret: secret, Metadata: metadata})
	token := "Basic " + base64.StdEncoding.EncodeToString([]byte("service:secret"))
	ask := func(form url.Values) (map[string]any, error) {
		kind := "application/x-www-form-urlencoded"
		return r.call(t.Context(), http.MethodPost, r.server.base+"/oauth/token", kind, form.Encode(), token)
	}
	answer, err := ask(url.Values{"grant_type": {"client_credentials"}, "scope": {"openid"}})
	if err != nil || answer["scope"] != "openid" {
		t.Fatalf("%v, %v", answer, err)
	}
	// What is held and not forbidden; the baseline is held by all.
	answer, err = ask(url.Values{"grant_type": {"client_credentials"}})
	if err != nil || answer["scope"] != "openid mcp:read offline_access" {
		t.Fatalf("%v, %v", answer, err)
	}
	for _, scope := range []string{"mcp:write", "admin", "root", "openid profile"} {
		_, err := ask(url.Values{"grant_type": {"client_credentials"}, "scope": {scope}})
		failure(t, err, "invalid_scope")
		if _, err := ask(url.Values{"grant_type": {"refresh_token client_credentials"}, "scope": {scope}}); err == nil {
			t.Fatal(scope)
		}
	}
	_, err = ask(url.Values{"grant_type": {"client_credentials"}, "resource": {"https://other.example.com"}})
	failure(t, err, "invalid_target")
}

func TestClientsThatDidNotRegisterWithScopeward(t *testing.T) {
	r := start(t)
	metadata := func(scope any) map[string]any {
		return map[string]any{
			"redirect_uris": []any{redirectURI}, "grant_types": []any{"authorization_code", "refresh_token"}, "scope": scope,
		}
	}
	r.server.store.Put(&Client{ID: "old", Metadata: metadata("openid")})
	r.server.store.Put(&Client{ID: "scopeless", Metadata: metadata(nil)})
	// From before the baseline, with its refresh.
	tokens := r.gets("old", "openid offline_access", "openid offline_access", nil)
	tokens, err := r.Refresh(t.Context(), "old", tokens, nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, tokens["scope"], any("openid offline_access"))
	r.refuses("old", "openid profile", "invalid_scope", nil)
	// Registered without scope: as if it had registered now.
	r.gets("scopeless", "-", "openid mcp:read offline_access", nil)
	// What a metadata document says of scopes is worth nothing.
	tokens = r.gets(documentID, "openid mcp:read", "openid mcp:read", nil)
	if _, err := r.Refresh(t.Context(), documentID, tokens, nil); err != nil {
		t.Fatal(err)
	}
	r.gets(documentID, "mcp:write", "mcp:write", nil)
	r.refuses(documentID, "admin", "invalid_scope", nil)
	told := 0
	for _, event := range r.events(0) {
		if event.GetClient().GetClientId() != documentID {
			continue
		}
		told++
		equal(t, event.GetClient().GetSource(), scopeward.FromMetadataDocument)
		equal(t, event.RegisteredScope, nil)
		equal(t, event.GetClient().GetClientName(), "App")
	}
	if told == 0 {
		t.Fatal("nothing was recorded")
	}
	equal(t, r.server.store.Find("old").Metadata["scope"], any("openid"))
}

func TestTheSourceOfAClientCanBeSaid(t *testing.T) {
	options := scopewardfosite.Options{
		Audience: resource,
		Source:   func(fosite.Client) scopeward.ClientSource { return scopeward.FromOperator },
	}
	r := startWith(t, scopeward.Config{Deadline: 10 * time.Second}, options)
	before := r.last()
	id, _ := r.registers("openid")
	r.gets(id, "mcp:write", "mcp:write", url.Values{"resource": {"-"}})
	events := r.events(before)
	equal(t, events[0].GetClient().GetSource(), scopeward.FromRegistration)
	equal(t, events[1].GetClient().GetSource(), scopeward.FromOperator)
	for _, event := range events {
		equal(t, event.GetAskedAudiences(), []string{resource})
	}
}

func TestPushedRequests(t *testing.T) {
	r := start(t)
	before := r.last()
	id, _ := r.registers("openid")
	pushed := func(scope string, more url.Values) (*Attempt, url.Values) {
		t.Helper()
		attempt := NewAttempt(id, scope, more)
		query, err := r.Push(t.Context(), attempt)
		if err != nil {
			t.Fatal(err)
		}
		return attempt, query
	}
	got := func(attempt *Attempt, query url.Values) string {
		t.Helper()
		answer, err := r.Authorize(t.Context(), query, attempt.Query.Get("state"))
		if err != nil {
			t.Fatal(err)
		}
		tokens, err := r.Redeem(t.Context(), attempt, answer)
		if err != nil {
			t.Fatal(err)
		}
		return tokens["scope"].(string)
	}
	attempt, query := pushed("openid mcp:write", nil)
	equal(t, got(attempt, query), "openid mcp:write")
	// Both calls of the login have one id.
	var ids []string
	for _, event := range r.events(before)[1:] {
		ids = append(ids, event.GetCorrelationId())
	}
	equal(t, len(ids), 2)
	equal(t, ids[0], ids[1])
	// Without scope, and nothing that the authorize request says in its place.
	attempt, query = pushed("-", url.Values{"resource": {"-"}})
	query.Set("scope", "openid mcp:write")
	query.Set("resource", "https://other.example.com")
	equal(t, got(attempt, query), "openid offline_access")
	// The same in a form, with a query that cannot be parsed.
	for _, malformed := range []string{"%zz", "a;b"} {
		_, query = pushed("-", nil)
		query.Set("scope", "openid mcp:write")
		var form strings.Builder
		for name := range query {
			form.WriteString("--x\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + query.Get(name) + "\r\n")
		}
		form.WriteString("--x--\r\n")
		to, kind := r.server.base+"/oauth/authorize?"+malformed, "multipart/form-data; boundary=x"
		_, err := r.call(t.Context(), http.MethodPost, to, kind, form.String(), "")
		failure(t, err, "invalid_request")
	}
	// A denial is told at once.
	_, err := r.Push(t.Context(), NewAttempt(id, "openid root", nil))
	failure(t, err, "invalid_scope")
	_, err = r.Push(t.Context(), NewAttempt(id, "openid", url.Values{"resource": {"https://other.example.com"}}))
	failure(t, err, "invalid_target")
	// The policy of the authorize request decides.
	attempt, query = pushed("openid mcp:write", nil)
	if err := r.decider.SetPolicy(t.Context(), strings.Replace(policy, `["mcp:write"]`, "[]", 1)); err != nil {
		t.Fatal(err)
	}
	_, err = r.Authorize(t.Context(), query, attempt.Query.Get("state"))
	failure(t, err, "invalid_scope")
	if err := r.decider.Stop(); err != nil {
		t.Fatal(err)
	}
	_, err = r.Push(t.Context(), NewAttempt(id, "openid", nil))
	failure(t, err, "temporarily_unavailable")
}

// objectClient takes request objects (OpenID Connect Core section 6), unsigned ones too.
type objectClient struct {
	*fosite.DefaultOpenIDConnectClient
}

func (c objectClient) GetRequestObjectSigningAlgorithm() string { return "none" }

func TestAWiderScopeInARequestObjectIsAskedFor(t *testing.T) {
	r := start(t)
	part := func(value any) string {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	stored := objectClient{&fosite.DefaultOpenIDConnectClient{
		DefaultClient: &fosite.DefaultClient{
			ID: "object", Public: true, RedirectURIs: []string{redirectURI}, Scopes: []string{"openid"},
		},
		JSONWebKeysURI: "https://app.example.com/keys",
	}}
	r.server.provider = r.server.asker.Compose(
		&fosite.Config{GlobalSecret: []byte("a secret of at least thirty-two bytes")}, oneClient{r.server.store, stored}, nil)
	for inside, want := range map[string]string{"openid root": "invalid_scope", "mcp:write": ""} {
		object := part(map[string]string{"alg": "none"}) + "." + part(map[string]string{"scope": inside}) + "."
		query := url.Values{
			"client_id": {"object"}, "redirect_uri": {redirectURI}, "response_type": {"code"}, "scope": {"openid"},
			"state": {"a-long-enough-state"}, "request": {object},
		}
		request, err := r.server.provider.NewAuthorizeRequest(t.Context(), httptest.NewRequest(http.MethodGet, "/?"+query.Encode(), nil))
		if want == "" {
			if err != nil {
				t.Fatal(err)
			}
			equal(t, request.GetRequestedScopes(), fosite.Arguments{"mcp:write", "openid"})
			continue
		}
		equal(t, fosite.ErrorToRFC6749Error(err).ErrorField, want)
		var denied *scopeward.Denied
		if !errors.As(err, &denied) {
			t.Fatal(err)
		}
	}
}

type oneClient struct {
	*Store
	client fosite.Client
}

func (s oneClient) GetClient(context.Context, string) (fosite.Client, error) { return s.client, nil }

func TestDownAndBack(t *testing.T) {
	r := start(t)
	id, _ := r.registers("openid")
	tokens := r.gets(id, "openid", "openid", nil)
	if err := r.decider.Stop(); err != nil {
		t.Fatal(err)
	}
	_, err := r.Register(t.Context(), "openid", nil)
	failure(t, err, "server_error")
	var refused *OAuthFailure
	errors.As(err, &refused)
	equal(t, refused.Status, 503)
	if seconds, err := strconv.Atoi(refused.Header.Get("Retry-After")); err != nil || seconds < 1 {
		t.Fatal(refused.Header)
	}
	for _, scope := range []string{"openid offline_access", "-", "root"} {
		description := r.refuses(id, scope, "temporarily_unavailable", nil)
		if strings.Contains(description, "127.0.0.1") || strings.Contains(description, "connect") {
			t.Fatal(description)
		}
	}
	_, err = r.Refresh(t.Context(), id, tokens, nil)
	failure(t, err, "temporarily_unavailable")
	errors.As(err, &refused)
	equal(t, refused.Status, 503)
	if err := r.decider.Start(); err != nil {
		t.Fatal(err)
	}
	r.eventually(id)
	// The refresh token is still good.
	if _, err := r.Refresh(t.Context(), id, tokens, nil); err != nil {
		t.Fatal(err)
	}
}

// eventually logs in once Scopeward is reached again.
func (r *running) eventually(id string) {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		tokens, err := r.Login.Login(r.t.Context(), id, "openid offline_access", nil)
		if err == nil {
			equal(r.t, tokens["scope"], any("openid offline_access"))
			return
		}
		failure(r.t, err, "temporarily_unavailable")
		if time.Now().After(deadline) {
			r.t.Fatal(err)
		}
	}
}

func TestAHungServiceEndsWithTheDeadline(t *testing.T) {
	r := startWith(t, scopeward.Config{Deadline: 50 * time.Millisecond}, scopewardfosite.Options{})
	r.server.store.Put(&Client{ID: "old", Metadata: map[string]any{"redirect_uris": []any{redirectURI}, "scope": "openid"}})
	r.eventually("old")
	if err := r.decider.Pause(); err != nil {
		t.Fatal(err)
	}
	r.refuses("old", "openid", "temporarily_unavailable", nil)
	_, err := r.Register(t.Context(), "openid", nil)
	failure(t, err, "server_error")
	if err := r.decider.Resume(); err != nil {
		t.Fatal(err)
	}
	r.eventually("old")
}

func TestAWrongCertificateGrantsNothing(t *testing.T) {
	other := httptest.NewTLSServer(http.NotFoundHandler())
	defer other.Close()
	folder := t.TempDir()
	for name, want := range map[string]string{"": "temporarily_unavailable", filepath.Join(folder, "none.pem"): "server_error"} {
		config := scopeward.Config{Targets: []string{other.URL}, TLSCAFile: name, Deadline: 10 * time.Second}
		r := startWith(t, config, scopewardfosite.Options{})
		r.server.store.Put(&Client{ID: "old", Metadata: map[string]any{"redirect_uris": []any{redirectURI}, "scope": "openid"}})
		r.refuses("old", "openid", want, nil)
		_, err := r.Register(t.Context(), "openid", nil)
		failure(t, err, "server_error")
	}
}

func TestALoginHasOneCorrelationID(t *testing.T) {
	r := start(t)
	id, _ := r.registers("openid")
	before := r.last()
	attempt := NewAttempt(id, "mcp:write", nil)
	for range 2 { // a page, and the page again
		if _, err := r.Authorize(t.Context(), attempt.Query, attempt.Query.Get("state")); err != nil {
			t.Fatal(err)
		}
	}
	r.gets(id, "mcp:write", "mcp:write", nil)
	var ids []string
	for _, event := range r.events(before) {
		ids = append(ids, event.GetCorrelationId())
	}
	equal(t, len(ids), 3)
	equal(t, ids[0], ids[1])
	equal(t, len(slices.Compact(ids)), 2)
}

func TestTheClientIsToldAsItRegistered(t *testing.T) {
	r := start(t)
	before := r.last()
	client, err := r.Register(t.Context(), "openid", map[string]any{"software_id": "tool-1"})
	if err != nil {
		t.Fatal(err)
	}
	r.gets(client["client_id"].(string), "mcp:write", "mcp:write", nil)
	events := r.events(before)
	equal(t, len(events), 2)
	for _, event := range events {
		told := event.GetClient()
		equal(t, told.GetClientName()+" "+told.GetSoftwareId(), "Example Tool tool-1")
		equal(t, told.GetSource(), scopeward.FromRegistration)
		equal(t, told.GetRedirectUris(), []string{redirectURI})
		equal(t, told.GetGrantTypes(), []string{"authorization_code", "refresh_token"})
	}
	equal(t, events[1].GetClient().GetClientId(), client["client_id"].(string))
}

func TestAnUpdateWithoutScopeKeepsWhatIsHeld(t *testing.T) {
	r := start(t)
	client, err := r.Register(t.Context(), "openid profile", nil)
	if err != nil {
		t.Fatal(err)
	}
	to, token := client["registration_client_uri"].(string), "Bearer "+client["registration_access_token"].(string)
	put := func(scope any) (map[string]any, error) {
		body := map[string]any{"redirect_uris": []string{redirectURI}}
		if scope != nil {
			body["scope"] = scope
		}
		return r.SendJSON(t.Context(), http.MethodPut, to, body, token)
	}
	for _, step := range []struct {
		scope any
		want  string
	}{{nil, "openid profile offline_access"}, {"openid", "openid offline_access"}, {nil, "openid offline_access"}} {
		updated, err := put(step.scope)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, updated["scope"], any(step.want))
	}
	for _, scope := range []any{"openid root", 7} {
		_, err = put(scope)
		failure(t, err, "invalid_client_metadata")
	}
	read, err := r.SendJSON(t.Context(), http.MethodGet, to, nil, token)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, read["scope"], any("openid offline_access"))
	_, err = r.SendJSON(t.Context(), http.MethodGet, to, nil, "Bearer wrong")
	failure(t, err, "invalid_token")
}

func TestThePolicyIsEditedBetweenRegistrationAndAuthorize(t *testing.T) {
	r := start(t)
	id, _ := r.registers("openid profile")
	if err := r.decider.SetPolicy(t.Context(), strings.Replace(policy, "profile, ", "", 1)); err != nil {
		t.Fatal(err)
	}
	r.refuses(id, "openid profile", "invalid_scope", nil)
	r.gets(id, "-", "openid offline_access", nil)
}

// build returns the program of this folder.
func build(t *testing.T) string {
	program := filepath.Join(t.TempDir(), "example")
	if output, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return program
}

func TestTheProgramRuns(t *testing.T) {
	program := build(t)
	output, err := exec.Command(program).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	var printed []string
	for line := range strings.Lines(string(output)) {
		if _, after, isStep := strings.Cut(strings.TrimSpace(line), "-> "); isStep {
			printed = append(printed, after)
		}
	}
	equal(t, printed, []string{
		"`openid offline_access`",
		"`openid offline_access`",
		"`openid offline_access`",
		"`openid mcp:write`",
		"invalid_scope: scope forbidden: root",
		"invalid_scope: scope not registered for this client: profile",
		"`openid mcp:read offline_access`",
	})
	decider := scopewardtest.Start(t, scopewardtest.Options{Policy: policy})
	document := `{"client_id": "` + documentID + `", "redirect_uris": ["` + redirectURI + `"]}`
	server := exec.Command(program,
		"-listen", "127.0.0.1:0", "-scopeward", decider.Target, "-base", "https://auth.example.com", "-document", document)
	lines, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	var first struct{ URL string }
	if err := json.NewDecoder(lines).Decode(&first); err != nil {
		t.Fatal(err)
	}
	login := NewLogin(first.URL)
	client, err := login.Register(t.Context(), "openid", nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, client["scope"], any("openid offline_access"))
	if uri := client["registration_client_uri"].(string); !strings.HasPrefix(uri, "https://auth.example.com/") {
		t.Fatal(uri)
	}
	tokens, err := login.Login(t.Context(), documentID, "openid mcp:read", nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, tokens["scope"], any("openid mcp:read"))
	if err := server.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := server.Wait(); err != nil {
		t.Fatal(err)
	}
	if output, err := exec.Command(program, "-latency", "5").CombinedOutput(); err != nil || !strings.Contains(string(output), "| one question, warm |") {
		t.Fatalf("%v: %s", err, output)
	}
}
