package dev.scopeward.spring;

import java.time.Duration;
import java.util.List;
import org.springframework.boot.context.properties.ConfigurationProperties;
import org.springframework.boot.context.properties.bind.DefaultValue;

/**
 * Where Scopeward is, and what it is asked about.
 *
 * @param target Where Scopeward is: one of HOST:PORT, http://HOST:PORT, https://HOST:PORT, unix:/PATH and dns:///NAME:PORT, or several IP
 *     addresses. Required unless there is a bean of ScopewardClient.
 * @param tls TLS of https targets
 * @param token Bearer token to show. Only over TLS, or within this machine.
 * @param tokenFile File with the bearer token, read for each call.
 * @param deadline What a call may take, retries included.
 * @param audiences Resources that this server is for, if the policy has others as well: asked for at registration, and for clients that
 *     send no resource (RFC 8707).
 */
@ConfigurationProperties(prefix = "scopeward", ignoreUnknownFields = false)
public record ScopewardProperties(
        @DefaultValue List<String> target,
        @DefaultValue Tls tls,
        String token,
        String tokenFile,
        @DefaultValue("1s") Duration deadline,
        @DefaultValue List<String> audiences) {
    /**
     * Describes the settings, without the token.
     *
     * @return for logs
     */
    @Override
    public String toString() {
        return "ScopewardProperties[target=" + target + ", tls=" + tls + ", tokenFile=" + tokenFile + ", deadline=" + deadline
                + ", audiences=" + audiences + "]";
    }

    /**
     * TLS of https targets.
     *
     * @param caFile Certificates (PEM) of who issues that of the server. By default those that Java trusts.
     * @param certFile Certificate (PEM) to show, with its chain.
     * @param privateKeyFile Key (PEM, PKCS 8) of the certificate.
     * @param serverName Name that the certificate of the server must have, where the target does not say it.
     */
    public record Tls(String caFile, String certFile, String privateKeyFile, String serverName) {}
}
