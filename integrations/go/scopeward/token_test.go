package scopeward_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/scopeward/scopeward/integrations/go/scopeward"
	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardtest"
	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardv1"
)

func refresh(scope *string, granted string) scopeward.TokenQuestion {
	return scopeward.TokenQuestion{Grant: scopeward.GrantRefresh, Scope: scope, GrantedScope: &granted}
}

func TestARefreshGetsItsGrantOrAPartOfIt(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	for scope, want := range map[*string]string{
		nil: "openid mcp:read", new(""): "openid mcp:read", new("mcp:read"): "mcp:read", new(" mcp:read  openid"): "mcp:read openid",
	} {
		answer, err := client.CheckTokenScopes(t.Context(), refresh(scope, "openid mcp:read"))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, answer.Scope, want)
		equal(t, len(answer.Refused), 0)
		equal(t, answer.AudienceGrants[0].GetAudience()+" "+answer.AudienceGrants[0].GetScope(), audience+" "+want)
		equal(t, answer.Policy.GetGeneration(), 1)
	}
}

// RFC 6749 section 6, and a policy that is another one than at the login.
func TestARefreshGainsNothingAndLosesWhatIsWithdrawn(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	_, err := client.CheckTokenScopes(t.Context(), refresh(new("openid mcp:read"), "openid"))
	denial := denied(t, err)
	equal(t, denial.OAuthError().Error, "invalid_scope")
	equal(t, denial.HTTPStatus(), 400)
	equal(t, denial.Reason, scopewardv1.Reason_REASON_EXCEEDS_GRANT)

	answer, err := client.CheckTokenScopes(t.Context(), refresh(nil, "openid root withdrawn mcp:write"))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, answer.Scope, "openid mcp:write")
	_, err = client.CheckTokenScopes(t.Context(), refresh(nil, ""))
	denied(t, err)
}

func TestClientCredentialsGetWhatIsHeldAndNoStepUp(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	ask := func(scope *string) (*scopeward.TokenAnswer, error) {
		return client.CheckTokenScopes(t.Context(), scopeward.TokenQuestion{
			Grant: scopeward.GrantClientCredentials, Scope: scope, RegisteredScope: new("openid mcp:read admin"),
			Audiences: []string{audience}, Client: &scopeward.OAuthClient{ClientID: "service", Source: scopeward.FromOperator},
		})
	}
	for scope, want := range map[*string]string{new("mcp:read"): "mcp:read", new("admin"): "admin", nil: "openid mcp:read offline_access"} {
		answer, err := ask(scope)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, answer.Scope, want)
	}
	for _, scope := range []string{"mcp:write", "root", "profile"} {
		_, err := ask(&scope)
		equal(t, denied(t, err).OAuthError().Error, "invalid_scope")
	}
	other := scopeward.TokenQuestion{Grant: scopeward.GrantJWTBearer, Audiences: []string{"https://other.example.com"}}
	_, err := client.CheckTokenScopes(t.Context(), other)
	equal(t, denied(t, err).OAuthError().Error, "invalid_target")
}

func TestATokenQuestionThatLacksSomethingIsNoDenial(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	for field, question := range map[string]scopeward.TokenQuestion{
		"grant":         {Scope: new("openid"), GrantedScope: new("openid")},
		"granted_scope": {Grant: scopeward.GrantTokenExchange, Scope: new("openid"), RegisteredScope: new("openid")},
	} {
		_, err := client.CheckTokenScopes(t.Context(), question)
		failure := unavailable(t, err)
		equal(t, failure.Code, codes.InvalidArgument)
		equal(t, failure.Metadata["field"], field)
		equal(t, failure.OAuthError().Error, "server_error")
		equal(t, failure.HTTPStatus(), 500)
	}
}

func TestATokenBatchHasAnswersDenialsAndErrorsInOrder(t *testing.T) {
	client := newClient(t, scopeward.Config{}, sharedServer(t).Target)
	results, err := client.BatchCheckTokenScopes(t.Context(), []scopeward.TokenQuestion{
		refresh(nil, "openid"), refresh(new("mcp:read"), "openid"), {Grant: scopeward.GrantRefresh},
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, results[0].Answer.Scope, "openid")
	equal(t, denied(t, results[1].Err).Reason, scopewardv1.Reason_REASON_EXCEEDS_GRANT)
	equal(t, unavailable(t, results[2].Err).Code, codes.InvalidArgument)
}

func TestHostileTokenScopesAreDenied(t *testing.T) {
	client := newClient(t, scopeward.Config{Deadline: 20 * time.Second}, sharedServer(t).Target)
	for _, scope := range []string{
		`mcp"read`, "openid\troot", "openid\x00root", "adm\xff\xfein", strings.Repeat("a", 513), strings.Repeat("x", 1_000_000),
		strings.Repeat("openid ", 200_000),
	} {
		_, err := client.CheckTokenScopes(t.Context(), refresh(&scope, "openid"))
		equal(t, denied(t, err).OAuthError().Error, "invalid_scope")
		// In the grant they are worth nothing.
		if len(scope) < 1000 {
			_, err = client.CheckTokenScopes(t.Context(), refresh(nil, scope+"\""))
			denied(t, err)
		}
	}
}

// A service from before the question: no grant, and a log line that says why.
func TestAServiceThatDoesNotKnowTokenScopesGrantsNothing(t *testing.T) {
	client := newClient(t, scopeward.Config{}, startOldServer(t, sharedServer(t).Target, nil).Target)
	_, err := client.CheckTokenScopes(t.Context(), refresh(nil, "openid"))
	failure := unavailable(t, err)
	equal(t, failure.Code, codes.Unimplemented)
	equal(t, failure.OAuthError().Error, "server_error")
	equal(t, failure.HTTPStatus(), 500)
	if !strings.Contains(err.Error(), "CheckTokenScopes") || !strings.Contains(err.Error(), "it is older than this client") {
		t.Fatal(err)
	}
}

func TestTokensWhileTheServiceIsDownOrHangs(t *testing.T) {
	server := ownServer(t)
	client := newClient(t, scopeward.Config{Deadline: 100 * time.Millisecond}, server.Target)
	eventually(t, client)
	for _, sicken := range []func() error{server.Pause, server.Stop} {
		if err := sicken(); err != nil {
			t.Fatal(err)
		}
		_, err := client.CheckTokenScopes(t.Context(), refresh(nil, "openid"))
		equal(t, unavailable(t, err).OAuthError().Error, "temporarily_unavailable")
		equal(t, unavailable(t, err).HTTPStatus(), 503)
	}
}

func TestADeniedTokenIsAudited(t *testing.T) {
	server := scopewardtest.Start(t, scopewardtest.Options{Policy: policy})
	client := newClient(t, scopeward.Config{}, server.Target)
	question := refresh(new("mcp:read"), "openid")
	question.CorrelationID = "login-7"
	_, err := client.CheckTokenScopes(t.Context(), question)
	denied(t, err)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		records, err := server.Audit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, record := range records {
			if event := record.Event; event.GetCorrelationId() == "login-7" {
				equal(t, event.GetKind(), scopewardv1.AuditEventKind_AUDIT_EVENT_KIND_DENIAL)
				equal(t, event.GetGrant(), scopeward.GrantRefresh)
				equal(t, event.GetGrantedScope(), "openid")
				return
			}
		}
	}
	t.Fatal("the denial is not in the audit log")
}
