package scopeward

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardv1"
)

// Failure is what [*Denied] and [*Unavailable] have in common: an error to send to the OAuth client.
//
//	var failure scopeward.Failure
//	if errors.As(err, &failure) {
//		redirect(failure.OAuthError())
//	}
type Failure interface {
	error

	// OAuthError returns the members of the error response or redirect.
	OAuthError() OAuthError

	// HTTPStatus returns the status of an answer that is no redirect: 400, 500 or 503.
	HTTPStatus() int
}

// OAuthError is what the client gets: the parameters of an error redirect (RFC 6749 section 4.1.2.1), or the JSON body of an
// error response (RFC 6749 section 5.2, RFC 7591 section 3.2.2).
type OAuthError struct {
	// Error is the error code, such as invalid_scope.
	Error string `json:"error"`

	// ErrorDescription has at most 512 bytes of printable ASCII without quote and backslash.
	ErrorDescription string `json:"error_description"`
}

// Denied is an answer: the policy says no.
//
// At registration and at the token endpoint answer HTTP 400 with OAuthError; at authorize redirect with it, after the redirect URI
// was validated.
type Denied struct {
	oauthError OAuthError

	// Reason says why the whole was denied, such as REASON_UNSUPPORTED. Newer services may have more reasons.
	Reason scopewardv1.Reason

	// Refused has every scope that was refused; the error description may name fewer.
	Refused []*scopewardv1.RefusedScope

	// Policy names the policy that decided.
	Policy *scopewardv1.PolicyVersion

	// DecisionID names this answer in the audit log.
	DecisionID string
}

// Error has the OAuth error in one line, for a log.
func (d *Denied) Error() string {
	return fmt.Sprintf("%s: %s", d.oauthError.Error, d.oauthError.ErrorDescription)
}

// OAuthError returns invalid_client_metadata at registration (RFC 7591 section 3.2.2), otherwise invalid_target for an audience
// (RFC 8707 section 2) or invalid_scope.
func (d *Denied) OAuthError() OAuthError { return d.oauthError }

// HTTPStatus returns 400.
func (d *Denied) HTTPStatus() int { return 400 }

// Unavailable means that there is no answer. Deny the login, and never with invalid_scope: the client asked nothing wrong.
type Unavailable struct {
	oauthError OAuthError
	status     int
	message    string
	cause      error

	// Code is the gRPC code, such as DeadlineExceeded; Unknown for an answer that is not understood.
	Code codes.Code

	// Reason is the stable reason of the service, such as POLICY_NOT_LOADED. Empty if the service did not say.
	Reason string

	// Metadata has what belongs to the reason, such as field or oldest_sequence. May be nil.
	Metadata map[string]string

	// RetryAfter is how long to wait before asking again, if the service said so. Otherwise zero.
	RetryAfter time.Duration
}

// Error has the cause, for the server's own log. It is not for the client.
func (u *Unavailable) Error() string { return fmt.Sprintf("%s: %s", u.Code, u.message) }

// Unwrap returns the cause, such as the error of a file that could not be read. May be nil.
func (u *Unavailable) Unwrap() error { return u.cause }

// OAuthError returns temporarily_unavailable for what passes by itself and server_error otherwise. Registration has only the
// latter (RFC 7591 section 3.2.2 has no other). The description says nothing of the cause.
func (u *Unavailable) OAuthError() OAuthError { return u.oauthError }

// HTTPStatus returns 503 for what passes by itself, otherwise 500.
func (u *Unavailable) HTTPStatus() int { return u.status }

// IsTransient returns true if the same question may be answered later without anybody doing something.
func (u *Unavailable) IsTransient() bool { return u.status == 503 }

// AuditStopped means that the audit stream cannot continue by itself; a person has to look.
//
// By Code: OutOfRange, retention has deleted what the cursor wants (oldest_sequence and newest_sequence are in Metadata);
// InvalidArgument with LOG_ID_FOREIGN, the log is another one; DataLoss, the chain is broken; any other code that waiting does
// not change.
type AuditStopped struct {
	message string
	cause   error

	// Code is the gRPC code of the service.
	Code codes.Code

	// Reason is the stable reason of the service, such as SEQUENCE_OUT_OF_RANGE. May be empty.
	Reason string

	// Metadata has what belongs to the reason. May be nil.
	Metadata map[string]string
}

func (a *AuditStopped) Error() string { return fmt.Sprintf("%s: %s", a.Code, a.message) }

// Unwrap returns the gRPC error.
func (a *AuditStopped) Unwrap() error { return a.cause }

// moment is where an answer is for, which decides how a failure is told to the OAuth client.
type moment int

const (
	atOther moment = iota
	atRegistration
	atAuthorize
	atToken
)

// isTransient returns true for what passes by itself. All other codes want a person.
func isTransient(code codes.Code, reason string) bool {
	switch code {
	case codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded, codes.Aborted, codes.Canceled:
		return reason != "ANSWER_TOO_LARGE"
	default:
		return false
	}
}

func newUnavailable(at moment, code codes.Code, message string, cause error) *Unavailable {
	return withDetails(at, code, message, cause, errorDetails{})
}

func withDetails(at moment, code codes.Code, message string, cause error, details errorDetails) *Unavailable {
	failure := &Unavailable{
		oauthError: OAuthError{"server_error", "the scope policy could not be asked; try again later"},
		status:     500,
		message:    message,
		cause:      cause,
		Code:       code,
		Reason:     details.reason,
		Metadata:   details.metadata,
		RetryAfter: details.retryAfter,
	}
	if isTransient(code, details.reason) {
		failure.status = 503
		if at != atRegistration {
			failure.oauthError.Error = "temporarily_unavailable"
		}
	}
	return failure
}
