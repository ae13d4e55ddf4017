package dev.scopeward.spring.example;

import dev.scopeward.client.AuthorizeQuestion;
import dev.scopeward.client.ScopewardClient;
import dev.scopeward.spring.ScopewardAutoConfiguration;
import dev.scopeward.testing.UserAgent;
import dev.scopeward.testing.Tool;
import java.io.PrintStream;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.core.ClientAuthenticationMethod;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClientRepository;

/** How long the authorization endpoint takes with and without the question, and the question alone, cold and warm. */
final class Latency {
    private static final int MOST_WARM_UP = 300;
    private static final String HELD = "openid offline_access";
    private static final AuthorizeQuestion QUESTION = AuthorizeQuestion.builder().scope(HELD).registeredScope(HELD).build();

    private Latency() {}

    static void measure(String target, int count, PrintStream output) {
        output.println("| what | p50 | p99 |");
        output.println("| --- | --- | --- |");
        List<Long> cold = new ArrayList<>();
        for (int i = 0; i < Math.min(count, 50); i++) {
            cold.add(time(() -> {
                try (ScopewardClient client = ScopewardClient.create(target)) {
                    client.checkAuthorizeScopes(QUESTION);
                }
            }));
        }
        print("one question, cold (with its client and connection)", cold, output);
        try (ScopewardClient client = ScopewardClient.create(target)) {
            print("one question, warm", times(count, () -> client.checkAuthorizeScopes(QUESTION)), output);
        }
        authorize("authorize request of the server alone", HELD, target, count, output, List.of(
                "spring.autoconfigure.exclude=" + ScopewardAutoConfiguration.class.getName()));
        authorize("authorize request that asks", HELD, target, count, output, List.of());
        authorize("authorize request that asks, with a step-up (recorded first)", "openid mcp:write", target, count, output, List.of());
    }

    private static void authorize(
            String what, String scope, String target, int count, PrintStream output, List<String> settings) {
        List<String> all = new ArrayList<>(settings);
        all.add("example.approves=true");
        try (ConfigurableApplicationContext server = Main.start(target, all)) {
            server.getBean(RegisteredClientRepository.class).save(RegisteredClient.withId("tool")
                    .clientId("tool")
                    .clientAuthenticationMethod(ClientAuthenticationMethod.NONE)
                    .authorizationGrantType(AuthorizationGrantType.AUTHORIZATION_CODE)
                    .redirectUri(UserAgent.REDIRECT_URI)
                    .scopes(scopes -> scopes.addAll(Tool.scopes(HELD)))
                    .build());
            UserAgent browser = new UserAgent(Main.base(server), Map.of());
            Tool tool = new Tool(browser, "tool", "");
            print(what, times(count, () -> {
                if (!tool.authorize(scope).redirected().containsKey("code")) {
                    throw new IllegalStateException("no code");
                }
            }), output);
        }
    }

    private static List<Long> times(int count, Runnable one) {
        for (int i = 0; i < Math.min(count, MOST_WARM_UP); i++) {
            one.run();
        }
        List<Long> times = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            times.add(time(one));
        }
        return times;
    }

    private static long time(Runnable one) {
        long start = System.nanoTime();
        one.run();
        return System.nanoTime() - start;
    }

    private static void print(String what, List<Long> times, PrintStream output) {
        Collections.sort(times);
        output.printf("| %s | %.2f ms | %.2f ms |%n", what, at(times, 50), at(times, 99));
    }

    private static double at(List<Long> times, int part) {
        return times.get((times.size() - 1) * part / 100) / 1e6;
    }
}
