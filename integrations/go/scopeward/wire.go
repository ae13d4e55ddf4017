package scopeward

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardv1"
)

// Clients choose their scope and metadata, and the service denies what is too much of them; but a message of more than 256 KiB it
// does not read. So what is larger than largeBytes is cut to something that is surely denied as well.
const (
	largeBytes      = 96 << 10
	clientBytes     = 64 << 10
	scopeTokens     = 256
	scopeTokenBytes = 512
)

// wireText has U+FFFD for what is not UTF-8: outside of every grammar, so refused.
func wireText(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

func wireTexts(texts []string) []string {
	wire := make([]string, len(texts))
	for i, text := range texts {
		wire[i] = wireText(text)
	}
	return wire
}

// optional keeps unset and empty apart.
func optional(text *string) *string {
	if text == nil {
		return nil
	}
	return proto.String(wireText(*text))
}

func wireScope(scope *string) *string {
	wire := optional(scope)
	if wire == nil || len(*wire) <= largeBytes {
		return wire
	}
	var tokens []string
	for token := range strings.SplitSeq(*wire, " ") {
		if token == "" {
			continue
		}
		if len(token) > scopeTokenBytes {
			token = wireText(token[:scopeTokenBytes+1])
		}
		if tokens = append(tokens, token); len(tokens) > scopeTokens {
			break
		}
	}
	return proto.String(strings.Join(tokens, " "))
}

func wireClient(client *OAuthClient) *scopewardv1.Client {
	if client == nil {
		return nil
	}
	message := &scopewardv1.Client{
		ClientId:        wireText(client.ClientID),
		Source:          client.Source,
		ClientName:      wireText(client.ClientName),
		SoftwareId:      wireText(client.SoftwareID),
		SoftwareVersion: wireText(client.SoftwareVersion),
		RedirectUris:    wireTexts(client.RedirectURIs),
		GrantTypes:      wireTexts(client.GrantTypes),
		ApplicationType: wireText(client.ApplicationType),
	}
	if proto.Size(message) <= largeBytes {
		return message
	}
	head := func(text string) string { return wireText(text[:min(len(text), scopeTokenBytes)]) }
	name := head(message.ClientName)
	return &scopewardv1.Client{
		ClientId:   head(message.ClientId),
		Source:     message.Source,
		ClientName: name + strings.Repeat(".", clientBytes+1-len(name)),
	}
}

func expandRequest(question RegistrationQuestion) *scopewardv1.ExpandRegistrationScopesRequest {
	return &scopewardv1.ExpandRegistrationScopesRequest{
		Audiences:     wireTexts(question.Audiences),
		Scope:         wireScope(question.Scope),
		Client:        wireClient(question.Client),
		PreviousScope: optional(question.PreviousScope),
		CorrelationId: wireText(question.CorrelationID),
	}
}

func checkRequest(question AuthorizeQuestion) *scopewardv1.CheckAuthorizeScopesRequest {
	return &scopewardv1.CheckAuthorizeScopesRequest{
		Audiences:       wireTexts(question.Audiences),
		Scope:           wireScope(question.Scope),
		RegisteredScope: optional(question.RegisteredScope),
		Client:          wireClient(question.Client),
		CorrelationId:   wireText(question.CorrelationID),
	}
}

func tokenRequest(question TokenQuestion) *scopewardv1.CheckTokenScopesRequest {
	return &scopewardv1.CheckTokenScopesRequest{
		Audiences:       wireTexts(question.Audiences),
		Scope:           wireScope(question.Scope),
		GrantedScope:    optional(question.GrantedScope),
		RegisteredScope: optional(question.RegisteredScope),
		Client:          wireClient(question.Client),
		Grant:           question.Grant,
		CorrelationId:   wireText(question.CorrelationID),
	}
}

// answer is what the answers to all questions have in common.
type answer interface {
	GetDecision() scopewardv1.Decision
	GetScope() string
	GetRefused() []*scopewardv1.RefusedScope
	GetOauthError() *scopewardv1.OAuthError
	GetPolicy() *scopewardv1.PolicyVersion
	GetDecisionId() string
	GetReason() scopewardv1.Reason
}

// unlessAllowed returns nil for an ALLOW with a scope. A service of another version may leave out what was asked for: that is no
// grant.
func unlessAllowed(answer answer, at moment) error {
	switch decision := answer.GetDecision(); {
	case decision == scopewardv1.Decision_DECISION_ALLOW && answer.GetScope() != "":
		return nil
	case decision == scopewardv1.Decision_DECISION_DENY && answer.GetOauthError().GetError() != "":
		return &Denied{
			oauthError: OAuthError{answer.GetOauthError().GetError(), answer.GetOauthError().GetErrorDescription()},
			Reason:     answer.GetReason(),
			Refused:    answer.GetRefused(),
			Policy:     answer.GetPolicy(),
			DecisionID: answer.GetDecisionId(),
		}
	default:
		return newUnavailable(at, codes.Unknown, fmt.Sprintf("answer with decision %d is not understood", decision), nil)
	}
}

func registrationAnswer(response *scopewardv1.ExpandRegistrationScopesResponse) (*RegistrationAnswer, error) {
	if err := unlessAllowed(response, atRegistration); err != nil {
		return nil, err
	}
	return &RegistrationAnswer{
		Scope:      response.GetScope(),
		Added:      response.GetAdded(),
		Refused:    response.GetRefused(),
		Policy:     response.GetPolicy(),
		DecisionID: response.GetDecisionId(),
	}, nil
}

func authorizeAnswer(response *scopewardv1.CheckAuthorizeScopesResponse) (*AuthorizeAnswer, error) {
	if err := unlessAllowed(response, atAuthorize); err != nil {
		return nil, err
	}
	effective := response.GetEffectiveRegisteredScope()
	if effective == "" {
		// A service from before the field leaves it empty, and what was granted is enough for any check within the request.
		effective = response.GetScope()
	}
	return &AuthorizeAnswer{
		Scope:                    response.GetScope(),
		Added:                    response.GetAdded(),
		Refused:                  response.GetRefused(),
		AudienceGrants:           response.GetAudienceGrants(),
		EffectiveRegisteredScope: effective,
		Policy:                   response.GetPolicy(),
		DecisionID:               response.GetDecisionId(),
	}, nil
}

func tokenAnswer(response *scopewardv1.CheckTokenScopesResponse) (*TokenAnswer, error) {
	if err := unlessAllowed(response, atToken); err != nil {
		return nil, err
	}
	return &TokenAnswer{
		Scope:          response.GetScope(),
		Refused:        response.GetRefused(),
		AudienceGrants: response.GetAudienceGrants(),
		Policy:         response.GetPolicy(),
		DecisionID:     response.GetDecisionId(),
	}, nil
}

func batchResults[R, T any](at moment, items []R, count int, result func(R) T) ([]T, error) {
	if got := len(items); got != count {
		return nil, newUnavailable(at, codes.Unknown, fmt.Sprintf("%d answers to %d checks", got, count), nil)
	}
	results := make([]T, count)
	for i, item := range items {
		results[i] = result(item)
	}
	return results, nil
}

func authorizeResult(item *scopewardv1.BatchCheckResult) (result AuthorizeResult) {
	if result.Err = checkError(atAuthorize, item.GetError()); result.Err == nil {
		result.Answer, result.Err = authorizeAnswer(item.GetResponse())
	}
	return result
}

func tokenResult(item *scopewardv1.BatchCheckTokenResult) (result TokenResult) {
	if result.Err = checkError(atToken, item.GetError()); result.Err == nil {
		result.Answer, result.Err = tokenAnswer(item.GetResponse())
	}
	return result
}

// checkError is the failure of one check of a batch, or nil.
func checkError(at moment, err *scopewardv1.CheckError) error {
	if err == nil {
		return nil
	}
	return withDetails(at, codes.Code(err.GetCode()), err.GetMessage(), nil, errorDetails{reason: err.GetReason()})
}

// errorDetails is what the service says of an error besides its code: the ErrorInfo and the RetryInfo.
type errorDetails struct {
	reason     string
	metadata   map[string]string
	retryAfter time.Duration
}

func detailsOf(status *status.Status) errorDetails {
	var details errorDetails
	for _, detail := range status.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			details.reason, details.metadata = detail.GetReason(), detail.GetMetadata()
		case *errdetails.RetryInfo:
			details.retryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	return details
}

// unavailable is the failure that an error of a call comes to.
func unavailable(at moment, err error) *Unavailable {
	state := status.Convert(err)
	return withDetails(at, state.Code(), state.Message(), err, detailsOf(state))
}
