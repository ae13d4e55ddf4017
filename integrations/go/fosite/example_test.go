package scopewardfosite_test

import (
	"encoding/json"
	"log"
	"net/http"
	"strings"

	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/storage"

	scopewardfosite "github.com/scopeward/scopeward/integrations/go/fosite"
	"github.com/scopeward/scopeward/integrations/go/scopeward"
)

// The provider is used as one of compose.Compose.
func ExampleAsker_Compose() {
	client, err := scopeward.New(scopeward.Config{})
	if err != nil {
		log.Fatal(err)
	}
	asker := scopewardfosite.NewAsker(client, scopewardfosite.Options{})
	config := &fosite.Config{GlobalSecret: []byte("a secret of thirty-two bytes ...")}
	provider := asker.Compose(config, storage.NewMemoryStore(), compose.NewOAuth2HMACStrategy(config),
		compose.OAuth2AuthorizeExplicitFactory, compose.OAuth2RefreshTokenGrantFactory, compose.OAuth2PKCEFactory)
	http.HandleFunc("/authorize", func(w http.ResponseWriter, r *http.Request) {
		request, err := provider.NewAuthorizeRequest(r.Context(), r)
		if err != nil {
			provider.WriteAuthorizeError(r.Context(), w, request, err) // denied, or no answer: to the callback, with state
			return
		}
		for _, scope := range request.GetRequestedScopes() { // the answer: for the consent page
			request.GrantScope(scope)
		}
		response, err := provider.NewAuthorizeResponse(r.Context(), request, &fosite.DefaultSession{Subject: "user"})
		if err != nil {
			provider.WriteAuthorizeError(r.Context(), w, request, err)
			return
		}
		provider.WriteAuthorizeResponse(r.Context(), w, request, response)
	})
}

// A registration endpoint (RFC 7591).
func ExampleAsker_ExpandRegistration() {
	client, err := scopeward.New(scopeward.Config{})
	if err != nil {
		log.Fatal(err)
	}
	asker := scopewardfosite.NewAsker(client, scopewardfosite.Options{})
	store := storage.NewMemoryStore()
	http.HandleFunc("POST /register", func(w http.ResponseWriter, r *http.Request) {
		var metadata map[string]any
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&metadata); err != nil {
			http.Error(w, `{"error":"invalid_client_metadata"}`, http.StatusBadRequest)
			return
		}
		if err := asker.ExpandRegistration(r.Context(), metadata); err != nil {
			scopeward.WriteRegistrationError(w, err)
			return
		}
		store.Clients["new"] = &fosite.DefaultClient{
			ID: "new", Public: true, Scopes: strings.Fields(metadata["scope"].(string)),
			RedirectURIs: scopeward.FromMetadata(metadata).RedirectURIs,
		}
		metadata["client_id"] = "new"
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(metadata)
	})
}
