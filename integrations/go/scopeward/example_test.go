package scopeward_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/url"

	"github.com/scopeward/scopeward/integrations/go/scopeward"
	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardv1"
)

// A registration endpoint (RFC 7591): the answer is stored, and returned.
func ExampleClient_ExpandRegistrationScopes() {
	client, err := scopeward.New(scopeward.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	http.HandleFunc("POST /register", func(w http.ResponseWriter, r *http.Request) {
		var metadata map[string]any
		if err := json.NewDecoder(r.Body).Decode(&metadata); err != nil {
			http.Error(w, `{"error":"invalid_client_metadata"}`, http.StatusBadRequest)
			return
		}
		tool := scopeward.FromMetadata(metadata)
		tool.Source = scopeward.FromRegistration
		question := scopeward.RegistrationQuestion{Client: tool}
		if scope, isThere := metadata["scope"].(string); isThere {
			question.Scope = &scope
		}
		answer, err := client.ExpandRegistrationScopes(r.Context(), question)
		if err != nil {
			log.Print(err) // has the cause, which the client does not get
			scopeward.WriteRegistrationError(w, err)
			return
		}
		metadata["scope"] = answer.Scope
		// Store the metadata, add client_id, and return both.
	})
}

// An authorize endpoint (RFC 6749 section 3.1), after the client and its redirect URI were looked up.
func ExampleClient_CheckAuthorizeScopes() {
	client, err := scopeward.New(scopeward.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	authorize := func(ctx context.Context, form url.Values, registered string, tool *scopeward.OAuthClient) (string, error) {
		question := scopeward.AuthorizeQuestion{
			RegisteredScope: &registered,
			Audiences:       form["resource"],
			Client:          tool,
			CorrelationID: scopeward.LoginID(
				tool.ClientID, form.Get("redirect_uri"), form.Get("state"), form.Get("code_challenge")),
		}
		if form.Has("scope") {
			question.Scope = new(form.Get("scope"))
		}
		answer, err := client.CheckAuthorizeScopes(ctx, question)
		if err != nil {
			return "", err
		}
		return answer.Scope, nil // for the consent page and the code; the stored client stays as it is
	}
	_ = authorize
}

// Both ways to fail have the OAuth error for the redirect.
func ExampleFailure() {
	redirect := func(err error, to *url.URL, state string) string {
		oauthError := scopeward.OAuthError{Error: "server_error"}
		var failure scopeward.Failure
		if errors.As(err, &failure) {
			oauthError = failure.OAuthError()
		}
		query := to.Query()
		query.Set("error", oauthError.Error)
		query.Set("error_description", oauthError.ErrorDescription)
		query.Set("state", state)
		to.RawQuery = query.Encode()
		return to.String()
	}
	to, _ := url.Parse("https://app.example.com/callback")
	fmt.Println(redirect(errors.New("out of memory"), to, "af0ifjsldkj"))
	// Output: https://app.example.com/callback?error=server_error&error_description=&state=af0ifjsldkj
}

// A consumer that runs forever. The cursor moves past an event when the loop asks for the next one.
func ExampleClient_AuditEvents() {
	client, err := scopeward.New(scopeward.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	query := scopeward.AuditQuery{Cursor: scopeward.FileCursor("audit.cursor"), Follow: true}
	for record, err := range client.AuditEvents(context.Background(), query) {
		var stopped *scopeward.AuditStopped
		switch {
		case errors.As(err, &stopped) && stopped.Code.String() == "OutOfRange":
			log.Fatalf("retention was faster: %v; the oldest is %s", err, stopped.Metadata["oldest_sequence"])
		case err != nil:
			log.Fatal(err)
		case record.Gap != nil:
			log.Printf("%d events are lost: %s", record.Gap.GetCount(), record.Gap.GetReason())
		case record.Event.GetKind() == scopewardv1.AuditEventKind_AUDIT_EVENT_KIND_EXPANSION:
			log.Printf("%s got %s", record.Event.GetClient().GetClientName(), record.Event.GetEffectiveScope())
		}
	}
}
