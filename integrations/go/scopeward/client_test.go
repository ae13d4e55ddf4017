package scopeward_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/scopeward/scopeward/integrations/go/scopeward"
	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardtest"
	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardv1"
)

func denied(t *testing.T, err error) *scopeward.Denied {
	t.Helper()
	var denied *scopeward.Denied
	if !errors.As(err, &denied) {
		t.Fatalf("not a denial: %v", err)
	}
	return denied
}

func unavailable(t *testing.T, err error) *scopeward.Unavailable {
	t.Helper()
	var unavailable *scopeward.Unavailable
	if !errors.As(err, &unavailable) {
		t.Fatalf("there is an answer: %v", err)
	}
	return unavailable
}

func equal[T any](t *testing.T, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// registered returns the scope that a registration with this scope gets.
func registered(t *testing.T, client *scopeward.Client, scope *string) string {
	t.Helper()
	answer, err := client.ExpandRegistrationScopes(t.Context(), scopeward.RegistrationQuestion{Scope: scope})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Scope
}

func origins(added []*scopewardv1.AddedScope) []string {
	var names []string
	for _, item := range added {
		names = append(names, item.GetScope()+" "+item.GetOrigin().String())
	}
	return names
}

func TestANarrowRegistrationGetsTheBaseline(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	answer, err := client.ExpandRegistrationScopes(t.Context(), scopeward.RegistrationQuestion{
		Scope: new("openid"), Client: &scopeward.OAuthClient{ClientName: "Tool", Source: scopeward.FromRegistration},
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, answer.Scope, "openid offline_access")
	equal(t, origins(answer.Added), []string{"offline_access ORIGIN_BASELINE"})
	equal(t, answer.Policy.GetGeneration(), 1)
	if !strings.HasPrefix(answer.Policy.GetDigest(), "sha256:") || answer.DecisionID == "" {
		t.Fatalf("%v", answer)
	}
}

func TestAnOmittedScopeGetsTheDefaults(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	for _, scope := range []*string{nil, new(""), new("   ")} {
		equal(t, registered(t, client, scope), "openid mcp:read offline_access")
	}
}

func TestAnUpdateWithoutScopeKeepsWhatIsHeld(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	question := scopeward.RegistrationQuestion{PreviousScope: new("profile offline_access")}
	answer, err := client.ExpandRegistrationScopes(t.Context(), question)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, answer.Scope, "profile offline_access")
}

func TestADenialAtRegistrationIsReadyToBeSent(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	question := scopeward.RegistrationQuestion{Scope: new("openid nonsense root")}
	_, err := client.ExpandRegistrationScopes(t.Context(), question)
	denial := denied(t, fmt.Errorf("registration: %w", err))
	equal(t, denial.OAuthError().Error, "invalid_client_metadata")
	equal(t, denial.HTTPStatus(), 400)
	var refused []string
	for _, item := range denial.Refused {
		refused = append(refused, item.GetScope()+" "+item.GetReason().String())
	}
	equal(t, refused, []string{"nonsense REASON_UNSUPPORTED", "root REASON_FORBIDDEN"})

	response := httptest.NewRecorder()
	scopeward.WriteRegistrationError(response, err)
	equal(t, response.Code, 400)
	equal(t, response.Header().Get("Cache-Control"), "no-store")
	want := `{"error":"invalid_client_metadata","error_description":"` + denial.OAuthError().ErrorDescription + `"}` + "\n"
	equal(t, response.Body.String(), want)
}

func TestAuthorizeSaysStepUpAndWhatIsNotToBeStored(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	answer, err := client.CheckAuthorizeScopes(t.Context(), scopeward.AuthorizeQuestion{
		Scope: new(" openid mcp:write"), RegisteredScope: new("openid"), Audiences: []string{audience}, CorrelationID: "login-1",
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, answer.Scope, "openid mcp:write")
	equal(t, origins(answer.Added), []string{"mcp:write ORIGIN_STEP_UP"})
	equal(t, answer.EffectiveRegisteredScope, "openid mcp:write")
	equal(t, len(answer.AudienceGrants), 1)
	equal(t, answer.AudienceGrants[0].GetAudience()+" "+answer.AudienceGrants[0].GetScope(), audience+" openid mcp:write")
}

func TestUnsetIsNotEmpty(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	answer, err := client.CheckAuthorizeScopes(t.Context(), scopeward.AuthorizeQuestion{Scope: new("mcp:read")})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, answer.Scope, "mcp:read")
	question := scopeward.AuthorizeQuestion{Scope: new("mcp:read"), RegisteredScope: new("")}
	_, err = client.CheckAuthorizeScopes(t.Context(), question)
	equal(t, denied(t, err).OAuthError().Error, "invalid_scope")
	equal(t, denied(t, err).Reason, scopewardv1.Reason_REASON_UNREGISTERED)
}

func TestAnUnknownAudienceIsAnInvalidTarget(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	question := scopeward.AuthorizeQuestion{Scope: new("openid"), Audiences: []string{"https://other.example.com"}}
	_, err := client.CheckAuthorizeScopes(t.Context(), question)
	equal(t, denied(t, err).OAuthError().Error, "invalid_target")
	equal(t, denied(t, err).Reason, scopewardv1.Reason_REASON_AUDIENCE_UNKNOWN)
}

func TestABatchHasAnswersDenialsAndErrorsInOrder(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	results, err := client.BatchCheckAuthorizeScopes(t.Context(), []scopeward.AuthorizeQuestion{
		narrow(),
		{Scope: new("root"), RegisteredScope: new("root")},
		{Scope: new("openid"), CorrelationID: strings.Repeat("x", 129)},
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, results[0].Answer.Scope, "openid")
	equal(t, denied(t, results[1].Err).Reason, scopewardv1.Reason_REASON_FORBIDDEN)
	failure := unavailable(t, results[2].Err)
	equal(t, failure.Code, codes.InvalidArgument)
	equal(t, failure.OAuthError().Error, "server_error")
}

func TestDescriptionsAndStatus(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	var all []*scopewardv1.AudienceDescription
	for description, err := range client.DescribeAudiences(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, description)
	}
	one, err := client.DescribeAudience(t.Context(), audience)
	if err != nil || len(all) != 1 || !proto.Equal(all[0], one) {
		t.Fatalf("%v, %v, %v", all, one, err)
	}
	equal(t, one.GetAdvertisedScopes(), []string{"openid", "profile", "offline_access", "mcp:read"})
	_, err = client.DescribeAudience(t.Context(), "https://other.example.com")
	equal(t, unavailable(t, err).Code, codes.NotFound)
	equal(t, unavailable(t, err).Reason, "AUDIENCE_NOT_FOUND")
	state, err := client.PolicyStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	equal(t, state.GetAudienceCount(), 1)
	for _, err := range client.DescribeAudiences(canceled(t)) {
		equal(t, unavailable(t, err).Code, codes.Canceled)
	}
	for _, err := range client.WatchPolicyStatus(canceled(t)) {
		equal(t, unavailable(t, err).Code, codes.Canceled)
	}
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func Test256RefusedScopesAreOneDenial(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	var scopes []string
	for i := range 256 {
		scopes = append(scopes, fmt.Sprintf("scope%d", i))
	}
	question := scopeward.AuthorizeQuestion{Scope: new(strings.Join(scopes, " ")), RegisteredScope: new("openid")}
	_, err := client.CheckAuthorizeScopes(t.Context(), question)
	equal(t, len(denied(t, err).Refused), 256)
	description := denied(t, err).OAuthError().ErrorDescription
	isPrintable := func(char rune) bool { return char >= ' ' && char <= '~' && char != '"' && char != '\\' }
	if len(description) > 512 || strings.IndexFunc(description, func(char rune) bool { return !isPrintable(char) }) >= 0 {
		t.Fatal(description)
	}
}

func TestHostileScopesAreDeniedAtBothMoments(t *testing.T) {
	client := newClient(t, scopeward.Config{Deadline: 20 * time.Second}, sharedServer(t).Target)
	var many []string
	for i := range 60_000 {
		many = append(many, fmt.Sprintf("scope%d", i))
	}
	for i, scope := range []string{
		`mcp"read`,
		"openid\troot",
		"openid\nroot",
		"openid\x00root",
		"ópenid",
		"adm\xff\xfein",
		"\xed\xa0\x80",
		strings.Repeat("a", 513),
		strings.Repeat("x", 1_000_000),
		strings.Repeat("é", 400_000),
		strings.Repeat("openid ", 200_000),
		strings.Join(many, " "),
		"</script><script>alert(1)</script>",
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			_, err := client.ExpandRegistrationScopes(t.Context(), scopeward.RegistrationQuestion{Scope: &scope})
			equal(t, denied(t, err).OAuthError().Error, "invalid_client_metadata")
			question := scopeward.AuthorizeQuestion{Scope: &scope, RegisteredScope: new("openid")}
			_, err = client.CheckAuthorizeScopes(t.Context(), question)
			equal(t, denied(t, err).OAuthError().Error, "invalid_scope")
		})
	}
}

func TestTooMuchMetadataIsDeniedAndOddMetadataLeftOut(t *testing.T) {
	odd := map[string]any{
		"client_name": 7, "redirect_uris": "https://x", "grant_types": map[string]any{"a": 1}, "software_id": []any{"x"},
	}
	equal(t, *scopeward.FromMetadata(odd), scopeward.OAuthClient{})
	mixed := scopeward.FromMetadata(map[string]any{"redirect_uris": []any{"https://a", 7, nil}, "grant_types": []string{"b"}})
	equal(t, mixed.RedirectURIs, []string{"https://a"})
	equal(t, mixed.GrantTypes, []string{"b"})
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	long := make([]string, 9_000)
	for i := range long {
		long[i] = "https://a.example.com/" + strings.Repeat("p", 90)
	}
	for _, tool := range []scopeward.OAuthClient{
		{ClientName: strings.Repeat("n", 70_000)},
		{ClientName: strings.Repeat("é", 70_000), ClientID: strings.Repeat("é", 70_000)},
		{RedirectURIs: long},
	} {
		_, err := client.ExpandRegistrationScopes(t.Context(), scopeward.RegistrationQuestion{Client: &tool})
		equal(t, denied(t, err).Reason, scopewardv1.Reason_REASON_CLIENT_TOO_LARGE)
	}
	tool := &scopeward.OAuthClient{ClientName: "\xff"}
	answer, err := client.ExpandRegistrationScopes(t.Context(), scopeward.RegistrationQuestion{Scope: new("openid"), Client: tool})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, answer.Scope, "openid offline_access")
}

func TestDownAndBack(t *testing.T) {
	server := ownServer(t)
	client := newClient(t, scopeward.Config{}, server.Target)
	equal(t, eventually(t, client).Scope, "openid")
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	_, err := client.CheckAuthorizeScopes(t.Context(), narrow())
	failure := unavailable(t, err)
	equal(t, failure.Code, codes.Unavailable)
	equal(t, failure.OAuthError().Error, "temporarily_unavailable")
	equal(t, failure.IsTransient(), true)
	_, err = client.ExpandRegistrationScopes(t.Context(), scopeward.RegistrationQuestion{Scope: new("openid")})
	equal(t, unavailable(t, err).OAuthError().Error, "server_error")

	_, tokenErr := client.CheckTokenScopes(t.Context(), scopeward.TokenQuestion{Grant: scopeward.GrantRefresh, GrantedScope: new("openid")})
	for code, write := range map[string]func(http.ResponseWriter){
		"server_error":            func(w http.ResponseWriter) { scopeward.WriteRegistrationError(w, err) },
		"temporarily_unavailable": func(w http.ResponseWriter) { scopeward.WriteTokenError(w, tokenErr) },
	} {
		response := httptest.NewRecorder()
		write(response)
		equal(t, response.Code, 503)
		equal(t, response.Header().Get("Retry-After"), "1")
		if body := response.Body.String(); strings.Contains(body, server.Target) || !strings.Contains(body, code) {
			t.Fatal(body)
		}
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	equal(t, eventually(t, client).Scope, "openid")
}

func TestAnErrorOfAnotherKindIsAServerError(t *testing.T) {
	for _, write := range []func(http.ResponseWriter, error){scopeward.WriteRegistrationError, scopeward.WriteTokenError} {
		response := httptest.NewRecorder()
		write(response, errors.New("the secret is 7"))
		equal(t, response.Code, 500)
		if body := response.Body.String(); !strings.Contains(body, `"server_error"`) || strings.Contains(body, "secret") {
			t.Fatal(body)
		}
	}
}

func TestAStalledServerEndsWithTheDeadline(t *testing.T) {
	server := ownServer(t)
	client := newClient(t, scopeward.Config{Deadline: 50 * time.Millisecond}, server.Target)
	eventually(t, client)
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	_, err := client.CheckAuthorizeScopes(t.Context(), narrow())
	equal(t, unavailable(t, err).Code, codes.DeadlineExceeded)
	equal(t, unavailable(t, err).OAuthError().Error, "temporarily_unavailable")
	// The earlier of both deadlines counts.
	patient := newClient(t, scopeward.Config{Deadline: time.Hour}, server.Target)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = patient.CheckAuthorizeScopes(ctx, narrow())
	equal(t, unavailable(t, err).Code, codes.DeadlineExceeded)
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	equal(t, eventually(t, client).Scope, "openid")
}

func TestAServerThatNeverAnswersAConnectionEndsWithTheDeadline(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client := newClient(t, scopeward.Config{Deadline: 50 * time.Millisecond}, listener.Addr().String())
	_, err = client.ExpandRegistrationScopes(t.Context(), scopeward.RegistrationQuestion{Scope: new("openid")})
	equal(t, unavailable(t, err).OAuthError().Error, "server_error")
	equal(t, unavailable(t, err).HTTPStatus(), 503)
}

func TestACallerThatLeavesIsNoDenial(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	_, err := client.CheckAuthorizeScopes(canceled(t), narrow())
	equal(t, unavailable(t, err).Code, codes.Canceled)
}

func TestAnAnswerFromBeforeAFieldIsStillOne(t *testing.T) {
	old := startOldServer(t, sharedServer(t).Target, without("effective_registered_scope", "audience_grants"))
	client := newClient(t, scopeward.Config{}, old.Target)
	question := scopeward.AuthorizeQuestion{Scope: new("openid mcp:write"), RegisteredScope: new("openid")}
	answer, err := client.CheckAuthorizeScopes(t.Context(), question)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, answer.Scope+", "+answer.EffectiveRegisteredScope, "openid mcp:write, openid mcp:write")
	_, err = client.CheckAuthorizeScopes(t.Context(), scopeward.AuthorizeQuestion{Scope: new("root")})
	denied(t, err)
}

func TestWhatIsNotUnderstoodGrantsNothing(t *testing.T) {
	unknownDecision := func(message protoreflect.Message) {
		message.Set(message.Descriptor().Fields().ByName("decision"), protoreflect.ValueOfEnum(9))
	}
	for name, change := range map[string]func(protoreflect.Message){
		"allow without decision": without("decision"),
		"allow without scope":    without("scope"),
		"unknown decision":       unknownDecision,
	} {
		t.Run(name, func(t *testing.T) {
			client := newClient(t, scopeward.Config{}, startOldServer(t, sharedServer(t).Target, change).Target)
			_, err := client.CheckAuthorizeScopes(t.Context(), narrow())
			equal(t, unavailable(t, err).OAuthError().Error, "server_error")
			_, err = client.ExpandRegistrationScopes(t.Context(), scopeward.RegistrationQuestion{Scope: new("openid")})
			equal(t, unavailable(t, err).OAuthError().Error, "server_error")
		})
	}
	t.Run("denial without its error", func(t *testing.T) {
		client := newClient(t, scopeward.Config{}, startOldServer(t, sharedServer(t).Target, without("oauth_error")).Target)
		_, err := client.CheckAuthorizeScopes(t.Context(), scopeward.AuthorizeQuestion{Scope: new("root")})
		equal(t, unavailable(t, err).OAuthError().Error, "server_error")
	})
}

func TestAMethodThatTheServerDoesNotKnowIsAServerError(t *testing.T) {
	client := newClient(t, scopeward.Config{}, startOldServer(t, sharedServer(t).Target, nil).Target)
	_, err := client.PolicyStatus(t.Context())
	failure := unavailable(t, err)
	equal(t, failure.Code, codes.Unimplemented)
	equal(t, failure.OAuthError().Error, "server_error")
	equal(t, failure.HTTPStatus(), 500)
}

func TestARetryIsMadeForUnavailableOnly(t *testing.T) {
	old := startOldServer(t, sharedServer(t).Target, nil)
	client := newClient(t, scopeward.Config{}, old.Target)
	asked := 0
	old.asked = func() error {
		if asked++; asked < 3 {
			return status.Error(codes.Unavailable, "draining")
		}
		return nil
	}
	if _, err := client.CheckAuthorizeScopes(t.Context(), narrow()); err != nil || asked != 3 {
		t.Fatalf("%v after %d", err, asked)
	}
	for _, code := range []codes.Code{codes.Internal, codes.ResourceExhausted, codes.Aborted} {
		asked = 0
		old.asked = func() error { asked++; return status.Error(code, "no") }
		_, err := client.CheckAuthorizeScopes(t.Context(), narrow())
		equal(t, unavailable(t, err).Code, code)
		equal(t, asked, 1)
	}
	direct := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	_, err := direct.CheckAuthorizeScopes(t.Context(), scopeward.AuthorizeQuestion{CorrelationID: strings.Repeat("x", 129)})
	failure := unavailable(t, err)
	equal(t, failure.Code.String()+" "+failure.Reason+" "+failure.Metadata["field"], "InvalidArgument LIMIT_EXCEEDED correlation_id")
}

func TestAServerThatIsNotServingIsLeftOut(t *testing.T) {
	target := sharedServer(t).Target
	var mutex sync.Mutex
	asked := map[string]int{}
	var servers []*oldServer
	for range 2 {
		server := startOldServer(t, target, nil)
		server.asked = func() error {
			mutex.Lock()
			defer mutex.Unlock()
			asked[server.Target]++
			return nil
		}
		servers = append(servers, server)
	}
	client := newClient(t, scopeward.Config{}, servers[0].Target, servers[1].Target)
	// askUntil asks until the servers that were asked in a round of four are these.
	askUntil := func(want ...string) {
		t.Helper()
		slices.Sort(want)
		for range 500 {
			clear(asked)
			for range 4 {
				if _, err := client.CheckAuthorizeScopes(t.Context(), narrow()); err != nil {
					t.Fatal(err)
				}
			}
			got := make([]string, 0, 2)
			for name := range asked {
				got = append(got, name)
			}
			if slices.Sort(got); slices.Equal(got, want) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("%v were asked", asked)
	}
	askUntil(servers[0].Target, servers[1].Target)
	servers[0].Health.set(healthpb.HealthCheckResponse_NOT_SERVING)
	askUntil(servers[1].Target)
	servers[0].Health.set(healthpb.HealthCheckResponse_SERVING)
	askUntil(servers[0].Target, servers[1].Target)
	servers[1].grpc.Stop()
	askUntil(servers[0].Target)
}

func TestUnixSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	scopewardtest.Start(t, scopewardtest.Options{Policy: policy, Listen: "unix:" + socket})
	equal(t, registered(t, newClient(t, scopeward.Config{}, "unix:"+socket), new("openid")), "openid offline_access")
}

// tlsServer shows a certificate for 127.0.0.1 and scopeward.internal.
func tlsServer(t *testing.T, issuer *authority, more ...string) *scopewardtest.Server {
	certificate, key := issuer.issue("server", "127.0.0.1", "scopeward.internal")
	return ownServer(t, append(more, "--tls-cert-file", certificate, "--tls-private-key-file", key)...)
}

func TestTLSAndAWrongCertificate(t *testing.T) {
	folder := t.TempDir()
	issuer, other := newAuthority(t, folder, "authority"), newAuthority(t, folder, "other")
	server := tlsServer(t, issuer)
	for _, config := range []scopeward.Config{
		{TLSCAFile: issuer.File},
		{TLSCAFile: issuer.File, ServerName: "scopeward.internal"},
	} {
		equal(t, registered(t, newClient(t, config, "https://"+server.Target), new("openid")), "openid offline_access")
	}
	for _, config := range []scopeward.Config{
		{TLSCAFile: other.File},
		{TLSCAFile: issuer.File, ServerName: "other.internal"},
		{},
	} {
		_, err := newClient(t, config, "https://"+server.Target).CheckAuthorizeScopes(t.Context(), narrow())
		equal(t, unavailable(t, err).OAuthError().Error, "temporarily_unavailable")
	}
	write(t, filepath.Join(folder, "empty.pem"), "nothing")
	for _, config := range []scopeward.Config{
		{TLSCAFile: filepath.Join(folder, "none.pem")},
		{TLSCAFile: filepath.Join(folder, "empty.pem")},
		{TLSCAFile: issuer.File, TLSCertFile: issuer.File, TLSPrivateKeyFile: filepath.Join(folder, "server.key")},
	} {
		_, err := newClient(t, config, "https://"+server.Target).CheckAuthorizeScopes(t.Context(), narrow())
		equal(t, unavailable(t, err).Code, codes.Unauthenticated)
		equal(t, unavailable(t, err).OAuthError().Error, "server_error")
	}
}

func TestAClientCertificateThatWasReplacedIsReadAgain(t *testing.T) {
	folder := t.TempDir()
	issuer, stranger := newAuthority(t, folder, "authority"), newAuthority(t, folder, "stranger")
	certificate, key := stranger.issue("caller")
	server := tlsServer(t, issuer, "--tls-client-ca-file", issuer.File)
	config := scopeward.Config{TLSCAFile: issuer.File, TLSCertFile: certificate, TLSPrivateKeyFile: key}
	client := newClient(t, config, "https://"+server.Target)
	_, err := client.CheckAuthorizeScopes(t.Context(), narrow())
	equal(t, unavailable(t, err).OAuthError().Error, "temporarily_unavailable")
	issuer.issue("caller")
	equal(t, eventually(t, client).Scope, "openid")
	// A broken file leaves the last good one in use.
	write(t, certificate, "nothing")
	equal(t, eventually(t, client).Scope, "openid")
}

func TestATokenFromAFileCountsAtOnce(t *testing.T) {
	folder := t.TempDir()
	tokenFile, accessFile := filepath.Join(folder, "token"), filepath.Join(folder, "access.yaml")
	digest := sha256.Sum256([]byte("good"))
	access := "callers:\n  - name: tests\n    match: [{tokenSha256: %s}]\n    may: [decide]\n"
	write(t, accessFile, fmt.Sprintf(access, hex.EncodeToString(digest[:])))
	write(t, tokenFile, "bad\n")
	server := ownServer(t, "--access-file", accessFile)
	client := newClient(t, scopeward.Config{TokenFile: tokenFile}, server.Target)
	_, err := client.CheckAuthorizeScopes(t.Context(), narrow())
	equal(t, unavailable(t, err).Code, codes.Unauthenticated)
	equal(t, unavailable(t, err).OAuthError().Error, "server_error")
	write(t, tokenFile, "good\n")
	equal(t, registered(t, client, new("openid")), "openid offline_access")
	_, err = client.PolicyStatus(t.Context())
	equal(t, unavailable(t, err).Code, codes.PermissionDenied)
	write(t, tokenFile, "two\nlines")
	_, err = client.CheckAuthorizeScopes(t.Context(), narrow())
	equal(t, unavailable(t, err).OAuthError().Error, "server_error")
	if err := os.Remove(tokenFile); err != nil {
		t.Fatal(err)
	}
	_, err = client.CheckAuthorizeScopes(t.Context(), narrow())
	equal(t, unavailable(t, err).OAuthError().Error, "server_error")
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	equal(t, registered(t, newClient(t, scopeward.Config{Token: "good"}, server.Target), new("openid")), "openid offline_access")
}

func TestWhatIsNoTargetIsRefusedAtOnce(t *testing.T) {
	for _, targets := range [][]string{
		{""}, {"host"}, {"http://host:1/path"}, {"ftp://host:1"}, {"https://u@host:1"}, {"unix:"}, {"host:99999"}, {"host:0"},
		{"a:1", "b:2"}, {"127.0.0.1:1", "https://127.0.0.1:2"}, {"127.0.0.1:1", "nothing"}, {"127.0.0.1:1", "unix:/s"}, {"a b:1"},
	} {
		if _, err := scopeward.New(scopeward.Config{Targets: targets}); err == nil {
			t.Errorf("%q is a target", targets)
		}
	}
}

func TestTargetsAreWhatTheCommandLineTakes(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:1":    "dns:///127.0.0.1:1 false",
		"http://[::1]:1": "dns:///[::1]:1 false",
		"https://host:1": "dns:///host:1 true",
		"dns:///host:1":  "dns:///host:1 false",
		"unix:/run/s":    "unix:/run/s false",
		"unix:///run/s":  "unix:/run/s false",
	} {
		target, addresses, isTLS, err := scopeward.ParseTargets(text)
		equal(t, fmt.Sprintf("%s %t", target, isTLS), want)
		equal(t, len(addresses), 1)
		equal(t, err, nil)
	}
	_, addresses, _, err := scopeward.ParseTargets("10.0.0.1:1", "[fd00::1]:2")
	equal(t, addresses, []string{"10.0.0.1:1", "[fd00::1]:2"})
	equal(t, err, nil)
	target, _, _, err := scopeward.ParseTargets()
	equal(t, target, "dns:///127.0.0.1:50551")
	equal(t, err, nil)
}

func TestSettingsThatDoNotFitAreRefused(t *testing.T) {
	for want, config := range map[string]scopeward.Config{
		"plaintext":      {Targets: []string{"192.0.2.1:1"}, Token: "secret"},
		"not in a":       {Targets: []string{"127.0.0.1:1"}},
		"not as both":    {Token: "one", TokenFile: "two"},
		"given together": {Targets: []string{"https://host:1"}, TLSCertFile: "one"},
		"https://":       {TLSCAFile: "one"},
		"ServerName":     {Targets: []string{"https://10.0.0.1:1", "https://10.0.0.2:1"}},
		"negative":       {Deadline: -1},
	} {
		_, err := scopeward.New(config)
		if isFine := want == "not in a"; isFine != (err == nil) || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for _, target := range []string{"127.0.0.1:1", "localhost:1", "unix:/s", "https://192.0.2.1:1"} {
		newClient(t, scopeward.Config{TokenFile: "token"}, target)
	}
}

func TestAClosedClientAnswersNothing(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := client.CheckAuthorizeScopes(t.Context(), narrow())
	equal(t, unavailable(t, err).Code, codes.Canceled)
}

func TestGoroutinesShareAClient(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	var group sync.WaitGroup
	for range 32 {
		group.Go(func() {
			answer, err := client.CheckAuthorizeScopes(t.Context(), narrow())
			if err != nil || answer.Scope != "openid" {
				t.Errorf("%v, %v", answer, err)
			}
		})
	}
	group.Wait()
}

func TestAnEditedPolicyDecidesTheNextQuestion(t *testing.T) {
	server := ownServer(t)
	client := newClient(t, scopeward.Config{}, server.Target)
	stored := registered(t, client, new("profile"))
	if err := server.SetPolicy(t.Context(), strings.Replace(policy, "profile, ", "", 1)); err != nil {
		t.Fatal(err)
	}
	question := scopeward.AuthorizeQuestion{Scope: new("profile"), RegisteredScope: &stored}
	_, err := client.CheckAuthorizeScopes(t.Context(), question)
	equal(t, denied(t, err).Reason, scopewardv1.Reason_REASON_UNSUPPORTED)
	question.Scope = nil
	answer, err := client.CheckAuthorizeScopes(t.Context(), question)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, answer.Scope, "offline_access")
}

func TestALoginHasOneIDAndAnIDSaysWhereAClientIsFrom(t *testing.T) {
	equal(t, scopeward.LoginID("a", "b"), scopeward.LoginID("a", "b"))
	if scopeward.LoginID("a", "b") == scopeward.LoginID("ab", "") || len(scopeward.LoginID()) != 32 {
		t.Fatal("not an id")
	}
	equal(t, scopeward.SourceOf("HTTPS://app.example.com/client.json"), scopeward.FromMetadataDocument)
	for _, id := range []string{"", "https:/", "http://app.example.com", "s6BhdRkqt3"} {
		equal(t, scopeward.SourceOf(id), scopeward.FromRegistration)
	}
}
