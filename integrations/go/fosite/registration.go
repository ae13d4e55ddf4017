package scopewardfosite

import (
	"context"

	"github.com/ory/fosite"

	"github.com/scopeward/scopeward/integrations/go/scopeward"
)

// ExpandRegistration asks for a new client (RFC 7591), and puts the scope to store and to return into its metadata.
//
// The metadata is that of the request, as the server is about to store it. After an error it is as it was, and the answer to the
// request is [scopeward.WriteRegistrationError].
func (a *Asker) ExpandRegistration(ctx context.Context, metadata map[string]any) error {
	tool := scopeward.FromMetadata(metadata)
	tool.Source = scopeward.FromRegistration
	return a.expand(ctx, metadata, scopeward.RegistrationQuestion{Client: tool})
}

// ExpandUpdate asks for the update of a stored client (RFC 7592 section 2.2), as ExpandRegistration does for a new one. Without
// scope the client keeps what it has, as far as the policy still allows it.
func (a *Asker) ExpandUpdate(ctx context.Context, stored fosite.Client, metadata map[string]any) error {
	tool := scopeward.FromMetadata(metadata)
	tool.ClientID, tool.Source = stored.GetID(), a.options.Source(stored)
	question := scopeward.RegistrationQuestion{Client: tool, PreviousScope: registeredScope(stored)}
	return a.expand(ctx, metadata, question)
}

func (a *Asker) expand(ctx context.Context, metadata map[string]any, question scopeward.RegistrationQuestion) error {
	switch scope := metadata["scope"].(type) {
	case nil:
	case string:
		question.Scope = &scope
	default:
		return scopeIsNoText{}
	}
	question.Audiences = a.audiences()
	answer, err := a.client.ExpandRegistrationScopes(ctx, question)
	if err != nil {
		return err
	}
	metadata["scope"] = answer.Scope
	return nil
}

// scopeIsNoText is a [scopeward.Failure] that nobody has to be asked for.
type scopeIsNoText struct{}

func (scopeIsNoText) Error() string { return "scope is not a string" }

func (scopeIsNoText) HTTPStatus() int { return 400 }

func (s scopeIsNoText) OAuthError() scopeward.OAuthError {
	return scopeward.OAuthError{Error: "invalid_client_metadata", ErrorDescription: s.Error()}
}
