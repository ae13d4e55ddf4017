package dev.scopeward.client;

import java.lang.management.ClassLoadingMXBean;
import java.lang.management.ManagementFactory;
import java.util.List;

/** A process of its own: prints how many classes the first two calls load after the client was made. */
final class FirstCalls {
    private FirstCalls() {}

    public static void main(String[] args) {
        ClassLoadingMXBean classes = ManagementFactory.getClassLoadingMXBean();
        try (ScopewardClient client = ScopewardClient.create(args[0])) {
            long before = classes.getTotalLoadedClassCount();
            client.expandRegistrationScopes(RegistrationQuestion.builder().scope("openid").build());
            client.checkAuthorizeScopes(AuthorizeQuestion.builder()
                    .scope("openid").registeredScope("openid").audiences(List.of(args[1])).build());
            System.out.println(classes.getTotalLoadedClassCount() - before);
        }
    }
}
