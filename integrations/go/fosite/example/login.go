package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
)

const (
	resource    = "https://mcp.example.com"
	redirectURI = "http://127.0.0.1:33418/callback"
)

// OAuthFailure is an error as the client got it: in the redirect to its callback, or in a response.
type OAuthFailure struct {
	Status int
	Header http.Header
	Answer map[string]any
}

func (f *OAuthFailure) Error() string {
	return fmt.Sprintf("%v: %v", f.Answer["error"], f.Answer["error_description"])
}

// Code is the error code, such as invalid_scope.
func (f *OAuthFailure) Code() string {
	code, _ := f.Answer["error"].(string)
	return code
}

// Login is an OAuth client with a browser, that does as MCP clients do.
type Login struct {
	base string
	http *http.Client
}

// NewLogin returns a client of the server at base.
func NewLogin(base string) *Login {
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Login{base, &http.Client{CheckRedirect: stay}}
}

// Register registers with this scope, none if it is nil, and with further metadata.
func (l *Login) Register(ctx context.Context, scope any, more map[string]any) (map[string]any, error) {
	metadata := map[string]any{
		"client_name":                "Example Tool",
		"redirect_uris":              []string{redirectURI},
		"grant_types":                []string{"authorization_code", "refresh_token"},
		"response_types":             []string{"code"},
		"token_endpoint_auth_method": "none",
	}
	if scope != nil {
		metadata["scope"] = scope
	}
	maps.Copy(metadata, more)
	return l.SendJSON(ctx, http.MethodPost, l.base+"/oauth/register", metadata, "")
}

// SendJSON sends a value, and returns the JSON object of the answer.
func (l *Login) SendJSON(ctx context.Context, method, to string, value any, token string) (map[string]any, error) {
	body, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	return l.call(ctx, method, to, "application/json", string(body), token)
}

func (l *Login) call(ctx context.Context, method, to, kind, body, token string) (map[string]any, error) {
	request, err := http.NewRequestWithContext(ctx, method, to, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", kind)
	if token != "" {
		request.Header.Set("Authorization", token)
	}
	response, err := l.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	answer := map[string]any{}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&answer); err != nil {
		return nil, fmt.Errorf("%s: %q", response.Status, text)
	}
	if response.StatusCode >= 300 {
		return nil, &OAuthFailure{response.StatusCode, response.Header, answer}
	}
	return answer, nil
}

// Attempt is one login: what the client keeps between the authorize and the token endpoint.
type Attempt struct {
	ClientID string
	Verifier string
	Query    url.Values
}

// NewAttempt begins a login. Parameters whose value is "-" are left out.
func NewAttempt(clientID, scope string, more url.Values) *Attempt {
	attempt := &Attempt{ClientID: clientID, Verifier: rand.Text() + rand.Text()}
	challenge := sha256.Sum256([]byte(attempt.Verifier))
	attempt.Query = url.Values{
		"response_type":         {"code"},
		"client_id":             {clientID},
		"redirect_uri":          {redirectURI},
		"state":                 {rand.Text()},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(challenge[:])},
		"code_challenge_method": {"S256"},
		"resource":              {resource},
		"scope":                 {scope},
	}
	maps.Copy(attempt.Query, more)
	for name, values := range attempt.Query {
		if len(values) == 1 && values[0] == "-" {
			attempt.Query.Del(name)
		}
	}
	return attempt
}

// Authorize visits the authorize endpoint with a query, and returns what came to the callback.
func (l *Login) Authorize(ctx context.Context, query url.Values, state string) (url.Values, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, l.base+"/oauth/authorize?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	response, err := l.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	location := response.Header.Get("Location")
	if !strings.HasPrefix(location, redirectURI) {
		text, _ := io.ReadAll(response.Body)
		return nil, fmt.Errorf("%s, to %q: %.500q", response.Status, location, text)
	}
	callback, err := url.Parse(location)
	if err != nil {
		return nil, err
	}
	answer := callback.Query()
	if answer.Get("state") != state {
		return nil, fmt.Errorf("the state is lost: %s", location)
	}
	if answer.Has("error") {
		members := map[string]any{"error": answer.Get("error"), "error_description": answer.Get("error_description")}
		return nil, &OAuthFailure{response.StatusCode, response.Header, members}
	}
	return answer, nil
}

// Push sends the request to the endpoint for pushed ones (RFC 9126), and returns the query that refers to it.
func (l *Login) Push(ctx context.Context, attempt *Attempt) (url.Values, error) {
	answer, err := l.post(ctx, "/oauth/par", attempt.Query)
	if err != nil {
		return nil, err
	}
	uri, _ := answer["request_uri"].(string)
	return url.Values{"client_id": {attempt.ClientID}, "request_uri": {uri}}, nil
}

// Redeem exchanges the code for tokens.
func (l *Login) Redeem(ctx context.Context, attempt *Attempt, answer url.Values) (map[string]any, error) {
	return l.post(ctx, "/oauth/token", url.Values{
		"grant_type":    {"authorization_code"},
		"client_id":     {attempt.ClientID},
		"code":          {answer.Get("code")},
		"code_verifier": {attempt.Verifier},
		"redirect_uri":  {redirectURI},
	})
}

// Login authorizes, and redeems the code.
func (l *Login) Login(ctx context.Context, clientID, scope string, more url.Values) (map[string]any, error) {
	attempt := NewAttempt(clientID, scope, more)
	answer, err := l.Authorize(ctx, attempt.Query, attempt.Query.Get("state"))
	if err != nil {
		return nil, err
	}
	return l.Redeem(ctx, attempt, answer)
}

// Refresh takes new tokens with the refresh token.
func (l *Login) Refresh(ctx context.Context, clientID string, tokens map[string]any, more url.Values) (map[string]any, error) {
	token, _ := tokens["refresh_token"].(string)
	form := url.Values{"grant_type": {"refresh_token"}, "client_id": {clientID}, "refresh_token": {token}}
	maps.Copy(form, more)
	return l.post(ctx, "/oauth/token", form)
}

func (l *Login) post(ctx context.Context, path string, form url.Values) (map[string]any, error) {
	return l.call(ctx, http.MethodPost, l.base+path, "application/x-www-form-urlencoded", form.Encode(), "")
}
