package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"

	"github.com/scopeward/scopeward/integrations/go/scopeward"
)

// measure prints how long the authorize endpoint takes with and without the question, and the question alone, cold and warm.
func measure(ctx context.Context, logins int) error {
	return withScopeward(func(target string) error {
		asking, _, stop, err := serve("127.0.0.1:0", target, "", 0)
		if err != nil {
			return err
		}
		defer stop()
		plain, _, stopPlain, err := serve("127.0.0.1:0", target, "", 0)
		if err != nil {
			return err
		}
		defer stopPlain()
		plain.provider = plainProvider(plain.store)

		fmt.Println("| what | p50 | p99 |")
		fmt.Println("| --- | --- | --- |")
		if err := measureCold(ctx, target, min(logins, 200)); err != nil {
			return err
		}
		if err := measureWarm(ctx, target, logins); err != nil {
			return err
		}
		for _, one := range []struct {
			name, scope string
			server      *Server
		}{
			{"authorize request of fosite alone", "openid offline_access", plain},
			{"authorize request that asks", "openid offline_access", asking},
			{"authorize request that asks, with a step-up (recorded first)", "openid mcp:write", asking},
		} {
			if err := measureAuthorize(ctx, one.name, one.scope, one.server, logins); err != nil {
				return err
			}
		}
		return nil
	})
}

// plainProvider is the same server without questions.
func plainProvider(store *Store) fosite.OAuth2Provider {
	config := &fosite.Config{
		GlobalSecret: []byte("a secret of at least thirty-two bytes"), EnforcePKCEForPublicClients: true,
		RefreshTokenScopes: []string{}, ScopeStrategy: fosite.ExactScopeStrategy,
	}
	return compose.Compose(config, store, compose.NewOAuth2HMACStrategy(config),
		compose.OAuth2AuthorizeExplicitFactory, compose.OAuth2RefreshTokenGrantFactory, compose.OAuth2PKCEFactory)
}

var held = scopeward.AuthorizeQuestion{Scope: new("openid offline_access"), RegisteredScope: new("openid offline_access")}

// measureCold takes a new client for each question: its connection is part of the time.
func measureCold(ctx context.Context, target string, count int) error {
	var times []time.Duration
	for range count {
		client, err := scopeward.New(scopeward.Config{Targets: []string{target}})
		if err != nil {
			return err
		}
		start := time.Now()
		_, err = client.CheckAuthorizeScopes(ctx, held)
		times = append(times, time.Since(start))
		_ = client.Close()
		if err != nil {
			return err
		}
	}
	print("one question, cold (with its connection)", times)
	return nil
}

func measureWarm(ctx context.Context, target string, count int) error {
	client, err := scopeward.New(scopeward.Config{Targets: []string{target}})
	if err != nil {
		return err
	}
	defer client.Close()
	var times []time.Duration
	for i := range count + warmUp {
		start := time.Now()
		if _, err := client.CheckAuthorizeScopes(ctx, held); err != nil {
			return err
		}
		if i >= warmUp {
			times = append(times, time.Since(start))
		}
	}
	print("one question, warm", times)
	return nil
}

func measureAuthorize(ctx context.Context, name, scope string, server *Server, count int) error {
	login := NewLogin(server.base)
	client, err := login.Register(ctx, "openid offline_access", nil)
	if err != nil {
		return err
	}
	id, _ := client["client_id"].(string)
	var times []time.Duration
	for i := range count + warmUp {
		attempt := NewAttempt(id, scope, url.Values{})
		start := time.Now()
		if _, err := login.Authorize(ctx, attempt.Query, attempt.Query.Get("state")); err != nil {
			return err
		}
		if i >= warmUp {
			times = append(times, time.Since(start))
		}
	}
	print(name, times)
	return nil
}

const warmUp = 20

func print(name string, times []time.Duration) {
	slices.Sort(times)
	at := func(part int) time.Duration { return times[(len(times)-1)*part/100].Round(10 * time.Microsecond) }
	fmt.Printf("| %s | %s | %s |\n", name, at(50), at(99))
}
