package scopeward

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // without it the health checks of the service config are silently off
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/protobuf/proto"

	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardv1"
)

const (
	// DefaultTarget is where the service listens by default.
	DefaultTarget = "127.0.0.1:50551"

	// DefaultDeadline is how long a call may take by default, its retries included.
	DefaultDeadline = time.Second
)

// Config says where the service is and who is asking. The zero value is a service on this machine.
type Config struct {
	// Targets has HOST:PORT, https://HOST:PORT, unix:/PATH or dns:///NAME:PORT, or several IP addresses. Empty means
	// [DefaultTarget]. Calls go round robin over all addresses, leaving out those that are not healthy.
	Targets []string

	// TLSCAFile has who issues the certificate of an https server (PEM). Empty means the roots of the system.
	TLSCAFile string

	// TLSCertFile has the certificate to show, with its chain (PEM). Goes with TLSPrivateKeyFile. The files of TLS are read again
	// when they change, for new connections.
	TLSCertFile string

	// TLSPrivateKeyFile has its key (PEM).
	TLSPrivateKeyFile string

	// ServerName is the name that the certificate must have, where the target does not say it.
	ServerName string

	// Token is the bearer token to show; only over TLS, or within this machine.
	Token string

	// TokenFile has the token, in place of Token. It is read for each call, so that a new token counts at once.
	TokenFile string

	// Deadline is how long a call may take at most, its retries included; an earlier deadline of the context counts too. Zero
	// means [DefaultDeadline]. Streams have none.
	Deadline time.Duration

	// DialOptions are added to those of this package, such as a stats handler for traces.
	DialOptions []grpc.DialOption
}

// Client asks the service. Make one for each process and keep it: it connects at the first call, reconnects by itself, and may be
// used by all goroutines.
//
// Every method that asks returns an [*Unavailable] where there is no answer.
type Client struct {
	connection *grpc.ClientConn
	endpoint   endpoint
	files      *tlsFiles
	token      string
	tokenFile  string
	deadline   time.Duration
	decisions  scopewardv1.ScopePolicyServiceClient
	statuses   scopewardv1.PolicyStatusServiceClient
	audit      scopewardv1.AuditServiceClient
}

// New makes a client. It reads no file and opens no connection before the first call; an error means that the settings do not fit
// each other.
func New(config Config) (*Client, error) {
	endpoint, err := parseTargets(config.Targets)
	if err != nil {
		return nil, err
	}
	if err := config.check(endpoint); err != nil {
		return nil, err
	}
	client := &Client{
		endpoint: endpoint, token: config.Token, tokenFile: config.TokenFile, deadline: config.Deadline,
	}
	if client.deadline == 0 {
		client.deadline = DefaultDeadline
	}
	options := []grpc.DialOption{
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDisableServiceConfig(),
		// After an outage the library would wait up to two minutes before it connects again.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
		// Notices a peer that is gone without a word, while a call or a stream is open.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		// Stays connected between logins.
		grpc.WithIdleTimeout(0),
		// The service is a neighbour; a proxy for the way to the internet is none for it.
		grpc.WithNoProxy(),
	}
	if endpoint.isTLS {
		client.files = &tlsFiles{
			caFile: config.TLSCAFile, certFile: config.TLSCertFile, keyFile: config.TLSPrivateKeyFile,
			serverName: config.ServerName,
		}
		options = append(options, grpc.WithTransportCredentials(fileCredentials{client.files}))
	} else {
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	target := endpoint.target
	if len(endpoint.addresses) > 1 {
		addresses := manual.NewBuilderWithScheme("scopeward")
		state := resolver.State{}
		for _, address := range endpoint.addresses {
			one := resolver.Address{Addr: address}
			state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{one}})
		}
		addresses.InitialState(state)
		options = append(options, grpc.WithResolvers(addresses))
		target = "scopeward:///"
		if config.ServerName == "" {
			options = append(options, grpc.WithAuthority("localhost"))
		}
	}
	if config.ServerName != "" {
		options = append(options, grpc.WithAuthority(config.ServerName))
	}
	client.connection, err = grpc.NewClient(target, append(options, config.DialOptions...)...)
	if err != nil {
		return nil, err
	}
	client.decisions = scopewardv1.NewScopePolicyServiceClient(client.connection)
	client.statuses = scopewardv1.NewPolicyStatusServiceClient(client.connection)
	client.audit = scopewardv1.NewAuditServiceClient(client.connection)
	return client, nil
}

func (c *Config) check(endpoint endpoint) error {
	hasToken := c.Token != "" || c.TokenFile != ""
	switch {
	case c.Token != "" && c.TokenFile != "":
		return errors.New("a token is given as Token or as TokenFile, not as both")
	case hasToken && !endpoint.isTLS && !endpoint.isLocal:
		return errors.New("a token does not travel in plaintext to another machine; use https://")
	case (c.TLSCertFile == "") != (c.TLSPrivateKeyFile == ""):
		return errors.New("TLSCertFile and TLSPrivateKeyFile are given together")
	case !endpoint.isTLS && (c.TLSCAFile != "" || c.TLSCertFile != ""):
		return errors.New("TLS files are for https:// targets")
	case endpoint.isTLS && len(endpoint.addresses) > 1 && c.ServerName == "":
		return errors.New("several https:// addresses need the ServerName that their certificates have")
	case c.Deadline < 0:
		return fmt.Errorf("deadline %s is negative", c.Deadline)
	default:
		return nil
	}
}

// Close ends calls and streams that are open, and refuses new ones.
func (c *Client) Close() error { return c.connection.Close() }

// ExpandRegistrationScopes asks which scopes a client holds after it registers (RFC 7591) or updates its registration (RFC 7592).
//
// Store Scope of the answer with the client, and return it. Errors: [*Denied] with the error for HTTP 400, [*Unavailable] with
// server_error and 503 or 500.
func (c *Client) ExpandRegistrationScopes(ctx context.Context, question RegistrationQuestion) (*RegistrationAnswer, error) {
	response, err := ask(ctx, c, atRegistration, c.decisions.ExpandRegistrationScopes, expandRequest(question))
	if err != nil {
		return nil, err
	}
	return registrationAnswer(response)
}

// CheckAuthorizeScopes asks which scopes an authorize request gets (RFC 6749 section 3.3). Not for the token endpoint: see
// [Client.CheckTokenScopes].
//
// Errors: [*Denied] and [*Unavailable], both with the error for the redirect.
func (c *Client) CheckAuthorizeScopes(ctx context.Context, question AuthorizeQuestion) (*AuthorizeAnswer, error) {
	response, err := ask(ctx, c, atAuthorize, c.decisions.CheckAuthorizeScopes, checkRequest(question))
	if err != nil {
		return nil, err
	}
	return authorizeAnswer(response)
}

// BatchCheckAuthorizeScopes asks up to 100 checks, answered under one policy version, in the order asked. Denials and errors of
// single checks are in the results; the error is for the whole.
func (c *Client) BatchCheckAuthorizeScopes(ctx context.Context, questions []AuthorizeQuestion) ([]AuthorizeResult, error) {
	request := &scopewardv1.BatchCheckAuthorizeScopesRequest{}
	for _, question := range questions {
		request.Checks = append(request.Checks, checkRequest(question))
	}
	response, err := ask(ctx, c, atAuthorize, c.decisions.BatchCheckAuthorizeScopes, request)
	if err != nil {
		return nil, err
	}
	return batchResults(atAuthorize, response.GetResults(), len(questions), authorizeResult)
}

// CheckTokenScopes asks which scopes a token gets at the token endpoint: a refresh (RFC 6749 section 6), client credentials
// (section 4.4), a JWT grant (RFC 7523) or a token exchange (RFC 8693). It only narrows: a refresh gains nothing because the policy
// changed.
//
// Errors: [*Denied] with the error for HTTP 400 (RFC 6749 section 5.2), [*Unavailable] with temporarily_unavailable and 503 or
// server_error and 500; its Code is Unimplemented if the service is older than this question.
func (c *Client) CheckTokenScopes(ctx context.Context, question TokenQuestion) (*TokenAnswer, error) {
	response, err := ask(ctx, c, atToken, c.decisions.CheckTokenScopes, tokenRequest(question))
	if err != nil {
		return nil, err
	}
	return tokenAnswer(response)
}

// BatchCheckTokenScopes asks up to 100 token checks, answered under one policy version, in the order asked. Denials and errors of
// single checks are in the results; the error is for the whole.
func (c *Client) BatchCheckTokenScopes(ctx context.Context, questions []TokenQuestion) ([]TokenResult, error) {
	request := &scopewardv1.BatchCheckTokenScopesRequest{}
	for _, question := range questions {
		request.Checks = append(request.Checks, tokenRequest(question))
	}
	response, err := ask(ctx, c, atToken, c.decisions.BatchCheckTokenScopes, request)
	if err != nil {
		return nil, err
	}
	return batchResults(atToken, response.GetResults(), len(questions), tokenResult)
}

// DescribeAudience returns what the policy says about one audience: what to advertise, and texts for consent pages. An unknown
// one is [*Unavailable] with the code NotFound.
func (c *Client) DescribeAudience(ctx context.Context, audience string) (*scopewardv1.AudienceDescription, error) {
	request := &scopewardv1.DescribeAudienceRequest{Audience: wireText(audience)}
	response, err := ask(ctx, c, atOther, c.decisions.DescribeAudience, request)
	if err != nil {
		return nil, err
	}
	if len(response.GetAudiences()) != 1 {
		message := fmt.Sprintf("%d descriptions of one audience", len(response.GetAudiences()))
		return nil, newUnavailable(atOther, codes.Unknown, message, nil)
	}
	return response.GetAudiences()[0], nil
}

// DescribeAudiences returns all audiences, ordered by name, in as many calls as it takes. An error is the last item.
func (c *Client) DescribeAudiences(ctx context.Context) iter.Seq2[*scopewardv1.AudienceDescription, error] {
	return func(yield func(*scopewardv1.AudienceDescription, error) bool) {
		request := &scopewardv1.DescribeAudienceRequest{}
		for {
			response, err := ask(ctx, c, atOther, c.decisions.DescribeAudience, request)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, description := range response.GetAudiences() {
				if !yield(description, nil) {
					return
				}
			}
			if request.PageToken = response.GetNextPageToken(); request.PageToken == "" {
				return
			}
		}
	}
}

// PolicyStatus returns which policy serves, and whether the files on disk would be accepted.
func (c *Client) PolicyStatus(ctx context.Context) (*scopewardv1.PolicyStatus, error) {
	response, err := ask(ctx, c, atOther, c.statuses.GetPolicyStatus, &scopewardv1.GetPolicyStatusRequest{})
	return response.GetStatus(), err
}

// WatchPolicyStatus returns the current state first, then each change, and repeats it every 30 seconds. It ends with an
// [*Unavailable] when the server disconnects or the context ends.
func (c *Client) WatchPolicyStatus(ctx context.Context) iter.Seq2[*scopewardv1.PolicyStatus, error] {
	return func(yield func(*scopewardv1.PolicyStatus, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		ctx, err := c.outgoing(ctx, atOther)
		if err != nil {
			yield(nil, err)
			return
		}
		stream, err := c.statuses.WatchPolicyStatus(ctx, &scopewardv1.WatchPolicyStatusRequest{})
		for err == nil {
			var response *scopewardv1.WatchPolicyStatusResponse
			if response, err = stream.Recv(); err == nil && !yield(response.GetStatus(), nil) {
				return
			}
		}
		yield(nil, unavailable(atOther, err))
	}
}

// ask makes one call, with its deadline and the caller's identity.
func ask[Q proto.Message, A any](
	ctx context.Context, c *Client, at moment, call func(context.Context, Q, ...grpc.CallOption) (A, error), question Q,
) (A, error) {
	var none A
	ctx, cancel := context.WithTimeout(ctx, c.deadline)
	defer cancel()
	ctx, err := c.outgoing(ctx, at)
	if err != nil {
		return none, err
	}
	answer, err := call(ctx, question)
	if err != nil {
		failure := unavailable(at, err)
		if failure.Code == codes.Unimplemented {
			name := strings.TrimSuffix(string(question.ProtoReflect().Descriptor().Name()), "Request")
			failure.message = "the service does not know " + name + ": it is older than this client, or is none"
		}
		return none, failure
	}
	return answer, nil
}

// outgoing adds what a call shows of its caller. Files that cannot be read are named here, and not by a failed connection.
func (c *Client) outgoing(ctx context.Context, at moment) (context.Context, error) {
	if c.files != nil {
		if _, err := c.files.config(); err != nil {
			return nil, newUnavailable(at, codes.Unauthenticated, err.Error(), err)
		}
	}
	token := c.token
	if c.tokenFile != "" {
		text, err := os.ReadFile(c.tokenFile)
		if err != nil {
			return nil, newUnavailable(at, codes.Unauthenticated, "could not read the token file: "+err.Error(), err)
		}
		if token = strings.TrimSpace(string(text)); !isVisible(token) {
			message := fmt.Sprintf("token file `%s` has no token of visible ASCII", c.tokenFile)
			return nil, newUnavailable(at, codes.Unauthenticated, message, nil)
		}
	}
	if token == "" {
		return ctx, nil
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), nil
}

func isVisible(token string) bool {
	for _, char := range []byte(token) {
		if char <= ' ' || char > '~' {
			return false
		}
	}
	return token != ""
}

// Only UNAVAILABLE is safe to ask again and passes by itself. The deadline holds for all attempts together.
const serviceConfig = `{
	"loadBalancingConfig": [{"round_robin": {}}],
	"healthCheckConfig": {"serviceName": ""},
	"methodConfig": [{
		"name": [
			{"service": "scopeward.v1.ScopePolicyService"},
			{"service": "scopeward.v1.PolicyStatusService", "method": "GetPolicyStatus"}
		],
		"retryPolicy": {
			"maxAttempts": 3,
			"initialBackoff": "0.05s",
			"maxBackoff": "0.5s",
			"backoffMultiplier": 2,
			"retryableStatusCodes": ["UNAVAILABLE"]
		}
	}]
}`
