package scopewardtoolhive

import (
	"context"
	"testing"

	"github.com/ory/fosite"
	"github.com/stacklok/toolhive/pkg/authserver/server/session"
	"github.com/stacklok/toolhive/pkg/authserver/storage"
)

// A handler in front of ToolHive that hides the path from ours would have a token request here that nobody decided.
func TestATokenRequestThatWasNotSeenGetsNoGrant(t *testing.T) {
	store := askingStorage{Storage: storage.NewMemoryStorage()}
	granted := fosite.NewAccessRequest(session.New("user", "", "client", session.UserClaims{}))
	granted.Client = &fosite.DefaultClient{ID: "client"}
	granted.GrantScope("openid")
	if err := store.CreateRefreshTokenSession(t.Context(), "signature", "", granted); err != nil {
		t.Fatal(err)
	}
	access := fosite.NewAccessRequest(granted.GetSession())
	access.Client = granted.Client
	asToken := context.WithValue(t.Context(), fosite.AccessRequestContextKey, access)
	if request, err := store.GetRefreshTokenSession(asToken, "signature", granted.GetSession()); err == nil || request != nil {
		t.Fatalf("%v %v", request, err)
	}
	// fosite revokes and introspects without a token request.
	request, err := store.GetRefreshTokenSession(t.Context(), "signature", nil)
	if err != nil || !request.GetGrantedScopes().ExactOne("openid") {
		t.Fatalf("%v %v", request, err)
	}
}
