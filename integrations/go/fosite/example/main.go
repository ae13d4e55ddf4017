// Command example is an authorization server made with fosite that asks Scopeward.
//
// Without arguments it starts Scopeward (the binary that SCOPEWARD_BIN names, or scopeward of the path), the server and a client that
// logs in, and prints each step. With -listen it serves until it is stopped, asks the Scopeward at -scopeward, and prints its URL and
// its endpoints as one line of JSON; -base, -deadline and -document are for tests that put something in front of it.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	scopewardfosite "github.com/scopeward/scopeward/integrations/go/fosite"
	"github.com/scopeward/scopeward/integrations/go/scopeward"
	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardtest"
)

const policy = `audiences:
  https://mcp.example.com:
    scopesSupported: [openid, profile, offline_access, "mcp:read", "mcp:write", admin, root]
    baselineClientScopes: [offline_access]
    defaultClientScopes: [openid, "mcp:read"]
    privilegedScopes: [admin]
    forbiddenScopes: [root]
    authorization:
      stepUpScopes: ["mcp:write"]
`

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", "", "serve at this address, such as 127.0.0.1:0, in place of the demonstration")
	target := flag.String("scopeward", scopeward.DefaultTarget, "where Scopeward is")
	base := flag.String("base", "", "the URL that clients use, if it is not that of the listener")
	document := flag.String("document", "", "a metadata document as JSON, in the place of those that would be fetched")
	deadline := flag.Duration("deadline", 0, "how long a question may take, 0 for the default of the client")
	latency := flag.Int("latency", 0, "measure this many logins with and without the question, in place of the demonstration")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *listen != "":
		err = serveUntilStopped(ctx, *listen, *target, *base, *document, *deadline)
	case *latency > 0:
		err = measure(ctx, *latency)
	default:
		err = demonstrate(ctx)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// serve runs a server until the returned function is called. Its issuer is the base, or where it listens if that is empty; 0 is the
// deadline that the client has by default.
func serve(listen, target, base string, deadline time.Duration) (*Server, net.Addr, func(), error) {
	client, err := scopeward.New(scopeward.Config{Targets: []string{target}, Deadline: deadline})
	if err != nil {
		return nil, nil, nil, err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, nil, nil, errors.Join(err, client.Close())
	}
	server := NewServer(cmp.Or(base, "http://"+listener.Addr().String()), client, scopewardfosite.Options{})
	web := &http.Server{Handler: server.Handler(), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = web.Serve(listener)
	}()
	return server, listener.Addr(), func() {
		_ = web.Close()
		<-done
		_ = client.Close()
	}, nil
}

func serveUntilStopped(ctx context.Context, listen, target, base, document string, deadline time.Duration) error {
	server, address, stop, err := serve(listen, target, base, deadline)
	if err != nil {
		return err
	}
	defer stop()
	if document != "" {
		var metadata map[string]any
		if err := json.Unmarshal([]byte(document), &metadata); err != nil {
			return err
		}
		server.store.Fetch = func(context.Context, string) (map[string]any, error) { return metadata, nil }
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{
		"url": "http://" + address.String(), "register": "/oauth/register", "authorize": "/oauth/authorize", "token": "/oauth/token",
	}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// withScopeward runs a function while a Scopeward runs.
func withScopeward(run func(target string) error) (err error) {
	folder, err := os.MkdirTemp("", "scopeward")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	decider, err := scopewardtest.Run(scopewardtest.Options{Policy: policy, Folder: folder})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, decider.Stop()) }()
	return run(decider.Target)
}

// demonstrate does one login after another, step by step.
func demonstrate(ctx context.Context) error {
	return withScopeward(func(target string) error {
		server, _, stop, err := serve("127.0.0.1:0", target, "", 0)
		if err != nil {
			return err
		}
		defer stop()
		fmt.Printf("Scopeward on %s, the authorization server on %s\n", target, server.base)
		return logIn(ctx, NewLogin(server.base))
	})
}

func logIn(ctx context.Context, login *Login) error {
	client, err := login.Register(ctx, "openid", nil)
	if err != nil {
		return err
	}
	id, _ := client["client_id"].(string)
	step := func(what string, answer map[string]any, err error) error {
		if failure := new(OAuthFailure); errors.As(err, &failure) {
			fmt.Printf("%-48s-> %v\n", what, failure)
			return nil
		}
		fmt.Printf("%-48s-> `%v`\n", what, answer["scope"])
		return err
	}
	err = step("1. registers with `openid`", client, nil)
	tokens, loginErr := login.Login(ctx, id, "openid offline_access", nil)
	err = errors.Join(err, step("2. asks for `openid offline_access`", tokens, loginErr))
	tokens, refreshErr := login.Refresh(ctx, id, tokens, nil)
	err = errors.Join(err, step("3. refreshes", tokens, refreshErr))
	tokens, loginErr = login.Login(ctx, id, "openid mcp:write", nil)
	err = errors.Join(err, step("4. steps up with the same client: `mcp:write`", tokens, loginErr))
	for i, scope := range []string{"openid root", "openid profile"} {
		tokens, loginErr = login.Login(ctx, id, scope, nil)
		err = errors.Join(err, step(fmt.Sprintf("%d. asks for `%s`", 5+i, scope), tokens, loginErr))
	}
	client, registerErr := login.Register(ctx, nil, nil)
	if registerErr != nil {
		return errors.Join(err, registerErr)
	}
	id, _ = client["client_id"].(string)
	tokens, loginErr = login.Login(ctx, id, "-", nil)
	return errors.Join(err, step("7. registers and asks without scope", tokens, loginErr))
}
