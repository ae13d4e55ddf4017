package dev.scopeward.client;

import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/**
 * The OAuth client, as it registered or as its metadata document says (RFC 7591 section 2).
 *
 * <p>Send the same at both moments: a rule of the policy holds only for what is sent. Null texts count as empty, null lists too.
 *
 * @param clientId empty for a client that registers and has none yet
 * @param source where the server knows the client from; null if that is not said
 * @param clientName the {@code client_name}
 * @param softwareId the {@code software_id}
 * @param softwareVersion the {@code software_version}; recorded, never matched
 * @param redirectUris the {@code redirect_uris}
 * @param grantTypes the {@code grant_types}; none means {@code authorization_code}
 * @param applicationType {@code web} or {@code native}
 */
public record OAuthClient(
        String clientId,
        ClientSource source,
        String clientName,
        String softwareId,
        String softwareVersion,
        List<String> redirectUris,
        List<String> grantTypes,
        String applicationType) {
    /**
     * Replaces null by empty and copies the lists.
     *
     * @param clientId {@link #clientId}
     * @param source {@link #source}
     * @param clientName {@link #clientName}
     * @param softwareId {@link #softwareId}
     * @param softwareVersion {@link #softwareVersion}
     * @param redirectUris {@link #redirectUris}
     * @param grantTypes {@link #grantTypes}
     * @param applicationType {@link #applicationType}
     */
    public OAuthClient {
        clientId = Objects.requireNonNullElse(clientId, "");
        clientName = Objects.requireNonNullElse(clientName, "");
        softwareId = Objects.requireNonNullElse(softwareId, "");
        softwareVersion = Objects.requireNonNullElse(softwareVersion, "");
        redirectUris = redirectUris == null ? List.of() : List.copyOf(redirectUris);
        grantTypes = grantTypes == null ? List.of() : List.copyOf(grantTypes);
        applicationType = Objects.requireNonNullElse(applicationType, "");
    }

    /**
     * Takes what matters from client metadata as received. Members that are not of their type are left out.
     *
     * @param metadata a parsed JSON object: texts, and collections of texts
     * @param clientId empty for a client that has none yet
     * @param source where the server knows the client from, or null
     * @return the client
     */
    public static OAuthClient fromMetadata(Map<String, ?> metadata, String clientId, ClientSource source) {
        return new OAuthClient(
                clientId,
                source,
                text(metadata, "client_name"),
                text(metadata, "software_id"),
                text(metadata, "software_version"),
                texts(metadata, "redirect_uris"),
                texts(metadata, "grant_types"),
                text(metadata, "application_type"));
    }

    private static String text(Map<String, ?> metadata, String name) {
        return metadata.get(name) instanceof String text ? text : "";
    }

    private static List<String> texts(Map<String, ?> metadata, String name) {
        if (!(metadata.get(name) instanceof Collection<?> items)) {
            return List.of();
        }
        return items.stream().filter(String.class::isInstance).map(String.class::cast).toList();
    }
}
