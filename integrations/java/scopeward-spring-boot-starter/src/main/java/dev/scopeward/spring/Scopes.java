package dev.scopeward.spring;

import java.util.Arrays;
import java.util.Collection;
import java.util.HashSet;
import java.util.Set;
import java.util.stream.Collectors;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;

/** Scopes as the server has them: in sets, whose order is lost. */
final class Scopes {
    private Scopes() {}

    /**
     * Returns the parameter as it was received, of which the server keeps the set alone.
     *
     * @param parameter what the request has, or null
     * @param scopes what the server took from it
     * @return null for a parameter that is not there
     */
    static String received(String parameter, Set<String> scopes) {
        if (scopes.isEmpty()) {
            return parameter == null || parameter.isBlank() ? parameter : "";
        }
        boolean isIt = parameter != null && new HashSet<>(Arrays.asList(parameter.split(" ", -1))).equals(scopes);
        return isIt ? parameter : joined(scopes);
    }

    /** Returns the set as one text, always the same for the same set. */
    static String joined(Collection<String> scopes) {
        return scopes.stream().sorted().collect(Collectors.joining(" "));
    }

    /** Returns those that are scope tokens (RFC 6749 section 3.3): the server takes no others into a client. */
    static Set<String> wellFormed(Set<String> scopes) {
        return scopes.stream()
                .filter(scope -> !scope.isEmpty() && scope.chars().allMatch(c -> c > 0x20 && c < 0x7F && c != '"' && c != '\\'))
                .collect(Collectors.toSet());
    }

    /** Returns a copy of the client that holds these scopes, for the checks of one request. It is never stored. */
    static RegisteredClient holding(RegisteredClient client, Set<String> scopes) {
        return RegisteredClient.from(client)
                .scopes(held -> {
                    held.clear();
                    held.addAll(wellFormed(scopes));
                })
                .build();
    }
}
