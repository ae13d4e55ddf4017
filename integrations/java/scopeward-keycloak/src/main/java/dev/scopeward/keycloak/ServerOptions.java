package dev.scopeward.keycloak;

import dev.scopeward.client.ScopewardClient;
import java.nio.file.Path;
import org.keycloak.Config;

/**
 * What the operator of the server sets as {@code --spi-client-policy-executor--scopeward--NAME=VALUE}: where Scopeward is and what to show
 * it. Not settings of a profile, which administrators of a realm read and write. Null where an option is not set.
 *
 * @param target as for {@link ScopewardClient#builder}; several IP addresses are separated by commas
 * @param tlsCaFile who issues the server's certificate
 * @param tlsCertFile the certificate to show
 * @param tlsPrivateKeyFile its key
 * @param tlsServerName the name that the server's certificate must have
 * @param tokenFile a file with a bearer token
 */
record ServerOptions(
        String target, String tlsCaFile, String tlsCertFile, String tlsPrivateKeyFile, String tlsServerName, String tokenFile) {
    static ServerOptions of(Config.Scope scope) {
        return new ServerOptions(
                scope.get("target"),
                scope.get("tls-ca-file"),
                scope.get("tls-cert-file"),
                scope.get("tls-private-key-file"),
                scope.get("tls-server-name"),
                scope.get("token-file"));
    }

    /** Makes the client. Throws {@link IllegalArgumentException} for options that are wrong or do not fit each other. */
    ScopewardClient client() {
        if (target == null || target.isBlank()) {
            throw new IllegalArgumentException("the server option spi-client-policy-executor--scopeward--target is not set");
        }
        return ScopewardClient.builder(target.split(",", -1))
                .caFile(path(tlsCaFile))
                .clientCertificate(path(tlsCertFile), path(tlsPrivateKeyFile))
                .serverName(tlsServerName)
                .tokenFile(path(tokenFile))
                .build();
    }

    private static Path path(String text) {
        return text == null ? null : Path.of(text);
    }
}
