package scopeward

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
)

// LoginID returns one id for all requests of a login: the same for the GET and the POST of a consent page, and for a reload.
//
// Make it of the parameters that the client sends with each of them: its id, the redirect URI, state, the code challenge, nonce.
// Client libraries make the last three new for each login.
func LoginID(parameters ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parameters, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// SourceOf returns where a client is from, as far as its id says: an https URL is a metadata document.
func SourceOf(clientID string) ClientSource {
	const scheme = "https://"
	if len(clientID) >= len(scheme) && strings.EqualFold(clientID[:len(scheme)], scheme) {
		return FromMetadataDocument
	}
	return FromRegistration
}

// WriteRegistrationError answers a registration request (RFC 7591 section 3.2.2): HTTP 400 with invalid_client_metadata for a
// [*Denied], 503 with Retry-After or 500, both with server_error, for an [*Unavailable] and any other error. Nothing of the cause
// is in it.
func WriteRegistrationError(w http.ResponseWriter, err error) { writeError(w, atRegistration, err) }

// WriteTokenError answers a token request (RFC 6749 section 5.2): HTTP 400 with invalid_scope or invalid_target for a [*Denied],
// 503 with Retry-After and temporarily_unavailable, or 500 with server_error, for an [*Unavailable], 500 for any other error. Nothing
// of the cause is in it.
func WriteTokenError(w http.ResponseWriter, err error) { writeError(w, atToken, err) }

func writeError(w http.ResponseWriter, at moment, err error) {
	var failure Failure
	if !errors.As(err, &failure) {
		failure = newUnavailable(at, codes.Unknown, "", err)
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	if failure.HTTPStatus() == http.StatusServiceUnavailable {
		seconds := 1.0
		if unavailable, isIt := failure.(*Unavailable); isIt {
			seconds = max(seconds, math.Ceil(unavailable.RetryAfter.Seconds()))
		}
		header.Set("Retry-After", strconv.Itoa(int(seconds)))
	}
	w.WriteHeader(failure.HTTPStatus())
	// A client that is gone is told nothing.
	_ = json.NewEncoder(w).Encode(failure.OAuthError())
}
